package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace moves this test to a network namespace of its own. Its thread is never unlocked, so it dies with the test
// and the namespace with it. Goroutines that a test starts are not in it.
func namespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace (needs root): %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	check(t, err)
	check(t, netlink.LinkSetUp(lo))
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// tunnel makes a TUN device.
func tunnel(t *testing.T, name string) netlink.Link {
	t.Helper()
	l := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1}
	if err := netlink.LinkAdd(l); err != nil {
		t.Skipf("cannot make a TUN device: %v", err)
	}
	t.Cleanup(func() {
		for _, f := range l.Fds {
			f.Close()
		}
	})
	link, err := netlink.LinkByName(name)
	check(t, err)
	return link
}

// cable makes two network cards with a cable between them, both up.
func cable(t *testing.T, a, b string) netlink.Link {
	t.Helper()
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}))
	for _, name := range []string{b, a} {
		l, err := netlink.LinkByName(name)
		check(t, err, netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName(a)
	check(t, err)
	return l
}

func setAddr(t *testing.T, l netlink.Link, p string) {
	t.Helper()
	check(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: toIPNet(netip.MustParsePrefix(p)), Flags: unix.IFA_F_NODAD}))
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrsOf(t *testing.T, iface string) []netip.Prefix {
	t.Helper()
	l, err := netlink.LinkByName(iface)
	check(t, err)
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	check(t, err)
	var out []netip.Prefix
	for _, a := range list {
		p, _ := fromIPNet(a.IPNet)
		out = append(out, p)
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Errorf("%s is not usable yet", p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// routesVia lists the routes of the main table through iface, and says which are ours.
func routesVia(t *testing.T, iface string) (all, marked []netip.Prefix) {
	t.Helper()
	l, err := netlink.LinkByName(iface)
	check(t, err)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteList(l, family)
		check(t, err)
		for _, r := range list {
			p, ok := routeDst(r)
			if !ok || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
				continue
			}
			all = append(all, p)
			if r.Protocol == routeProtocol {
				marked = append(marked, p)
			}
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	slices.SortFunc(marked, netip.Prefix.Compare)
	return all, marked
}

func TestConfigure(t *testing.T) {
	namespace(t)
	tunnel(t, "warren0")
	for _, want := range [][]netip.Prefix{
		prefixes("100.64.0.1/32", "fd00::1/128"),
		prefixes("100.64.0.1/32", "fd00::1/128"), // again: nothing to do
		prefixes("100.64.0.2/10", "fd00::1/128"), // lost a collision of addresses
		prefixes("100.64.0.3/10", "fd00::1/48"),  // in the same network
		prefixes("fd00::1/48"),
	} {
		check(t, Configure("warren0", want, 1400))
		if got := addrsOf(t, "warren0"); !reflect.DeepEqual(got, want) {
			t.Errorf("addresses %v, want %v", got, want)
		}
		l, err := netlink.LinkByName("warren0")
		if err != nil || l.Attrs().MTU != 1400 || l.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("link %+v, %v", l.Attrs(), err)
		}
		if all, _ := routesVia(t, "warren0"); len(all) != 0 && !reflect.DeepEqual(all, prefixes("fd00::1/128")) {
			t.Errorf("routes nobody asked for: %v", all)
		}
	}
	if err := Configure("nothere0", nil, 1400); err == nil || !strings.Contains(err.Error(), "nothere0") {
		t.Errorf("no such interface: %v", err)
	}
}

func TestWithoutIPv6(t *testing.T) {
	namespace(t)
	for _, which := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0o644); err != nil {
			t.Skipf("cannot switch IPv6 off: %v", err)
		}
	}
	tunnel(t, "warren0")
	err := Configure("warren0", prefixes("fd00::1/128", "100.64.0.1/32"), 1420)
	if !errors.Is(err, ErrNoIPv6) {
		t.Errorf("addresses: %v", err)
	}
	err = SyncRoutes("warren0", prefixes("fd00::/48", "100.64.0.0/10"))
	if !errors.Is(err, ErrNoIPv6) {
		t.Errorf("routes: %v", err)
	}
	if got := addrsOf(t, "warren0"); !reflect.DeepEqual(got, prefixes("100.64.0.1/32")) {
		t.Errorf("addresses %v", got)
	}
	if all, _ := routesVia(t, "warren0"); !reflect.DeepEqual(all, prefixes("100.64.0.0/10")) {
		t.Errorf("routes %v", all)
	}
	if err := Configure("warren0", prefixes("100.64.0.1/32"), 1420); err != nil {
		t.Errorf("IPv4 alone: %v", err)
	}
}

func TestSyncRoutes(t *testing.T) {
	namespace(t)
	link := tunnel(t, "warren0")
	check(t, Configure("warren0", prefixes("100.64.0.1/32", "fd00::1/128"), 1420))
	theirs := netip.MustParsePrefix("203.0.113.0/24") // an administrator's own route through our tunnel
	check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(theirs), Scope: netlink.SCOPE_LINK}))
	for _, want := range [][]netip.Prefix{
		prefixes("10.7.0.0/16", "100.64.0.0/10", "fd00::/48"),
		prefixes("10.7.0.0/16", "100.64.0.0/10", "fd00::/48"),
		prefixes("10.8.0.0/16", "100.64.0.0/10", "fd01::/48"),
		prefixes("fd01::/48"),
		nil,
	} {
		check(t, SyncRoutes("warren0", want))
		all, marked := routesVia(t, "warren0")
		if !slices.Equal(marked, want) {
			t.Errorf("our routes %v, want %v", marked, want)
		}
		if !slices.Contains(all, theirs) {
			t.Errorf("the route of another is gone: %v", all)
		}
	}
	check(t, SyncRoutes("warren0", prefixes("10.7.1.2/16", "10.7.0.0/16", "203.0.113.0/24"))) // twice the same, and one that is there
	if _, marked := routesVia(t, "warren0"); !slices.Equal(marked, prefixes("10.7.0.0/16")) {
		t.Errorf("routes %v", marked)
	}
}

