package dataplane

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
)

var (
	poolBroadcast = netip.MustParseAddr("10.0.0.255")
	mdns          = netip.MustParseAddr("224.0.0.251")
)

// call makes a UDP packet from src to dst and port.
func call(src, dst netip.Addr, port uint16, payload []byte) []byte {
	u := append(make([]byte, 8), payload...)
	binary.BigEndian.PutUint16(u, 5000)
	binary.BigEndian.PutUint16(u[2:], port)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	if dst.Is6() {
		p := append([]byte{0x60, 0, 0, 0, byte(len(u) >> 8), byte(len(u)), packet.ProtoUDP, 64}, src.AsSlice()...)
		return slices.Concat(p, dst.AsSlice(), u)
	}
	p := append([]byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, packet.ProtoUDP, 0, 0}, src.AsSlice()...)
	p = append(p, dst.AsSlice()...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(u)))
	binary.BigEndian.PutUint16(p[10:], packet.Checksum(p))
	return append(p, u...)
}

// shout lets node i's host send a packet for many, and carries its copies.
func (w *burrow) shout(i int, dst string, port uint16) []byte {
	p := call(w.nodes[i].inner, netip.MustParseAddr(dst), port, []byte("who plays?"))
	w.transmit(i, packet.Frame{Data: bytes.Clone(p)})
	for i := range w.nodes {
		w.step(i)
	}
	return p
}

// party makes n nodes, all neighbours, that let all hear all.
func party(t testing.TB, n int) *burrow {
	t.Helper()
	var links [][2]int
	for i := range n {
		for j := range i {
			links = append(links, [2]int{i, j})
		}
	}
	w := newBurrow(t, n, links...)
	for _, h := range w.nodes {
		h.net.SetGroups(Groups{Broadcast: poolBroadcast, All: h.others()})
	}
	return w
}

func (h *hub) others() (out []*Peer) {
	for _, p := range h.peers {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// got takes what the hosts were given, by node.
func (w *burrow) got() (out [][][]byte) {
	for _, h := range w.nodes {
		var packets [][]byte
		for _, f := range h.host.got {
			packets = append(packets, f.Data)
		}
		out, h.host.got = append(out, packets), nil
	}
	return out
}

// spec/55-broadcast.md#delivery
func TestBroadcastReachesEachMemberOnce(t *testing.T) {
	w := party(t, 4)
	w.cut(0, 3)
	w.route(0, 1, 3)
	a := w.nodes[0]
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: append(a.others(), a.others()...)})
	for _, dst := range []string{"255.255.255.255", "10.0.0.255", "224.0.0.1"} {
		p := w.shout(0, dst, 7777)
		if got, want := w.got(), [][][]byte{nil, {p}, {p}, {p}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the hosts got %x", dst, got)
		}
	}
	for i, h := range w.nodes {
		if d := h.plane.Drops(); len(d) > 0 {
			t.Errorf("node %d dropped %v", i, d)
		}
	}
}

// spec/55-broadcast.md#delivery
// spec/55-broadcast.md#groups
func TestGroupsReachThoseWhoListen(t *testing.T) {
	w := party(t, 4)
	a := w.nodes[0]
	a.net.SetGroups(Groups{All: a.others(), Listeners: map[uint32][]*Peer{
		packet.GroupHash(mdns): {a.peers[1], a.peers[2]}, packet.GroupAny: {a.peers[2]}, packet.GroupHash(netip.MustParseAddr("ff02::fb")): {a.peers[3]}}})
	for dst, want := range map[string][]int{"224.0.0.251": {1, 2}, "239.1.2.3": {2}, "224.0.0.1": {1, 2, 3}} {
		w.shout(0, dst, 5353)
		for i, got := range w.got() {
			if (len(got) == 1) != slices.Contains(want, i) || len(got) > 1 {
				t.Errorf("%s: node %d got %d", dst, i, len(got))
			}
		}
	}
	six := netip.MustParseAddr("fd00::9")
	var routes route.Builder[*Peer]
	routes.Add(netip.PrefixFrom(six, 128), w.nodes[3].peers[0])
	w.nodes[3].net.SetRoutes(routes.Build())
	p := call(six, netip.MustParseAddr("ff02::fb"), 5353, nil)
	w.transmit(0, packet.Frame{Data: bytes.Clone(p)})
	w.step(0)
	if got := w.got(); !reflect.DeepEqual(got, [][][]byte{nil, nil, nil, {p}}) || w.nodes[2].plane.Drops()["bad_source"] != 1 {
		t.Errorf("IPv6: the hosts got %x", got) // node 2 listens to all, but knows no such source
	}
}

