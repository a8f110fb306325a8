package route

import (
	"math"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Costs are in tenths of a millisecond (spec/54-routes.md#cost).
const (
	hopCost    = 100 // of each link, and no link costs less
	unknownRTT = 100 * time.Millisecond
	mostRTT    = 500 * time.Millisecond
	mostLoss   = 0.3
	onceLoss   = 1. / 16 // what one lost ping makes of the smoothed loss: it says nothing
	lossCost   = 10_000  // for all lost
	overCost   = 5_000   // for passing an overloaded relay
	blameCost  = 100_000
	costUnit   = 100 * time.Microsecond
)

// When this node states its links anew (spec/54-routes.md#origination).
const (
	coalesce     = 100 * time.Millisecond
	holdFirst    = time.Second
	holdQuick    = 500 * time.Millisecond // between the first few: links come up one by one
	quickOnes    = 4
	holdMost     = 10 * time.Second
	holdMember   = 2 * time.Millisecond // for each member: 10 s for 5,000
	metricPart   = 25                   // percent
	metricLeast  = 100                  // and 10 ms
	metricFor    = 30 * time.Second
	metricEvery  = 60 * time.Second
	refreshEvery = 30 * time.Minute
	refreshPart  = 6 * time.Minute
)

// own is this node's link state.
type own struct {
	version   wire.Version // the last one
	flags     wire.StateFlags
	groups    []uint32
	at        time.Time // of the next; zero: nothing changed
	last      time.Time
	hold      time.Duration
	quick     int // in a row, so far
	refreshAt time.Time
}

// costOf returns the cost of a link that was measured or, if not, a guess.
func costOf(rtt time.Duration, loss float64, measured bool) uint16 {
	if !measured {
		rtt, loss = unknownRTT, 0
	}
	if math.IsNaN(loss) {
		loss = 0
	}
	rtt = min(max(rtt, 0), mostRTT)
	loss = min(max(loss-onceLoss, 0), mostLoss)
	return hopCost + uint16(rtt/costUnit) + uint16(lossCost*loss)
}

// differs reports whether a and b are at least part percent of b and least apart.
func differs(a, b uint16, part, least int) bool {
	d := int(a) - int(b)
	if d < 0 {
		d = -d
	}
	return d >= least && d*100 >= part*int(b)
}

// SetLeaf says whether this node carries no transit from now on.
func (e *Engine) SetLeaf(now time.Time, on bool) {
	if !e.setFlag(now, wire.StateLeaf, on) || e.linkAll() {
		return
	}
	for _, n := range slices.Clone(e.neighbours) { // the places are others now
		if n.kind != kindNone {
			n.kind = kindSpare
		} else if n.granted && on {
			e.pick(now, n, kindNone)
		}
	}
	e.plan.look(e, now)
}

// SetOverloaded says whether this node carries as much as it can.
func (e *Engine) SetOverloaded(now time.Time, on bool) { e.setFlag(now, wire.StateOverloaded, on) }

// SetAnchor says whether this node is reached from outside without help.
func (e *Engine) SetAnchor(now time.Time, on bool) { e.setFlag(now, wire.StateAnchor, on) }

func (e *Engine) leaf() bool { return e.own.flags&wire.StateLeaf != 0 }

func (e *Engine) setFlag(now time.Time, f wire.StateFlags, on bool) (changed bool) {
	e.now = now
	if e.own.flags&f != 0 == on {
		return false
	}
	e.own.flags ^= f
	e.own.change(e, now)
	return true
}

// SetGroups says which multicast groups this node listens to (spec/55-broadcast.md#groups).
func (e *Engine) SetGroups(now time.Time, groups []uint32) {
	e.now = now
	groups = slices.Clone(groups)
	slices.Sort(groups)
	groups = slices.Compact(groups)
	groups = groups[:min(len(groups), wire.MaxGroups)]
	if !slices.Equal(groups, e.own.groups) {
		e.own.groups = groups
		e.own.change(e, now)
	}
}

// change lets a new link state follow soon, but the more rarely the more often.
func (o *own) change(e *Engine, now time.Time) {
	at := now.Add(coalesce)
	if t := o.last.Add(o.hold); !o.last.IsZero() && t.After(at) {
		at = t
	}
	o.at = earlier(o.at, at)
}

// deviation states the cost of n anew when it is far from the stated one for long.
func (e *Engine) deviation(now time.Time, n *neighbour) {
	switch {
	case !differs(n.cost, n.stated, metricPart, metricLeast):
		n.deviates = time.Time{}
	case n.deviates.IsZero():
		n.deviates = now
	case now.Sub(n.deviates) >= metricFor && now.Sub(e.own.last) >= metricEvery:
		e.own.change(e, now)
	}
}

func (e *Engine) tickOwn(now time.Time) {
	if reached(e.own.at, now) || reached(e.own.refreshAt, now) {
		e.originate(now)
	}
}

// originate states this node's links.
func (e *Engine) originate(now time.Time) {
	o := &e.own
	switch {
	case o.last.IsZero() || now.Sub(o.last) > 2*max(o.hold, holdFirst):
		o.hold, o.quick = holdQuick, 1
	case o.quick < quickOnes:
		o.quick++
	default:
		o.hold = min(2*o.hold, max(holdMost, time.Duration(len(e.members))*holdMember))
	}
	o.at, o.last = time.Time{}, now
	o.refreshAt = now.Add(e.jitter(refreshEvery, refreshPart))
	o.version = after(o.version)
	s := wire.LinkState{Node: e.self.short, Version: o.version, Flags: o.flags, Groups: o.groups}
	for _, n := range e.neighbours {
		if n.linked {
			n.stated, n.deviates = n.cost, time.Time{}
			s.Links = append(s.Links, wire.Link{To: n.short, Cost: n.cost})
		}
	}
	slices.SortFunc(s.Links, func(a, b wire.Link) int { return compareShort(a.To, b.To) })
	e.effect(Originate{s})
}

// after returns the version that follows v.
func after(v wire.Version) wire.Version {
	if v.Seq == math.MaxUint32 {
		return wire.Version{Epoch: v.Epoch + 1}
	}
	return wire.Version{Epoch: v.Epoch, Seq: v.Seq + 1}
}

func compareShort(a, b key.ShortID) int { return slices.Compare(a[:], b[:]) }
