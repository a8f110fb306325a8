package route

import (
	"math"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	// variety is the number of ways kept to each node, each with another first hop.
	variety  = 3
	maxEdges = wire.MaxRelays + 1
	// edgeCost is more than any route costs, and nodeCost more than that of all its edges.
	edgeCost = 1_000_000
	nodeCost = 10_000_000
)

// label is one way from this node to another: the way of parent and one edge more.
type label struct {
	cost   uint32
	node   int32
	first  int32 // the first hop: node itself at this node's own links
	parent int32 // -1: this node
	edges  int8
}

// labels holds the cheapest ways to each node: for each, variety ways at most, of different first hops, ascending by cost,
// and none longer than maxEdges.
//
// They are found in rounds: round h extends those found in round h-1 by one edge. A way that would come by a node twice is
// dearer there than its own beginning, which has the same first hop; so none has a loop.
type labels struct {
	all   []label
	table [][variety]place // by node
	round []int32          // what this round extends
	hops  []uint8          // by node: how many edges it is from those that were sought, see sought
	every bool             // all were sought
	fresh int              // those from here on are of this round: nothing was extended from them yet
}

// place is where a label is in all, and what decides whether another takes it.
type place struct {
	at    int32 // -1: none
	first int32
	cost  uint32
}

var nowhere = place{-1, -1, math.MaxUint32}

// search finds the labels l of g: those of the nodes at the given places, and on the way there; of none given, those of all
// nodes. To find a few takes much less time, since most ways lead elsewhere.
func (g *graph) search(l *labels, to ...int32) {
	l.every = len(to) == 0
	if !l.every {
		g.sought(l, to)
	}
	l.all, l.fresh = l.all[:0], 0
	l.table = l.table[:0]
	for range g.nodes {
		l.table = append(l.table, [variety]place{nowhere, nowhere, nowhere})
	}
	for _, x := range g.out[0] { // to each of these, for what is far is not known to be farther than maxEdges
		l.offer(label{cost: x.cost, node: x.to, first: x.to, parent: -1, edges: 1})
	}
	for range maxEdges - 1 {
		l.round = l.round[:0]
		for at := l.fresh; at < len(l.all); at++ {
			if l.stands(int32(at)) && g.through[l.all[at].node] != noTransit {
				l.round = append(l.round, int32(at))
			}
		}
		l.fresh = len(l.all)
		for _, at := range l.round {
			from := l.all[at]
			cost := from.cost + g.through[from.node]
			left := uint8(maxEdges - 1 - from.edges)
			for _, x := range g.out[from.node] {
				if !l.every && l.hops[x.to] > left {
					continue
				}
				l.offer(label{cost: cost + x.cost, node: x.to, first: from.first, parent: at, edges: from.edges + 1})
			}
		}
	}
}

const far = maxEdges - 1 // edges or more

// sought notes how far the nodes are from those at the places to.
func (g *graph) sought(l *labels, to []int32) {
	l.hops = slices.Grow(l.hops[:0], len(g.nodes))[:len(g.nodes)]
	for i := range l.hops {
		l.hops[i] = far
	}
	l.round = l.round[:0]
	for _, v := range to {
		l.hops[v] = 0
		l.round = append(l.round, v)
	}
	for i := 0; i < len(l.round); i++ { // edges lead both ways
		u := l.round[i]
		if d := l.hops[u] + 1; d < far && (d == 1 || g.through[u] != noTransit) {
			for _, x := range g.out[u] {
				if l.hops[x.to] > d {
					l.hops[x.to] = d
					l.round = append(l.round, x.to)
				}
			}
		}
	}
}

// has reports whether the labels of the node at place v were sought.
func (l *labels) has(v int32) bool {
	return l.every || int(v) < len(l.hops) && l.hops[v] == 0
}

// stands reports whether the label at place at has not been outdone.
func (l *labels) stands(at int32) bool {
	for _, p := range l.table[l.all[at].node] {
		if p.at == at {
			return true
		}
	}
	return false
}

