package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetBroadcast makes addr the directed broadcast address of iface, so that any socket may send to it and a socket that is
// bound to no address receives it; the zero Addr means none. It also lets iface have multicast, which a system may have
// switched off. Call it after [Configure], for the kernel drops routes with the last IPv4 address. When nothing is to
// change it costs two questions to the kernel.
//
// Nothing else is needed, and no route is taken from another interface: the limited broadcast address and multicast go out
// by iface when the socket is bound to the interface or to its address, or names it as its interface for multicast.
func SetBroadcast(iface string, addr netip.Addr) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("set the broadcast address of %s: %w", iface, err)
	}
	var errs []error
	if link.Attrs().RawFlags&unix.IFF_MULTICAST == 0 {
		if err := netlink.LinkSetMulticastOn(link); err != nil {
			errs = append(errs, fmt.Errorf("switch multicast on for %s: %w", iface, err))
		}
	}
	var want []netip.Prefix
	if addr.IsValid() {
		want = append(want, netip.PrefixFrom(addr, addr.BitLen()))
	}
	have, err := broadcasts(link.Attrs().Index)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list the broadcast addresses of %s: %w", iface, err))...)
	}
	for _, p := range difference(have, want) {
		if err := netlink.RouteDel(broadcastRoute(link.Attrs().Index, p)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the broadcast address %s from %s: %w", p.Addr(), iface, err))
		}
	}
	for _, p := range difference(want, have) {
		if err := netlink.RouteAdd(broadcastRoute(link.Attrs().Index, p)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add the broadcast address %s to %s: %w", p.Addr(), iface, err))
		}
	}
	return errors.Join(errs...)
}

// broadcastRoute is what the kernel makes by itself for the broadcast address of a card, but for the mark that it is ours.
func broadcastRoute(index int, p netip.Prefix) *netlink.Route {
	return &netlink.Route{LinkIndex: index, Dst: toIPNet(p), Protocol: routeProtocol, Scope: netlink.SCOPE_LINK, Type: unix.RTN_BROADCAST, Table: unix.RT_TABLE_LOCAL}
}

// broadcasts lists our own broadcast routes on one interface.
func broadcasts(index int) ([]netip.Prefix, error) {
	filter := &netlink.Route{LinkIndex: index, Protocol: routeProtocol, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BROADCAST}
	list, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
	})
	var out []netip.Prefix
	for _, r := range list {
		if p, ok := routeDst(r); ok && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, err
}