// spec/55-broadcast.md#reach
// spec/55-broadcast.md#switching-off
func TestPacketsForManyThatDoNotLeave(t *testing.T) {
	w := party(t, 2)
	a := w.nodes[0]
	var routes route.Builder[*Peer]
	routes.Add(netip.MustParsePrefix("0.0.0.0/0"), a.peers[1]) // an exit
	a.net.SetRoutes(routes.Build())
	none := func(what string, drops uint64) {
		t.Helper()
		if got := w.got(); len(got[1]) != 0 || a.plane.Drops()["broadcast_refused"] != drops {
			t.Errorf("%s: the host got %x, drops %v", what, got[1], a.plane.Drops())
		}
	}
	w.shout(0, "255.255.255.255", 67)
	none("DHCP", 1)
	w.shout(0, "239.1.2.3", 7777)
	none("a group of nobody", 1)
	a.net.SetGroups(Groups{Off: true, Broadcast: poolBroadcast, All: a.others(), Listeners: map[uint32][]*Peer{packet.GroupHash(mdns): a.others()}})
	for i, dst := range []string{"255.255.255.255", "10.0.0.255", "224.0.0.251", "224.0.0.1"} {
		w.shout(0, dst, 7777)
		none(dst+", switched off", uint64(i+2))
	}
	w.shout(0, "10.0.0.2", 7777)
	if got := w.got(); len(got[1]) != 1 {
		t.Error("a packet for one does not pass any more")
	}
}

// spec/55-broadcast.md#receiving
// spec/55-broadcast.md#reach
// spec/55-broadcast.md#switching-off
func TestPacketsForManyThatAreNotTaken(t *testing.T) {
	w := party(t, 3)
	a, b := w.nodes[0], w.nodes[1]
	// tell seals a packet for node 1 alone, as a member with a will of its own would.
	tell := func(p []byte) {
		a.send.now = testTime.UnixNano()
		a.send.sendTo(a.peers[1], packet.Frame{Data: p})
		a.send.flush()
		w.step(0)
	}
	all := netip.MustParseAddr("255.255.255.255")
	igmp := call(a.inner, mdns, 1, nil)
	igmp[9] = 2
	tell(call(w.nodes[2].inner, all, 7777, nil)) // in the name of another
	tell(call(a.inner, all, 68, nil))
	tell(igmp)
	if got, d := w.got(), b.plane.Drops(); len(got[1]) != 0 || d["bad_source"] != 1 || d["broadcast_refused"] != 2 {
		t.Errorf("the host got %x, drops %v", got[1], d)
	}
	b.net.SetGroups(Groups{Broadcast: poolBroadcast}) // nobody is there: what comes is taken all the same, and goes no further
	tell(call(a.inner, all, 7777, nil))
	if got := w.got(); len(got[1]) != 1 || len(b.wire.sent) != 0 {
		t.Errorf("the host got %x, sent on %d", got[1], len(b.wire.sent))
	}
	b.net.SetGroups(Groups{Off: true, Broadcast: poolBroadcast})
	for _, dst := range []netip.Addr{all, poolBroadcast, mdns} {
		tell(call(a.inner, dst, 7777, nil))
	}
	if got, d := w.got(), b.plane.Drops(); len(got[1]) != 0 || d["broadcast_refused"] != 5 {
		t.Errorf("switched off, the host got %x, drops %v", got[1], d)
	}
	tell(call(a.inner, b.inner, 7777, nil))
	if got := w.got(); len(got[1]) != 1 {
		t.Error("a packet for one does not pass any more")
	}
}

// spec/55-broadcast.md#limits
func TestOnePacketDoesNotBecomeTooMany(t *testing.T) {
	w := party(t, 4)
	a := w.nodes[0]
	now := testTime.UnixNano()
	send := func(n int) (copies int) {
		for range n {
			a.send.now = now
			a.send.send(a.net, packet.Frame{Data: call(a.inner, poolBroadcast, 7777, nil)})
		}
		a.send.flush()
		for _, d := range a.wire.sent {
			copies += (len(d.Data) + d.Segment - 1) / d.Segment
		}
		a.wire.sent = nil
		return copies
	}
	burst := 2 << 20 / (3 * 512)
	if got := send(2000); got != 3*burst || a.plane.Drops()["broadcast_limit"] != uint64(2000-burst) {
		t.Errorf("%d copies at once, drops %v", got, a.plane.Drops())
	}
	now += int64(time.Second)
	if got, want := send(2000), 3*(burst/2); got < want-3 || got > want+3 {
		t.Errorf("%d copies a second later, want %d", got, want)
	}
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: a.others(), Rate: 1024}) // less at once than one packet takes
	now += int64(time.Minute)
	if got := send(3); got != 3 {
		t.Errorf("%d copies at a rate of 1 kB/s", got)
	}
	crowd := make([]*Peer, 3000)
	for i := range crowd {
		crowd[i] = a.net.NewPeer(key.ShortID{}, nil, nil, nil)
	}
	a.net.SetGroups(Groups{All: crowd, Listeners: map[uint32][]*Peer{packet.GroupHash(mdns): crowd[:900], packet.GroupAny: crowd[800:]}})
	h := a.net.many.hears()
	for _, peers := range [][]*Peer{h.of(packet.ReachAll, poolBroadcast), h.of(packet.ReachGroup, mdns), h.of(packet.ReachGroup, netip.MustParseAddr("239.9.9.9"))} {
		if len(peers) != 1024 || !slices.Contains(crowd, peers[1023]) {
			t.Errorf("%d copies of one packet", len(peers))
		}
	}
}

