// Package path chooses by which way a peer is reached now, and finds out how large a packet may be on the way.
//
// A peer has candidates: direct ones, which are addresses from hints, from saved state, from its signed node info, from what
// others observed, and from which it spoke itself; and relayed ones, which are routes through other members, as package route
// finds them. Inside a session each is pinged end to end; a way counts once it has answered our own ping
// (spec/51-path.md#states):
//
//	            ping sent               pong
//	unknown ----------------> probing ------> alive <--+
//	   ^                         |              |      | pong
//	   | listed anew,            | 3 missed     | 3 missed
//	   | network changed         v              v      |
//	   +------------------------ dead <---------+      |
//	                              | retry time comes   |
//	                              +----> probing ------+
//
// The best alive candidate by measured round trip is the path, with hysteresis; direct ways come before relayed ones, except
// where a detour is clearly faster (spec/51-path.md#choice). Until a way has answered, the best route carries the traffic
// unproven; while the path is in doubt, copies go by a second way (spec/51-path.md#doubt). Where there is no direct way, the two
// sides tell each other their addresses over the relayed one, and probe at the same moment (spec/73-nat.md#exchange). Devices that run stock WireGuard
// cannot be pinged: they roam on authenticated packets as in WireGuard (spec/51-path.md#stock).
//
// An Engine is not safe for concurrent use: the control loop of package node owns it. [Peer.Choice] may be read by any
// goroutine. After every call the owner takes [Engine.Effects] and arms its timer with [Engine.Tick].
// The engine sends nothing itself and seals nothing: pings leave as effects, to be sent inside the peer's session.
// It finds neither addresses nor routes.
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
	"github.com/warren-vpn/warren/internal/wire"
)

// Limits and timers (spec/51-path.md#timers).
const (
	maxCandidates = 16 // addresses of a peer
	maxPerSource  = 8  // of one source's list
	maxSeen       = 4  // addresses the peer spoke from, newest kept
	maxRoutes     = 4  // of the owner's list
	maxStreams    = 4  // of the owner's list
	maxSeenRoutes = 2  // by which the peer spoke, newest kept
	maxInFlight   = 8  // pings of one peer that may still be answered in time
	maxPings      = 32 // pings of one peer that are remembered at all
	maxTargets    = 3  // addresses
	maxByRelay    = 2  // routes that a handshake takes

	busyFor        = 10 * time.Second // after data
	activeFor      = 45 * time.Second
	heartbeatBusy  = time.Second
	heartbeat      = 3 * time.Second
	calmPings      = 16        // idle pings answered in a row before the next is asked of the NATs
	stretchPause   = time.Hour // after a stretch that a NAT did not bear
	standby        = 15 * time.Second
	standbyIdle    = 120 * time.Second
	standbyRare    = 10 * time.Minute // the same while the path's pause is the longest
	freshAttempt   = 90 * time.Second // after this, a handshake is not a repetition any more
	sleepAfter     = 5 * time.Minute  // without data, of a session that need not be kept
	pingTimeout    = time.Second      // then a ping is missed
	pingTimeoutMin = 300 * time.Millisecond
	pingMemory     = 5 * time.Second
	misses         = 3
	missesHeard    = 6 // while packets come by the way
	heardLately    = 1500 * time.Millisecond
	trust          = 6500 * time.Millisecond // without a proof while sending: in doubt then
	silence        = 3 * time.Second
	retryFirst     = 5 * time.Second // of a dead address that was alive once; doubles
	retryMost      = 600 * time.Second
	attemptWindow  = 600 * time.Second
	retryGap       = 10 * time.Second
	maxAttempts    = 3 // at one unproven address in attemptWindow
	stockPause     = 2 * time.Second
	observedRepeat = 60 * time.Second
	provenRepeat   = 30 * time.Second // of a route

	pongRate, pongBurst = 32, 64 // a second, of one peer
)

// Mode says what is done with several ways to one peer (spec/51-path.md#modes).
type Mode uint8

// The modes.
const (
	ModeBackup    Mode = iota // all goes by the path, the others stand by
	ModeBalance               // flows are shared out among direct ways that are about as good
	ModeRedundant             // small packets go by a second way too
)

// Config holds what an Engine needs from outside. The zero Config is usable.
type Config struct {
	// Rand gives the ids of pings. Nil means crypto/rand. Its failure costs pings, nothing else.
	Rand io.Reader
	// Refuse reports addresses that must never be used, such as those inside the network itself. Nil refuses none.
	Refuse func(netip.Addr) bool
	Mode   Mode
	// NoDetours keeps to a direct way whenever one answers.
	NoDetours bool
	// Turn is shared by all engines of this host. Nil means that this is the only one.
	Turn *Turn
	// Freshens says that the owner can ask observers anew when [Freshen] wants it.
	Freshens bool
	// Feet is how many sockets the owner opens for a search when [Feet] asks for them; 0: none, then there is no search from
	// behind a NAT with random ports.
	Feet int
}

