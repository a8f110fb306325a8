package node

import (
	"bytes"
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
	fullMesh   = 32 // members up to which each keeps a link to every other
	linkWait   = 2 * time.Second
	firstRetry = 5 * time.Second
	lastRetry  = time.Minute
	maxRivals  = 16  // whose joins are shown to one whom they cost its place
	idleBytes  = 512 // in one housekeeping, control messages included, that do not count as use
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

	linked  bool          // a session is kept up on purpose
	talks   bool          // there is a session and a path; gossip knows
	retry   time.Time     // when to call it next, if it does not talk
	backoff time.Duration // 0: not failed yet
	moved   uint64        // bytes both ways at the last housekeeping
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
		if !p.device {
			p.session.SetFast(mem.Info.Caps&ownCaps()&wire.CapFast != 0)
			m.path.SetCandidates(now, p.id, path.SourceInfo, mem.Endpoints)
		}
	}
	for _, p := range m.peers {
		if !want[p.id] {
			m.explain(p)
			m.remove(now, p)
		}
	}
	m.chooseLinks(now)
	m.syncRoutes()
}

func (m *mesh) add(now time.Time, mem member.Member) *peer {
	p := &peer{mesh: m, id: mem.ID, wg: mem.WG, device: mem.Device}
	p.session = m.wg.AddPeer(mem.WG, [32]byte{})
	p.path = m.path.AddPeer(mem.ID, mem.Device)
	p.plane = m.plane.NewPeer(p.session, p.path, p)
	m.peers[p.id], m.byKey[p.wg] = p, p
	if !p.device {
		m.path.SetCandidates(now, p.id, path.SourceSaved, m.cache[p.id])
	}
	return p
}

// remove cuts a peer off: its keys are gone when this returns, and its packets are nobody's.
func (m *mesh) remove(now time.Time, p *peer) {
	if p.talks && !p.device {
		m.gossip.PeerDown(now, p.id)
	}
	m.wg.RemovePeer(p.wg)
	m.path.RemovePeer(p.id)
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
		m.w.n.plane.SendControl(p.plane, netip.AddrPort{}, wire.Records{Raw: [][]byte{raw}}.Append(nil))
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
			m.w.n.plane.SendControl(p.plane, netip.AddrPort{}, wire.Records{Raw: [][]byte{r.Raw}}.Append(nil))
		}
	}
}

// chooseLinks decides to whom sessions are kept up: to all in a small network, else to the members at distances 1, 2, 4, ... in
// the order of ids, which keeps any network connected with few links.
func (m *mesh) chooseLinks(now time.Time) {
	self := m.w.keys.Identity.NodeID()
	ids := []key.NodeID{self}
	for _, p := range m.peers {
		if !p.device {
			ids = append(ids, p.id)
		}
	}
	slices.SortFunc(ids, func(a, b key.NodeID) int { return bytes.Compare(a[:], b[:]) })
	me := slices.Index(ids, self)
	chosen := map[key.NodeID]bool{}
	for step := 1; step < len(ids); {
		chosen[ids[(me+step)%len(ids)]] = true
		chosen[ids[(me-step+len(ids))%len(ids)]] = true
		if len(ids) <= fullMesh {
			step++
		} else {
			step *= 2
		}
	}
	for _, p := range m.peers {
		linked := chosen[p.id]
		if linked && !p.linked {
			p.retry = now
			if bytes.Compare(self[:], p.id[:]) > 0 {
				p.retry = now.Add(linkWait) // let the lower id call first
			}
		}
		p.linked = linked
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
	moved := p.session.RxBytes() + p.session.TxBytes()
	if moved-p.moved > idleBytes {
		m.path.Active(now, p.id)
	}
	p.moved = moved
}

// call asks for a session and sets when to ask again.
func (m *mesh) call(now time.Time, p *peer) {
	m.wg.Initiate(now, p.session)
	p.backoff = min(max(2*p.backoff, firstRetry), lastRetry)
	p.retry = now.Add(p.backoff)
}

func (m *mesh) sessionUp(now time.Time, p *peer, from netip.AddrPort) {
	p.backoff = 0
	m.path.SessionUp(now, p.id, from)
	m.pathChanged(now, p)
}

func (m *mesh) sessionDown(now time.Time, p *peer) {
	m.path.SessionDown(now, p.id)
	m.pathChanged(now, p)
	m.w.n.plane.DropStaged(p.plane)
	p.retry = now.Add(max(p.backoff, firstRetry))
}

// pathChanged lets what waits for the peer go out, and tells gossip whether it can be talked to.
func (m *mesh) pathChanged(now time.Time, p *peer) {
	talks := p.session.Sending() != nil && p.path.Best().IsValid()
	if talks {
		m.w.n.plane.SendStaged(p.plane)
		m.sendPings(now, p)
	}
	was := p.talks
	p.talks = talks
	switch {
	case p.device || was == talks:
	case talks:
		m.gossip.PeerUp(now, p.id)
	default:
		m.gossip.PeerDown(now, p.id)
	}
}
