package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Source says who named an address.
type Source uint8

// The sources. Addresses from which the peer itself spoke need no source: see [Engine.Received].
const (
	SourceHint     Source = iota // an invite code
	SourceSaved                  // our own state: Proven in an earlier run
	SourceInfo                   // the peer's signed node info
	SourceObserved               // another member saw the peer there
	numSources
)

// State is what we know of an address (spec/51-path.md#states).
type State uint8

// The states of an address.
const (
	StateUnknown State = iota // not tried, or no session to try it in
	StateProbing              // asked, not yet answered
	StateAlive                // answered, and not silent since
	StateDead                 // did not answer
)

// String names s as logs and status do.
func (s State) String() string {
	switch s {
	case StateProbing:
		return "probing"
	case StateAlive:
		return "alive"
	case StateDead:
		return "dead"
	}
	return "unknown"
}

// candidate is one way to one peer.
type candidate struct {
	way       wire.Way
	rank      int // of a route: its place in the owner's list; unlisted behind it
	state     State
	everAlive bool        // in this run, or Saved: the limit of attempts does not hold
	listed    bool        // a route that the owner named: nor does it for this
	used      bool        // packets go there now, beside or instead of the path
	fell      bool        // died while it was the path
	attempts  []time.Time // of an unproven way, oldest first, in attemptWindow
	tried     time.Time   // last ping or handshake
	rtt       time.Duration
	jitter    time.Duration
	loss      float64
	lossThen  float64   // loss before the first of misses
	proven    time.Time // last answer of ours
	told      time.Time // of a route: last Proven
	heard     time.Time // last reported packet from there
	rival     time.Time // the peer spoke from here then, while another way was the path
	misses    int       // pings in a row without an answer in time
	missing   time.Time // when the first of them was sent
	due       time.Time // next ping; zero: none planned
	backoff   time.Duration
	stretch   int       // of idleSteps
	calm      int       // idle pings answered in a row at this step
	spared    int       // idle pings of the peer in a row that took the place of ours
	noStretch time.Time // not before
	mtu       pathMTU
}

// outage takes the misses of now for what they are when c dies or its session ends: it was cut, which says nothing of its loss.
func (c *candidate) outage() {
	if c.misses > 0 {
		c.loss, c.misses = c.lossThen, 0
	}
}

func (c *candidate) relayed() bool { return c.way.IsRelayed() }

// stream reports whether c is an open stream of this machine's.
func (c *candidate) stream() bool { return c.way.IsStream() }

// trusted reports whether c needs no politeness: it worked once, or is a route of our own choice, or a stream.
func (c *candidate) trusted() bool { return c.everAlive || c.listed || c.stream() }

// size returns the largest inner packet that is known to pass by c, in bytes.
func (c *candidate) size() int { return max(minMTU, c.mtu.size) }

// again gives c new attempts: it was listed anew or the network changed.
func (c *candidate) again(now time.Time) {
	c.attempts, c.backoff, c.misses = nil, 0, 0
	if c.state == StateDead {
		c.state = StateUnknown
	}
	if c.state == StateUnknown {
		c.due = now
	}
}

// mayTry reports whether an attempt at c is allowed now, and if not, when one will be. It counts the attempt.
func (p *peer) mayTry(now time.Time, c *candidate) (at time.Time, ok bool) {
	if c.trusted() {
		return now, true
	}
	for len(c.attempts) > 0 && now.Sub(c.attempts[0]) >= attemptWindow {
		c.attempts = c.attempts[1:]
	}
	if len(c.attempts) >= maxAttempts {
		return c.attempts[0].Add(attemptWindow), false
	}
	const all = maxCandidates * maxAttempts
	if !p.attempts.take(now, all/attemptWindow.Seconds(), all) {
		return now.Add(attemptWindow / all), false
	}
	c.attempts = append(c.attempts, now)
	return now, true
}

// clean returns w as the engine keeps it, or false for what can be no way to a peer.
func (e *Engine) clean(w wire.Way) (wire.Way, bool) {
	if w.IsRelayed() {
		return wire.Via(w.Route), true
	}
	a, ok := e.cleanAddr(w.Addr)
	return wire.Direct(a), ok
}

// cleanAddr returns a as the engine keeps it, or false for what can be no peer's address.
func (e *Engine) cleanAddr(a netip.AddrPort) (netip.AddrPort, bool) {
	ip := a.Addr().Unmap()
	if !ip.IsValid() || a.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return a, false
	}
	if e.cfg.Refuse != nil && e.cfg.Refuse(ip) {
		return a, false
	}
	return netip.AddrPortFrom(ip, a.Port()), true
}

func (p *peer) find(w wire.Way) *candidate {
	for _, c := range p.cands {
		if c.way == w {
			return c
		}
	}
	return nil
}

// see makes w, by which the peer spoke, a candidate, and an address the first of all.
func (p *peer) see(now time.Time, w wire.Way) {
	known := p.find(w) != nil
	if w.IsRelayed() {
		if !known {
			p.seenRoutes = newest(p.seenRoutes, w.Route, maxSeenRoutes)
			p.rebuild(now)
		}
		return
	}
	if known && len(p.seen) > 0 && p.seen[0] == w.Addr {
		return
	}
	p.seen = newest(p.seen, w.Addr, maxSeen)
	p.rebuild(now)
}

// newest puts v in front of list, once, and cuts it to limit.
func newest[T comparable](list []T, v T, limit int) []T {
	list = slices.DeleteFunc(list, func(o T) bool { return o == v })
	list = slices.Insert(list, 0, v)
	return list[:min(limit, len(list))]
}

