package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	maxRounds    = 16 // of effects that cause effects, before time is looked at again
	housekeeping = time.Second
	infoDelay    = 300 * time.Millisecond // lets several changes of our addresses become one record
	maxEndpoints = 8                      // in our node info
	saveGap      = 10 * time.Second       // between writes of the endpoint cache
)

var pathModes = map[config.Multipath]path.Mode{config.MultipathBackup: path.ModeBackup, config.MultipathBalance: path.ModeBalance,
	config.MultipathRedundant: path.ModeRedundant}

// mesh is the running part of a network: its TUN device, its engines, its peers. It belongs to the control loop.
type mesh struct {
	w       *network
	self    key.NodeID
	own     config.Network // what this machine's owner wishes
	log     *slog.Logger
	tunnel  Tunnel
	plane   *dataplane.Network
	wg      *wireguard.Engine
	path    *path.Engine
	gossip  *gossip.Engine // of records
	states  *gossip.States // of link states
	routing *route.Engine
	intro   *join.Introducer

	peers   map[key.NodeID]*peer
	byKey   map[key.WGPublic]*peer
	byShort map[key.ShortID]*peer // members only
	pings   map[uint64]*ping      // of the API, by id
	feet    map[key.NodeID]*stance

	begun         time.Time
	masked        bool       // the policy at the last look
	handling      bool       // a handshake or join message that came directly, now
	came          *wire.Mask // while handling: under which mask it came; nil: plain
	leaf, anchor  bool       // what this node says of itself
	battery       bool       // it ran on one at powerAt
	powerAt       time.Time
	answer        answering // while a relayed handshake message is handled
	load          load
	overloadUntil time.Time

	listening dataplane.Listening // to multicast groups, this machine
	groupsAt  time.Time
	broadcast netip.Addr // as last given to the host
	wasOff    bool

	guests   int       // peers without a link that may gossip with us at once
	mute     time.Time // since then nobody is reached by UDP; zero: somebody is
	finder   *finder   // nil: not yet
	static   []*static
	lookAt   time.Time // when to look up their names again
	mapAt    time.Time // when to tell the finder the map
	rotateAt time.Time // when to change the discovery key; zero: no need
	regroup  bool      // who is there has changed

	mtu     int
	addrs   []netip.Prefix // of the interface
	infoAt  time.Time      // when to look at our node info; zero: nothing to do
	houseAt time.Time
	cache   map[key.NodeID][]netip.AddrPort // where peers were reached; saved at saveAt
	saveAt  time.Time
	routes  []netip.Prefix // as last given to the host; nil: try again
	ended   chan struct{}  // closed by the TUN worker
}

// newMesh builds the engines and fills gossip with the records that there are.
func newMesh(w *network, tunnel Tunnel, mtu int) (*mesh, error) {
	m := &mesh{
		w: w, self: w.keys.Identity.NodeID(), own: w.n.opt.Config.Network(w.name()), log: w.log, tunnel: tunnel, mtu: mtu,
		plane: w.n.plane.NewNetwork(tunnel, slices.Contains(tunnel.Offloads(), "uso")), gossip: gossip.New(gossip.Config{Network: w.id}, w.log),
		peers: map[key.NodeID]*peer{}, byKey: map[key.WGPublic]*peer{}, pings: map[uint64]*ping{}, feet: map[key.NodeID]*stance{},
		ended: make(chan struct{}), guests: maxGuests,
	}
	m.path = path.New(path.Config{Refuse: w.n.inside, NoDetours: !m.own.Detours, Mode: pathModes[m.own.Multipath], Turn: &w.n.hard,
		Feet: w.n.feetOf(), Freshens: w.n.opt.Config.Daemon.STUN != ""}, w.log)
	var err error
	if m.wg, err = wireguard.New(wireguard.Config{Private: w.keys.WG, NewIndex: w.n.newIndex, Epoch: w.n.started}, w.log); err != nil {
		return nil, err
	}
	m.intro, m.static = w.newIntroducer(), readStatic(m.own.Peer)
	if m.cache, err = w.store.Endpoints(); err != nil {
		m.log.Warn("saved addresses of peers are lost", "err", err)
	}
	return m, nil
}

