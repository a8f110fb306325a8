package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/warren-vpn/warren/internal/api"
)

// chart is the map as a tree.
type chart struct {
	nodes    map[string]*api.MapNode
	links    map[string][]near // the links of a member that both ends tell of, the cheapest first
	children map[string][]near
	parent   map[string]string // of each member in the tree; the root has ""
}

// near is a member at the other end of a link; without a link on the map, link is nil.
type near struct {
	name string
	link *api.MapLink
}

// newChart makes the tree: breadth first, so that no member hangs deeper than it must. Of two members as near to the root
// that have a link to a third, the one with the cheaper way from the root has it.
func newChart(m api.MapReply) *chart {
	t := &chart{nodes: map[string]*api.MapNode{}, links: map[string][]near{}, children: map[string][]near{}, parent: map[string]string{}}
	for i := range m.Nodes {
		t.nodes[m.Nodes[i].Name] = &m.Nodes[i]
	}
	for i := range m.Links {
		if l := &m.Links[i]; l.TwoWay && t.nodes[l.A] != nil && t.nodes[l.B] != nil {
			t.links[l.A] = append(t.links[l.A], near{l.B, l})
			t.links[l.B] = append(t.links[l.B], near{l.A, l})
		}
	}
	if t.nodes[m.Self] == nil {
		return t
	}
	t.parent[m.Self] = ""
	cost := map[string]api.Millis{}
	for level := []string{m.Self}; len(level) > 0; {
		type offer struct {
			from string
			near near
		}
		best := map[string]offer{}
		for _, from := range level {
			for _, n := range t.links[from] {
				if _, in := t.parent[n.name]; in {
					continue
				}
				old, known := best[n.name]
				if sum := cost[from] + n.link.Cost; !known || sum < cost[n.name] || sum == cost[n.name] && from < old.from {
					best[n.name], cost[n.name] = offer{from, n}, sum
				}
			}
		}
		level = level[:0]
		for name, o := range best {
			t.hang(o.from, o.near)
			level = append(level, name)
		}
	}
	t.hangOthers(m)
	for _, list := range t.children {
		slices.SortFunc(list, func(a, b near) int {
			return cmp.Or(compareLink(a.link, b.link), cmp.Compare(a.name, b.name))
		})
	}
	return t
}

// compareLink puts links before none, and cheap ones before dear ones.
func compareLink(a, b *api.MapLink) int {
	switch {
	case a != nil && b != nil:
		return cmp.Compare(a.Cost, b.Cost)
	case a == b:
		return 0
	case a == nil:
		return 1
	}
	return -1
}

func (t *chart) hang(parent string, n near) {
	t.parent[n.name] = parent
	t.children[parent] = append(t.children[parent], n)
}

// hangOthers finds places for those without a link: a device below its gateway, others below whom they are reached by. Who
// found a place may be the place of another.
func (t *chart) hangOthers(m api.MapReply) {
	for found := true; found; {
		found = false
		for _, n := range m.Nodes {
			if _, in := t.parent[n.Name]; in {
				continue
			}
			if p := t.place(n, m.Self); p != "" {
				t.hang(p, near{n.Name, nil})
				found = true
			}
		}
	}
}

// place returns below whom a member without a link goes; "" = nobody in the tree.
func (t *chart) place(n api.MapNode, self string) string {
	var at []string
	switch {
	case n.Device:
		at = n.Gateways
	case n.Path == api.PathDirect:
		at = []string{self}
	case len(n.Via) > 0:
		at = n.Via[len(n.Via)-1:]
	}
	for _, p := range at {
		if _, in := t.parent[p]; in {
			return p
		}
	}
	return ""
}

// above lists the members between the root and name, from the root on.
func (t *chart) above(name string) (names []string) {
	for p := t.parent[name]; p != "" && t.parent[p] != ""; p = t.parent[p] {
		names = append(names, p)
	}
	slices.Reverse(names)
	return names
}

// rows appends the branch of the tree that begins with n.
func (t *chart) rows(rows [][]string, n near, branch, below string) [][]string {
	row := []string{branch + n.name, "-", "-", ""}
	if n.link != nil {
		row[1], row[2] = humanMillis(n.link.RTT), humanCost(n.link.Cost)
	}
	if node := t.nodes[n.name]; node != nil {
		row[3] = strings.Join(t.notes(node, n.link), ", ")
	}
	rows = append(rows, row)
	list := t.children[n.name]
	for i, child := range list {
		if i == len(list)-1 {
			rows = t.rows(rows, child, below+"└─ ", below+"   ")
		} else {
			rows = t.rows(rows, child, below+"├─ ", below+"│  ")
		}
	}
	return rows
}

// notes says what is to be said of a member.
func (t *chart) notes(n *api.MapNode, link *api.MapLink) (out []string) {
	if n.Self {
		out = append(out, "this machine")
	}
	for _, mark := range []struct {
		is   bool
		name string
	}{{n.Anchor, "anchor"}, {n.Leaf, "leaf"}, {n.Overloaded, "overloaded"}, {n.Avoided, "avoided"}, {n.Device, "device"}} {
		if mark.is {
			out = append(out, mark.name)
		}
	}
	above := t.above(n.Name)
	switch {
	case n.Self:
	case n.Path == api.PathDirect && len(above) > 0 && !n.Device:
		out = append(out, "direct")
	case n.Path == api.PathDirect && link == nil && !n.Device:
		out = append(out, "direct, no link")
	case n.Path == api.PathRelayed && !slices.Equal(n.Via, above):
		out = append(out, "via "+strings.Join(n.Via, ", "))
	case n.Path == api.PathNone && !n.Device && len(above) == 0:
		out = append(out, "no path")
	}
	if link != nil {
		if loss, _ := link.Loss.Value(); loss >= 0.001 {
			out = append(out, humanShare(link.Loss)+" lost")
		}
	}
	return out
}
