package host

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// LocalAddrs lists the addresses at which a peer could reach this machine: unicast addresses of interfaces that are up,
// without loopback and link-local ones, and without the interfaces that exclude names (our own tunnels; nil: none).
// IPv4 comes first, then global IPv6, then unique local IPv6; lasting addresses before temporary ones. Each is there once.
func LocalAddrs(exclude func(iface string) bool) ([]netip.Addr, error) {
	addrs, err := readAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return reachable(addrs, exclude), nil
}

// reachable is the pure part of LocalAddrs.
func reachable(addrs []hostAddr, exclude func(iface string) bool) []netip.Addr {
	var keep []hostAddr
	for _, a := range addrs {
		if a.live && rank(a.prefix.Addr()) != 0 && (exclude == nil || !exclude(a.iface)) {
			keep = append(keep, a)
		}
	}
	slices.SortStableFunc(keep, func(a, b hostAddr) int {
		temp := 0
		if a.temp != b.temp {
			if temp = -1; a.temp {
				temp = 1
			}
		}
		return cmp.Or(cmp.Compare(rank(a.prefix.Addr()), rank(b.prefix.Addr())), temp, cmp.Compare(a.index, b.index))
	})
	var out []netip.Addr
	for _, a := range keep {
		if addr := a.prefix.Addr().WithZone(""); !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

var (
	reserved4  = netip.MustParsePrefix("240.0.0.0/4")
	thisNet4   = netip.MustParsePrefix("0.0.0.0/8")
	siteLocal6 = netip.MustParsePrefix("fec0::/10") // withdrawn by RFC 3879
)

// rank orders addresses by use to a peer, best first; 0 means of no use.
func rank(a netip.Addr) int {
	switch {
	case !a.IsGlobalUnicast() || a.Is4In6() || reserved4.Contains(a) || thisNet4.Contains(a) || siteLocal6.Contains(a):
		return 0
	case a.Is4():
		return 1
	case !a.IsPrivate():
		return 2
	}
	return 3
}
