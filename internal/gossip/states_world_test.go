package gossip

import (
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// burrow is one States with an owner that takes all it is handed, unless judge says otherwise.
type burrow struct {
	w       *field
	n       int
	id      key.NodeID
	s       *States
	peers   map[int]bool
	armed   time.Time // the timer that counts
	version wire.Version
	judge   func(d DeliverState) verdict
	handed  int             // states delivered to the owner
	got     map[string]int  // received, by kind of message
	bytes   int             // received, as control messages
	whole   map[int]int     // times that the state of a node was received
	late    []time.Duration // of all states accepted, since they were made
}

// event is a message on its way or, without data, a timer.
type event struct {
	at       time.Time
	seq      int
	from, to *burrow
	data     []byte
}

type events []event

func (p events) Len() int { return len(p) }
func (p events) Less(i, j int) bool {
	return cmp.Or(p[i].at.Compare(p[j].at), cmp.Compare(p[i].seq, p[j].seq)) < 0
}
func (p events) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *events) Push(x any)   { *p = append(*p, x.(event)) }
func (p *events) Pop() any {
	x := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return x
}

// field is a lossy, reordering network of burrows in virtual time.
type field struct {
	testing.TB
	now   time.Time
	nodes []*burrow
	queue events
	seq   int
	rng   *rand.Rand
	loss  float64
	made  map[stamp]time.Time
	index map[key.ShortID]int
}

func newField(t testing.TB, n int, loss float64) *field {
	w := &field{TB: t, now: time.Unix(1e9, 0), rng: rand.New(rand.NewPCG(8, uint64(n))), loss: loss, made: map[stamp]time.Time{}, index: map[key.ShortID]int{}}
	for i := range n {
		b := &burrow{w: w, n: i, id: burrowID(i), peers: map[int]bool{}, got: map[string]int{}, whole: map[int]int{}}
		b.restart()
		w.index[b.id.Short()] = i
		w.nodes = append(w.nodes, b)
	}
	return w
}

