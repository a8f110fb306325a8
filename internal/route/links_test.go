package route

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// spec/54-routes.md#links: up to 12 members, all link to all, even when wishes are lost.
func TestSmallNetworkLinksAll(t *testing.T) {
	w := newWorld(t, 12, 1)
	w.loss = 0.2
	w.start(func(i int) Config { return Config{Leaf: i%3 == 0} })
	w.run(time.Minute)
	w.whole(11, 11)
	w.kill(5)
	w.run(15 * time.Second)
	w.whole(10, 10)
	w.begin(5, Config{})
	w.run(time.Minute)
	w.whole(11, 11)
}

// spec/54-routes.md#links spec/54-routes.md#water
func TestLargeNetworkHoldsTogether(t *testing.T) {
	for _, n := range []int{13, 100, 1000} {
		if n == 1000 && testing.Short() {
			continue
		}
		w := newWorld(t, n, uint64(n))
		w.loss = 0.05
		w.start(nil)
		w.run(5 * time.Second)
		w.whole(1, highWater+bridgeRoom)
		w.run(5 * time.Minute)
		w.whole(lowWater, highWater+bridgeRoom)
		before := w.stated
		w.run(5 * time.Minute)
		if n > 13 && w.stated-before > 3*n {
			t.Errorf("%d nodes stated their links %d times in 5 quiet minutes", n, w.stated-before)
		}
		for i := range n {
			if w.rand.Float64() < 0.3 {
				w.kill(i)
			}
		}
		w.run(20 * time.Second)
		w.whole(1, highWater+bridgeRoom)
		w.run(40 * time.Second)
		if len(w.living()) > allLinked {
			w.whole(lowWater, highWater+bridgeRoom)
		}
	}
}

func TestAllRestartAtOnce(t *testing.T) {
	w := newWorld(t, 200, 3)
	w.start(nil)
	w.run(2 * time.Minute)
	for i := range w.nodes {
		w.kill(i)
	}
	w.start(nil)
	w.run(10 * time.Second)
	w.whole(1, highWater+bridgeRoom)
	w.run(time.Minute)
	w.whole(lowWater, highWater+bridgeRoom)
	for _, n := range w.nodes {
		if n.own.version.Epoch != 2 {
			t.Errorf("node %d states epoch %d, want that of its second life", n.i, n.own.version.Epoch)
		}
	}
}

// spec/54-routes.md#samples: two halves that could not reach each other find each other again.
func TestPartitionHeals(t *testing.T) {
	w := newWorld(t, 60, 4)
	w.start(nil)
	w.run(2 * time.Minute)
	w.blocked = func(a, b *inhabitant) bool { return a.i%2 != b.i%2 }
	for pair := range w.sessions {
		if a, b := w.nodes[pair[0]], w.nodes[pair[1]]; w.blocked(a, b) {
			w.cut(a, b, 5*time.Second)
		}
	}
	w.run(30 * time.Minute)
	if parts := w.parishes(); len(parts) != 2 {
		t.Fatalf("%d parts, want two: %s", len(parts), w.census())
	}
	w.blocked = func(a, b *inhabitant) bool { return false }
	w.run(90 * time.Second)
	w.whole(lowWater, highWater+bridgeRoom)
	if r := w.nodes[0].Routes(id(1)); len(r) == 0 {
		t.Error("no route into the other half")
	}
}

// spec/54-routes.md#water: below low water a node looks for others at once.
func TestLowWaterIsRestored(t *testing.T) {
	w := newWorld(t, 50, 5)
	w.start(nil)
	w.run(3 * time.Minute)
	for j := range w.nodes[0].links {
		w.kill(j)
	}
	w.run(13 * time.Second) // 10 s until the last one is missed
	if n := len(w.nodes[0].links); n < lowWater {
		t.Errorf("%d links 3 s after all neighbours were missed, want %d", n, lowWater)
	}
}

