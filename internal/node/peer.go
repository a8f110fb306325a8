package node

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/host"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	linkWait   = 2 * time.Second
	firstRetry = 5 * time.Second
	lastRetry  = time.Minute
	maxTried   = 8  // routes for one initiation
	maxRivals  = 16 // whose joins are shown to one whom they cost its place
)

// peer is another member, or a device that this node serves. It belongs to the control loop.
type peer struct {
	mesh    *mesh
	id      key.NodeID
	name    string
	wg      key.WGPublic
	device  bool
	invite  wire.RecordID // by which it joined; zero if by none
	session *wireguard.Peer
	path    *path.Peer
	plane   *dataplane.Peer

	linked     bool          // a session is kept up on purpose
	talks      bool          // there is a session and a path
	direct     bool          // and the path has no relays: it may be a link
	rated      bool          // the map knows how far it is
	link       bool          // both sides keep the link: it is on the map
	gossip     bool          // records are exchanged with it
	calledUs   bool          // it reached us before we sent it anything
	said       bool          // it made a handshake
	met        bool          // there has been a session: it knows this node
	unanswered int           // initiations while it was not
	ahead      time.Duration // of our clock, its clock was then
	asked      time.Time     // last handshake that we sent it directly
	initiation []byte        // the last that we sent it, while there is no answer
	tried      []wire.Route  // by which that went
	retry      time.Time     // when to call it next, if it does not talk
	backoff    time.Duration // 0: not failed yet
	reads      bool          // masked datagrams
	mask       *wire.Mask    // under which its last handshake came; nil: plain, by a relay, or there was none
	plainUntil time.Time     // it shook hands plainly: so it is answered
	tries      int           // initiations since it was up last, for initiationMask
	moved      uint64        // bytes of packets both ways at the last housekeeping
	relayed    uint64        // bytes of moved that went by relays
	received   uint64        // bytes of its own, control messages included

	activeUntil, wantedUntil, guestUntil time.Time

	shakes, errors bucket // relayed handshakes, path errors
}

// sync makes peers and routes follow the roster.
func (m *mesh) sync(now time.Time) {
	self := m.w.keys.Identity.NodeID()
	want := map[key.NodeID]bool{}
	for _, mem := range m.w.roster.Members {
		if mem.ID == self || mem.WG.IsZero() || mem.Device && !slices.Contains(mem.Gateways, self) {
			continue
		}
		want[mem.ID] = true
		p := m.peers[mem.ID]
		if p != nil && p.wg != mem.WG {
			m.remove(now, p)
			p = nil
		}
		if p == nil {
			p = m.add(now, mem)
		}
		p.name, p.invite = mem.Name, mem.Via.Invite
		p.reads = !p.device && mem.Info.Caps&wire.CapMask != 0
		if !p.device {
			p.session.SetFast(mem.Info.Caps&ownCaps()&wire.CapFast != 0)
			m.path.SetCandidates(now, p.id, path.SourceInfo, mem.Endpoints)
		}
	}
	var gone []key.ShortID
	for _, p := range m.peers {
		if !want[p.id] {
			m.explain(p)
			m.remove(now, p)
			gone = append(gone, p.id.Short())
		}
	}
	m.setLeaf(now, m.isLeaf())
	m.syncMap(now)
	for _, id := range gone {
		m.path.RemoveRelay(now, id)
	}
	m.syncRoutes()
	m.syncGroups()
	m.syncFinder(now)
	m.w.forgetCode(now)
	m.remaskAll(now)
}

func (m *mesh) add(now time.Time, mem member.Member) *peer {
	p := &peer{mesh: m, id: mem.ID, wg: mem.WG, device: mem.Device}
	p.session = m.wg.AddPeer(mem.WG, [32]byte{})
	p.path = m.path.AddPeer(mem.ID, mem.Device)
	p.plane = m.plane.NewPeer(p.id.Short(), p.session, p.path, p)
	m.path.Keep(now, p.id, mem.Device)
	m.peers[p.id], m.byKey[p.wg] = p, p
	if !p.device {
		m.path.SetCandidates(now, p.id, path.SourceSaved, m.cache[p.id])
		m.states.Welcome(now, p.id.Short())
	}
	return p
}

// remove cuts a peer off: its keys are gone when this returns, and its packets are nobody's.
func (m *mesh) remove(now time.Time, p *peer) {
	p.talks = false
	m.setDirect(now, p, false)
	m.neighbour(now, p, false)
	m.states.Forget(now, p.id.Short())
	m.wg.RemovePeer(p.wg)
	m.path.RemovePeer(p.id)
	m.lift(p.id, netip.AddrPort{})
	delete(m.peers, p.id)
	delete(m.byKey, p.wg)
}

// explain sends one that is no member any more the joins that used up its code before it did, as the last thing before its
// session is cut (spec/21-roster.md#join). What is not of that kind, expel has sent.
func (m *mesh) explain(p *peer) {
	if p.device || p.invite == (wire.RecordID{}) || m.w.roster.IsRevoked(p.id) {
		return
	}
	rivals := slices.DeleteFunc(slices.Clone(m.w.roster.Members), func(o member.Member) bool { return o.Via.Invite != p.invite })
	slices.SortFunc(rivals, func(a, b member.Member) int { return b.Joined.Compare(a.Joined) })
	var ids []key.NodeID
	for _, o := range rivals[:min(len(rivals), maxRivals)] {
		ids = append(ids, o.ID)
	}
	for _, raw := range m.w.set.Chain(ids...) {
		m.send(p, wire.Way{}, wire.Records{Raw: [][]byte{raw}}.Append(nil))
	}
}

