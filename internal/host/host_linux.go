package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes in the kernel's tables (`ip route` shows "proto 187"), so that no others are touched.
const routeProtocol = 187

const (
	maxTrain = 65507 // bytes of the largest UDP send
	sealed   = 32    // bytes that sealing adds to a packet
)

const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h

// Configure gives iface exactly the addresses addrs, the MTU mtu (bytes), and brings it up. It makes no routes, not even
// those of the addresses' networks: call [SyncRoutes] after it, for the kernel drops routes with the last address of
// their kind. Link-local addresses are left alone. Nothing is sent when everything is as wanted.
func Configure(iface string, addrs []netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("configure %s: %w", iface, err)
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", iface, mtu, err)
		}
	}
	// A super-packet whose segments fill one UDP datagram train is read and sent with one system call each. A kernel that does
	// not take the limit costs a second send, nothing else.
	if segs := uint32(maxTrain / (mtu + sealed)); link.Attrs().GSOMaxSegs != segs {
		_ = netlink.LinkSetGSOMaxSegs(link, int(segs))
	}
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		// A tunnel has no use for a link-local address and the router solicitations that come with it. Where IPv6 is off
		// this fails, and does not matter.
		_ = netlink.LinkSetIP6AddrGenMode(link, addrGenModeNone)
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring %s up: %w", iface, err)
		}
	}
	return syncAddrs(link, addrs)
}

func syncAddrs(link netlink.Link, want []netip.Prefix) error {
	var have []netip.Prefix
	list, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range list {
		if p, ok := fromIPNet(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			have = append(have, p)
		}
	}
	var errs []error
	for _, p := range difference(have, want) { // first: a new IPv4 address must not become secondary to an old one
		err := netlink.AddrDel(link, &netlink.Addr{IPNet: toIPNet(p)})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s from %s: %w", p, link.Attrs().Name, err))
		}
	}
	for _, p := range difference(want, have) {
		a := &netlink.Addr{IPNet: toIPNet(p), Flags: unix.IFA_F_NOPREFIXROUTE}
		if p.Addr().Is4() {
			a.Broadcast = net.IPv4zero // none
		} else {
			a.Flags |= unix.IFA_F_NODAD // nobody else can be on a tunnel: usable at once
		}
		if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, noIPv6(p.Addr(), err)))
		}
	}
	return errors.Join(errs...)
}

// noIPv6 recognises what the kernel says when IPv6 is off.
func noIPv6(a netip.Addr, err error) error {
	if a.Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
		return fmt.Errorf("%w (%w)", ErrNoIPv6, err)
	}
	return err
}

// SyncRoutes makes our routes through iface exactly want: missing ones are added, stale ones removed, those of others
// are never touched. A wanted route that the machine already has by another way is an error; the rest is done all the
// same. When nothing is to change it costs one question to the kernel.
func SyncRoutes(iface string, want []netip.Prefix) error {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	defer h.Close()
	_ = h.SetStrictCheck(true) // the kernel filters for us; old ones do not know it, and the library filters again
	want = masked(want)
	have, err := ownRoutes(h, link.Index, routeProtocol)
	if err != nil {
		return fmt.Errorf("list the routes of %s: %w", iface, err)
	}
	var errs []error
	for _, p := range difference(have, want) {
		if err := h.RouteDel(ownRoute(link.Index, p)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the route to %s from %s: %w", p, iface, err))
		}
	}
	for _, p := range difference(want, have) {
		err := h.RouteAdd(ownRoute(link.Index, p))
		if errors.Is(err, unix.EEXIST) {
			err = errTaken
			if any, listErr := ownRoutes(h, link.Index, unix.RTPROT_UNSPEC); listErr == nil && slices.Contains(any, p) {
				err = nil // somebody made the same route for us
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("add the route to %s on %s: %w", p, iface, noIPv6(p.Addr(), err)))
		}
	}
	return errors.Join(errs...)
}

var errTaken = errors.New("this machine reaches that network by another way")

func ownRoute(index int, p netip.Prefix) *netlink.Route {
	return &netlink.Route{LinkIndex: index, Dst: toIPNet(p), Protocol: routeProtocol, Scope: netlink.SCOPE_LINK, Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN}
}

// ownRoutes lists the routes of the main table on one interface: those with the given protocol, or with any (0).
func ownRoutes(h *netlink.Handle, index int, protocol netlink.RouteProtocol) ([]netip.Prefix, error) {
	filter := &netlink.Route{LinkIndex: index, Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	mask := netlink.RT_FILTER_OIF | netlink.RT_FILTER_TABLE
	if protocol != 0 {
		mask |= netlink.RT_FILTER_PROTOCOL
	}
	var out []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := retry(func() ([]netlink.Route, error) { return h.RouteListFiltered(family, filter, mask) })
		if err != nil && !(family == netlink.FAMILY_V6 && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT))) {
			return nil, err
		}
		for _, r := range list {
			if p, ok := routeDst(r); ok {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// retry repeats a listing that a change of the system interrupted.
func retry[T any](list func() (T, error)) (T, error) {
	for tries := 0; ; tries++ {
		v, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || tries == 5 {
			return v, err
		}
	}
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func fromIPNet(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	if addr.Is4In6() && size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits), addr.BitLen() == size
}

// routeDst returns where r leads; a default route has no destination in some answers of the kernel.
func routeDst(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst != nil {
		return fromIPNet(r.Dst)
	}
	if r.Family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
}
