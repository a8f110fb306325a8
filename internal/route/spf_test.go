package route

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
	"pgregory.net/rapid"
)

// way is a route found by walking all of them.
type way struct {
	relays []int
	cost   int
}

// ways lists all ways from node 0 to dst, by the statements of c.
func (c *chart) ways(dst int) (out []way) {
	var walk func(at, cost int, relays []int)
	walk = func(at, cost int, relays []int) {
		for next := 1; next < c.n; next++ {
			there, ok := c.links[at][next]
			back, ok2 := c.links[next][at]
			if !ok || !ok2 || slices.Contains(relays, next) {
				continue
			}
			step := cost + int(max(there, back, hopCost))
			switch {
			case next == dst && len(relays) > 0:
				out = append(out, way{slices.Clone(relays), step})
			case next != dst && len(relays) < wire.MaxRelays && c.flags[next]&wire.StateLeaf == 0:
				if c.flags[next]&wire.StateOverloaded != 0 {
					step += overCost
				}
				walk(next, step, append(relays, next))
			}
		}
	}
	walk(0, 0, nil)
	return out
}

func (w way) common(r wire.Route) (n int) {
	for _, x := range w.relays {
		if r.Has(id(x).Short()) {
			n++
		}
	}
	return n
}

// spec/54-routes.md#routes spec/54-routes.md#map: against the oracle that walks all ways. Some nodes lie: they state links that the other
// end does not, or cheaper ones.
func TestRoutesAgainstOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(3, 11).Draw(rt, "nodes")
		c := newChart(t, n)
		for range rapid.IntRange(2, 25).Draw(rt, "links") {
			a, b := rapid.IntRange(0, n-1).Draw(rt, "a"), rapid.IntRange(0, n-1).Draw(rt, "b")
			if a != b {
				c.link(a, b, rapid.IntRange(1, 300).Draw(rt, "rtt"))
			}
		}
		for i := 1; i < n; i++ {
			c.flags[i] = wire.StateFlags(rapid.SampledFrom([]wire.StateFlags{0, 0, 0, wire.StateLeaf, wire.StateOverloaded}).Draw(rt, "flags"))
			if j := rapid.IntRange(1, n-1).Draw(rt, "lie"); j != i && rapid.IntRange(0, 3).Draw(rt, "liar") == 0 {
				c.links[i][j] = uint16(rapid.IntRange(0, 500).Draw(rt, "lie cost"))
			}
		}
		c.tell()
		for dst := 1; dst < n; dst++ {
			routes, ways := c.Routes(id(dst)), c.ways(dst)
			if len(routes) != min(len(ways), 2) {
				rt.Fatalf("%d routes to %d: %v; there are %v", len(routes), dst, routes, ways)
			}
			if len(ways) == 0 {
				continue
			}
			find := func(r wire.Route) way {
				for _, w := range ways {
					if via(w.relays...) == r {
						return w
					}
				}
				rt.Fatalf("%v to %d is no way", r, dst)
				return way{}
			}
			first := find(routes[0])
			least := slices.MinFunc(ways, func(a, b way) int { return a.cost - b.cost })
			if first.cost != least.cost {
				rt.Fatalf("route to %d by %v costs %d; by %v it is %d", dst, first.relays, first.cost, least.relays, least.cost)
			}
			if len(ways) == 1 {
				continue
			}
			second := find(routes[1])
			for _, w := range ways {
				if r := via(w.relays...); r != routes[0] && w.common(routes[0]) < second.common(routes[0]) {
					rt.Fatalf("second route to %d by %v shares more relays with %v than %v", dst, second.relays, first.relays, w.relays)
				}
			}
		}
	})
}

// spec/54-routes.md#routes: in a network where everything changes all the time, no route ever breaks a rule.
func TestInvariantsUnderChurn(t *testing.T) {
	w := newWorld(t, 60, 9)
	w.loss = 0.1
	w.start(func(i int) Config { return Config{Leaf: i%7 == 0} })
	w.run(20 * time.Second)
	checked := 0
	for range 600 {
		switch i := w.rand.IntN(60); w.rand.IntN(5) {
		case 0:
			if w.nodes[i].alive && len(w.living()) > 30 {
				w.kill(i)
			}
		case 1:
			if !w.nodes[i].alive {
				w.begin(i, Config{})
			}
		case 2:
			if n := w.nodes[i]; n.alive {
				n.SetLeaf(w.now, w.rand.IntN(3) == 0)
				n.SetOverloaded(w.now, w.rand.IntN(3) == 0)
				n.SetAnchor(w.now, w.rand.IntN(3) == 0)
				w.settle(n)
			}
		case 3:
			w.nodes[w.living()[0].i].Exclude(w.now, id(i).Short(), id(w.rand.IntN(60)).Short(), 30*time.Second)
		case 4:
			if n := w.living()[0]; n.i != i {
				for _, r := range n.Routes(id(i)) {
					n.Suspect(w.now, id(i), r)
				}
			}
		}
		w.run(time.Duration(w.rand.IntN(3000)) * time.Millisecond)
		for _, n := range w.living() {
			if len(n.links) > highAnchor || n.own.flags&wire.StateAnchor == 0 && len(n.wanted()) > highAnchor {
				t.Fatalf("node %d has %d links", n.i, len(n.links))
			}
		}
		from := w.living()[w.rand.IntN(len(w.living()))]
		from.Routes(id(0))
		from.Tick(w.now.Add(time.Second)) // what is due is done
		for to := range w.nodes {
			for _, r := range from.Routes(id(to)) {
				checkRoute(t, from, to, r)
				checked++
			}
		}
	}
	if checked < 10000 {
		t.Errorf("only %d routes were checked", checked)
	}
}

