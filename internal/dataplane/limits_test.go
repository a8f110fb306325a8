package dataplane

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// arriveAt lets h receive d at a time after the beginning.
func (h *hub) arriveAt(after time.Duration, d packet.Datagrams) {
	r := h.recv
	r.now, r.index = testTime.Add(after).UnixNano(), *h.plane.index.Load()
	r.train(d)
	r.flush()
	r.received()
}

// sentBytes counts what h has sent, and forgets it.
func (h *hub) sentBytes() (n int) {
	for _, d := range h.wire.sent {
		n += len(d.Data)
	}
	h.wire.sent = nil
	return n
}

// Of one source a neighbour passes on 20 handshake messages a second, 40 at once; its data, and the handshakes of others, are not
// touched. spec/52-relay.md#limits
func TestRelayedHandshakesAreLimited(t *testing.T) {
	w := newBurrow(t, 4, [2]int{0, 1}, [2]int{1, 2}, [2]int{3, 1})
	initiation := append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...)
	relay := w.nodes[1]
	send := func(after time.Duration, from, n int, tail []byte) (passed int) {
		for range n {
			relay.arriveAt(after, w.seal(from, 1, w.header(1, from, 1, 2), tail))
		}
		passed = len(relay.wire.sent)
		relay.wire.sent = nil
		return passed
	}
	if n := send(0, 0, 100, initiation); n != 40 {
		t.Errorf("%d of 100 at once", n)
	}
	if n := send(time.Second, 0, 100, initiation); n != 20 {
		t.Errorf("%d of 100 a second later", n)
	}
	if n := send(time.Second, 0, 100, someTail()); n != 100 {
		t.Errorf("%d of 100 transport messages", n)
	}
	if n := send(time.Second, 3, 10, initiation); n != 10 {
		t.Errorf("%d of 10 handshake messages of another", n)
	}
	if d := relay.plane.Drops(); d["relay_limit"] != 140 {
		t.Errorf("drops %v", d)
	}
	for _, e := range relay.drain() { // no path error: it would only cause more
		if e.Kind == EventPathError {
			t.Fatalf("event %+v", e)
		}
	}
	// The same limit holds at the end.
	end := w.nodes[2]
	for range 100 {
		end.arrive(w.seal(1, 2, w.header(2, 0, 1, 2), initiation))
	}
	n := 0
	for _, e := range end.drain() {
		if e.Kind == EventDatagram {
			n++
		}
	}
	if n != 40 || end.net.RelayStats() != (RelayStats{}) {
		t.Errorf("%d of 100 came to the end; stats %+v", n, end.net.RelayStats())
	}
}

// spec/52-relay.md#limits
func TestRelayedBytesOfOneSourceAreLimited(t *testing.T) {
	w := newBurrow(t, 4, [2]int{0, 1}, [2]int{1, 2}, [2]int{3, 1})
	relay := w.nodes[1]
	const rate = 1 << 20
	w.hops(1, &RelayPolicy{PerSource: rate})
	tail := append(someTail(), make([]byte, 1300)...)
	for i := range 5000 { // 7 MB in 2 s
		relay.arriveAt(time.Duration(i)*400*time.Microsecond, w.seal(0, 1, w.header(1, 0, 1, 2), tail))
	}
	if n := relay.sentBytes(); n < 2*rate || n > 2*rate+rate/4+2000 {
		t.Errorf("%d bytes in 2 s, the rate is %d", n, rate)
	}
	relay.arriveAt(2*time.Second, w.seal(3, 1, w.header(1, 3, 1, 2), tail))
	if relay.sentBytes() == 0 {
		t.Error("another source suffers")
	}
	if s := relay.peers[0].Relayed(); s.Dropped == 0 || s.Packets+s.Dropped != 5000 || relay.plane.Drops()["relay_limit"] != s.Dropped {
		t.Errorf("stats %+v, drops %v", s, relay.plane.Drops())
	}
}

