package gossip

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// spec/50-control.md#sync
func TestAllConverge(t *testing.T) {
	for _, n := range []int{2, 20, 100} {
		for _, loss := range []float64{0, 0.05, 0.3} {
			if n == 100 && loss != 0.05 {
				continue
			}
			t.Run(fmt.Sprintf("%d nodes, loss %v", n, loss), func(t *testing.T) {
				w := newWorld(t, n, loss)
				for i := range n {
					w.fill(i, i*5, i*5+5) // each has five that nobody else has
				}
				for i := range n { // a ring, and chance links
					w.connect(i, (i+1)%n)
					for range 3 {
						w.connect(i, w.rng.IntN(n))
					}
				}
				d := w.want(2*time.Minute, 5*n, upTo(n)...)
				bytes, messages := w.traffic()
				t.Logf("%d records in %v, %d kB in %d messages", 5*n, d, bytes/1000, messages)
			})
		}
	}
}

// A member that was away gets everything on its return. spec/50-control.md#sync, spec/50-control.md#rounds
func TestReturn(t *testing.T) {
	w := newWorld(t, 4, 0.05)
	w.mesh(0, 1, 2, 3)
	for i := range 50 {
		w.add(i%4, record(i))
	}
	w.want(20*time.Second, 50, 0, 1, 2, 3)
	for i := range 3 {
		w.disconnect(3, i)
	}
	for i := range 200 {
		w.add(i%3, record(100+i))
		w.run(50 * time.Millisecond)
	}
	w.want(20*time.Second, 250, 0, 1, 2)
	w.mesh(0, 1, 2, 3)
	t.Logf("back after %v", w.want(10*time.Second, 250, 3))
}

// spec/50-control.md#sync
func TestPartitionAndMerge(t *testing.T) {
	w := newWorld(t, 10, 0.05)
	left, right := []int{0, 1, 2, 3, 4}, []int{5, 6, 7, 8, 9}
	w.mesh(left...)
	w.mesh(right...)
	for i := range 300 {
		w.add(left[i%5], record(i))
		w.add(right[i%5], record(1000+i))
		w.run(20 * time.Millisecond)
	}
	w.want(20*time.Second, 300, upTo(10)...)
	w.connect(4, 5) // one link joins the halves
	t.Logf("merged after %v", w.want(60*time.Second, 600, upTo(10)...))
}

// A newcomer connects to many who all have everything: it gets everything, about once.
// spec/50-control.md#limits
func TestNewcomer(t *testing.T) {
	const n, records = 12, 3000
	w := newWorld(t, n, 0.01)
	size := 0
	for r := range records {
		size += wire.RecordSpace(record(r).Raw)
	}
	for i := 1; i < n; i++ {
		w.fill(i, 0, records)
	}
	for i := 1; i < n; i++ {
		w.connect(0, i)
	}
	d := w.want(60*time.Second, records, 0)
	bytes := w.nodes[0].bytes
	t.Logf("%d records (%d kB) in %v: received %d kB", records, size/1000, d, bytes/1000)
	if bytes > 2*size {
		t.Errorf("the newcomer received %d kB for %d kB of records", bytes/1000, size/1000)
	}
	w.traffic()
	w.run(10 * time.Second)
	if bytes, _ := w.traffic(); bytes > size/2 {
		t.Errorf("afterwards %d kB more went over the wires", bytes/1000)
	}
}

// What a record depends on came before it, and goes before it. spec/50-control.md#flooding
func TestBulkComesInOrder(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.fill(0, 0, 500)
	var order []wire.RecordID
	w.nodes[1].judge = func(d Deliver) verdict { order = append(order, d.ID); return accept }
	w.steady = true // no reordering: the order of arrival is that of sending
	w.connect(0, 1)
	w.want(30*time.Second, 500, 1)
	for i, id := range order {
		if id != record(i).ID {
			t.Fatalf("record %d of 500 came out of order", i)
		}
	}
}

