package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/warren-vpn/warren/internal/packet"
)

const (
	gamePort = 7777
	toPool   = "100.127.255.255"
	toAll    = "255.255.255.255"
)

// lab is a machine with a card and a tunnel that is configured as the daemon does.
type lab struct {
	t     *testing.T
	tun   *os.File
	index int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	namespace(t)
	setAddr(t, cable(t, "eth0", "far0"), "192.168.1.2/24")
	check(t, netlink.RouteAdd(&netlink.Route{Dst: toIPNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: []byte{192, 168, 1, 1}}))
	l := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "warren0"}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1}
	if err := netlink.LinkAdd(l); err != nil {
		t.Skipf("cannot make a TUN device: %v", err)
	}
	t.Cleanup(func() { l.Fds[0].Close() })
	check(t, unix.SetNonblock(int(l.Fds[0].Fd()), true))
	check(t, Configure("warren0", prefixes("100.64.0.1/32", "fd00::1/128"), 1420),
		SyncRoutes("warren0", prefixes("100.64.0.2/32", "fd00::/48")), SetBroadcast("warren0", netip.MustParseAddr(toPool)))
	link, err := netlink.LinkByName("warren0")
	check(t, err)
	return &lab{t, l.Fds[0], link.Attrs().Index}
}

// wait waits until fd can be read, ms milliseconds at most.
func (l *lab) wait(fd, ms int) bool {
	l.t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if !errors.Is(err, unix.EINTR) {
			check(l.t, err)
			return n > 0
		}
	}
}

// sent returns the next packet that leaves by the tunnel and that want wants; nil when there is none in time.
func (l *lab) sent(ms int, want func(p []byte) bool) []byte {
	l.t.Helper()
	for l.wait(int(l.tun.Fd()), ms) {
		buf := make([]byte, 2000)
		n, err := unix.Read(int(l.tun.Fd()), buf)
		check(l.t, err)
		if p := buf[:n]; want(p) {
			return p
		}
	}
	return nil
}

// socket makes a UDP socket as the options want it.
func (l *lab) socket(v6 bool, options ...func(fd int) error) int {
	l.t.Helper()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	check(l.t, err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	l.t.Cleanup(func() { unix.Close(fd) })
	for _, o := range options {
		check(l.t, o(fd))
	}
	return fd
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

func boundTo(addr string, port int) func(int) error {
	return func(fd int) error { return unix.Bind(fd, sockaddr(netip.MustParseAddr(addr), port)) }
}

func boundToTunnel(fd int) error { return unix.BindToDevice(fd, "warren0") }

// chosen makes the tunnel the socket's interface for multicast.
func (l *lab) chosen(fd int) error {
	err4 := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(l.index)})
	err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, l.index)
	if err4 != nil {
		return err6
	}
	return err4
}

// member lets the socket listen to a group on the tunnel, or no more.
func (l *lab) member(group string, joins bool) func(int) error {
	return func(fd int) error {
		a := netip.MustParseAddr(group)
		if a.Is4() {
			option := map[bool]int{true: unix.IP_ADD_MEMBERSHIP, false: unix.IP_DROP_MEMBERSHIP}[joins]
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, option, &unix.IPMreqn{Multiaddr: a.As4(), Ifindex: int32(l.index)})
		}
		option := map[bool]int{true: unix.IPV6_JOIN_GROUP, false: unix.IPV6_LEAVE_GROUP}[joins]
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, option, &unix.IPv6Mreq{Multiaddr: a.As16(), Interface: uint32(l.index)})
	}
}