// start starts the TUN worker, makes the peers and calls them.
func (m *mesh) start(now time.Time) {
	for _, raw := range m.w.set.Records() {
		if r, err := wire.ParseRecord(m.w.id, raw); err == nil {
			m.gossip.Add(now, r.ID, r.Raw, key.NodeID{})
		}
	}
	m.load = m.count()
	m.newRouting(now)
	m.newFinder(now)
	st := m.w.n.nat.Status()
	m.path.SetOwn(now, st.V4, st.V6, st.Candidates)
	m.w.n.wg.Go(func() { // ends when stop closes the tunnel
		err := m.plane.Run()
		close(m.ended)
		if err != nil {
			_ = m.w.n.call(m.w.n.ctx, func() { m.broke(err) }) // an error: the node stops
		}
	})
	m.sync(now)
	m.houseAt, m.infoAt = now, now
}

// stop closes the TUN device, forgets the peers and saves where they were.
func (m *mesh) stop(now time.Time) {
	m.finder.end()
	for _, p := range m.peers {
		m.remove(now, p)
	}
	m.effects(now)
	m.saveCache()
	if err := m.tunnel.Close(); err != nil {
		m.log.Warn("interface not removed", "err", err)
	}
	<-m.ended
}

// broke puts the network down because its TUN device failed: somebody has removed it, most likely.
func (m *mesh) broke(err error) {
	m.log.Error("sending stopped", "interface", m.tunnel.Name(), "err", err)
	if m.w.mesh != m {
		return
	}
	now := time.Now()
	m.bye(now)
	m.w.deactivate(now)
	m.w.why = fmt.Sprintf("the interface %s is gone: bring it back with: warren up (%v)", m.tunnel.Name(), err)
}

// bye tells every peer with a session what it does not know yet, and that this node stops.
func (m *mesh) bye(now time.Time) {
	m.gossip.Flush(now)
	m.effects(now)
	for _, p := range m.peers {
		if !p.device {
			m.send(p, wire.Way{}, wire.Bye{}.Append(nil))
		}
	}
}

// settle lets the engines see the time and carries out what they ask for.
func (m *mesh) settle(now time.Time) (next time.Time) {
	if !now.Before(m.houseAt) {
		m.houseAt = now.Add(housekeeping)
		m.keepHouse(now)
	}
	if !m.infoAt.IsZero() && !now.Before(m.infoAt) {
		m.infoAt = time.Time{}
		m.w.publishInfo(now, m.endpoints())
	}
	if m.w.mesh != m { // the roster put us out
		return time.Time{}
	}
	m.effects(now)
	if m.regroup {
		m.regroup = false
		m.syncGroups()
	}
	if m.w.changed || m.w.mesh != m { // records have come: the roster is due
		return now
	}
	next = m.houseAt // after the effects, which set timers too
	for _, t := range []time.Time{m.wg.Tick(now), m.path.Tick(now), m.gossip.Tick(now), m.states.Tick(now),
		m.routing.Tick(now), m.intro.Tick(now), m.infoAt} {
		next = earlier(next, t)
	}
	m.effects(now)
	return next
}

// effects carries one engine's output to the next one's input until there is none.
func (m *mesh) effects(now time.Time) {
	for range maxRounds {
		wg, paths, routes, joins := m.wg.Effects(), m.path.Effects(), m.routing.Effects(), m.intro.Effects()
		news := append(m.gossip.Effects(), m.states.Effects()...)
		if len(wg)+len(paths)+len(routes)+len(news)+len(joins) == 0 {
			return
		}
		for _, e := range wg {
			m.wireguardEffect(now, e)
		}
		for _, e := range paths {
			m.pathEffect(now, e)
		}
		for _, e := range routes {
			m.routeEffect(now, e)
		}
		for _, e := range news {
			m.gossipEffect(now, e)
		}
		for _, e := range joins {
			if s, ok := e.(join.Send); ok {
				m.w.n.plane.SendRaw(s.To, s.Data, m.came)
			}
		}
	}
}

