package node

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	maxRounds    = 16 // of effects that cause effects, before time is looked at again
	housekeeping = time.Second
	infoDelay    = 300 * time.Millisecond // lets several changes of our addresses become one record
	maxEndpoints = 8                      // in our node info
	observedLife = 10 * time.Minute
	saveGap      = 10 * time.Second // between writes of the endpoint cache
)

// mesh is the running part of a network: its TUN device, its engines, its peers. It belongs to the control loop.
type mesh struct {
	w      *network
	log    *slog.Logger
	tunnel Tunnel
	plane  *dataplane.Network
	wg     *wireguard.Engine
	path   *path.Engine
	gossip *gossip.Engine
	intro  *join.Introducer

	peers map[key.NodeID]*peer
	byKey map[key.WGPublic]*peer
	pings map[uint64]*ping // of the API, by id

	mtu      int
	addrs    []netip.Prefix               // of the interface
	observed map[netip.AddrPort]time.Time // our own addresses as peers saw them
	infoAt   time.Time                    // when to look at our node info; zero: nothing to do
	houseAt  time.Time
	cache    map[key.NodeID][]netip.AddrPort // where peers were reached; saved at saveAt
	saveAt   time.Time
	routes   []netip.Prefix // as last given to the host; nil: try again
	ended    chan struct{}  // closed by the TUN worker
}

// newMesh builds the engines and fills gossip with the records that there are.
func newMesh(w *network, tunnel Tunnel, mtu int) (*mesh, error) {
	m := &mesh{
		w: w, log: w.log, tunnel: tunnel, mtu: mtu,
		plane: w.n.plane.NewNetwork(tunnel, slices.Contains(tunnel.Offloads(), "uso")), gossip: gossip.New(gossip.Config{Network: w.id}, w.log),
		peers: map[key.NodeID]*peer{}, byKey: map[key.WGPublic]*peer{}, pings: map[uint64]*ping{},
		observed: map[netip.AddrPort]time.Time{}, ended: make(chan struct{}),
	}
	m.path = path.New(path.Config{Refuse: m.inside}, w.log)
	var err error
	if m.wg, err = wireguard.New(wireguard.Config{Private: w.keys.WG, NewIndex: w.n.newIndex, Epoch: w.n.started}, w.log); err != nil {
		return nil, err
	}
	m.intro = w.newIntroducer()
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
	m.w.n.wg.Go(func() { // ends when stop closes the tunnel
		defer close(m.ended)
		if err := m.plane.Run(); err != nil {
			m.log.Error("sending stopped", "interface", m.tunnel.Name(), "err", err)
		}
	})
	m.sync(now)
	for _, p := range m.peers { // the others believe in sessions that this start has ended
		p.retry = now
	}
	m.houseAt, m.infoAt = now, now
}

