package node

import (
	"context"
	"net/netip"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/host"
	"github.com/warren-vpn/warren/internal/tun"
	"github.com/warren-vpn/warren/internal/udp"
)

// Socket is what a node needs of its UDP socket.
type Socket interface {
	dataplane.Socket
	Port() uint16
	Offloads() []string
	Overflow() uint64
	Close() error
}

// Tunnel is what a node needs of a TUN device.
type Tunnel interface {
	dataplane.Tunnel
	Name() string
	Offloads() []string
	Close() error
}

// Platform is everything that a node asks of the machine. Tests give it a simulated one.
type Platform struct {
	Listen     func(port uint16) (Socket, error)                                                         // 0: any free port
	OpenTunnel func(name string) (Tunnel, error)                                                         // "": the first free name
	Configure  func(iface string, addrs []netip.Prefix, mtu int) error                                   // brings the interface up
	SyncRoutes func(iface string, want []netip.Prefix) error                                             // makes iface's routes exactly these
	LocalAddrs func(exclude func(iface string) bool) ([]netip.Addr, error)                               // most useful first
	Conflict   func(p netip.Prefix, ignore func(iface string) bool) (what string, found bool, err error) // with a local network
	Watch      func(ctx context.Context, ignore func(iface string) bool, changed func()) error           // blocks until ctx ends
}

// System is this machine.
func System() Platform {
	return Platform{
		Listen:     func(port uint16) (Socket, error) { return udp.Listen(port) },
		OpenTunnel: func(name string) (Tunnel, error) { return tun.Open(name) },
		Configure:  host.Configure,
		SyncRoutes: host.SyncRoutes,
		LocalAddrs: host.LocalAddrs,
		Conflict:   host.Conflict,
		Watch:      host.Watch,
	}
}
