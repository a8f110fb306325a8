package path

import (
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// ping is one question of ours that may still be answered.
type ping struct {
	id   uint64
	to   *candidate
	sent time.Time
	wait time.Duration // then it is missed
	size int           // of the control message if padded, else 0
	late bool          // missed; an answer still counts as one
}

// HandlePing answers a ping of id that came by from, by that way alone and not more than 32 a second
// (spec/51-path.md#answer).
func (e *Engine) HandlePing(now time.Time, id key.NodeID, from wire.Way, m wire.Ping) {
	p := e.awake(id)
	from, ok := e.clean(from)
	if p == nil || p.stock || !ok {
		return
	}
	if p.pongs.take(now, pongRate, pongBurst) {
		pong := wire.Pong{ID: m.ID, Observed: from.Addr}
		if wire.IsLabel(from.Addr.Addr()) {
			pong.Observed = netip.AddrPort{}
		}
		e.effect(SendPong{ID: id, To: from, Pong: pong})
	}
	e.received(now, p, from)
	p.spare(now, from)
	e.run(now, p)
}

// HandlePong takes an answer of id that came by from. It proves that way if the ping of that id was sent by it; any other is no more than a packet from the peer (spec/51-path.md#ids).
func (e *Engine) HandlePong(now time.Time, id key.NodeID, from wire.Way, m wire.Pong) {
	p := e.awake(id)
	from, ok := e.clean(from)
	if p == nil || p.stock || !ok {
		return
	}
	for i, g := range p.pings {
		if g.id == m.ID && g.to.way == from {
			p.pings = append(p.pings[:i], p.pings[i+1:]...)
			if !from.IsRelayed() {
				e.observe(now, p, from.Addr, m.Observed)
			}
			e.hear(now, p, from)
			e.answered(now, p, g)
			e.run(now, p)
			return
		}
	}
	if from.IsRelayed() || !e.punched(now, p, from.Addr, m) {
		e.received(now, p, from)
	}
	e.run(now, p)
}

// observe reports how p, which was asked at the address at, sees us, when that is news.
func (e *Engine) observe(now time.Time, p *peer, at, a netip.AddrPort) {
	a, ok := e.cleanAddr(a)
	if !ok || wire.IsLabel(at.Addr()) || wire.IsLabel(a.Addr()) || a == p.observed && now.Sub(p.observedAt) < observedRepeat {
		return
	}
	p.observed, p.observedAt = a, now
	e.effect(Observed{By: p.id, At: at, Addr: a})
}

// answered takes the proof that g.to works in both directions.
func (e *Engine) answered(now time.Time, p *peer, g ping) {
	c := g.to
	if c.state != StateAlive {
		e.alive(now, p, c)
	} else if c.relayed() && c.mtu.whole && now.Sub(c.told) >= provenRepeat {
		c.told = now
		e.effect(Proven{ID: p.id, Way: c.way})
	}
	c.proven, c.heard, c.misses, p.outage = now, now, 0, false
	if g.size > 0 {
		e.sizeAnswered(now, p, c, g.size)
	} else {
		c.measure(now.Sub(g.sent), g.late)
		c.spared = 0
		if c == p.current && !c.relayed() && !c.stream() && !p.active(now) {
			c.answeredIdle(now)
		}
	}
	if at := p.nextPing(now, c); c.due.IsZero() || c.due.Before(at) {
		c.due = at
	}
	e.choose(now, p, c)
}

// measure smooths the round trip: weight 1/4, and one slow answer counts at most double; its deviation; and the loss
// (spec/51-path.md#rtt).
func (c *candidate) measure(d time.Duration, late bool) {
	d = max(d, time.Microsecond)
	if !late {
		c.loss -= c.loss / 16
	}
	if c.rtt == 0 {
		c.rtt = d
		return
	}
	c.jitter += (min((d-c.rtt).Abs(), pingTimeout) - c.jitter) / 4
	c.rtt += (min(d, 2*c.rtt) - c.rtt) / 4
}

// alive moves c to that state.
func (e *Engine) alive(now time.Time, p *peer, c *candidate) {
	c.state, c.everAlive = StateAlive, true
	c.proven, c.told, c.misses, c.backoff, c.attempts = now, now, 0, 0, nil
	p.outage = false
	if !wire.IsLabel(c.way.Addr.Addr()) && (!c.relayed() || c.mtu.whole) {
		e.effect(Proven{ID: p.id, Way: c.way})
	}
}

// timeout returns how long an answer by c may take. Under traffic a failure must be found soon.
func (p *peer) timeout(now time.Time, c *candidate) time.Duration {
	if !p.busy(now) || c.rtt == 0 {
		return pingTimeout
	}
	return min(max(3*c.rtt+4*c.jitter, pingTimeoutMin), pingTimeout)
}

// run carries out what is due for p and plans its next wake-up.
func (e *Engine) run(now time.Time, p *peer) {
	p.wake = time.Time{}
	e.blameDue(now, p)
	switch {
	case !p.up || p.stock:
		e.resetPunch(now, p)
	case p.asleep(now):
		e.resetPunch(now, p)
		p.pings = nil
		for _, c := range p.cands {
			c.misses, c.due = 0, now // for the moment when it wakes
		}
	default:
		e.expire(now, p)
		if p.current == nil {
			if c := p.fallback(nil); c != nil {
				e.use(now, p, c, "nothing better is known yet")
			}
		}
		e.punchDue(now, p)
		e.retryDue(now, p)
		e.pingDue(now, p)
		e.sizeDue(now, p)
		p.wake = e.next(now, p)
	}
	for _, b := range p.blames {
		p.wake = earlier(p.wake, b.until)
	}
	e.wake = earlier(e.wake, p.wake)
	e.publish(now, p)
}

// next returns when p has something to do.
func (e *Engine) next(now time.Time, p *peer) (at time.Time) {
	full := p.inFlight() >= maxInFlight // then the next miss wakes us
	for _, c := range p.cands {
		if !full && !p.asking(c, false) {
			at = earlier(at, c.due)
		}
	}
	for _, g := range p.pings {
		if !g.late {
			at = earlier(at, g.sent.Add(g.wait))
		}
	}
	for _, c := range e.sized(now, p) {
		if !full && p.mayProbe(c) {
			at = earlier(at, c.mtu.next(p.active(now), c == p.current || c.used))
		}
	}
	if d := p.doubtAt(now); d.After(now) {
		at = earlier(at, d)
	}
	return earlier(earlier(at, p.retryAt), p.punch.due)
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
		if !g.late && now.Sub(g.sent) >= g.wait {
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
			e.sizeMissed(now, p, g)
		case !g.to.proven.After(g.sent): // a handshake proves an address at the moment when the first ping leaves
			e.missed(now, p, g)
		}
	}
}

