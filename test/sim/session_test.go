package sim

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// The datagrams of the simulated sessions:
//
//	kind u8 | sender's number u32 | sender's life u32 | receiver's life as the sender knows it u32 | body
//
// hello asks for a session, welcome answers, and what comes sealed in answer to welcome confirms it. Who sends what, and when
// again, is as in WireGuard; a life takes the place of keys: what is meant for an earlier one nobody can open. A relayed
// datagram is relayed u8 | wire.RelayHeader | datagram.
const (
	hello   = 1
	welcome = 2
	sealed  = 4
	relayed = 5

	headSize     = 13
	rekeyAfter   = 120 * time.Second
	sessionLife  = 180 * time.Second
	helloEvery   = 5 * time.Second
	helloFor     = 90 * time.Second
	unansweredIn = 15 * time.Second // something was sent and nothing came back: a new handshake
	natFor       = 120 * time.Second
)

// peer is another member with whom there is, was, or is to be a session.
type peer struct {
	of   *node
	path *path.Peer

	session   bool
	life      uint32 // of the other one, in this session
	offered   uint32 // life that said hello
	initiator bool
	keyAt     time.Time // of the last handshake
	rxAt      time.Time
	unheard   time.Time // first datagram sent since rxAt; zero: none
	spokeTo   time.Time // last datagram sent straight: opens a NAT
	from      wire.Way  // of the last datagram
	helloAt   time.Time
	helloEnd  time.Time

	linked, talks, direct, link, gossip, calledUs bool // as in internal/node
	tried                                         []wire.Route
	asked, retry                                  time.Time
	backoff                                       time.Duration
	activeUntil, wantedUntil, guestUntil          time.Time
	bytes, moved                                  int // data, both ways
	passed, passedOn                              int // headers of relayed datagrams
	heard                                         int // received ones
	told                                          int
	measuredAt                                    time.Time
}

// peerOf returns the peer o, made if there is none; nil if it is no member.
func (n *node) peerOf(now time.Time, o *node) *peer {
	p := n.peers[o]
	if p == nil && o != n && !n.revoked[o] {
		p = &peer{of: o, path: n.paths().AddPeer(o.id, false)}
		n.paths().Keep(now, o.id, false)
		n.paths().SetCandidates(now, o.id, path.SourceInfo, []netip.AddrPort{o.addr})
		n.peers[o] = p
		n.order = append(n.order, p)
		n.w.near(n, o)
	}
	return p
}

// known returns the peer id if there is one.
func (n *node) known(id key.NodeID) *peer { return n.peers[n.w.byID[id]] }

// remove cuts p off.
func (n *node) remove(now time.Time, p *peer) {
	p.talks, p.session = false, false
	n.setDirect(now, p, false)
	n.neighbour(now, p, false)
	n.paths().RemovePeer(p.of.id)
	delete(n.peers, p.of)
	n.order = slices.DeleteFunc(n.order, func(o *peer) bool { return o == p })
}

// dial says whether a session with id is kept up on purpose.
func (n *node) dial(now time.Time, id key.NodeID, on bool) {
	p := n.peerOf(now, n.w.byID[id])
	if p == nil || p.linked == on {
		return
	}
	p.linked = on
	n.paths().Keep(now, id, on)
	if on && !p.talks {
		p.retry, p.backoff = now, 0
		if string(n.id[:]) > string(id[:]) {
			p.retry = now.Add(linkWait)
		} else {
			n.call(now, p)
		}
	}
}

func (n *node) call(now time.Time, p *peer) {
	n.want(now, p)
	p.backoff = min(max(2*p.backoff, firstRetry), lastRetry)
	p.retry = now.Add(p.backoff)
}

// want notes that p is to be talked to now.
func (n *node) want(now time.Time, p *peer) {
	p.wantedUntil = now.Add(wantedFor)
	if !p.talks {
		n.giveRoutes(now, p)
		n.initiate(now, p)
	}
}

// initiate begins a handshake, unless one is under way.
func (n *node) initiate(now time.Time, p *peer) {
	if now.Before(p.helloEnd) {
		return
	}
	p.helloEnd = now.Add(helloFor)
	p.tried = nil
	if !now.Before(p.helloAt) {
		n.sayHello(now, p)
	}
}