// spec/54-routes.md#links spec/54-routes.md#water spec/54-routes.md#routes
func TestLeavesAndAnchors(t *testing.T) {
	w := newWorld(t, 150, 6)
	leaf := func(i int) bool { return i%3 == 0 }
	anchor := func(i int) bool { return i%15 == 1 }
	w.start(func(i int) Config { return Config{Leaf: leaf(i)} })
	w.run(2 * time.Second)
	for i, n := range w.nodes {
		if anchor(i) {
			n.SetAnchor(w.now, true)
			w.settle(n)
		}
	}
	w.run(30 * time.Minute)
	w.whole(1, highAnchor)
	anchored := 0
	for _, n := range w.living() {
		toAnchor := false
		for j := range n.links {
			toAnchor = toAnchor || anchor(j)
			if leaf(n.i) && leaf(j) {
				t.Errorf("leaves %d and %d are linked", n.i, j)
			}
		}
		if toAnchor {
			anchored++
		}
		if !anchor(n.i) && len(n.links) > highWater+bridgeRoom {
			t.Errorf("node %d, no anchor, has %d links", n.i, len(n.links))
		}
		if leaf(n.i) && len(n.links) > 4 {
			t.Errorf("leaf %d has %d links", n.i, len(n.links))
		}
	}
	if anchored < 145 {
		t.Errorf("%d of 150 nodes have a link to an anchor", anchored)
	}
	for _, from := range []int{0, 1, 2} {
		for to := range w.nodes {
			routes := w.nodes[from].Routes(id(to))
			if to != from && len(routes) == 0 {
				t.Errorf("no route from %d to %d", from, to)
			}
			for _, r := range routes {
				for _, relay := range r.Relays() {
					if leaf(number(relay)) {
						t.Errorf("route from %d to %d by leaf %d", from, to, number(relay))
					}
				}
			}
		}
	}
}

// spec/54-routes.md#links: at most one link in 5 min is given up for a nearer one, and never the last one to an anchor.
func TestReplacesSlowly(t *testing.T) {
	c := newChart(t, 30)
	for i := 1; i <= 10; i++ {
		c.link(0, i, 200+i)
	}
	for i, k := range map[int]kind{1: kindNear, 2: kindElsewhere, 3: kindRandom, 4: kindAnchor} {
		c.member(id(i)).neighbour.kind = k
	}
	for i := 5; i <= 10; i++ {
		c.member(id(i)).neighbour.kind = kindNone
		c.member(id(i)).neighbour.granted = true
	}
	c.flags[1] = wire.StateAnchor
	c.tell()
	for i := 11; i < 30; i++ { // sessions with members that are much nearer, and nearer each minute
		c.Up(c.now, id(i))
	}
	c.Effects()
	var gone []time.Time
	for minute := range 40 {
		c.Measured(c.now, id(11+minute%19), time.Duration(100-2*minute)*time.Millisecond, 0, 0)
		c.pass(time.Minute)
		for _, f := range c.Effects() {
			switch f := f.(type) {
			case SendWish:
				if n := c.member(f.ID).neighbour; f.Wish.Want {
					c.HandleWish(c.now, f.ID, wire.LinkWish{Want: true, Seen: true})
				} else if n.heard {
					c.HandleWish(c.now, f.ID, wire.LinkWish{})
				}
			case LinkDown:
				gone = append(gone, c.now)
				if f.ID == id(1) {
					t.Error("the last link to an anchor was given up")
				}
			}
		}
	}
	if len(gone) == 0 || len(gone) > 8 {
		t.Errorf("%d links replaced in 40 min, want some, and at most 8", len(gone))
	}
	for i := 1; i < len(gone); i++ {
		if d := gone[i].Sub(gone[i-1]); d < 4*time.Minute {
			t.Errorf("two links were replaced within %v", d)
		}
	}
}

func TestElsewhereIsElsewhere(t *testing.T) {
	c := newChart(t, 20)
	members := ids(20)
	for i := range members {
		members[i].Endpoints = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}
	}
	members[7].Endpoints = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
	c.SetMembers(c.now, members)
	for i := 1; i < 10; i++ {
		c.Up(c.now, id(i))
		c.Measured(c.now, id(i), time.Duration(10*i)*time.Millisecond, 0, 0)
	}
	c.pass(time.Second)
	for i, want := range map[int]kind{1: kindNear, 7: kindElsewhere} {
		if got := c.member(id(i)).neighbour.kind; got != want {
			t.Errorf("the link with %d is %q, want %q", i, got, want)
		}
	}
}

