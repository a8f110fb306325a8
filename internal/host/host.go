// Package host reads and changes settings of the machine: addresses and routes of our tunnels, the addresses at which
// this machine can be reached, changes of the network, and how the daemon is started.
//
// Linux is configured over netlink. macOS and FreeBSD are by ifconfig and route, Windows by netsh. What a system cannot
// do yet is an [ErrUnsupported] that says so. Configure and SyncRoutes change nothing but the interface they are given.
//
// All functions may be called from several goroutines. Those that change something need root.
package host

import (
	"errors"
	"net/netip"
	"slices"
)

// ErrUnsupported is in the chain of errors about something that warren cannot do on this system yet.
var ErrUnsupported = errors.New("not supported on this system yet")

// ErrNoIPv6 is in the chain of errors of [Configure] and [SyncRoutes] when IPv6 is switched off on this machine. It is
// a warning: everything of IPv4 was done.
var ErrNoIPv6 = errors.New("IPv6 is switched off on this machine (sysctl net.ipv6.conf.*.disable_ipv6, or ipv6.disable=1 at boot): the network works over IPv4 alone here")

// hostAddr is one address of one interface.
type hostAddr struct {
	iface  string
	prefix netip.Prefix // the address itself, not masked, with the length of its network
	index  int          // of the interface
	live   bool         // interface up, with a carrier, no loopback; address checked and still preferred
	temp   bool         // a privacy address that goes away
}

// hostRoute is one unicast route. Local, multicast and link-local ones are left out.
type hostRoute struct {
	iface  string // empty when it has none
	dst    netip.Prefix
	via    netip.Addr // zero: on the link
	metric int
}

// difference returns what of a is not in b.
func difference(a, b []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range a {
		if !slices.Contains(b, p) {
			out = append(out, p)
		}
	}
	return out
}

// masked returns the networks of prefixes, each once, in order.
func masked(prefixes []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
