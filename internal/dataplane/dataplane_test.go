package dataplane

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// wireTap is a socket that keeps what is sent.
type wireTap struct{ sent []packet.Datagrams }

func (w *wireTap) ReadBatch([]packet.Datagrams) (int, error) { select {} }
func (w *wireTap) WriteBatch(b []packet.Datagrams) error {
	for _, d := range b {
		w.sent = append(w.sent, packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment, Addr: d.Addr})
	}
	return nil
}

// hostTap is a TUN device that keeps what the host is given.
type hostTap struct {
	got   []packet.Frame
	quiet bool // count only
	count int
}

func (h *hostTap) ReadFrames([]packet.Frame) (int, error) { select {} }
func (h *hostTap) WriteFrame(o packet.Offload, pieces [][]byte) error {
	h.count++
	if !h.quiet {
		h.got = append(h.got, packet.Frame{Offload: o, Data: bytes.Join(pieces, nil)})
	}
	return nil
}

// end is one of two nodes that know each other.
type end struct {
	plane  *Plane
	wire   *wireTap
	host   *hostTap
	net    *Network
	engine *wireguard.Engine
	paths  *path.Engine
	peer   *Peer // the other one
	events chan Event
	index  map[uint32]Entry
	recv   *receiver
	send   *sender
}

