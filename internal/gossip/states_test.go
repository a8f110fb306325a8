package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// spec/53-map.md#flooding
func TestStatesReachAll(t *testing.T) {
	for _, c := range []struct {
		nodes, degree int
		loss          float64
		start, one    time.Duration // for all to reach all, and for one more
	}{
		{2, 2, 0, 200 * time.Millisecond, 100 * time.Millisecond},
		{5, 2, 0, 300 * time.Millisecond, 200 * time.Millisecond},
		{12, 12, 0, 300 * time.Millisecond, 100 * time.Millisecond},
		{100, 8, 0, time.Second, 600 * time.Millisecond},
		{5, 2, 0.2, 8 * time.Second, 8 * time.Second},
		{100, 8, 0.05, 5 * time.Second, 2 * time.Second},
		{100, 8, 0.3, 30 * time.Second, 10 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d-%v", c.nodes, c.loss), func(t *testing.T) {
			w := newField(t, c.nodes, c.loss)
			w.tangle(c.degree, upTo(c.nodes)...)
			w.run(3 * time.Second)
			w.originateAll()
			t.Log("all after", w.want(c.start, upTo(c.nodes)...))
			for i := range 5 {
				w.run(time.Minute)
				w.nodes[i*7%c.nodes].originate()
				t.Log("one more after", w.want(c.one, upTo(c.nodes)...))
			}
		})
	}
}

// In a small network without loss each neighbour gets what is new once at most, and never from whom it sent it.
// spec/53-map.md#flooding
func TestStatesAreNotEchoed(t *testing.T) {
	w := newField(t, 6, 0)
	for i := range 5 { // a line: the far end hears each state once, and nobody twice
		w.connect(i, i+1)
	}
	w.run(3 * time.Second)
	w.traffic()
	w.nodes[0].originate()
	w.want(time.Second, upTo(6)...)
	w.run(10 * time.Second)
	for i, b := range w.nodes {
		if want := min(i, 1); b.whole[0] != want {
			t.Errorf("node %d received the state %d times, want %d", i, b.whole[0], want)
		}
	}
	if _, kinds := w.traffic(); kinds["offer"]+kinds["want"] > 0 {
		t.Errorf("without loss nothing must be mended, was %v", kinds)
	}
}

// What comes within a moment shares messages, and only the newest goes out.
// spec/53-map.md#flooding
func TestStatesShareMessages(t *testing.T) {
	w := newField(t, 2, 0)
	w.connect(0, 1)
	w.run(3 * time.Second)
	for range 5 {
		w.nodes[0].originate()
	}
	w.traffic()
	w.run(3 * time.Second)
	if n := w.nodes[1].whole[0]; n != 1 || w.nodes[1].s.Version(w.nodes[0].id.Short()).Seq != 5 {
		t.Errorf("received %d states and holds %v, want the fifth alone", n, w.nodes[1].s.Version(w.nodes[0].id.Short()))
	}
}

// A push that is lost is offered soon, long before a round would find out.
// spec/53-map.md#flooding
func TestLostPushIsOffered(t *testing.T) {
	w := newField(t, 2, 0)
	w.connect(0, 1)
	w.run(3 * time.Second)
	w.loss = 1
	w.nodes[0].originate()
	w.run(100 * time.Millisecond)
	w.loss = 0
	w.want(time.Second, 0, 1)
	w.traffic()
	w.run(20 * time.Second)
	if n, kinds := w.traffic(); kinds["offer"] > 0 {
		t.Errorf("%d bytes after all was well: %v", n, kinds)
	}
}

