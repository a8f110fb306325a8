package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	excludeFor  = 10 * time.Second // a link that a path error named (spec/54-routes.md)
	wantedFor   = 90 * time.Second // routes to a peer are kept up to date after something was sent to it
	activeFor   = 45 * time.Second
	guestFor    = 30 * time.Second // a peer without a link that gossips with us is answered
	maxGuests   = 32
	powerEvery  = 30 * time.Second // between looks at the battery
	anchorAfter = 10 * time.Minute
	anchorCalls = 2 // members that reached us unasked
)

// newRouting makes the engines of the map: routing chooses links and routes, states spreads link states.
func (m *mesh) newRouting(now time.Time) {
	w := m.w
	m.powerAt, m.battery = now, w.n.sys.OnBattery()
	m.leaf = m.isLeaf()
	m.routing = route.New(route.Config{Self: m.self.Short(), Epoch: w.nextEpoch(now), Leaf: m.leaf}, w.log)
	m.states = gossip.NewStates(gossip.StatesConfig{}, w.log)
	m.begun = now
}

// nextEpoch returns a number for this run's link states that is greater than that of any run before, whatever the clock does
// (spec/53-map.md#version).
func (w *network) nextEpoch(now time.Time) uint32 {
	w.settings.Epoch = max(uint32(now.Unix()), w.settings.Epoch+1)
	if err := w.store.SaveSettings(w.settings); err != nil {
		w.log.Warn("epoch not saved", "err", err) // the newest state of ours that others have tells us, if it is greater
	}
	return w.settings.Epoch
}

// metered reports whether this machine pays for what it sends: its owner says so, or else the system.
func (m *mesh) metered() bool {
	return m.own.Metered == config.MeteredYes || m.own.Metered == config.MeteredAuto && m.w.n.metered
}

// isLeaf reports whether this node carries nothing for others: the policy or its owner says so, its line is metered, or it runs on a
// battery.
func (m *mesh) isLeaf() bool {
	switch {
	case !m.w.roster.MayRelay(m.self) || m.own.Transit == config.TransitOff:
		return true
	case m.own.Transit == config.TransitOn:
		return false
	}
	return m.battery || m.metered()
}

// syncMap lets the map follow the roster.
func (m *mesh) syncMap(now time.Time) {
	members := append(make([]route.Member, 0, len(m.peers)+1), route.Member{ID: m.self, NoTransit: !m.w.roster.MayRelay(m.self)})
	for _, p := range m.peers {
		if p.device {
			continue
		}
		mem, _ := m.w.roster.ByID(p.id)
		r := route.Member{ID: p.id, Reachable: len(mem.Endpoints) > 0, NoTransit: !m.w.roster.MayRelay(p.id)}
		for _, ap := range mem.Endpoints {
			r.Endpoints = append(r.Endpoints, ap.Addr())
		}
		members = append(members, r)
	}
	m.routing.SetMembers(now, members)
}

func (m *mesh) routeEffect(now time.Time, e route.Effect) {
	switch e := e.(type) {
	case route.Dial:
		m.dial(now, e.ID, true)
	case route.Release:
		m.dial(now, e.ID, false)
	case route.SendWish:
		if p := m.peers[e.ID]; p != nil {
			m.send(p, wire.Way{}, e.Wish.Append(nil))
		}
	case route.Pace:
		m.path.Pace(now, e.ID, e.Every, e.Share, e.Since)
	case route.Check:
		m.path.Check(now, e.ID)
	case route.LinkUp:
		if p := m.peers[e.ID]; p != nil {
			m.log.Debug("link up", "peer", p.name)
			m.neighbour(now, p, true)
		}
	case route.LinkDown:
		if p := m.peers[e.ID]; p != nil {
			m.log.Debug("link down", "peer", p.name)
			m.neighbour(now, p, false)
		}
	case route.Originate:
		raw := wire.SealLinkState(m.w.id, m.w.keys.Identity, e.State)
		m.states.Set(now, raw, e.State, key.NodeID{})
	case route.Expired:
		m.states.Forget(now, e.Node)
	case route.RoutesChanged:
		for _, id := range e.IDs {
			if p := m.peers[id]; p != nil {
				m.giveRoutes(now, p)
			}
		}
	case route.GroupsChanged:
		m.syncGroups()
	}
}

// dial says whether a session with id is kept up on purpose.
func (m *mesh) dial(now time.Time, id key.NodeID, on bool) {
	p := m.peers[id]
	if p == nil || p.linked == on {
		return
	}
	p.linked = on
	m.path.Keep(now, id, on)
	if on && !p.talks {
		p.retry, p.backoff = now, 0
		if own := m.self; string(own[:]) > string(id[:]) {
			p.retry = now.Add(linkWait) // let the lower id call first
		}
		m.houseAt = now
	}
}

// neighbour says that a link with p stands, or no more: news flow over links.
func (m *mesh) neighbour(now time.Time, p *peer, on bool) {
	p.link = on
	if on {
		m.states.PeerUp(now, p.id)
	} else {
		m.states.PeerDown(now, p.id)
	}
	m.gossips(now, p)
}

