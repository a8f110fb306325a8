// Package path chooses the address at which a peer is reached now, and finds out how large a packet may be on the way.
//
// A peer has candidates: addresses from hints, from saved state, from its signed node info, from what others observed,
// and from which it spoke itself. Inside a session each is pinged; an address counts once it has answered our own ping
// (spec/51-path.md#states):
//
//	            ping sent               pong
//	unknown ----------------> probing ------> alive <--+
//	   ^                         |              |      | pong
//	   | listed anew,            | 3 missed     | 3 missed, 1 s apart
//	   | network changed         v              v      |
//	   +------------------------ dead <---------+      |
//	                              | retry time comes   |
//	                              +----> probing ------+
//
// The best alive candidate by measured round trip is the path, with hysteresis (spec/51-path.md#choice). Devices that run
// stock WireGuard cannot be pinged: they roam on authenticated packets as in WireGuard (spec/51-path.md#stock).
//
// An Engine is not safe for concurrent use: the control loop of package node owns it. [Peer.Best] and [Peer.MTU] may be
// read by any goroutine. After every call the owner takes [Engine.Effects] and arms its timer with [Engine.Tick].
// The engine sends nothing itself and seals nothing: pings leave as effects, to be sent inside the peer's session.
// It does not find candidates and knows no relay.
package path

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Limits and timers (spec/51-path.md#timers).
const (
	maxCandidates = 16 // a peer
	maxPerSource  = 8  // of one source's list
	maxSeen       = 4  // addresses the peer spoke from, newest kept
	maxInFlight   = 8  // pings of one peer that may still be answered in time
	maxPings      = 32 // pings of one peer that are remembered at all
	maxTargets    = 3

	activeFor      = 45 * time.Second // after data
	heartbeat      = 3 * time.Second
	heartbeatIdle  = 25 * time.Second
	standby        = 15 * time.Second
	standbyIdle    = 120 * time.Second
	pingTimeout    = time.Second // then a ping is missed
	pingMemory     = 5 * time.Second
	misses         = 3
	silence        = 3 * time.Second
	retryFirst     = 5 * time.Second // of a dead address that was alive once; doubles
	retryMost      = 600 * time.Second
	attemptWindow  = 600 * time.Second
	maxAttempts    = 3 // at one unproven address in attemptWindow
	stockPause     = 2 * time.Second
	observedRepeat = 60 * time.Second

	pongRate, pongBurst = 32, 64 // a second, of one peer
)

// Config holds what an Engine needs from outside. The zero Config is usable.
type Config struct {
	// Rand gives the ids of pings. Nil means crypto/rand. Its failure costs pings, nothing else.
	Rand io.Reader
	// Refuse reports addresses that must never be used, such as those inside the network itself. Nil refuses none.
	Refuse func(netip.Addr) bool
}

// Engine holds the paths to all peers of one network.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	peers   map[key.NodeID]*peer
	order   []*peer // as added: effects come in the same order for the same input
	effects []Effect
}

// Peer is what packet workers see of a peer. Its methods are safe for concurrent use and allocate nothing.
type Peer struct {
	best atomic.Pointer[netip.AddrPort]
	mtu  atomic.Int32
}

// Best returns the address to send to, or the zero AddrPort when there is none.
func (p *Peer) Best() netip.AddrPort {
	if a := p.best.Load(); a != nil {
		return *a
	}
	return netip.AddrPort{}
}

// MTU returns the size in bytes of the largest inner packet that is known to pass, 1280 at least.
func (p *Peer) MTU() int { return int(p.mtu.Load()) }

// peer is the control loop's side of a Peer.
type peer struct {
	hot   *Peer
	id    key.NodeID
	stock bool
	up    bool // a session exists: pings can be sent

	lists   [numSources][]netip.AddrPort
	seen    []netip.AddrPort // newest first
	cands   []*candidate     // in order of preference, see rebuild
	current *candidate

	pings       []ping // oldest first
	activeUntil time.Time
	attempts    bucket // pings and handshakes to unproven addresses, all together
	pongs       bucket

	switched time.Time     // last switch by choice
	hold     time.Duration // until the next one
	previous netip.AddrPort
	roamed   time.Time // stock: left previous then

	observed   netip.AddrPort // last reported
	observedAt time.Time
	wake       time.Time // zero: nothing to wait for
}

// New returns an engine without peers. A nil log discards.
func New(cfg Config, log *slog.Logger) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, log: log.With("part", "path"), peers: map[key.NodeID]*peer{}}
}

