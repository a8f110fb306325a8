package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

var someMasks = []*wire.Mask{wire.NewMask([]byte("other")), wire.NewMask([]byte("ours")), wire.NewMask([]byte("third"))}

// recognised reports whether somebody without the mask sees what b is, or what its tail would be.
func recognised(b []byte) bool { return wire.IsPlain(b) }

// maskAll masks all that the nodes of a burrow say to each other.
func (w *burrow) maskAll() {
	for _, h := range w.nodes {
		h.plane.SetMasks(someMasks)
		for _, p := range h.peers {
			if p != nil {
				p.SetMask(someMasks[1])
			}
		}
	}
}

// Masked super-packets cross over relays in the same trains, of the same size, as plain ones, and on no leg is there anything by which
// one datagram is like another: neither at the front, nor where the header of the end's own message stands.
// spec/75-mask.md#block spec/75-mask.md#sending
func TestMaskedSuperPacketsCrossRelays(t *testing.T) {
	for relays := 0; relays <= wire.MaxRelays; relays++ {
		w := newBurrow(t, 2, [2]int{0, 1})
		if relays > 0 {
			w = newLineOf(t, relays+2)
		}
		w.maskAll()
		last := w.nodes[relays+1]
		f := w.frame(0, relays+1, 50000)
		w.transmit(0, f)
		for i := range relays + 1 {
			sent := w.nodes[i].wire.sent
			if len(sent) != 1 {
				t.Fatalf("%d relays: node %d sends %d trains", relays, i, len(sent))
			}
			want, tail := 1280+overhead, 0
			if relays > 0 {
				tail = wire.RelayOverhead + wire.RelayHeaderSize(relays)
				want += tail
			}
			if sent[0].Segment != want {
				t.Fatalf("%d relays: datagrams of %d bytes, want %d", relays, sent[0].Segment, want)
			}
			seen := map[string]bool{}
			for d := sent[0].Data; len(d) > 0; d = d[min(len(d), want):] {
				places := []int{0, 4, 8, 12}
				if tail > 0 {
					for at := 16; at < tail+16; at += 4 { // spec/52-relay.md#shared-seals: not when it is masked
						places = append(places, at)
					}
				}
				for _, at := range places {
					word := string(d[at:at+4]) + string(rune(at))
					if seen[word] {
						t.Fatalf("%d relays, leg %d: %x comes twice at %d", relays, i, d[at:at+4], at)
					}
					seen[word] = true
				}
				if recognised(d) {
					t.Fatalf("%d relays, leg %d: %x is recognised", relays, i, d[:4])
				}
			}
			w.step(i)
		}
		if len(last.host.got) != 1 || !bytes.Equal(last.host.got[0].Data[40:], f.Data[40:]) {
			t.Fatalf("%d relays: the host got %d frames; drops %v", relays, len(last.host.got), last.plane.Drops())
		}
	}
}

// Handshakes go in boxes, over relays too, of another size each time and on each leg; a relay that itself is spoken to plain masks for
// the next. Who has no mask for it takes nothing.
// spec/75-mask.md#box spec/75-mask.md#receiving spec/75-mask.md#sending
func TestMaskedHandshakes(t *testing.T) {
	w := newLineOf(t, 4)
	w.maskAll()
	first, last := w.nodes[0], w.nodes[3]
	first.peers[1].SetMask(nil) // one that lags
	way := wire.Via(w.relays(1, 2))
	initiation := append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...)
	sizes := map[int]bool{}
	for range 20 {
		if !first.plane.SendHandshake(first.peers[3], way, initiation, nil) {
			t.Fatal("not sent")
		}
		for i := range 3 {
			for _, d := range w.nodes[i].wire.sent {
				if i > 0 && recognised(d.Data) || i == 0 && !recognised(d.Data) {
					t.Fatalf("leg %d: %x", i, d.Data[:8])
				}
				if sizes[len(d.Data)] = true; len(d.Data) > wire.MaxMasked {
					t.Fatalf("%d bytes", len(d.Data))
				}
			}
			w.step(i)
		}
	}
	got := 0
	for _, e := range last.drain() {
		if e.Kind == EventDatagram {
			got++
			if !bytes.Equal(e.Data, initiation) || e.Peer != last.peers[0] || e.Mask != nil {
				t.Errorf("event %+v", e)
			}
		}
	}
	if got != 20 || len(sizes) < 15 {
		t.Errorf("%d handshakes arrived, of %d sizes", got, len(sizes))
	}
	first.plane.SendHandshake(first.peers[1], wire.Direct(w.nodes[1].addr), initiation, someMasks[2])
	first.plane.SendRaw(w.nodes[1].addr, initiation, someMasks[0])
	first.plane.SendRaw(w.nodes[1].addr, initiation, nil)
	first.plane.SendRaw(w.nodes[1].addr, nil, someMasks[0]) // to open a NAT
	first.plane.SendRaw(w.nodes[1].addr, initiation, wire.NewMask([]byte("unknown")))
	w.step(0)
	var came []*wire.Mask
	for _, e := range w.nodes[1].drain() {
		if e.Kind == EventDatagram {
			came = append(came, e.Mask)
		}
	}
	if d := w.nodes[1].plane.Drops(); len(came) != 3 || came[0] != someMasks[2] || came[1] != someMasks[0] || came[2] != nil || d["unknown_type"] != 2 {
		t.Errorf("came under %v; drops %v", came, d)
	}
}

