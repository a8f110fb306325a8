package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Errors that a socket returns where a real one would.
var (
	// ErrNoAddress reports a destination of an address family in which the host has no address.
	ErrNoAddress = errors.New("network is unreachable: the host has no address of that family")
	// ErrPortInUse reports a second socket on one port.
	ErrPortInUse = errors.New("address already in use")
)

// socketQueue is how many datagrams wait at a socket before more are dropped.
const socketQueue = 1024

// firstDynamicPort is where Listen(0) begins.
const firstDynamicPort = 49152

// Host is a machine with addresses and UDP sockets.
type Host struct {
	net  *Net
	name string

	// all guarded by net.mu
	realm     *realm
	addrs     []netip.Addr
	sockets   map[uint16]*Socket
	links     map[string]*Link // by SetOneWay, to the host of that name
	pipes     map[string]*pipe // to the host of that name, or an address of a NAT's
	unplugged bool
	changed   chan struct{}
}

// Host adds a machine. The name must be new; addresses may be IPv4 and IPv6 and must be free.
// A mistake here is one in the test: it panics.
func (n *Net) Host(name string, addrs ...netip.Addr) *Host { return n.host(name, n.internet, addrs) }

func (n *Net) host(name string, where *realm, addrs []netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[name] != nil {
		panic("BUG: testnet: a second host named " + name)
	}
	h := &Host{net: n, name: name, realm: where, sockets: map[uint16]*Socket{}, links: map[string]*Link{}, pipes: map[string]*pipe{}, changed: make(chan struct{})}
	n.hosts[name] = h
	h.setAddrs(addrs)
	return h
}

// Name returns the name the host was made with.
func (h *Host) Name() string { return h.name }

// Addrs returns the host's addresses; the slice is the caller's.
func (h *Host) Addrs() []netip.Addr {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return slices.Clone(h.addrs)
}

// SetAddrs replaces the host's addresses, as when a laptop changes its network. Sockets stay open and send from the new
// addresses; what is under way to an old one is dropped on arrival.
func (h *Host) SetAddrs(addrs ...netip.Addr) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.leave()
	h.setAddrs(addrs)
	h.tellChange()
}

// leave gives up all addresses.
func (h *Host) leave() {
	for _, a := range h.addrs {
		h.realm.visible(h, a, func(r *realm, _ owner) { delete(r.owners, a) })
	}
	h.addrs = nil
}

func (h *Host) setAddrs(addrs []netip.Addr) {
	for _, a := range addrs {
		a = a.Unmap()
		h.realm.visible(h, a, func(r *realm, o owner) { r.claim(a, o) })
		h.addrs = append(h.addrs, a)
	}
}

func (h *Host) tellChange() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Changed returns a channel that is closed when the addresses change the next time.
func (h *Host) Changed() <-chan struct{} {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.changed
}

// Unplug cuts the host off (true) or connects it again (false); its addresses stay.
func (h *Host) Unplug(cut bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.unplugged = cut
}

// Listen opens a UDP socket on all addresses of the host, IPv4 and IPv6; port 0 takes a free one.
func (h *Host) Listen(port uint16) (*Socket, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if port == 0 {
		for port = firstDynamicPort; h.sockets[port] != nil; port++ {
		}
	}
	if h.net.closed {
		return nil, fmt.Errorf("listen on port %d of %s: %w", port, h.name, net.ErrClosed)
	}
	if h.sockets[port] != nil {
		return nil, fmt.Errorf("listen on port %d of %s: %w", port, h.name, ErrPortInUse)
	}
	s := &Socket{host: h, port: port, in: make(chan datagram, socketQueue), done: make(chan struct{})}
	h.sockets[port] = s
	return s, nil
}

// Socket is a UDP socket of a host.
type Socket struct {
	host *Host
	port uint16
	in   chan datagram
	once sync.Once
	done chan struct{}
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// ReadFrom waits for a datagram, copies it to b (cut off where b ends) and says who sent it. After Close it returns
// net.ErrClosed.
func (s *Socket) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	select {
	case <-s.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	default:
	}
	select {
	case d := <-s.in:
		return copy(b, d.data), d.from, nil
	case <-s.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteTo sends a copy of b. It never waits, and like UDP it does not tell what becomes of the datagram; it fails only where
// the host itself would: closed socket, no address of the family of to.
func (s *Socket) WriteTo(b []byte, to netip.AddrPort) error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.host.sockets[s.port] != s {
		return net.ErrClosed
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for _, a := range s.host.addrs {
		if a.Is4() == to.Addr().Is4() {
			s.host.net.send(s.host, Packet{At: time.Now(), From: netip.AddrPortFrom(a, s.port), To: to, Data: b})
			return nil
		}
	}
	return fmt.Errorf("send to %s: %w", to, ErrNoAddress)
}

// LocalAddrs returns the addresses of the host now; the slice is the caller's.
func (s *Socket) LocalAddrs() []netip.Addr { return s.host.Addrs() }

// Port returns the port the socket is bound to.
func (s *Socket) Port() uint16 { return s.port }

// Close ends the socket and wakes its readers. Calling it again does nothing.
func (s *Socket) Close() error {
	s.once.Do(func() {
		s.host.net.mu.Lock()
		delete(s.host.sockets, s.port)
		s.host.net.mu.Unlock()
		close(s.done)
	})
	return nil
}