// AddPeer adds the member or, if stock is true, the device id, and returns what workers need of it. A peer that is
// there already is returned as it is.
func (e *Engine) AddPeer(id key.NodeID, stock bool) *Peer {
	if p := e.peers[id]; p != nil {
		return p.hot
	}
	p := &peer{hot: new(Peer), id: id, stock: stock}
	p.hot.mtu.Store(minMTU)
	p.attempts = bucket{tokens: maxCandidates * maxAttempts}
	p.pongs = bucket{tokens: pongBurst}
	e.peers[id] = p
	e.order = append(e.order, p)
	return p.hot
}

// RemovePeer forgets id. Its Peer has no address from now on. There is no effect.
func (e *Engine) RemovePeer(id key.NodeID) {
	p := e.peers[id]
	if p == nil {
		return
	}
	p.hot.best.Store(nil)
	delete(e.peers, id)
	e.order = slices.DeleteFunc(e.order, func(q *peer) bool { return q == p })
}

// SetCandidates replaces the addresses that src names for id. Those that can be no peer's are left out, and all behind
// the eighth. A list that differs from the last one wins new attempts for its addresses.
func (e *Engine) SetCandidates(now time.Time, id key.NodeID, src Source, addrs []netip.AddrPort) {
	p := e.peers[id]
	if p == nil || src >= numSources {
		return
	}
	list := make([]netip.AddrPort, 0, min(len(addrs), maxPerSource))
	for _, a := range addrs {
		if a, ok := e.clean(a); ok && len(list) < maxPerSource {
			list = append(list, a)
		}
	}
	if slices.Equal(list, p.lists[src]) {
		return
	}
	p.lists[src] = list
	p.rebuild(now)
	for _, a := range list {
		if c := p.find(a); c != nil {
			c.again(now)
		}
	}
	e.run(now, p)
}

// NetworkChanged says that addresses of this machine changed: every address of every peer gets new attempts, and path
// MTUs are measured anew.
func (e *Engine) NetworkChanged(now time.Time) {
	for _, p := range e.order {
		p.attempts = bucket{tokens: maxCandidates * maxAttempts, at: now}
		p.hold, p.observedAt = 0, time.Time{}
		for _, c := range p.cands {
			c.again(now)
			c.due = now
			c.mtu = pathMTU{}
		}
		p.publishMTU()
		e.run(now, p)
	}
}

// SessionUp says that a session with id came up, and by which address; from may be zero if that is unknown. It may be
// called for every later session too.
func (e *Engine) SessionUp(now time.Time, id key.NodeID, from netip.AddrPort) {
	p := e.peers[id]
	if p == nil {
		return
	}
	first := !p.up
	p.up = true
	if from, ok := e.clean(from); ok {
		if p.stock {
			e.roam(now, p, from)
		} else {
			e.sessionFrom(now, p, from)
		}
	}
	if first {
		for _, c := range p.cands {
			c.due = now
		}
	}
	e.run(now, p)
}

// sessionFrom takes the handshake as a proof: each side answered the other.
func (e *Engine) sessionFrom(now time.Time, p *peer, from netip.AddrPort) {
	p.see(now, from)
	c := p.find(from)
	c.heard = now
	if c.state != StateAlive {
		e.alive(now, p, c)
		c.due = now
	}
	if p.current == nil || p.current.state != StateAlive {
		e.use(now, p, c, "session")
	}
}

// SessionDown says that no session with id is left. Pings stop, and there is no path until the next session.
func (e *Engine) SessionDown(now time.Time, id key.NodeID) {
	p := e.peers[id]
	if p == nil || !p.up {
		return
	}
	p.up = false
	p.pings = nil
	for _, c := range p.cands {
		c.due = time.Time{}
		c.misses = 0
		if c.state != StateDead {
			c.state = StateUnknown
		}
	}
	e.use(now, p, nil, "no session")
	e.run(now, p)
}

// Active says that data went to or came from id. The owner calls it at least every 10 s while there is some.
func (e *Engine) Active(now time.Time, id key.NodeID) {
	p := e.peers[id]
	if p == nil || p.stock {
		return
	}
	p.activeUntil = now.Add(activeFor)
	for _, c := range p.cands {
		if c.state != StateAlive || c.misses > 0 || c.due.IsZero() {
			continue
		}
		if at := c.proven.Add(p.interval(now, c)); c.due.After(at) {
			c.due = at
		}
	}
	e.run(now, p)
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	for _, p := range e.order {
		if !p.wake.IsZero() && !p.wake.After(now) {
			e.run(now, p)
		}
		next = earlier(next, p.wake)
	}
	return next
}

// Effects returns what the owner must do now, in order, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

func (e *Engine) effect(f Effect) { e.effects = append(e.effects, f) }

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