// A neighbour's own datagrams, and those of each source behind it, have accounts of their own, as far as there are accounts.
// spec/52-relay.md#limits
func TestSourcesBehindOneNeighbourAreApart(t *testing.T) {
	w := newBurrow(t, 20, [2]int{1, 2}, [2]int{3, 1})
	relay := w.nodes[1]
	w.hops(1, &RelayPolicy{PerSource: 1000})
	tail := append(someTail(), make([]byte, 1300)...)
	const greedy, other = 19, 5 // greedy shares its last four bits with node 3
	for range 300 {
		relay.arrive(w.seal(3, 1, w.header(2, greedy, 3, 1, 2), tail))
	}
	for _, header := range [][]byte{w.header(2, other, 3, 1, 2), w.header(1, 3, 1, 2)} {
		relay.wire.sent = nil
		if relay.arrive(w.seal(3, 1, header, tail)); len(relay.wire.sent) != 1 {
			t.Errorf("one source behind node 3 spent the allowance of %x", header)
		}
	}
}

// A hostile relay that makes up sources spends neither the allowance that they have by themselves and by other relays, nor our memory.
// spec/52-relay.md#limits
func TestMadeUpSourcesCostNobodyElse(t *testing.T) {
	w := newBurrow(t, 6, [2]int{0, 1}, [2]int{1, 2}, [2]int{3, 1}, [2]int{4, 1})
	relay := w.nodes[1]
	w.hops(1, &RelayPolicy{PerSource: 1000})
	tail := append(someTail(), make([]byte, 1300)...)
	for range 300 {
		relay.arrive(w.seal(3, 1, w.header(2, 0, 3, 1, 2), tail)) // node 3 names node 0 as source
	}
	relay.wire.sent = nil
	relay.arrive(w.seal(0, 1, w.header(1, 0, 1, 2), tail))
	relay.arrive(w.seal(4, 1, w.header(2, 0, 4, 1, 2), tail))
	relay.arrive(w.seal(3, 1, w.header(1, 3, 1, 2), tail))
	if len(relay.wire.sent) != 3 {
		t.Fatalf("%d of 3 passed: drops %v", len(relay.wire.sent), relay.plane.Drops())
	}
}

// shapedBurrow is one in which nodes 0, 3 and 4 send to node 2 by node 1, which has a limit.
func shapedBurrow(t testing.TB, rate int64) (w *burrow, relay *hub) {
	w = newBurrow(t, 5, [2]int{0, 1}, [2]int{1, 2}, [2]int{3, 1}, [2]int{4, 1})
	w.hops(1, &RelayPolicy{Rate: rate})
	return w, w.nodes[1]
}

// offer gives the relay n datagrams of 1360 bytes from source by the neighbour by.
func (w *burrow) offer(by, source, n int) {
	header := w.header(1, source, 1, 2)
	if by != source {
		header = w.header(2, source, by, 1, 2)
	}
	size := 1360 - wire.RelayOverhead - len(header)
	for range n {
		w.nodes[1].arrive(w.seal(by, 1, header, append([]byte{4}, make([]byte, size-1)...)))
	}
}

// serve lets the shaper send for so long, one millisecond at a time, and counts bytes by source.
func (h *hub) serve(from, long time.Duration, rate int64) map[*Peer]int {
	got := map[*Peer]int{}
	for at := from; at < from+long; at += time.Millisecond {
		items, _ := h.net.shaper.take(testTime.Add(at).UnixNano(), rate, nil)
		for _, it := range items {
			got[it.source] += len(it.data)
		}
	}
	return got
}

