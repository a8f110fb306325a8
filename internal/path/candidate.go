package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
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

// candidate is one address of one peer.
type candidate struct {
	addr      netip.AddrPort
	state     State
	everAlive bool        // in this run, or Saved: the limit of attempts does not hold
	attempts  []time.Time // of an unproven address, oldest first, in attemptWindow
	tried     time.Time   // last ping or handshake
	rtt       time.Duration
	proven    time.Time // last answer of ours
	heard     time.Time // last reported packet from there
	rival     time.Time // the peer spoke from here then, while another address was the path
	misses    int       // pings in a row without an answer in time
	due       time.Time // next ping; zero: none planned
	backoff   time.Duration
	mtu       pathMTU
}

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
	if c.everAlive {
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

// clean returns a as the engine keeps it, or false for what can be no peer's address.
func (e *Engine) clean(a netip.AddrPort) (netip.AddrPort, bool) {
	ip := a.Addr().Unmap()
	if !ip.IsValid() || a.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return a, false
	}
	if e.cfg.Refuse != nil && e.cfg.Refuse(ip) {
		return a, false
	}
	return netip.AddrPortFrom(ip, a.Port()), true
}

func (p *peer) find(a netip.AddrPort) *candidate {
	for _, c := range p.cands {
		if c.addr == a {
			return c
		}
	}
	return nil
}

// see puts a, from which the peer spoke, in front of all candidates.
func (p *peer) see(now time.Time, a netip.AddrPort) {
	if len(p.seen) > 0 && p.seen[0] == a && p.find(a) != nil {
		return
	}
	p.seen = slices.DeleteFunc(p.seen, func(b netip.AddrPort) bool { return a == b })
	p.seen = slices.Insert(p.seen, 0, a)
	if len(p.seen) > maxSeen {
		p.seen = p.seen[:maxSeen]
	}
	p.rebuild(now)
}

// rebuild makes the candidates anew from the lists: the present path, where the peer spoke from, what is alive, then one
// of each source in turn until there are enough. So no source can push out all of another's
// (spec/51-path.md#candidates).
func (p *peer) rebuild(now time.Time) {
	next := make([]*candidate, 0, maxCandidates)
	add := func(a netip.AddrPort) {
		if len(next) == maxCandidates || slices.ContainsFunc(next, func(c *candidate) bool { return c.addr == a }) {
			return
		}
		c := p.find(a)
		if c == nil {
			c = &candidate{addr: a}
			if p.up {
				c.due = now
			}
		}
		next = append(next, c)
	}
	if p.current != nil {
		add(p.current.addr)
	}
	for _, a := range p.seen {
		add(a)
	}
	for _, c := range p.cands {
		if c.state == StateAlive {
			add(c.addr)
		}
	}
	for i := range maxPerSource {
		for _, src := range []Source{SourceObserved, SourceInfo, SourceSaved, SourceHint} {
			if i < len(p.lists[src]) {
				add(p.lists[src][i])
			}
		}
	}
	p.cands = next
	for _, a := range p.lists[SourceSaved] {
		if c := p.find(a); c != nil {
			c.everAlive = true
		}
	}
	p.pings = slices.DeleteFunc(p.pings, func(g ping) bool { return !slices.Contains(next, g.to) })
}

// Targets returns up to three addresses to which the owner sends one handshake initiation for id: the last one that
// worked first, then those that waited longest. It counts as an attempt at each: an address that is exhausted is left
// out (spec/51-path.md#politeness).
func (e *Engine) Targets(now time.Time, id key.NodeID) []netip.AddrPort {
	p := e.peers[id]
	if p == nil {
		return nil
	}
	sorted := slices.Clone(p.cands)
	slices.SortStableFunc(sorted, func(a, b *candidate) int { return a.tried.Compare(b.tried) })
	if last := p.lastProven(); last != nil {
		i := slices.Index(sorted, last)
		copy(sorted[1:i+1], sorted[:i])
		sorted[0] = last
	}
	var out []netip.AddrPort
	for _, c := range sorted {
		if len(out) == maxTargets {
			break
		}
		if _, ok := p.mayTry(now, c); ok {
			c.tried = now
			out = append(out, c.addr)
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
