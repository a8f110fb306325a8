package dataplane

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// fronts returns the fronts of the datagrams of d, over so many relays.
func fronts(d packet.Datagrams, relays int) (out [][]byte) {
	for b := d.Data; len(b) > 0; b = b[min(d.Segment, len(b)):] {
		out = append(out, b[:wire.RelayOverhead+wire.RelayHeaderSize(relays)])
	}
	return out
}

// share makes one datagram for each place, of a seal for share of them from node i for node j; the tails end with the places.
func (w *burrow) share(i, j, share int, header []byte, places ...byte) packet.Datagrams {
	front := make([]byte, wire.RelayOverhead+len(header))
	copy(front[wireguard.HeaderLen:], header)
	if _, err := w.nodes[i].peers[j].Session.Sending().SealHeader(testTime.UnixNano(), front, len(header), share); err != nil {
		w.t.Fatal(err)
	}
	d := packet.Datagrams{Addr: w.nodes[i].addr}
	for _, p := range places {
		one := slices.Concat(front, someTail(), []byte{p})
		wireguard.ShareSeal(one, front, int(p))
		d.Data, d.Segment = append(d.Data, one...), len(one)
	}
	return d
}

// lasts returns the last byte of each datagram that h has sent.
func (h *hub) lasts() (out []byte) {
	for _, d := range h.wire.sent {
		for b := d.Data; len(b) > 0; b = b[min(d.Segment, len(b)):] {
			out = append(out, b[min(d.Segment, len(b))-1])
		}
	}
	return out
}

// What was one frame bears one seal on each leg, and another on the next; frames of their own have their own. A frame of more packets
// than a seal is for has several. spec/52-relay.md#shared-seals
func TestATrainHasOneSeal(t *testing.T) {
	for relays := 1; relays <= wire.MaxRelays; relays++ {
		w := newLineOf(t, relays+2)
		first, second := w.frame(0, relays+1, 30000), w.frame(0, relays+1, 20000)
		w.transmit(0, first)
		w.transmit(0, second)
		seen := map[string]bool{}
		for i := range relays + 1 {
			sent := w.step(i)
			if len(sent) != 2 {
				t.Fatalf("%d relays, leg %d: %d trains", relays, i, len(sent))
			}
			for _, d := range sent {
				all := fronts(d, relays)
				for place, f := range all {
					if int(f[3]) != place || !wireguard.SameSeal(f, all[0]) {
						t.Fatalf("%d relays, leg %d: the front at place %d is %x, the first %x", relays, i, place, f, all[0])
					}
				}
				if seen[string(all[0])] {
					t.Fatalf("%d relays, leg %d: the seal is that of another train", relays, i)
				}
				seen[string(all[0])] = true
			}
		}
		if got := w.nodes[relays+1].host.got; len(got) != 2 || !bytes.Equal(got[0].Data[40:], first.Data[40:]) || !bytes.Equal(got[1].Data[40:], second.Data[40:]) {
			t.Fatalf("%d relays: the host got %d frames; drops %v", relays, len(got), w.nodes[relays+1].plane.Drops())
		}
	}
	w := newLineOf(t, 3)
	f := superPacket(15000, 100)
	copy(f.Data[12:], w.nodes[0].inner.AsSlice())
	copy(f.Data[16:], w.nodes[2].inner.AsSlice())
	w.transmit(0, f)
	seals := map[string]int{}
	for _, d := range w.step(0) {
		for _, f := range fronts(d, 1) {
			seals[string(f[8:])]++
		}
	}
	w.step(1)
	got := 0
	for _, f := range w.nodes[2].host.got {
		got += len(f.Data) - 40
	}
	if len(seals) != 3 || got != 15000 || len(w.nodes[2].plane.Drops()) != 0 {
		t.Errorf("150 packets under %d seals, %d bytes arrived, drops %v", len(seals), got, w.nodes[2].plane.Drops())
	}
}

