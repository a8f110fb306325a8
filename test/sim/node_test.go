package sim

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// What internal/node has, with the same values; tests of other packages cannot reach it there.
const (
	maxRounds    = 16
	housekeeping = time.Second
	excludeFor   = 10 * time.Second
	wantedFor    = 90 * time.Second
	activeFor    = 45 * time.Second
	guestFor     = 30 * time.Second
	anchorAfter  = 10 * time.Minute
	anchorCalls  = 2
	linkWait     = 2 * time.Second
	firstRetry   = 5 * time.Second
	lastRetry    = time.Minute
	idleBytes    = 512
	maxTried     = 8
)

// node is one member: the engines, and what internal/node does with their effects.
type node struct {
	w        *world
	n        int
	identity key.Identity
	public   key.Public
	id       key.NodeID
	short    key.ShortID
	host     *testnet.Host
	addr     netip.AddrPort
	x, y     float64 // where it is, in milliseconds
	closed   bool    // behind NAT: only those to whom it speaks reach it
	leaf     bool

	mu      sync.Mutex // guards what follows
	alive   bool
	life    uint32 // counts starts
	epoch   uint32
	began   time.Time
	sock    *testnet.Socket
	timer   *time.Timer
	quit    chan struct{}
	armed   time.Time
	houseAt time.Time

	engines
	peers   map[*node]*peer
	order   []*peer
	extra   []wire.Record // accepted besides the base; kept over restarts, as on a disk
	revoked map[*node]bool
	anchor  bool

	own     wire.LinkState // newest of its own
	ownAt   time.Time
	before  wire.Version // of the one before
	watched []*node      // destinations whose routes are looked at
	flows   map[*node]*flow
	evil    *evil
	groups  int
	taken   map[*node]int          // link states accepted, by origin
	newest  map[*node]wire.Version // of them
	count   counts
	sent    int // datagrams
	buffers
	changed int // RoutesChanged
}

// buffers are used again for each datagram: the net copies.
type buffers struct{ body, whole, framed []byte }

// engines are called only by their methods, which note who is to be asked what it wants: to ask all of them after each datagram
// takes half of the time.
type engines struct {
	routing                             *route.Engine
	links                               *gossip.States
	members                             *gossip.Engine
	path                                *path.Engine
	routesAt, linksAt, rosterAt, pathAt time.Time // when they want to be called; zero: now
}

func (e *engines) routes() *route.Engine {
	e.routesAt = time.Time{}
	return e.routing
}

func (e *engines) states() *gossip.States {
	e.linksAt = time.Time{}
	return e.links
}

func (e *engines) roster() *gossip.Engine {
	e.rosterAt = time.Time{}
	return e.members
}

func (e *engines) paths() *path.Engine {
	e.pathAt = time.Time{}
	return e.path
}

const never = 1000 * time.Hour

// tick lets the engines that are due, or were called, see the time. It returns when to come again.
func (e *engines) tick(now time.Time) time.Time {
	for _, x := range []struct {
		at   *time.Time
		tick func(time.Time) time.Time
	}{{&e.pathAt, e.path.Tick}, {&e.rosterAt, e.members.Tick}, {&e.linksAt, e.links.Tick}, {&e.routesAt, e.routing.Tick}} {
		if x.at.After(now) {
			continue
		}
		if *x.at = x.tick(now); x.at.IsZero() {
			*x.at = now.Add(never)
		}
	}
	next := e.pathAt
	for _, t := range []time.Time{e.rosterAt, e.linksAt, e.routesAt} {
		if t.Before(next) {
			next = t
		}
	}
	return next
}

// evil is what a hostile member does otherwise than others. Tests let it do more in its name.
type evil struct {
	swallow bool                                // drops what it should relay
	lie     func(wire.LinkState) wire.LinkState // about its links
	dropped int                                 // relayed datagrams
}

// do calls f with the node's lock held, and then lets its engines act.
func (n *node) do(f func(now time.Time)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alive {
		f(time.Now())
		n.settle()
	}
}

func (n *node) runs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alive
}