// Two neighbours share the rate evenly, and one that sends little loses nothing however much the others send.
// spec/52-relay.md#fair-queue
func TestFairQueueBetweenNeighbours(t *testing.T) {
	const rate = 1_000_000
	w, relay := shapedBurrow(t, rate)
	got := map[*Peer]int{}
	for i := range 20 { // 2 s; 9 MB/s of one, 2.7 MB/s of another, 27 kB/s of the third
		w.offer(0, 0, 600)
		w.offer(3, 3, 180)
		w.offer(4, 4, 2)
		for p, n := range relay.serve(time.Duration(i)*100*time.Millisecond, 100*time.Millisecond, rate) {
			got[p] += n
		}
	}
	a, b, c := got[relay.peers[0]], got[relay.peers[3]], got[relay.peers[4]]
	if sum := a + b + c; sum < 2*rate*98/100 || sum > 2*rate+maxShot {
		t.Errorf("%d bytes in 2 s, the rate is %d", sum, rate)
	}
	if a > b*11/10 || b > a*11/10 {
		t.Errorf("%d bytes of one neighbour, %d of the other", a, b)
	}
	if c != 40*1360 || relay.peers[4].Relayed().Dropped != 0 {
		t.Errorf("%d bytes of the modest neighbour, want %d; dropped %d", c, 40*1360, relay.peers[4].Relayed().Dropped)
	}
	if n := relay.net.RelayStats().Waiting; n > rate/10 {
		t.Errorf("%d bytes wait: more than is sent in 100 ms", n)
	}
	if d := relay.plane.Drops(); d["relay_queue"] == 0 || d["relay_queue"] != relay.net.RelayStats().Dropped || d["relay_queue"] != relay.net.RelayStats().Shed {
		t.Errorf("drops %v, stats %+v", d, relay.net.RelayStats())
	}
}

// Sources behind one neighbour take turns, and a neighbour gains nothing by naming more of them.
// spec/52-relay.md#fair-queue
func TestFairQueueBetweenSources(t *testing.T) {
	const rate = 1_000_000
	w, relay := shapedBurrow(t, rate)
	got := map[*Peer]int{}
	for i := range 20 {
		w.offer(0, 0, 200)
		w.offer(0, 4, 50) // node 4 by node 0
		w.offer(3, 3, 200)
		for p, n := range relay.serve(time.Duration(i)*100*time.Millisecond, 100*time.Millisecond, rate) {
			got[p] += n
		}
	}
	own, transit, other := got[relay.peers[0]], got[relay.peers[4]], got[relay.peers[3]]
	if own > transit*12/10 || transit > own*12/10 {
		t.Errorf("of one neighbour %d bytes of its own, %d of another source", own, transit)
	}
	if sum := own + transit; sum > other*11/10 || other > sum*11/10 {
		t.Errorf("%d bytes by one neighbour, %d by the other", sum, other)
	}
}

// The order of a source's datagrams is kept, and a queue that was full and is empty again works as before.
func TestQueueKeepsOrderAndForgetsNothing(t *testing.T) {
	w, relay := shapedBurrow(t, 100_000)
	var want, got []byte
	for i := range 40 { // fewer than there is room for
		want = append(want, byte(i))
		relay.arrive(w.seal(0, 1, w.header(1, 0, 1, 2), append(someTail(), byte(i))))
	}
	for at := time.Duration(0); at < time.Second; at += time.Millisecond {
		items, again := relay.net.shaper.take(testTime.Add(at).UnixNano(), 100_000, nil)
		for _, it := range items {
			got = append(got, it.data[len(it.data)-1])
		}
		if len(got) < len(want) && again <= 0 {
			t.Fatalf("%d of %d sent, and nobody comes again", len(got), len(want))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("sent %v", got)
	}
	s := &relay.net.shaper
	if len(s.lanes) != 0 || s.bytes != 0 {
		t.Fatalf("%d lanes, %d bytes left", len(s.lanes), s.bytes)
	}
	w.offer(0, 0, 1000)
	for range 1000 {
		items, _ := s.take(0, 0, nil)
		for _, it := range items {
			s.recycle(it.data)
		}
	}
	if l := relay.peers[0].lane.Load(); s.bytes != 0 || l.queued.bytes != 0 || l.own.queue.bytes != 0 || len(s.free) > maxFree {
		t.Fatalf("left: %d bytes, lane %+v", s.bytes, l.queued)
	}
}

// notice is a socket that tells how much it was given.
type notice struct {
	mu     sync.Mutex
	bytes  int
	enough chan struct{} // closed at want bytes
	want   int
}

func (n *notice) ReadBatch([]packet.Datagrams) (int, error) { select {} }
func (n *notice) WriteBatch(b []packet.Datagrams) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range b {
		before := n.bytes
		n.bytes += len(d.Data)
		if before < n.want && n.bytes >= n.want {
			close(n.enough)
		}
	}
	return nil
}

