package dataplane

import (
	"bytes"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// newLineOf makes a row of n nodes, of which the first and the last reach each other over all between.
func newLineOf(t testing.TB, n int) *burrow {
	t.Helper()
	var links [][2]int
	var over []int
	for i := range n - 1 {
		links = append(links, [2]int{i, i + 1})
		over = append(over, i+1)
	}
	w := newBurrow(t, n, links...)
	w.route(0, over...)
	return w
}

// seal makes a relayed datagram with this header and tail, sealed by node i for node j.
func (w *burrow) seal(i, j int, header, tail []byte) packet.Datagrams {
	buf := make([]byte, wire.RelayOverhead+len(header))
	copy(buf[wireguard.HeaderLen:], header)
	if _, err := w.nodes[i].peers[j].Session.Sending().SealHeader(testTime.UnixNano(), buf, len(header), 1); err != nil {
		w.t.Fatal(err)
	}
	buf = append(buf, tail...)
	return packet.Datagrams{Data: buf, Segment: len(buf), Addr: w.nodes[i].addr}
}

// header makes an encoded header of these nodes for the one at place at. A node beyond the last is a stranger.
func (w *burrow) header(at int, ids ...int) []byte {
	b := []byte{0, 0, byte(len(ids)), byte(at)}
	for _, i := range ids {
		id := key.ShortID{0xff, byte(i)}
		if i < len(w.nodes) {
			id = w.nodes[i].id.Short()
		}
		b = append(b, id[:]...)
	}
	return b
}

// someTail has the form of a transport message.
func someTail() []byte {
	return append([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 40)...)
}

// A super-packet crosses over one to four relays as one train on each leg, and what the host gets is what was sent.
// spec/52-relay.md#forwarding spec/52-relay.md#sending spec/52-relay.md#mtu
func TestRelayedSuperPacketCrossesWhole(t *testing.T) {
	for relays := 1; relays <= wire.MaxRelays; relays++ {
		w := newLineOf(t, relays+2)
		last := w.nodes[relays+1]
		f := w.frame(0, relays+1, 50000)
		w.transmit(0, f)
		for i := range relays + 1 {
			sent := w.step(i)
			if len(sent) != 1 || sent[0].Addr != w.nodes[i+1].addr {
				t.Fatalf("%d relays: node %d sends %d trains", relays, i, len(sent))
			}
			if want := wire.RelayOverhead + wire.RelayHeaderSize(relays) + 1280 + overhead; sent[0].Segment != want {
				t.Fatalf("%d relays: datagrams of %d bytes, want %d", relays, sent[0].Segment, want)
			}
		}
		if len(last.host.got) != 1 || !bytes.Equal(last.host.got[0].Data[40:], f.Data[40:]) {
			t.Fatalf("%d relays: the host got %d frames; drops %v", relays, len(last.host.got), last.plane.Drops())
		}
		var back []int
		for i := relays; i > 0; i-- {
			back = append(back, i)
		}
		if got, want := last.peers[0].From(), wire.Via(w.relays(back...)); got != want {
			t.Fatalf("the way back is %v, want %v", got, want)
		}
		s := w.nodes[1].net.RelayStats()
		if s.Packets != 41 || s.Dropped != 0 || s.Bytes < 50000 || w.nodes[1].peers[0].Relayed() != s {
			t.Fatalf("the first relay counts %+v", s)
		}
		w.transmit(relays+1, w.frame(relays+1, 0, 3000)) // and back
		for i := relays + 1; i > 0; i-- {
			w.step(i)
		}
		if len(w.nodes[0].host.got) != 1 {
			t.Fatalf("%d relays: no answer: drops %v", relays, w.nodes[0].plane.Drops())
		}
	}
}

// Nothing of what the ends say is on any leg or in the relay's hands, and nobody can change it: spec/52-relay.md#privacy
func TestRelaysReadNothingAndChangeNothing(t *testing.T) {
	w := newLineOf(t, 3)
	f := w.frame(0, 2, 1000)
	secret := []byte("nobody but the two ends may know this")
	copy(f.Data[40:], secret)
	w.transmit(0, f)
	for i := range 2 {
		for _, d := range w.step(i) {
			if bytes.Contains(d.Data, secret[:8]) || bytes.Contains(d.Data, f.Data[12:20]) {
				t.Fatalf("leg %d shows what is inside", i)
			}
			for _, h := range w.nodes {
				if id := h.id.Short(); bytes.Contains(d.Data, id[:]) {
					t.Fatalf("leg %d shows the route", i)
				}
			}
		}
	}
	if len(w.nodes[2].host.got) != 1 || len(w.nodes[1].host.got) != 0 {
		t.Fatal("not delivered")
	}
	w.transmit(0, f)
	sent := w.nodes[0].wire.sent[0]
	sent.Data[len(sent.Data)-40] ^= 1
	w.step(0)
	w.step(1)
	if d := w.nodes[2].plane.Drops(); len(w.nodes[2].host.got) != 1 || d["bad_auth"] != 1 || len(w.nodes[1].plane.Drops()) != 0 {
		t.Fatalf("a changed tail: the host got %d, drops %v, of the relay %v", len(w.nodes[2].host.got), d, w.nodes[1].plane.Drops())
	}
}

// What a relay refuses to pass on, what the neighbour hears of it, and that nothing is sent.
// spec/52-relay.md#forwarding spec/52-relay.md#tail spec/52-relay.md#frame
func TestRelayRefuses(t *testing.T) {
	const stranger = 9
	for _, c := range []struct {
		name   string
		at     int
		ids    []int // of a burrow in which 0-1, 1-2, 1-3 are neighbours; node 1 gets it from node 0
		tail   []byte
		change func(w *burrow)
		drop   string
		reason wire.PathReason // 0: no path error
	}{
		{name: "good", at: 1, ids: []int{0, 1, 2}},
		{name: "for another receiver", at: 2, ids: []int{3, 0, 2, 1}, drop: "relay_refused"},
		{name: "not by the one before", at: 1, ids: []int{2, 1, 3}, drop: "relay_refused"},
		{name: "its own id at another place", at: 2, ids: []int{3, 0, 1, 2}},
		{name: "a stranger's", at: 2, ids: []int{stranger, 0, 1, 2}, drop: "relay_refused", reason: wire.ReasonRefused},
		{name: "to a stranger", at: 1, ids: []int{0, 1, 2, stranger}, drop: "relay_refused", reason: wire.ReasonRefused},
		{name: "next hop is a stranger", at: 1, ids: []int{0, 1, stranger, 2}, drop: "relay_no_hop", reason: wire.ReasonUnreachable},
		{name: "next hop is far", at: 1, ids: []int{0, 1, 4}, drop: "relay_no_hop", reason: wire.ReasonUnreachable},
		{name: "next hop is reached by a relay", at: 1, ids: []int{0, 1, 4}, change: func(w *burrow) { w.route(1, 3, 4) }, drop: "relay_no_hop", reason: wire.ReasonUnreachable},
		{name: "no session with the next hop", at: 1, ids: []int{0, 1, 2}, change: func(w *burrow) {
			w.nodes[1].engine.RemovePeer(w.nodes[1].peers[2].Session.Public())
		}, drop: "relay_no_hop", reason: wire.ReasonUnreachable},
		{name: "does not relay", at: 1, ids: []int{0, 1, 2}, change: func(w *burrow) { w.hops(1, nil) }, drop: "relay_refused", reason: wire.ReasonRefused},
		{name: "source put out", at: 2, ids: []int{3, 0, 1, 2}, change: func(w *burrow) { w.hops(1, relayAll, 3) }, drop: "relay_refused", reason: wire.ReasonRefused},
		{name: "destination put out", at: 1, ids: []int{0, 1, 3, 2}, change: func(w *burrow) { w.hops(1, relayAll, 2) }, drop: "relay_refused", reason: wire.ReasonRefused},
		{name: "no longer a member itself", at: 1, ids: []int{0, 1, 2}, change: func(w *burrow) { w.hops(1, relayAll, 0) }, drop: "relay_refused"},
		{name: "a relayed datagram inside", at: 1, ids: []int{0, 1, 2}, tail: append([]byte{5, 28, 0, 0}, make([]byte, 100)...), drop: "malformed"},
		{name: "a join inside", at: 1, ids: []int{0, 1, 2}, tail: append([]byte{6}, make([]byte, 100)...), drop: "malformed"},
		{name: "no tail", at: 1, ids: []int{0, 1, 2}, tail: []byte{}, drop: "malformed"},
		{name: "a half initiation", at: 1, ids: []int{0, 1, 2}, tail: append([]byte{1}, make([]byte, 100)...), drop: "malformed"},
		{name: "a loop", at: 1, ids: []int{0, 1, 2, 1}, drop: "malformed"},
		{name: "no relay", at: 1, ids: []int{0, 1}, drop: "unknown_type"},
		{name: "five relays", at: 1, ids: []int{0, 1, 2, 3, 4, 5, 6}, drop: "unknown_type"},
		{name: "a hundred ids", at: 1, ids: make([]int, 30), drop: "unknown_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newBurrow(t, 5, [2]int{0, 1}, [2]int{1, 2}, [2]int{1, 3}, [2]int{3, 4})
			if c.change != nil {
				c.change(w)
			}
			if c.tail == nil {
				c.tail = someTail()
			}
			relay := w.nodes[1]
			relay.drain()
			relay.arrive(w.seal(0, 1, w.header(c.at, c.ids...), c.tail))
			if c.drop == "" {
				if len(relay.wire.sent) != 1 || len(relay.plane.Drops()) != 0 {
					t.Fatalf("sent %d, drops %v", len(relay.wire.sent), relay.plane.Drops())
				}
				return
			}
			if want := map[string]uint64{c.drop: 1}; !maps.Equal(relay.plane.Drops(), want) || len(relay.wire.sent) != 0 {
				t.Fatalf("drops %v, want %v; sent %d", relay.plane.Drops(), want, len(relay.wire.sent))
			}
			var failures []Event
			for _, e := range relay.drain() {
				if e.Kind == EventPathError {
					failures = append(failures, e)
				} else if e.Kind != EventMoved && e.Kind != EventNotice {
					t.Errorf("event %+v", e)
				}
			}
			if c.reason == 0 {
				if len(failures) != 0 {
					t.Fatalf("answers %+v", failures)
				}
				return
			}
			if len(failures) != 1 || failures[0].Peer != relay.peers[0] || failures[0].Reason != c.reason || failures[0].Header.Receiver() != relay.id.Short() {
				t.Fatalf("path errors %+v, want reason %v", failures, c.reason)
			}
		})
	}
}

