package route

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// How this node gets to know members (spec/54-routes.md#samples).
const (
	sampleGoal   = 16 // members whose round trip is known
	sampleLife   = 30 * time.Second
	sampleWithin = 15 * time.Second // to come up
	sampleFirst  = 10 * time.Second // between samples, until the goal is met
	sampleRare   = 10 * time.Minute // after
	hurry        = 3 * time.Second  // between attempts of a node below low water
	atOnce       = 8                // calls under way, without any link
	atLow        = 4                // below low water
	atLeisure    = 2
	maxSamples   = 16
	helperLife   = 5 * time.Minute // after its last use
	maxHelpers   = 8
	bridgeShare  = 32 // nodes of a part of the network, of whom one calls another part in each round
)

// eligible reports whether m may be wanted as a link that it is not yet.
func (e *Engine) eligible(now time.Time, m *node) bool {
	if now.Before(m.retry) || !m.transit() {
		return false
	}
	n := m.neighbour
	return n == nil || n.kind == kindNone && !n.granted && !n.leaf
}

// candidate returns the member that suits k best, or nil.
func (e *Engine) candidate(now time.Time, k kind) *node {
	switch k {
	case kindNear:
		return e.nearest(now, nil)
	case kindElsewhere:
		return e.nearest(now, e.places(kindNear))
	case kindRouter:
		if m := e.nearest(now, nil); m != nil {
			return m
		}
	case kindAnchor:
		if m := e.anchorFor(now); m != nil {
			return m
		}
	}
	return e.random(func(m *node) bool { return e.eligible(now, m) })
}

// places returns where the link of kind k is, or nil.
func (e *Engine) places(k kind) []netip.Prefix {
	for _, n := range e.neighbours {
		if n.kind == k {
			return n.places
		}
	}
	return nil
}

// nearest returns the member with the shortest round trip, one that is not at the given places if there is one.
func (e *Engine) nearest(now time.Time, not []netip.Prefix) *node {
	var best *node
	var bestThere bool
	for _, m := range e.order {
		if m.rttAt.IsZero() || now.Sub(m.rttAt) > freshFor || !e.wouldServe(now, m) {
			continue
		}
		there := slices.ContainsFunc(m.places, func(p netip.Prefix) bool { return slices.Contains(not, p) })
		if best == nil || bestThere && !there || bestThere == there && m.rtt < best.rtt {
			best, bestThere = m, there
		}
	}
	return best
}

// wouldServe is eligible, or a link already that fills no place: that serves as well.
func (e *Engine) wouldServe(now time.Time, m *node) bool {
	n := m.neighbour
	return e.eligible(now, m) || n != nil && !n.isLeaf() && (n.kind == kindSpare || n.kind == kindNone && n.granted)
}

// anchorFor chooses among the anchors by rendezvous hashing: each node prefers others, and the same ones again.
func (e *Engine) anchorFor(now time.Time) *node {
	var best *node
	var most uint64
	for _, m := range e.order {
		if !m.anchor() || !e.wouldServe(now, m) {
			continue
		}
		h := sha256.Sum256(append(e.self.short[:], m.short[:]...))
		if v := binary.BigEndian.Uint64(h[:]); best == nil || v > most {
			best, most = m, v
		}
	}
	return best
}

// random returns one of the members for whom ok holds, each as likely as the other, but one that states no endpoint only if
// there is no other; nil if there is none.
func (e *Engine) random(ok func(*node) bool) (pick *node) {
	count, reachable := 0, false
	for _, m := range e.order {
		if reachable && !m.reachable || !ok(m) {
			continue
		}
		if m.reachable && !reachable {
			count, reachable = 0, true
		}
		count++
		if e.rand.IntN(count) == 0 {
			pick = m
		}
	}
	return pick
}

// sample calls members to learn how far they are, more of them the fewer links there are, and ends such calls.
func (e *Engine) sample(now time.Time, round bool) {
	under, held := e.tendSamples(now)
	goal, again := e.sampleGoal(now)
	if goal > 0 {
		e.plan.sampled = now
	}
	for ; under < goal && held < maxSamples; under, held = under+1, held+1 {
		if e.call(now, e.random(func(m *node) bool { return m.rttAt.IsZero() && e.callable(m) && e.eligible(now, m) }), false) ||
			e.call(now, e.random(func(m *node) bool { return e.callable(m) && e.eligible(now, m) }), false) {
			continue
		}
		if again = sampleFirst; e.linked() == 0 { // all have failed of late: one after the other
			e.call(now, e.random(func(m *node) bool { return e.callable(m) && m.transit() }), false)
		}
		break
	}
	if again > 0 {
		e.plan.lookAt = earlier(e.plan.lookAt, now.Add(e.jitter(again, again/4)))
	}
	if round && e.linked() > 0 {
		e.bridge(now)
	}
	e.help(now)
}

