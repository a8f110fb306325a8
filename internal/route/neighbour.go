package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// The agreement on a link (spec/54-routes.md#link-agreement).
const (
	wishEvery  = 2 * time.Second
	wishTries  = 5
	wishRare   = 30 * time.Second // after, where all link to all
	linger     = time.Second      // an agreed link outlives a wish taken back, in case the other side has one of its own
	affirm     = 15 * time.Minute // an agreed link's wishes are told again
	flapPause  = 10 * time.Second // before a wish taken back is granted again
	refusedFor = 10 * time.Minute // before one who refused is asked again
	refusedAll = time.Minute      // the same, where all link to all
)

// kind says why this node wants a link.
type kind uint8

const (
	kindNone kind = iota
	kindAll
	kindNear
	kindElsewhere
	kindRandom
	kindAnchor
	kindRouter  // of a leaf
	kindSpare   // beyond the plan: to be above low water
	kindLeaving // replaced; goes when its successor stands
)

var kindNames = [...]string{"", "all", "near", "elsewhere", "random", "anchor", "router", "spare", "leaving"}

func (k kind) String() string { return kindNames[k] }

// neighbour is a member with a session, or one with whom a session is wanted.
type neighbour struct {
	*node
	session bool // with a direct path
	since   time.Time

	kind    kind
	picked  time.Time // or: when it was last lost
	granted bool      // this node wants the link because the other one does
	heard   bool      // what the other one wants
	leaf    bool      // its wishes say so
	grantAt time.Time // not before

	sample      bool
	bridge      bool // the sample is of a part of the network that the map does not reach
	helper      bool // the sample is to be the first relay to a destination that links do not reach
	sampleUntil time.Time

	linked    bool      // the link is up
	linkedAt  time.Time // or: since when it is down
	downAt    time.Time // when it ends unless the wishes agree again
	held      bool      // Dial was said
	unsettled bool      // the other one has not shown yet that it knows this node's wish
	sent      int       // wishes since it changed
	wishAt    time.Time // when to tell it again

	jitter   time.Duration
	loss     float64
	measured bool
	cost     uint16    // by measurement
	used     uint16    // in the graph
	stated   uint16    // in this node's link state
	deviates time.Time // since when cost is far from stated
	checked  time.Time // last Check
}

// wants reports whether this node wants the link.
func (n *neighbour) wants() bool { return n.kind != kindNone || n.granted }

// neighbourOf returns n's neighbour, made if there is none.
func (e *Engine) neighbourOf(n *node) *neighbour {
	if n.neighbour == nil {
		n.neighbour = &neighbour{node: n, cost: costOf(0, 0, false)}
		e.neighbours = append(e.neighbours, n.neighbour)
	}
	return n.neighbour
}

// Up says that there is a session with id and a direct path that is alive. Only then can id be a link.
func (e *Engine) Up(now time.Time, id key.NodeID) {
	e.now = now
	m := e.member(id)
	if m == nil {
		return
	}
	n := e.neighbourOf(m)
	if n.session {
		return
	}
	n.session, n.since = true, now
	m.failures, m.retry = 0, time.Time{}
	if n.sample {
		n.sampleUntil = now.Add(sampleLife)
	}
	if n.helper {
		e.stale(now, soon)
	}
	if e.linkAll() && n.kind == kindNone { // no need to wait for a look: who talks already may want to talk by n
		n.sample, n.kind, n.picked = false, kindAll, now
	}
	if n.heard && !n.wants() {
		n.granted = e.mayGrant(now, n)
	}
	e.tell(now, n, n.kind != kindNone)
	e.update(now, n)
	e.plan.look(e, now)
}

// Down says that there is none any more.
func (e *Engine) Down(now time.Time, id key.NodeID) {
	e.now = now
	m := e.member(id)
	if m == nil || m.neighbour == nil || !m.neighbour.session {
		return
	}
	n := m.neighbour
	n.session, n.since = false, now
	n.heard, n.granted, n.unsettled, n.wishAt = false, false, false, time.Time{}
	n.measured, n.cost = false, costOf(0, 0, false)
	n.picked = now
	if n.helper {
		e.stale(now, urgent)
	}
	e.update(now, n)
	e.plan.look(e, now)
}

// Measured gives what is known of the direct path to id, smoothed; loss is from 0 to 1. It may be called as often as there
// is something new.
func (e *Engine) Measured(now time.Time, id key.NodeID, rtt, jitter time.Duration, loss float64) {
	e.now = now
	m := e.member(id)
	if m == nil || m.neighbour == nil || !m.neighbour.session || rtt <= 0 {
		return
	}
	n := m.neighbour
	m.rtt, m.rttAt = rtt, now
	n.jitter, n.loss = jitter, loss
	n.cost = costOf(rtt, loss, true)
	if first := !n.measured; first {
		n.measured = true
		e.plan.look(e, now)
	}
	if !n.linked {
		return
	}
	if differs(n.cost, n.used, 10, 50) {
		e.stale(now, later)
	}
	e.deviation(now, n)
}