func (m *mesh) wireguardEffect(now time.Time, e wireguard.Effect) {
	n := m.w.n
	switch e := e.(type) {
	case wireguard.SendHandshake:
		m.sendHandshake(now, e)
	case wireguard.SendKeepalive:
		n.publishIndex() // what this lets the peer send comes at once
		if p := m.byKey[e.Peer.Public()]; p != nil {
			m.send(p, wire.Way{}, nil)
		}
	case wireguard.KeypairAdded:
		if p := m.byKey[e.Keypair.Peer().Public()]; p != nil {
			n.index[e.Keypair.LocalIndex()] = dataplane.Entry{Keypair: e.Keypair, Peer: p.plane}
			n.dirty = true
		}
	case wireguard.KeypairRemoved:
		delete(n.index, e.Keypair.LocalIndex())
		n.dirty = true
	case wireguard.SessionUp:
		n.publishIndex()
		if p := m.byKey[e.Peer.Public()]; p != nil {
			m.sessionUp(now, p, e.From)
		}
	case wireguard.SessionDown:
		if p := m.byKey[e.Peer.Public()]; p != nil {
			m.sessionDown(now, p)
		}
	}
}

func (m *mesh) pathEffect(now time.Time, e path.Effect) {
	switch e := e.(type) {
	case path.SendPing:
		if p := m.peers[e.ID]; p != nil {
			if e.To.Addr.IsValid() {
				m.w.n.nat.Tried(now, e.To.Addr)
			}
			m.send(p, e.To, e.Ping.Append(nil))
		}
	case path.SendPong:
		if p := m.peers[e.ID]; p != nil {
			m.send(p, e.To, e.Pong.Append(nil))
		}
	case path.Changed:
		if p := m.peers[e.ID]; p != nil {
			m.log.Debug("path changed", "peer", p.name, "from", e.Old, "to", e.New)
			m.pathChanged(now, p)
		}
	case path.Dead:
		if p := m.peers[e.ID]; p != nil {
			m.log.Debug("path lost", "peer", p.name)
			m.pathChanged(now, p)
			m.want(now, p)
		}
	case path.Direct:
		if p := m.peers[e.ID]; p != nil {
			m.setDirect(now, p, p.talks && e.Up)
		}
	case path.Swallowed:
		if m.reaches(e.Route) {
			m.routing.Suspect(now, e.ID, e.Route)
		}
	case path.Vain:
		if m.reaches(e.Route) {
			m.routing.Vain(now, e.ID, e.Route)
		}
	case path.Proven:
		if e.Way.IsRelayed() {
			m.routing.Proved(now, e.ID, e.Way.Route)
		} else {
			m.remember(now, e.ID, e.Way.Addr)
		}
	case path.Observed:
		m.w.n.nat.Observe(now, e.At, e.Addr)
	case path.Feet:
		m.stand(now, e)
	case path.FeetDone:
		m.lift(e.ID, e.Keep)
	case path.Freshen:
		m.w.n.nat.Freshen(now)
	case path.SendCandidates:
		if p := m.peers[e.ID]; p != nil {
			m.send(p, wire.Way{}, e.Candidates.Append(nil))
		}
	}
}

func (m *mesh) gossipEffect(now time.Time, e gossip.Effect) {
	switch e := e.(type) {
	case gossip.Send:
		if p := m.peers[e.Peer]; p != nil {
			m.send(p, wire.Way{}, e.Body.Append(nil))
		}
	case gossip.Deliver:
		m.deliver(now, e)
	case gossip.DeliverState:
		m.learn(now, e)
	}
}

// send seals a control message for p and sends it by way; the zero way is the path, an empty body a keepalive.
func (m *mesh) send(p *peer, way wire.Way, body []byte) bool {
	return m.w.n.plane.SendControl(p.plane, way, body)
}