func TestSyncRoutesTakesNothingFromOthers(t *testing.T) {
	namespace(t)
	setAddr(t, cable(t, "eth0", "far0"), "192.168.1.2/24")
	tunnel(t, "warren0")
	check(t, Configure("warren0", prefixes("100.64.0.1/32"), 1420))
	err := SyncRoutes("warren0", prefixes("192.168.1.0/24", "100.64.0.0/10"))
	if err == nil || !strings.Contains(err.Error(), "192.168.1.0/24") {
		t.Errorf("got %v", err)
	}
	if all, _ := routesVia(t, "eth0"); !slices.Equal(all, prefixes("192.168.1.0/24")) {
		t.Errorf("routes of eth0 %v", all)
	}
	if _, marked := routesVia(t, "warren0"); !slices.Equal(marked, prefixes("100.64.0.0/10")) {
		t.Errorf("the other route was not made: %v", marked)
	}
}

func TestLocalAddrsAndConflict(t *testing.T) {
	namespace(t)
	eth := cable(t, "eth0", "far0")
	setAddr(t, eth, "fd12::1/64")
	setAddr(t, eth, "2001:db8::1/64")
	setAddr(t, eth, "192.168.1.2/24")
	check(t, netlink.RouteAdd(&netlink.Route{Dst: toIPNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: net.IP{192, 168, 1, 1}}),
		netlink.RouteAdd(&netlink.Route{Dst: toIPNet(netip.MustParsePrefix("10.9.0.0/16")), Gw: net.IP{192, 168, 1, 9}, Table: 77}),
		netlink.RouteAdd(&netlink.Route{Dst: toIPNet(netip.MustParsePrefix("10.10.0.0/16")), Type: unix.RTN_BLACKHOLE}))
	tunnel(t, "warren0")
	check(t, Configure("warren0", prefixes("100.64.0.1/32"), 1420), SyncRoutes("warren0", prefixes("100.64.0.0/10")))

	got, err := LocalAddrs(ours)
	want := []netip.Addr{netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd12::1")}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("addresses %v, %v", got, err)
	}
	for prefix, want := range map[string]string{
		"192.168.0.0/16": "192.168.1.0/24 on eth0", "100.64.0.0/10": "", "10.9.1.0/24": "a route to 10.9.0.0/16 by 192.168.1.9 on eth0",
		"10.10.0.0/16": "", "172.16.0.0/12": "", "fd12::/48": "fd12::/64 on eth0", "fe80::/10": "", "ff00::/8": "",
	} {
		what, found, err := Conflict(netip.MustParsePrefix(prefix), ours)
		if err != nil || what != want || found != (want != "") {
			t.Errorf("%s: %q, %v", prefix, what, err)
		}
	}
	if what, found, err := Conflict(netip.MustParsePrefix("100.64.0.0/10"), nil); err != nil || !found {
		t.Errorf("our tunnel, not ignored: %q, %v", what, err)
	}
	far, err := netlink.LinkByName("far0")
	check(t, err, netlink.LinkSetDown(far))       // the cable is pulled
	tick := time.NewTicker(10 * time.Millisecond) // the kernel tells within a second
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		got, err := LocalAddrs(ours)
		if err == nil && len(got) == 0 {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("without a cable %v, %v", got, err)
		}
	}
}

func TestWatch(t *testing.T) {
	namespace(t)
	eth := cable(t, "eth0", "far0")
	setAddr(t, cable(t, "eth1", "far1"), "172.16.0.1/24")
	tun := tunnel(t, "warren0")
	h, err := netlink.NewHandle() // of this namespace, wherever it is used
	check(t, err)
	defer h.Close()
	steps := []struct {
		name string
		do   func() error
	}{
		{"address", func() error {
			return errors.Join(h.LinkSetUp(tun), h.AddrAdd(eth, &netlink.Addr{IPNet: toIPNet(netip.MustParsePrefix("192.168.1.2/24"))}))
		}},
		{"route", func() error {
			return h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: toIPNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: net.IP{192, 168, 1, 1}})
		}},
		{"link", func() error { return h.LinkSetDown(eth) }},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := 0
	err = Watch(ctx, func(iface string) bool {
		if seen == 0 { // the first look is taken with the subscription in place: now things may change
			seen++
			check(t, steps[0].do())
		}
		return ours(iface)
	}, func() {
		if seen == len(steps) {
			cancel()
			return
		}
		check(t, steps[seen].do())
		seen++
	})
	if err != nil || seen != len(steps) || ctx.Err() != context.Canceled {
		t.Errorf("saw %d of %d changes, %v, %v", seen, len(steps), err, ctx.Err())
	}
}

func BenchmarkSyncRoutesUnchanged(b *testing.B) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Skipf("cannot make a network namespace (needs root): %v", err)
	}
	l := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "warren0"}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1}
	if err := netlink.LinkAdd(l); err != nil {
		b.Skipf("cannot make a TUN device: %v", err)
	}
	want := prefixes("100.64.0.0/10", "fd00::/48")
	if err := errors.Join(Configure("warren0", prefixes("100.64.0.1/32", "fd00::1/128"), 1420), SyncRoutes("warren0", want)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := SyncRoutes("warren0", want); err != nil {
			b.Fatal(err)
		}
	}
}
