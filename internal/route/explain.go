package route

import (
	"bytes"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Explanation tells people which routes lead to a member and why these.
type Explanation struct {
	Routes []RouteInfo // as Routes returns them, best first
	Better *RouteInfo  // cheaper than the first of Routes, but not clearly or not for long; nil if none
	Why    string      // why the first of Routes, or why there is none: a short sentence part, lower case
	Blamed []Blame     // all relays that are avoided now
}

// RouteInfo is one route with what it costs.
type RouteInfo struct {
	Route wire.Route
	Hops  []Hop // from this node to the destination: one more than relays
	Cost  time.Duration
}

// Hop is one edge of a route.
type Hop struct {
	From, To key.NodeID
	Cost     time.Duration // of the edge
	Penalty  time.Duration // for relaying by From: overloaded or blamed
}

// Blame tells of a relay that is avoided because datagrams through it did not arrive.
type Blame struct {
	ID      key.NodeID
	Penalty time.Duration
	Until   time.Time
	Routes  []wire.Route // the routes that failed
}

// Map tells people all that is known of nodes and the links between them, this node included.
type Map struct {
	Nodes []Node // ascending by ID
	Edges []Edge
}

// Node is a member on the map.
type Node struct {
	ID                       key.NodeID
	Known                    bool // there is a link state of it
	Leaf, Overloaded, Anchor bool
	Version                  wire.Version
	Heard                    time.Time // when its link state came
	Reached                  bool      // over links, by this node, however long the route
	Relays                   int       // on the cheapest route; 0: a link of this node's, or not within the limit
	Cost                     time.Duration
	Penalty                  time.Duration // for relaying: overloaded or blamed
}

// Edge is a link that at least one of its ends lists.
type Edge struct {
	A, B     key.NodeID
	Cost     time.Duration
	Both     bool // both ends list it: it counts
	Excluded bool // not used for a while, after a path error
}

// LinkInfo tells of a neighbour: a link, or what may become one.
type LinkInfo struct {
	ID          key.NodeID
	Kind        string // why this node wants it: "all", "near", "elsewhere", "random", "anchor", "router", "spare"; "" if it does not
	Up          bool   // the link is agreed and stands
	Since       time.Time
	Session     bool // there is a session with a direct path
	RTT, Jitter time.Duration
	Loss        float64
	Cost        time.Duration
}

// Explain says how dst is reached over relays and why so.
func (e *Engine) Explain(now time.Time, dst key.NodeID) Explanation {
	e.now = now
	n := e.member(dst)
	if n == nil {
		return Explanation{Why: "no member that can be reached over relays"}
	}
	e.fresh()
	w := n.watch
	if w == nil {
		w = &watch{}
		e.choose(now, n, w)
	}
	x := Explanation{Why: w.why, Blamed: e.blames()}
	for _, r := range w.routes {
		if t := e.graph.trailOf(e, r, n); t.n > 0 {
			x.Routes = append(x.Routes, e.routeInfo(t, n))
		}
	}
	if w.better.n > 0 {
		b := e.routeInfo(w.better, n)
		x.Better = &b
	}
	return x
}

func (e *Engine) routeInfo(t trail, n *node) RouteInfo {
	g := &e.graph
	info := RouteInfo{Route: g.route(t), Cost: time.Duration(t.cost) * costUnit}
	from := int32(0)
	for _, to := range append(t.relays[:t.n:t.n], n.index) {
		cost, _ := g.edge(from, to)
		h := Hop{From: g.nodes[from].id, To: g.nodes[to].id, Cost: time.Duration(cost) * costUnit}
		if from != 0 {
			h.Penalty = time.Duration(g.through[from]) * costUnit
		}
		info.Hops = append(info.Hops, h)
		from = to
	}
	return info
}

// Map returns all that is known.
func (e *Engine) Map() (m Map) {
	e.fresh()
	if !e.graph.labels.every {
		e.graph.search(&e.graph.labels)
	}
	self := Node{ID: e.self.id, Known: true, Version: e.own.version, Reached: true}
	self.setFlags(e.own.flags)
	m.Nodes = append(m.Nodes, self)
	for _, n := range e.order {
		m.Nodes = append(m.Nodes, e.nodeInfo(n))
		for _, l := range n.state.Links {
			if edge, ok := e.edgeInfo(n, l); ok {
				m.Edges = append(m.Edges, edge)
			}
		}
	}
	for _, n := range e.neighbours {
		if n.linked {
			m.Edges = append(m.Edges, Edge{A: e.self.id, B: n.id, Cost: time.Duration(n.cost) * costUnit, Both: true, Excluded: e.shut(e.self, n.node)})
		}
	}
	slices.SortFunc(m.Nodes, func(a, b Node) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return m
}

func (n *Node) setFlags(f wire.StateFlags) {
	n.Leaf, n.Overloaded, n.Anchor = f&wire.StateLeaf != 0, f&wire.StateOverloaded != 0, f&wire.StateAnchor != 0
}

func (e *Engine) nodeInfo(n *node) Node {
	out := Node{ID: n.id, Known: n.known, Heard: n.heard, Version: n.state.Version, Reached: e.reaches(n)}
	out.setFlags(n.state.Flags)
	out.Leaf = !n.transit()
	if n.index < 0 {
		return out
	}
	if c := e.graph.through[n.index]; c != noTransit {
		out.Penalty = time.Duration(c) * costUnit
	}
	if at := e.graph.labels.table[n.index][0].at; at >= 0 {
		l := e.graph.labels.all[at]
		out.Relays, out.Cost = int(l.edges)-1, time.Duration(l.cost)*costUnit
	}
	return out
}

// edgeInfo returns the edge that n states as l, unless it is left to the other end to tell of.
func (e *Engine) edgeInfo(n *node, l wire.Link) (Edge, bool) {
	if l.To == e.self.short {
		linked := slices.ContainsFunc(e.neighbours, func(o *neighbour) bool { return o.node == n && o.linked })
		return Edge{A: n.id, B: e.self.id, Cost: time.Duration(l.Cost) * costUnit}, !linked
	}
	v := e.members[l.To]
	if v == nil {
		return Edge{}, false
	}
	other, both := v.lists(n)
	if both && compareShort(n.short, v.short) > 0 {
		return Edge{}, false
	}
	cost := max(l.Cost, other, hopCost)
	return Edge{A: n.id, B: v.id, Cost: time.Duration(cost) * costUnit, Both: both, Excluded: e.shut(n, v)}, true
}

// Links returns the neighbours: links that stand and those that are wanted, in the order of their ids.
func (e *Engine) Links() (out []LinkInfo) {
	for _, n := range e.neighbours {
		if !n.linked && !n.wants() {
			continue
		}
		out = append(out, LinkInfo{ID: n.id, Kind: n.kind.String(), Up: n.linked, Since: n.linkedAt, Session: n.session,
			RTT: n.rtt, Jitter: n.jitter, Loss: n.loss, Cost: time.Duration(n.cost) * costUnit})
	}
	slices.SortFunc(out, func(a, b LinkInfo) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}