// offer keeps x if it is among the best of its node.
func (l *labels) offer(x label) {
	t := &l.table[x.node]
	if t[variety-1].cost <= x.cost { // most fail here
		return
	}
	at := variety - 1 // where the label of the same first hop is, or the last place
	for k := range t {
		if t[k].at < 0 || t[k].first == x.first {
			at = k
			break
		}
	}
	if t[at].cost <= x.cost {
		return
	}
	p := place{t[at].at, x.first, x.cost}
	if p.at >= int32(l.fresh) { // in place of the one outdone
		l.all[p.at] = x
	} else {
		p.at = int32(len(l.all))
		l.all = append(l.all, x)
	}
	t[at] = p
	for ; at > 0 && t[at-1].cost > x.cost; at-- {
		t[at-1], t[at] = t[at], t[at-1]
	}
}

// trail is the relays of a way, by place in the graph, this node's first hop first.
type trail struct {
	n      int
	relays [wire.MaxRelays]int32
	cost   uint32
	doubt  int // see weigh
	shared int // relays in common with another one
}

// trail returns the relays of the label at place at, of which the destination is none.
func (l *labels) trail(at int32) (t trail) {
	x := l.all[at]
	t.cost = x.cost
	t.n = int(x.edges) - 1
	for i := t.n - 1; i >= 0; i-- {
		x = l.all[x.parent]
		t.relays[i] = x.node
	}
	return t
}

func (t *trail) has(n int32) bool {
	for _, r := range t.relays[:t.n] {
		if r == n {
			return true
		}
	}
	return false
}

// same reports whether t and o have the same relays.
func (t *trail) same(o *trail) bool { return t.n == o.n && t.relays == o.relays }

// common returns the number of relays that t and o both have.
func (t *trail) common(o *trail) (n int) {
	for _, r := range t.relays[:t.n] {
		if o.has(r) {
			n++
		}
	}
	return n
}

// route returns t as others write it.
func (g *graph) route(t trail) wire.Route {
	var ids [wire.MaxRelays]key.ShortID
	for i, r := range t.relays[:t.n] {
		ids[i] = g.nodes[r].short
	}
	r, _ := wire.NewRoute(ids[:t.n]...)
	return r
}

// around returns the way to the node at place v that comes by as few of the given nodes as possible, then by as few edges of
// the given way, if it is not nil, and the cheapest of these. It has no relays if there is none.
func (g *graph) around(v int32, avoid []int32, not *trail) (t trail) {
	for _, r := range avoid {
		if g.through[r] != noTransit {
			g.through[r] += nodeCost
		}
	}
	var edges []*edge
	if not != nil {
		at := int32(0)
		for _, next := range append(not.relays[:not.n:not.n], v) {
			if x := g.place(at, next); x != nil {
				x.cost += edgeCost
				edges = append(edges, x)
			}
			at = next
		}
	}
	g.search(&g.second, v)
	for _, p := range g.second.table[v] {
		if p.at >= 0 && g.second.all[p.at].edges > 1 {
			t = g.second.trail(p.at)
			break
		}
	}
	for _, r := range avoid {
		if g.through[r] != noTransit {
			g.through[r] -= nodeCost
		}
	}
	for _, x := range edges {
		x.cost -= edgeCost
	}
	if t.n > 0 {
		t.cost = g.price(&t, v)
	}
	return t
}

// price returns what t, which leads to the node at place v, costs.
func (g *graph) price(t *trail, v int32) (cost uint32) {
	at := int32(0)
	for _, next := range t.relays[:t.n] {
		c, _ := g.edge(at, next)
		cost += c + g.through[next]
		at = next
	}
	c, _ := g.edge(at, v)
	return cost + c
}

// eachTrail calls f with ways to the node at place v that have a relay: those of its own labels, and then those of its
// neighbours, each extended to v. The neighbours of v must be able to relay.
func (g *graph) eachTrail(v int32, f func(t trail)) {
	l := &g.labels
	for _, p := range l.table[v] {
		if p.at >= 0 && l.all[p.at].edges > 1 {
			f(l.trail(p.at))
		}
	}
	for _, x := range g.out[v] {
		u := x.to
		if g.through[u] == noTransit {
			continue
		}
		for _, p := range l.table[u] {
			if p.at < 0 || int(l.all[p.at].edges) >= maxEdges {
				continue
			}
			t := l.trail(p.at)
			if t.has(v) {
				continue
			}
			t.relays[t.n] = u
			t.n++
			t.cost += g.through[u] + x.cost
			f(t)
		}
	}
}