func (n *node) sayHello(now time.Time, p *peer) {
	if !p.talks {
		for _, r := range p.tried {
			if n.reaches(r) {
				n.routes().Vain(now, p.of.id, r)
			}
		}
	}
	p.helloAt, p.tried = now.Add(helloEvery), nil
	for _, way := range n.paths().Targets(now, p.of.id) {
		if !way.IsRelayed() {
			p.asked = now
		} else {
			p.tried = append(p.tried, way.Route)
		}
		n.emit(now, p, way, n.datagram(hello, 0, nil), classShake, 148)
	}
}

// tend looks after one peer once a second.
func (n *node) tend(now time.Time, p *peer) {
	id := p.of.id
	switch {
	case p.session && now.Sub(p.rxAt) > sessionLife:
		n.sessionDown(now, p)
	case p.session && !p.unheard.IsZero() && now.Sub(p.unheard) > unansweredIn:
		n.initiate(now, p)
	}
	if !p.helloAt.IsZero() && now.Before(p.helloEnd) && !now.Before(p.helloAt) {
		n.sayHello(now, p)
	}
	if p.linked && !p.talks && !now.Before(p.retry) {
		n.call(now, p)
	}
	if p.heard != p.told {
		p.told = p.heard
		n.paths().Received(now, id, p.from)
	}
	was := now.Before(p.activeUntil)
	switch {
	case p.bytes-p.moved > idleBytes:
		p.activeUntil = now.Add(activeFor)
		n.paths().Active(now, id)
		if !was {
			n.giveRoutes(now, p)
		}
	case !was && !p.activeUntil.IsZero():
		p.activeUntil = time.Time{}
		n.giveRoutes(now, p)
	}
	if p.passed-p.passedOn > idleBytes { // a hop of others: it must be known soon when it is gone, no more
		n.paths().Active(now, id)
	}
	p.moved, p.passedOn = p.bytes, p.passed
	if p.direct && now.Sub(p.measuredAt) >= 5*housekeeping { // in truth each second
		p.measuredAt = now
		if d := n.paths().Status(id).Direct; d != nil && d.RTT > 0 {
			n.routes().Measured(now, id, d.RTT, d.Jitter, d.Loss)
		}
	}
	if p.talks || p.gossip {
		n.gossips(now, p)
	}
}

func (n *node) sessionUp(now time.Time, p *peer, way wire.Way) {
	p.backoff = 0
	p.session, p.keyAt, p.rxAt, p.unheard, p.helloEnd = true, now, now, time.Time{}, time.Time{}
	if !way.IsRelayed() && p.asked.IsZero() {
		p.calledUs = true
	}
	p.measuredAt = time.Time{}
	n.paths().SessionUp(now, p.of.id, way)
	n.pathChanged(now, p)
}

func (n *node) sessionDown(now time.Time, p *peer) {
	p.session = false
	n.paths().SessionDown(now, p.of.id)
	n.pathChanged(now, p)
	p.retry = now.Add(max(p.backoff, firstRetry))
}

func (n *node) pathChanged(now time.Time, p *peer) {
	c := p.path.Choice()
	p.talks = p.session && c.Way.IsValid()
	n.setDirect(now, p, p.talks && c.Direct.IsValid())
	n.gossips(now, p)
}

// datagram makes one for a receiver of the given life. It is good until the next one.
func (n *node) datagram(kind byte, life uint32, body []byte) []byte {
	b := append(n.whole[:0], kind)
	b = binary.BigEndian.AppendUint32(b, uint32(n.n))
	b = binary.BigEndian.AppendUint32(b, n.life)
	b = binary.BigEndian.AppendUint32(b, life)
	n.whole = append(b, body...)
	return n.whole
}