// rebuild makes the candidates anew from the lists. Addresses: the present path, streams, where the peer spoke from, what is alive,
// then one of each source in turn until there are enough. So no source can push out all of another's
// (spec/51-path.md#candidates). Routes: the present path, the owner's, and by which the peer spoke.
func (p *peer) rebuild(now time.Time) {
	next := make([]*candidate, 0, maxCandidates+maxRoutes+maxSeenRoutes+1)
	add := func(w wire.Way) *candidate {
		if i := slices.IndexFunc(next, func(c *candidate) bool { return c.way == w }); i >= 0 {
			return next[i]
		}
		if !w.IsRelayed() && len(next) == maxCandidates {
			return nil
		}
		c := p.find(w)
		if c == nil {
			c = &candidate{way: w}
			if p.up {
				c.due = now
			}
		}
		c.listed, c.rank = false, maxRoutes
		next = append(next, c)
		return c
	}
	if p.current != nil && !p.current.relayed() {
		add(p.current.way)
	}
	for _, a := range p.streams {
		add(wire.Direct(a))
	}
	for _, a := range p.seen {
		add(wire.Direct(a))
	}
	for _, c := range p.cands {
		if c.state == StateAlive && !c.relayed() {
			add(c.way)
		}
	}
	for i := range maxPerSource {
		for _, src := range []Source{SourceObserved, SourceInfo, SourceSaved, SourceHint} {
			if i < len(p.lists[src]) {
				add(wire.Direct(p.lists[src][i]))
			}
		}
	}
	for i, r := range p.routes {
		c := add(wire.Via(r))
		c.listed, c.rank = true, i
	}
	if p.current != nil {
		add(p.current.way)
	}
	for _, r := range p.seenRoutes {
		add(wire.Via(r))
	}
	p.cands = next
	for _, a := range p.lists[SourceSaved] {
		if c := p.find(wire.Direct(a)); c != nil {
			c.everAlive = true
		}
	}
	p.pings = slices.DeleteFunc(p.pings, func(g ping) bool { return !slices.Contains(next, g.to) })
}

// Targets returns the ways by which the owner sends one handshake initiation for id: the path alone at first while it is an address
// and answers; else up to three addresses, the last one
// that worked first, then those that waited longest; unless one of them is the path and answers, the streams; and unless one of
// those is, up to two routes. It counts as an attempt at each: an address that is exhausted is left out
// (spec/51-path.md#targets).
func (e *Engine) Targets(now time.Time, id key.NodeID) []wire.Way {
	p := e.awake(id)
	if p == nil {
		return nil
	}
	again := !p.called.IsZero() && now.Sub(p.called) <= freshAttempt
	p.called = now
	if c := p.current; p.trusted(c) && !again {
		c.tried = now
		return []wire.Way{c.way}
	}
	sorted := slices.Clone(p.cands)
	slices.SortStableFunc(sorted, func(a, b *candidate) int { return a.tried.Compare(b.tried) })
	last := p.lastProven()
	if last != nil {
		i := slices.Index(sorted, last)
		copy(sorted[1:i+1], sorted[:i])
		sorted[0] = last
	}
	var out []wire.Way
	for _, c := range sorted {
		if len(out) == maxTargets {
			break
		}
		if c.relayed() || c.stream() {
			continue
		}
		if _, ok := p.mayTry(now, c); ok {
			c.tried = now
			out = append(out, c.way)
		}
	}
	if p.trusted(p.current) {
		return out
	}
	for _, c := range p.cands {
		if c.stream() {
			out = append(out, c.way)
		}
	}
	if c := p.current; c != nil && c.stream() && c.state == StateAlive && c.misses == 0 {
		return out
	}
	return append(out, p.targetRoutes(now, last)...)
}

// trusted reports whether the path c is an address, alive and in no doubt.
func (p *peer) trusted(c *candidate) bool {
	return c != nil && !c.relayed() && !c.stream() && c.state == StateAlive && c.misses == 0
}

// targetRoutes returns the routes that a handshake takes: the last one that worked, then the owner's in order; those that are
// dead only when there are no others.
func (p *peer) targetRoutes(now time.Time, last *candidate) (out []wire.Way) {
	rank := func(c *candidate) int {
		switch {
		case c.state == StateDead:
			return 1 + 2*maxRoutes + c.rank
		case c == last:
			return 0
		}
		return 1 + c.rank
	}
	routes := slices.DeleteFunc(slices.Clone(p.cands), func(c *candidate) bool { return !c.relayed() })
	slices.SortStableFunc(routes, func(a, b *candidate) int { return rank(a) - rank(b) })
	for _, c := range routes {
		if len(out) == maxByRelay {
			break
		}
		if _, ok := p.mayTry(now, c); ok {
			c.tried = now
			out = append(out, c.way)
		}
	}
	return out
}

// lastProven returns the present path, else the candidate with the latest proof, or nil.
func (p *peer) lastProven() *candidate {
	if p.current != nil {
		return p.current
	}
	var last *candidate
	for _, c := range p.cands {
		if t := c.lastSign(); !t.IsZero() && (last == nil || t.After(last.lastSign())) {
			last = c
		}
	}
	return last
}

// lastSign returns when c was last known to work in some direction.
func (c *candidate) lastSign() time.Time {
	if c.heard.After(c.proven) {
		return c.heard
	}
	return c.proven
}

// bucket is a token bucket. The zero bucket is empty.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes one token, of which rate come in a second up to burst.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if b.at.IsZero() {
		b.at = now
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*rate)
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
