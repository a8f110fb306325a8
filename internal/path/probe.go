package path

import (
	"encoding/binary"
	"io"
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// ping is one question of ours that may still be answered.
type ping struct {
	id   uint64
	to   *candidate
	sent time.Time
	size int  // of the control message if padded, else 0
	late bool // missed; an answer still counts as one
}

// HandlePing answers a ping of id that came from from, to that address alone and not more than 32 a second
// (spec/51-path.md#answer).
func (e *Engine) HandlePing(now time.Time, id key.NodeID, from netip.AddrPort, m wire.Ping) {
	p := e.peers[id]
	from, ok := e.clean(from)
	if p == nil || p.stock || !ok {
		return
	}
	if p.pongs.take(now, pongRate, pongBurst) {
		e.effect(SendPong{ID: id, To: from, Pong: wire.Pong{ID: m.ID, Observed: from}})
	}
	e.received(now, p, from)
	e.run(now, p)
}

// HandlePong takes an answer of id that came from from. It proves that address if the ping of that id was sent there;
// any other is no more than a packet from the peer (spec/51-path.md#ids).
func (e *Engine) HandlePong(now time.Time, id key.NodeID, from netip.AddrPort, m wire.Pong) {
	p := e.peers[id]
	from, ok := e.clean(from)
	if p == nil || p.stock || !ok {
		return
	}
	for i, g := range p.pings {
		if g.id == m.ID && g.to.addr == from {
			p.pings = append(p.pings[:i], p.pings[i+1:]...)
			e.observe(now, p, m.Observed)
			e.answered(now, p, g)
			e.run(now, p)
			return
		}
	}
	e.received(now, p, from)
	e.run(now, p)
}

// observe reports how p sees us, when that is news.
func (e *Engine) observe(now time.Time, p *peer, a netip.AddrPort) {
	a, ok := e.clean(a)
	if !ok || a == p.observed && now.Sub(p.observedAt) < observedRepeat {
		return
	}
	p.observed, p.observedAt = a, now
	e.effect(Observed{By: p.id, Addr: a})
}

// answered takes the proof that g.to works in both directions.
func (e *Engine) answered(now time.Time, p *peer, g ping) {
	c := g.to
	if c.state != StateAlive {
		e.alive(now, p, c)
	}
	c.proven, c.heard, c.misses = now, now, 0
	if g.size > 0 {
		p.sizeAnswered(now, c, g.size)
	} else {
		c.measure(now.Sub(g.sent))
	}
	if at := now.Add(p.interval(now, c)); c.due.IsZero() || c.due.Before(at) {
		c.due = at
	}
	e.choose(now, p, c)
}

// measure smooths the round trip: weight 1/4, and one slow answer counts at most double (spec/51-path.md#rtt).
func (c *candidate) measure(d time.Duration) {
	d = max(d, time.Microsecond)
	if c.rtt == 0 {
		c.rtt = d
		return
	}
	c.rtt += (min(d, 2*c.rtt) - c.rtt) / 4
}

// alive moves c to that state.
func (e *Engine) alive(now time.Time, p *peer, c *candidate) {
	c.state, c.everAlive = StateAlive, true
	c.proven, c.misses, c.backoff, c.attempts = now, 0, 0, nil
	e.effect(Proven{ID: p.id, Addr: c.addr})
}

// interval returns how long after an answer c is pinged again (spec/51-path.md#timers).
func (p *peer) interval(now time.Time, c *candidate) time.Duration {
	active := now.Before(p.activeUntil)
	switch {
	case c == p.current && active:
		return heartbeat
	case c == p.current:
		return heartbeatIdle
	case active:
		return standby
	}
	return standbyIdle
}

// run carries out what is due for p and plans its next wake-up.
func (e *Engine) run(now time.Time, p *peer) {
	p.wake = time.Time{}
	if !p.up || p.stock {
		return
	}
	e.expire(now, p)
	e.pingDue(now, p)
	e.sizeDue(now, p)
	p.wake = p.next(now)
}

// next returns when p has something to do.
func (p *peer) next(now time.Time) (at time.Time) {
	full := p.inFlight() >= maxInFlight // then the next miss wakes us
	for _, c := range p.cands {
		if !full && !p.asking(c, false) {
			at = earlier(at, c.due)
		}
	}
	for _, g := range p.pings {
		if !g.late {
			at = earlier(at, g.sent.Add(pingTimeout))
		}
	}
	if c := p.current; c != nil && !full && p.mayProbe(c) {
		at = earlier(at, c.mtu.next(now.Before(p.activeUntil)))
	}
	return at
}

func (p *peer) inFlight() (n int) {
	for _, g := range p.pings {
		if !g.late {
			n++
		}
	}
	return n
}

// asking reports whether a ping to c, padded or not, may still be answered in time.
func (p *peer) asking(c *candidate, padded bool) bool {
	for _, g := range p.pings {
		if g.to == c && !g.late && (g.size > 0) == padded {
			return true
		}
	}
	return false
}

// expire finds the pings that were not answered in time.
func (e *Engine) expire(now time.Time, p *peer) {
	var late []ping
	kept := p.pings[:0]
	for _, g := range p.pings {
		if !g.late && now.Sub(g.sent) >= pingTimeout {
			g.late = true
			late = append(late, g)
		}
		if now.Sub(g.sent) < pingMemory {
			kept = append(kept, g)
		}
	}
	clear(p.pings[len(kept):])
	p.pings = kept
	for _, g := range late {
		switch {
		case g.size > 0:
			p.sizeMissed(now, g)
		case !g.to.proven.After(g.sent): // a handshake proves an address at the moment when the first ping leaves
			e.missed(now, p, g.to)
		}
	}
}

// missed counts a ping to c that was not answered in time.
func (e *Engine) missed(now time.Time, p *peer, c *candidate) {
	c.misses++
	if c.misses >= misses {
		e.dead(now, p, c)
		return
	}
	c.due = now
	if c != p.current || c.misses > 1 {
		return
	}
	for _, other := range p.cands { // who could take over?
		if other != c && other.state == StateAlive {
			other.due = now
		}
	}
}

// dead moves c to that state and p to another path.
func (e *Engine) dead(now time.Time, p *peer, c *candidate) {
	c.state, c.misses, c.rtt, c.rival, c.mtu = StateDead, 0, 0, time.Time{}, pathMTU{}
	if c.everAlive {
		c.backoff = min(max(2*c.backoff, retryFirst), retryMost)
		c.due = now.Add(c.backoff)
	} else {
		c.due = now // ask finds out when it may be tried again
	}
	if c == p.current {
		e.failover(now, p)
	}
	p.rebuild(now)
}

// pingDue sends what is due: to the present path first, then to those alive, then to the others in order.
func (e *Engine) pingDue(now time.Time, p *peer) {
	rank := func(c *candidate) int {
		switch {
		case c == p.current:
			return 0
		case c.state == StateAlive:
			return 1
		}
		return 2
	}
	for r := range 3 {
		for _, c := range p.cands {
			if rank(c) != r || c.due.IsZero() || c.due.After(now) || p.asking(c, false) {
				continue
			}
			if p.inFlight() >= maxInFlight {
				return
			}
			e.ask(now, p, c)
		}
	}
}

// ask sends an unpadded ping to c, unless its attempts are used up.
func (e *Engine) ask(now time.Time, p *peer, c *candidate) {
	at, ok := p.mayTry(now, c)
	if !ok {
		if c.state == StateProbing {
			e.dead(now, p, c)
		}
		c.due = at
		return
	}
	if !e.send(now, p, c, 0) {
		c.due = now.Add(pingTimeout)
		return
	}
	c.tried, c.due = now, time.Time{}
	if c.state != StateAlive {
		c.state = StateProbing
	}
}

// send asks the owner to send one ping; size 0 is unpadded. It reports false if there is no id for it.
func (e *Engine) send(now time.Time, p *peer, c *candidate, size int) bool {
	var id [8]byte
	if _, err := io.ReadFull(e.cfg.Rand, id[:]); err != nil {
		e.log.Warn("no random ping id", "err", err)
		return false
	}
	g := ping{id: binary.BigEndian.Uint64(id[:]), to: c, sent: now, size: size}
	if len(p.pings) >= maxPings {
		p.pings = append(p.pings[:0], p.pings[1:]...)
	}
	p.pings = append(p.pings, g)
	e.effect(SendPing{ID: p.id, To: c.addr, Ping: wire.Ping{ID: g.id, Size: size}})
	return true
}
