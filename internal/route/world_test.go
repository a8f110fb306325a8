package route

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// world is many engines in virtual time. Sessions come up when one side calls and nothing is in the way; wishes get lost now
// and then; link states reach all to whom links lead, a little later. There are no datagrams.
type world struct {
	t        testing.TB
	now      time.Time
	rand     *rand.Rand
	nodes    []*inhabitant
	queue    agenda
	order    int
	loss     float64
	blocked  func(a, b *inhabitant) bool // no direct path between them
	sessions map[[2]int]bool
	stated   int // link states originated
	fresh    map[int]bool
	parts    map[int]int // as of the last post
}

// inhabitant is one node of a world.
type inhabitant struct {
	*Engine
	i      int
	alive  bool
	life   int // counts restarts: what was meant for an earlier one is lost
	x, y   float64
	dials  map[int]bool
	links  map[int]bool
	state  wire.LinkState // its own newest
	states []wire.Version // those it has
	next   time.Time
	stated int
	dialed int
}

type appointment struct {
	at    time.Time
	order int
	do    func()
}

type agenda []appointment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

func newWorld(t testing.TB, n int, number uint64) *world {
	w := &world{t: t, now: start, rand: rand.New(rand.NewPCG(number, 7)), sessions: map[[2]int]bool{},
		blocked: func(a, b *inhabitant) bool { return false }, fresh: map[int]bool{}}
	for i := range n {
		w.nodes = append(w.nodes, &inhabitant{i: i, x: w.rand.Float64() * 100, y: w.rand.Float64() * 100})
	}
	w.at(w.now, w.post)
	return w
}

// begin starts node i, all of whose members are told to it.
func (w *world) begin(i int, cfg Config) {
	n := w.nodes[i]
	n.life++
	cfg.Self, cfg.Epoch, cfg.Rand = id(i).Short(), uint32(n.life), seed(uint64(i)<<16+uint64(n.life))
	n.Engine = New(cfg, nil)
	n.alive = true
	n.dials, n.links, n.states = map[int]bool{}, map[int]bool{}, make([]wire.Version, len(w.nodes))
	n.state = wire.LinkState{}
	n.next = time.Time{}
	n.SetMembers(w.now, ids(len(w.nodes)))
	w.settle(n)
}

// kill ends node i without a word. The others notice after 3 to 10 s.
func (w *world) kill(i int) {
	n := w.nodes[i]
	n.alive = false
	for _, o := range w.nodes {
		if w.sessions[pairOf(i, o.i)] {
			w.cut(n, o, 3*time.Second+time.Duration(w.rand.IntN(7000))*time.Millisecond)
		}
	}
}

// cut ends the session of a and b; they notice after d.
func (w *world) cut(a, b *inhabitant, d time.Duration) {
	delete(w.sessions, pairOf(a.i, b.i))
	for _, s := range [][2]*inhabitant{{a, b}, {b, a}} {
		w.after(d, s[0], func() {
			if !w.sessions[pairOf(a.i, b.i)] {
				s[0].Down(w.now, id(s[1].i))
			}
		})
		w.retry(s[0], s[1], d+time.Second)
	}
}

func pairOf(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

// rtt is the round trip between two nodes by where they are.
func (w *world) rtt(a, b *inhabitant) time.Duration {
	return time.Duration((2 + math.Hypot(a.x-b.x, a.y-b.y)) * float64(time.Millisecond))
}

func (w *world) at(t time.Time, do func()) {
	w.order++
	heap.Push(&w.queue, appointment{t, w.order, do})
}

// after does something to n, if it still lives, and what follows from it.
func (w *world) after(d time.Duration, n *inhabitant, do func()) {
	life := n.life
	w.at(w.now.Add(d), func() {
		if n.alive && n.life == life {
			do()
			w.settle(n)
		}
	})
}

// run lets time go by.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		a := heap.Pop(&w.queue).(appointment)
		w.now = a.at
		a.do()
	}
	w.now = end
}

// settle carries out what n wants and arms its timer.
func (w *world) settle(n *inhabitant) {
	next := n.Tick(w.now)
	for _, f := range n.Effects() {
		w.effect(n, f)
	}
	if !next.IsZero() && (n.next.IsZero() || next.Before(n.next) || !n.next.After(w.now)) {
		if !next.After(w.now) {
			next = w.now.Add(time.Millisecond)
		}
		n.next = next
		life := n.life
		w.at(next, func() {
			if n.alive && n.life == life && n.next.Equal(next) {
				w.settle(n)
			}
		})
	}
}

