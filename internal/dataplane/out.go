package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	frameSize   = 65536 // of a TUN read
	framesBatch = 16    // TUN reads run to completion together
	arenaSize   = 192 << 10
	maxTrain    = 65507 // bytes of one send: the largest UDP payload
	maxSegments = 64
	maxTrains   = 64
	overhead    = wireguard.HeaderLen + wireguard.TagLen
)

// Run reads the TUN device until it is closed and sends what it reads. It returns nil when the device was closed.
func (n *Network) Run() error {
	return n.plane.share(func(l *line) error { return newSender(n.plane, l, framesBatch).run(n) })
}

// sender is the memory of one goroutine that sends: sealed messages gather in trains in the arena until flush.
type sender struct {
	plane  *Plane
	line   *line // nil for the control loop's, which waits for nobody
	ticket uint64
	frames []packet.Frame
	now    int64 // see Plane.now
	cut    packet.Segmenter

	arena  []byte
	used   int // bytes of arena in trains
	trains []packet.Datagrams
	count  int  // datagrams in the last train
	closed bool // the last train ends with a short datagram
	reply  [packet.MaxTooBig]byte
}

func newSender(p *Plane, l *line, frames int) *sender {
	s := &sender{plane: p, line: l, arena: make([]byte, arenaSize), trains: make([]packet.Datagrams, 0, maxTrains)}
	for range frames {
		s.frames = append(s.frames, packet.Frame{Data: make([]byte, frameSize)})
	}
	return s
}

func (s *sender) run(n *Network) error {
	for {
		s.line.take()
		k, err := n.tunnel.ReadFrames(s.frames)
		s.ticket = s.line.give()
		if err == nil {
			s.now = n.plane.now()
			for _, f := range s.frames[:k] {
				s.send(n, f)
			}
			s.flush()
		}
		s.line.done(s.ticket)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tunnel: %w", err)
		}
	}
}

// send routes one frame of network n.
func (s *sender) send(n *Network, f packet.Frame) {
	dst, ok := packet.Destination(f.Data)
	if !ok {
		s.plane.drop(DropMalformed)
		return
	}
	peer, ok := n.routes.Load().Lookup(dst)
	if !ok {
		s.plane.drop(DropNoRoute)
		return
	}
	s.sendTo(peer, f)
}

// sendTo seals f for peer, or lets it wait when there is no session or no path.
func (s *sender) sendTo(peer *Peer, f packet.Frame) {
	k, to := peer.Session.Sending(), peer.Path.Best()
	if k == nil || !to.IsValid() {
		s.stage(peer, f)
		return
	}
	if err := s.cut.Reset(f); err != nil {
		s.plane.drop(DropMalformed)
		return
	}
	mtu := peer.Path.MTU()
	if s.cut.MaxLen() > mtu {
		s.tooBig(peer, k, to, f, mtu)
		return
	}
	var marks wireguard.Mark
	if peer.Session.Fast() && s.cut.LeaveChecksums() {
		marks = wireguard.MarkPartial
	}
	sent := 0
	for {
		buf := s.room(s.cut.MaxLen() + overhead + wireguard.PaddingMultiple)
		n := s.cut.Next(buf[wireguard.HeaderLen:])
		if n == 0 {
			break
		}
		packet.ClampMSS(buf[wireguard.HeaderLen:wireguard.HeaderLen+n], mtu)
		m := s.seal(k, buf, n, wireguard.Padded(n, mtu), marks, to)
		if m == 0 {
			s.plane.drop(DropExpired)
			s.stage(peer, f)
			return
		}
		sent += m
	}
	s.sent(peer, k, true, sent)
}

// seal pads and seals the n plaintext bytes at buf[HeaderLen:], buf being what room gave, and adds the message to a train.
// It returns the message's length, 0 when the keypair may send no more.
func (s *sender) seal(k *wireguard.Keypair, buf []byte, n, padded int, marks wireguard.Mark, to netip.AddrPort) int {
	clear(buf[wireguard.HeaderLen+n : wireguard.HeaderLen+padded])
	m, err := k.Seal(s.now, buf, padded, marks)
	if err != nil {
		return 0
	}
	s.couple(m, to)
	return m
}

// room returns the free end of the arena, at least n bytes, after sending what is there if need be.
func (s *sender) room(n int) []byte {
	if len(s.arena)-s.used < n || len(s.trains) == maxTrains {
		s.flush()
	}
	return s.arena[s.used:]
}

