package path

import (
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Received says that an authenticated packet of id came by from: an address, or the route that leads back. The owner calls it
// when the way differs from that of the packet before, for control messages other than pings and pongs, and once a second
// while packets come; a call for every packet is allowed, and wasteful.
func (e *Engine) Received(now time.Time, id key.NodeID, from wire.Way) {
	p := e.awake(id)
	from, ok := e.clean(from)
	if p == nil || !ok {
		return
	}
	e.received(now, p, from)
	e.run(now, p)
}

// received follows a peer that moved (spec/51-path.md#roaming).
func (e *Engine) received(now time.Time, p *peer, from wire.Way) {
	if p.stock {
		if !from.IsRelayed() {
			e.roam(now, p, from)
		}
		return
	}
	e.hear(now, p, from)
	if c := p.find(from); c != nil && (c == p.current || c.state == StateAlive) {
		c.heard = now
		if c != p.current && !c.mtu.thin && (p.current == nil || p.current.misses > 1) {
			e.use(now, p, c, "the peer uses it")
		}
		if from.IsRelayed() && c != p.current {
			p.askSoon(now)
		}
		return
	}
	if from.IsRelayed() {
		e.receivedByRoute(now, p, from)
		return
	}
	if p.crowded(from) {
		return
	}
	silent := p.silent(now)
	p.see(now, from)
	c := p.find(from)
	c.heard = now
	if !p.up {
		return
	}
	e.tryAgain(now, c)
	if c.rival.IsZero() {
		c.rival = now
	}
	p.ask(now)
	if silent && c.state != StateDead {
		e.use(now, p, c, "the peer moved, and the path is silent")
	}
}

// receivedByRoute takes a packet that came by a route which is not alive. The peer may have lost its direct way, or may send
// copies, or a relay may send late what it held back: only where the path is in trouble is it a hint.
func (e *Engine) receivedByRoute(now time.Time, p *peer, from wire.Way) {
	trouble := p.current == nil || p.current.state != StateAlive || p.current.misses > 0 || p.silent(now)
	if trouble && p.up {
		p.see(now, from)
	}
	c := p.find(from)
	if c == nil {
		return
	}
	c.heard = now
	if !p.up {
		return
	}
	e.tryAgain(now, c)
	if !trouble {
		p.askSoon(now)
		return
	}
	p.asked = now
	p.ask(now)
	if p.current == nil || p.current.state != StateAlive && p.current.relayed() && !c.mtu.thin {
		e.use(now, p, c, "the peer uses it")
	}
}

// crowded reports whether the peer speaks from so many addresses that w would push out one that is being asked: then none
// would ever answer in time.
func (p *peer) crowded(w wire.Way) bool {
	if len(p.seen) < maxSeen || p.find(w) != nil {
		return false
	}
	for _, a := range p.seen {
		if c := p.find(wire.Direct(a)); c == nil || !p.asking(c, false) {
			return false
		}
	}
	return true
}

// tryAgain gives c a ping, since the peer seems to be there, but not for every packet.
func (e *Engine) tryAgain(now time.Time, c *candidate) {
	if c.state != StateProbing && (c.everAlive || now.Sub(c.tried) >= retryFirst) {
		c.again(now) // the bucket of all unproven addresses still limits it
		c.due = now
	}
}

// ask lets the present path defend itself.
func (p *peer) ask(now time.Time) {
	if p.current != nil && !p.asking(p.current, false) {
		p.current.due = now
	}
}

// askSoon lets the path of a busy peer that speaks by a route prove itself, unless something comes by it: the peer may have moved to
// where the path does not lead.
func (p *peer) askSoon(now time.Time) {
	c := p.current
	if c == nil || !p.busy(now) || p.asking(c, false) || now.Before(p.askedSoon.Add(heartbeatBusy)) {
		return
	}
	if at := later(now, c.lastSign().Add(pingTimeoutMin)); c.due.After(at) {
		c.due, p.askedSoon = at, at
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
func (e *Engine) roam(now time.Time, p *peer, from wire.Way) {
	if p.current != nil {
		if p.current.way == from {
			p.current.heard = now
			return
		}
		if from.Addr == p.previous && now.Sub(p.roamed) < stockPause {
			return
		}
		p.previous, p.roamed = p.current.way.Addr, now
		p.current.state = StateUnknown
	}
	p.see(now, from)
	c := p.find(from)
	c.heard, c.state, c.everAlive = now, StateAlive, true
	e.use(now, p, c, "the device uses it")
}
