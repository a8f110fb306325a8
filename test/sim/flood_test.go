package sim

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var floodNodes = flag.Int("flood", 0, "number of nodes of TestFloodByHand")

// pool is a network too large to have whole nodes in one process: each has only its gossip.States, links are fixed and by
// chance, and messages go from one to another in virtual time without testnet.
type pool struct {
	*lone
	*testing.T
	rand    *rand.Rand
	start   time.Time
	tick    int // now, in milliseconds since start
	wheel   [][]parcel
	nodes   []*drop
	index   map[key.ShortID]int
	newest  []wire.Version
	lacking int // nodes times link states that are not where they must be yet
	bytes   int64
	sent    int64
}

// drop is one node of a pool.
type drop struct {
	n     int
	id    key.NodeID
	s     *gossip.States
	peers []int
	armed int
}

// parcel is a message on its way or, without a body, a timer.
type parcel struct {
	to   int32
	from int32
	body any
}

const wheelSize = 1 << 16 // milliseconds; later timers are set anew

func newPool(t *testing.T, n int) *pool {
	p := &pool{lone: newLone(n), T: t, rand: rand.New(rand.NewPCG(5, uint64(n))), wheel: make([][]parcel, wheelSize), index: map[key.ShortID]int{},
		newest: make([]wire.Version, n)}
	p.start = p.now
	for i, m := range p.members {
		p.nodes = append(p.nodes, &drop{n: i, id: m.ID})
		p.index[m.ID.Short()] = i
		if len(p.links[i]) == 0 { // nobody is alone
			o := (i + 1) % n
			p.links[i][o], p.links[o][i] = 300, 300
		}
	}
	for i, d := range p.nodes {
		for o := range p.links[i] {
			d.peers = append(d.peers, o)
		}
		slices.Sort(d.peers)
	}
	return p
}

func (p *pool) at(tick int, x parcel) {
	tick = min(max(tick, p.tick+1), p.tick+wheelSize-1)
	p.wheel[tick%wheelSize] = append(p.wheel[tick%wheelSize], x)
}

// run lets time go by until nothing is lacking, or for so long. It returns how long it took.
func (p *pool) run(d time.Duration) time.Duration {
	from := p.tick
	for end := p.tick + int(d/time.Millisecond); p.tick < end && p.lacking > 0; {
		p.tick++
		p.now = p.start.Add(time.Duration(p.tick) * time.Millisecond)
		list := p.wheel[p.tick%wheelSize]
		p.wheel[p.tick%wheelSize] = nil
		for _, x := range list {
			d := p.nodes[x.to]
			if d.s == nil {
				continue
			}
			switch m := x.body.(type) {
			case nil:
				if d.armed == p.tick {
					d.armed = 0
					p.settle(d)
				}
			case gossip.Message:
				if err := d.s.Handle(p.now, p.nodes[x.from].id, m); err != nil && !errors.Is(err, gossip.ErrUnknownPeer) { // not begun yet
					p.Fatal(err)
				}
				p.settle(d)
			case func():
				m()
			}
		}
	}
	return time.Duration(p.tick-from) * time.Millisecond
}

func (p *pool) settle(d *drop) {
	for {
		next := d.s.Tick(p.now)
		effects := d.s.Effects()
		for _, f := range effects {
			switch f := f.(type) {
			case gossip.Send:
				to := p.index[f.Peer.Short()]
				size := len(f.Body.Append(nil)) + underlay
				p.bytes += int64(size)
				p.sent++
				delay := 5 + int(p.links[d.n][to])/20 // half of the round trip
				p.at(p.tick+delay, parcel{int32(to), int32(d.n), f.Body})
			case gossip.DeliverState:
				p.take(d, f)
			}
		}
		if len(effects) > 0 {
			continue
		}
		if !next.IsZero() {
			at := min(max(int((next.Sub(p.start)+time.Millisecond-1)/time.Millisecond), p.tick+1), p.tick+wheelSize-1)
			if d.armed == 0 || at < d.armed || d.armed <= p.tick {
				d.armed = at
				p.at(at, parcel{to: int32(d.n)})
			}
		}
		return
	}
}

// take accepts what was delivered, with the bytes that all share.
func (p *pool) take(d *drop, f gossip.DeliverState) {
	i := p.index[f.State.Node]
	if f.State.Version == p.newest[i] {
		p.lacking--
		f.Raw = p.raw[i]
	}
	d.s.Set(p.now, f.Raw, f.State, f.Peer)
}

// state makes a new link state of node i, which all others lack.
func (p *pool) restate(i int) {
	v := wire.Version{Epoch: 1, Seq: p.newest[i].Seq + 1}
	p.lone.state(i, v.Seq)
	p.newest[i] = v
	p.lacking += len(p.nodes) - 1
	p.nodes[i].s.Set(p.now, p.raw[i], p.states[i], key.NodeID{})
	p.settle(p.nodes[i])
}

// TestFloodByHand: all start at once without a map, then single changes, then many. go test ./test/sim -run TestFloodByHand
// -flood 5000 -v -timeout 2h. It needs about 450 bytes for each pair of nodes.
func TestFloodByHand(t *testing.T) {
	n := *floodNodes
	if n == 0 {
		t.Skip("asks for a number: go test ./test/sim -run TestFloodByHand -flood 5000 -timeout 2h -v")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(40))
	p := newPool(t, n)
	began := time.Now()
	tell := func(what string, states int, took time.Duration) {
		t.Logf("%-40s %8.2f s  %7.0f B and %.2f messages sent a link state and node; %.0f B/s a node; %v of real time", what, took.Seconds(),
			float64(p.bytes)/float64(states)/float64(n), float64(p.sent)/float64(states)/float64(n), float64(p.bytes)/float64(n)/took.Seconds(), time.Since(began).Round(time.Second))
		if p.lacking > 0 {
			t.Errorf("%s: %d link states are not where they should be", what, p.lacking)
		}
		p.bytes, p.sent = 0, 0
	}
	for i, d := range p.nodes {
		p.at(1+p.rand.IntN(1000), parcel{to: int32(i), body: func() {
			for _, o := range d.peers {
				d.s.PeerUp(p.now, p.nodes[o].id)
			}
			p.restate(i)
		}})
		d.s = gossip.NewStates(gossip.StatesConfig{Rand: rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})}, nil)
	}
	p.lacking++ // until all have begun
	p.run(1100 * time.Millisecond)
	p.lacking--
	tell("all start within 1 s, no map", n, 1100*time.Millisecond+p.run(10*time.Minute))
	p.lacking++
	p.run(2 * time.Minute)
	p.lacking--
	tell("rest", n, 2*time.Minute)
	var times []time.Duration
	for range 10 {
		p.restate(p.rand.IntN(n))
		times = append(times, p.run(time.Minute))
	}
	slices.Sort(times)
	tell(fmt.Sprintf("one change, median of 10 (most %v)", times[9]), 10, times[5])
	for _, i := range p.rand.Perm(n)[:n/10] {
		p.restate(i)
	}
	tell("one node in ten changes, at once", n/10, p.run(10*time.Minute))
	t.Logf("heap: %d bytes a pair of nodes", heap()/uint64(n)/uint64(n))
	runtime.KeepAlive(p)
}