// Who was put out while its datagrams flow is relayed no more, though their header is the same as before.
// spec/52-relay.md#forwarding
func TestAMemberThatIsPutOutIsRelayedNoMore(t *testing.T) {
	for _, out := range []int{0, 2, 3} { // neighbour, destination, source
		w := newBurrow(t, 4, [2]int{0, 1}, [2]int{1, 2})
		relay := w.nodes[1]
		for n := range 5 {
			if n == 3 {
				w.hops(1, relayAll, out)
			}
			relay.arrive(w.seal(0, 1, w.header(2, 3, 0, 1, 2), someTail()))
		}
		if len(relay.wire.sent) != 3 {
			t.Errorf("node %d was put out after 3 datagrams, and %d were relayed", out, len(relay.wire.sent))
		}
	}
}

// hops publishes the members that node i knows, without those named.
func (w *burrow) hops(i int, policy *RelayPolicy, without ...int) {
	h := w.nodes[i]
	known := maps.Clone(h.ids)
	for _, j := range without {
		delete(known, w.nodes[j].id.Short())
	}
	h.net.SetHops(h.id.Short(), known, policy)
}

// Headers that are forged, changed, sent again or sent back open nothing, and nobody hears of it.
// spec/52-relay.md#receiving
func TestForgedHeadersAreDropped(t *testing.T) {
	w := newLineOf(t, 3)
	relay := w.nodes[1]
	good := w.seal(0, 1, w.header(1, 0, 1, 2), someTail())
	again := packet.Datagrams{Data: bytes.Clone(good.Data), Segment: good.Segment, Addr: good.Addr}
	relay.arrive(good)
	relay.arrive(again)
	bad := w.seal(0, 1, w.header(1, 0, 1, 2), someTail())
	bad.Data[20] ^= 1
	relay.arrive(bad)
	cut := w.seal(0, 1, w.header(1, 0, 1, 2), someTail())
	cut.Data, cut.Segment = cut.Data[:40], 40
	relay.arrive(cut)
	tiny := packet.Datagrams{Data: []byte{5, 28, 0, 0}, Segment: 4, Addr: good.Addr}
	relay.arrive(tiny)
	stale := w.seal(0, 1, w.header(1, 0, 1, 2), someTail())
	stale.Data[4], stale.Data[5] = 0xff, 0xff
	relay.arrive(stale)
	stock := w.seal(0, 1, w.header(1, 0, 1, 2), someTail())
	stock.Data[0], stock.Data[1] = 4, 0 // as a transport message
	relay.arrive(stock)
	want := map[string]uint64{"replayed": 1, "bad_auth": 2, "no_session": 1, "malformed": 2}
	if d := relay.plane.Drops(); !maps.Equal(d, want) || len(relay.wire.sent) != 1 {
		t.Fatalf("drops %v, want %v; sent %d", d, want, len(relay.wire.sent))
	}
	for _, e := range relay.drain() {
		if e.Kind != EventMoved && e.Kind != EventNotice {
			t.Errorf("event %+v", e)
		}
	}
}