// spec/55-broadcast.md#delivery
func TestChatterWaitsBehind(t *testing.T) {
	a, b := newPair(t, true)
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: []*Peer{a.peer}})
	b.net.SetGroups(Groups{Broadcast: poolBroadcast})
	chatter := func(n int) {
		for range n {
			transmit(a, packet.Frame{Data: call(inner4[0], poolBroadcast, 7777, nil)})
		}
	}
	chatter(20)
	if e := <-a.events; e.Kind != EventWanted || e.Peer != a.peer || len(a.events) != 0 || len(a.peer.staged.frames) != 8 {
		t.Fatalf("%+v, %d more, %d wait", e, len(a.events), len(a.peer.staged.frames))
	}
	for range maxStagedFrames - 8 {
		transmit(a, packet.Frame{Data: call(inner4[0], inner4[1], 7777, nil)})
	}
	chatter(10)
	connect(t, a, b)
	a.plane.SendStaged(a.peer)
	deliver(a, b)
	if n := len(bytes.Join(frames(b), nil)) / 28; n != maxStagedFrames || a.plane.Drops()["stage_full"] != 22 {
		t.Errorf("the host got %d packets, drops %v", n, a.plane.Drops())
	}
}

func frames(e *end) (out [][]byte) {
	for _, f := range e.host.got {
		s := packet.Segmenter{}
		if s.Reset(f) != nil {
			continue
		}
		for buf := make([]byte, s.MaxLen()); ; {
			n := s.Next(buf)
			if n == 0 {
				break
			}
			out = append(out, bytes.Clone(buf[:n]))
		}
	}
	return out
}

// spec/55-broadcast.md#delivery
func TestChatterDoesNotCallEverybody(t *testing.T) {
	a, _ := newPair(t, true)
	crowd := make([]*Peer, 200)
	for i := range crowd {
		id := key.NodeID{9, byte(i)}
		crowd[i] = a.net.NewPeer(id.Short(), a.engine.AddPeer(key.NewWGPrivate().Public(), [32]byte{}), a.paths.AddPeer(id, false), nil)
	}
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: crowd})
	called := map[*Peer]bool{}
	now := testTime.UnixNano()
	for second := range 22 {
		for range 3 { // packets a second
			a.send.now = now
			a.send.send(a.net, packet.Frame{Data: call(inner4[0], poolBroadcast, 7777, nil)})
		}
		n := len(a.events)
		for range n {
			e := <-a.events
			called[e.Peer] = true
			a.plane.DropStaged(e.Peer) // it does not answer
		}
		if want := map[bool]int{true: 32, false: 8}[second == 0]; n != want {
			t.Fatalf("%d peers called in second %d, want %d", n, second, want)
		}
		now += int64(time.Second)
	}
	if len(called) < 40 {
		t.Errorf("only the same %d of %d are ever called", len(called), len(crowd))
	}
}

// spec/55-broadcast.md#size
func TestLargePacketsForMany(t *testing.T) {
	a, b := newPair(t, false)
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: []*Peer{a.peer}, Listeners: map[uint32][]*Peer{packet.GroupAny: {a.peer}}})
	b.net.SetGroups(Groups{Broadcast: poolBroadcast})
	for i, dst := range []netip.Addr{poolBroadcast, mdns} {
		p := call(inner4[0], dst, 7777, make([]byte, 1372)) // 1400 in all, not to be cut; the path is known to carry 1280
		transmit(a, packet.Frame{Data: p})
		deliver(a, b)
		if len(b.host.got) != 2*i+2 || len(b.host.got[2*i].Data)+len(b.host.got[2*i+1].Data) != 1420 {
			t.Errorf("%s: the host got %d fragments", dst, len(b.host.got))
		}
	}
	super := packet.Frame{Data: call(inner4[0], poolBroadcast, 7777, make([]byte, 2800)), Offload: packet.Offload{GSO: packet.GSOUDP, Segment: 1400, NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}}
	transmit(a, packet.Frame{Data: call(inner6[0], netip.MustParseAddr("ff02::fb"), 7777, make([]byte, 1352))}, super)
	if len(a.wire.sent) != 0 || len(a.host.got) != 0 || a.plane.Drops()["too_big"] != 2 {
		t.Errorf("sent %d, the own host was told %d times, drops %v", len(a.wire.sent), len(a.host.got), a.plane.Drops())
	}
}

