package path

import (
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
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
)

// Received says that an authenticated packet of id came from from. The owner calls it when the address differs from
// that of the packet before, and for control messages other than pings and pongs; a call for every packet is allowed,
// and wasteful.
func (e *Engine) Received(now time.Time, id key.NodeID, from netip.AddrPort) {
	p := e.peers[id]
	from, ok := e.clean(from)
	if p == nil || !ok {
		return
	}
	e.received(now, p, from)
	e.run(now, p)
}

// received follows a peer that moved (spec/51-path.md#roaming).
func (e *Engine) received(now time.Time, p *peer, from netip.AddrPort) {
	if p.stock {
		e.roam(now, p, from)
		return
	}
	if c := p.find(from); c != nil && (c == p.current || c.state == StateAlive) {
		c.heard = now
		if c != p.current && (p.current == nil || p.current.misses > 1) {
			e.use(now, p, c, "the peer uses it")
		}
		return
	}
	silent := p.silent(now)
	p.see(now, from)
	c := p.find(from)
	c.heard = now
	if !p.up {
		return
	}
	if c.state != StateProbing && (c.everAlive || now.Sub(c.tried) >= retryFirst) {
		c.again(now) // the bucket of all unproven addresses still limits it
		c.due = now
	}
	if c.rival.IsZero() {
		c.rival = now
	}
	if p.current != nil && !p.asking(p.current, false) {
		p.current.due = now // it may defend itself
	}
	if silent && c.state != StateDead {
		e.use(now, p, c, "the path is silent")
	}
}

// silent reports whether nothing is known to have come by the present path of late.
func (p *peer) silent(now time.Time) bool {
	c := p.current
	if c == nil {
		return true
	}
	waiting := c.misses == 0 && p.asking(c, false)
	return now.Sub(c.lastSign()) > silence && !waiting
}

// roam follows a device as WireGuard does, but not to and fro (spec/51-path.md#stock).
func (e *Engine) roam(now time.Time, p *peer, from netip.AddrPort) {
	if p.current != nil {
		if p.current.addr == from {
			p.current.heard = now
			return
		}
		if from == p.previous && now.Sub(p.roamed) < stockPause {
			return
		}
		p.previous, p.roamed = p.current.addr, now
		p.current.state = StateUnknown
	}
	p.see(now, from)
	c := p.find(from)
	c.heard, c.state, c.everAlive = now, StateAlive, true
	e.use(now, p, c, "the device uses it")
}

// choose decides after an answer by c whether the path changes.
func (e *Engine) choose(now time.Time, p *peer, c *candidate) {
	cur := p.current
	asked := c.rival
	c.rival = time.Time{}
	switch {
	case cur == nil:
		e.use(now, p, c, "answered")
	case c == cur:
		e.optimize(now, p)
	case cur.state != StateAlive:
		e.use(now, p, c, "answered")
	case !asked.IsZero() && cur.proven.Before(asked):
		e.use(now, p, c, "the peer moved")
	default:
		e.optimize(now, p)
	}
}

// optimize moves to a clearly better path by choice, not too often.
func (e *Engine) optimize(now time.Time, p *peer) {
	cur := p.current
	if cur.rtt == 0 && cur.misses == 0 {
		return // its own answer is awaited
	}
	best := p.bestAlive()
	if best == nil || best == cur || best.rtt == 0 || !better(best, cur) {
		return
	}
	since := now.Sub(p.switched)
	if !p.switched.IsZero() && since < p.hold {
		return
	}
	for ; since >= holdHalving && p.hold > 0; since -= holdHalving {
		p.hold /= 2
	}
	p.hold = min(max(2*p.hold, holdFirst), holdMost)
	p.switched = now
	e.use(now, p, best, "better")
}

// failover leaves a dead path for another alive one, or for none.
func (e *Engine) failover(now time.Time, p *peer) {
	next := p.bestAlive()
	e.use(now, p, next, "dead")
	if next == nil {
		e.effect(Dead{ID: p.id})
	}
}

// bestAlive returns the cheapest candidate that is alive and in no doubt, or nil.
func (p *peer) bestAlive() (best *candidate) {
	for _, c := range p.cands {
		if c.state != StateAlive || c.misses > 0 {
			continue
		}
		if best == nil || best.rtt == 0 && c.rtt > 0 || c.rtt > 0 && c.cost() < best.cost() {
			best = c
		}
	}
	return best
}

// better reports whether c, measured, is worth leaving cur for.
func better(c, cur *candidate) bool {
	if cur.rtt == 0 {
		return true
	}
	have, want := cur.cost(), c.cost()
	if near(c.addr.Addr()) && !near(cur.addr.Addr()) && want <= have {
		return true
	}
	return want < have-gainLeast && float64(want) < gainShare*float64(have)
}

// cost is the smoothed round trip, weighted by kind of address.
func (c *candidate) cost() time.Duration {
	cost := float64(c.rtt + costFloor)
	if near(c.addr.Addr()) {
		cost *= nearShare
	}
	if c.addr.Addr().Is6() {
		cost *= ipv6Share
	}
	return time.Duration(cost)
}

func near(a netip.Addr) bool { return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() }

// use makes c, or nothing, the path of p.
func (e *Engine) use(now time.Time, p *peer, c *candidate, reason string) {
	old := p.current
	if old == c {
		return
	}
	p.current = c
	change := Changed{ID: p.id}
	if old != nil {
		change.Old = old.addr
	}
	if c == nil {
		p.hot.best.Store(nil)
	} else {
		addr := c.addr
		change.New = addr
		p.hot.best.Store(&addr)
		if at := now.Add(p.interval(now, c)); !p.stock && c.due.After(at) {
			c.due = at
		}
	}
	p.publishMTU()
	e.log.Debug("path changed", "peer", p.id, "old", change.Old, "new", change.New, "reason", reason)
	e.effect(change)
}