// couple adds the n bytes at the free end of the arena to the last train, or begins a new one.
func (s *sender) couple(n int, to netip.AddrPort) {
	if len(s.trains) > 0 {
		t := &s.trains[len(s.trains)-1]
		if !s.closed && t.Addr == to && n <= t.Segment && s.count < maxSegments && len(t.Data)+n <= maxTrain {
			t.Data = t.Data[:len(t.Data)+n]
			s.used += n
			s.count++
			s.closed = n < t.Segment
			return
		}
	}
	s.trains = append(s.trains, packet.Datagrams{Data: s.arena[s.used : s.used+n], Segment: n, Addr: to})
	s.used += n
	s.count, s.closed = 1, false
}

// flush sends all trains, in its turn.
func (s *sender) flush() {
	if len(s.trains) > 0 {
		if s.line != nil {
			s.line.await(s.ticket)
		}
		if err := s.plane.socket.WriteBatch(s.trains); err != nil && !errors.Is(err, net.ErrClosed) {
			s.plane.drop(DropSocket)
		}
	}
	s.trains, s.used, s.closed = s.trains[:0], 0, false
}

// sent counts and passes on what the session says of it.
func (s *sender) sent(peer *Peer, k *wireguard.Keypair, data bool, n int) {
	if notice := peer.Session.Sent(s.now, k, data, n); notice != 0 {
		s.plane.post(Event{Kind: EventNotice, Peer: peer, Notice: notice})
	}
}

// stage keeps f until the control loop has found a session and a path.
func (s *sender) stage(peer *Peer, f packet.Frame) {
	first, dropped := peer.staged.add(f)
	for range dropped {
		s.plane.drop(DropStage)
	}
	if first && !s.plane.post(Event{Kind: EventWanted, Peer: peer}) {
		s.plane.DropStaged(peer) // so that the next packet asks again
	}
}

// tooBig deals with a frame whose packets do not fit the path: IPv4 that may be cut is cut, all other senders are told
// (spec/51-path.md#packet-too-big).
func (s *sender) tooBig(peer *Peer, k *wireguard.Keypair, to netip.AddrPort, f packet.Frame, mtu int) {
	if f.Offload.GSO == packet.GSONone && packet.MayFragment(f.Data) {
		whole := make([]byte, len(f.Data)) // off the fast path: such packets are rare
		s.cut.Next(whole)
		sent := 0
		for from, next := 0, -1; next != 0; from = next {
			buf := s.room(mtu + overhead + wireguard.PaddingMultiple)
			var n int
			n, next = packet.Fragment(buf[wireguard.HeaderLen:], whole, from, mtu)
			sent += s.seal(k, buf, n, wireguard.Padded(n, mtu), 0, to)
		}
		s.sent(peer, k, true, sent)
		return
	}
	s.plane.drop(DropTooBig)
	if n := packet.TooBig(s.reply[:], f.Data, mtu); n > 0 {
		peer.network.write(packet.Offload{}, [][]byte{s.reply[:n]})
	}
}

// DropStaged drops what waits for peer, as when its session is gone for good: the next packet asks for a new one.
func (p *Plane) DropStaged(peer *Peer) {
	for range peer.staged.take() {
		p.drop(DropStage)
	}
}

// SendStaged sends what waits for peer. The control loop calls it when a session or a path has come.
func (p *Plane) SendStaged(peer *Peer) {
	s := p.ctl
	s.now = p.now()
	for _, f := range peer.staged.take() {
		s.sendTo(peer, f)
	}
	s.flush()
}

// SendControl seals a control message, empty for a keepalive, and sends it to the address to, or to peer's best path when to
// is zero. It reports whether there was a session and an address.
func (p *Plane) SendControl(peer *Peer, to netip.AddrPort, body []byte) bool {
	s := p.ctl
	s.now = p.now()
	k := peer.Session.Sending()
	if !to.IsValid() {
		to = peer.Path.Best()
	}
	if k == nil || !to.IsValid() {
		return false
	}
	buf := s.room(len(body) + overhead + wireguard.PaddingMultiple)
	n := copy(buf[wireguard.HeaderLen:], body)
	padded := n
	if n <= wire.MaxControl { // larger are probes of a path's size: not a byte more
		padded = wireguard.Padded(n, wire.MaxControl)
	}
	m := s.seal(k, buf, n, padded, 0, to)
	s.flush()
	s.sent(peer, k, false, m)
	return m > 0
}

// SendRaw sends one datagram that needs no session: a handshake or join message.
func (p *Plane) SendRaw(to netip.AddrPort, data []byte) {
	s := p.ctl
	buf := s.room(len(data))
	s.couple(copy(buf, data), to)
	s.flush()
}