// spec/55-broadcast.md#asking
func TestTheHostIsAskedForItsGroups(t *testing.T) {
	w := party(t, 2)
	a := w.nodes[0]
	a.net.AskGroups()
	got := w.got()[0]
	if len(got) != 2 || got[0][0] != 0x46 || got[0][24] != 0x11 || got[1][0] != 0x60 || got[1][48] != 130 {
		t.Fatalf("the host got %x", got)
	}
	// What Linux answers.
	answer, err := hex.DecodeString("46c000300000400001029fb064400001e000001694040000220003fd0000000204000000e00000fb04000000ef010203")
	if err != nil {
		t.Fatal(err)
	}
	w.transmit(0, packet.Frame{Data: bytes.Clone(answer)})
	e := <-a.events
	var l Listening
	l.Hear(testTime, e.Data)
	if e.Kind != EventGroups || e.Network != a.net || !slices.Equal(l.Groups(), []uint32{0xe00000fb, 0xef010203}) || len(a.wire.sent) != 0 || len(a.plane.Drops()) != 0 {
		t.Errorf("%+v, groups %x, sent %d, drops %v", e, l.Groups(), len(a.wire.sent), a.plane.Drops())
	}
}

// report makes an IGMPv2 packet about a group.
func report(kind byte, group netip.Addr) []byte {
	p := append([]byte{0x46, 0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 1}, group.AsSlice()...)
	return append(append(p, 0x94, 4, 0, 0, kind, 0, 0, 0), group.AsSlice()...)
}

// spec/55-broadcast.md#asking
// spec/55-broadcast.md#groups
func TestListening(t *testing.T) {
	var l Listening
	now := testTime
	next, ask := l.Tick(now)
	if !ask || next != now.Add(125*time.Second) || l.Groups() != nil {
		t.Fatalf("at the start: %v, %v, %v", next.Sub(now), ask, l.Groups())
	}
	l.Hear(now, report(0x16, mdns))
	l.Hear(now, report(0x16, netip.MustParseAddr("239.1.2.3")))
	l.Hear(now, []byte("nonsense"))
	l.Hear(now, report(0x17, netip.MustParseAddr("239.1.2.3")))
	if got := l.Groups(); !slices.Equal(got, []uint32{0xe00000fb}) {
		t.Fatalf("groups %x", got)
	}
	asked := 0
	for now.Sub(testTime) < 259*time.Second {
		now = now.Add(time.Second)
		if _, ask := l.Tick(now); ask {
			asked++
		}
	}
	if len(l.Groups()) != 1 || asked != 2 {
		t.Fatalf("asked %d times, groups %x", asked, l.Groups())
	}
	if l.Tick(now.Add(time.Second)); len(l.Groups()) != 0 {
		t.Error("a group of which nothing is heard is not forgotten")
	}
	for i := range 1000 {
		l.Hear(now, report(0x16, netip.AddrFrom4([4]byte{239, 0, byte(i >> 8), byte(i)})))
		switch got := l.Groups(); {
		case len(l.heard) > maxHeard:
			t.Fatalf("%d groups kept", len(l.heard))
		case i < wire.MaxGroups && len(got) != i+1, i >= wire.MaxGroups && !slices.Equal(got, []uint32{packet.GroupAny}):
			t.Fatalf("%d groups are listed as %x", i+1, got)
		}
	}
}

func TestNoAllocationsPerCopy(t *testing.T) {
	w := party(t, 4)
	a := w.nodes[0]
	a.net.SetGroups(Groups{Broadcast: poolBroadcast, All: a.others(), Rate: 1 << 40})
	a.plane.socket = discard{new(packet.Datagrams)}
	p := call(a.inner, poolBroadcast, 7777, make([]byte, 172))
	if n := testing.AllocsPerRun(100, func() { w.transmit(0, packet.Frame{Data: p}) }); n != 0 {
		t.Errorf("%v allocations for a broadcast", n)
	}
}