// checkRoute checks a route by what its source was told.
func checkRoute(t *testing.T, from *inhabitant, to int, r wire.Route) {
	t.Helper()
	at := from.self
	if r.Len() < 1 || r.Len() > wire.MaxRelays {
		t.Fatalf("%d relays", r.Len())
	}
	for i := range r.Len() + 1 {
		next := from.members[id(to).Short()]
		if i < r.Len() {
			next = from.members[r.At(i)]
			if next == nil || next.short == id(to).Short() || !next.transit() || r.Reverse().At(r.Len()-1-i) != r.At(i) {
				t.Fatalf("route %v to %d: relay %d is none", r, to, i)
			}
		}
		if at == from.self {
			if nb := next.neighbour; nb == nil || !nb.session {
				t.Fatalf("route %v to %d: there is no session with the first relay", r, to)
			}
		} else {
			_, there := at.lists(next)
			_, back := next.lists(at)
			if !there || !back || from.shut(at, next) {
				t.Fatalf("route %v to %d: the edge %v %v does not count", r, to, at.short, next.short)
			}
		}
		at = next
	}
}

// spec/54-routes.md#samples: a destination beyond 4 relays gets a helper.
func TestHelper(t *testing.T) {
	c := newChart(t, 20)
	for i := range 12 {
		c.link(i, i+1, 10)
	}
	for i := range 3 { // enough links not to look for more
		c.link(0, 14+i, 10)
	}
	c.tell()
	c.want(5, via(1, 2, 3, 4))
	c.want(6)
	c.want(9)
	called := map[int]bool{}
	calls := func() {
		for _, f := range c.Effects() {
			switch f := f.(type) {
			case Dial:
				called[number(f.ID.Short())] = true
			case Release:
				delete(called, number(f.ID.Short()))
			}
		}
	}
	c.pass(2 * time.Second)
	if calls(); !(called[5] || called[7]) || !(called[8] || called[10]) {
		t.Fatalf("called: %v", called)
	}
	for _, i := range []int{5, 7, 8, 10} {
		if called[i] {
			c.Up(c.now, id(i))
			c.Measured(c.now, id(i), 50*time.Millisecond, 0, 0)
		}
	}
	c.pass(time.Second)
	if len(c.Routes(id(6))) == 0 || len(c.Routes(id(9))) == 0 {
		t.Fatalf("no routes with helpers: %v, %v", c.Routes(id(6)), c.Routes(id(9)))
	}
	if s, _ := c.stated(); slices.ContainsFunc(s.Links, func(l wire.Link) bool { return called[number(l.To)] }) {
		t.Error("a helper is stated as a link")
	}
	c.pass(20 * time.Minute)
	if calls(); !called[5] && !called[7] {
		t.Error("a helper in use was released")
	}
	for _, i := range []int{5, 6, 9} {
		c.Unwatch(id(i))
	}
	c.pass(20 * time.Minute)
	for _, n := range c.neighbours {
		if n.helper {
			t.Errorf("%d helps nobody and is kept", number(n.short))
		}
	}
	c.want(9)
}

// In large random networks the bounded search finds disjoint pairs nearly always.
func TestSecondRoutesAreDisjoint(t *testing.T) {
	c := randomChart(t, 1000, 16, rand.New(rand.NewPCG(1, 2)))
	alone, sharing := 0, 0
	for i := 1; i < c.n; i++ {
		r := c.Routes(id(i))
		if len(r) < 2 {
			alone++
			continue
		}
		if slices.ContainsFunc(r[0].Relays(), r[1].Has) {
			sharing++
		}
	}
	if alone > 2 || sharing > 10 {
		t.Errorf("of 1000 destinations %d have no second route, %d one that shares a relay", alone, sharing)
	}
}

func TestAskingAllocatesNothing(t *testing.T) {
	c := randomChart(t, 100, 8, rand.New(rand.NewPCG(1, 2)))
	for i := range c.n {
		c.Routes(id(i))
	}
	if n := testing.AllocsPerRun(10, func() {
		for i := range c.n {
			c.Routes(id(i))
		}
		c.draw()
		c.graph.search(&c.graph.labels)
		c.chooseAll(c.now)
	}); n != 0 {
		t.Errorf("%v allocations for routes that stay the same", n)
	}
}
