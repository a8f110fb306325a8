package dataplane

import (
	"testing"

	"github.com/warren-vpn/warren/internal/wire"
)

// Whatever a neighbour seals into a header and puts behind it: a relay sends one datagram of the same length at most, to a
// neighbour that the header names after the relay, and nothing of it reaches the host. spec/52-relay.md#forwarding
func FuzzRelay(f *testing.F) {
	w := newBurrow(f, 4, [2]int{0, 1}, [2]int{1, 2}, [2]int{1, 3})
	for _, ids := range [][]int{{0, 1, 2}, {0, 1, 3, 2}, {0, 1, 2, 9}, {0, 1}, {0, 2, 1}, {2, 0, 1}} {
		f.Add(w.header(1, ids...), someTail())
		f.Add(w.header(2, ids...), append([]byte{1}, make([]byte, 147)...))
	}
	f.Add([]byte{0}, []byte{})
	f.Add(make([]byte, 255), someTail())
	relay := w.nodes[1]
	f.Fuzz(func(t *testing.T, header, tail []byte) {
		if len(header) == 0 || len(header) > 255 || len(tail) > 2000 {
			return
		}
		relay.wire.sent = nil
		in := w.seal(0, 1, header, tail)
		relay.arrive(in)
		relay.drain()
		if len(relay.host.got) != 0 || len(relay.wire.sent) > 1 {
			t.Fatalf("the host got %d frames, %d trains were sent", len(relay.host.got), len(relay.wire.sent))
		}
		if len(relay.wire.sent) == 0 {
			return
		}
		out := relay.wire.sent[0]
		h, err := wire.ParseRelayHeader(header)
		if err != nil || len(out.Data) != len(in.Data) || !wire.IsTail(tail) || h.Previous() != w.nodes[0].id.Short() || h.Receiver() != relay.id.Short() {
			t.Fatalf("%x was passed on: %v", header, err)
		}
		if next := relay.ids[h.Next()]; next == nil || next.Path.Choice().Direct != out.Addr {
			t.Fatalf("%x went to %v", header, out.Addr)
		}
	})
}

// Whatever becomes of a train under one seal on its way, cut as anybody likes: a relay passes no datagram on twice, nor more than came, and
// each is one that came, but for its front. spec/52-relay.md#shared-seals
func FuzzSharedSeal(f *testing.F) {
	w := newBurrow(f, 3, [2]int{0, 1}, [2]int{1, 2})
	relay, end := w.nodes[1], w.nodes[2]
	const front, one = 60, 60 + 49
	f.Add([]byte{0, 1, 2, 3}, []byte{}, uint16(one))
	f.Add([]byte{3, 3, 0, 63, 64}, []byte{0, 3, 5}, uint16(one))
	f.Add([]byte{1, 2}, []byte{1, 9, 1}, uint16(50))
	f.Add([]byte{1}, []byte{}, uint16(1))
	f.Fuzz(func(t *testing.T, places, changes []byte, segment uint16) {
		if len(places) == 0 || len(places) > 100 || segment == 0 {
			return
		}
		d := w.share(0, 1, 4, w.header(1, 0, 1, 2), places...)
		for ; len(changes) >= 3; changes = changes[3:] { // datagram, byte, by what
			d.Data[(int(changes[0])*one+int(changes[1]))%len(d.Data)] ^= changes[2]
		}
		d.Segment = int(segment)
		tails := map[string]int{}
		for b := d.Data; len(b) > 0; b = b[min(d.Segment, len(b)):] {
			if n := min(d.Segment, len(b)); n >= front {
				tails[string(b[front:n])]++
			}
		}
		relay.wire.sent = nil
		relay.arrive(d)
		relay.drain()
		passed := uint64(0)
		for _, s := range relay.wire.sent {
			for b := s.Data; len(b) > 0; b = b[min(s.Segment, len(b)):] {
				tail := string(b[front:min(s.Segment, len(b))])
				if tails[tail]--; tails[tail] < 0 {
					t.Fatalf("%x was passed on, and had not come", tail)
				}
				passed++
			}
		}
		before := end.plane.Drops()
		w.step(1)
		after := end.plane.Drops()
		if passed > 4 || after["replayed"] != before["replayed"] || after["malformed"] != before["malformed"] || after["bad_auth"] != before["bad_auth"] {
			t.Fatalf("%d passed under a seal for 4; the end: %v, then %v", passed, before, after)
		}
	})
}