// send sends a control message to p by way; the zero way is the path. It does nothing without a session.
func (n *node) send(p *peer, way wire.Way, body []byte) bool {
	if p == nil || !p.session {
		return false
	}
	if !way.IsValid() {
		if way = p.path.Choice().Way; !way.IsValid() {
			return false
		}
	}
	now := time.Now()
	if p.unheard.IsZero() {
		p.unheard = now
	}
	if p.initiator && now.Sub(p.keyAt) > rekeyAfter {
		p.keyAt = now
		n.count.add(classShake, shakeBytes-(92+28))
	}
	if c := classOf(body); c == classData {
		p.bytes += len(body)
	}
	n.emit(now, p, way, n.datagram(sealed, p.life, body), classOf(body), len(body)+32)
	return true
}

// emit puts a datagram on the way; size is what WireGuard would make of it.
func (n *node) emit(now time.Time, p *peer, way wire.Way, b []byte, c class, size int) {
	if !way.IsRelayed() {
		p.spokeTo = now
		n.count.add(c, size+28)
		n.put(way.Addr, b)
		return
	}
	hop := n.peers[n.w.byShort[way.Route.At(0)]]
	if hop == nil || !hop.talks || !hop.path.Choice().Direct.IsValid() {
		n.paths().Failed(now, p.of.id, way.Route)
		n.giveRoutes(now, p)
		return
	}
	h := wire.NewRelayHeader(n.short, way.Route, p.of.short)
	n.framed = append(slices.Grow(n.framed[:0], 1+h.Size()+len(b)), relayed)[:1+h.Size()]
	h.Put(n.framed[1:])
	n.framed = append(n.framed, b...)
	n.count.add(c, size+28+wire.RelayOverhead+h.Size())
	n.pass(now, hop, n.framed, h.Size())
}

func (n *node) put(to netip.AddrPort, b []byte) {
	n.sent++
	if err := n.sock.WriteTo(b, to); err != nil && !errors.Is(err, net.ErrClosed) {
		n.w.Errorf("node %d: %v", n.n, err)
	}
}

// receive hands in what comes, until the socket is closed.
func (n *node) receive(s *testnet.Socket, life uint32) {
	buf := make([]byte, 2048)
	for {
		size, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.alive && n.life == life {
			now := time.Now()
			n.arrived(now, n.w.byAddr[from.Addr()], buf[:size], from)
			n.arm(now, now) // what comes meanwhile is settled together
		}
		n.mu.Unlock()
	}
}

// arrived takes a datagram that o sent straight to this node.
func (n *node) arrived(now time.Time, o *node, b []byte, from netip.AddrPort) {
	if n.closed { // the NAT
		if p := n.peers[o]; o.closed || p == nil || p.spokeTo.IsZero() || now.Sub(p.spokeTo) > natFor {
			return
		}
	}
	if b[0] != relayed {
		n.opened(now, b, wire.Direct(from))
		return
	}
	h, err := wire.ParseRelayHeader(b[1:][:wire.RelayHeaderSize(int(b[3])-2)])
	if err != nil || h.Previous() != o.short || h.Receiver() != n.short {
		return
	}
	n.relay(now, n.peers[o], h, b)
}

// relay passes a relayed datagram on, or takes it if it is at its end.
func (n *node) relay(now time.Time, prev *peer, h wire.RelayHeader, b []byte) {
	src, dst := n.w.byShort[h.Source()], n.w.byShort[h.Destination()]
	if prev == nil || !prev.session || src == nil || dst == nil || n.revoked[src] || n.revoked[dst] {
		return
	}
	prev.rxAt, prev.unheard = now, time.Time{}
	prev.passed += wire.RelayOverhead + h.Size()
	prev.heard += wire.RelayOverhead + h.Size()
	if h.Final() {
		n.opened(now, b[1+h.Size():], wire.Via(h.Route().Reverse()))
		return
	}
	if n.evil != nil && n.evil.swallow {
		n.evil.dropped++
		return
	}
	next := n.peers[n.w.byShort[h.Next()]]
	switch {
	case n.leaf:
		n.send(prev, wire.Way{}, failure(h, wire.ReasonRefused))
	case next == nil || !next.talks || !next.path.Choice().Direct.IsValid():
		n.send(prev, wire.Way{}, failure(h, wire.ReasonUnreachable))
	default:
		wire.AdvanceRelayHeader(b[1:])
		n.count.add(classRelay, len(b)+60)
		n.pass(now, next, b, h.Size())
	}
}