// tendSamples ends samples whose time is over, and counts those that may come up soon, and all.
func (e *Engine) tendSamples(now time.Time) (under, held int) {
	for _, n := range slices.Clone(e.neighbours) {
		if !n.sample {
			continue
		}
		if n.helper && n.session && e.helps(n.node) {
			n.sampleUntil = now.Add(helperLife)
		}
		if reached(n.sampleUntil, now) {
			e.endSample(now, n)
			continue
		}
		e.plan.lookAt = earlier(e.plan.lookAt, n.sampleUntil)
		held++
		if !n.session && now.Sub(n.picked) < hurry {
			under++
		}
		if n.session && n.bridge && e.eligible(now, n.node) && !e.reaches(n.node) {
			e.pick(now, n, kindSpare) // another part of the network: this joins the two
		}
	}
	return under, held
}

// sampleGoal returns how many calls should be under way now, and when to look again; 0 is not at all.
func (e *Engine) sampleGoal(now time.Time) (goal int, again time.Duration) {
	switch links := e.linked(); {
	case links == 0:
		return atOnce, hurry
	case links < min(lowWater, len(e.members)):
		return atLow, hurry
	}
	known := 0
	for _, m := range e.order {
		if !m.rttAt.IsZero() {
			known++
		}
	}
	gap := sampleRare
	if known < min(sampleGoal, len(e.members)) {
		gap = min(sampleFirst<<min(e.plan.misses/2, 6), sampleRare)
	}
	if left := e.plan.sampled.Add(gap).Sub(now); !e.plan.sampled.IsZero() && left > 0 {
		return 0, left
	}
	if gap < sampleRare {
		return atLeisure, gap
	}
	return 1, gap
}

// callable reports whether a session with m would be something new.
func (e *Engine) callable(m *node) bool {
	n := m.neighbour
	return n == nil || !n.session && !n.sample && n.kind == kindNone
}

// call makes a sample of m; false if there is none.
func (e *Engine) call(now time.Time, m *node, bridge bool) bool {
	if m == nil {
		return false
	}
	n := e.neighbourOf(m)
	n.sample, n.bridge, n.picked, n.sampleUntil = true, bridge, now, now.Add(sampleWithin)
	e.plan.lookAt = earlier(e.plan.lookAt, n.sampleUntil)
	e.update(now, n)
	return true
}

func (e *Engine) endSample(now time.Time, n *neighbour) {
	if n.helper && n.session {
		e.stale(now, soon)
	}
	n.sample, n.bridge, n.helper = false, false, false
	e.plan.misses++
	if n.session {
		e.plan.misses = 0
	} else if n.kind == kindNone {
		e.failed(now, n.node)
	}
	e.update(now, n)
}

// bridge calls a member whom the map does not reach: the network may have come apart and be whole again underneath. The
// larger the part this node is in, the more rarely it tries, for others do too.
func (e *Engine) bridge(now time.Time) {
	if e.rand.IntN(max(e.reach.size, bridgeShare)) >= bridgeShare || e.part() > len(e.members) { // as large as it was last
		return
	}
	e.call(now, e.random(func(m *node) bool { return e.callable(m) && m.transit() && !e.reaches(m) }), true)
}

// help calls a neighbour of a destination that is asked for, on the map, and too far for a route: it can be the first relay
// without being a link.
func (e *Engine) help(now time.Time) {
	helpers := 0
	for _, n := range e.neighbours {
		if n.helper {
			helpers++
		}
	}
	for _, dst := range e.watched {
		if helpers >= maxHelpers {
			return
		}
		if len(dst.watch.routes) > 0 || now.Before(dst.watch.helpAt) || !dst.known || !e.reaches(dst) {
			continue
		}
		dst.watch.helpAt = now.Add(sampleWithin)
		e.plan.lookAt = earlier(e.plan.lookAt, dst.watch.helpAt)
		var near []*node
		e.edges(dst, func(v *node, _ uint32) {
			o := v.neighbour
			if v.transit() && !now.Before(v.retry) && (o == nil || !o.linked && !o.sample) {
				near = append(near, v)
			}
		})
		if len(near) > 0 {
			m := near[e.rand.IntN(len(near))]
			e.call(now, m, false)
			m.neighbour.helper = true
			if helpers++; m.neighbour.session {
				e.stale(now, soon)
			}
		}
	}
}

// helps reports whether a route in use begins with m.
func (e *Engine) helps(m *node) bool {
	return slices.ContainsFunc(e.watched, func(dst *node) bool {
		return slices.ContainsFunc(dst.watch.routes, func(r wire.Route) bool { return r.At(0) == m.short })
	})
}