// datagram makes a UDP packet from a member to dst. Over IPv6 it has a checksum.
func datagram(dst, text string) []byte {
	a := netip.MustParseAddr(dst)
	src := netip.MustParseAddr("100.64.0.2")
	u := append([]byte{0, 9, gamePort >> 8, gamePort & 0xff, 0, byte(8 + len(text)), 0, 0}, text...)
	if a.Is4() {
		p := []byte{0x45, 0, 0, byte(20 + len(u)), 0, 1, 0, 0, 64, 17, 0, 0}
		p = slices.Concat(p, src.AsSlice(), a.AsSlice())
		binary.BigEndian.PutUint16(p[10:], packet.Checksum(p))
		return append(p, u...)
	}
	src = netip.MustParseAddr("fd00::2")
	sum := slices.Concat(src.AsSlice(), a.AsSlice(), []byte{0, 0, 0, byte(len(u)), 0, 0, 0, 17}, u)
	binary.BigEndian.PutUint16(u[6:], packet.Checksum(sum))
	return slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(u)), 17, 64}, src.AsSlice(), a.AsSlice(), u)
}

func to(dst string) func(p []byte) bool {
	return func(p []byte) bool {
		got, _ := packet.Destination(p)
		return got == netip.MustParseAddr(dst)
	}
}

// spec/55-broadcast.md#the-host
func TestPacketsForManyLeaveByTheTunnel(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct {
		fd   int
		dsts []string
	}{
		"any socket":             {l.socket(false), []string{toPool}},
		"bound to the address":   {l.socket(false, boundTo("100.64.0.1", 0)), []string{toPool, toAll, "224.0.0.251", "239.1.2.3", "224.0.0.1"}},
		"bound to the interface": {l.socket(false, boundToTunnel), []string{toPool, toAll, "224.0.0.251", "239.1.2.3"}},
		"interface chosen":       {l.socket(false, l.chosen), []string{"224.0.0.251", "239.1.2.3"}},
		"IPv6, interface chosen": {l.socket(true, l.chosen), []string{"ff02::1", "ff02::fb", "ff05::1:3", "ff0e::1234"}},
		"IPv6, bound":            {l.socket(true, boundToTunnel), []string{"ff02::1", "ff02::fb", "ff05::1:3"}},
	} {
		for _, dst := range c.dsts {
			check(t, unix.Sendto(c.fd, []byte("who plays?"), 0, sockaddr(netip.MustParseAddr(dst), gamePort)))
			p := l.sent(2000, to(dst))
			src, _ := packet.Source(p)
			if !bytes.HasSuffix(p, []byte("who plays?")) || src != netip.MustParseAddr("100.64.0.1") && src != netip.MustParseAddr("fd00::1") {
				t.Errorf("%s: to %s left %x", name, dst, p)
			}
		}
	}
	// What has nothing to do with the tunnel goes on as before.
	fd := l.socket(false)
	for _, dst := range []string{toAll, "239.1.2.3"} {
		check(t, unix.Sendto(fd, []byte("who plays?"), 0, sockaddr(netip.MustParseAddr(dst), gamePort)))
		if p := l.sent(20, to(dst)); p != nil {
			t.Errorf("to %s left by the tunnel: %x", dst, p)
		}
	}
}

// spec/55-broadcast.md#the-host
func TestPacketsForManyReachSockets(t *testing.T) {
	l := newLab(t)
	for _, strict := range []string{"0", "1"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte(strict), 0o644); err != nil {
			t.Logf("rp_filter stays as it is: %v", err)
		}
		for name, c := range map[string]struct {
			v6      bool
			options []func(int) error
			dsts    []string
		}{
			"any":                    {false, []func(int) error{boundTo("0.0.0.0", gamePort)}, []string{toPool, toAll, "224.0.0.1"}},
			"bound to the interface": {false, []func(int) error{boundToTunnel, boundTo("0.0.0.0", gamePort)}, []string{toPool, toAll}},
			"bound to the broadcast": {false, []func(int) error{boundTo(toPool, gamePort)}, []string{toPool}},
			"in the groups": {false, []func(int) error{boundTo("0.0.0.0", gamePort), l.member("239.1.2.3", true), l.member("224.0.0.251", true)},
				[]string{"239.1.2.3", "224.0.0.251"}},
			"bound to the group": {false, []func(int) error{boundTo("239.1.2.3", gamePort), l.member("239.1.2.3", true)}, []string{"239.1.2.3"}},
			"IPv6":               {true, []func(int) error{boundTo("::", gamePort), l.member("ff02::fb", true), l.member("ff05::1:3", true)}, []string{"ff02::1", "ff02::fb", "ff05::1:3"}},
		} {
			fd := l.socket(c.v6, c.options...)
			for i, dst := range c.dsts {
				text := fmt.Sprint("I play ", i)
				_, err := unix.Write(int(l.tun.Fd()), datagram(dst, text))
				check(t, err)
				buf := make([]byte, 100)
				if !l.wait(fd, 2000) {
					t.Errorf("%s: nothing came to %s with rp_filter %s", name, dst, strict)
					continue
				}
				n, _, err := unix.Recvfrom(fd, buf, 0)
				check(t, err)
				if string(buf[:n]) != text {
					t.Errorf("%s: %q came to %s", name, buf[:n], dst)
				}
			}
		}
	}
}