// start runs the node on what its disk has.
func (n *node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alive {
		return
	}
	sock, err := n.host.Listen(port)
	if err != nil {
		n.w.Errorf("node %d: %v", n.n, err)
		return
	}
	now := time.Now()
	n.alive, n.sock, n.began = true, sock, now
	n.life++
	n.epoch = max(uint32(now.Unix()), n.epoch+1)
	chance := rand.NewChaCha8([32]byte{byte(n.n), byte(n.n >> 8), byte(n.life), byte(n.life >> 8)})
	n.path = path.New(path.Config{Rand: chance}, nil)
	n.members = gossip.New(gossip.Config{Network: n.w.network, Rand: chance}, nil)
	n.links = gossip.NewStates(gossip.StatesConfig{Rand: chance}, nil)
	n.routing = route.New(route.Config{Self: n.short, Epoch: n.epoch, Leaf: n.leaf, Rand: chance}, nil)
	n.peers, n.order, n.revoked = map[*node]*peer{}, nil, map[*node]bool{}
	n.taken, n.newest = map[*node]int{}, map[*node]wire.Version{}
	n.armed, n.anchor, n.own, n.before = time.Time{}, false, wire.LinkState{}, wire.Version{}
	n.routesAt, n.linksAt, n.rosterAt, n.pathAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	n.houseAt = now.Add(time.Duration(chance.Uint64() % uint64(housekeeping)))
	for _, r := range n.w.base {
		n.roster().Add(now, r.ID, r.Raw, key.NodeID{})
	}
	for _, r := range n.extra {
		n.roster().Add(now, r.ID, r.Raw, key.NodeID{})
		n.obey(now, r)
	}
	n.syncMap(now)
	life := n.life
	n.timer, n.quit = time.NewTimer(never), make(chan struct{})
	go n.receive(sock, life)     // ends with the socket
	go n.wake(n.timer.C, n.quit) // ends with kill
	for _, o := range n.watched {
		n.routes().Routes(o.id)
	}
	n.settle()
}

// wake settles the node when its time has come.
func (n *node) wake(at <-chan time.Time, quit <-chan struct{}) {
	for {
		select {
		case <-at:
			n.do(func(time.Time) {})
		case <-quit:
			return
		}
	}
}

// kill ends the node without a word to anybody.
func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.alive {
		return
	}
	n.alive = false
	n.sock.Close()
	n.timer.Stop()
	close(n.quit)
	n.engines, n.peers, n.order = engines{}, nil, nil
}

// settle lets the engines see the time and carries out what they ask for.
func (n *node) settle() {
	now := time.Now()
	if !now.Before(n.houseAt) {
		n.houseAt = now.Add(housekeeping)
		n.keepHouse(now)
	}
	n.effects(now)
	next := n.tick(now)
	if n.houseAt.Before(next) {
		next = n.houseAt
	}
	if n.effects(now) {
		next = now
	}
	n.checkStep()
	n.armed = time.Time{}
	n.arm(now, next)
}

// arm lets the node settle at the time at, or with the next tick of the clock.
func (n *node) arm(now, at time.Time) {
	begun := n.w.begun
	at = begun.Add((at.Sub(begun) + clockTick - 1) / clockTick * clockTick)
	if !at.After(now) {
		at = now.Add(clockTick)
	}
	if n.armed.IsZero() || at.Before(n.armed) {
		n.armed = at
		n.timer.Reset(at.Sub(now))
	}
}

// effects carries one engine's output to the next one's input until there is none.
func (n *node) effects(now time.Time) (any bool) {
	for range maxRounds {
		paths, routes := n.path.Effects(), n.routing.Effects()
		states, records := n.links.Effects(), n.members.Effects()
		if len(paths)+len(routes)+len(states)+len(records) == 0 {
			return any
		}
		any = true
		for _, e := range paths {
			n.pathEffect(now, e)
		}
		for _, e := range routes {
			n.routeEffect(now, e)
		}
		for _, e := range records {
			n.gossipEffect(now, e)
		}
		for _, e := range states {
			n.gossipEffect(now, e)
		}
	}
	return any
}

