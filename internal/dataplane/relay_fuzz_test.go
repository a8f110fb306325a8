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
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, 255), someTail())
	relay := w.nodes[1]
	f.Fuzz(func(t *testing.T, header, tail []byte) {
		if len(header) > 255 || len(tail) > 2000 {
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
