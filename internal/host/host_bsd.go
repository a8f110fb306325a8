//go:build darwin || freebsd

package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/net/route"
)

// Configure gives iface exactly the addresses addrs, the MTU mtu (bytes), and brings it up. It makes no routes: call
// [SyncRoutes] after it.
func Configure(iface string, addrs []netip.Prefix, mtu int) error {
	have, err := interfacePrefixes(iface)
	if err != nil {
		return fmt.Errorf("configure %s: %w", iface, err)
	}
	commands := []command{{"set the MTU", []string{"ifconfig", iface, "mtu", strconv.Itoa(mtu)}}}
	for _, p := range difference(have, addrs) {
		commands = append(commands, command{"remove an address", []string{"ifconfig", iface, family(p), p.Addr().String(), "-alias"}})
	}
	for _, p := range difference(addrs, have) {
		argv := []string{"ifconfig", iface, family(p), p.String()}
		if p.Addr().Is4() {
			argv = append(argv, p.Addr().String()) // the far end of a point-to-point interface
		}
		commands = append(commands, command{"add an address", append(argv, "alias")})
	}
	commands = append(commands, command{"bring the interface up", []string{"ifconfig", iface, "up"}})
	if err := runAll(commands); err != nil {
		return fmt.Errorf("configure %s: %w", iface, err)
	}
	return nil
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "inet"
	}
	return "inet6"
}

// SyncRoutes makes the network routes through iface exactly want. The interface is ours alone, so all of them are.
func SyncRoutes(iface string, want []netip.Prefix) error {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	own, err := interfacePrefixes(iface)
	if err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	all, err := routesOf(i.Index)
	if err != nil {
		return fmt.Errorf("list the routes of %s: %w", iface, err)
	}
	mine := masked(own)
	for _, p := range own {
		mine = append(mine, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	var have []netip.Prefix
	for _, r := range all {
		have = append(have, r.dst)
	}
	want = masked(want)
	var commands []command
	for _, p := range difference(difference(have, want), mine) { // the system made those of our addresses itself
		commands = append(commands, command{"remove a route", []string{"route", "-q", "-n", "delete", "-" + family(p), p.String(), "-interface", iface}})
	}
	for _, p := range difference(want, have) {
		commands = append(commands, command{"add a route", []string{"route", "-q", "-n", "add", "-" + family(p), p.String(), "-interface", iface}})
	}
	if err := runAll(commands); err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	return nil
}

// readRoutes lists the unicast routes.
func readRoutes() ([]hostRoute, error) { return routesOf(0) }

// routesOf lists the unicast routes of one interface; 0 is all.
func routesOf(index int) ([]hostRoute, error) {
	rib, err := route.FetchRIB(syscall.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, err
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		names[i.Index] = i.Name
	}
	var out []hostRoute
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		const unusable = syscall.RTF_REJECT | syscall.RTF_BLACKHOLE | syscall.RTF_LLINFO
		if !ok || index != 0 && r.Index != index || r.Flags&syscall.RTF_UP == 0 || r.Flags&unusable != 0 {
			continue
		}
		dst, via, err := routeAddrs(r)
		if err != nil || dst.Addr().IsLoopback() || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() {
			continue
		}
		out = append(out, hostRoute{iface: names[r.Index], dst: dst, via: via})
	}
	return out, nil
}

var errNoAddr = errors.New("no address")

// routeAddrs reads destination, mask and gateway of a route message.
func routeAddrs(r *route.RouteMessage) (dst netip.Prefix, via netip.Addr, err error) {
	if len(r.Addrs) <= syscall.RTAX_DST {
		return dst, via, errNoAddr
	}
	addr, ok := routeAddr(r.Addrs[syscall.RTAX_DST])
	if !ok {
		return dst, via, errNoAddr
	}
	bits := addr.BitLen()
	if r.Flags&syscall.RTF_HOST == 0 {
		bits = 0
		if len(r.Addrs) > syscall.RTAX_NETMASK {
			if mask, ok := routeAddr(r.Addrs[syscall.RTAX_NETMASK]); ok {
				bits, _ = net.IPMask(mask.AsSlice()).Size()
			}
		}
	}
	if len(r.Addrs) > syscall.RTAX_GATEWAY {
		via, _ = routeAddr(r.Addrs[syscall.RTAX_GATEWAY])
	}
	dst, err = addr.WithZone("").Prefix(bits)
	return dst, via, err
}

func routeAddr(a route.Addr) (netip.Addr, bool) {
	switch a := a.(type) {
	case *route.Inet4Addr:
		return netip.AddrFrom4(a.IP), true
	case *route.Inet6Addr:
		return netip.AddrFrom16(a.IP), true
	}
	return netip.Addr{}, false
}