// What waits is sent by itself, at the rate; when the limit is lifted all goes at once; and Run takes the shaper with it.
// spec/52-relay.md#fair-queue
func TestShaperSends(t *testing.T) {
	const rate = 2_000_000
	w, relay := shapedBurrow(t, rate)
	out := &notice{want: 140 * 1360, enough: make(chan struct{})}
	relay.plane.socket = out
	tunnel := &closable{closed: make(chan struct{})}
	relay.net.tunnel = tunnel
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := relay.net.Run(); err != nil {
			t.Error(err)
		}
	})
	begin := time.Now()
	w.offer(0, 0, 140) // 190 kB: 95 ms
	<-out.enough
	if took := time.Since(begin); took < 70*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	w.hops(1, &RelayPolicy{Rate: 1000})
	out.mu.Lock()
	out.want, out.enough = out.bytes+40*1360, make(chan struct{})
	enough := out.enough
	out.mu.Unlock()
	w.offer(0, 0, 40)
	w.hops(1, relayAll)
	<-enough
	if s := relay.net.RelayStats(); s.Packets != 180 || s.Waiting != 0 {
		t.Errorf("stats %+v, drops %v", s, relay.plane.Drops())
	}
	close(tunnel.closed)
	wg.Wait()
}

// closable is a TUN device that gives nothing until it is closed.
type closable struct {
	hostTap
	closed chan struct{}
}

func (c *closable) ReadFrames([]packet.Frame) (int, error) {
	<-c.closed
	return 0, os.ErrClosed
}

