package node

import (
	"context"
	"net"
	"net/netip"
	"time"

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

// Beacons is what a node needs to be found on local networks: udp.Beacons.
type Beacons interface {
	Listen(groups []netip.AddrPort) error
	Send(to netip.AddrPort, iface string, data []byte) error
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
	OnBattery  func() bool
	// WatchMetered blocks until ctx ends; it says when the line of this machine begins and ends to be metered. nil: nobody says so.
	WatchMetered func(ctx context.Context, changed func(metered bool))
	Uptime       func() time.Duration // goes on while the machine sleeps; nil: it never does

	// NewFeet makes the set of sockets for searches; nil: there are none.
	NewFeet func() *udp.Feet

	// ListenTCP listens on all addresses; nil: there is no TCP. DialTCP is as net.Dialer's DialContext.
	ListenTCP func(port uint16) (net.Listener, error)
	DialTCP   func(ctx context.Context, network, addr string) (net.Conn, error)

	// OpenBeacons opens what packages discover's beacons need; nil: there is no local network to search, and no DHT.
	OpenBeacons func(skip func(iface string) bool, deliver func(from netip.AddrPort, iface string, b []byte)) (Beacons, error)
	// Gateway returns the IPv4 router; nil: it is not asked for a mapping.
	Gateway      func(skip func(iface string) bool) (netip.Addr, error)
	SetBroadcast func(iface string, addr netip.Addr) error // lets the host take broadcasts to addr; after Configure
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
		OnBattery:  host.OnBattery,
		Uptime:     host.Uptime,

		NewFeet:      udp.NewFeet,
		WatchMetered: host.WatchMetered,
		ListenTCP:    listenTCP,
		SetBroadcast: host.SetBroadcast,
		Gateway:      host.Gateway,
		OpenBeacons: func(skip func(string) bool, deliver func(netip.AddrPort, string, []byte)) (Beacons, error) {
			return udp.NewBeacons(skip, deliver)
		},
	}
}
