package stream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
)

// spec/72-streams.md#tls spec/72-streams.md#frames
func TestDatagramsGoBothWays(t *testing.T) {
	for _, kind := range []string{"tls", "wss", "ws"} {
		t.Run(kind, func(t *testing.T) {
			a, b := node(t), node(t, theirs, ours)
			target := b.serve(kind)
			atA, atB := a.dial(&Dialer{Key: ours}, b, target)
			talk(t, a, b, atA, atB)

			train := packet.Datagrams{Data: bytes.Repeat([]byte{7}, 9*1400+5), Segment: 1400, Addr: atA}
			if err := a.WriteBatch([]packet.Datagrams{train}); err != nil {
				t.Fatal(err)
			}
			if got := b.receive(atB, 10); len(got[8]) != 1400 || len(got[9]) != 5 {
				t.Errorf("the train came as %d and %d bytes at its end", len(got[8]), len(got[9]))
			}
			mine, its := a.List(), b.List()
			if len(mine) != 1 || mine[0].Sent != 19 || mine[0].Received != 9 || mine[0].Target != target || mine[0].Kind != kind || mine[0].Dropped != 0 {
				t.Errorf("the client lists %+v", mine)
			}
			if len(its) != 1 || its[0].Sent != 9 || its[0].Received != 19 || !its[0].Inbound || its[0].Kind != kind {
				t.Errorf("the server lists %+v", its)
			}
			a.Drop(atA)
			if down := a.await(EventDown); down.Addr != atA || down.Err == nil {
				t.Errorf("event %+v", down)
			}
			if down := b.await(EventDown); down.Addr != atB || down.Err == nil {
				t.Errorf("event %+v", down)
			}
			if err := a.WriteBatch([]packet.Datagrams{train}); !errors.Is(err, ErrGone) {
				t.Errorf("write to a stream that has ended: %v", err)
			}
		})
	}
}

func TestConnectReports(t *testing.T) {
	a, b := node(t), node(t, ours)
	target := b.serve("tls")
	a.Connect(&Dialer{Key: ours}, target)
	if up := a.await(EventUp); up.Target != target {
		t.Errorf("event %+v", up)
	}
	ln := listen(t)
	ln.Close()
	nobody := Target{Scheme: "tls", Host: ln.Addr().String()}
	a.Connect(&Dialer{Key: ours}, nobody)
	if f := a.await(EventFailed); f.Target != nobody || f.Err == nil {
		t.Errorf("event %+v", f)
	}
}

// spec/72-streams.md#key: several networks and a newcomer with an invite share a port; a removed member's key opens nothing.
func TestKeysComeAndGo(t *testing.T) {
	a, b := node(t), node(t, theirs, ours)
	target := b.serve("tls")
	a.dial(&Dialer{Key: theirs}, b, target)
	a.dial(&Dialer{Key: ours}, b, target)
	b.SetKeys([]Key{ours})
	for _, kind := range []string{"tls", "wss"} {
		target.Scheme = kind
		if _, err := a.Dial(context.Background(), &Dialer{Key: theirs}, target); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s with a key that was taken back: %v", kind, err)
		}
	}
	if n := len(b.List()); n != 2 {
		t.Errorf("%d streams, want those of before", n)
	}
	many := make([]Key, 100)
	many[70] = theirs
	b.SetKeys(many)
	if _, err := a.Dial(context.Background(), &Dialer{Key: theirs}, target); !errors.Is(err, ErrNotOurs) {
		t.Errorf("key 71 of 100: %v", err)
	}
}

func TestKeysAreNotShown(t *testing.T) {
	for _, s := range []string{fmt.Sprint(ours), fmt.Sprintf("%v %+v %x %#v", ours, ours, ours, &Dialer{Key: ours}), ours.LogValue().String()} {
		if !strings.Contains(s, "redacted") || strings.Contains(s, fmt.Sprintf("%x", ours.k[:4])) {
			t.Errorf("a key prints as %q", s)
		}
	}
}

