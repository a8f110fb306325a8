package host

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// DefaultTunnels lists the interfaces, other than those that ignore names (our own tunnels; nil: none), that look like tunnels
// and take all traffic: a default route leads to them, in whole or in halves, in some table. Dialled lines (PPP) are none.
func DefaultTunnels(ignore func(iface string) bool) ([]string, error) {
	routes, err := readRoutes()
	if err != nil {
		return nil, fmt.Errorf("look for other tunnels: %w", err)
	}
	return defaultTunnels(routes, ignore, func(name string) bool {
		i, err := net.InterfaceByName(name)
		return err == nil && i.Flags&net.FlagPointToPoint != 0
	}), nil
}

// lines are point-to-point as tunnels are, and the way to the internet itself.
var lines = []string{"ppp", "wwan", "rmnet", "pdp_ip"}

// defaultTunnels is the pure part of DefaultTunnels.
func defaultTunnels(routes []hostRoute, ignore, pointToPoint func(iface string) bool) (out []string) {
	for _, r := range routes {
		if r.iface == "" || specific(r.dst) || r.dst.Addr().IsLinkLocalUnicast() || r.dst.Addr().IsMulticast() ||
			ignore != nil && ignore(r.iface) || slices.Contains(out, r.iface) {
			continue
		}
		line := slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(r.iface, l) })
		if half := r.dst.Bits() > 0; half || pointToPoint(r.iface) && !line {
			out = append(out, r.iface)
		}
	}
	slices.Sort(out)
	return out
}