// gossips decides whether records are exchanged with p: over every link; with whomever it talks while this node has no link at all;
// and with one that asks, for a while.
func (m *mesh) gossips(now time.Time, p *peer) {
	on := !p.device && p.talks && (p.link || m.alone() || now.Before(p.guestUntil))
	switch {
	case on == p.gossip:
	case on:
		m.gossip.PeerUp(now, p.id)
	default:
		m.gossip.PeerDown(now, p.id)
	}
	p.gossip = on
}

// alone reports whether no link stands.
func (m *mesh) alone() bool {
	for _, p := range m.peers {
		if p.link {
			return false
		}
	}
	return true
}

// guest lets p, which has no link with us, gossip for a while: it may be new here, or all alone.
func (m *mesh) guest(now time.Time, p *peer) {
	if p.gossip && now.Before(p.guestUntil.Add(-guestFor/2)) || p.link {
		return
	}
	guests := 0
	for _, o := range m.peers {
		if !o.link && now.Before(o.guestUntil) {
			guests++
		}
	}
	if guests < m.guests || now.Before(p.guestUntil) {
		p.guestUntil = now.Add(guestFor)
		m.gossips(now, p)
	}
}

// learn judges a link state that a neighbour passed on: it counts when a member has signed it.
func (m *mesh) learn(now time.Time, d gossip.DeliverState) {
	pub, ok := m.publicOf(d.State.Node)
	switch {
	case !ok: // its node may be about to become a member
		m.states.Defer(now, d.Raw, d.State, d.Peer)
	case !wire.VerifyLinkState(m.w.id, pub, d.Raw):
		m.log.Debug("link state not accepted", "from", d.Peer, "of", d.State.Node)
		m.states.Reject(now, d.Raw, d.Peer)
	case m.routing.Learn(now, d.State):
		m.states.Set(now, d.Raw, d.State, d.Peer)
	}
}

// publicOf returns the identity key of the member, this node included, with a short id.
func (m *mesh) publicOf(id key.ShortID) (key.Public, bool) {
	if id == m.self.Short() {
		return m.w.keys.Identity.Public(), true
	}
	p := m.byShort[id]
	if p == nil || p.device {
		return key.Public{}, false
	}
	mem, ok := m.w.roster.ByID(p.id)
	return mem.Public, ok
}

// tendLink tells the map how the direct path to p fares.
func (m *mesh) tendLink(now time.Time, p *peer, st path.Status) {
	if d := st.Direct; p.direct && d != nil && d.RTT > 0 {
		rtt := d.RTT
		if d.Way.IsStream() {
			rtt += streamCost // let the map prefer links by UDP
		}
		loss := d.Loss
		if d.Thin {
			loss = 1 // for all that is large
		}
		m.routing.Measured(now, p.id, rtt, d.Jitter, loss)
		p.rated = true
	}
}

// setDirect tells the map whether p can be a link.
func (m *mesh) setDirect(now time.Time, p *peer, direct bool) {
	if p.device || p.direct == direct {
		return
	}
	p.direct, p.rated = direct, false
	if direct {
		m.routing.Up(now, p.id)
	} else {
		m.routing.Down(now, p.id)
	}
	m.giveRoutes(now, p)
}

// giveRoutes hands the relay routes to p to the path engine, as long as there is use for them: a peer that is reached directly and
// is idle needs none.
func (m *mesh) giveRoutes(now time.Time, p *peer) {
	if p.device {
		return
	}
	active := now.Before(p.activeUntil)
	if engaged := p.talks || p.linked || now.Before(p.wantedUntil); !engaged || p.direct && !active {
		m.routing.Unwatch(p.id)
		m.path.SetRoutes(now, p.id, nil)
		return
	}
	routes := m.routing.Routes(p.id)
	m.path.SetRoutes(now, p.id, routes)
	if p.talks || len(p.initiation) == 0 {
		return
	}
	for _, r := range routes { // the routes there were did not do
		if len(p.tried) < maxTried && !slices.Contains(p.tried, r) {
			p.tried = append(p.tried, r)
			m.w.n.plane.SendHandshake(p.plane, wire.Via(r), p.initiation, nil)
		}
	}
}

// want notes that p is to be talked to now.
func (m *mesh) want(now time.Time, p *peer) {
	p.wantedUntil = now.Add(wantedFor)
	if !p.talks {
		m.giveRoutes(now, p)
		m.wg.Initiate(now, p.session)
	}
}

// keepMap does what is due about once a second.
func (m *mesh) keepMap(now time.Time) {
	if now.Sub(m.powerAt) >= powerEvery {
		m.powerAt, m.battery = now, m.w.n.sys.OnBattery()
	}
	if leaf := m.isLeaf(); leaf != m.leaf {
		m.setLeaf(now, leaf)
	}
	m.watchLoad(now)
	m.tendGroups(now)
	calls := 0
	for _, p := range m.peers {
		if p.calledUs {
			calls++
		}
	}
	m.anchor = calls >= anchorCalls && now.Sub(m.begun) >= anchorAfter
	m.routing.SetAnchor(now, m.anchor)
}

// setLeaf lets this node relay for others, or no more.
func (m *mesh) setLeaf(now time.Time, leaf bool) {
	m.leaf = leaf
	m.routing.SetLeaf(now, leaf)
	m.syncHops()
}

// called notes that p made the session from an address to which we had sent nothing: it reached us without help.
func (m *mesh) called(p *peer, from netip.AddrPort) {
	if p.asked.IsZero() && from.IsValid() {
		p.calledUs = true
	}
}
