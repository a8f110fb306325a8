package host

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func addr(iface, prefix string, index int) hostAddr {
	return hostAddr{iface: iface, prefix: netip.MustParsePrefix(prefix), index: index, live: true}
}

func ours(iface string) bool { return strings.HasPrefix(iface, "warren") }

func TestReachableAddresses(t *testing.T) {
	down := addr("eth9", "198.51.100.9/24", 9)
	down.live = false
	temp := addr("eth0", "2001:db8::99/64", 2)
	temp.temp = true
	addrs := []hostAddr{
		addr("lo", "127.0.0.1/8", 1), addr("lo", "::1/128", 1),
		addr("eth0", "fe80::1/64", 2), addr("eth0", "fd12::1/64", 2), temp, addr("eth0", "2001:db8::1/64", 2),
		addr("wlan0", "203.0.113.7/24", 3), addr("eth0", "192.168.1.2/24", 2), addr("eth0:1", "192.168.1.2/24", 2),
		addr("warren0", "100.64.0.1/32", 4), addr("warren0", "fd00::1/128", 4), down,
		addr("x", "169.254.3.4/16", 5), addr("x", "0.0.0.0/8", 5), addr("x", "240.0.0.1/4", 5), addr("x", "fec0::1/64", 5), addr("x", "224.0.0.1/32", 5),
		addr("wwan0", "100.80.0.1/30", 6),
	}
	want := []netip.Addr{}
	for _, s := range []string{"192.168.1.2", "203.0.113.7", "100.80.0.1", "2001:db8::1", "2001:db8::99", "fd12::1"} {
		want = append(want, netip.MustParseAddr(s))
	}
	if got := reachable(addrs, ours); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := reachable(addrs, nil); len(got) != len(want)+2 {
		t.Errorf("nothing excluded: %v", got)
	}
}

func TestOverlap(t *testing.T) {
	gw := netip.MustParseAddr("10.9.0.1")
	addrs := []hostAddr{
		addr("lo", "127.0.0.1/8", 1), addr("eth0", "192.168.1.2/24", 2), addr("eth0", "fe80::1/64", 2),
		addr("warren0", "100.64.0.1/10", 3), addr("tailscale0", "100.100.1.1/32", 4), addr("eth0", "fd11::1/48", 2),
	}
	route := func(iface, dst string, via netip.Addr) hostRoute {
		return hostRoute{iface: iface, dst: netip.MustParsePrefix(dst), via: via}
	}
	routes := []hostRoute{
		route("eth0", "0.0.0.0/0", gw), route("vpn0", "0.0.0.0/1", netip.Addr{}), route("vpn0", "128.0.0.0/1", netip.Addr{}),
		route("eth0", "::/0", gw), route("vpn0", "2000::/3", netip.Addr{}),
		route("warren0", "10.50.0.0/16", netip.Addr{}), route("eth1", "10.9.0.0/16", netip.Addr{}), route("eth1", "172.16.0.0/12", gw), route("", "172.0.0.0/12", netip.Addr{}),
	}
	tests := []struct{ prefix, want string }{
		{"192.168.0.0/16", "192.168.1.0/24 on eth0"},
		{"192.168.1.77/32", "192.168.1.0/24 on eth0"},
		{"192.168.2.0/24", ""},
		{"100.64.0.0/10", "100.100.1.1/32 on tailscale0"},
		{"100.64.0.0/16", ""},
		{"10.50.0.0/16", ""},
		{"10.9.8.0/24", "10.9.0.0/16 on eth1"},
		{"172.20.0.0/16", "a route to 172.16.0.0/12 by 10.9.0.1 on eth1"},
		{"172.1.0.0/16", "a route to 172.0.0.0/12"},
		{"fd11:0:0:5::/64", "fd11::/48 on eth0"},
		{"fd12::/48", ""},
		{"2001:db8::/32", ""},
		{"127.0.0.0/8", ""},
	}
	for _, tt := range tests {
		what, found := overlap(netip.MustParsePrefix(tt.prefix), addrs, routes, ours)
		if what != tt.want || found != (tt.want != "") {
			t.Errorf("%s: %q %v, want %q", tt.prefix, what, found, tt.want)
		}
	}
}

