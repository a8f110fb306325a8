package route

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	maxAge      = 95 * time.Minute // of a link state, by when it came
	maxExcluded = 256
)

// edgeID names the link between two nodes, the lower id first.
type edgeID [2]key.ShortID

func edgeOf(a, b key.ShortID) edgeID {
	if compareShort(a, b) > 0 {
		a, b = b, a
	}
	return edgeID{a, b}
}

func (a edgeID) compare(b edgeID) int {
	return cmp.Or(compareShort(a[0], b[0]), compareShort(a[1], b[1]))
}

// Learn takes a link state of a member, whose signature is verified. It reports whether it is the newest of its node and
// another's: then it is to be spread. The newest of this node itself, from an earlier run, is answered by a newer one.
func (e *Engine) Learn(now time.Time, s wire.LinkState) bool {
	e.now = now
	if s.Node == e.self.short {
		e.recall(now, s.Version)
		return false
	}
	n := e.members[s.Node]
	if n == nil || s.Version.Compare(n.state.Version) <= 0 {
		return false
	}
	same := n.known && s.Flags == n.state.Flags && slices.Equal(s.Links, n.state.Links)
	if !slices.Equal(s.Groups, n.state.Groups) {
		e.effect(GroupsChanged{})
	}
	wasLeaf, before := !n.transit(), n.state.Links
	n.state, n.known, n.heard = s, true, now
	e.turns(n)
	e.restated(n)
	e.expireAt = earlier(e.expireAt, now.Add(maxAge))
	if same {
		return true
	}
	e.missing(now, n, before)
	e.touch(n)
	e.stale(now, later)
	if n.neighbour != nil && wasLeaf == n.transit() {
		e.plan.look(e, now)
	}
	return true
}

// recall makes the next version greater than v, which this node gave to its link state in an earlier run or as a copy of
// itself.
func (e *Engine) recall(now time.Time, v wire.Version) {
	if v.Compare(e.own.version) <= 0 || v == (wire.Version{Epoch: math.MaxUint32, Seq: math.MaxUint32}) {
		return
	}
	e.own.version = v
	e.own.change(e, now)
}

// Groups returns who listens to which multicast group, this node left out, each list ascending.
func (e *Engine) Groups() map[uint32][]key.NodeID {
	out := map[uint32][]key.NodeID{}
	for _, n := range e.order {
		for _, g := range n.state.Groups {
			out[g] = append(out[g], n.id)
		}
	}
	return out
}

// Exclude says that the link between a and b did not carry: a path error. It is not used for d.
func (e *Engine) Exclude(now time.Time, a, b key.ShortID, d time.Duration) {
	e.now = now
	if e.nodeOf(a) == nil || e.nodeOf(b) == nil || a == b || d <= 0 {
		return
	}
	id := edgeOf(a, b)
	if _, ok := e.excluded[id]; !ok {
		if len(e.excluded) >= maxExcluded {
			e.readmit(e.nextExcluded())
		}
		for _, n := range []*node{e.nodeOf(a), e.nodeOf(b)} {
			n.shut++
			e.touch(n)
		}
	}
	e.excluded[id] = now.Add(d)
	e.expireAt = earlier(e.expireAt, now.Add(d))
	e.stale(now, urgent)
}

func (e *Engine) nodeOf(id key.ShortID) *node {
	if id == e.self.short {
		return e.self
	}
	return e.members[id]
}

// readmit ends an exclusion.
func (e *Engine) readmit(id edgeID) {
	delete(e.excluded, id)
	for _, s := range id {
		if n := e.nodeOf(s); n != nil && n.shut > 0 {
			n.shut--
			e.touch(n)
		}
	}
}

// restated ends the exclusions of links that n states anew: they carry again, as far as n knows.
func (e *Engine) restated(n *node) {
	if n.shut == 0 {
		return
	}
	for _, l := range n.state.Links {
		if id := edgeOf(n.short, l.To); !e.excluded[id].IsZero() {
			e.readmit(id)
			e.stale(e.now, soon)
		}
	}
}

// nextExcluded returns the exclusion that ends first.
func (e *Engine) nextExcluded() (id edgeID) {
	var first time.Time
	for i, until := range e.excluded {
		if first.IsZero() || until.Before(first) || until.Equal(first) && i.compare(id) < 0 {
			id, first = i, until
		}
	}
	return id
}

// tickMap ends what has had its time: link states, exclusions, blame.
func (e *Engine) tickMap(now time.Time) {
	if !reached(e.expireAt, now) {
		return
	}
	e.expireAt = time.Time{}
	for _, n := range e.order {
		if !n.known {
			continue
		}
		if now.Sub(n.heard) >= maxAge {
			if len(n.state.Groups) > 0 {
				e.effect(GroupsChanged{})
			}
			n.known = false
			e.touch(n)
			n.state = wire.LinkState{Version: n.state.Version} // older ones are still not taken
			e.effect(Expired{n.short})
			e.stale(now, soon)
			continue
		}
		e.expireAt = earlier(e.expireAt, n.heard.Add(maxAge))
	}
	for id, until := range e.excluded {
		if reached(until, now) {
			e.readmit(id)
			e.stale(now, soon)
			continue
		}
		e.expireAt = earlier(e.expireAt, until)
	}
	e.tickBlame(now)
}