// HandleWish takes a wish that came inside the session with id.
func (e *Engine) HandleWish(now time.Time, id key.NodeID, w wire.LinkWish) {
	e.now = now
	m := e.member(id)
	if m == nil {
		return
	}
	n := e.neighbourOf(m)
	before, did := n.heard, n.wants()
	n.heard, n.leaf = w.Want, w.Leaf
	if !n.session { // it proved the path before this node did: Up will come, or the wish again
		e.update(now, n)
		return
	}
	if w.Seen == did {
		n.unsettled, n.wishAt = false, time.Time{}
	}
	switch {
	case !w.Want:
		n.granted = false
		if before && w.Seen {
			n.grantAt = now.Add(flapPause)
		}
		if !before && w.Seen && n.kind != kindNone {
			e.refused(now, n)
		}
	case !w.Seen && !did:
		n.granted = e.mayGrant(now, n)
	}
	if w.Seen != n.wants() || before != w.Want { // the one whose wish it is asks again if this is lost
		e.tell(now, n, n.kind != kindNone && (n.unsettled || !w.Want))
	}
	e.update(now, n)
}

// refused takes the wish back and asks somebody else.
func (e *Engine) refused(now time.Time, n *neighbour) {
	n.kind = kindNone
	n.retry = now.Add(e.jitter(refusedFor, refusedFor/4))
	if e.linkAll() {
		n.retry = now.Add(refusedAll)
	}
	e.plan.look(e, now)
}

// tell sends this node's wish; if insist, again until the other one shows that it knows it.
func (e *Engine) tell(now time.Time, n *neighbour, insist bool) {
	n.unsettled, n.sent = insist, 0
	e.say(now, n)
}

func (e *Engine) say(now time.Time, n *neighbour) {
	n.wishAt = time.Time{}
	switch {
	case n.unsettled && n.sent >= wishTries:
		n.wishAt = now.Add(wishRare)
	case n.unsettled:
		n.sent++
		n.wishAt = now.Add(wishEvery)
	case n.linked:
		n.wishAt = now.Add(e.jitter(affirm, affirm/4))
	}
	e.plan.wishAt = earlier(e.plan.wishAt, n.wishAt)
	seen := n.heard && !(n.kind != kindNone && n.unsettled && n.sent > 1) // so that it is answered
	e.effect(SendWish{n.id, wire.LinkWish{Want: n.wants(), Seen: seen, Leaf: e.leaf()}})
}

// pick changes why this node wants the link, and tells the other one if that changes whether.
func (e *Engine) pick(now time.Time, n *neighbour, k kind) {
	did := n.wants()
	n.kind = k
	if !did {
		n.picked = now
	}
	if k == kindNone {
		n.granted = false // the other side's wish counts anew if it is its own
	}
	if n.wants() != did && n.session {
		e.tell(now, n, true)
	}
	e.update(now, n)
}

// update draws the conclusions of a change of n.
func (e *Engine) update(now time.Time, n *neighbour) {
	agreed := n.session && n.heard && n.wants()
	switch {
	case agreed && !n.linked:
		n.linked, n.linkedAt, n.downAt = true, now, time.Time{}
		e.effect(LinkUp{n.id})
		e.turns(n.node)
		e.topology(now)
	case agreed:
		n.downAt = time.Time{}
	case n.linked && (!n.session || reached(n.downAt, now)):
		e.unlink(now, n)
	case n.linked && n.downAt.IsZero():
		n.downAt = now.Add(linger)
		e.plan.wishAt = earlier(e.plan.wishAt, n.downAt)
	}
	held := n.wants() || n.sample || n.linked
	if held != n.held {
		n.held = held
		if held {
			e.effect(Dial{n.id})
		} else {
			e.effect(Release{n.id})
		}
	}
	if !held && !n.session && !n.heard {
		e.forget(n)
	}
}

func (e *Engine) unlink(now time.Time, n *neighbour) {
	n.linked, n.linkedAt, n.downAt, n.deviates = false, now, time.Time{}, time.Time{}
	if _, states := n.node.lists(e.self); states {
		e.alarm.note(now, e.self, n.node)
	}
	e.effect(LinkDown{n.id})
	e.effect(Pace{ID: n.id})
	e.topology(now)
	e.plan.look(e, now)
}

// topology says that this node's links are others now.
func (e *Engine) topology(now time.Time) {
	e.own.change(e, now)
	e.stale(now, soon)
}

// end takes n away for good: it is no member any more.
func (e *Engine) end(now time.Time, n *neighbour) {
	n.session, n.heard, n.granted, n.sample, n.kind = false, false, false, false, kindNone
	e.update(now, n)
}

func (e *Engine) forget(n *neighbour) {
	n.node.neighbour = nil
	e.neighbours = slices.DeleteFunc(e.neighbours, func(o *neighbour) bool { return o == n })
}

// tickWishes sends wishes anew and ends links that nobody wants.
func (e *Engine) tickWishes(now time.Time) {
	for _, n := range slices.Clone(e.neighbours) {
		switch {
		case !reached(n.wishAt, now):
		case n.unsettled && n.sent >= wishTries:
			e.unanswered(now, n)
		default:
			e.say(now, n)
		}
		if reached(n.downAt, now) {
			e.update(now, n)
		}
	}
	e.plan.wishAt = time.Time{}
	for _, n := range e.neighbours {
		e.plan.wishAt = earlier(earlier(e.plan.wishAt, n.wishAt), n.downAt)
	}
}

// unanswered gives up a wish that the other one does not answer.
func (e *Engine) unanswered(now time.Time, n *neighbour) {
	if n.kind == kindAll { // there is nobody else to ask
		e.say(now, n)
		return
	}
	n.unsettled, n.wishAt = false, time.Time{}
	if !n.wants() {
		return
	}
	n.granted = false
	e.refused(now, n)
	e.update(now, n)
}