// One neighbour gets ten path errors a second at most, however much it sends. spec/52-relay.md#path-error
func TestPathErrorsAreLimited(t *testing.T) {
	w := newLineOf(t, 3)
	relay := w.nodes[1]
	w.hops(1, nil)
	relay.drain()
	for range 200 {
		relay.arrive(w.seal(0, 1, w.header(1, 0, 1, 2), someTail()))
	}
	n := 0
	for _, e := range relay.drain() {
		if e.Kind == EventPathError {
			n++
			if got, want := e.Header.Failure(e.Reason), (wire.PathError{Source: w.nodes[0].id.Short(), Destination: w.nodes[2].id.Short(), Route: w.relays(1), Reason: wire.ReasonRefused}); got != want {
				t.Fatalf("path error %+v, want %+v", got, want)
			}
		}
	}
	if n != 10 || relay.plane.Drops()["relay_refused"] != 200 || relay.net.RelayStats().Dropped != 200 || relay.net.RelayStats().Shed != 0 {
		t.Fatalf("%d path errors, drops %v, stats %+v", n, relay.plane.Drops(), relay.net.RelayStats())
	}
}

// A tail gets no further than it would have got by itself, and only if its session is with the source that the header names.
// spec/52-relay.md#receiving
func TestRelayedTailsPassTheSameChecks(t *testing.T) {
	w := newBurrow(t, 4, [2]int{0, 1}, [2]int{1, 2}, [2]int{3, 1})
	w.route(0, 1, 2)
	w.route(3, 1, 2)
	end := w.nodes[2]
	f := w.frame(0, 2, 100)
	copy(f.Data[12:], w.nodes[3].inner.AsSlice()) // another's inner address
	f.Offload.GSO = packet.GSONone
	w.transmit(0, f)
	w.step(0)
	w.step(1)
	if d := end.plane.Drops(); len(end.host.got) != 0 || d["bad_source"] != 1 {
		t.Fatalf("the host got %d, drops %v", len(end.host.got), d)
	}
	w.transmit(0, w.frame(0, 2, 100))
	sent := w.nodes[0].wire.sent[0]
	w.nodes[0].wire.sent = nil
	tail := sent.Data[wire.RelayOverhead+wire.RelayHeaderSize(1):]
	end.arrive(w.seal(1, 2, w.header(2, 3, 1, 2), tail)) // the relay names another source
	if d := end.plane.Drops(); len(end.host.got) != 0 || d["relay_refused"] != 1 {
		t.Fatalf("the host got %d, drops %v", len(end.host.got), d)
	}
	end.arrive(w.seal(1, 2, w.header(2, 9, 1, 2), tail)) // ... or nobody
	if d := end.plane.Drops(); d["relay_refused"] != 2 {
		t.Fatalf("drops %v", d)
	}
	end.drain()
	end.arrive(w.seal(1, 2, w.header(2, 9, 1, 2), append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...)))
	for _, e := range end.drain() {
		if e.Kind == EventDatagram {
			t.Errorf("the control loop is given a handshake message of nobody's: %+v", e)
		}
	}
	end.arrive(w.seal(1, 2, w.header(2, 0, 1, 2), tail))
	if len(end.host.got) != 1 {
		t.Fatalf("the genuine one is not taken: drops %v", end.plane.Drops())
	}
	w.hops(2, nil) // to receive is not to relay
	w.transmit(0, w.frame(0, 2, 100))
	w.step(0)
	w.step(1)
	if len(end.host.got) != 2 {
		t.Fatalf("a node that does not relay does not receive: %v", end.plane.Drops())
	}
}