func (n *node) pathEffect(now time.Time, e path.Effect) {
	switch e := e.(type) {
	case path.SendPing:
		n.body = e.Ping.Append(n.body[:0])
		n.send(n.known(e.ID), e.To, n.body)
	case path.SendPong:
		n.body = e.Pong.Append(n.body[:0])
		n.send(n.known(e.ID), e.To, n.body)
	case path.Changed:
		if p := n.known(e.ID); p != nil {
			n.pathChanged(now, p)
		}
	case path.Dead:
		if p := n.known(e.ID); p != nil {
			n.pathChanged(now, p)
			n.want(now, p)
		}
	case path.Direct:
		if p := n.known(e.ID); p != nil {
			n.setDirect(now, p, p.talks && e.Up)
		}
	case path.Swallowed:
		if n.reaches(e.Route) {
			n.routes().Suspect(now, e.ID, e.Route)
		}
	case path.Vain:
		if n.reaches(e.Route) {
			n.routes().Vain(now, e.ID, e.Route)
		}
	case path.Proven:
		if e.Way.IsRelayed() {
			n.routes().Proved(now, e.ID, e.Way.Route)
		}
	}
}

// reaches reports whether our own link to the first relay of r is in order.
func (n *node) reaches(r wire.Route) bool {
	first := n.peers[n.w.byShort[r.At(0)]]
	return first != nil && first.direct && !n.paths().Status(first.of.id).Doubt
}

func (n *node) routeEffect(now time.Time, e route.Effect) {
	switch e := e.(type) {
	case route.Dial:
		n.dial(now, e.ID, true)
	case route.Release:
		n.dial(now, e.ID, false)
	case route.SendWish:
		n.send(n.known(e.ID), wire.Way{}, e.Wish.Append(nil))
	case route.Pace:
		n.paths().Pace(now, e.ID, e.Every, e.Share, e.Since)
	case route.Check:
		n.paths().Check(now, e.ID)
	case route.LinkUp:
		if p := n.known(e.ID); p != nil {
			n.neighbour(now, p, true)
			n.checkLinks()
		}
	case route.LinkDown:
		if p := n.known(e.ID); p != nil {
			n.neighbour(now, p, false)
		}
	case route.Originate:
		n.originate(now, e.State)
	case route.Expired:
		n.states().Forget(now, e.Node)
	case route.RoutesChanged:
		n.changed += len(e.IDs)
		for _, id := range e.IDs {
			if p := n.known(id); p != nil {
				n.giveRoutes(now, p)
			}
		}
	}
}

// originate signs and floods this node's link state.
func (n *node) originate(now time.Time, st wire.LinkState) {
	if n.evil != nil && n.evil.lie != nil {
		st = n.evil.lie(st)
	}
	raw := wire.SealLinkState(n.w.network, n.identity, st)
	n.before, n.own, n.ownAt = n.own.Version, st, now
	n.w.originated.Add(1)
	n.states().Set(now, raw, st, key.NodeID{})
}

func (n *node) gossipEffect(now time.Time, e gossip.Effect) {
	switch e := e.(type) {
	case gossip.Send:
		n.body = e.Body.Append(n.body[:0])
		n.send(n.known(e.Peer), wire.Way{}, n.body)
	case gossip.DeliverState:
		n.learn(now, e)
	case gossip.Deliver:
		if r, ok := n.w.real(e.ID); ok {
			n.accept(now, r, e.Peer)
		} else {
			n.roster().Reject(now, e.Raw, e.Peer)
		}
	}
}

// learn judges a link state that a neighbour passed on.
func (n *node) learn(now time.Time, d gossip.DeliverState) {
	o := n.w.byShort[d.State.Node]
	if o == nil || n.revoked[o] {
		n.states().Defer(now, d.Raw, d.State, d.Peer)
		return
	}
	j := n.w.judge(d.Raw, d.State, o.public)
	if !j.good {
		n.w.refused.Add(1)
		n.states().Reject(now, d.Raw, d.Peer)
		return
	}
	if j.raw != nil {
		d.Raw, d.State = j.raw, j.state
	}
	if n.routes().Learn(now, d.State) {
		n.w.learned.Add(1)
		if n.w.nodes[0].evil != nil { // only hostile tests look at these
			n.taken[o]++
			n.newest[o] = maxVersion(n.newest[o], d.State.Version)
		}
		n.states().Set(now, d.Raw, d.State, d.Peer)
	}
}