// spec/72-streams.md#addresses
func TestAddresses(t *testing.T) {
	seen := map[netip.AddrPort]bool{}
	for range 100 {
		a := newAddress()
		if !IsStream(a.Addr()) || a.Port() == 0 || seen[a] {
			t.Fatalf("address %v", a)
		}
		seen[a] = true
	}
	for _, s := range []string{"100:0:0:1::1", "101::1", "2001:db8::1", "1.0.0.0", "::ffff:1.0.0.1", "::", "fe80::1"} {
		if IsStream(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as a stream", s)
		}
	}
	if IsStream(netip.Addr{}) {
		t.Error("no address counts as a stream")
	}
}

// record is a Socket that remembers what was written.
type recorder struct{ to []netip.AddrPort }

func (r *recorder) ReadBatch([]packet.Datagrams) (int, error) { return 0, net.ErrClosed }
func (r *recorder) WriteBatch(b []packet.Datagrams) error {
	for _, d := range b {
		r.to = append(r.to, d.Addr)
	}
	return nil
}

func TestOverSendsEachWhereItBelongs(t *testing.T) {
	a, b := node(t), node(t, ours)
	atA, atB := a.dial(&Dialer{Key: ours}, b, b.serve("tls"))
	plain, gone := netip.MustParseAddrPort("192.0.2.1:7"), newAddress()
	udp := &recorder{}
	var batch []packet.Datagrams
	for i, addr := range []netip.AddrPort{plain, atA, plain, plain, gone, atA} {
		batch = append(batch, packet.Datagrams{Data: []byte{byte(i)}, Segment: 1, Addr: addr})
	}
	if err := a.Over(udp).WriteBatch(batch); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want that of the stream that is gone", err)
	}
	if len(udp.to) != 3 || udp.to[0] != plain || udp.to[2] != plain {
		t.Errorf("to UDP went %v", udp.to)
	}
	if got := b.receive(atB, 2); got[0][0] != 1 || got[1][0] != 5 {
		t.Errorf("by the stream came %v", got)
	}
}

// inside runs f with a Set in a bubble of its own time.
func inside(t *testing.T, f func(t *testing.T, s *Set, events chan Event)) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan Event, 1000)
		s := New(Config{Event: func(e Event) { events <- e }})
		f(t, s, events)
		s.Close()
	})
}

// pipe adds a stream to s and returns its address and the other end of its connection.
func pipe(t *testing.T, s *Set) (netip.AddrPort, net.Conn, error) {
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	addr, err := s.add(carrier{near, near}, Info{Kind: "tls", Inbound: true})
	return addr, far, err
}

// spec/72-streams.md#proof: nobody stays without a session.
func TestWhoProvesNothingIsClosed(t *testing.T) {
	inside(t, func(t *testing.T, s *Set, events chan Event) {
		good, _, _ := pipe(t, s)
		bad, far, _ := pipe(t, s)
		start := time.Now()
		s.Prove(good)
		s.Prove(good)
		s.Prove(newAddress())
		<-events
		<-events
		if e := <-events; e.Kind != EventDown || e.Addr != bad || time.Since(start) != proveWithin {
			t.Errorf("after %v: %+v", time.Since(start), e)
		}
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open")
		}
		s.Prove(bad)
		if l := s.List(); len(l) != 1 || l[0].Addr != good || !l[0].Proven {
			t.Errorf("open: %+v", l)
		}
		// A proven one goes when nothing comes for long.
		if e := <-events; e.Kind != EventDown || e.Addr != good || time.Since(start) != idleAfter {
			t.Errorf("after %v: %+v", time.Since(start), e)
		}
	})
}