// stop closes the TUN device, forgets the peers and saves where they were.
func (m *mesh) stop(now time.Time) {
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

// bye tells every peer with a session that this node stops.
func (m *mesh) bye() {
	for _, p := range m.peers {
		if !p.device {
			m.w.n.plane.SendControl(p.plane, netip.AddrPort{}, wire.Bye{}.Append(nil))
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
	if m.w.changed || m.w.mesh != m { // records have come: the roster is due
		return now
	}
	next = m.houseAt // after the effects, which set timers too
	for _, t := range []time.Time{m.wg.Tick(now), m.path.Tick(now), m.gossip.Tick(now), m.intro.Tick(now), m.infoAt} {
		next = earlier(next, t)
	}
	m.effects(now)
	return next
}

// effects carries one engine's output to the next one's input until there is none.
func (m *mesh) effects(now time.Time) {
	for range maxRounds {
		wg, paths, news, joins := m.wg.Effects(), m.path.Effects(), m.gossip.Effects(), m.intro.Effects()
		if len(wg)+len(paths)+len(news)+len(joins) == 0 {
			return
		}
		for _, e := range wg {
			m.wireguardEffect(now, e)
		}
		for _, e := range paths {
			m.pathEffect(now, e)
		}
		for _, e := range news {
			m.gossipEffect(now, e)
		}
		for _, e := range joins {
			if s, ok := e.(join.Send); ok {
				m.w.n.plane.SendRaw(s.To, s.Data)
			}
		}
	}
}

func (m *mesh) wireguardEffect(now time.Time, e wireguard.Effect) {
	n := m.w.n
	switch e := e.(type) {
	case wireguard.SendHandshake:
		n.publishIndex() // the answer may be quicker than the end of this round
		if e.To.IsValid() {
			n.plane.SendRaw(e.To, e.Data)
		} else if p := m.byKey[e.Peer.Public()]; p != nil {
			for _, to := range m.path.Targets(now, p.id) {
				n.plane.SendRaw(to, e.Data)
			}
		}
	case wireguard.SendKeepalive:
		n.publishIndex() // what this lets the peer send comes at once
		if p := m.byKey[e.Peer.Public()]; p != nil {
			n.plane.SendControl(p.plane, netip.AddrPort{}, nil)
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
	n := m.w.n
	switch e := e.(type) {
	case path.SendPing:
		if p := m.peers[e.ID]; p != nil {
			n.plane.SendControl(p.plane, e.To, e.Ping.Append(nil))
		}
	case path.SendPong:
		if p := m.peers[e.ID]; p != nil {
			n.plane.SendControl(p.plane, e.To, e.Pong.Append(nil))
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
			m.wg.Initiate(now, p.session)
		}
	case path.Proven:
		m.remember(now, e.ID, e.Addr)
	case path.Observed:
		m.seenAs(now, e.Addr)
	}
}

func (m *mesh) gossipEffect(now time.Time, e gossip.Effect) {
	switch e := e.(type) {
	case gossip.Send:
		if p := m.peers[e.Peer]; p != nil {
			m.w.n.plane.SendControl(p.plane, netip.AddrPort{}, e.Body.Append(nil))
		}
	case gossip.Deliver:
		m.deliver(now, e)
	}
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
	if m.routes == nil {
		m.syncRoutes()
	}
	for ap, t := range m.observed {
		if now.Sub(t) > observedLife {
			delete(m.observed, ap)
		}
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

// seenAs takes a peer's word for our own address: a hint that others may try.
func (m *mesh) seenAs(now time.Time, ap netip.AddrPort) {
	_, known := m.observed[ap]
	if !known && len(m.observed) >= maxEndpoints {
		return
	}
	m.observed[ap] = now
	if !known && m.infoAt.IsZero() {
		m.infoAt = now.Add(infoDelay)
	}
}

// endpoints lists where peers may reach this node: the host's own addresses, then what peers observed.
func (m *mesh) endpoints() []netip.AddrPort {
	var out []netip.AddrPort
	add := func(ap netip.AddrPort) {
		if len(out) < maxEndpoints && !slices.Contains(out, ap) && !m.inside(ap.Addr()) {
			out = append(out, ap)
		}
	}
	for _, a := range m.w.n.local {
		add(netip.AddrPortFrom(a, m.w.n.socket.Port()))
	}
	var seen []netip.AddrPort
	for ap := range m.observed {
		seen = append(seen, ap)
	}
	slices.SortFunc(seen, netip.AddrPort.Compare)
	for _, ap := range seen {
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
	m.addrs, m.routes = addrs, nil // the host may have dropped routes with the addresses
}

// inside reports whether a belongs to a network of Warren's: such an address must never be a path's.
func (m *mesh) inside(a netip.Addr) bool {
	for _, w := range m.w.n.networks {
		if _, ok := w.roster.ByAddr(a); ok || w.roster.Prefix6.Contains(a) {
			return true
		}
	}
	return false
}

// hostChanged lets peers be probed anew and our node info follow.
func (m *mesh) hostChanged(now time.Time) {
	m.path.NetworkChanged(now)
	if m.infoAt.IsZero() {
		m.infoAt = now.Add(infoDelay)
	}
}