var (
	addrs    = [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.2:2000")}
	inner4   = [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	inner6   = [2]netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
	nextIdx  uint32
	nodeIDs  = [2]key.NodeID{{1}, {2}}
	testTime = time.Now() // of the world at hand: workers look at the clock, and sessions end after three minutes
)

// newPair makes two ends; without a session when bare.
func newPair(t testing.TB, bare bool) (a, b *end) {
	t.Helper()
	testTime = time.Now()
	keys := [2]key.WGPrivate{key.NewWGPrivate(), key.NewWGPrivate()}
	var ends [2]*end
	for i := range ends {
		e := &end{wire: &wireTap{}, host: &hostTap{}, events: make(chan Event, 64), index: map[uint32]Entry{}, paths: path.New(path.Config{}, nil)}
		e.plane = New(e.wire, e.events, testTime)
		e.net = e.plane.NewNetwork(e.host, true)
		var err error
		e.engine, err = wireguard.New(wireguard.Config{Private: keys[i], Epoch: testTime, NewIndex: func() uint32 { nextIdx++; return nextIdx }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		other := 1 - i
		e.peer = e.net.NewPeer(nodeIDs[other].Short(), e.engine.AddPeer(keys[other].Public(), [32]byte{}), e.paths.AddPeer(nodeIDs[other], false), nil)
		var routes route.Builder[*Peer]
		routes.Add(netip.PrefixFrom(inner4[other], 32), e.peer)
		routes.Add(netip.PrefixFrom(inner6[other], 128), e.peer)
		e.net.SetRoutes(routes.Build())
		e.recv, e.send = newReceiver(e.plane, e.plane.socket, newLine(), true), newSender(e.plane, nil, 0)
		ends[i] = e
	}
	a, b = ends[0], ends[1]
	if !bare {
		connect(t, a, b)
	}
	return a, b
}

// connect lets a and b shake hands.
func connect(t testing.TB, a, b *end) {
	t.Helper()
	a.engine.Initiate(testTime, a.peer.Session)
	for range 4 {
		for i, e := range []*end{a, b} {
			o := []*end{b, a}[i]
			for _, f := range e.engine.Effects() {
				switch f := f.(type) {
				case wireguard.SendHandshake:
					if err := o.engine.Handle(testTime, addrs[i], f.Data, false); err != nil {
						t.Fatal(err)
					}
				case wireguard.KeypairAdded:
					e.index[f.Keypair.LocalIndex()] = Entry{Keypair: f.Keypair, Peer: e.peer}
					e.plane.SetIndex(maps.Clone(e.index))
				case wireguard.SessionUp:
					e.paths.SessionUp(testTime, nodeIDs[1-i], wire.Direct(addrs[1-i]))
				case wireguard.SendKeepalive:
					e.plane.SendControl(e.peer, wire.Direct(addrs[1-i]), nil)
				}
			}
		}
		deliver(a, b)
		for drained := false; !drained; {
			select {
			case ev := <-b.events:
				if ev.Kind == EventNotice {
					b.engine.Notice(testTime, b.peer.Session, ev.Notice)
				}
			default:
				drained = true
			}
		}
	}
	if a.peer.Session.Sending() == nil || b.peer.Session.Sending() == nil {
		t.Fatal("no session")
	}
	a.host.got, b.host.got = nil, nil
}

// deliver carries what from sent to to, as one batch.
func deliver(from, to *end) {
	sent := from.wire.sent
	from.wire.sent = nil
	r := to.recv
	r.now, r.index = testTime.UnixNano(), *to.plane.index.Load()
	for _, d := range sent {
		r.train(packet.Datagrams{Data: d.Data, Segment: d.Segment, Addr: addrs[0]})
	}
	r.flush()
	r.received()
}

// transmit sends frames of a's host.
func transmit(a *end, frames ...packet.Frame) {
	a.send.now = testTime.UnixNano()
	for _, f := range frames {
		a.send.send(a.net, f)
	}
	a.send.flush()
}

// superPacket makes a TCP super-packet of n payload bytes from the first end to the second, as its kernel would.
func superPacket(n, size int) packet.Frame {
	p := make([]byte, 40+n)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, packet.ProtoTCP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], inner4[0].AsSlice())
	copy(p[16:], inner4[1].AsSlice())
	p[32], p[33] = 5<<4, 0x10
	for i := range p[40:] {
		p[40+i] = byte(rand.Uint32())
	}
	return packet.Frame{Data: p, Offload: packet.Offload{GSO: packet.GSOTCPv4, Segment: uint16(size), NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}}
}

func TestSuperPacketCrossesWhole(t *testing.T) {
	a, b := newPair(t, false)
	f := superPacket(50000, 1240)
	transmit(a, f)
	if len(a.wire.sent) != 1 || a.wire.sent[0].Addr != addrs[1] {
		t.Fatalf("%d trains sent, want one", len(a.wire.sent))
	}
	deliver(a, b)
	if len(b.host.got) != 1 || !bytes.Equal(b.host.got[0].Data[40:], f.Data[40:]) || b.host.got[0].Offload.Segment != 1240 {
		t.Fatalf("the host got %d frames", len(b.host.got))
	}
}

// spec/40-wireguard.md#cryptokey-routing
func TestForeignSourceIsDropped(t *testing.T) {
	a, b := newPair(t, false)
	f := superPacket(100, 1240)
	copy(f.Data[12:], netip.MustParseAddr("10.0.0.9").AsSlice())
	f.Offload.GSO = packet.GSONone
	transmit(a, f)
	deliver(a, b)
	if len(b.host.got) != 0 || b.plane.Drops()["bad_source"] != 1 {
		t.Fatalf("host got %d, drops %v", len(b.host.got), b.plane.Drops())
	}
}

func TestReplayedAndTamperedTrainsAreDropped(t *testing.T) {
	a, b := newPair(t, false)
	transmit(a, superPacket(3000, 1000))
	again := packet.Datagrams{Data: bytes.Clone(a.wire.sent[0].Data), Segment: a.wire.sent[0].Segment}
	bad := packet.Datagrams{Data: bytes.Clone(again.Data), Segment: again.Segment}
	bad.Data[20] ^= 1
	deliver(a, b)
	a.wire.sent = []packet.Datagrams{again, bad}
	deliver(a, b)
	if d := b.plane.Drops(); len(b.host.got) != 1 || d["replayed"] != 5 || d["bad_auth"] != 1 {
		t.Fatalf("host got %d, drops %v", len(b.host.got), d)
	}
}

// spec/40-wireguard.md#staging
func TestFirstPacketsWaitForTheSession(t *testing.T) {
	a, b := newPair(t, true)
	for range maxStagedFrames + 10 {
		transmit(a, superPacket(100, 1240))
	}
	if e := <-a.events; e.Kind != EventWanted || e.Peer != a.peer || len(a.events) != 0 {
		t.Fatalf("event %+v and %d more", e, len(a.events))
	}
	connect(t, a, b)
	a.plane.SendStaged(a.peer)
	deliver(a, b)
	if len(b.host.got) != maxStagedFrames || a.plane.Drops()["stage_full"] != 10 {
		t.Fatalf("host got %d, drops %v", len(b.host.got), a.plane.Drops())
	}
}

// spec/40-wireguard.md#staging
func TestPacketsThatWaitInVainDoNotKeepLaterOnesFromAsking(t *testing.T) {
	a, _ := newPair(t, true)
	transmit(a, superPacket(100, 1240))
	<-a.events
	a.plane.DropStaged(a.peer) // the handshake was given up
	transmit(a, superPacket(100, 1240))
	if len(a.events) != 1 {
		t.Fatalf("%d events after the next packet, want one", len(a.events))
	}
	<-a.events
	a.plane.DropStaged(a.peer)
	for len(a.events) < cap(a.events) {
		a.events <- Event{}
	}
	transmit(a, superPacket(100, 1240)) // the control loop is busy and does not hear of it
	for len(a.events) > 0 {
		<-a.events
	}
	transmit(a, superPacket(100, 1240))
	if len(a.events) != 1 {
		t.Fatal("a packet does not ask because an earlier one was not heard")
	}
}

func TestTooBigForThePath(t *testing.T) {
	a, b := newPair(t, false)
	transmit(a, superPacket(5000, 1380)) // 1420 bytes a packet; the path is known to carry 1280
	if len(a.wire.sent) != 0 || len(a.host.got) != 1 || a.host.got[0].Data[20] != 3 {
		t.Fatalf("sent %d, the host was told %d times", len(a.wire.sent), len(a.host.got))
	}
	f := superPacket(1380, 1380)
	f.Offload = packet.Offload{}
	f.Data[6] = 0 // may be cut
	transmit(a, f)
	deliver(a, b)
	if len(b.host.got) != 2 {
		t.Fatalf("the other host got %d fragments", len(b.host.got))
	}
}

func TestControlMessagesReachTheLoopAndStrangersDoNot(t *testing.T) {
	a, b := newPair(t, false)
	for len(b.events) > 0 {
		<-b.events
	}
	a.plane.SendControl(a.peer, wire.Way{}, wire.Ping{ID: 7}.Append(nil))
	a.wire.sent = append(a.wire.sent, packet.Datagrams{Data: []byte{9, 9, 9}, Segment: 3}, packet.Datagrams{Data: make([]byte, 40), Segment: 40},
		packet.Datagrams{Data: append([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 40)...), Segment: 48}, packet.Datagrams{Data: []byte{4}, Segment: 1})
	deliver(a, b)
	e := <-b.events
	msg, err := wire.ParseControl(e.Data)
	if e.Kind != EventControl || err != nil || msg.(wire.Ping).ID != 7 || len(b.events) != 0 {
		t.Fatalf("event %+v, %v, %v", e, msg, err)
	}
	if d := b.plane.Drops(); d["unknown_type"] != 2 || d["no_session"] != 1 || d["malformed"] != 1 {
		t.Fatalf("drops %v", d)
	}
}

func TestNoAllocationsPerPacket(t *testing.T) {
	a, b := newPair(t, false)
	f := superPacket(20000, 1240)
	b.host.quiet = true
	var train packet.Datagrams
	b.recv.index = *b.plane.index.Load()
	a.plane.socket = discard{&train}
	buf := make([]byte, bufferSize)
	step := func() {
		transmit(a, f)
		d := packet.Datagrams{Data: buf[:copy(buf, train.Data)], Segment: train.Segment, Addr: addrs[0]}
		b.recv.now = testTime.UnixNano()
		b.recv.train(d)
		b.recv.flush()
		b.recv.received()
	}
	step()
	if n := testing.AllocsPerRun(100, step); n != 0 {
		t.Fatalf("%v allocations for a super-packet sent and received", n)
	}
	if b.host.count < 100 {
		t.Fatalf("the host got %d frames; drops %v", b.host.count, b.plane.Drops())
	}
}

// discard is a socket that shows its last train.
type discard struct{ last *packet.Datagrams }

func (d discard) ReadBatch([]packet.Datagrams) (int, error) { select {} }
func (d discard) WriteBatch(b []packet.Datagrams) error     { *d.last = b[0]; return nil }

func BenchmarkOut(b *testing.B) {
	x, _ := newPair(b, false)
	var last packet.Datagrams
	x.plane.socket = discard{&last}
	f := superPacket(55000, 1240)
	b.SetBytes(int64(len(f.Data)))
	b.ReportAllocs()
	for b.Loop() {
		transmit(x, f)
	}
}
