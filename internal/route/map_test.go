package route

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// seed is a reader of the same bytes for the same number.
func seed(n uint64) *rand.ChaCha8 {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], n)
	return rand.NewChaCha8(s)
}

// id returns the i-th node id; id(0) is the engine's own in most tests. Ids ascend with i.
func id(i int) (n key.NodeID) {
	binary.BigEndian.PutUint64(n[:], uint64(i)+1)
	return n
}

func ids(n int) (out []Member) {
	for i := range n {
		out = append(out, Member{ID: id(i), Reachable: true})
	}
	return out
}

// number is the inverse of id.
func number(s key.ShortID) int { return int(binary.BigEndian.Uint64(s[:])) - 1 }

func via(relays ...int) wire.Route {
	var out []key.ShortID
	for _, r := range relays {
		out = append(out, id(r).Short())
	}
	r, ok := wire.NewRoute(out...)
	if !ok {
		panic("test: bad route")
	}
	return r
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// chart is a map made by hand: node 0 runs an engine, the others are what it is told.
type chart struct {
	*Engine
	t     testing.TB
	now   time.Time
	n     int
	links []map[int]uint16 // of each node
	flags map[int]wire.StateFlags
	seq   uint32
}

func newChart(t testing.TB, n int) *chart {
	c := &chart{Engine: New(Config{Self: id(0).Short(), Epoch: 1, Rand: seed(1)}, nil), t: t, now: start, n: n,
		flags: map[int]wire.StateFlags{}}
	for range n {
		c.links = append(c.links, map[int]uint16{})
	}
	c.SetMembers(c.now, ids(n))
	return c
}

// link makes a link of a and b with the round trip rtt in ms; 0 ends it.
func (c *chart) link(a, b int, rtt int) {
	cost := costOf(time.Duration(rtt)*time.Millisecond, 0, true)
	for _, l := range [][2]int{{a, b}, {b, a}} {
		c.links[l[0]][l[1]] = cost
		if rtt == 0 {
			delete(c.links[l[0]], l[1])
		}
	}
	for _, own := range [][2]int{{a, b}, {b, a}} {
		if own[0] != 0 {
			continue
		}
		if rtt == 0 {
			c.Down(c.now, id(own[1]))
			continue
		}
		c.Up(c.now, id(own[1]))
		c.Measured(c.now, id(own[1]), time.Duration(rtt)*time.Millisecond, 0, 0)
		if n := c.member(id(own[1])).neighbour; !n.linked { // the agreement has tests of its own
			c.pick(c.now, n, kindSpare)
			c.HandleWish(c.now, id(own[1]), wire.LinkWish{Want: true, Seen: true})
		}
	}
}

func (c *chart) state(i int) wire.LinkState {
	c.seq++
	s := wire.LinkState{Node: id(i).Short(), Version: wire.Version{Epoch: 1, Seq: c.seq}, Flags: c.flags[i]}
	for to, cost := range c.links[i] {
		s.Links = append(s.Links, wire.Link{To: id(to).Short(), Cost: cost})
	}
	slices.SortFunc(s.Links, func(a, b wire.Link) int { return compareShort(a.To, b.To) })
	return s
}

// tell lets all nodes state their links.
func (c *chart) tell() {
	for i := 1; i < c.n; i++ {
		c.Learn(c.now, c.state(i))
	}
}

// pass lets time go by, in steps that the engine asks for.
func (c *chart) pass(d time.Duration) {
	end := c.now.Add(d)
	for range 100000 {
		next := c.Tick(c.now)
		if next.IsZero() || next.After(end) {
			c.now = end
			c.Tick(end)
			return
		}
		if next.After(c.now) {
			c.now = next
		}
	}
	c.t.Fatal("the engine wants to be called without end")
}

func (c *chart) want(dst int, routes ...wire.Route) {
	c.t.Helper()
	if got := c.Routes(id(dst)); !slices.Equal(got, routes) {
		c.t.Errorf("routes to %d: %v, want %v", dst, got, routes)
	}
}

// randomChart draws a connected chart of n nodes with so many links each.
func randomChart(t testing.TB, n, degree int, r *rand.Rand) *chart {
	c := newChart(t, n)
	for i := range n {
		for range degree / 2 {
			if j := r.IntN(n); j != i {
				c.link(i, j, 5+r.IntN(100))
			}
		}
		if i > 0 && c.links[i][i-1] == 0 {
			c.link(i-1, i, 5+r.IntN(100))
		}
	}
	c.tell()
	return c
}

// spec/54-routes.md#map: neither a lie nor an old truth makes an edge, or makes one cheaper.
func TestLiesMakeNoEdges(t *testing.T) {
	c := newChart(t, 14)
	c.link(0, 1, 10)
	c.link(0, 2, 10)
	c.link(2, 10, 100)
	c.links[1][10] = 0 // 10 does not say so
	c.links[2][10] = 0 // 10 says 110 ms
	c.tell()
	c.want(10, via(2))
	if x := c.Explain(c.now, id(10)); x.Routes[0].Cost != 130*time.Millisecond {
		t.Errorf("the route costs %v, want the greater claim, 130 ms", x.Routes[0].Cost)
	}
	c.links[10][1], c.links[10][2] = 0, 0 // two that lie together still pay for the hop
	c.tell()
	c.pass(time.Minute)
	if x := c.Explain(c.now, id(10)); x.Routes[0].Cost != 30*time.Millisecond {
		t.Errorf("the route costs %v, want 30 ms", x.Routes[0].Cost)
	}
	c.links[1][0] = 9999 // what others say of this node's own links does not count
	delete(c.links[2], 0)
	c.tell()
	c.pass(time.Minute)
	if len(c.Routes(id(10))) != 2 {
		t.Error("this node's own link went by another's word")
	}
}

// spec/54-routes.md#map
func TestLearnTakesOnlyNewerOfMembers(t *testing.T) {
	c := newChart(t, 14)
	c.link(0, 1, 10)
	c.link(1, 10, 10)
	c.tell()
	c.want(10, via(1))
	old := c.state(1)
	c.link(1, 10, 0)
	next := c.state(1)
	for _, x := range []struct {
		name string
		s    wire.LinkState
		want bool
	}{
		{"newer", next, true}, {"the same again", next, false}, {"older", old, false},
		{"nobody's", wire.LinkState{Node: id(99).Short(), Version: wire.Version{Epoch: 9}}, false},
		{"zero version", wire.LinkState{Node: id(12).Short()}, false},
	} {
		if got := c.Learn(c.now, x.s); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	c.pass(time.Second)
	c.want(10)
	c.tell()
	c.pass(94 * time.Minute)
	if n := c.expired(); n != 0 {
		t.Errorf("%d expired too soon", n)
	}
	c.pass(2 * time.Minute)
	if n := c.expired(); n != 13 {
		t.Errorf("%d expired, want 13", n)
	}
	if c.Learn(c.now, next) { // a replay after it was forgotten
		t.Error("an expired link state came back")
	}
	if !c.Learn(c.now, c.state(1)) {
		t.Error("a newer one after that was refused")
	}
}

func (c *chart) expired() (n int) {
	for _, f := range c.Effects() {
		if _, ok := f.(Expired); ok {
			n++
		}
	}
	return n
}

func TestGroups(t *testing.T) {
	c := newChart(t, 5)
	told := func() bool {
		return slices.ContainsFunc(c.Effects(), func(f Effect) bool { _, ok := f.(GroupsChanged); return ok })
	}
	for i := 1; i < 4; i++ {
		s := c.state(i)
		s.Groups = []uint32{7, uint32(10 + i)}
		c.Learn(c.now, s)
	}
	if g := c.Groups(); !told() || !slices.Equal(g[7], []key.NodeID{id(1), id(2), id(3)}) || !slices.Equal(g[12], []key.NodeID{id(2)}) {
		t.Errorf("%v", g)
	}
	c.SetMembers(c.now, ids(3))
	if g := c.Groups(); !told() || !slices.Equal(g[7], []key.NodeID{id(1), id(2)}) {
		t.Errorf("after a member left: %v", g)
	}
	c.Learn(c.now, c.state(1))
	if g := c.Groups(); !told() || !slices.Equal(g[7], []key.NodeID{id(2)}) {
		t.Errorf("after it left the group: %v", g)
	}
	s := c.state(2)
	s.Groups = []uint32{7, 12}
	if c.Learn(c.now, s); told() {
		t.Error("told of groups that are the same")
	}
}

// spec/54-routes.md#map: tables have limits.
func TestMemberLimit(t *testing.T) {
	c := newChart(t, 3)
	c.SetMembers(c.now, ids(maxMembers+100))
	if len(c.members) != maxMembers {
		t.Errorf("%d members, want %d", len(c.members), maxMembers)
	}
	double := id(1)
	double[31] = 1 // the same short id
	c.SetMembers(c.now, append(ids(3), Member{ID: double}))
	if len(c.members) != 2 || c.member(id(1)) == nil || c.member(double) != nil {
		t.Error("of two members of one short id, not the first counts")
	}
	for _, n := range []int{0, 1, 2, 3} { // and very small networks do no harm
		c.SetMembers(c.now, ids(n))
		c.pass(time.Minute)
		c.want(0)
	}
}

// spec/54-routes.md#when: however often the map changes, it is not looked at all the time.
func TestSearchIsRareInLargeNetworks(t *testing.T) {
	c := newChart(t, 1000)
	c.link(0, 1, 10)
	c.tell()
	c.Routes(id(500))
	c.pass(time.Minute)
	runs := 0
	last := c.spfLast
	for i := range 1000 { // 10 s
		c.link(2+i%900, 1, 1+i%200)
		c.Learn(c.now, c.state(2+i%900))
		c.pass(10 * time.Millisecond)
		if c.spfLast != last {
			last = c.spfLast
			runs++
		}
	}
	if runs < 8 || runs > 11 {
		t.Errorf("%d searches in 10 s, want about 10", runs)
	}
}

func BenchmarkSPF1000(b *testing.B)  { benchmarkSPF(b, 1000) }
func BenchmarkSPF10000(b *testing.B) { benchmarkSPF(b, 10000) }

func benchmarkSPF(b *testing.B, n int) {
	c := randomChart(b, n, 16, rand.New(rand.NewPCG(1, 2)))
	b.Run("draw", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.graph.all = true
			c.draw()
		}
	})
	b.Run("draw one change", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c.touch(c.order[i%(n-1)])
			c.draw()
		}
	})
	b.Run("search", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.graph.search(&c.graph.labels)
		}
		b.ReportMetric(float64(len(c.graph.labels.all)), "labels")
	})
	for i := 1; i < n; i++ {
		c.Routes(id(i))
	}
	b.Run("choose all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.chooseAll(c.now)
		}
	})
	b.Run("ask", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := 1; i < n; i++ {
				c.Routes(id(i))
			}
		}
	})
}