// Bytes received of one change, by a node with 8 links, against naive flooding: 7 times 200.
// spec/53-map.md#flooding
func TestStatesCost(t *testing.T) {
	const nodes, changes = 220, 60
	w := newField(t, nodes, 0)
	w.tangle(8, upTo(nodes)...)
	w.run(time.Second)
	w.originateAll()
	w.want(5*time.Second, upTo(nodes)...)
	all, _ := w.traffic()
	w.run(time.Minute)
	w.traffic()
	w.run(time.Minute)
	quiet, _ := w.traffic()
	for i := range changes {
		w.nodes[i*17%nodes].originate()
		w.run(time.Second / 2)
	}
	w.want(time.Second, upTo(nodes)...)
	bytes, kinds := w.traffic()
	bytes -= quiet * changes / 2 / 60
	var late []time.Duration
	for _, b := range w.nodes {
		late = append(late, b.late[len(b.late)-changes:]...)
	}
	slices.Sort(late)
	t.Logf("start %d bytes a node for each of %d states, one more %d %v, quiet %.1f bytes a second; late %v, 99 of 100 %v",
		all/nodes/nodes, nodes, bytes/nodes/changes, kinds, float64(quiet)/nodes/60, late[len(late)/2], late[len(late)*99/100])
	if per := bytes / nodes / changes; per > 525 {
		t.Errorf("one state costs a node %d bytes, want 525 at most", per)
	}
	if per := all / nodes / nodes; per > 1200 {
		t.Errorf("a start costs a node %d bytes a state", per)
	}
	if per := quiet / nodes / 60; per > 16 { // 8 links, 35 bytes each 30 s and both ends
		t.Errorf("a quiet network costs a node %d bytes a second", per)
	}
}

// spec/53-map.md#repair
func TestStatesPartition(t *testing.T) {
	for _, loss := range []float64{0, 0.1} {
		w := newField(t, 60, loss)
		left, right := upTo(60)[:30], upTo(60)[30:]
		w.tangle(6, left...)
		w.tangle(6, right...)
		w.originateAll()
		w.want(10*time.Second, left...)
		w.want(10*time.Second, right...)
		w.run(time.Minute)
		for i := range 10 {
			w.nodes[i].originate()
		}
		w.connect(3, 33)
		t.Log("merged after", w.want(20*time.Second, upTo(60)...))
		w.run(30 * time.Second) // all is equal, and rounds say so
		w.traffic()
		w.run(time.Minute)
		if n, kinds := w.traffic(); loss == 0 && kinds["states"]+kinds["offer"]+kinds["want"] > 0 {
			t.Errorf("%d bytes after all was well: %v", n, kinds)
		}
	}
}

// Who joins gets each state once, not from each neighbour.
// spec/53-map.md#repair
func TestStatesNewcomer(t *testing.T) {
	for _, nodes := range []int{40, 250} {
		w := newField(t, nodes+1, 0)
		w.tangle(4, upTo(nodes)...)
		w.originateAll()
		w.want(5*time.Second, upTo(nodes)...)
		w.run(time.Minute)
		w.traffic()
		for i := range 6 {
			w.connect(nodes, i*6)
		}
		w.nodes[nodes].originate()
		took := w.want(10*time.Second, upTo(nodes+1)...)
		w.run(10 * time.Second)
		b := w.nodes[nodes]
		sum := 0
		for _, n := range b.whole {
			sum += n
		}
		t.Logf("%d nodes: after %v and %d bytes %v", nodes, took, b.bytes, b.got)
		if sum > nodes*11/10 {
			t.Errorf("of %d states, %d came", nodes, sum)
		}
		if b.bytes > nodes*250+8000 {
			t.Errorf("%d bytes for %d states", b.bytes, nodes)
		}
	}
}

// All nodes lose all they know at once, and a third of them never comes back.
// spec/53-map.md#repair
func TestStatesAfterRestart(t *testing.T) {
	const nodes = 120
	w := newField(t, nodes, 0.02)
	w.tangle(8, upTo(nodes)...)
	w.originateAll()
	w.want(10*time.Second, upTo(nodes)...)
	w.run(time.Minute)
	survivors := slices.DeleteFunc(upTo(nodes), func(n int) bool { return n%3 == 1 })
	links := map[[2]int]bool{}
	for a, b := range w.nodes {
		for p := range b.peers {
			links[[2]int{min(a, p), max(a, p)}] = true
		}
	}
	for l := range links {
		w.disconnect(l[0], l[1])
	}
	for _, n := range survivors {
		w.nodes[n].restart()
		w.nodes[n].version = wire.Version{Epoch: 2}
	}
	w.tangle(6, survivors...)
	for _, n := range survivors {
		w.nodes[n].originate()
	}
	t.Log("after", w.want(10*time.Second, survivors...))
}