// Datagrams that wait while the next hop goes away are dropped and counted.
func TestShapedDatagramsNeedAHop(t *testing.T) {
	w, relay := shapedBurrow(t, 1_000_000)
	w.offer(0, 0, 5)
	w.cut(1, 2)
	items, _ := relay.net.shaper.take(testTime.UnixNano(), 0, nil)
	relay.net.release(relay.send, items)
	if d := relay.plane.Drops(); !maps.Equal(d, map[string]uint64{"relay_no_hop": 5}) || len(relay.wire.sent) != 0 {
		t.Fatalf("drops %v, sent %d", d, len(relay.wire.sent))
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	l := perSecond(10, 5)
	take := func(at time.Duration, n int) (got int) {
		for range n {
			if b.take(testTime.Add(at).UnixNano(), l.cost, l.burst) {
				got++
			}
		}
		return got
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{0, 5}, {0, 0}, {99 * time.Millisecond, 0}, {100 * time.Millisecond, 1}, {450 * time.Millisecond, 3}, {time.Hour, 5}, {0, 0}} {
		if got := take(c.at, 100); got != c.want {
			t.Errorf("at %v: %d, want %d", c.at, got, c.want)
		}
	}
	var big bucket // a rate below a datagram a second still lets one through
	for i, want := range []bool{true, true, false} {
		if big.takeBytes(0, 65000, 10) != want {
			t.Errorf("datagram %d at a small rate: not %v", i, want)
		}
	}
	var shared bucket
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			n := 0
			for range 1000 {
				if shared.take(0, 1, 1000) {
					n++
				}
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 1000 {
		t.Errorf("four workers took %d of 1000", total)
	}
}

// Strangers that send more handshake messages than the control loop takes keep no control message of a member from it.
// spec/50-control.md#demultiplexing
func TestStrangersLeaveRoomForMembers(t *testing.T) {
	w := newBurrow(t, 2, [2]int{0, 1})
	a, b := w.nodes[0], w.nodes[1]
	b.drain()
	initiation := append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...)
	for range 2 * cap(b.events) {
		b.arriveAt(0, packet.Datagrams{Data: initiation, Segment: len(initiation), Addr: addrs[1]})
	}
	for range cap(b.events) / 8 {
		a.plane.SendControl(a.peers[1], wire.Way{}, wire.Bye{}.Append(nil))
	}
	w.step(0)
	said := 0
	for _, e := range b.drain() {
		if e.Kind == EventControl {
			said++
		}
	}
	if said != cap(b.events)/8 {
		t.Errorf("of %d control messages %d came; drops %v", cap(b.events)/8, said, b.plane.Drops())
	}
}

// A member that says more than the control loop takes keeps no word of another from it; and when it is heard again, it is heard as
// before. spec/50-control.md#demultiplexing
func TestOneMemberLeavesRoomForAnother(t *testing.T) {
	w := newBurrow(t, 3, [2]int{0, 1}, [2]int{2, 1})
	heard := w.nodes[1]
	heard.drain()
	say := func(from, n int) {
		for range n {
			w.nodes[from].plane.SendControl(w.nodes[from].peers[1], wire.Way{}, wire.Bye{}.Append(nil))
		}
		w.step(from)
	}
	for range 3 {
		say(0, 2*cap(heard.events))
		say(2, cap(heard.events)/4)
		said := map[*Peer]int{}
		for _, e := range heard.drain() {
			if e.Kind == EventControl {
				said[e.Peer]++
			}
		}
		if a, b := said[heard.peers[0]], said[heard.peers[2]]; a != cap(heard.events)/2 || b != cap(heard.events)/4 {
			t.Errorf("%d messages of the one were heard and %d of the other; drops %v", a, b, heard.plane.Drops())
		}
	}
}

// What waits for the control loop is small: no handshake message, nor what else goes there, is larger than 2 KiB.
// spec/50-control.md#demultiplexing
func TestLargeDatagramsOfStrangersDoNotWait(t *testing.T) {
	w := newBurrow(t, 2, [2]int{0, 1})
	b := w.nodes[1]
	b.drain()
	for _, typ := range []byte{wire.TypeInitiation, wire.TypeResponse, wire.TypeCookieReply, wire.TypeJoin, wire.TypeDHT} {
		for size, want := range map[int]int{maxDatagram: 1, maxDatagram + 1: 0, 60000: 0} {
			d := append([]byte{typ}, make([]byte, size-1)...)
			switch typ {
			case wire.TypeJoin:
				d[1] = 1
			case wire.TypeDHT:
				copy(d, "d1:")
				d[size-1] = 'e'
			}
			b.arriveAt(0, packet.Datagrams{Data: d, Segment: len(d), Addr: addrs[1]})
			if got := len(b.drain()); got != want {
				t.Errorf("of type %d, %d bytes: %d events", typ, size, got)
			}
		}
	}
}

// refusing is a socket that takes nothing.
type refusing struct{ err error }

func (r refusing) ReadBatch([]packet.Datagrams) (int, error) { select {} }
func (r refusing) WriteBatch([]packet.Datagrams) error       { return r.err }

// Sizes and addresses that are tried on purpose are no sign of trouble when the kernel refuses them; what a firewall refuses is.
func TestRefusedProbesAreNoDrops(t *testing.T) {
	for err, want := range map[error]uint64{syscall.EMSGSIZE: 0, syscall.ENETUNREACH: 0, syscall.EHOSTUNREACH: 0, syscall.EADDRNOTAVAIL: 0, syscall.EPERM: 1, syscall.ENOBUFS: 1} {
		p := New(refusing{fmt.Errorf("send: %w", err)}, make(chan Event, 1), testTime)
		p.send([]packet.Datagrams{{Data: []byte{1}, Segment: 1}})
		if got := p.Drops()["socket_write"]; got != want {
			t.Errorf("%v counts %d times, want %d", err, got, want)
		}
	}
}