// Handshake and control messages cross relays; the answer goes the way back. spec/52-relay.md#receiving
func TestHandshakesAndControlMessagesCrossRelays(t *testing.T) {
	w := newLineOf(t, 4)
	first, last := w.nodes[0], w.nodes[3]
	way, back := wire.Via(w.relays(1, 2)), wire.Via(w.relays(2, 1))
	initiation := append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...)
	if !first.plane.SendHandshake(first.peers[3], way, initiation, nil) || !first.plane.SendControl(first.peers[3], wire.Way{}, wire.Bye{}.Append(nil)) {
		t.Fatal("not sent")
	}
	for i := range 3 {
		w.step(i)
	}
	var got []EventKind
	for _, e := range last.drain() {
		if e.Kind == EventMoved || e.Kind == EventNotice {
			continue
		}
		got = append(got, e.Kind)
		if e.Peer != last.peers[0] || e.Way != back || e.Kind == EventDatagram && !bytes.Equal(e.Data, initiation) {
			t.Errorf("event %+v", e)
		}
	}
	if len(got) != 2 || got[0] != EventDatagram || got[1] != EventControl {
		t.Fatalf("events %v; drops %v", got, last.plane.Drops())
	}
	first.plane.SendHandshake(first.peers[1], wire.Direct(w.nodes[1].addr), initiation, nil)
	first.plane.SendRaw(w.nodes[1].addr, initiation, nil)
	w.step(0)
	n := 0
	for _, e := range w.nodes[1].drain() {
		if e.Kind == EventDatagram {
			n++
			if e.Peer != nil || e.Way != wire.Direct(first.addr) {
				t.Errorf("direct: %+v", e)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d direct handshake messages", n)
	}
	for _, bad := range []wire.Way{{}, wire.Via(w.relays(2))} { // node 2 is no neighbour
		if first.plane.SendHandshake(first.peers[3], bad, initiation, nil) || bad.IsValid() && first.plane.SendControl(first.peers[3], bad, nil) {
			t.Errorf("sent by %v", bad)
		}
	}
}

// spec/52-relay.md#sending
func TestPacketsWaitWhenTheFirstRelayIsGone(t *testing.T) {
	w := newLineOf(t, 3)
	first := w.nodes[0]
	w.cut(0, 1)
	for range 50 {
		w.transmit(0, w.frame(0, 2, 100))
	}
	events := first.drain()
	if len(events) != 10 || events[0].Kind != EventNoHop || events[0].Peer != first.peers[2] || events[0].Way != wire.Via(w.relays(1)) || len(first.wire.sent) != 0 {
		t.Fatalf("%d events, first %+v", len(events), events[0])
	}
	w.link(0, 1)
	first.plane.SendStaged(first.peers[2])
	w.step(0)
	w.step(1)
	if n := len(w.nodes[2].host.got); n != 50 {
		t.Fatalf("the host got %d of 50", n)
	}
	// Once there is no path at all, the next packet asks for one again.
	w.cut(0, 1)
	w.transmit(0, w.frame(0, 2, 100))
	w.cut(0, 2)
	first.drain()
	w.transmit(0, w.frame(0, 2, 100))
	if e := first.drain(); len(e) != 1 || e[0].Kind != EventWanted {
		t.Fatalf("events %+v", e)
	}
}

// While a detour is the better path to a neighbour, the neighbour is still a hop, at its own address.
// spec/52-relay.md#forwarding
func TestHopIsDirectAlsoWhenADetourIsBetter(t *testing.T) {
	w := newBurrow(t, 4, [2]int{0, 1}, [2]int{1, 2}, [2]int{1, 3}, [2]int{3, 2})
	relay := w.nodes[1]
	relay.paths.SetRoutes(testTime, w.nodes[2].id, []wire.Route{w.relays(3)})
	relay.answer(2*time.Minute, func(way wire.Way) time.Duration {
		if way.IsRelayed() {
			return 20 * time.Millisecond
		}
		return 100 * time.Millisecond
	})
	if c := relay.peers[2].Path.Choice(); !c.Way.IsRelayed() {
		t.Fatalf("no detour: %+v", c)
	}
	relay.arrive(w.seal(0, 1, w.header(1, 0, 1, 2), someTail()))
	if len(relay.wire.sent) != 1 || relay.wire.sent[0].Addr != w.nodes[2].addr {
		t.Fatalf("sent %+v, drops %v", relay.wire.sent, relay.plane.Drops())
	}
}

// A peer that speaks by two ways in turn does not flood the control loop.
func TestMovingPeersAreNotReportedEachTime(t *testing.T) {
	w := newLineOf(t, 3)
	first, last := w.nodes[0], w.nodes[2]
	w.link(0, 2)
	last.drain()
	for range 100 {
		first.plane.SendControl(first.peers[2], wire.Via(w.relays(1)), nil)
		first.plane.SendControl(first.peers[2], wire.Direct(last.addr), nil)
		w.step(0)
		w.step(1)
	}
	n := map[wire.Way]int{}
	for _, e := range last.drain() {
		if e.Kind == EventMoved && e.Peer == last.peers[0] {
			n[e.Way]++
		}
	}
	if n[wire.Via(w.relays(1))]+n[wire.Direct(first.addr)] > 4 || n[wire.Direct(first.addr)] == 0 || n[wire.Via(w.relays(1))] == 0 {
		t.Fatalf("events %v", n)
	}
}

// Four workers share the socket of a relay: no datagram is lost, and those of a flow keep their order.
func TestManyWorkersRelayInOrder(t *testing.T) {
	w := newLineOf(t, 3)
	const count = 300
	in := &feed{}
	for i := range count {
		f := w.frame(0, 2, 1+i*37%30000)
		f.Data[24], f.Data[25] = byte(i>>8), byte(i)
		w.transmit(0, f)
	}
	in.trains = w.nodes[0].wire.sent
	relay := w.nodes[1]
	relay.plane.workers = 4
	relay.plane.socket = in
	if err := relay.plane.Run(); err != nil {
		t.Fatal(err)
	}
	last := -1
	end := w.nodes[2]
	for _, d := range in.sent {
		d.Addr = relay.addr
		end.arrive(d)
	}
	for _, f := range end.host.got {
		n := int(f.Data[24])<<8 | int(f.Data[25])
		if n < last {
			t.Fatalf("frame %d after %d", n, last)
		}
		last = n
	}
	if last != count-1 || len(end.plane.Drops())+len(relay.plane.Drops()) != 0 {
		t.Fatalf("last frame %d, drops %v and %v", last, relay.plane.Drops(), end.plane.Drops())
	}
}

// Datagrams of several flows, mixed in one receive: each goes where it belongs, in its order, and what stood side by side
// stays coupled. spec/52-relay.md#forwarding
func TestMixedTrainsAreTakenApart(t *testing.T) {
	w := newBurrow(t, 5, [2]int{0, 1}, [2]int{1, 2}, [2]int{1, 3})
	relay := w.nodes[1]
	row := []int{2, 2, 2, 3, 3, 2, 4, 2, 2} // node 4 is far
	var d packet.Datagrams
	for i, to := range row {
		tail := append(someTail(), byte(i))
		one := w.seal(0, 1, w.header(1, 0, 1, to), tail)
		d.Data = append(d.Data, one.Data...)
		d.Segment, d.Addr = one.Segment, one.Addr
	}
	relay.arrive(d)
	type train struct {
		to netip.AddrPort
		n  int
	}
	want := []train{{w.nodes[2].addr, 3}, {w.nodes[3].addr, 2}, {w.nodes[2].addr, 1}, {w.nodes[2].addr, 2}}
	if len(relay.wire.sent) != len(want) {
		t.Fatalf("%d trains, want %d", len(relay.wire.sent), len(want))
	}
	for i, s := range relay.wire.sent {
		if (train{s.Addr, len(s.Data) / s.Segment}) != want[i] {
			t.Errorf("train %d: %v of %d, want %+v", i, s.Addr, len(s.Data)/s.Segment, want[i])
		}
	}
	var numbers []byte
	for _, s := range relay.wire.sent {
		for at := s.Segment; at <= len(s.Data); at += s.Segment {
			numbers = append(numbers, s.Data[at-1])
		}
	}
	if !bytes.Equal(numbers, []byte{0, 1, 2, 3, 4, 5, 7, 8}) {
		t.Errorf("datagrams %v", numbers)
	}
}

func TestRelayAllocatesNothing(t *testing.T) {
	w := newLineOf(t, 3)
	w.nodes[2].host.quiet = true
	var last packet.Datagrams
	for _, h := range w.nodes {
		h.plane.socket = discard{&last}
	}
	f := w.frame(0, 2, 20000)
	buf := make([]byte, bufferSize)
	step := func() {
		w.transmit(0, f)
		for _, i := range []int{1, 2} {
			w.nodes[i].arrive(packet.Datagrams{Data: buf[:copy(buf, last.Data)], Segment: last.Segment, Addr: w.nodes[i-1].addr})
		}
	}
	step()
	if n := testing.AllocsPerRun(100, step); n != 0 {
		t.Fatalf("%v allocations for a super-packet sent, relayed and received", n)
	}
	if w.nodes[2].host.count < 100 {
		t.Fatalf("the host got %d frames; drops %v", w.nodes[2].host.count, w.nodes[2].plane.Drops())
	}
}

// What watches a route, pings and pongs, is no use of the links on its way; packets of the hosts are.
// spec/51-path.md#timers
func TestPingsOverARelayAreNoUse(t *testing.T) {
	w := newLineOf(t, 3)
	links := []*Peer{w.nodes[0].peers[1], w.nodes[1].peers[0], w.nodes[2].peers[1]}
	for _, body := range [][]byte{nil, wire.Ping{ID: 1}.Append(nil), wire.Pong{ID: 1, Observed: netip.MustParseAddrPort("[2001:db8::1]:1")}.Append(nil)} {
		if !w.nodes[0].plane.SendControl(w.nodes[0].peers[2], wire.Way{}, body) {
			t.Fatal("not sent")
		}
		if len(w.step(0)) != 1 || len(w.step(1)) != 1 {
			t.Fatal("it did not cross")
		}
	}
	for i, l := range links {
		if l.Carried() != 0 {
			t.Errorf("link %d counts %d bytes of pings as use", i, l.Carried())
		}
	}
	w.transmit(0, w.frame(0, 2, 100))
	if len(w.step(0)) != 1 || len(w.step(1)) != 1 {
		t.Fatal("it did not cross")
	}
	for i, l := range links {
		if l.Carried() == 0 {
			t.Errorf("link %d counts no use", i)
		}
	}
}