// Datagrams under one seal of which some are lost, late, twice there, or not what they should be: each is judged for itself, and no
// place passes twice. spec/52-relay.md#shared-seals
func TestSharedSealsOneByOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		share  int
		places []byte
		change func(one []byte, n int) // of the datagram at place 3
		passed []byte
		drops  map[string]uint64
	}{
		{name: "all", share: 8, places: []byte{0, 1, 2, 3, 4, 5, 6, 7}, passed: []byte{0, 1, 2, 3, 4, 5, 6, 7}},
		{name: "only the last", share: 8, places: []byte{7}, passed: []byte{7}},
		{name: "in another order", share: 8, places: []byte{5, 0, 6, 2}, passed: []byte{5, 0, 6, 2}},
		{name: "twice", share: 8, places: []byte{1, 1, 2, 3, 2}, passed: []byte{1, 2, 3}, drops: map[string]uint64{"replayed": 2}},
		{name: "beyond the seal", share: 4, places: []byte{3, 4, 63, 0}, passed: []byte{3, 0}, drops: map[string]uint64{"malformed": 2}},
		{name: "beyond the seal at first", share: 2, places: []byte{2, 0, 1}, passed: []byte{0, 1}, drops: map[string]uint64{"malformed": 1}},
		{name: "no place there can be", share: 8, places: []byte{0, 3, 1}, change: func(b []byte, _ int) { b[3] = 64 }, passed: []byte{0, 1}, drops: map[string]uint64{"malformed": 1}},
		{name: "another tag", share: 8, places: []byte{0, 1, 3, 4}, change: func(b []byte, n int) { b[n-1] ^= 1 }, passed: []byte{0, 1, 4}, drops: map[string]uint64{"bad_auth": 1}},
		{name: "another tag at first", share: 8, places: []byte{3, 1, 4}, change: func(b []byte, n int) { b[n-1] ^= 1 }, passed: []byte{1, 4}, drops: map[string]uint64{"bad_auth": 1}},
		{name: "another header", share: 8, places: []byte{0, 3, 4}, change: func(b []byte, n int) { b[n-20] ^= 1 }, passed: []byte{0, 4}, drops: map[string]uint64{"bad_auth": 1}},
		{name: "another counter", share: 8, places: []byte{0, 3, 4}, change: func(b []byte, _ int) { b[8] ^= 64 }, passed: []byte{0, 4}, drops: map[string]uint64{"bad_auth": 1}},
		{name: "another session", share: 8, places: []byte{0, 3, 4}, change: func(b []byte, _ int) { b[7] ^= 64 }, passed: []byte{0, 4}, drops: map[string]uint64{"no_session": 1}},
		{name: "no tail", share: 8, places: []byte{0, 3, 4}, change: func(b []byte, n int) { b[n] = 9 }, passed: []byte{0, 4}, drops: map[string]uint64{"malformed": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newLineOf(t, 3)
			relay, end := w.nodes[1], w.nodes[2]
			d := w.share(0, 1, c.share, w.header(1, 0, 1, 2), c.places...)
			if i := slices.Index(c.places, 3); c.change != nil {
				c.change(d.Data[i*d.Segment:], wire.RelayOverhead+wire.RelayHeaderSize(1))
			}
			again := packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment, Addr: w.nodes[2].addr} // by who has overheard it
			relay.arrive(d)
			relay.drain()
			if got := relay.lasts(); !bytes.Equal(got, c.passed) || !maps.Equal(relay.plane.Drops(), c.drops) {
				t.Fatalf("passed %v, want %v; drops %v, want %v", got, c.passed, relay.plane.Drops(), c.drops)
			}
			w.step(1)
			if d := end.plane.Drops(); !maps.Equal(d, map[string]uint64{"no_session": uint64(len(c.passed))}) { // the tails are nobody's
				t.Errorf("the end opens no header: drops %v", d)
			}
			relay.arrive(again)
			if got := relay.lasts(); len(got) > 0 {
				t.Errorf("passed again: %v", got)
			}
			for _, e := range relay.drain() {
				if e.Kind == EventMoved {
					t.Errorf("who sends it again from elsewhere is taken for the neighbour: %+v", e)
				}
			}
		})
	}
}

// Of a row that does not open each is counted, and what comes behind it is judged for itself. spec/52-relay.md#shared-seals
func TestSealsThatDoNotOpen(t *testing.T) {
	w := newLineOf(t, 3)
	relay := w.nodes[1]
	d := w.share(0, 1, 4, w.header(1, 0, 1, 2), 0, 1, 2, 3)
	for i := range 4 {
		d.Data[i*d.Segment+30] ^= 1
	}
	d.Data = append(d.Data, w.share(0, 1, 2, w.header(1, 0, 1, 2), 0, 1).Data...)
	relay.arrive(d)
	if got, drops := relay.lasts(), relay.plane.Drops(); !bytes.Equal(got, []byte{0, 1}) || !maps.Equal(drops, map[string]uint64{"bad_auth": 4}) {
		t.Errorf("passed %v, drops %v", got, drops)
	}
}

