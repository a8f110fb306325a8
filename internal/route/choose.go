package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// When a better route takes over (spec/54-routes.md#hysteresis).
const (
	betterFor   = 30 * time.Second
	betterLeast = 50 // 5 ms, beyond a fifth of the cost
	settleFor   = 5 * time.Second

	maxPonders  = 16          // searches for one destination alone
	ponderTime  = time.Second // in so long
	ponderEvery = time.Minute // for the same one
)

// watch is the choice of routes to one destination.
type watch struct {
	routes []wire.Route // never changed, only replaced: callers hold it
	failed []failure
	better trail     // of those clearly cheaper than the first of routes, the cheapest
	since  time.Time // when there was none last; zero: there is none
	forced time.Time // when the first of routes had to be chosen, for there was no other
	why    string

	pondered   wire.Route // the first route for which the second was searched for
	ponderedAt time.Time
	helpAt     time.Time // when somebody nearer may be called, if there is no route
}

// Routes returns routes to dst, each with at least one relay: the best first, and one that shares as few relays with it as
// possible, if there is. The slice must not be changed. From then on [RoutesChanged] tells of dst, until [Engine.Unwatch].
func (e *Engine) Routes(dst key.NodeID) []wire.Route {
	n := e.member(dst)
	if n == nil {
		return nil
	}
	if n.watch == nil {
		n.watch = &watch{}
		e.watched = append(e.watched, n)
		e.fresh()
		e.choose(e.now, n, n.watch)
	}
	return n.watch.routes
}

// Unwatch says that routes to dst are of no interest any more.
func (e *Engine) Unwatch(dst key.NodeID) {
	if n := e.member(dst); n != nil && n.watch != nil {
		n.watch = nil
		e.watched = slices.DeleteFunc(e.watched, func(w *node) bool { return w == n })
	}
}

// fresh computes the graph if it has changed and nothing will do so soon.
func (e *Engine) fresh() {
	if e.graph.old && e.spfAt.IsZero() {
		e.draw()
		e.search(nil)
		e.spfLast = e.now
	}
}

const manyWatched = 16 // one node in so many is sought: then all may be

// search finds the ways to all that are watched, and to n if it is not nil.
func (e *Engine) search(n *node) {
	to := e.goals[:0]
	for _, w := range e.watched {
		if w.index >= 0 {
			to = append(to, w.index)
		}
	}
	if n != nil {
		to = append(to, n.index)
	}
	if e.goals = to; len(to)*manyWatched > len(e.graph.nodes) {
		to = nil
	}
	e.graph.search(&e.graph.labels, to...)
}

// runSPF computes the graph and all watched routes.
func (e *Engine) runSPF(now time.Time) {
	e.spfAt, e.spfLast = time.Time{}, now
	e.acquit(now)
	e.draw()
	e.search(nil)
	e.chooseAll(now)
}

func (e *Engine) chooseAll(now time.Time) {
	e.chooseAt = time.Time{}
	var changed []key.NodeID
	for _, n := range e.watched {
		if e.choose(now, n, n.watch) {
			changed = append(changed, n.id)
		}
	}
	if len(changed) > 0 {
		e.effect(RoutesChanged{changed})
	}
}

// choose chooses the routes to n, and reports whether they are others than before.
func (e *Engine) choose(now time.Time, n *node, w *watch) (changed bool) {
	first, second := e.pair(now, n, w)
	var routes [2]wire.Route
	count := 0
	for _, t := range []trail{first, second} {
		if t.n > 0 {
			routes[count] = e.graph.route(t)
			count++
		}
	}
	if count == 0 && n.known && n.watch == w {
		e.plan.look(e, now)
	}
	if slices.Equal(routes[:count], w.routes) {
		return false
	}
	w.routes = slices.Clone(routes[:count])
	return true
}

// pair finds the two routes to n; a trail without relays is none.
func (e *Engine) pair(now time.Time, n *node, w *watch) (first, second trail) {
	g := &e.graph
	if n.index < 0 {
		w.why = "nothing is known of its links"
		return first, second
	}
	if !g.labels.has(n.index) {
		e.search(n)
	}
	trails := e.trails[:0]
	g.eachTrail(n.index, func(t trail) { trails = append(trails, t) })
	for i := range trails {
		e.weigh(now, w, &trails[i])
	}
	if t := cheapest(trails); t.doubt > 0 && e.mayPonder(now) {
		if t = g.around(n.index, e.doubtful(now, w), nil); t.n > 0 {
			e.weigh(now, w, &t)
			trails = append(trails, t)
		}
	}
	e.trails = trails
	if first = e.first(now, n, w, trails); first.n == 0 {
		return first, second
	}
	better := func(t trail) {
		if t.n == 0 || t.same(&first) {
			return
		}
		t.shared = t.common(&first)
		if second.n == 0 || t.rank()+uint64(t.cost) < second.rank()+uint64(second.cost) {
			second = t
		}
	}
	for i := range trails {
		better(trails[i])
	}
	for _, r := range w.routes { // one of those before, if it is about as good
		old := g.trailOf(e, r, n)
		if old.n == 0 || old.same(&first) {
			continue
		}
		e.weigh(now, w, &old)
		old.shared = old.common(&first)
		if second.n == 0 || old.rank() <= second.rank() && old.cost <= second.cost+second.cost/4+betterLeast {
			second = old
		}
	}
	if r := g.route(first); (second.n == 0 || second.shared > 0) && (w.pondered != r || now.Sub(w.ponderedAt) >= ponderEvery) && e.mayPonder(now) {
		w.pondered, w.ponderedAt = r, now
		t := g.around(n.index, first.relays[:first.n], &first)
		e.weigh(now, w, &t)
		better(t)
	}
	return first, second
}