// expel sends a revocation to the one whom it puts out and to those who fall with it, as the last thing before their sessions
// are cut.
func (m *mesh) expel(r wire.Record) {
	if r.Kind != wire.KindRevocation {
		return
	}
	var v wire.Revocation
	if wire.UnmarshalCanonical(r.Payload, &v) != nil {
		return
	}
	next := m.w.roster
	if next.Rights(v.Subject) != 0 { // only an admin can draw others with it
		next = m.w.set.Roster()
	}
	for _, p := range m.peers {
		if _, stays := next.ByID(p.id); !p.device && (p.id == v.Subject || !stays) {
			m.send(p, wire.Way{}, wire.Records{Raw: [][]byte{r.Raw}}.Append(nil))
		}
	}
}

// syncRoutes publishes whose each inner address is, and gives the host the routes.
func (m *mesh) syncRoutes() {
	var table route.Builder[*dataplane.Peer]
	routes := []netip.Prefix{m.w.roster.Prefix6}
	self := m.w.keys.Identity.NodeID()
	for _, mem := range m.w.roster.Members {
		p := m.peers[mem.ID]
		for _, g := range mem.Gateways {
			if p == nil {
				p = m.peers[g]
			}
		}
		if mem.ID == self || p == nil {
			continue
		}
		for _, a := range inner(mem) {
			table.Add(a, p.plane)
			if a.Addr().Is4() {
				routes = append(routes, a)
			}
		}
	}
	m.plane.SetRoutes(table.Build())
	slices.SortFunc(routes, netip.Prefix.Compare)
	if slices.Equal(routes, m.routes) {
		return
	}
	err := m.w.n.sys.SyncRoutes(m.tunnel.Name(), routes)
	if err != nil && !errors.Is(err, host.ErrNoIPv6) {
		m.log.Error("routes not set, trying again", "interface", m.tunnel.Name(), "err", err)
		routes = nil
	}
	m.routes = routes
}

// tend looks after one peer about once a second: it calls a linked peer that has no session, and tells path who is in use.
func (m *mesh) tend(now time.Time, p *peer) {
	if p.linked && !p.talks && !now.Before(p.retry) {
		m.call(now, p)
	}
	m.remask(now, p)
	carried := p.plane.Carried()
	if rx := p.session.RxBytes(); rx != p.received {
		p.received = rx
		from := p.plane.From()
		m.heardBy(now, p, from)
		if from.Addr.IsValid() {
			m.w.n.nat.Heard(now, from.Addr)
		}
	}
	was := now.Before(p.activeUntil)
	if carried != p.moved {
		p.activeUntil = now.Add(activeFor)
		m.path.Active(now, p.id)
		if !was {
			m.giveRoutes(now, p)
		}
	} else if !was && !p.activeUntil.IsZero() {
		p.activeUntil = time.Time{}
		m.giveRoutes(now, p)
	}
	m.mayStand(now, p, carried-p.moved)
	p.moved = carried
	if p.direct {
		m.tendLink(now, p, m.path.Status(p.id))
	}
	m.gossips(now, p)
}

// call asks for a session and sets when to ask again.
func (m *mesh) call(now time.Time, p *peer) {
	m.want(now, p)
	p.backoff = min(max(2*p.backoff, firstRetry), lastRetry)
	p.retry = now.Add(p.backoff)
}

func (m *mesh) sessionUp(now time.Time, p *peer, from netip.AddrPort) {
	p.backoff, p.initiation, p.tries, p.met = 0, nil, 0, true
	if m.handling && from.IsValid() {
		m.shaken(now, p, from)
	}
	way := wire.Direct(from)
	switch {
	case from.IsValid():
		m.w.n.nat.Heard(now, from)
		m.called(p, from)
	case m.answer.peer == p:
		way = m.answer.way
	default: // the session is confirmed by what came inside it
		way = p.plane.From()
	}
	m.w.n.prove(way)
	m.path.SessionUp(now, p.id, way)
	m.pathChanged(now, p)
}

func (m *mesh) sessionDown(now time.Time, p *peer) {
	p.initiation, p.mask, p.plainUntil = nil, nil, time.Time{}
	m.path.SessionDown(now, p.id)
	m.pathChanged(now, p)
	m.w.n.plane.DropStaged(p.plane)
	p.retry = now.Add(max(p.backoff, firstRetry))
}

// pathChanged lets what waits for the peer go out, and tells the others whether it can be talked to.
func (m *mesh) pathChanged(now time.Time, p *peer) {
	way := p.path.Choice().Way
	was := p.talks
	p.talks = p.session.Sending() != nil && way.IsValid()
	m.regroup = m.regroup || was != p.talks
	if p.talks {
		m.w.n.plane.SendStaged(p.plane)
		m.sendPings(now, p)
	}
	m.setDirect(now, p, p.talks && p.path.Choice().Direct.IsValid())
	m.gossips(now, p)
}
