package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// How relays that swallow datagrams are found (spec/54-routes.md#blame).
const (
	avoidFirst  = 60 * time.Second // doubling each time
	avoidMost   = time.Hour
	avoidMemory = time.Hour // after which it is the first time again
	evidenceFor = 2 * time.Minute
	alibi       = 500 * time.Millisecond // an answer so long before the suspicion clears a relay
	maxFailed   = 32                     // routes to one destination
	wholeRoute  = 100
)

// failure is a route by which datagrams to a destination vanished.
type failure struct {
	route   wire.Route
	at      time.Time
	until   time.Time // avoided
	strikes int
	solved  bool // the guilty relay is found, or none is looked for
}

// Suspect says that datagrams to dst by r vanished although all its links stand. The routes to dst avoid its relays for a
// while; those to others do when there is more against one of them.
func (e *Engine) Suspect(now time.Time, dst key.NodeID, r wire.Route) {
	e.now = now
	n := e.member(dst)
	if n == nil || r.Len() == 0 {
		return
	}
	for i := range r.Len() {
		relay := e.members[r.At(i)]
		if relay == nil || relay.cleared(now) {
			continue
		}
		e.charge(now, relay, evidence{dst: dst, route: r, at: now})
	}
	if w := n.watch; w != nil {
		f := w.fail(now, r, 0)
		f.until = now.Add(min(avoidFirst<<min(f.strikes, 10), avoidMost))
		f.strikes++
		if e.choose(now, n, w) {
			e.effect(RoutesChanged{[]key.NodeID{n.id}})
		}
	}
}

// Vain says that nothing came back from dst by r, which may well be for want of dst. Other routes come first for a while; nobody
// is blamed.
func (e *Engine) Vain(now time.Time, dst key.NodeID, r wire.Route) {
	e.now = now
	n := e.member(dst)
	if n == nil || n.watch == nil || r.Len() == 0 {
		return
	}
	w := n.watch
	if i := w.failure(r); i >= 0 && !reached(w.failed[i].until, now) {
		return
	}
	f := w.fail(now, r, avoidFirst)
	f.solved = true
	if e.choose(now, n, w) {
		e.effect(RoutesChanged{[]key.NodeID{n.id}})
	}
}

// Proved says that an answer of dst came by r. Its relays are blamed no more; but where a route to dst failed for which only
// one other relay can be guilty, that one is.
func (e *Engine) Proved(now time.Time, dst key.NodeID, r wire.Route) {
	e.now = now
	n := e.member(dst)
	if n == nil {
		return
	}
	for i := range r.Len() {
		if relay := e.members[r.At(i)]; relay != nil {
			relay.proved = now
			e.clear(now, relay)
		}
	}
	if n.watch == nil {
		return
	}
	for i := range n.watch.failed {
		f := &n.watch.failed[i]
		switch {
		case reached(f.until, now) || f.solved:
		case f.route == r:
			f.until = now
			e.chooseAt = now
		default:
			var guilty *node
			count := 0
			for i := range f.route.Len() {
				if relay := e.members[f.route.At(i)]; relay != nil && !r.Has(relay.short) && !relay.cleared(f.at) {
					guilty = relay
					count++
				}
			}
			if count == 1 {
				f.solved = true
				e.charge(now, guilty, evidence{dst: dst, route: f.route, at: f.at, sure: true})
			}
		}
	}
}

// cleared reports whether n relayed about the time at or later.
func (n *node) cleared(at time.Time) bool {
	return !n.proved.IsZero() && n.proved.After(at.Add(-alibi))
}

// failure returns the place of r among the failed routes, -1 for none.
func (w *watch) failure(r wire.Route) int {
	return slices.IndexFunc(w.failed, func(o failure) bool { return o.route == r })
}

// fail notes that r failed, as the newest, and is avoided for so long. What is returned is good until the next call.
func (w *watch) fail(now time.Time, r wire.Route, avoided time.Duration) *failure {
	f := failure{route: r, at: now, until: now.Add(avoided)}
	if i := w.failure(r); i >= 0 {
		if now.Sub(w.failed[i].until) <= avoidMemory {
			f.strikes = w.failed[i].strikes
		}
		w.failed = slices.Delete(w.failed, i, i+1)
	} else if len(w.failed) >= maxFailed {
		w.failed = slices.Delete(w.failed, 0, 1)
	}
	w.failed = append(w.failed, f)
	return &w.failed[len(w.failed)-1]
}

// weigh sets how doubtful t is: by the number of its relays that were on routes to the same destination that failed of late,
// and more if it is one of these.
func (e *Engine) weigh(now time.Time, w *watch, t *trail) {
	for i := range w.failed {
		f := &w.failed[i]
		if reached(f.until, now) {
			continue
		}
		e.chooseAt = earlier(e.chooseAt, f.until)
		for _, at := range t.relays[:t.n] {
			if relay := e.graph.nodes[at]; f.route.Has(relay.short) && !relay.cleared(f.at) {
				t.doubt++
			}
		}
		if t.n == f.route.Len() && e.graph.route(*t) == f.route {
			t.doubt += wholeRoute
		}
	}
}

// doubtful lists the relays that weigh counts, by place in the graph; one of two failed routes comes twice.
func (e *Engine) doubtful(now time.Time, w *watch) (out []int32) {
	for _, f := range w.failed {
		for i := range f.route.Len() {
			if relay := e.members[f.route.At(i)]; relay != nil && relay.index >= 0 && !reached(f.until, now) && !relay.cleared(f.at) {
				out = append(out, relay.index)
			}
		}
	}
	return out
}

// blames lists the relays that are avoided.
func (e *Engine) blames() (out []Blame) {
	for _, n := range e.blamed {
		b := Blame{ID: n.id, Penalty: blameCost * costUnit, Until: n.blame.until}
		for _, ev := range n.blame.evidence {
			if !slices.Contains(b.Routes, ev.route) {
				b.Routes = append(b.Routes, ev.route)
			}
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Blame) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out
}