// spec/72-streams.md#limits
func TestStreamsAreCounted(t *testing.T) {
	inside(t, func(t *testing.T, s *Set, events chan Event) {
		var open []netip.AddrPort
		refused := 0
		for range MaxStreams {
			addr, _, err := pipe(t, s)
			if errors.Is(err, errFull) {
				refused++
				if len(open)%maxUnproven != 0 || len(open) == 0 {
					t.Fatalf("refused after %d", len(open))
				}
				for _, a := range open {
					s.Prove(a)
				}
				addr, _, err = pipe(t, s)
			}
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, addr)
		}
		if want := MaxStreams/maxUnproven - 1; refused != want {
			t.Errorf("%d were refused for others that had proven nothing, want %d", refused, want)
		}
		for _, a := range open {
			s.Prove(a)
		}
		_, far, err := pipe(t, s)
		if !errors.Is(err, errFull) {
			t.Errorf("stream %d: %v", MaxStreams+1, err)
		}
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("the connection that was refused is open")
		}
		s.Drop(open[0])
		synctest.Wait()
		if _, _, err := pipe(t, s); err != nil {
			t.Errorf("after one has ended: %v", err)
		}
	})
}

// spec/72-streams.md#frames: a client with the key but with bad frames loses its stream, and harms no other.
func TestBadFramesEndTheStream(t *testing.T) {
	for name, bad := range map[string][]byte{"empty": {0, 0}, "long": {0x10, 0x01}, "longest": {0xff, 0xff, 1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			inside(t, func(t *testing.T, s *Set, events chan Event) {
				addr, far, _ := pipe(t, s)
				other, fine, _ := pipe(t, s)
				far.Write(append([]byte{0, 3, 'o', 'n', 'e'}, bad...))
				b := []packet.Datagrams{{Data: make([]byte, 0, 65536)}}
				if n, err := s.ReadBatch(b); n != 1 || err != nil || string(b[0].Data) != "one" || b[0].Addr != addr {
					t.Errorf("%d, %v: %+v", n, err, b[0])
				}
				<-events
				<-events
				if e := <-events; e.Kind != EventDown || e.Addr != addr || !errors.Is(e.Err, errFrame) {
					t.Errorf("event %+v", e)
				}
				for _, c := range []byte("\x00\x03two") { // byte by byte
					fine.Write([]byte{c})
				}
				if n, err := s.ReadBatch(b); n != 1 || err != nil || string(b[0].Data) != "two" || b[0].Addr != other {
					t.Errorf("%d, %v: %+v", n, err, b[0])
				}
			})
		})
	}
}

// spec/72-streams.md#queue: who does not read makes no one wait and no memory grow, and gets only what is fresh.
func TestQueueDropsAndDoesNotMelt(t *testing.T) {
	inside(t, func(t *testing.T, s *Set, events chan Event) {
		addr, far, _ := pipe(t, s)
		s.Prove(addr)
		start := time.Now()
		send := func(i int) {
			d := make([]byte, 1400)
			d[0], d[1] = byte(i>>8), byte(i)
			if err := s.WriteBatch([]packet.Datagrams{{Data: d, Segment: len(d), Addr: addr}}); err != nil {
				t.Fatal(err)
			}
		}
		const packets = 3000
		for i := range packets { // 3 s of traffic that nobody reads
			send(i)
			timer := time.NewTimer(time.Millisecond)
			<-timer.C
		}
		if took := time.Since(start); took != packets*time.Millisecond {
			t.Fatalf("writing took %v", took)
		}
		read := make(chan int, packets)
		go func() {
			defer close(read)
			frame := make([]byte, 1402)
			for {
				for n := 0; n < len(frame); {
					m, err := far.Read(frame[n:])
					if err != nil {
						return
					}
					n += m
				}
				read <- int(frame[2])<<8 | int(frame[3])
			}
		}()
		synctest.Wait()
		got := len(read)
		for i, last := 0, -1; i < got; i++ {
			seq := <-read
			if seq <= last {
				t.Errorf("packet %d came after %d", seq, last)
			}
			if fresh := seq >= packets-queueLength; i >= 12 && !fresh { // one record was on its way
				t.Errorf("packet %d is stale", seq)
			}
			last = seq
		}
		if got > queueLength+12 || got < queueLength {
			t.Errorf("%d packets came, want the newest %d and one record", got, queueLength)
		}
		if l := s.List()[0]; l.Sent != uint64(got) || l.Sent+l.Dropped != packets {
			t.Errorf("%d sent, %d dropped, %d came of %d", l.Sent, l.Dropped, got, packets)
		}
		s.Drop(addr)
	})
}