// Engine holds the paths to all peers of one network.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	peers   map[key.NodeID]*peer
	order   []*peer   // those that were ever used, in that order: effects come in the same order for the same input
	wake    time.Time // none of them has anything to do before; zero: never
	effects []Effect
	heard   time.Time // last packet of any peer
	own     wire.Candidates
	probes  bucket    // pings of all attempts to punch
	freshAt time.Time // Freshen was said last
}

// Peer is what packet workers see of a peer. Its methods are safe for concurrent use and allocate nothing.
type Peer struct{ choice atomic.Pointer[Choice] }

// MTU returns the size in bytes of the largest inner packet that is known to pass, 1280 at least.
func (p *Peer) MTU() int { return p.Choice().MTU }

// peer is the control loop's side of a Peer. Most members of a large network are never talked to: of these it keeps no more than
// their addresses.
type peer struct {
	hot   Peer
	id    key.NodeID
	stock bool
	drop  bool // the session need not be kept when nothing uses it
	hard  bool // a search for it is allowed
	lists [numSources][]netip.AddrPort
	*work // nil: see awake
}

// work is what there is of a peer from its first use on.
type work struct {
	up bool // a session exists: pings can be sent

	seen       []netip.AddrPort // newest first
	streams    []netip.AddrPort // the owner's
	routes     []wire.Route     // the owner's, best first
	seenRoutes []wire.Route     // newest first
	cands      []*candidate     // in order of preference, see rebuild
	current    *candidate
	why        string // of current

	pings       []ping // oldest first
	busySince   time.Time
	busyUntil   time.Time
	activeUntil time.Time
	attempts    bucket // pings and handshakes to unproven addresses, all together
	pongs       bucket

	switched  time.Time     // last switch by choice
	hold      time.Duration // until the next one
	detour    bool          // current is relayed by choice
	weighed   time.Time     // since then the other class is worth a switch
	asked     time.Time     // the path must prove itself since: our addresses changed, or the peer spoke by a route while it was silent
	askedSoon time.Time     // when the path was asked last for that the peer speaks by a route
	retryAt   time.Time     // when to ask the addresses again, while the path is a stream
	doubt     bool          // as published
	outage    bool          // Dead was said, and no way has answered since
	blames    []blame
	pace      pace
	called    time.Time // last handshake initiation
	retried   time.Time // last Retry

	sessionAt time.Time // the newest session came up

	punch punch

	previous   netip.AddrPort // stock
	roamed     time.Time      // stock: left previous then
	observed   netip.AddrPort // last reported
	observedAt time.Time
	wake       time.Time // zero: nothing to wait for
}

// New returns an engine without peers. A nil log discards.
func New(cfg Config, log *slog.Logger) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Turn == nil {
		cfg.Turn = new(Turn)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, log: log.With("part", "path"), peers: map[key.NodeID]*peer{},
		probes: bucket{tokens: probeTokens}}
}

// AddPeer adds the member or, if stock is true, the device id, and returns what workers need of it. A peer that is
// there already is returned as it is.
func (e *Engine) AddPeer(id key.NodeID, stock bool) *Peer {
	if p := e.peers[id]; p != nil {
		return &p.hot
	}
	p := &peer{id: id, stock: stock}
	e.peers[id] = p
	return &p.hot
}

func newWork() *work {
	w := &work{attempts: bucket{tokens: maxCandidates * maxAttempts}, pongs: bucket{tokens: pongBurst}}
	w.punch.bucket = bucket{tokens: punchBurst}
	return w
}

// awake returns the peer id, with all that its use takes; nil if there is no such peer.
func (e *Engine) awake(id key.NodeID) *peer {
	p := e.peers[id]
	if p != nil && p.work == nil {
		p.work = newWork()
		p.rebuild(time.Time{}) // no session: nothing is due yet
		e.order = append(e.order, p)
	}
	return p
}

// used returns the peer id; nil if there is none, or it was never used.
func (e *Engine) used(id key.NodeID) *peer {
	if p := e.peers[id]; p != nil && p.work != nil {
		return p
	}
	return nil
}