// What looks random and is under no mask of ours is nothing, whatever its first byte is: the control loop hears of none of it.
// spec/75-mask.md#receiving
func TestWhatIsUnderNoMaskIsNothing(t *testing.T) {
	w := newBurrow(t, 2, [2]int{0, 1})
	w.maskAll()
	for first := range 256 {
		d := bytes.Repeat([]byte{0xE9}, 100)
		d[0] = byte(first)
		w.nodes[1].arrive(packet.Datagrams{Data: d, Segment: len(d), Addr: w.nodes[0].addr})
	}
	e, d := w.nodes[1].drain(), w.nodes[1].plane.Drops()
	if len(e) > 0 || len(d) != 1 || d["unknown_type"] != 256 {
		t.Errorf("events %+v; drops %v", e, d)
	}
	answer := append([]byte{1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42}, bytes.Repeat([]byte{0xE9}, 24)...) // a server of STUN says so: spec/73-nat.md#servers
	w.nodes[1].arrive(packet.Datagrams{Data: answer, Segment: len(answer), Addr: w.nodes[0].addr})
	if e = w.nodes[1].drain(); len(e) != 1 || !bytes.Equal(e[0].Data, answer) {
		t.Errorf("an answer of STUN brings %+v", e)
	}
}

// A relayed datagram that nobody takes by its looks, for its header is too long, comes to no more in a box.
// spec/75-mask.md#box spec/52-relay.md#frame
func TestBoxedHeadersAreChecked(t *testing.T) {
	for name, ids := range map[string][]int{"five relays": {0, 1, 2, 3, 4, 5, 6}, "thirty ids": make([]int, 30)} {
		w := newBurrow(t, 3, [2]int{0, 1}, [2]int{1, 2})
		w.maskAll()
		box := someMasks[1].Box(w.seal(0, 1, w.header(1, ids...), someTail()).Data)
		w.nodes[1].arrive(packet.Datagrams{Data: box, Segment: len(box), Addr: w.nodes[0].addr})
		if d := w.nodes[1].plane.Drops(); len(d) != 1 || d["malformed"] != 1 || len(w.nodes[1].wire.sent) > 0 {
			t.Errorf("%s: drops %v; sent %d", name, d, len(w.nodes[1].wire.sent))
		}
	}
}

// Nothing is allocated for a masked packet, sent or received. spec/75-mask.md#block
func TestMaskAllocatesNothing(t *testing.T) {
	a, b := newPair(t, false)
	b.plane.SetMasks(someMasks)
	a.peer.SetMask(someMasks[2])
	b.host.quiet = true
	var last packet.Datagrams
	a.plane.socket = discard{&last}
	f := superPacket(50000, 1240)
	step := func() {
		transmit(a, f)
		b.recv.now, b.recv.index = testTime.UnixNano(), *b.plane.index.Load()
		b.recv.train(packet.Datagrams{Data: last.Data, Segment: last.Segment, Addr: addrs[0]})
		b.recv.flush()
	}
	step()
	if n := testing.AllocsPerRun(100, step); n != 0 {
		t.Errorf("%v allocations for a super-packet", n)
	}
	if b.host.count < 100 {
		t.Fatalf("the host got %d frames; drops %v", b.host.count, b.plane.Drops())
	}
}