func TestQueueAge(t *testing.T) {
	q := queue{wake: make(chan struct{}, 1)}
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	q.push(at(0), []byte("old"), 3)
	q.push(at(50), []byte("newer"), 5)
	q.push(at(60), make([]byte, MaxDatagram+1), MaxDatagram+1)
	q.push(at(60), []byte("x"), 0)
	frames, sent, dropped := q.take(at(101), make([]byte, 0, record))
	if string(frames) != "\x00\x05newer" || sent != 1 || dropped != 1 {
		t.Errorf("%q, %d sent, %d dropped", frames, sent, dropped)
	}
}

// spec/72-streams.md#queue: an end that takes nothing is given up.
func TestStuckStreamEnds(t *testing.T) {
	inside(t, func(t *testing.T, s *Set, events chan Event) {
		addr, _, _ := pipe(t, s)
		s.Prove(addr)
		start := time.Now()
		s.WriteBatch([]packet.Datagrams{{Data: []byte("hello"), Segment: 5, Addr: addr}})
		<-events
		if e := <-events; e.Kind != EventDown || time.Since(start) != writeWithin {
			t.Errorf("after %v: %+v", time.Since(start), e)
		}
	})
}

// When nobody reads, senders are held back by TCP and nothing is lost; Close does not wait for it.
func TestReaderHoldsBack(t *testing.T) {
	inside(t, func(t *testing.T, s *Set, events chan Event) {
		addr, far, _ := pipe(t, s)
		s.Prove(addr)
		wrote := 0
		go func() {
			for {
				if _, err := far.Write([]byte{0, 1, byte(wrote)}); err != nil {
					return
				}
				wrote++
			}
		}()
		synctest.Wait()
		if wrote > incoming+2 {
			t.Errorf("%d chunks wait", wrote)
		}
		b := []packet.Datagrams{{Data: make([]byte, 0, 65536)}}
		for i := range 1000 {
			if _, err := s.ReadBatch(b); err != nil || b[0].Data[0] != byte(i) {
				t.Fatalf("datagram %d: %v, %v", i, b[0].Data, err)
			}
		}
	})
}

