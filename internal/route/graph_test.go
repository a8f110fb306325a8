package route

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
	"pgregory.net/rapid"
)

// spec/54-routes.md#map: of a map that changes only what changed is looked at again; what comes out is as if all were.
func TestDrawingChangesAlone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(3, 12).Draw(rt, "nodes")
		c := newChart(t, n)
		node := func(what string) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch a, b := node("a"), node("b"); rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0, 1, 2:
				if there := func(i int) bool { return i == 0 || c.member(id(i)) != nil }; a != b && there(a) && there(b) {
					c.link(a, b, rapid.IntRange(0, 60).Draw(rt, "rtt")/10*10)
				}
			case 3, 4:
				if c.flags[a] = wire.StateFlags(rapid.SampledFrom([]wire.StateFlags{0, 0, wire.StateLeaf}).Draw(rt, "flags")); a > 0 {
					c.Learn(c.now, c.state(a))
				}
			case 5:
				c.Exclude(c.now, id(a).Short(), id(b).Short(), 30*time.Second)
			case 6:
				c.SetMembers(c.now, ids(rapid.IntRange(2, n).Draw(rt, "members")))
			case 7:
				c.pass(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 2 * time.Hour}).Draw(rt, "pass"))
			}
			if rapid.Bool().Draw(rt, "draw") {
				c.draw()
			}
		}
		c.draw()
		got := c.edgesDrawn()
		c.graph.all = true
		c.draw()
		if want := c.edgesDrawn(); !slices.EqualFunc(got, want, slices.Equal) {
			rt.Fatalf("the changes alone give %v, all gives %v", got, want)
		}
	})
}

// edgesDrawn returns the edges of each node in order.
func (c *chart) edgesDrawn() (all [][]edge) {
	for _, out := range c.graph.out {
		out = slices.Clone(out)
		slices.SortFunc(out, func(a, b edge) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.cost, b.cost)) })
		all = append(all, out)
	}
	return all
}

// spec/54-routes.md#routes: to search for a few destinations alone finds no worse routes to them than to search for all, and all that is
// kept is needed to reach them.
func TestSeekingAFew(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c := randomChart(t, 400, 6, r)
	for i := range c.n {
		if r.IntN(8) == 0 {
			c.flags[i] = wire.StateLeaf
		}
	}
	c.tell()
	c.draw()
	g := &c.graph
	var all, few labels
	g.search(&all)
	best := func(l *labels, v int32) uint32 { return l.table[v][0].cost }
	for range 100 {
		to := []int32{int32(1 + r.IntN(c.n-1)), int32(1 + r.IntN(c.n-1))}
		g.search(&few, to...)
		if len(few.all) > len(all.all)/2 {
			t.Errorf("to find two takes %d labels, to find all %d", len(few.all), len(all.all))
		}
		for _, v := range to {
			if !few.has(v) {
				t.Fatalf("%d was sought", v)
			}
			if best(&few, v) > best(&all, v) {
				t.Errorf("the way to %d costs %d when few are sought, %d when all are", v, best(&few, v), best(&all, v))
			}
			if p := few.table[v][0]; p.at >= 0 {
				if x := few.trail(p.at); x.n > 0 && g.price(&x, v) != p.cost {
					t.Errorf("the way to %d is said to cost %d, and costs %d", v, p.cost, g.price(&x, v))
				}
			}
		}
	}
}

// A destination that was not among those sought is sought when it is asked for.
func TestAskingForOneMore(t *testing.T) {
	c := randomChart(t, 400, 6, rand.New(rand.NewPCG(5, 6)))
	c.Routes(id(17))
	c.pass(time.Second)
	one := slices.Clone(c.Routes(id(250)))
	d := randomChart(t, 400, 6, rand.New(rand.NewPCG(5, 6)))
	d.draw()
	d.graph.search(&d.graph.labels) // all
	if all := d.Routes(id(250)); len(one) == 0 || len(all) == 0 || one[0] != all[0] {
		t.Errorf("routes %v, and %v where all were sought", one, all)
	}
	if len(c.Routes(id(17))) == 0 {
		t.Error("the first one has no route any more")
	}
	far := 0
	for _, n := range c.Map().Nodes[1:] {
		if n.Cost == 0 {
			far++
		}
	}
	if far > 40 {
		t.Errorf("the map shows no cost of the way to %d of 399", far)
	}
}

// What is noted of changes is limited, also while nobody asks for a route.
func TestChangesThatNobodyLooksAt(t *testing.T) {
	c := randomChart(t, 20, 4, rand.New(rand.NewPCG(7, 8)))
	c.draw()
	for range 50 {
		c.tell()
		for i := 1; i < c.n; i++ {
			c.flags[i] ^= wire.StateOverloaded
		}
		c.SetMembers(c.now, ids(10))
		c.SetMembers(c.now, ids(20))
		c.tell()
		if n := len(c.graph.touched); n > c.n {
			t.Fatalf("%d changes are noted of %d nodes", n, c.n)
		}
	}
}