// deliver gives a record that a peer sent to the roster. What can never be accepted is not asked for again.
func (m *mesh) deliver(now time.Time, d gossip.Deliver) {
	err := m.w.accept(d.Raw, d.Peer)
	switch {
	case err == nil:
		return
	case errors.Is(err, member.ErrKnown):
		m.gossip.Add(now, d.ID, d.Raw, d.Peer)
	case errors.Is(err, member.ErrInvalid), errors.Is(err, member.ErrSuperseded):
		m.gossip.Reject(now, d.Raw, d.Peer)
	}
	m.log.Debug("record not accepted", "from", d.Peer, "err", err)
}

// keepHouse does what is due about once a second.
func (m *mesh) keepHouse(now time.Time) {
	for _, p := range m.peers {
		m.tend(now, p)
	}
	m.w.vouch(now)
	m.keepMap(now)
	m.tendFinder(now)
	m.tendStatic(now)
	m.rotate(now)
	m.tendFeet(now)
	if m.routes == nil {
		m.syncRoutes()
	}
	if !m.saveAt.IsZero() && !now.Before(m.saveAt) {
		m.saveAt = time.Time{}
		m.saveCache()
	}
}

// remember notes an address at which a peer was reached, best first.
func (m *mesh) remember(now time.Time, id key.NodeID, ap netip.AddrPort) {
	known := m.cache[id]
	if len(known) > 0 && known[0] == ap {
		return
	}
	known = slices.DeleteFunc(slices.Clone(known), func(k netip.AddrPort) bool { return k == ap })
	m.cache[id] = slices.Insert(known[:min(len(known), 3)], 0, ap)
	if m.saveAt.IsZero() {
		m.saveAt = now.Add(saveGap)
	}
}

func (m *mesh) saveCache() {
	if err := m.w.store.SaveEndpoints(m.cache); err != nil {
		m.log.Warn("addresses of peers not saved", "err", err)
	}
}

// endpoints lists where peers may reach this node: the host's own addresses, then what was observed and confirmed. What one observer
// says is not published (spec/73-nat.md#confirmed).
func (m *mesh) endpoints() []netip.AddrPort {
	var out []netip.AddrPort
	add := func(ap netip.AddrPort) {
		if len(out) < maxEndpoints && !slices.Contains(out, ap) && !m.w.n.inside(ap.Addr()) {
			out = append(out, ap)
		}
	}
	for _, a := range m.w.n.local {
		add(netip.AddrPortFrom(a, m.w.n.socket.Port()))
	}
	for _, ap := range m.w.n.nat.Status().Addresses { // confirmed, or mapped by the router
		add(ap)
	}
	for _, ap := range m.w.n.nat.Status().ByHand {
		add(ap)
	}
	return out
}

// follow gives the interface the addresses that the roster gives this node now: a clash can cost it its IPv4 address
// (spec/10-identity.md#ipv4).
func (m *mesh) follow(self member.Member) {
	addrs := inner(self)
	if slices.Equal(addrs, m.addrs) {
		return
	}
	if err := m.w.configure(m.tunnel.Name(), addrs, m.mtu); err != nil {
		m.log.Error("addresses not set", "interface", m.tunnel.Name(), "err", err)
		return
	}
	m.log.Info("this node has other addresses now", "address", self.Addr4, "address6", self.Addr6)
	m.addrs, m.routes, m.broadcast = addrs, nil, netip.Addr{} // the host may have dropped routes with the addresses
}

// inside reports whether a belongs to a network of Warren's: such an address must never be a path's.
func (n *Node) inside(a netip.Addr) bool {
	for _, w := range n.networks {
		if holds(w.roster, a) {
			return true
		}
	}
	return false
}

// infoSoon has our node info looked at before long.
func (m *mesh) infoSoon(now time.Time) {
	if m.infoAt.IsZero() {
		m.infoAt = now.Add(infoDelay)
	}
}

// hostChanged lets peers be probed anew and our node info follow.
func (m *mesh) hostChanged(now time.Time) {
	m.path.NetworkChanged(now)
	m.routing.NetworkChanged(now)
	m.retryStatic()
	m.infoSoon(now)
}