// Whatever comes, masked or not, of it nothing reaches the host, nothing is sent, and what is a box is read as what is in it.
// spec/75-mask.md#receiving
func FuzzUnmask(f *testing.F) {
	a, b := newPair(f, false)
	b.plane.SetMasks(someMasks)
	index := b.peer.Session.Sending().LocalIndex()
	frame := func(first ...byte) []byte {
		d := binary.LittleEndian.AppendUint32(first, index)
		return append(d, make([]byte, 60)...)
	}
	f.Add(frame(4, 0, 0, 0), true)
	f.Add(frame(5, 28, 0, 0), true)
	f.Add(frame(5, 52, 1, 0), true)
	f.Add(append([]byte{1}, make([]byte, 147)...), false)
	f.Add([]byte{6}, false)
	f.Add([]byte("d1:ad2:id20:"), false)
	f.Fuzz(func(t *testing.T, d []byte, block bool) {
		if len(d) > 1200 || len(d) == 0 {
			return
		}
		in := bytes.Clone(d)
		if block && len(d) >= 64 && (d[0] == 4 || d[0] == 5 && d[1] < 16) {
			someMasks[1].Cover(in)
		} else if !block {
			in = someMasks[1].Box(in)
		}
		b.recv.now, b.recv.index = testTime.UnixNano(), *b.plane.index.Load()
		b.recv.train(packet.Datagrams{Data: in, Segment: len(in), Addr: addrs[0]})
		b.recv.flush()
		b.recv.received()
		if len(b.host.got) > 0 || len(b.wire.sent) > 0 {
			t.Fatalf("%x: the host got %d, %d sent", d, len(b.host.got), len(b.wire.sent))
		}
		for drained := false; !drained; {
			select {
			case e := <-b.events:
				if e.Kind == EventDatagram && !block && !bytes.Equal(e.Data, d) {
					t.Fatalf("%x came out of the box as %x", d, e.Data)
				}
			default:
				drained = true
			}
		}
		_ = a
	})
}

func benchmarkMasked(b *testing.B, masks int, at int) {
	x, y := newPair(b, false)
	x.peer.Session.SetFast(true)
	var list []*wire.Mask
	for i := range masks {
		list = append(list, wire.NewMask([]byte{byte(i)}))
	}
	if masks > 0 {
		x.peer.SetMask(list[at])
	}
	y.plane.SetMasks(list)
	y.host.quiet = true
	var last packet.Datagrams
	x.plane.socket = discard{&last}
	f := superPacket(55000, 1240)
	b.SetBytes(int64(len(f.Data)))
	b.ReportAllocs()
	for b.Loop() {
		transmit(x, f)
		y.recv.now, y.recv.index = testTime.UnixNano(), *y.plane.index.Load()
		y.recv.train(packet.Datagrams{Data: last.Data, Segment: last.Segment, Addr: addrs[0]})
		y.recv.flush()
	}
	if d := y.plane.Drops(); len(d) > 0 {
		b.Fatalf("drops %v", d)
	}
}

// Sending and receiving a super-packet of 45 messages, plain and masked.
func BenchmarkThroughPlain(b *testing.B)  { benchmarkMasked(b, 0, 0) }
func BenchmarkThroughMasked(b *testing.B) { benchmarkMasked(b, 2, 0) }

// What nobody knows, under all masks that there may be.
func BenchmarkGarbage(b *testing.B) {
	_, y := newPair(b, false)
	var list []*wire.Mask
	for i := range MaxMasks {
		list = append(list, wire.NewMask([]byte{byte(i)}))
	}
	y.plane.SetMasks(list)
	y.recv.index = *y.plane.index.Load()
	d := make([]byte, 1200)
	for i := range d {
		d[i] = byte(rand.Uint32())
	}
	d[0] = 0x99
	b.ReportAllocs()
	for b.Loop() {
		y.recv.train(packet.Datagrams{Data: d, Segment: len(d), Addr: addrs[0]})
	}
}