// A short datagram ends a train, and one that is no whole front is none. spec/52-relay.md#sealing
func TestSharedSealsAtTheEndOfATrain(t *testing.T) {
	w := newLineOf(t, 3)
	relay := w.nodes[1]
	for cut, want := range map[int]int{1: 3, 17: 3, 18: 2, 49: 2, 50: 2, 65: 2, 108: 2} { // tails are of 49 bytes, and need 32
		d := w.share(0, 1, 3, w.header(1, 0, 1, 2), 0, 1, 2)
		d.Data = d.Data[:len(d.Data)-cut]
		relay.wire.sent = nil
		relay.arrive(d)
		if got := len(relay.lasts()); got != want {
			t.Errorf("without the last %d bytes %d passed, want %d", cut, got, want)
		}
	}
}

// What waits for its turn in a relay has the header of each that came under one seal. spec/52-relay.md#fair-queue
func TestSharedSealsWaitInTheQueue(t *testing.T) {
	w := newLineOf(t, 4)
	w.hops(1, &RelayPolicy{Rate: 1 << 30})
	f := w.frame(0, 3, 50000)
	w.transmit(0, f)
	w.step(0)
	relay := w.nodes[1]
	items, _ := relay.net.shaper.take(testTime.Add(time.Second).UnixNano(), 0, nil)
	if len(items) != 41 {
		t.Fatalf("%d datagrams wait; drops %v", len(items), relay.plane.Drops())
	}
	relay.net.release(relay.send, items)
	w.step(1)
	w.step(2)
	if got := w.nodes[3].host.got; len(got) != 1 || !bytes.Equal(got[0].Data[40:], f.Data[40:]) {
		t.Fatalf("the host got %d frames; drops %v and %v", len(got), w.nodes[2].plane.Drops(), w.nodes[3].plane.Drops())
	}
}

// A copy of each packet by a second way bears the seals of that way. spec/52-relay.md#sending
func TestCopiesShareSealsOfTheirOwn(t *testing.T) {
	w := newLineOf(t, 3)
	f := w.frame(0, 2, 30000)
	h := w.nodes[0]
	h.send.now = testTime.UnixNano()
	also := h.send.second()
	if !also.road.resolve(h.peers[2], &wire.Way{Route: w.relays(1)}) {
		t.Fatal("no way")
	}
	also.road.count = 2 // fewer than come: what is expected is not a promise
	for i := range 5 {
		also.repeat(append(someTail(), byte(i)))
	}
	h.send.flush()
	w.transmit(0, f)
	w.step(0)
	if got := w.nodes[1].lasts(); len(got) != 5+25 || !bytes.Equal(got[:5], []byte{0, 1, 2, 3, 4}) || len(w.nodes[1].plane.Drops()) != 0 {
		t.Fatalf("passed %v; drops %v", got, w.nodes[1].plane.Drops())
	}
}

// A relay that is spoken to plain, by one that lags, and masks for the next hop: no two of what leaves are alike, and all arrives.
// spec/52-relay.md#shared-seals spec/75-mask.md#sending
func TestMaskedTrainsShareNoSeal(t *testing.T) {
	w := newLineOf(t, 3)
	w.maskAll()
	w.nodes[0].peers[1].SetMask(nil)
	f := w.frame(0, 2, 50000)
	w.transmit(0, f)
	if all := fronts(w.step(0)[0], 1); !wireguard.SameSeal(all[0], all[40]) {
		t.Fatal("what is sent plain does not share a seal")
	}
	seen := map[string]bool{}
	for _, d := range w.step(1) {
		for _, f := range fronts(d, 1) {
			for at := 0; at < len(f); at += 4 {
				word := string(f[at:at+4]) + string(rune(at))
				if seen[word] {
					t.Fatalf("%x comes twice at %d", f[at:at+4], at)
				}
				seen[word] = true
			}
		}
	}
	if got := w.nodes[2].host.got; len(got) != 1 || !bytes.Equal(got[0].Data[40:], f.Data[40:]) {
		t.Fatalf("the host got %d frames; drops %v", len(got), w.nodes[2].plane.Drops())
	}
}