func TestPictureChangesWithTheNetworkAlone(t *testing.T) {
	a := []hostAddr{addr("eth0", "192.168.1.2/24", 2), addr("eth0", "2001:db8::1/64", 2), addr("eth0", "fe80::1/64", 2), addr("warren0", "100.64.0.1/32", 3)}
	r := []hostRoute{{iface: "eth0", dst: netip.MustParsePrefix("0.0.0.0/0"), via: netip.MustParseAddr("192.168.1.1")}, {iface: "warren0", dst: netip.MustParsePrefix("100.64.0.0/10")}}
	base := paint(a, r, ours)
	if paint([]hostAddr{a[1], a[0]}, r[:1], ours) != base {
		t.Error("order, link-local addresses or our tunnel count")
	}
	moved := []hostRoute{{iface: "eth0", dst: r[0].dst, via: netip.MustParseAddr("192.168.1.254")}}
	if paint(a, moved, ours) == base {
		t.Error("another router was not seen")
	}
	if paint(a[1:], r, ours) == base {
		t.Error("a lost address was not seen")
	}
	if paint(a, r, nil) == base {
		t.Error("a tunnel was left out unasked")
	}
	a[0].live = false
	if paint(a, r, ours) == base {
		t.Error("a pulled cable was not seen")
	}
}

// A burst of messages is one call, messages that say nothing new are none, and polling finds what had no message.
func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake := make(chan struct{}, 1)
		var mu sync.Mutex
		var now picture
		var broken error
		calls := 0
		set := func(b byte, err error) { mu.Lock(); defer mu.Unlock(); now[0], broken = b, err }
		done := make(chan error)
		w := watcher{wake: wake, poll: time.Minute, changed: func() { mu.Lock(); defer mu.Unlock(); calls++ }, look: func() (picture, error) { mu.Lock(); defer mu.Unlock(); return now, broken }}
		start := time.Now()
		go func() { done <- w.run(ctx) }()
		step := func(d time.Duration, want int, what string) {
			t.Helper()
			timer := time.NewTimer(d)
			<-timer.C
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if calls != want {
				t.Errorf("%s: %d calls after %v, want %d", what, calls, time.Since(start), want)
			}
		}
		synctest.Wait()
		set(1, nil)
		wake <- struct{}{}
		step(199*time.Millisecond, 0, "too early")
		wake <- struct{}{}
		step(time.Millisecond, 1, "a burst")
		step(time.Second, 1, "its end")
		wake <- struct{}{}
		step(time.Second, 1, "nothing new")
		set(2, nil)
		step(time.Minute, 2, "no message")
		set(3, errors.New("interrupted"))
		wake <- struct{}{}
		step(time.Second, 2, "cannot look")
		set(3, nil)
		step(2*time.Minute, 3, "looks again")
		close(wake)
		set(4, nil)
		step(2*time.Minute, 4, "no more messages")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMaskedAndDifference(t *testing.T) {
	p := func(s ...string) (out []netip.Prefix) {
		for _, x := range s {
			out = append(out, netip.MustParsePrefix(x))
		}
		return out
	}
	if got := masked(p("10.1.2.3/8", "10.9.9.9/8", "fd00::1/16")); !reflect.DeepEqual(got, p("10.0.0.0/8", "fd00::/16")) {
		t.Error(got)
	}
	if got := difference(p("1.0.0.0/8", "2.0.0.0/8"), p("2.0.0.0/8", "3.0.0.0/8")); !reflect.DeepEqual(got, p("1.0.0.0/8")) {
		t.Error(got)
	}
}
