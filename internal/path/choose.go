package path

import (
	"net/netip"
	"time"
)

// Choice (spec/51-path.md#choice).
const (
	gainLeast   = 5 * time.Millisecond
	gainShare   = 0.9 // of the present cost, at most
	nearShare   = 0.8 // cost of a private or link-local address
	ipv6Share   = 0.9
	costFloor   = time.Millisecond // below this, differences are noise
	holdFirst   = 8 * time.Second
	holdMost    = 600 * time.Second
	holdHalving = 300 * time.Second

	detourLeast = 10 * time.Millisecond // the route must be faster by so much
	detourShare = 0.8                   // and take at most this of the direct round trip
	evenMargin  = 5 * time.Millisecond  // a direct way so much slower, or less, ends a detour
	evenShare   = 1.1
	weighFor    = 30 * time.Second
)

// choose decides after an answer by c whether the path changes.
func (e *Engine) choose(now time.Time, p *peer, c *candidate) {
	cur := p.current
	asked := c.rival
	c.rival = time.Time{}
	switch {
	case c == cur:
		e.optimize(now, p)
	case cur == nil:
		e.use(now, p, c, "answers")
	case cur.state != StateAlive, cur.mtu.thin && !c.mtu.thin:
		e.use(now, p, c, "answers first")
	case !asked.IsZero() && cur.proven.Before(asked) && c.class() <= cur.class():
		e.use(now, p, c, "the peer moved")
	default:
		e.optimize(now, p)
	}
}

// optimize moves to a clearly better path by choice, not too often.
func (e *Engine) optimize(now time.Time, p *peer) {
	cur := p.current
	direct, route := p.bestDirect(nil), p.bestRoute(nil)
	ripe := e.weigh(now, p, direct, route)
	switch {
	case cur.relayed() && direct != nil && !p.detour:
		if !direct.fell || p.mayMove(now) {
			e.use(now, p, direct, "direct")
		}
	case cur.relayed() && direct != nil && ripe:
		if p.mayMove(now) {
			e.use(now, p, direct, "direct is as fast")
		}
	case cur.relayed():
		if route != nil && route != cur && route.overtakes(cur) && p.mayMove(now) {
			e.use(now, p, route, "better route")
		}
	case cur.stream() && direct != nil && !direct.stream():
		if !direct.fell || p.mayMove(now) {
			e.use(now, p, direct, "UDP answers")
		}
	case ripe:
		if p.mayMove(now) {
			e.use(now, p, route, "faster than direct")
			p.detour = true
		}
	case cur.rtt == 0 && cur.misses == 0: // its own answer is awaited
	case direct != nil && direct != cur && direct.rtt > 0 && better(direct, cur) && p.mayMove(now):
		e.use(now, p, direct, "faster")
	}
}

// weigh compares the direct and the relayed way, of which one is the path, and reports whether the other has been worth a
// switch for long enough (spec/51-path.md#detours).
func (e *Engine) weigh(now time.Time, p *peer, direct, route *candidate) (ripe bool) {
	if p.current.relayed() {
		route = p.current
	} else {
		direct = p.current
	}
	worth := false
	if direct != nil && route != nil && direct.rtt > 0 && route.rtt > 0 {
		d, r := direct.rtt, route.rtt
		if p.current == route {
			worth = d <= r+evenMargin || float64(d) <= evenShare*float64(r)
		} else {
			worth = p.active(now) && r <= d-detourLeast && float64(r) <= detourShare*float64(d)
		}
	}
	switch {
	case e.cfg.NoDetours:
		return p.current == route
	case !worth:
		p.weighed = time.Time{}
		return false
	case p.weighed.IsZero():
		p.weighed = now
	}
	return now.Sub(p.weighed) >= weighFor
}

// mayMove reports whether a change by choice is allowed again, and counts it.
func (p *peer) mayMove(now time.Time) bool {
	since := now.Sub(p.switched)
	if !p.switched.IsZero() && since < p.hold {
		return false
	}
	for ; since >= holdHalving && p.hold > 0; since -= holdHalving {
		p.hold /= 2
	}
	p.hold = min(max(2*p.hold, holdFirst), holdMost)
	p.switched = now
	return true
}

// failover leaves a dead path for the next best, or for none.
func (e *Engine) failover(now time.Time, p *peer) {
	next := p.fallback(p.current)
	p.detour = false
	e.use(now, p, next, "the path died")
	if p.outage || next != nil && next.state == StateAlive && next.misses == 0 {
		return
	}
	p.outage = true
	e.effect(Dead{ID: p.id})
	for _, c := range p.cands { // what was given up long ago may be better than nothing
		if c.state == StateDead && c.trusted() && now.Sub(c.tried) >= retryFirst {
			c.due = now
		}
	}
}

// bestDirect returns the cheapest address that is alive and in no doubt, or nil; never not. A stream comes after all others.
func (p *peer) bestDirect(not *candidate) (best *candidate) {
	for _, c := range p.cands {
		if c == not || c.relayed() || c.state != StateAlive || c.misses > 0 || c.mtu.thin {
			continue
		}
		switch {
		case best == nil:
			best = c
		case best.stream() != c.stream():
			if best.stream() {
				best = c
			}
		case best.rtt == 0 && c.rtt > 0 || c.rtt > 0 && c.cost() < best.cost():
			best = c
		}
	}
	return best
}

// better reports whether the address c, measured, is worth leaving cur for.
func better(c, cur *candidate) bool {
	if c.stream() && !cur.stream() {
		return false
	}
	if cur.rtt == 0 {
		return true
	}
	have, want := cur.cost(), c.cost()
	if near(c.way.Addr.Addr()) && !near(cur.way.Addr.Addr()) && want <= have {
		return true
	}
	return want < have-gainLeast && float64(want) < gainShare*float64(have)
}

// cost is the smoothed round trip, weighted by kind of address.
func (c *candidate) cost() time.Duration {
	cost := float64(c.rtt + costFloor)
	if near(c.way.Addr.Addr()) {
		cost *= nearShare
	}
	if c.way.Addr.Addr().Is6() {
		cost *= ipv6Share
	}
	return time.Duration(cost)
}

func near(a netip.Addr) bool { return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() }

// use makes c, or nothing, the path of p, and says why.
func (e *Engine) use(now time.Time, p *peer, c *candidate, why string) {
	old := p.current
	if old == c {
		return
	}
	p.current, p.why = c, why
	p.weighed, p.asked = time.Time{}, time.Time{}
	change := Changed{ID: p.id}
	if old != nil {
		change.Old = old.way
	}
	if c == nil || !c.relayed() {
		p.detour = false
	}
	if c != nil {
		change.New = c.way
		switch at := p.nextPing(now, c); {
		case p.stock:
		case c.state != StateAlive && !p.asking(c, false):
			c.due = now
		case c.due.After(at):
			c.due = at
		}
	}
	if old != nil && old.relayed() && !old.listed {
		p.rebuild(now) // it was kept for being the path
	}
	e.log.Debug("path changed", "peer", p.id, "old", change.Old, "new", change.New, "why", why)
	e.effect(change)
}