// pass sends a relayed datagram to the next hop: its header is use of the session with that one.
func (n *node) pass(now time.Time, next *peer, b []byte, header int) {
	next.spokeTo = now
	if next.unheard.IsZero() {
		next.unheard = now
	}
	next.passed += wire.RelayOverhead + header
	n.put(next.path.Choice().Direct, b)
}

func failure(h wire.RelayHeader, why wire.PathReason) []byte {
	e := h.Failure(why)
	return e.Append(nil)
}

// opened takes a datagram for this node that came by way.
func (n *node) opened(now time.Time, b []byte, way wire.Way) {
	o := n.w.nodes[binary.BigEndian.Uint32(b[1:])]
	life, mine := binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint32(b[9:])
	p := n.peerOf(now, o)
	if p == nil {
		return // no member any more
	}
	switch b[0] {
	case hello:
		if life < p.life || life < p.offered {
			return
		}
		p.offered = life
		n.emit(now, p, way, n.datagram(welcome, life, nil), classShake, 92)
	case welcome:
		if mine != n.life || life < p.life {
			return
		}
		p.life, p.initiator = life, true
		n.sessionUp(now, p, way)
		n.emit(now, p, way, n.datagram(sealed, p.life, nil), classShake, 32)
	case sealed:
		if mine != n.life || life != p.life && life != p.offered {
			return
		}
		if !p.session || life != p.life {
			p.life, p.initiator = life, false
			n.sessionUp(now, p, way)
		}
		p.rxAt, p.unheard = now, time.Time{}
		if p.from != way {
			p.from = way
			n.paths().Received(now, o.id, way)
		}
		body := b[headSize:]
		p.heard += headSize + len(body)
		if classOf(body) == classData {
			p.bytes += len(body)
		}
		n.take(now, p, way, body)
	}
}

// take takes what was sealed.
func (n *node) take(now time.Time, p *peer, way wire.Way, b []byte) {
	switch {
	case len(b) == 0:
		return
	case b[0] == dataByte:
		n.arrivedFlow(now, p.of, b)
		return
	}
	msg, err := wire.ParseControl(b)
	if err != nil {
		n.w.wrong("node %d cannot read what %d sent: %v", n.n, p.of.n, err)
		return
	}
	id := p.of.id
	switch msg := msg.(type) {
	case wire.Ping:
		n.paths().HandlePing(now, id, way, msg)
	case wire.Pong:
		n.paths().HandlePong(now, id, way, msg)
	case wire.Records, wire.Sync:
		n.guest(now, p)
		_ = n.roster().Handle(now, id, msg.(gossip.Message)) // of one that is not up: dropped, as in internal/node
	case wire.States, wire.Digest:
		_ = n.states().Handle(now, id, msg.(gossip.Message))
	case wire.LinkWish:
		n.routes().HandleWish(now, id, msg)
	case wire.PathError:
		n.pathError(now, p, msg)
	}
}

// guest lets p, which has no link with us, gossip for a while.
func (n *node) guest(now time.Time, p *peer) {
	if p.gossip && now.Before(p.guestUntil.Add(-guestFor/2)) || p.link {
		return
	}
	p.guestUntil = now.Add(guestFor)
	n.gossips(now, p)
}

// pathError takes a path error that p sent.
func (n *node) pathError(now time.Time, p *peer, e wire.PathError) {
	to, ok := e.Back(n.short, p.of.short)
	if !ok {
		return
	}
	if to != n.short {
		n.send(n.peers[n.w.byShort[to]], wire.Way{}, e.Append(nil))
		return
	}
	dst := n.peers[n.w.byShort[e.Destination]]
	if dst == nil || !slices.ContainsFunc(n.paths().Status(dst.of.id).Candidates, func(c path.CandidateStatus) bool { return c.Way == wire.Via(e.Route) }) {
		return
	}
	next := e.Destination
	if e.Failed+1 < e.Route.Len() {
		next = e.Route.At(e.Failed + 1)
	}
	n.routes().Exclude(now, e.Route.At(e.Failed), next, excludeFor)
	n.paths().Failed(now, dst.of.id, e.Route)
	n.giveRoutes(now, dst)
}
