package gossip

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var network = key.NetworkID{1, 2, 3}

// record makes the n-th test record: valid in form, of an unknown kind, with a signature that nobody checks here.
func record(n int) wire.Record { return recordOf(n, 200) }

func recordOf(n, size int) wire.Record {
	payload := make([]byte, size)
	binary.BigEndian.PutUint64(payload, uint64(n))
	r, err := wire.EncodeRecord(network, 999, payload, []wire.Sig{{}})
	if err != nil {
		panic(err)
	}
	return r
}

// node is one engine with an owner that accepts all it is handed, unless judge says otherwise.
type node struct {
	w        *world
	id       key.NodeID
	e        *Engine
	next     time.Time
	judge    func(d Deliver) verdict
	got      map[wire.RecordID]time.Time
	messages int // received
	bytes    int // received, as control messages
}

type verdict int

const (
	accept verdict = iota
	reject
	wait
)

// packet is a message on its way.
type packet struct {
	at       time.Time
	seq      int
	from, to *node
	data     []byte
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].seq < p[j].seq
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	x := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return x
}

// world is a lossy, reordering network of nodes in virtual time.
type world struct {
	testing.TB
	now    time.Time
	nodes  []*node
	way    packets
	seq    int
	rng    *rand.Rand
	loss   float64
	steady bool            // all datagrams take 30 ms
	links  map[[2]int]bool // by index, both orders
}

// random is the engines' source of chance: the same in each run.
type random struct{ r *rand.Rand }

func (r random) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.r.Uint32())
	}
	return len(b), nil
}

func newWorld(t testing.TB, n int, loss float64) *world {
	w := &world{TB: t, now: time.Unix(1e9, 0), rng: rand.New(rand.NewPCG(7, uint64(n))), loss: loss, links: map[[2]int]bool{}}
	for i := range n {
		nd := &node{w: w, got: map[wire.RecordID]time.Time{}}
		binary.BigEndian.PutUint32(nd.id[:], uint32(i+1))
		nd.e = New(Config{Network: network, Rand: random{w.rng}}, nil)
		w.nodes = append(w.nodes, nd)
	}
	return w
}

// index returns the place of n in the world.
func (n *node) index() int { return int(binary.BigEndian.Uint32(n.id[:])) - 1 }

// connect gives nodes a and b a session; disconnect takes it.
func (w *world) connect(a, b int) {
	if a == b || w.links[[2]int{a, b}] {
		return
	}
	w.links[[2]int{a, b}], w.links[[2]int{b, a}] = true, true
	w.nodes[a].e.PeerUp(w.now, w.nodes[b].id)
	w.nodes[b].e.PeerUp(w.now, w.nodes[a].id)
	w.nodes[a].settle()
	w.nodes[b].settle()
}

func (w *world) disconnect(a, b int) {
	delete(w.links, [2]int{a, b})
	delete(w.links, [2]int{b, a})
	w.nodes[a].e.PeerDown(w.now, w.nodes[b].id)
	w.nodes[b].e.PeerDown(w.now, w.nodes[a].id)
}

// mesh connects all nodes of a list with all others of it.
func (w *world) mesh(list ...int) {
	for i, a := range list {
		for _, b := range list[:i] {
			w.connect(a, b)
		}
	}
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// add makes a record known to node i as its own.
func (w *world) add(i int, r wire.Record) {
	w.nodes[i].got[r.ID] = w.now
	w.nodes[i].e.Add(w.now, r.ID, r.Raw, key.NodeID{})
	w.nodes[i].settle()
}

// settle carries out the effects of n and arms its timer.
func (n *node) settle() {
	for {
		n.next = n.e.Tick(n.w.now)
		effects := n.e.Effects()
		if len(effects) == 0 {
			return
		}
		for _, f := range effects {
			switch f := f.(type) {
			case Send:
				n.w.send(n, f)
			case Deliver:
				n.take(f)
			}
		}
	}
}

func (n *node) take(d Deliver) {
	v := accept
	if n.judge != nil {
		v = n.judge(d)
	}
	switch v {
	case accept:
		n.got[d.ID] = n.w.now
		n.e.Add(n.w.now, d.ID, d.Raw, d.Peer)
	case reject:
		n.e.Reject(n.w.now, d.Raw, d.Peer)
	}
}

func (w *world) send(from *node, s Send) {
	data := s.Body.Append(nil)
	if len(data) > wire.MaxControl {
		w.Fatalf("message of %d bytes", len(data))
	}
	to := w.nodes[int(binary.BigEndian.Uint32(s.Peer[:]))-1]
	if w.rng.Float64() < w.loss {
		return
	}
	w.seq++
	d := time.Duration(10+w.rng.IntN(40)) * time.Millisecond
	if w.steady {
		d = 30 * time.Millisecond
	}
	heap.Push(&w.way, packet{w.now.Add(d), w.seq, from, to, data})
}

// run lets d pass.
func (w *world) run(d time.Duration) { w.runUntil(d, func() bool { return false }) }

// runUntil lets time pass until done says so, at most d. It reports whether done did.
func (w *world) runUntil(d time.Duration, done func() bool) bool {
	w.Helper()
	end := w.now.Add(d)
	for !done() {
		next := end
		for _, n := range w.nodes {
			if !n.next.IsZero() && n.next.Before(next) {
				next = n.next
			}
		}
		if len(w.way) > 0 && w.way[0].at.Before(next) {
			next = w.way[0].at
		}
		if next.After(w.now) {
			w.now = next
		}
		if !w.now.Before(end) {
			return done()
		}
		for len(w.way) > 0 && !w.way[0].at.After(w.now) {
			w.arrive(heap.Pop(&w.way).(packet))
		}
		for _, n := range w.nodes {
			if !n.next.IsZero() && !n.next.After(w.now) {
				n.settle()
			}
		}
	}
	return true
}

func (w *world) arrive(p packet) {
	if !w.links[[2]int{p.from.index(), p.to.index()}] {
		return
	}
	m, err := wire.ParseControl(p.data)
	if err != nil {
		w.Fatal(err)
	}
	p.to.messages++
	p.to.bytes += len(p.data)
	if err := p.to.e.Handle(w.now, p.from.id, m.(Message)); err != nil {
		w.Fatal(err)
	}
	p.to.settle()
}

// traffic returns the bytes and messages received by all since the last call.
func (w *world) traffic() (bytes, messages int) {
	for _, n := range w.nodes {
		bytes, messages = bytes+n.bytes, messages+n.messages
		n.bytes, n.messages = 0, 0
	}
	return bytes, messages
}

// converged reports whether all nodes of the list hold n records.
func (w *world) converged(n int, list ...int) func() bool {
	return func() bool {
		for _, i := range list {
			if w.nodes[i].e.Len() != n {
				return false
			}
		}
		return true
	}
}

// want lets time pass until all nodes hold n records, and fails if that takes longer than d.
func (w *world) want(d time.Duration, n int, list ...int) time.Duration {
	w.Helper()
	began := w.now
	if !w.runUntil(d, w.converged(n, list...)) {
		var have []int
		for _, i := range list {
			have = append(have, w.nodes[i].e.Len())
		}
		w.Fatalf("after %v the nodes hold %v records, want %d", d, have, n)
	}
	return w.now.Sub(began)
}

// fill gives node i records from to to, before it has any peer.
func (w *world) fill(i, from, to int) {
	for n := from; n < to; n++ {
		w.add(i, record(n))
	}
}