// RemovePeer forgets id. Its Peer has no path from now on. There is no effect but [FeetDone].
func (e *Engine) RemovePeer(id key.NodeID) {
	p := e.peers[id]
	if p == nil {
		return
	}
	delete(e.peers, id)
	if p.work == nil {
		return
	}
	p.hot.choice.Store(nil)
	e.endHard(time.Time{}, p)
	e.order = slices.DeleteFunc(e.order, func(q *peer) bool { return q == p })
	e.wake = time.Time{}
	for _, q := range e.order {
		e.wake = earlier(e.wake, q.wake)
	}
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
		if a, ok := e.cleanAddr(a); ok && !wire.IsLabel(a.Addr()) && len(list) < maxPerSource {
			list = append(list, a)
		}
	}
	if slices.Equal(list, p.lists[src]) {
		return
	}
	p.lists[src] = list
	if p.work == nil {
		return
	}
	p.rebuild(now)
	for _, a := range list {
		if c := p.find(wire.Direct(a)); c != nil {
			c.again(now)
		}
	}
	p.freshPunch(now)
	e.run(now, p)
}

// NetworkChanged says that addresses of this machine changed: every way to every peer gets new attempts, and path MTUs are
// measured anew.
func (e *Engine) NetworkChanged(now time.Time) {
	for _, p := range e.order {
		p.attempts = bucket{tokens: maxCandidates * maxAttempts, at: now}
		p.hold, p.observedAt, p.asked = 0, time.Time{}, now
		p.freshPunch(now)
		for _, c := range p.cands {
			c.again(now)
			c.due = now
			c.mtu = pathMTU{}
		}
		e.run(now, p)
	}
}

// Retry tries every way to id once more, and a direct one by an attempt of both, because a person asks for it; more often than every
// 10 s it does nothing (spec/51-path.md#politeness).
func (e *Engine) Retry(now time.Time, id key.NodeID) {
	p := e.used(id)
	if p == nil || now.Sub(p.retried) < retryGap {
		return
	}
	p.retried = now
	p.freshPunch(now)
	for _, c := range p.cands {
		c.once(now)
	}
	e.run(now, p)
}

// SessionUp says that a session with id came up, and by which way; from may be zero if that is unknown. It may be called for
// every later session too.
func (e *Engine) SessionUp(now time.Time, id key.NodeID, from wire.Way) {
	p := e.awake(id)
	if p == nil {
		return
	}
	first := !p.up
	p.up, p.sessionAt = true, now
	if from, ok := e.clean(from); ok {
		if !p.stock {
			e.sessionFrom(now, p, from)
		} else if !from.IsRelayed() {
			e.roam(now, p, from)
		}
	}
	if first {
		p.busyUntil = later(p.busyUntil, now) // sleep is counted from here
		for _, c := range p.cands {
			c.due = now
		}
	}
	e.run(now, p)
}

// sessionFrom takes the handshake as a proof: each side answered the other.
func (e *Engine) sessionFrom(now time.Time, p *peer, from wire.Way) {
	e.hear(now, p, from)
	p.see(now, from)
	c := p.find(from)
	c.heard = now
	if c == p.current && c.misses == 0 && !p.active(now) && !p.asking(c, false) {
		n, _ := e.nonce() // so that both ends do not ping at the same moment
		c.due = p.nextPing(now, c).Add(-time.Duration(n % uint64(sharedSlack)))
	}
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
	p := e.used(id)
	if p == nil || !p.up {
		return
	}
	p.up, p.outage = false, false
	p.pings = nil
	for _, c := range p.cands {
		c.due = time.Time{}
		c.outage()
		if c.state != StateDead {
			c.state = StateUnknown
		}
	}
	e.use(now, p, nil, "no session")
	p.rebuild(now)
	e.run(now, p)
}

// Keep says whether the session with id is to be kept up when nothing uses it; it is, until the owner says otherwise. Of one
// that is not, pings stop 5 minutes after the last data, so that it may end.
func (e *Engine) Keep(now time.Time, id key.NodeID, keep bool) {
	p := e.peers[id]
	if p == nil || p.drop == !keep {
		return
	}
	p.drop = !keep
	if p.work == nil {
		return
	}
	if !keep && p.up {
		p.busyUntil = later(p.busyUntil, now)
	}
	e.run(now, p)
}

// asleep reports whether p is left alone, for nothing has used its session for long.
func (p *peer) asleep(now time.Time) bool { return p.drop && now.Sub(p.busyUntil) >= sleepAfter }

// Active says that data went to or came from id. The owner calls it at least every 10 s while there is some.
func (e *Engine) Active(now time.Time, id key.NodeID) {
	p := e.awake(id)
	if p == nil || p.stock {
		return
	}
	if !p.busy(now) {
		p.busySince = now
	}
	p.busyUntil, p.activeUntil = now.Add(busyFor), now.Add(activeFor)
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

func (p *peer) busy(now time.Time) bool   { return now.Before(p.busyUntil) }
func (p *peer) active(now time.Time) bool { return now.Before(p.activeUntil) }

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	if e.wake.IsZero() || e.wake.After(now) {
		return e.wake
	}
	for _, p := range e.order {
		if !p.wake.IsZero() && !p.wake.After(now) {
			e.run(now, p)
		}
		next = earlier(next, p.wake)
	}
	e.wake = next
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
