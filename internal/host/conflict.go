package host

import (
	"errors"
	"fmt"
	"net/netip"
)

// Conflict reports whether p overlaps a network of this machine: an address or a route of an interface that ignore does
// not name (our own tunnels; nil: none). Default routes overlap nothing, in whole or in halves. What is for people,
// such as "192.168.1.0/24 on eth0". On systems whose routes cannot be read, addresses alone are looked at.
func Conflict(p netip.Prefix, ignore func(iface string) bool) (what string, found bool, err error) {
	addrs, err := readAddrs()
	if err != nil {
		return "", false, fmt.Errorf("look for networks that overlap %s: %w", p, err)
	}
	routes, err := readRoutes()
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return "", false, fmt.Errorf("look for networks that overlap %s: %w", p, err)
	}
	what, found = overlap(p, addrs, routes, ignore)
	return what, found, nil
}

// overlap is the pure part of Conflict.
func overlap(p netip.Prefix, addrs []hostAddr, routes []hostRoute, ignore func(iface string) bool) (string, bool) {
	skip := func(iface string) bool { return ignore != nil && iface != "" && ignore(iface) }
	for _, a := range addrs {
		net := a.prefix.Masked()
		if !skip(a.iface) && specific(net) && !a.prefix.Addr().IsLoopback() && net.Overlaps(p) {
			return fmt.Sprintf("%s on %s", net, a.iface), true
		}
	}
	for _, r := range routes {
		if skip(r.iface) || !specific(r.dst) || !r.dst.Overlaps(p) {
			continue
		}
		switch {
		case r.iface == "":
			return fmt.Sprintf("a route to %s", r.dst), true
		case r.via.IsValid():
			return fmt.Sprintf("a route to %s by %s on %s", r.dst, r.via, r.iface), true
		}
		return fmt.Sprintf("%s on %s", r.dst, r.iface), true
	}
	return "", false
}

// specific reports whether n is the network of somebody, and no default route: those of other VPNs come in halves
// (0.0.0.0/1 and 128.0.0.0/1), and in IPv6 as 2000::/3.
func specific(n netip.Prefix) bool {
	if n.Addr().IsLinkLocalUnicast() || n.Addr().IsMulticast() {
		return false
	}
	if n.Addr().Is4() {
		return n.Bits() > 1
	}
	return n.Bits() > 3
}
