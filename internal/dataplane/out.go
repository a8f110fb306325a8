package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

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

// Run reads the TUN device until it is closed and sends what it reads, and what waits to be relayed. It returns nil when the
// device was closed.
func (n *Network) Run() error {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { n.shape(stop) }) // ends when the workers have
	err := n.plane.share(func(l *line) error { return newSender(n.plane, l, framesBatch).run(n) })
	close(stop)
	wg.Wait()
	return err
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

	road road    // of the frame at hand
	also *sender // of copies by a second way; nil until there is one

	chatter bool // the frame at hand is for many: others go before it
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
	a := n.many.hears()
	if reach := a.reach(f.Data); reach != packet.ReachOne {
		s.spread(n, a, reach, f)
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
	k, c := peer.Session.Sending(), peer.Path.Choice()
	if k == nil || !c.Way.IsValid() {
		s.hold(peer, f, true)
		return
	}
	also, ok := s.roads(peer, c, f)
	if !ok {
		return
	}
	if err := s.cut.Reset(f); err != nil {
		s.plane.drop(DropMalformed)
		return
	}
	if s.cut.MaxLen() > c.MTU {
		s.tooBig(peer, k, f, c.MTU)
		return
	}
	var marks wireguard.Mark
	if peer.Session.Fast() && s.cut.LeaveChecksums() {
		marks = wireguard.MarkPartial
	}
	s.road.count = s.cut.Count()
	if also != nil {
		also.road.count = s.road.count
	}
	sent, head := 0, s.road.head
	for {
		buf := s.room(head + s.cut.MaxLen() + overhead + wireguard.PaddingMultiple)
		inner := buf[head+wireguard.HeaderLen:]
		n := s.cut.Next(inner)
		if n == 0 {
			break
		}
		packet.ClampMSS(inner[:n], c.MTU)
		m, ok := s.seal(k, buf, n, wireguard.Padded(n, c.MTU), marks)
		if m == 0 {
			s.plane.drop(DropExpired)
			s.hold(peer, f, true)
			break
		}
		sent += m
		if also != nil && (c.AlsoMax == 0 || n <= c.AlsoMax) {
			also.repeat(buf[head : head+m])
		}
		if ok {
			s.commit(head + m)
		}
	}
	if sent == 0 {
		return
	}
	s.sent(peer, k, true, sent)
	peer.carried.Add(uint64(sent))
	s.roadUsed(true)
	if also != nil {
		also.roadUsed(true)
	}
}

