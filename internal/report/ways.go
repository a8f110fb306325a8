package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
)

// Map is what the engine of routes knows: its map, and this node's neighbours.
type Map struct {
	Chart route.Map
	Links []route.LinkInfo
}

// links lists the neighbours by id.
func (m Map) links() map[key.NodeID]route.LinkInfo {
	out := map[key.NodeID]route.LinkInfo{}
	for _, l := range m.Links {
		out[l.ID] = l
	}
	return out
}

// Route says which ways there are to a member, and why this one. The network is up. ex explains the routes over relays to mem.
func (n *Network) Route(mem member.Member, ex route.Explanation, chart Map) api.RouteReply {
	out := api.RouteReply{Network: n.Name, Name: mem.Name, ID: mem.ID.String(), Device: mem.Device, Self: mem.ID == n.Self}
	if a := Addresses(mem); len(a) > 0 {
		out.Address = a[0]
	}
	if out.Self {
		return out
	}
	shown := n.peer(mem)
	out.Path, out.Why = shown.Path, shown.Why
	p, ok := n.Mesh.Peers[mem.ID]
	if !ok || p.Device {
		return out
	}
	st := p.Path
	if out.Path != api.PathNone && st.Way.IsValid() && out.Why == "" {
		out.Why = st.Why
	}
	costs := map[wire.Way]route.RouteInfo{}
	for _, r := range ex.Routes {
		costs[wire.Via(r.Route)] = r
	}
	links := chart.links()
	for _, c := range st.Candidates {
		out.Ways = append(out.Ways, n.way(mem, st, c, costs[c.Way], links))
		delete(costs, c.Way)
	}
	for _, r := range ex.Routes { // not in use: the peer is idle, or reached directly
		if _, left := costs[wire.Via(r.Route)]; left {
			out.Ways = append(out.Ways, n.way(mem, st, path.CandidateStatus{Way: wire.Via(r.Route)}, r, links))
		}
	}
	order := []string{api.WayUsed, api.WayAlso, api.WayAlive, api.WayUnproven, api.WaySilent}
	slices.SortStableFunc(out.Ways, func(a, b api.Way) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	})
	out.Avoided = n.avoided(ex, chart.Chart)
	return out
}

// way says what is known of one way to a member.
func (n *Network) way(mem member.Member, st path.Status, c path.CandidateStatus, r route.RouteInfo, links map[key.NodeID]route.LinkInfo) api.Way {
	at, _ := n.Mesh.At(c.Way)
	out := api.Way{Path: api.PathDirect, Endpoint: at, RTT: api.Millis(c.RTT), Jitter: api.Millis(c.Jitter), Loss: share(c.Loss, c.RTT)}
	switch {
	case c.Way == st.Way:
		out.State, out.MTU, out.Why = api.WayUsed, st.MTU, st.Why
	case c.Way == st.Also:
		out.State = api.WayAlso
	case c.State == path.StateAlive:
		out.State = api.WayAlive
		if c.Thin {
			out.Why = thinText
		}
	case c.State == path.StateDead:
		out.State = api.WaySilent
	default:
		out.State = api.WayUnproven
	}
	if !c.Way.IsRelayed() {
		out.Hops = []api.Hop{{Name: mem.Name, ID: mem.ID.String(), RTT: api.Millis(links[mem.ID].RTT), Cost: api.Millis(links[mem.ID].Cost)}}
		return out
	}
	out.Path, out.Cost = api.PathRelayed, api.Millis(r.Cost)
	for i, id := range append(c.Way.Route.Relays(), mem.ID.Short()) {
		hop := api.Hop{Name: n.nameOfShort(id), ID: id.String()}
		if whole, ok := n.Mesh.Whole(id); ok {
			hop.ID = whole.String()
			if i == 0 {
				hop.RTT = api.Millis(links[whole].RTT)
			}
		}
		if i < len(r.Hops) {
			hop.Cost = api.Millis(r.Hops[i].Cost + r.Hops[i].Penalty)
		}
		out.Hops = append(out.Hops, hop)
	}
	return out
}

// avoided lists what the routes stay away from.
func (n *Network) avoided(ex route.Explanation, chart route.Map) (out []api.Avoided) {
	for _, b := range ex.Blamed {
		out = append(out, api.Avoided{Name: NameOf(n.Roster, b.ID), ID: b.ID.String(), Until: api.At(b.Until),
			Why: fmt.Sprintf("what went through it did not arrive (%d %s)", len(b.Routes), plural(len(b.Routes), "route", "routes"))})
	}
	for _, e := range chart.Edges {
		if e.Excluded {
			out = append(out, api.Avoided{Name: NameOf(n.Roster, e.A), ID: e.A.String(), To: NameOf(n.Roster, e.B), Why: "the link between them did not carry"})
		}
	}
	slices.SortStableFunc(out, func(a, b api.Avoided) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Map says what is known of members and links. The network is up.
func (n *Network) Map(m Map) api.MapReply {
	out := api.MapReply{Network: n.Name, ID: n.ID.String(), Self: NameOf(n.Roster, n.Self)}
	nodes := map[key.NodeID]route.Node{}
	for _, nd := range m.Chart.Nodes {
		nodes[nd.ID] = nd
	}
	for _, mem := range n.Roster.Members {
		nd := nodes[mem.ID]
		x := api.MapNode{Name: mem.Name, ID: mem.ID.String(), Self: mem.ID == n.Self, Device: mem.Device, Known: nd.Known,
			Leaf: nd.Leaf, Overloaded: nd.Overloaded, Anchor: nd.Anchor, Avoided: nd.Penalty > 0 && !nd.Overloaded,
			Gateways: namesOf(n.Roster, mem.Gateways)}
		if a := Addresses(mem); len(a) > 0 {
			x.Address = a[0]
		}
		if !x.Self {
			shown := n.peer(mem)
			x.Path, x.Via, x.RTT = shown.Path, shown.Via, shown.RTT
		}
		out.Nodes = append(out.Nodes, x)
	}
	links := m.links()
	for _, e := range m.Chart.Edges {
		l := api.MapLink{A: NameOf(n.Roster, e.A), B: NameOf(n.Roster, e.B), Cost: api.Millis(e.Cost), TwoWay: e.Both, Avoided: e.Excluded}
		if l.A > l.B {
			l.A, l.B = l.B, l.A
		}
		for _, id := range []key.NodeID{e.A, e.B} {
			if i, ok := links[id]; ok && (e.A == n.Self || e.B == n.Self) {
				l.RTT, l.Loss = api.Millis(i.RTT), share(i.Loss, i.RTT)
			}
		}
		out.Links = append(out.Links, l)
	}
	slices.SortFunc(out.Links, func(a, b api.MapLink) int { return cmp.Or(cmp.Compare(a.A, b.A), cmp.Compare(a.B, b.B)) })
	return out
}
