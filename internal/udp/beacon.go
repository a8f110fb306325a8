package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const maxBeacon = 512 // bytes of a datagram that is read; longer ones are cut, and then nobody's

// Beacons hears and sends small multicast datagrams on the local networks, from sockets of its own: one for each address
// family from which it sends and at which it is answered, and one for each group. Its methods are safe for concurrent use.
type Beacons struct {
	skip    func(iface string) bool
	deliver func(from netip.AddrPort, iface string, b []byte)
	wg      sync.WaitGroup // readers; they end when Close or Listen closes their sockets

	mu     sync.Mutex // guards what follows
	own    [2]*beaconSocket
	groups map[netip.AddrPort]*beaconSocket
	closed bool
}

// beaconSocket is a socket of one family; exactly one of v4 and v6 is set.
type beaconSocket struct {
	conn net.PacketConn
	v4   *ipv4.PacketConn
	v6   *ipv6.PacketConn
}

// NewBeacons opens the sockets that send. skip names interfaces that are left alone, such as tunnels. Each datagram that comes,
// also a node's own, goes to deliver with the interface that it came by, from some goroutine; b may be kept. The error says
// that neither address family works.
func NewBeacons(skip func(iface string) bool, deliver func(from netip.AddrPort, iface string, b []byte)) (*Beacons, error) {
	b := &Beacons{skip: skip, deliver: deliver, groups: map[netip.AddrPort]*beaconSocket{}}
	var errs []error
	for i, network := range []string{"udp4", "udp6"} {
		conn, err := net.ListenPacket(network, ":0")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.own[i] = b.open(conn, network == "udp4")
	}
	if len(errs) == len(b.own) {
		return nil, fmt.Errorf("open sockets for beacons: %w", errors.Join(errs...))
	}
	return b, nil
}

// open starts to read conn.
func (b *Beacons) open(conn net.PacketConn, v4 bool) *beaconSocket {
	s := &beaconSocket{conn: conn}
	if v4 {
		s.v4 = ipv4.NewPacketConn(conn)
		_ = s.v4.SetControlMessage(ipv4.FlagInterface, true) // where it is not known, beacons come without their interface
		_ = s.v4.SetMulticastTTL(1)                          // the default
	} else {
		s.v6 = ipv6.NewPacketConn(conn)
		_ = s.v6.SetControlMessage(ipv6.FlagInterface, true)
		_ = s.v6.SetMulticastHopLimit(1)
	}
	b.wg.Go(func() { b.read(s) }) // ends when the socket is closed
	return s
}

func (b *Beacons) read(s *beaconSocket) {
	buf := make([]byte, maxBeacon)
	var p patience
	for {
		n, index, from, err := s.readFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if p.after(err); err != nil {
			continue // such as an answer that could not be delivered
		}
		name := ""
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
		if u, ok := from.(*net.UDPAddr); ok && !b.skip(name) {
			ap := u.AddrPort()
			b.deliver(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), name, slices.Clone(buf[:n]))
		}
	}
}

func (s *beaconSocket) readFrom(buf []byte) (n, index int, from net.Addr, err error) {
	if s.v4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, from, err = s.v4.ReadFrom(buf); cm != nil {
			index = cm.IfIndex
		}
		return n, index, from, err
	}
	var cm *ipv6.ControlMessage
	if n, cm, from, err = s.v6.ReadFrom(buf); cm != nil {
		index = cm.IfIndex
	}
	return n, index, from, err
}

// Listen hears these groups from now on, and no others, on every interface that there is. It is to be called again when
// interfaces have come. Groups that cannot be heard on an interface are left out there; the error names those that are heard nowhere.
func (b *Beacons) Listen(groups []netip.AddrPort) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return net.ErrClosed
	}
	for g, s := range b.groups {
		if !slices.Contains(groups, g) {
			s.conn.Close()
			delete(b.groups, g)
		}
	}
	var errs []error
	for _, g := range groups {
		if err := b.join(g); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// join opens the socket of g, if there is none yet, and joins g on all interfaces.
func (b *Beacons) join(g netip.AddrPort) error {
	interfaces := b.interfaces()
	if len(interfaces) == 0 {
		return nil // until Listen is called again
	}
	s := b.groups[g]
	if s == nil {
		network := "udp6"
		if g.Addr().Is4() {
			network = "udp4"
		}
		conn, err := net.ListenMulticastUDP(network, &interfaces[0], net.UDPAddrFromAddrPort(g))
		if err != nil {
			return fmt.Errorf("hear %s: %w", g, err)
		}
		s = b.open(conn, g.Addr().Is4())
		b.groups[g] = s
	}
	group := &net.UDPAddr{IP: g.Addr().AsSlice()}
	for _, i := range interfaces {
		if s.v4 != nil { // an error: it is joined already, or the interface has no such family
			_ = s.v4.JoinGroup(&i, group)
		} else {
			_ = s.v6.JoinGroup(&i, group)
		}
	}
	return nil
}

// interfaces lists those that have multicast and are up.
func (b *Beacons) interfaces() []net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagLoopback != 0 || b.skip(i.Name)
	})
}

// Send sends one datagram: to a group, then on every interface, or to a host, on the interface named if it is not "". What
// cannot be sent is lost as on a wire; the error is of the last such interface when none took it.
func (b *Beacons) Send(to netip.AddrPort, iface string, data []byte) error {
	s := b.own[0]
	if !to.Addr().Is4() {
		s = b.own[1]
	}
	if s == nil {
		return fmt.Errorf("send to %s: no such address family here", to)
	}
	if !to.Addr().IsMulticast() {
		if to.Addr().IsLinkLocalUnicast() && to.Addr().Zone() == "" {
			to = netip.AddrPortFrom(to.Addr().WithZone(iface), to.Port())
		}
		_, err := s.conn.WriteTo(data, net.UDPAddrFromAddrPort(to))
		return err
	}
	var last error
	sent := false
	for _, i := range b.interfaces() {
		err := s.sendOn(i.Index, to, data)
		sent = sent || err == nil
		if err != nil {
			last = err
		}
	}
	if sent {
		return nil
	}
	return last
}

func (s *beaconSocket) sendOn(index int, to netip.AddrPort, data []byte) (err error) {
	if s.v4 != nil {
		_, err = s.v4.WriteTo(data, &ipv4.ControlMessage{IfIndex: index}, net.UDPAddrFromAddrPort(to))
	} else {
		_, err = s.v6.WriteTo(data, &ipv6.ControlMessage{IfIndex: index}, net.UDPAddrFromAddrPort(to))
	}
	return err
}

// Close closes all sockets and returns when nothing is delivered any more.
func (b *Beacons) Close() error {
	b.mu.Lock()
	b.closed = true
	for _, s := range b.groups {
		s.conn.Close()
	}
	for _, s := range b.own {
		if s != nil {
			s.conn.Close()
		}
	}
	b.mu.Unlock()
	b.wg.Wait()
	return nil
}
