package path

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Routes (spec/51-path.md#routes, spec/51-path.md#blame).
const (
	blameAfter = 15 * time.Second
	maxBlames  = 4
	lessLost   = 2 // a listed route gives way to a later one when its round trip is more than so many times as long
	lessMargin = 20 * time.Millisecond
)

// blame is a route that died by silence, until it is known whether the peer is there.
type blame struct {
	route wire.Route
	since time.Time // nothing was answered by it since
	until time.Time // then the peer counts as still there if others are
	thin  bool      // only large packets are lost: another way must pass them first
}

// SetRoutes replaces the routes to id that the owner knows, best first; the first four that have relays count. All may be
// used at once: every relay of them is a member.
func (e *Engine) SetRoutes(now time.Time, id key.NodeID, routes []wire.Route) {
	p := e.peers[id]
	if p == nil || p.stock || p.work == nil && len(routes) == 0 {
		return
	}
	e.awake(id)
	list := make([]wire.Route, 0, min(len(routes), maxRoutes))
	for _, r := range routes {
		if r.Len() > 0 && len(list) < maxRoutes && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	if slices.Equal(list, p.routes) {
		return
	}
	old := p.routes
	p.routes = list
	p.rebuild(now)
	for _, r := range list {
		if !slices.Contains(old, r) {
			p.find(wire.Via(r)).again(now)
		}
	}
	switch cur := p.current; {
	case cur == nil || !cur.relayed():
	case cur.state == StateAlive:
		e.optimize(now, p)
	case !cur.listed:
		if next := p.fallback(nil); next != nil {
			e.use(now, p, next, "another route")
		}
	}
	p.rebuild(now) // without a route that was the path until now
	e.run(now, p)
}

// Failed says that a relay on route could not pass packets to id on: this way is dead at once.
func (e *Engine) Failed(now time.Time, id key.NodeID, route wire.Route) {
	p := e.used(id)
	if p == nil {
		return
	}
	if c := p.find(wire.Via(route)); c != nil && c.state != StateDead {
		e.dead(now, p, c)
	}
	e.run(now, p)
}

// RemoveRelay says that id is no member any more: no peer is reached through it from now on, whoever names such a route.
func (e *Engine) RemoveRelay(now time.Time, id key.ShortID) {
	through := func(r wire.Route) bool { return r.Has(id) }
	for _, p := range e.order {
		p.routes = slices.DeleteFunc(slices.Clone(p.routes), through)
		p.seenRoutes = slices.DeleteFunc(p.seenRoutes, through)
		for _, c := range slices.Clone(p.cands) {
			if through(c.way.Route) && c.state != StateDead {
				e.dead(now, p, c)
			}
		}
		p.rebuild(now)
		e.run(now, p)
	}
}

// swallowed deals with c, a route that died by silence. That the peer has gone is no fault of the relays: first something
// must come from it by another way; or, when nothing comes, from other members (spec/51-path.md#blame).
func (p *peer) swallowed(c *candidate, since, until time.Time) {
	p.blames = slices.DeleteFunc(p.blames, func(b blame) bool { return b.route == c.way.Route })
	if len(p.blames) == maxBlames {
		p.blames = p.blames[1:]
	}
	p.blames = append(p.blames, blame{route: c.way.Route, since: since, until: until, thin: c.mtu.thin})
}

// inVain asks for other routes in place of c, of which no ping was answered, and of those that died before, when there is nothing
// better and our own network is not to blame (spec/51-path.md#vain-routes).
func (e *Engine) inVain(p *peer, c *candidate) {
	if !e.heard.After(c.missing) || slices.ContainsFunc(p.cands, func(o *candidate) bool { return o != c && o.state == StateAlive && o.misses == 0 }) {
		return
	}
	for _, o := range p.cands {
		if o.relayed() && o.listed && (o == c || o.state == StateDead) {
			e.effect(Vain{ID: p.id, Route: o.way.Route})
		}
	}
}

// hear takes note that p spoke by w: it is there, so a route by which it was not is to blame.
func (e *Engine) hear(now time.Time, p *peer, w wire.Way) {
	e.heard = now
	p.blames = slices.DeleteFunc(p.blames, func(b blame) bool {
		if !b.thin && b.route != w.Route {
			e.effect(Swallowed{ID: p.id, Route: b.route})
		}
		return !b.thin
	})
}

// blameDue decides on the routes to a peer of which nothing was heard for long: when others are heard, it is not our own
// network that is down.
func (e *Engine) blameDue(now time.Time, p *peer) {
	p.blames = slices.DeleteFunc(p.blames, func(b blame) bool {
		if b.until.After(now) {
			return false
		}
		if e.heard.After(b.since) {
			e.effect(Swallowed{ID: p.id, Route: b.route})
		}
		return true
	})
}

// overtakes reports whether route c is preferred to route d, both alive. The owner's order counts, which knows of loss and
// of relays to be spared; but what is measured end to end convicts a map that lies.
func (c *candidate) overtakes(d *candidate) bool {
	if c.rank < d.rank {
		return !d.overtakes(c)
	}
	return c.rank > d.rank && c.rtt > 0 && d.rtt > lessLost*c.rtt+lessMargin
}

// bestRoute returns the preferred route that is alive and in no doubt, or nil; never not.
func (p *peer) bestRoute(not *candidate) (best *candidate) {
	for _, c := range p.cands {
		if c == not || !c.relayed() || c.state != StateAlive || c.misses > 0 || c.mtu.thin {
			continue
		}
		if best == nil || c.overtakes(best) {
			best = c
		}
	}
	return best
}

// untried returns the best route of which nothing bad is known yet, the one by which the peer spoke of late first; never
// not.
func (p *peer) untried(not *candidate) (best *candidate) {
	for _, c := range p.cands {
		if c == not || !c.relayed() || c.state == StateDead || c.state == StateAlive || c.backoff > 0 || c.mtu.thin {
			continue
		}
		if best == nil || c.heard.After(best.heard) || c.heard.Equal(best.heard) && c.rank < best.rank {
			best = c
		}
	}
	return best
}

// fallback returns what carries the traffic when the path, not, does not: what is alive and in no doubt, else the best route
// even though it is unproven, else what is alive in doubt; nil when there is nothing (spec/51-path.md#optimism).
func (p *peer) fallback(not *candidate) *candidate {
	if c := p.bestDirect(not); c != nil {
		return c
	}
	if c := p.bestRoute(not); c != nil {
		return c
	}
	if c := p.untried(not); c != nil {
		return c
	}
	for _, c := range p.cands {
		if c != not && c.state == StateAlive {
			return c
		}
	}
	return nil
}
