package path

import (
	"slices"
	"time"
)

// Path MTU (spec/51-path.md#mtu). Sizes are those of inner packets, in bytes.
const (
	minMTU       = 1280
	maxMTU       = 1420
	sizeTries    = 3
	sizeRecheck  = 600 * time.Second
	sizeConfirm  = 15 * time.Second
	sizeTryAgain = time.Second

	routeConfirm = 5 * time.Second // by a route that carries traffic: of minMTU, then of the largest proven
	thinRecheck  = 60 * time.Second
)

var sizes = [...]int{minMTU, 1320, 1340, 1380, 1400, maxMTU}

// pathMTU is what is known of the sizes that pass by one candidate. The zero pathMTU knows nothing.
type pathMTU struct {
	size    int       // the largest proven; 0: as minMTU, and nothing was tried yet
	search  int       // the size being tried; 0: none
	tries   int       // at the size asked, not answered
	asked   int       // last
	since   time.Time // of the first of these tries
	large   bool      // minMTU was confirmed: size is next
	due     time.Time // of the next, while there is a search
	recheck time.Time // when to search again; zero: the largest is proven
	confirm time.Time // when to ask whether size still passes
	whole   bool      // a padded ping was answered: minMTU passes
	thin    bool      // minMTU did not pass when it was last asked for, while unpadded pings did
}

// nextSize returns the size above n to be tried by c, or 0. A relayed datagram may be no larger than one that goes straight.
func (c *candidate) nextSize(n int) int {
	for _, s := range sizes {
		if s -= c.way.Route.Overhead(); s > n {
			return s
		}
	}
	return 0
}

// mayProbe reports whether c is so well known that the loss of a padded ping means something.
func (p *peer) mayProbe(c *candidate) bool {
	return c.state == StateAlive && c.rtt > 0 && !p.asking(c, true)
}

// next returns when a padded ping is due; zero is never. The known size is checked only while the peer is active, and only
// where packets go.
func (m *pathMTU) next(active, used bool) (at time.Time) {
	switch {
	case m.size == 0:
		return time.Unix(0, 0) // at once
	case m.search > 0:
		return m.due
	case !active:
		return time.Time{}
	}
	at = m.recheck
	if used && !m.thin {
		at = earlier(at, m.confirm)
	}
	return at
}

// sized returns the candidates whose size is to be known: the path, what is used beside it, and under traffic what would be
// used next, so that no connection has to shrink when the path fails, and what may no longer be thin.
func (e *Engine) sized(now time.Time, p *peer) (list []*candidate) {
	if p.current == nil {
		return nil
	}
	next := p.second()
	balance := e.cfg.Mode == ModeBalance
	for _, c := range p.cands {
		if c == p.current || c.used || p.active(now) && (c == next || c.mtu.thin || balance && !c.relayed()) {
			list = append(list, c)
		}
	}
	return list
}

// sizeDue sends the padded pings that are due.
func (e *Engine) sizeDue(now time.Time, p *peer) {
	for _, c := range e.sized(now, p) {
		e.sizePing(now, p, c)
	}
}

func (e *Engine) sizePing(now time.Time, p *peer, c *candidate) {
	m := &c.mtu
	if !p.mayProbe(c) || p.inFlight() >= maxInFlight {
		return
	}
	at := m.next(p.active(now), c == p.current || c.used)
	if at.IsZero() || at.After(now) {
		return
	}
	if m.size == 0 {
		m.size, m.search = minMTU, c.nextSize(minMTU)
		if c.relayed() || m.thin { // a relay may pass pings alone
			m.search = minMTU
		}
	} else if m.search == 0 && !m.recheck.IsZero() && !m.recheck.After(now) {
		m.search, m.tries, m.recheck = c.nextSize(m.size), 0, time.Time{}
		if m.thin {
			m.search = minMTU
		}
	}
	if m.tries == 0 {
		m.since, m.asked = now, c.nextAsked()
	}
	if !e.send(now, p, c, m.asked) {
		m.due, m.confirm = now.Add(sizeTryAgain), now.Add(sizeTryAgain)
	}
}