func (w *world) effect(n *inhabitant, f Effect) {
	switch f := f.(type) {
	case Dial:
		o := w.nodes[number(f.ID.Short())]
		n.dials[o.i] = true
		n.dialed++
		w.retry(n, o, 0)
	case Release:
		o := w.nodes[number(f.ID.Short())]
		delete(n.dials, o.i)
		w.at(w.now.Add(10*time.Second), func() {
			if w.sessions[pairOf(n.i, o.i)] && !n.dials[o.i] && !o.dials[n.i] {
				w.cut(n, o, 0)
			}
		})
	case SendWish:
		o := w.nodes[number(f.ID.Short())]
		if w.rand.Float64() < w.loss || !w.sessions[pairOf(n.i, o.i)] {
			return
		}
		w.after(w.rtt(n, o)/2, o, func() { o.HandleWish(w.now, id(n.i), f.Wish) })
	case LinkUp:
		o := w.nodes[number(f.ID.Short())]
		if n.links[o.i] {
			w.t.Errorf("%d: the link with %d comes up twice", n.i, o.i)
		}
		n.links[o.i] = true
	case LinkDown:
		delete(n.links, number(f.ID.Short()))
	case Originate:
		n.stated++
		w.stated++
		n.state = f.State
		w.fresh[n.i] = true
	}
}

// retry calls o for n until there is a session.
func (w *world) retry(n, o *inhabitant, d time.Duration) {
	w.after(d+w.rtt(n, o)+20*time.Millisecond, n, func() {
		pair := pairOf(n.i, o.i)
		switch {
		case !n.dials[o.i] || w.sessions[pair]:
		case !o.alive || w.blocked(n, o):
			w.retry(n, o, 5*time.Second)
		default:
			w.sessions[pair] = true
			for _, s := range [][2]*inhabitant{{n, o}, {o, n}} {
				s[0].Up(w.now, id(s[1].i))
				s[0].Measured(w.now, id(s[1].i), w.rtt(n, o), time.Millisecond, 0)
			}
			w.after(0, o, func() {})
		}
	})
}

// parishes returns the parts of the network that links hold together.
func (w *world) parishes() (out [][]*inhabitant) {
	seen := make([]bool, len(w.nodes))
	for _, n := range w.nodes {
		if !n.alive || seen[n.i] {
			continue
		}
		seen[n.i] = true
		part := []*inhabitant{n}
		for i := 0; i < len(part); i++ {
			for j := range part[i].links {
				if o := w.nodes[j]; !seen[j] && o.alive && o.links[part[i].i] && w.sessions[pairOf(part[i].i, j)] {
					seen[j] = true
					part = append(part, o)
				}
			}
		}
		out = append(out, part)
	}
	return out
}

// post brings the link states that are new to those to whom links lead, now and then. Where parts of the network have come
// together, it brings all.
func (w *world) post() {
	fresh := w.fresh
	w.fresh = map[int]bool{}
	parts := map[int]int{} // node -> part
	for p, part := range w.parishes() {
		whole, news := false, []*inhabitant(nil)
		for _, n := range part {
			parts[n.i] = p
			whole = whole || w.parts[n.i] != w.parts[part[0].i]
			if fresh[n.i] {
				news = append(news, n)
			}
		}
		if whole {
			news = part
		}
		for _, n := range part {
			for _, o := range news {
				w.deliver(n, o)
			}
			if len(news) > 0 {
				w.settle(n)
			}
		}
	}
	for i := range fresh { // not yet where it must go
		if !w.nodes[i].alive || len(w.nodes[i].links) == 0 {
			w.fresh[i] = w.nodes[i].alive
		}
	}
	w.parts = parts
	w.at(w.now.Add(250*time.Millisecond), w.post)
}

func (w *world) deliver(n, o *inhabitant) {
	if n != o && n.states[o.i].Compare(o.state.Version) < 0 {
		n.states[o.i] = o.state.Version
		n.Learn(w.now, o.state)
	}
}

// start starts all nodes within a second.
func (w *world) start(cfg func(i int) Config) {
	for i := range w.nodes {
		w.at(w.now.Add(time.Duration(w.rand.IntN(1000))*time.Millisecond), func() {
			if cfg == nil {
				w.begin(i, Config{})
			} else {
				w.begin(i, cfg(i))
			}
		})
	}
}

// whole fails the test unless all that live are held together by links, of which each has at least so many and at most so
// many.
func (w *world) whole(least, most int) {
	w.t.Helper()
	if parts := w.parishes(); len(parts) != 1 {
		w.t.Errorf("the network is in %d parts: %s", len(parts), w.census())
	}
	for _, n := range w.living() {
		if len(n.links) < least || len(n.links) > most {
			w.t.Errorf("node %d has %d links, want %d to %d: %s", n.i, len(n.links), least, most, w.census())
			return
		}
	}
}

// living lists the nodes that are alive.
func (w *world) living() (out []*inhabitant) {
	for _, n := range w.nodes {
		if n.alive {
			out = append(out, n)
		}
	}
	return out
}

// census tells how the links are spread.
func (w *world) census() string {
	var degrees [80]int
	sum, most := 0, 0
	for _, n := range w.living() {
		degrees[len(n.links)]++
		sum += len(n.links)
		most = max(most, len(n.links))
	}
	part := 0
	for _, p := range w.parishes() {
		part = max(part, len(p))
	}
	return fmt.Sprintf("%d alive, %d together, %d links in all, most %d: %v", len(w.living()), part, sum/2, most, degrees[:most+1])
}
