package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// How often routes are computed anew (spec/54-routes.md#when).
const (
	spfFirst  = 50 * time.Millisecond // after the first change
	spfGap    = time.Millisecond      // for each member, between two
	spfLeast  = 50 * time.Millisecond // and within these
	spfMost   = time.Second
	sweepLife = time.Second
)

// haste says how soon a change of the map must show.
type haste uint8

const (
	later  haste = iota // others' links
	soon                // own links, members
	urgent              // a route in use is broken
)

// stale says that the map changed. Nothing is computed for nobody: without watched destinations the next question does it.
func (e *Engine) stale(now time.Time, h haste) {
	e.graph.old = true
	if len(e.watched) == 0 {
		return
	}
	at, gap := now.Add(spfFirst), min(max(time.Duration(len(e.members))*spfGap, spfLeast), spfMost)
	if h != later {
		gap /= 10
	}
	if h == urgent {
		at = now
	}
	if t := e.spfLast.Add(gap); t.After(at) && !e.spfLast.IsZero() {
		at = t
	}
	e.spfAt = earlier(e.spfAt, at)
}

// edges calls f for each link of u that counts (spec/54-routes.md#map), with its cost.
func (e *Engine) edges(u *node, f func(v *node, cost uint32)) {
	if u == e.self {
		for _, n := range e.neighbours { // by own measurement; on a link both have agreed
			if (n.linked || n.helper && n.session) && !e.shut(u, n.node) {
				f(n.node, uint32(n.cost))
			}
		}
		return
	}
	if !u.known {
		return
	}
	for _, l := range u.state.Links {
		v := e.members[l.To] // not this node itself: no route leads back to it
		if v == nil || !v.known {
			continue
		}
		other, ok := v.lists(u)
		if !ok || u.shut > 0 && v.shut > 0 && e.shut(u, v) {
			continue
		}
		f(v, uint32(max(l.Cost, other, hopCost)))
	}
}

// lists returns the cost that v states of its link with u. Lists are short: to go through one is quicker than to be clever.
func (v *node) lists(u *node) (cost uint16, ok bool) {
	for i := range v.state.Links {
		if v.state.Links[i].To == u.short {
			return v.state.Links[i].Cost, true
		}
	}
	return 0, false
}

// shut reports whether the link between u and v is excluded.
func (e *Engine) shut(u, v *node) bool {
	if len(e.excluded) == 0 {
		return false
	}
	_, ok := e.excluded[edgeOf(u.short, v.short)]
	return ok
}

// reach is the part of the network that this node is in, however long the way.
type reach struct {
	at    time.Time
	sweep uint32
	size  int // with this node
	queue []*node
}

// part returns the number of nodes in this node's part of the network, as of late.
func (e *Engine) part() int {
	r := &e.reach
	if r.sweep > 0 && e.now.Sub(r.at) < sweepLife {
		return r.size
	}
	r.at = e.now
	r.sweep++
	r.queue = append(r.queue[:0], e.self)
	for i := 0; i < len(r.queue); i++ {
		u := r.queue[i]
		if u != e.self && !u.transit() {
			continue
		}
		e.edges(u, func(v *node, _ uint32) {
			if v.swept != r.sweep {
				v.swept = r.sweep
				r.queue = append(r.queue, v)
			}
		})
	}
	r.size = len(r.queue)
	return r.size
}

// reaches reports whether links lead to n, however many.
func (e *Engine) reaches(n *node) bool {
	e.part()
	return n.swept == e.reach.sweep
}

// graph is the map at one moment, in the form in which it is searched.
type graph struct {
	old     bool     // the map has changed since
	nodes   []*node  // this node first
	out     [][]edge // those of each node that count
	through []uint32 // cost of relaying, or noTransit
	labels  labels
	second  labels // of a search with other costs

	all     bool    // members have come or gone: all is to be drawn
	touched []*node // else only the edges of these, and of those at their other ends
	drawing uint32
	again   []*node // whose edges this drawing looks at
}

type edge struct {
	to   int32
	cost uint32
}

const noTransit = ^uint32(0)

// touch notes that the links of n, which of them count, or what it costs to relay by n, may be others than in the graph.
func (e *Engine) touch(n *node) {
	if !n.dirty && !e.graph.all {
		n.dirty = true
		e.graph.touched = append(e.graph.touched, n)
	}
}

// forget lets all be drawn anew.
func (g *graph) forget() {
	g.untouch()
	g.all = true
}

func (g *graph) untouch() {
	for _, n := range g.touched {
		n.dirty = false
	}
	clear(g.touched)
	g.touched = g.touched[:0]
}

// draw takes the graph from the map: what has changed of it.
func (e *Engine) draw() {
	g := &e.graph
	g.old = false
	g.drawing++
	g.again = g.again[:0]
	look := func(n *node) {
		if n != nil && n.index >= 0 && n.drawn != g.drawing {
			n.drawn = g.drawing
			g.again = append(g.again, n)
		}
	}
	if g.all {
		for _, n := range g.nodes {
			n.index = -1
		}
		g.nodes = append(append(g.nodes[:0], e.self), e.order...)
		g.out = slices.Grow(g.out, max(0, len(g.nodes)-len(g.out)))[:len(g.nodes)]
		for i, n := range g.nodes {
			n.index = int32(i)
			look(n)
		}
	} else {
		look(e.self)
		for _, n := range g.touched {
			if look(n); n.index < 0 {
				continue
			}
			for _, was := range g.out[n.index] {
				look(g.nodes[was.to])
			}
			for _, l := range n.state.Links {
				look(e.members[l.To])
			}
		}
	}
	g.setThrough(e)
	g.untouch()
	g.all = false
	for _, u := range g.again {
		out := g.out[u.index][:0]
		e.edges(u, func(v *node, cost uint32) { out = append(out, edge{v.index, cost}) })
		g.out[u.index] = out
	}
	for _, n := range e.neighbours {
		n.used = n.cost
	}
}

// setThrough takes from the map what it costs to relay, as far as that may have changed.
func (g *graph) setThrough(e *Engine) {
	if !g.all {
		for _, n := range g.touched {
			if n.index >= 0 {
				g.through[n.index] = e.relaying(n)
			}
		}
		return
	}
	g.through = g.through[:0]
	for _, n := range g.nodes {
		g.through = append(g.through, e.relaying(n))
	}
}

// relaying returns what it costs to relay by n.
func (e *Engine) relaying(n *node) uint32 {
	if n == e.self || !n.transit() {
		return noTransit
	}
	var c uint32
	if n.known && n.state.Flags&wire.StateOverloaded != 0 {
		c += overCost
	}
	if n.blame.heavy() {
		c += blameCost
	}
	return c
}

// place returns the edge from u to v, or nil.
func (g *graph) place(u, v int32) *edge {
	for i := range g.out[u] {
		if g.out[u][i].to == v {
			return &g.out[u][i]
		}
	}
	return nil
}

// edge returns the cost of the edge from u to v.
func (g *graph) edge(u, v int32) (cost uint32, ok bool) {
	x := g.place(u, v)
	if x == nil {
		return 0, false
	}
	return x.cost, true
}