// spec/54-routes.md#water: beyond high water only those whom the map does not reach are granted.
func TestHighWater(t *testing.T) {
	c := newChart(t, 60)
	wish := func(i int, leaf bool) bool {
		c.Up(c.now, id(i))
		c.Effects()
		c.HandleWish(c.now, id(i), wire.LinkWish{Want: true, Leaf: leaf})
		var last wire.LinkWish
		for _, f := range c.Effects() {
			if w, ok := f.(SendWish); ok && w.ID == id(i) {
				last = w.Wish
			}
		}
		return last.Want
	}
	leaves := 0
	for i := 1; i < 10; i++ {
		if wish(i, true) {
			leaves++
		}
	}
	if leaves != highWater/2 {
		t.Errorf("%d leaves were granted, want %d", leaves, highWater/2)
	}
	i := 10
	for ; len(c.wanted()) < highWater; i++ {
		if !wish(i, false) {
			t.Fatalf("refused at %d links", len(c.wanted()))
		}
	}
	for j := 10; j < i; j++ { // 50 is on the map: a neighbour of a neighbour
		c.links[j][0], c.links[0][j], c.links[j][50], c.links[50][j] = hopCost, hopCost, hopCost, hopCost
	}
	c.tell()
	c.now = c.now.Add(2 * time.Second)
	if wish(50, false) {
		t.Error("granted beyond high water to one whom links lead to")
	}
	if !wish(51, false) || !wish(52, false) {
		t.Error("refused one whom no links lead to")
	}
	if wish(53, false) {
		t.Error("granted more than 2 beyond high water")
	}
}

// spec/54-routes.md#water: a leaf grants nothing in a network that is not small.
func TestLeafGrantsNothing(t *testing.T) {
	e := New(Config{Self: id(0).Short(), Leaf: true, Rand: seed(1)}, nil)
	e.SetMembers(start, ids(20))
	e.Up(start, id(1))
	e.HandleWish(start, id(1), wire.LinkWish{Want: true})
	if n := e.member(id(1)).neighbour; n.wants() || n.linked {
		t.Error("a leaf granted a link")
	}
	e.SetMembers(start, ids(12))
	e.HandleWish(start, id(1), wire.LinkWish{Want: true})
	if !e.member(id(1)).neighbour.linked {
		t.Error("a leaf refused a link in a small network")
	}
}

// spec/54-routes.md#samples: a node whose calls come to nothing calls ever more rarely.
func TestCallsAreFewWhenNobodyAnswers(t *testing.T) {
	w := newWorld(t, 500, 8)
	for i := range 20 { // the others sleep
		w.begin(i, Config{})
	}
	w.run(10 * time.Minute)
	w.whole(lowWater, highWater+bridgeRoom)
	before := w.nodes[0].dialed
	w.run(time.Hour)
	if n := w.nodes[0].dialed - before; n > 130 {
		t.Errorf("%d calls in an hour", n)
	}
}

// Hostile or not, a neighbour that changes its mind all the time gets few answers, and makes few link states.
func TestFickleNeighbour(t *testing.T) {
	c := newChart(t, 30)
	c.Up(c.now, id(1))
	r := rand.New(rand.NewPCG(1, 1))
	wishes, states, asked := 0, 0, 0
	for range 6000 { // 10 min
		c.HandleWish(c.now, id(1), wire.LinkWish{Want: r.IntN(2) == 0, Seen: r.IntN(2) == 0})
		asked++
		c.pass(100 * time.Millisecond)
		for _, f := range c.Effects() {
			switch f.(type) {
			case SendWish:
				wishes++
			case Originate:
				states++
			}
		}
	}
	if wishes > asked+600 {
		t.Errorf("%d wishes for %d", wishes, asked)
	}
	if states > 70 { // spec/54-routes.md#origination
		t.Errorf("%d link states in 10 min", states)
	}
}