// A third of the nodes vanishes, their neighbours say so, and the flood does not wait for what the tree has lost.
// spec/53-map.md#flooding
func TestStatesWhenManyVanish(t *testing.T) {
	const nodes = 150
	w := newField(t, nodes, 0)
	w.tangle(10, upTo(nodes)...)
	w.originateAll()
	w.want(10*time.Second, upTo(nodes)...)
	for i := range 30 {
		w.run(time.Second)
		w.nodes[i].originate()
	}
	survivors := slices.DeleteFunc(upTo(nodes), func(n int) bool { return n%3 == 1 })
	touched := map[int]bool{}
	for n := 1; n < nodes; n += 3 {
		for p := range w.nodes[n].peers {
			w.disconnect(n, p)
			touched[p] = p%3 != 1
		}
	}
	for _, n := range survivors {
		if touched[n] {
			w.nodes[n].originate()
		}
	}
	t.Log("after", w.want(time.Second, survivors...))
}

// spec/53-map.md#repair
func TestOneStateMissingOfThousand(t *testing.T) {
	w := newField(t, 2, 0)
	for i := range 1000 {
		id := burrowID(i + 10).Short()
		v := wire.Version{Epoch: 1, Seq: 1}
		for _, b := range w.nodes {
			if b.n == 1 && i == 500 {
				v.Seq = 2
			}
			raw := encodeState(id, v, 8)
			st, _ := wire.ParseLinkState(raw)
			b.s.Set(w.now, raw, st, key.NodeID{})
		}
	}
	w.connect(0, 1)
	missing := burrowID(510).Short()
	w.runUntil(5*time.Second, func() bool { return w.nodes[0].s.Version(missing).Seq == 2 })
	if w.nodes[0].s.Version(missing).Seq != 2 {
		t.Fatal("was not mended")
	}
	w.run(5 * time.Second)
	bytes, kinds := w.traffic()
	t.Log(bytes, kinds)
	if bytes >= 2000 {
		t.Errorf("one missing state of a thousand cost %d bytes %v", bytes, kinds)
	}
	w.run(36 * time.Second)
	if bytes, kinds := w.traffic(); bytes > 140 || kinds["compare"] == 0 {
		t.Errorf("a round of equal sets cost %d bytes %v", bytes, kinds)
	}
}

// The same input gives the same output.
func TestStatesRepeatThemselves(t *testing.T) {
	one := func() string {
		w := newField(t, 30, 0.1)
		w.tangle(6, upTo(30)...)
		w.originateAll()
		w.run(20 * time.Second)
		return fmt.Sprint(w.traffic())
	}
	if a, b := one(), one(); a != b {
		t.Errorf("once %s, then %s", a, b)
	}
}

// A thousand nodes with 8 links and 1 % loss, all started at once; then 20 changes.
func BenchmarkStates1000(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a minute")
	}
	for b.Loop() {
		const nodes = 1000
		w := newField(b, nodes, 0.01)
		w.tangle(8, upTo(nodes)...)
		w.run(time.Second)
		w.originateAll()
		b.ReportMetric(w.want(30*time.Second, upTo(nodes)...).Seconds(), "start-s")
		start, _ := w.traffic()
		b.ReportMetric(float64(start)/nodes/1000, "start-kB/node")
		w.run(time.Minute)
		w.traffic()
		for i := range 20 {
			w.nodes[i*17%nodes].originate()
			w.run(time.Second / 2)
		}
		w.want(30*time.Second, upTo(nodes)...)
		bytes, _ := w.traffic()
		b.ReportMetric(float64(bytes)/nodes/20, "B/node/state")
		var late []time.Duration
		for _, n := range w.nodes {
			late = append(late, n.late[len(n.late)-20:]...)
		}
		slices.Sort(late)
		b.ReportMetric(late[len(late)*99/100].Seconds(), "late99-s")
	}
}
