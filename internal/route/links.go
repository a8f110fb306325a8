package route

import (
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Which links a node wants (spec/54-routes.md#links).
const (
	allLinked   = 12 // members, this node included, up to which each links to every other
	lowWater    = 3
	enough      = 8 // links, above which spare ones go
	highWater   = 12
	highAnchor  = wire.MaxLinks
	bridgeRoom  = 2 // links beyond high water, for those whom the map does not reach
	leafAnchors = 2

	roundEvery   = time.Minute
	roundPart    = 15 * time.Second
	replaceEvery = 5 * time.Minute
	replaceBelow = 0.7 // of the round trip of the one replaced

	upWithin   = 20 * time.Second // or it counts as failed
	backWithin = 10 * time.Second // of a link that was lost
	retryFirst = time.Minute      // doubling with each failure
	retryMost  = time.Hour
	freshFor   = 24 * time.Hour // a round trip measured
)

// plan is what there is to do about links.
type plan struct {
	lookAt   time.Time // something happened
	roundAt  time.Time // the regular look
	wishAt   time.Time // some wish is due
	replaced time.Time
	sampled  time.Time // last time that samples were wanted
	misses   int       // samples in a row that did not come up
}

// look lets the plan be gone through soon, after what comes along with the event.
func (p *plan) look(e *Engine, now time.Time) {
	p.lookAt = earlier(p.lookAt, now.Add(e.jitter(300*time.Millisecond, 200*time.Millisecond)))
	if p.roundAt.IsZero() {
		p.roundAt = now.Add(e.jitter(roundEvery, roundPart))
	}
}

func (e *Engine) tickLinks(now time.Time) {
	if reached(e.plan.wishAt, now) {
		e.tickWishes(now)
	}
	round := reached(e.plan.roundAt, now)
	if !round && !reached(e.plan.lookAt, now) {
		return
	}
	e.plan.lookAt = time.Time{}
	if round {
		e.plan.roundAt = now.Add(e.jitter(roundEvery, roundPart))
	}
	if e.linkAll() {
		e.wantAll(now)
		return
	}
	e.giveUp(now)
	if e.highWater() > len(e.wanted()) {
		e.fill(now)
		e.restore(now)
	}
	if round {
		e.replace(now)
		e.prune(now)
	}
	e.sample(now, round)
}

// linkAll reports whether the network is so small that all link to all.
func (e *Engine) linkAll() bool { return len(e.members) < allLinked }

func (e *Engine) highWater() int {
	if e.own.flags&wire.StateAnchor != 0 {
		return highAnchor
	}
	return highWater
}

// wanted lists the neighbours that this node wants as links, for its own sake or theirs.
func (e *Engine) wanted() (out []*neighbour) {
	for _, n := range e.neighbours {
		if n.wants() {
			out = append(out, n)
		}
	}
	return out
}

// linked counts the links that stand with members that may relay.
func (e *Engine) linked() (routers int) {
	for _, n := range e.neighbours {
		if n.linked && !n.isLeaf() {
			routers++
		}
	}
	return routers
}

// isLeaf reports whether n carries no transit, as far as is known.
func (n *neighbour) isLeaf() bool { return n.leaf || !n.node.transit() }

// transit reports whether n may be a relay, as far as is known.
func (n *node) transit() bool { return !n.noTransit && !(n.known && n.state.Flags&wire.StateLeaf != 0) }

// anchor reports whether n is known to be reached without help.
func (n *node) anchor() bool { return n.known && n.state.Flags&wire.StateAnchor != 0 }

// mayGrant decides on the other one's wish (spec/54-routes.md#water).
func (e *Engine) mayGrant(now time.Time, n *neighbour) bool {
	if e.linkAll() {
		return true
	}
	if e.leaf() || now.Before(n.grantAt) {
		return false
	}
	all, leaves := 0, 0
	for _, o := range e.neighbours {
		if o.wants() && o != n {
			all++
			if o.isLeaf() {
				leaves++
			}
		}
	}
	high := e.highWater()
	switch {
	case n.isLeaf():
		return all < high && leaves < high/2
	case all < high:
		return true
	}
	return all < min(high+bridgeRoom, wire.MaxLinks) && !e.reaches(n.node)
}

// NetworkChanged says that addresses of this machine changed: members that did not answer may do so now.
func (e *Engine) NetworkChanged(now time.Time) {
	e.now = now
	for _, m := range e.order {
		m.failures, m.retry = 0, time.Time{}
	}
	e.plan.misses = 0
	e.plan.look(e, now)
}

// wantAll makes a link of everyone.
func (e *Engine) wantAll(now time.Time) {
	for _, m := range e.order {
		if n := e.neighbourOf(m); n.kind != kindAll && !now.Before(m.retry) {
			n.sample = false
			e.pick(now, n, kindAll)
		} else if n.kind == kindNone {
			e.plan.lookAt = earlier(e.plan.lookAt, m.retry)
			e.update(now, n)
		}
	}
}

// giveUp takes back wishes that come to nothing, and those for members that turned out to be leaves.
func (e *Engine) giveUp(now time.Time) {
	for _, n := range e.wanted() {
		if n.kind == kindAll {
			n.kind = kindSpare
		}
		switch {
		case n.kind == kindNone:
		case n.isLeaf() && !e.linkAll():
			e.pick(now, n, kindNone)
		case !n.session:
			within := upWithin
			if !n.linkedAt.IsZero() {
				within = backWithin
			}
			if end := n.picked.Add(within); now.Before(end) {
				e.plan.lookAt = earlier(e.plan.lookAt, end)
				continue
			}
			e.failed(now, n.node)
			e.pick(now, n, kindNone)
		}
	}
}

// failed notes that n did not answer a call.
func (e *Engine) failed(now time.Time, n *node) {
	d := min(retryFirst<<min(n.failures, 6), retryMost)
	n.failures++
	n.retry = now.Add(e.jitter(d, d/4))
}

// slots lists the kinds of links that this node has one each of.
func (e *Engine) slots() []kind {
	if e.leaf() {
		return []kind{kindAnchor, kindAnchor, kindRouter}
	}
	return []kind{kindNear, kindElsewhere, kindRandom, kindAnchor}
}

// fill finds a member for each slot that has none.
func (e *Engine) fill(now time.Time) {
	have := map[kind]int{}
	for _, n := range e.neighbours {
		have[n.kind]++
	}
	for _, k := range e.slots() {
		if have[k] > 0 {
			have[k]--
			continue
		}
		if m := e.candidate(now, k); m != nil {
			e.pick(now, e.neighbourOf(m), k)
		}
	}
}

// restore brings the links above low water, first with those who are there already.
func (e *Engine) restore(now time.Time) {
	missing := min(lowWater, len(e.members)) - e.linked()
	for _, n := range e.neighbours {
		if n.kind != kindNone && !n.linked && n.session && !n.isLeaf() {
			missing-- // about to be
		}
	}
	for ; missing > 0; missing-- {
		var best *neighbour
		for _, n := range e.neighbours {
			if n.session && e.eligible(now, n.node) && (best == nil || n.measured && (!best.measured || n.rtt < best.rtt)) {
				best = n
			}
		}
		if best == nil {
			return
		}
		e.pick(now, best, kindSpare)
	}
}

// replace changes at most one link for a much nearer one. The old one goes when the new one stands.
func (e *Engine) replace(now time.Time) {
	for _, n := range e.wanted() {
		if n.kind == kindLeaving && (e.linked() > lowWater || !n.linked) && !e.lastAnchor(n) {
			e.pick(now, n, kindNone)
		}
	}
	if !e.plan.replaced.IsZero() && now.Sub(e.plan.replaced) < replaceEvery {
		return
	}
	for _, n := range e.wanted() {
		var m *node
		switch n.kind {
		case kindNear, kindElsewhere, kindRouter:
			m = e.candidate(now, n.kind)
			if m == nil || m.rttAt.IsZero() || n.rttAt.IsZero() || float64(m.rtt) >= replaceBelow*float64(n.rtt) {
				continue
			}
		case kindAnchor:
			if n.anchor() {
				continue
			}
			if m = e.candidate(now, kindAnchor); m == nil || !m.anchor() {
				continue
			}
		default:
			continue
		}
		e.log.Debug("link replaced", "kind", n.kind, "old", n.short, "new", m.short)
		e.plan.replaced = now
		e.pick(now, e.neighbourOf(m), n.kind)
		e.pick(now, n, kindLeaving)
		return
	}
}

// lastAnchor reports whether n is the only link to an anchor.
func (e *Engine) lastAnchor(n *neighbour) bool {
	if !n.linked || !n.anchor() {
		return false
	}
	for _, o := range e.neighbours {
		if o != n && o.linked && o.anchor() {
			return false
		}
	}
	return true
}

// prune gives up one spare link, the one with the longest round trip, when there are more links than needed.
func (e *Engine) prune(now time.Time) {
	keep := enough
	if e.leaf() {
		keep = len(e.slots())
	}
	if len(e.wanted()) <= keep || !e.plan.replaced.IsZero() && now.Sub(e.plan.replaced) < replaceEvery {
		return
	}
	var worst *neighbour
	for _, n := range e.neighbours {
		if n.kind == kindSpare && !e.lastAnchor(n) && (worst == nil || n.rtt > worst.rtt) {
			worst = n
		}
	}
	if worst != nil {
		e.plan.replaced = now
		e.pick(now, worst, kindNone)
	}
}
