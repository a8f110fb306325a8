package host

import (
	"errors"
	"fmt"
	"net/netip"
)

// Gateway returns the IPv4 router by which this machine reaches the internet: that of the default route with the lowest metric
// that does not lead through an interface that ignore names (our own tunnels; nil: none).
func Gateway(ignore func(iface string) bool) (netip.Addr, error) {
	routes, err := readRoutes()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	return gateway(routes, ignore)
}

var errNoGateway = errors.New("no IPv4 default route over a router")

// gateway is the pure part of Gateway.
func gateway(routes []hostRoute, ignore func(iface string) bool) (netip.Addr, error) {
	var best *hostRoute
	for i, r := range routes {
		if r.dst.Bits() == 0 && r.dst.Addr().Is4() && r.via.Is4() && !r.via.IsUnspecified() && (ignore == nil || !ignore(r.iface)) &&
			(best == nil || r.metric < best.metric) {
			best = &routes[i]
		}
	}
	if best == nil {
		return netip.Addr{}, errNoGateway
	}
	return best.via, nil
}