// spec/50-control.md#cost
func TestOneMissingOfTenThousand(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.fill(0, 0, 10000)
	w.fill(1, 1, 10000)
	w.connect(0, 1)
	w.traffic()
	d := w.want(5*time.Second, 10000, 1)
	bytes, messages := w.traffic()
	t.Logf("one missing of 10,000: %d bytes in %d messages, %v", bytes, messages, d)
	if bytes >= 4000 {
		t.Errorf("%d bytes, want less than 4,000", bytes)
	}
	w.run(time.Second)
	w.traffic()
	w.run(10 * time.Minute)
	bytes, messages = w.traffic()
	t.Logf("10 minutes of equal sets: %d bytes in %d messages", bytes, messages)
	if bytes > 20*2*60 {
		t.Errorf("%d bytes in 10 minutes between two that hold the same", bytes)
	}
}

// A revocation must reach connected members within 2 s at 5 % loss. spec/50-control.md#flooding
func TestFloodAtFivePercentLoss(t *testing.T) {
	for _, c := range []struct{ nodes, before int }{{2, 20}, {2, 400}, {2, 10000}, {20, 400}} {
		t.Run(fmt.Sprintf("%d nodes, %d records", c.nodes, c.before), func(t *testing.T) {
			w := newWorld(t, c.nodes, 0.05)
			for i := range c.nodes {
				w.fill(i, 0, c.before)
			}
			w.mesh(upTo(c.nodes)...)
			w.run(10 * time.Second)
			floods := 1000 / c.nodes
			late, worst := 0, time.Duration(0)
			for i := range floods {
				r := record(100000 + i)
				w.add(i%c.nodes, r)
				at := w.now
				w.runUntil(10*time.Second, w.converged(c.before+i+1, upTo(c.nodes)...))
				d := w.now.Sub(at)
				worst = max(worst, d)
				if d > 2*time.Second {
					late++
				}
				w.run(3 * time.Second)
			}
			t.Logf("%d of %d floods took longer than 2 s, the longest %v", late, floods, worst)
			if late*100 > floods {
				t.Errorf("%d of %d floods took longer than 2 s", late, floods)
			}
		})
	}
}

// spec/50-control.md#flooding
func TestFloodGoesOnceToEachAndNotBack(t *testing.T) {
	w := newWorld(t, 5, 0)
	w.mesh(upTo(5)...)
	w.run(5 * time.Second)
	r := record(1)
	sent := map[[2]key.NodeID]int{}
	at := w.now
	w.nodes[0].e.Add(at, r.ID, r.Raw, w.nodes[1].id) // as if node 1 had sent it
	w.nodes[0].e.Tick(at.Add(coalesce))
	for _, f := range w.nodes[0].e.Effects() {
		if s, ok := f.(Send); ok {
			if m, ok := s.Body.(wire.Records); ok {
				sent[[2]key.NodeID{w.nodes[0].id, s.Peer}] += len(m.Raw)
			}
		}
	}
	if len(sent) != 3 || sent[[2]key.NodeID{w.nodes[0].id, w.nodes[1].id}] != 0 {
		t.Errorf("sent to %v, want once to each of three", sent)
	}
	w.nodes[0].e.Add(at, r.ID, r.Raw, key.NodeID{})
	w.nodes[0].e.Tick(at.Add(2 * coalesce))
	if len(w.nodes[0].e.Effects()) != 0 {
		t.Error("a record that was known was flooded again")
	}
}

// Records that come together go out together. spec/50-control.md#records, spec/50-control.md#flooding
func TestFloodsAreBatched(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.connect(0, 1)
	w.run(5 * time.Second)
	w.traffic()
	for i := range 12 {
		w.add(0, record(i))
	}
	w.run(100 * time.Millisecond)
	if n := w.nodes[1].messages; n > 4 || w.nodes[1].e.Len() != 12 {
		t.Errorf("12 records of 300 bytes took %d messages, %d arrived", n, w.nodes[1].e.Len())
	}
}