func maxVersion(a, b wire.Version) wire.Version {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

// accept takes a record of the network and draws the consequences.
func (n *node) accept(now time.Time, r wire.Record, from key.NodeID) {
	if n.roster().Has(r.ID) {
		return
	}
	n.roster().Add(now, r.ID, r.Raw, from)
	n.extra = append(n.extra, r)
	if o := n.obey(now, r); o != nil {
		n.syncMap(now)
		n.paths().RemoveRelay(now, o.short)
		n.checkStep()
	}
}

// obey carries out a revocation, and returns whose.
func (n *node) obey(now time.Time, r wire.Record) *node {
	var v wire.Revocation
	if r.Kind != wire.KindRevocation || wire.UnmarshalCanonical(r.Payload, &v) != nil {
		return nil
	}
	o := n.w.byID[v.Subject]
	if o == n {
		return nil // and goes on
	}
	n.revoked[o] = true
	n.states().Forget(now, o.short)
	if p := n.peers[o]; p != nil {
		n.remove(now, p)
	}
	return o
}

// syncMap lets the map follow the roster.
func (n *node) syncMap(now time.Time) {
	members := n.w.members
	if len(n.revoked) > 0 {
		members = slices.DeleteFunc(slices.Clone(members), func(m route.Member) bool { return n.revoked[n.w.byID[m.ID]] })
	}
	n.routes().SetMembers(now, members)
}

// keepHouse does what is due once a second.
func (n *node) keepHouse(now time.Time) {
	calls := 0
	for _, p := range n.order {
		n.tend(now, p)
		if p.calledUs {
			calls++
		}
	}
	if anchor := calls >= anchorCalls && now.Sub(n.began) >= anchorAfter && !n.closed; anchor != n.anchor {
		n.anchor = anchor
		n.routes().SetAnchor(now, anchor)
	}
}

func (n *node) neighbour(now time.Time, p *peer, on bool) {
	p.link = on
	if on {
		n.states().PeerUp(now, p.of.id)
	} else {
		n.states().PeerDown(now, p.of.id)
	}
	n.gossips(now, p)
}

func (n *node) gossips(now time.Time, p *peer) {
	on := p.talks && (p.link || n.alone() || now.Before(p.guestUntil))
	switch {
	case on == p.gossip:
	case on:
		n.roster().PeerUp(now, p.of.id)
	default:
		n.roster().PeerDown(now, p.of.id)
	}
	p.gossip = on
}

func (n *node) alone() bool {
	return !slices.ContainsFunc(n.order, func(p *peer) bool { return p.link })
}

func (n *node) setDirect(now time.Time, p *peer, direct bool) {
	if p.direct == direct {
		return
	}
	p.direct = direct
	if direct {
		n.routes().Up(now, p.of.id)
	} else {
		n.routes().Down(now, p.of.id)
	}
	n.giveRoutes(now, p)
}

func (n *node) giveRoutes(now time.Time, p *peer) {
	engaged := p.talks || p.linked || now.Before(p.wantedUntil)
	if !engaged || p.direct && !now.Before(p.activeUntil) {
		if !slices.Contains(n.watched, p.of) {
			n.routes().Unwatch(p.of.id)
		}
		n.paths().SetRoutes(now, p.of.id, nil)
		return
	}
	routes := n.routes().Routes(p.of.id)
	n.paths().SetRoutes(now, p.of.id, routes)
	for _, r := range routes {
		if !p.talks && now.Before(p.helloEnd) && !slices.Contains(p.tried, r) && len(p.tried) < maxTried { // this one may do
			p.tried = append(p.tried, r)
			n.emit(now, p, wire.Via(r), n.datagram(hello, 0, nil), classShake, 148)
		}
	}
}