// nextAsked returns the size of the next padded ping.
func (c *candidate) nextAsked() int {
	m := &c.mtu
	if m.search > 0 {
		return m.search
	}
	if !c.relayed() || m.large {
		m.large = false
		return m.size
	}
	return minMTU
}

// sizeAnswered takes the answer to a padded ping.
func (e *Engine) sizeAnswered(now time.Time, p *peer, c *candidate, size int) {
	m := &c.mtu
	m.tries, m.thin = 0, false
	m.confirm = now.Add(sizeConfirm)
	if c.relayed() {
		m.confirm = now.Add(routeConfirm)
		if m.search == 0 && size == minMTU && m.size > minMTU {
			m.large, m.confirm = true, now
		}
	}
	if size > m.size {
		m.size = size
	}
	if m.search > 0 && size >= m.search {
		m.search = c.nextSize(m.size)
		m.due = now
		if !m.recheck.IsZero() { // all above did not pass a moment ago
			m.search = 0
		}
	}
	e.passed(now, p, c)
}

// sizeMissed counts a padded ping that was not answered in time. It means something only if unpadded ones are.
func (e *Engine) sizeMissed(now time.Time, p *peer, g ping) {
	c, m := g.to, &g.to.mtu
	if g.size != m.asked {
		return // asked for another search
	}
	m.tries++
	m.due, m.confirm = now, now
	small := c.proven.After(m.since)
	if !small && c.state == StateAlive {
		c.due = now
	}
	if m.tries < sizeTries {
		return
	}
	m.tries = 0
	switch {
	case !small: // the path itself is in doubt
		m.due, m.confirm = now.Add(sizeTryAgain), now.Add(sizeTryAgain)
	case g.size == minMTU:
		m.size, m.search, m.whole = minMTU, 0, false
		m.recheck = now.Add(thinRecheck)
		if !m.thin {
			m.thin = true
			e.thinned(now, p, c)
		}
	case m.search > 0: // all above is abandoned for a while
		m.search = 0
		m.recheck, m.confirm = now.Add(sizeRecheck), now.Add(sizeConfirm)
		if !m.whole {
			m.search, m.due = minMTU, now
		}
	default: // a black hole
		m.size, m.search, m.whole = minMTU, minMTU, false
		p.pings = slices.DeleteFunc(p.pings, func(o ping) bool { return o.to == c && o.size > 0 })
	}
}

// thinned deals with c, by which no packet of minMTU passes: another way takes over if there is one (spec/51-path.md#thin-ways).
func (e *Engine) thinned(now time.Time, p *peer, c *candidate) {
	e.log.Info("large packets do not pass", "peer", p.id, "way", c.way)
	if c.relayed() {
		p.swallowed(c, c.mtu.since, now.Add(blameAfter))
	}
	if c != p.current {
		return
	}
	if next := p.fallback(c); next != nil {
		p.detour = false
		next.mtu.confirm = now // does it do better?
		e.use(now, p, next, "large packets did not pass by the one before")
	}
}

// passed takes the proof that large packets pass by c. So they would pass by others, but for the relays there.
func (e *Engine) passed(now time.Time, p *peer, c *candidate) {
	if !c.mtu.whole && c.relayed() {
		c.told = now
		e.effect(Proven{ID: p.id, Way: c.way})
	}
	c.mtu.whole = true
	p.blames = slices.DeleteFunc(p.blames, func(b blame) bool {
		if b.thin && b.route != c.way.Route {
			e.effect(Swallowed{ID: p.id, Route: b.route})
		}
		return b.thin
	})
	if cur := p.current; cur != nil && cur != c && cur.mtu.thin {
		e.use(now, p, c, "large packets did not pass by the one before")
	}
}
