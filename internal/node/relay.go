package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	errorRate, errorBurst = 20, 40 // path errors of one neighbour, a second
	shakeRate, shakeBurst = 5, 10  // relayed handshake messages of one source, a second
	overloadShare         = 100    // one in so many relayed datagrams shed is too many
	overloadHold          = 30 * time.Second
)

// answering says to whom handshake messages go that answer what is being handled: by the way that it came.
type answering struct {
	peer *peer
	way  wire.Way
}

// syncHops tells the workers who the members are, for relaying, and what this node relays.
func (m *mesh) syncHops() {
	hops := make(map[key.ShortID]*dataplane.Peer, len(m.peers))
	m.byShort = make(map[key.ShortID]*peer, len(m.peers))
	for _, p := range m.peers {
		if !p.device {
			hops[p.id.Short()], m.byShort[p.id.Short()] = p.plane, p
		}
	}
	var policy *dataplane.RelayPolicy
	if !m.leaf {
		policy = &dataplane.RelayPolicy{Rate: m.own.RelayRate / 8}
	}
	m.plane.SetHops(m.self.Short(), hops, policy)
}

// relayedHandshake deals with a handshake message that came through relays. Its source is what the relays say; what is answered goes
// there only if the handshake says the same.
func (m *mesh) relayedHandshake(now time.Time, p *peer, e dataplane.Event, load bool) {
	if !p.shakes.take(now, shakeRate, shakeBurst) || !m.wg.Owns(e.Data) {
		return
	}
	m.answer = answering{p, e.Way}
	err := m.wg.Handle(now, netip.AddrPort{}, e.Data, load)
	m.effects(now)
	m.answer = answering{}
	if err != nil {
		m.log.Debug("relayed handshake message dropped", "from", p.name, "by", e.Way, "err", err)
	}
}

// answered returns the peer whose initiation is answered; nil if e is something else.
func (m *mesh) answered(e wireguard.SendHandshake) *peer {
	if e.Peer == nil || len(e.Data) != wireguard.ResponseLen {
		return nil
	}
	return m.byKey[e.Peer.Public()]
}

// sendHandshake sends a handshake message: an answer to where the question came from, a question to wherever the peer may be.
func (m *mesh) sendHandshake(now time.Time, e wireguard.SendHandshake) {
	plane := m.w.n.plane
	m.w.n.publishIndex() // the peer sends by an answer's keypair as soon as it has the answer
	if p := m.answered(e); p != nil {
		p.said, p.ahead = true, e.Peer.Said().Sub(now)
	}
	if e.To.IsValid() {
		if e.Peer != nil && m.byKey[e.Peer.Public()] != nil {
			m.shaken(now, m.byKey[e.Peer.Public()], e.To)
		}
		plane.SendRaw(e.To, e.Data, m.came)
		return
	}
	var p *peer
	if e.Peer != nil {
		p = m.byKey[e.Peer.Public()]
	}
	if a := m.answer; a.peer != nil && e.Data[0] != wire.TypeInitiation {
		if p == nil || p == a.peer {
			plane.SendHandshake(a.peer.plane, a.way, e.Data, nil)
		}
		return
	}
	if p == nil {
		return
	}
	if len(p.initiation) > 0 && !p.talks { // the one before was not answered
		for _, r := range p.tried {
			if m.reaches(r) {
				m.routing.Vain(now, p.id, r)
			}
		}
	}
	p.initiation, p.tried = slices.Clone(e.Data), nil
	mask := m.initiationMask(p)
	targets := m.path.Targets(now, p.id)
	m.showMembership(p, targets, mask)
	for _, to := range targets {
		if !to.IsRelayed() {
			p.asked = now
			m.w.n.nat.Tried(now, to.Addr)
		} else {
			p.tried = append(p.tried, to.Route)
		}
		plane.SendHandshake(p.plane, to, e.Data, mask)
	}
}

// reaches reports whether our own link to the first relay of r is in order.
func (m *mesh) reaches(r wire.Route) bool {
	first := m.byShort[r.At(0)]
	return first != nil && first.direct && !m.path.Status(first.id).Doubt
}

// pathError takes a path error that p sent. It is believed only from the next one on the route, and goes back along it to the
// source, which looks for another way.
func (m *mesh) pathError(now time.Time, p *peer, e wire.PathError) {
	to, ok := e.Back(m.self.Short(), p.id.Short())
	if !ok || !p.errors.take(now, errorRate, errorBurst) {
		return
	}
	if to != m.self.Short() {
		if back := m.byShort[to]; back != nil && back.direct {
			m.send(back, wire.Way{}, e.Append(nil))
		}
		return
	}
	dst := m.byShort[e.Destination]
	if dst == nil || !m.uses(dst, e.Route) {
		return
	}
	next := e.Destination
	if e.Failed+1 < e.Route.Len() {
		next = e.Route.At(e.Failed + 1)
	}
	m.log.Debug("path error", "peer", dst.name, "relay", p.name, "why", e.Reason)
	m.routing.Exclude(now, e.Route.At(e.Failed), next, excludeFor)
	m.path.Failed(now, dst.id, e.Route)
	m.giveRoutes(now, dst)
}

// uses reports whether r is a way to p that this node tries or uses.
func (m *mesh) uses(p *peer, r wire.Route) bool {
	return slices.ContainsFunc(m.path.Status(p.id).Candidates, func(c path.CandidateStatus) bool { return c.Way == wire.Via(r) })
}

// noHop deals with a route whose first relay this node cannot send to.
func (m *mesh) noHop(now time.Time, p *peer, way wire.Way) {
	m.path.Failed(now, p.id, way.Route)
	m.giveRoutes(now, p)
	m.w.n.plane.SendStaged(p.plane)
}

// load is what tells whether this node relays more than it can, counted from some beginning.
type load struct {
	passed, shed   uint64 // datagrams
	received, lost uint64 // messages of the socket
}

// count counts the load as it is now.
func (m *mesh) count() load {
	st := m.plane.RelayStats()
	return load{st.Packets, st.Shed, m.w.n.plane.Received(), m.w.n.socket.Overflow()}
}

// watchLoad says in the link state when this node is to relay more than it can or may (spec/52-relay.md#load).
func (m *mesh) watchLoad(now time.Time) {
	was := m.load
	m.load = m.count()
	passed, shed := m.load.passed-was.passed, m.load.shed-was.shed
	received, lost := m.load.received-was.received, uint64(uint32(m.load.lost-was.lost)) // Linux counts in 32 bits
	if shed*overloadShare > passed || passed > 0 && lost*overloadShare > received {
		m.overloadUntil = now.Add(overloadHold)
	}
	m.routing.SetOverloaded(now, now.Before(m.overloadUntil))
}

// bucket is a budget that fills with time. The zero bucket is full.
type bucket struct {
	spent float64
	at    time.Time
}

// take takes one of burst, which fills at rate a second, and reports whether there was one.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.spent = max(0, b.spent-rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.spent+1 > burst {
		return false
	}
	b.spent++
	return true
}

// heardBy tells the path engine by which way p spoke, unless a relay on it is no member any more.
func (m *mesh) heardBy(now time.Time, p *peer, way wire.Way) {
	for i := range way.Route.Len() {
		if m.byShort[way.Route.At(i)] == nil {
			return
		}
	}
	if way.IsValid() {
		m.path.Received(now, p.id, way)
	}
}