// spec/55-broadcast.md#asking
func TestTheKernelTellsOfItsGroups(t *testing.T) {
	l := newLab(t)
	told := func(group string, joins bool) bool {
		var said []packet.Membership
		return l.sent(5000, func(p []byte) bool {
			said, _ = packet.ParseMembership(said[:0], p)
			return slices.Contains(said, packet.Membership{Group: netip.MustParseAddr(group), Joins: joins})
		}) != nil
	}
	groups := map[string]int{"239.1.2.3": l.socket(false), "224.0.0.251": l.socket(false), "ff02::fb": l.socket(true), "ff05::1:3": l.socket(true)}
	for group, fd := range groups {
		check(t, l.member(group, true)(fd))
		if !told(group, true) {
			t.Errorf("the kernel does not say that it has joined %s", group)
		}
	}
	for l.sent(1500, func([]byte) bool { return true }) != nil { // it says everything twice
	}
	for group := range groups { // long after, it says so again when asked
		buf := make([]byte, packet.MaxQuery)
		_, err := unix.Write(int(l.tun.Fd()), buf[:packet.MembershipQuery(buf, netip.MustParseAddr(group).Is6())])
		check(t, err)
		if !told(group, true) {
			t.Errorf("asked, the kernel does not say that it is in %s", group)
		}
	}
	for group, fd := range groups {
		check(t, l.member(group, false)(fd))
		if !told(group, false) {
			t.Errorf("the kernel does not say that it has left %s", group)
		}
	}
}

// spec/55-broadcast.md#the-host
func TestSetBroadcast(t *testing.T) {
	namespace(t)
	link := tunnel(t, "warren0")
	index := link.Attrs().Index
	check(t, Configure("warren0", prefixes("100.64.0.1/32"), 1420), netlink.LinkSetMulticastOff(link))
	theirs := netip.MustParsePrefix("203.0.113.255/32")
	route := broadcastRoute(index, theirs)
	route.Protocol = unix.RTPROT_STATIC
	check(t, netlink.RouteAdd(route))
	for _, want := range []netip.Addr{netip.MustParseAddr(toPool), netip.MustParseAddr(toPool), netip.MustParseAddr("10.255.255.255"), {}, {}, netip.MustParseAddr(toPool)} {
		check(t, SetBroadcast("warren0", want))
		got, err := broadcasts(index)
		check(t, err)
		if want.IsValid() != (len(got) == 1) || len(got) == 1 && got[0].Addr() != want {
			t.Errorf("broadcast addresses %v, want %v", got, want)
		}
	}
	if l, err := netlink.LinkByName("warren0"); err != nil || l.Attrs().RawFlags&unix.IFF_MULTICAST == 0 {
		t.Errorf("no multicast: %v", err)
	}
	route.Protocol = 0
	check(t, netlink.RouteDel(route)) // that of another is still there
	if err := SetBroadcast("nothere0", netip.Addr{}); err == nil {
		t.Error("no such interface, and no error")
	}
}