// mayPonder reports whether a search for one destination alone is in order; if not, the choice is looked at again later.
func (e *Engine) mayPonder(now time.Time) bool {
	if now.Sub(e.ponderedAt) >= ponderTime || e.ponderedAt.IsZero() {
		e.ponderedAt, e.ponders = now, 0
	}
	if e.ponders >= maxPonders {
		e.chooseAt = earlier(e.chooseAt, e.ponderedAt.Add(ponderTime))
		return false
	}
	e.ponders++
	return true
}

func cheapest(trails []trail) (best trail) {
	for i := range trails {
		t := &trails[i]
		if best.n == 0 || t.doubt < best.doubt || t.doubt == best.doubt && t.cost < best.cost {
			best = *t
		}
	}
	return best
}

// rank orders trails for the second place, but for their cost, which is below 1<<32: by doubt, then by relays that lose
// datagrams, then by relays shared with the first.
func (t *trail) rank() uint64 {
	return uint64(t.doubt)<<48 | uint64(t.cost/blameCost)<<40 | uint64(t.shared)<<32
}

// first takes the best route, or stays with the one in use when that is not clearly better for some time.
func (e *Engine) first(now time.Time, n *node, w *watch, trails []trail) trail {
	since, best := w.since, cheapest(trails)
	w.since, w.better = time.Time{}, trail{}
	var old trail
	if len(w.routes) > 0 {
		old = e.graph.trailOf(e, w.routes[0], n)
	}
	switch {
	case best.n == 0 && old.n == 0:
		w.why = "no route of at most 4 relays is known"
		return trail{}
	case len(w.routes) == 0:
		w.why, w.forced = "the cheapest", now
		return best
	case old.n == 0:
		w.why, w.forced = "the cheapest since the one before broke", now
		return best
	}
	e.weigh(now, w, &old)
	switch {
	case best.n == 0 || best.same(&old):
		return old
	case best.doubt < old.doubt:
		w.why = "datagrams by the one before vanished"
		return best
	case best.cost/blameCost < old.cost/blameCost:
		w.why = "the one before has a relay that loses datagrams"
		return best
	}
	why := "clearly cheaper than the one before for 30 s"
	if best.doubt > old.doubt || best.cost+betterLeast >= old.cost-old.cost/5 {
		if best, why = shorter(trails, &old), "fewer relays than the one before, and no costlier for 30 s"; best.n == 0 {
			return old
		}
	}
	if now.Sub(w.forced) < settleFor {
		return best
	}
	if w.since = since; since.IsZero() {
		w.since = now
	}
	if now.Sub(w.since) < betterFor {
		w.better = best
		e.chooseAt = earlier(e.chooseAt, w.since.Add(betterFor))
		return old
	}
	w.since = time.Time{}
	w.why = why
	return best
}

// shorter returns the cheapest trail that has fewer relays than old and costs no more; it has no relays if there is none. The way
// back is a longer one, which must be clearly cheaper: so the two do not alternate.
func shorter(trails []trail, old *trail) (best trail) {
	for i := range trails {
		t := &trails[i]
		if t.n < old.n && t.doubt <= old.doubt && t.cost <= old.cost && (best.n == 0 || t.cost < best.cost) {
			best = *t
		}
	}
	return best
}

// trailOf returns the trail of r to n as the graph is now; it has no relays if r is broken.
func (g *graph) trailOf(e *Engine, r wire.Route, n *node) (t trail) {
	at := int32(0)
	for i := range r.Len() {
		m := e.members[r.At(i)]
		if m == nil || m.index < 0 || g.through[m.index] == noTransit {
			return trail{}
		}
		cost, ok := g.edge(at, m.index)
		if !ok {
			return trail{}
		}
		at = m.index
		t.relays[t.n] = at
		t.n++
		t.cost += cost + g.through[at]
	}
	cost, ok := g.edge(at, n.index)
	if n.index < 0 || !ok {
		return trail{}
	}
	t.cost += cost
	return t
}