// Each node drops what another superseded; the sets agree in the end and nobody asks for the old again and again.
func TestSuperseded(t *testing.T) {
	w := newWorld(t, 3, 0)
	old, next := record(1), record(2)
	for i, n := range w.nodes {
		n.judge = func(d Deliver) verdict {
			if d.ID == old.ID && w.nodes[i].e.Has(next.ID) {
				return reject
			}
			if d.ID == next.ID {
				w.nodes[i].e.Remove(old.ID)
			}
			return accept
		}
	}
	w.add(0, old)
	w.mesh(0, 1)
	w.want(5*time.Second, 1, 0, 1)
	w.add(2, next)
	w.mesh(0, 1, 2)
	w.run(10 * time.Second)
	for i, n := range w.nodes {
		if n.e.Len() != 1 || !n.e.Has(next.ID) {
			t.Errorf("node %d holds %d records, the newer one: %v", i, n.e.Len(), n.e.Has(next.ID))
		}
	}
}

// A record that the owner cannot judge yet is offered again, until it can.
func TestUndecidedIsOfferedAgain(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.fill(0, 0, 10)
	offers := 0
	w.nodes[1].judge = func(d Deliver) verdict {
		if d.ID != record(3).ID {
			return accept
		}
		if offers++; offers < 4 {
			return wait
		}
		return accept
	}
	w.connect(0, 1)
	w.want(20*time.Second, 10, 1)
}

func TestPeersThatAreNotUp(t *testing.T) {
	e, now := New(Config{Network: network}, nil), time.Unix(1e9, 0)
	if err := e.Handle(now, key.NodeID{1}, wire.Sync{}); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("a message of a stranger gives %v", err)
	}
	e.PeerDown(now, key.NodeID{1})
	r := record(1)
	e.Add(now, r.ID, r.Raw, key.NodeID{1})
	if !e.Tick(now).IsZero() || e.Effects() != nil {
		t.Error("an engine without peers has something to do")
	}
	e.PeerUp(now, key.NodeID{1})
	e.PeerUp(now, key.NodeID{1})
	e.Tick(now)
	if n := len(e.Effects()); n != 1 {
		t.Errorf("%d messages at first contact, want 1", n)
	}
	e.PeerDown(now, key.NodeID{1})
	if !e.Tick(now.Add(time.Hour)).IsZero() {
		t.Error("a timer runs without peers")
	}
}

func BenchmarkReconcile10k(b *testing.B) {
	records := make([]wire.Record, 10000)
	for i := range records {
		records[i] = record(i)
	}
	for _, missing := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("missing %d", missing), func(b *testing.B) {
			w := newWorld(b, 2, 0)
			for i, r := range records {
				w.add(0, r)
				if i >= missing {
					w.add(1, r)
				}
			}
			w.connect(0, 1)
			w.want(time.Minute, len(records), 1)
			w.run(10 * time.Second)
			w.traffic()
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range records[:missing] {
					w.nodes[1].e.set.remove(r.ID)
				}
				for _, p := range w.nodes[0].e.order {
					p.want(w.now)
					p.known = newIDs[wire.RecordPrefix](maxKnown)
				}
				w.nodes[0].settle()
				w.want(time.Minute, len(records), 1)
				w.run(10 * time.Second)
			}
			bytes, _ := w.traffic()
			b.ReportMetric(float64(bytes)/float64(b.N), "wire-B/op")
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	e, now := New(Config{Network: network}, nil), time.Unix(1e9, 0)
	var records []wire.Record
	for i := range 10000 {
		records = append(records, record(i))
	}
	for _, r := range records {
		e.Add(now, r.ID, r.Raw, key.NodeID{})
	}
	i := 0
	for b.Loop() {
		r := records[i%len(records)]
		e.set.remove(r.ID)
		e.Add(now, r.ID, r.Raw, key.NodeID{})
		i++
	}
}
