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
)

var sizes = [...]int{minMTU, 1340, 1380, 1400, maxMTU}

// pathMTU is what is known of the sizes that pass by one candidate. The zero pathMTU knows nothing.
type pathMTU struct {
	size    int       // the largest proven; 0: as minMTU, and nothing was tried yet
	search  int       // the size being tried; 0: none
	tries   int       // at this size, not answered
	since   time.Time // of the first of them
	due     time.Time // of the next, while there is a search
	recheck time.Time // when to search again; zero: the largest is proven
	confirm time.Time // when to ask whether size still passes
}

// nextSize returns the size above n, or 0.
func nextSize(n int) int {
	for _, s := range sizes {
		if s > n {
			return s
		}
	}
	return 0
}

// mayProbe reports whether c is so well known that the loss of a padded ping means something.
func (p *peer) mayProbe(c *candidate) bool {
	return c.state == StateAlive && c.rtt > 0 && !p.asking(c, true)
}

// next returns when a padded ping is due; zero is never. The known size is checked only while the peer is active.
func (m *pathMTU) next(active bool) (at time.Time) {
	switch {
	case m.size == 0:
		return time.Unix(0, 0) // at once
	case m.search > 0:
		return m.due
	case !active:
		return time.Time{}
	}
	at = m.recheck
	if m.size > minMTU {
		at = earlier(at, m.confirm)
	}
	return at
}

// sizeDue sends a padded ping by the present path when one is due.
func (e *Engine) sizeDue(now time.Time, p *peer) {
	c := p.current
	if c == nil || !p.mayProbe(c) || p.inFlight() >= maxInFlight {
		return
	}
	m := &c.mtu
	at := m.next(now.Before(p.activeUntil))
	if at.IsZero() || at.After(now) {
		return
	}
	if m.size == 0 {
		m.size, m.search = minMTU, nextSize(minMTU)
	} else if m.search == 0 && !m.recheck.IsZero() && !m.recheck.After(now) {
		m.search, m.tries, m.recheck = nextSize(m.size), 0, time.Time{}
	}
	if m.tries == 0 {
		m.since = now
	}
	size := m.search
	if size == 0 {
		size = m.size
	}
	if !e.send(now, p, c, size) {
		m.due, m.confirm = now.Add(sizeTryAgain), now.Add(sizeTryAgain)
	}
}

// sizeAnswered takes the answer to a padded ping.
func (p *peer) sizeAnswered(now time.Time, c *candidate, size int) {
	m := &c.mtu
	m.tries = 0
	m.confirm = now.Add(sizeConfirm)
	if size > m.size {
		m.size = size
		p.publishMTU()
	}
	if m.search > 0 && size >= m.search {
		m.search = nextSize(m.size)
		m.due = now
	}
}

// sizeMissed counts a padded ping that was not answered in time. It means something only if unpadded ones are.
func (p *peer) sizeMissed(now time.Time, g ping) {
	c, m := g.to, &g.to.mtu
	if g.size != m.search && (m.search > 0 || g.size != m.size) {
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
	case m.search > 0: // all above is abandoned for a while
		m.search = 0
		m.recheck, m.confirm = now.Add(sizeRecheck), now.Add(sizeConfirm)
	default: // a black hole
		m.size, m.search = minMTU, nextSize(minMTU)
		p.pings = slices.DeleteFunc(p.pings, func(o ping) bool { return o.to == c && o.size > 0 })
		p.publishMTU()
	}
}

// publishMTU tells the workers what passes by the present path.
func (p *peer) publishMTU() {
	n := minMTU
	if p.current != nil && !p.stock {
		n = max(n, p.current.mtu.size)
	}
	p.hot.mtu.Store(int32(n))
}