func TestClosedSet(t *testing.T) {
	s := New(Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := s.ReadBatch([]packet.Datagrams{{Data: make([]byte, 65536)}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Dial(context.Background(), &Dialer{}, Target{Scheme: "tls", Host: "127.0.0.1:1"}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v", err)
	}
	s.Connect(&Dialer{}, Target{})
	if err := s.Serve(listen(t), ServeConfig{}); err != nil {
		t.Errorf("serve: %v", err)
	}
}

// Close ends a dial that waits for a server which says nothing.
func TestCloseEndsDials(t *testing.T) {
	for _, kind := range []string{"tls", "wss", "ws"} {
		a, ln := node(t), listen(t)
		a.Connect(&Dialer{Key: ours}, Target{Scheme: kind, Host: ln.Addr().String()})
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Read(make([]byte, 1)) // it has begun
		start := time.Now()
		a.Close()
		if took := time.Since(start); took > dialWithin/2 {
			t.Errorf("%s: Close took %v", kind, took)
		}
		a.await(EventFailed)
	}
}

// spec/72-streams.md#websocket
func TestTokens(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token, ok := parseToken("/any/where/" + ours.token(now))
	if !ok {
		t.Fatal("a token is not read")
	}
	for hours, want := range map[int]bool{-2: false, -1: true, 0: true, 1: true, 2: false} {
		if got := ours.opens(token, now.Add(time.Duration(hours)*time.Hour)); got != want {
			t.Errorf("%d hours later: %v", hours, got)
		}
	}
	if theirs.opens(token, now) {
		t.Error("another key opens it")
	}
	var n nonces
	if !n.use(token) || n.use(token) {
		t.Error("a token is good once")
	}
	for i := range 2 * maxNonces {
		if !n.use([tokenSize]byte{1, byte(i >> 8), byte(i)}) {
			t.Fatalf("token %d counts as used", i)
		}
	}
	if len(n.seen) != maxNonces || len(n.ring) != maxNonces {
		t.Errorf("%d tokens remembered", len(n.seen))
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("/" + ours.token(time.Unix(0, 0)))
	f.Add("")
	f.Add("/a/" + strings.Repeat("-", 43))
	f.Fuzz(func(t *testing.T, path string) {
		token, ok := parseToken(path)
		if ok && !strings.HasSuffix(path, base64.RawURLEncoding.EncodeToString(token[:])) {
			t.Errorf("%q has two readings", path)
		}
	})
}

// spec/72-streams.md#frames
func FuzzParseFrames(f *testing.F) {
	f.Add([]byte{0, 1, 7, 0, 2, 8})
	f.Add([]byte{0, 0})
	f.Add(appendFrame(nil, make([]byte, MaxDatagram)))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, frames, err := parseFrames(b)
		var again []byte
		d := packet.Datagrams{Data: make([]byte, 0, 65536)}
		for rest := b[:whole]; len(rest) > 0; {
			rest = readTrain(&d, rest)
			for data := d.Data; len(data) > 0; frames-- {
				n := min(d.Segment, len(data))
				again = appendFrame(again, data[:n])
				data = data[n:]
			}
		}
		if !bytes.Equal(again, b[:whole]) || frames != 0 {
			t.Errorf("%x was read as %x", b[:whole], again)
		}
		if rest := b[whole:]; err == nil && len(rest) >= frameHeader && len(rest) >= frameHeader+int(rest[0])<<8+int(rest[1]) {
			t.Errorf("a whole frame is left in %x", b)
		}
	})
}

func TestNoGarbage(t *testing.T) {
	q := queue{wake: make(chan struct{}, 1)}
	data, out, now := make([]byte, 10*1400), make([]byte, 0, record), time.Now()
	if n := testing.AllocsPerRun(100, func() {
		q.push(now, data, 1400)
		q.take(now, out)
	}); n > 0 && !testing.Short() {
		t.Errorf("%v allocations for a train", n)
	}
}

func BenchmarkStream(b *testing.B) {
	for _, kind := range []string{"tls", "wss"} {
		b.Run(kind, func(b *testing.B) {
			from, to := New(Config{proveWithin: time.Hour}), node(b, ours)
			defer from.Close()
			addr, err := from.Dial(context.Background(), &Dialer{Key: ours}, to.serve(kind))
			if err != nil {
				b.Fatal(err)
			}
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case <-to.got:
					case <-stop:
						return
					}
				}
			}()
			const size, train = 1452, 20
			d := []packet.Datagrams{{Data: make([]byte, train*size), Segment: size, Addr: addr}}
			b.SetBytes(train * size)
			for b.Loop() {
				from.WriteBatch(d)
				for st := from.find(addr); ; { // as a sender that hears of losses would
					st.queue.mu.Lock()
					n := st.queue.n
					st.queue.mu.Unlock()
					if n < queueLength-train {
						break
					}
					runtime.Gosched()
				}
			}
			b.ReportMetric(float64(from.List()[0].Dropped), "dropped")
		})
	}
}

// spec/72-streams.md#limits
func TestDialsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		d := &Dialer{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range maxDialing {
			wg.Go(func() { // ends by cancel
				if _, err := s.Dial(ctx, d, Target{Scheme: "tls", Host: "a.example:443"}); !errors.Is(err, context.Canceled) {
					t.Errorf("dial: %v", err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := s.Dial(ctx, d, Target{Scheme: "tls", Host: "b.example:443"}); !errors.Is(err, errFull) || time.Since(begun) > 0 {
			t.Errorf("dial %d, after %v: %v", maxDialing+1, time.Since(begun), err)
		}
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