// burrowID is spread over all digits, as hashes are, and begins with the number's place in a permutation.
func burrowID(n int) key.NodeID {
	return sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// encodeState makes an encoded link state with so many links and a signature that nobody checks here.
func encodeState(node key.ShortID, v wire.Version, links int) []byte {
	b := []byte{1, 0, byte(links), 0}
	b = append(b, node[:]...)
	b = binary.BigEndian.AppendUint32(b, v.Epoch)
	b = binary.BigEndian.AppendUint32(b, v.Seq)
	for i := range links {
		b = append(b, 0, 0, 0, 0, 0, 0, 0, byte(i+1), 0, 9)
	}
	return append(b, make([]byte, 64)...)
}

// restart gives b an empty engine.
func (b *burrow) restart() { b.s = NewStates(StatesConfig{Rand: random{b.w.rng}}, nil) }

// originate makes a new link state of b.
func (b *burrow) originate() {
	b.version = wire.Version{Epoch: max(b.version.Epoch, 1), Seq: b.version.Seq + 1}
	raw := encodeState(b.id.Short(), b.version, 8)
	st, err := wire.ParseLinkState(raw)
	if err != nil {
		b.w.Fatal(err)
	}
	b.w.made[stamp{st.Node, st.Version}] = b.w.now
	b.s.Set(b.w.now, raw, st, key.NodeID{})
	b.settle()
}

func (w *field) originateAll() {
	for _, b := range w.nodes {
		b.originate()
	}
}

func (w *field) connect(a, b int) {
	if a == b || w.nodes[a].peers[b] {
		return
	}
	for _, x := range [][2]int{{a, b}, {b, a}} {
		w.nodes[x[0]].peers[x[1]] = true
		w.nodes[x[0]].s.PeerUp(w.now, w.nodes[x[1]].id)
		w.nodes[x[0]].settle()
	}
}

func (w *field) disconnect(a, b int) {
	for _, x := range [][2]int{{a, b}, {b, a}} {
		delete(w.nodes[x[0]].peers, x[1])
		w.nodes[x[0]].s.PeerDown(w.now, w.nodes[x[1]].id)
		w.nodes[x[0]].settle()
	}
}

// tangle links each of the nodes of a list with half degree others of it, by chance, and all in a ring.
func (w *field) tangle(degree int, list ...int) {
	for i, a := range list {
		w.connect(a, list[(i+1)%len(list)])
		for range degree/2 - 1 {
			w.connect(a, list[w.rng.IntN(len(list))])
		}
	}
}

// settle carries out the effects of b and arms its timer.
func (b *burrow) settle() {
	for {
		next := b.s.Tick(b.w.now)
		effects := b.s.Effects()
		for _, f := range effects {
			switch f := f.(type) {
			case Send:
				b.w.send(b, f)
			case DeliverState:
				b.take(f)
			}
		}
		if len(effects) > 0 {
			continue
		}
		if !next.IsZero() && !next.Equal(b.armed) {
			b.w.seq++
			heap.Push(&b.w.queue, event{at: next, seq: b.w.seq, to: b})
		}
		b.armed = next
		return
	}
}

func (b *burrow) take(d DeliverState) {
	b.handed++
	v := accept
	if b.judge != nil {
		v = b.judge(d)
	}
	switch v {
	case accept:
		b.late = append(b.late, b.w.now.Sub(b.w.made[stamp{d.State.Node, d.State.Version}]))
		b.s.Set(b.w.now, d.Raw, d.State, d.Peer)
	case reject:
		b.s.Reject(b.w.now, d.Raw, d.Peer)
	case wait:
		b.s.Defer(b.w.now, d.Raw, d.State, d.Peer)
	}
}

func (w *field) send(from *burrow, s Send) {
	data := s.Body.Append(nil)
	if len(data) > wire.MaxControl {
		w.Fatalf("message of %d bytes", len(data))
	}
	if w.rng.Float64() < w.loss {
		return
	}
	w.seq++
	at := w.now.Add(time.Duration(10+w.rng.IntN(40)) * time.Millisecond)
	heap.Push(&w.queue, event{at, w.seq, from, w.nodes[w.index[s.Peer.Short()]], data})
}

// run lets d pass; runUntil as long as it takes until done says so, at most d.
func (w *field) run(d time.Duration) { w.runUntil(d, func() bool { return false }) }

func (w *field) runUntil(d time.Duration, done func() bool) bool {
	w.Helper()
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		if done() {
			return true
		}
		e := heap.Pop(&w.queue).(event)
		w.now = later(w.now, e.at)
		switch {
		case e.data != nil:
			w.arrive(e)
		case e.at.Equal(e.to.armed):
			e.to.settle()
		}
	}
	if done() {
		return true
	}
	w.now = end
	return false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *field) arrive(e event) {
	if !e.to.peers[e.from.n] {
		return
	}
	m, err := wire.ParseControl(e.data)
	if err != nil {
		w.Fatal(err)
	}
	e.to.bytes += len(e.data)
	switch m := m.(type) {
	case wire.States:
		e.to.got["states"] += len(e.data)
		for _, raw := range m.Raw {
			st, _ := wire.ParseLinkState(raw)
			e.to.whole[w.index[st.Node]]++
		}
	case wire.Digest:
		e.to.got[[]string{"", "compare", "equal", "have", "offer", "want", "mode"}[m.Body[0]]] += len(e.data)
	}
	if err := e.to.s.Handle(w.now, e.from.id, m.(Message)); err != nil {
		w.Fatal(err)
	}
	e.to.settle()
}

// traffic returns the bytes received by all since the last call, and by kind.
func (w *field) traffic() (bytes int, kinds map[string]int) {
	kinds = map[string]int{}
	for _, b := range w.nodes {
		bytes += b.bytes
		for k, n := range b.got {
			kinds[k] += n
		}
		b.bytes, b.got, b.whole = 0, map[string]int{}, map[int]int{}
	}
	return bytes, kinds
}

// agree reports whether all nodes of the list hold the newest link state of all nodes of it.
func (w *field) agree(list ...int) func() bool {
	at := 0
	return func() bool {
		for ; at < len(list)*len(list); at++ { // what is reached is not lost again
			a, b := w.nodes[list[at/len(list)]], w.nodes[list[at%len(list)]]
			if a.s.Version(b.id.Short()) != b.version {
				return false
			}
		}
		return true
	}
}

// want lets time pass until the nodes agree, and fails if that takes longer than d.
func (w *field) want(d time.Duration, list ...int) time.Duration {
	w.Helper()
	began := w.now
	if !w.runUntil(d, w.agree(list...)) {
		lack := 0
		for _, i := range list {
			for _, j := range list {
				if w.nodes[i].s.Version(w.nodes[j].id.Short()) != w.nodes[j].version {
					lack++
				}
			}
		}
		w.Fatalf("after %v, %d of %d link states are not where they belong", d, lack, len(list)*len(list))
	}
	return w.now.Sub(began)
}