// seal pads and seals the n plaintext bytes at buf[road.head+HeaderLen:], buf being what room gave, for commit. It returns the
// message's length, 0 when the keypair may send no more, and whether the road's first relay can be sent to.
func (s *sender) seal(k *wireguard.Keypair, buf []byte, n, padded int, marks wireguard.Mark) (size int, ok bool) {
	w := &s.road
	msg := buf[w.head:]
	clear(msg[wireguard.HeaderLen+n : wireguard.HeaderLen+padded])
	m, err := k.Seal(s.now, msg, padded, marks)
	if err != nil {
		return 0, false
	}
	if w.hop != nil && !w.cover(s.now, buf) {
		s.plane.drop(DropRelayNoHop)
		return m, false
	}
	return m, true
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

// flush sends all trains, in its turn, and copies after them.
func (s *sender) flush() {
	if len(s.trains) > 0 {
		if s.line != nil {
			s.line.await(s.ticket)
		}
		s.plane.send(s.trains)
	}
	s.trains, s.used, s.closed = s.trains[:0], 0, false
	if s.also != nil {
		s.also.flush()
	}
}

// send writes trains to the socket. What it does not take is lost, as on a wire.
func (p *Plane) send(trains []packet.Datagrams) {
	if err := p.socket.WriteBatch(trains); err != nil && !errors.Is(err, net.ErrClosed) && !noWay(err) {
		p.drop(DropSocket)
	}
}

// noWay reports whether a datagram was larger than the way out takes, or for an address that no way leads to: both are tried on purpose, to
// find sizes and paths, and mean no trouble.
func noWay(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMSGSIZE, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sent counts and passes on what the session says of it.
func (s *sender) sent(peer *Peer, k *wireguard.Keypair, data bool, n int) {
	if notice := peer.Session.Sent(s.now, k, data, n); notice != 0 {
		s.plane.post(Event{Kind: EventNotice, Peer: peer, Notice: notice})
	}
}

// hold keeps f until the control loop has found a session and a path. ask says that nothing else will tell it to look for them.
func (s *sender) hold(peer *Peer, f packet.Frame, ask bool) {
	if s.chatter && !s.mayWait(peer, len(f.Data), ask) {
		s.plane.drop(DropStage)
		return
	}
	first, dropped := peer.staged.add(f, ask)
	for range dropped {
		s.plane.drop(DropStage)
	}
	if first && !s.plane.post(Event{Kind: EventWanted, Peer: peer}) {
		s.plane.DropStaged(peer) // so that the next packet asks again
	}
}

// tooBig deals with a frame whose packets do not fit the path: IPv4 that may be cut is cut, all other senders are told
// (spec/51-path.md#packet-too-big).
func (s *sender) tooBig(peer *Peer, k *wireguard.Keypair, f packet.Frame, mtu int) {
	if f.Offload.GSO == packet.GSONone && packet.MayFragment(f.Data) {
		whole := make([]byte, len(f.Data)) // off the fast path: such packets are rare
		s.cut.Next(whole)
		sent, head := 0, s.road.head
		for from, next := 0, -1; next != 0; from = next {
			buf := s.room(head + mtu + overhead + wireguard.PaddingMultiple)
			var n int
			n, next = packet.Fragment(buf[head+wireguard.HeaderLen:], whole, from, mtu)
			m, ok := s.seal(k, buf, n, wireguard.Padded(n, mtu), 0)
			if sent += m; ok {
				s.commit(head + m)
			}
		}
		s.sent(peer, k, true, sent)
		peer.carried.Add(uint64(sent))
		s.roadUsed(true)
		return
	}
	s.plane.drop(DropTooBig)
	if peer.network.many.hears().reach(f.Data) != packet.ReachOne { // spec/55-broadcast.md#size
		return
	}
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

// SendControl seals a control message, empty for a keepalive, and sends it by the way to, or by peer's best when to is zero. It
// reports whether there was a session and a way that can be used now.
func (p *Plane) SendControl(peer *Peer, to wire.Way, body []byte) bool {
	s := p.ctl
	s.now = p.now()
	k := peer.Session.Sending()
	if !to.IsValid() {
		to = peer.Path.Choice().Way
	}
	if k == nil || !s.road.resolve(peer, &to) {
		return false
	}
	head := s.road.head
	buf := s.room(head + len(body) + overhead + wireguard.PaddingMultiple)
	n := copy(buf[head+wireguard.HeaderLen:], body)
	padded := n
	if n <= wire.MaxControl { // larger are probes of a path's size: not a byte more
		padded = wireguard.Padded(n, wire.MaxControl)
	}
	m, ok := s.seal(k, buf, n, padded, 0)
	if ok {
		s.commit(head + m)
	}
	s.flush()
	s.sent(peer, k, false, m)
	s.roadUsed(false)
	return m > 0
}

// SendHandshake sends a handshake message to peer by the way to, which may be relayed. It reports whether the way can be used now.
// mask masks it, nil for none, if the way leads straight to peer.
func (p *Plane) SendHandshake(peer *Peer, to wire.Way, data []byte, mask *wire.Mask) bool {
	s := p.ctl
	s.now = p.now()
	if !s.road.resolve(peer, &to) {
		return false
	}
	if s.road.hop == nil && !to.IsStream() {
		s.road.mask = mask
	}
	s.repeat(data)
	s.flush()
	s.roadUsed(false)
	return true
}

// SendRaw sends one datagram that needs no session and is for no member: a join message, or an answer to a stranger. mask masks it; nil:
// none. Without data it is an empty box, which nobody answers.
func (p *Plane) SendRaw(to netip.AddrPort, data []byte, mask *wire.Mask) {
	s := p.ctl
	if wire.IsStream(to.Addr()) {
		mask = nil
	}
	if mask != nil {
		data = mask.Box(data)
	}
	s.couple(copy(s.room(len(data)), data), to)
	s.flush()
}