// missed counts a ping that was not answered in time.
func (e *Engine) missed(now time.Time, p *peer, g ping) {
	c := g.to
	if c.misses == 0 {
		c.missing, c.lossThen = g.sent, c.loss
		if !p.sessionAt.After(g.sent) { // else it may have been lost with the keypair
			c.strained(now)
		}
	}
	c.misses++
	limit := misses
	if c.state == StateAlive {
		if c.rtt > 0 { // before the first answer the other side may not have been ready
			c.loss += (1 - c.loss) / 16
		}
		if now.Sub(c.heard) < heardLately {
			limit = missesHeard
		}
	}
	if c.misses >= limit {
		if c.relayed() {
			p.swallowed(c, c.missing, now.Add(blameAfter))
			e.inVain(p, c)
		}
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
	c.outage()
	c.state, c.rtt, c.jitter, c.rival, c.mtu = StateDead, 0, 0, time.Time{}, pathMTU{thin: c.mtu.thin}
	if c.trusted() {
		c.backoff = min(max(2*c.backoff, retryFirst), retryMost)
		c.due = now.Add(c.backoff)
	} else {
		c.due = now // ask finds out when it may be tried again
	}
	if c == p.current {
		c.fell = true
		e.failover(now, p)
	}
	if c.relayed() && p.current != nil {
		p.seenRoutes = slices.DeleteFunc(p.seenRoutes, func(r wire.Route) bool { return r == c.way.Route })
	}
	p.rebuild(now)
}

// pingDue sends what is due: to the present path first, then to those alive, then to the others, routes
// first.
func (e *Engine) pingDue(now time.Time, p *peer) {
	rank := func(c *candidate) int {
		switch {
		case c == p.current:
			return 0
		case c.state == StateAlive:
			return 1
		case c.listed:
			return 2
		}
		return 3
	}
	for r := range 4 {
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
	id, ok := e.nonce()
	if !ok {
		return false
	}
	g := ping{id: id, to: c, sent: now, wait: pingTimeout, size: size}
	if size == 0 {
		g.wait = p.timeout(now, c)
	}
	if len(p.pings) >= maxPings {
		p.pings = append(p.pings[:0], p.pings[1:]...)
	}
	p.pings = append(p.pings, g)
	e.effect(SendPing{ID: p.id, To: c.way, Ping: wire.Ping{ID: g.id, Size: size}})
	return true
}

// nonce returns 64 random bits; false if there are none.
func (e *Engine) nonce() (uint64, bool) {
	var id [8]byte
	if _, err := io.ReadFull(e.cfg.Rand, id[:]); err != nil {
		e.log.Warn("no random ping id", "err", err)
		return 0, false
	}
	return binary.BigEndian.Uint64(id[:]), true
}
