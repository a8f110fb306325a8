package dataplane

import (
	"testing"

	"github.com/warren-vpn/warren/internal/packet"
)

// chunk is how many super-packets a benchmark of receiving takes between two pauses of the clock in which they are made: a counter
// can be received only once.
const chunk = 8

// benchmarkReceive measures what node at does with what node 0 sends to node to: b.SetBytes counts inner bytes.
func benchmarkReceive(b *testing.B, fast bool, at, to int) {
	w := newBurrow(b, 3, [2]int{0, 1}, [2]int{1, 2})
	w.route(0, 1, 2)
	for _, h := range w.nodes {
		h.host.quiet = true
		for _, p := range h.peers {
			if p != nil {
				p.Session.SetFast(fast)
			}
		}
	}
	f := w.frame(0, to, 55000)
	var last packet.Datagrams
	w.nodes[at].plane.socket = discard{&last}
	var trains []packet.Datagrams
	made := 0
	b.SetBytes(int64(len(f.Data)))
	b.ReportAllocs()
	for b.Loop() {
		if made == 0 {
			b.StopTimer()
			for range chunk {
				w.transmit(0, f)
			}
			if at == 2 {
				w.step(0)
				trains = w.nodes[1].wire.sent
				w.nodes[1].wire.sent = nil
			} else {
				trains = w.nodes[0].wire.sent
				w.nodes[0].wire.sent = nil
			}
			made = chunk
			b.StartTimer()
		}
		made--
		w.nodes[at].arrive(trains[made])
	}
	if d := w.nodes[at].plane.Drops(); len(d) > 0 {
		b.Fatalf("drops %v", d)
	}
}

// Receiving for itself, with and without a relay before, and passing on: a relay is to need no more than 0.6 of what receiving needs.
func BenchmarkIn(b *testing.B)            { benchmarkReceive(b, false, 1, 1) }
func BenchmarkInFast(b *testing.B)        { benchmarkReceive(b, true, 1, 1) }
func BenchmarkInRelayed(b *testing.B)     { benchmarkReceive(b, false, 2, 2) }
func BenchmarkInRelayedFast(b *testing.B) { benchmarkReceive(b, true, 2, 2) }
func BenchmarkForward(b *testing.B)       { benchmarkReceive(b, false, 1, 2) }
func BenchmarkForwardFast(b *testing.B)   { benchmarkReceive(b, true, 1, 2) }

func BenchmarkOutFast(b *testing.B)        { benchmarkOut(b) }
func BenchmarkOutRelayed(b *testing.B)     { benchmarkSend(b, false) }
func BenchmarkOutRelayedFast(b *testing.B) { benchmarkSend(b, true) }

func benchmarkOut(b *testing.B) {
	x, _ := newPair(b, false)
	x.peer.Session.SetFast(true)
	var last packet.Datagrams
	x.plane.socket = discard{&last}
	f := superPacket(55000, 1240)
	b.SetBytes(int64(len(f.Data)))
	b.ReportAllocs()
	for b.Loop() {
		transmit(x, f)
	}
}

func benchmarkSend(b *testing.B, fast bool) {
	w := newBurrow(b, 3, [2]int{0, 1}, [2]int{1, 2})
	w.route(0, 1, 2)
	for _, p := range w.nodes[0].peers[1:] {
		p.Session.SetFast(fast)
	}
	var last packet.Datagrams
	w.nodes[0].plane.socket = discard{&last}
	f := w.frame(0, 2, 55000)
	b.SetBytes(int64(len(f.Data)))
	b.ReportAllocs()
	for b.Loop() {
		w.transmit(0, f)
	}
}
