package wireguard

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
)

// tunnel returns the sending keypair of one end and the same session's keypair of the other.
func tunnel(t testing.TB) (w *world, send, receive *Keypair) {
	w, a, b := pair(t)
	w.connect(a, b)
	send = a.peer(b).Sending()
	return w, send, b.table[send.remote]
}

// spec/40-wireguard.md#messages
func TestSealOpen(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, n := range []int{0, 1, 15, 16, 1420, 65000} {
		plain := bytes.Repeat([]byte{0x45}, n)
		buf := make([]byte, HeaderLen, HeaderLen+n+TagLen)
		buf = append(buf, plain...)
		before := send.counter.Load()
		size, err := send.Seal(now, buf, n, 0)
		if err != nil || size != n+32 {
			t.Fatalf("%d bytes: %d, %v", n, size, err)
		}
		msg := buf[:size]
		if typ, to, c := binary.LittleEndian.Uint32(msg), binary.LittleEndian.Uint32(msg[4:]), binary.LittleEndian.Uint64(msg[8:]); typ != 4 || to != receive.LocalIndex() || c != before {
			t.Fatalf("header: type %d, receiver %d, counter %d", typ, to, c)
		}
		got, _, err := receive.Open(now, msg)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: opened %d, %v", n, len(got), err)
		}
	}
}

// spec/40-wireguard.md#messages
func TestSealBuffer(t *testing.T) {
	w, send, _ := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, c := range []struct{ capacity, n int }{{0, 0}, {31, 0}, {47, 16}, {100, -1}, {100, -40}} {
		before := send.counter.Load()
		if _, err := send.Seal(now, make([]byte, c.capacity), c.n, 0); err != ErrBuffer {
			t.Errorf("capacity %d, n %d: %v, want ErrBuffer", c.capacity, c.n, err)
		}
		if send.counter.Load() != before {
			t.Error("a counter was wasted")
		}
	}
}

// spec/40-wireguard.md#messages
func TestOpenRefuses(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	seal := func() []byte {
		buf := make([]byte, 64)
		size, err := send.Seal(now, buf, 32, 0)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:size]
	}
	for _, c := range []struct {
		name   string
		change func(m []byte) []byte
		want   error
	}{
		{"short", func(m []byte) []byte { return m[:31] }, ErrMalformed},
		{"type", func(m []byte) []byte { m[0] = 3; return m }, ErrMalformed},
		{"reserved", func(m []byte) []byte { m[3] = 1; return m }, ErrMalformed},
		{"counter", func(m []byte) []byte { m[8]++; return m }, ErrAuth},
		{"text", func(m []byte) []byte { m[20] ^= 1; return m }, ErrAuth},
		{"tag", func(m []byte) []byte { m[len(m)-1] ^= 1; return m }, ErrAuth},
		{"truncated", func(m []byte) []byte { return m[:len(m)-1] }, ErrAuth},
		{"counter beyond all", func(m []byte) []byte { copy(m[8:16], bytes.Repeat([]byte{0xff}, 8)); return m }, ErrExpired},
	} {
		if _, _, err := receive.Open(now, c.change(seal())); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, err := send.Open(now, seal()); err != ErrAuth {
		t.Errorf("a message reflected to its sender: %v", err)
	}
}

// spec/40-wireguard.md#replay
func TestReplayWindow(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	var msgs [][]byte
	for range 8130 {
		buf := make([]byte, 32)
		if _, err := send.Seal(now, buf, 0, 0); err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, buf)
	}
	open := func(i int) error {
		_, _, err := receive.Open(now, append([]byte(nil), msgs[i]...))
		return err
	}
	last := len(msgs) - 1
	if err := open(last); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		behind int
		want   error
	}{{0, ErrReplay}, {1, nil}, {1, ErrReplay}, {100, nil}, {8128, nil}, {8128, ErrReplay}, {8129, ErrReplay}} {
		if err := open(last - c.behind); err != c.want {
			t.Errorf("%d behind the highest: %v, want %v", c.behind, err, c.want)
		}
	}
}

// spec/40-wireguard.md#counters
func TestConcurrentWorkersNeverReuseACounter(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	const workers, each = 4, 2000
	out := make([][][]byte, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for range each {
				buf := make([]byte, 48)
				if _, err := send.Seal(now, buf, 16, 0); err != nil {
					t.Error(err)
				}
				out[i] = append(out[i], buf)
			}
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	for _, msgs := range out {
		for _, m := range msgs {
			c := binary.LittleEndian.Uint64(m[8:])
			if seen[c] {
				t.Fatalf("counter %d was used twice", c)
			}
			seen[c] = true
		}
	}
	opened := make([]int, workers)
	for i := range workers { // every message is offered by two workers, and accepted once
		wg.Go(func() {
			for _, half := range [][][]byte{out[i], out[(i+1)%workers]} {
				for _, m := range half {
					if _, _, err := receive.Open(now, append([]byte(nil), m...)); err == nil {
						opened[i]++
					}
				}
			}
		})
	}
	wg.Wait()
	if sum := opened[0] + opened[1] + opened[2] + opened[3]; sum != workers*each {
		t.Errorf("%d messages accepted of %d sent twice", sum, workers*each)
	}
}

// Workers read and write while the control loop rotates and removes; meaningful under -race.
func TestWorkersAndControlLoop(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	p := a.peer(b)
	now := a.nanosNow()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			buf := make([]byte, 64)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if k := p.Sending(); k != nil {
					if size, err := k.Seal(now, buf, 16, 0); err == nil {
						p.Sent(now, k, true, size)
						_, _, _ = k.Open(now, buf[:size])
						p.Received(now, k, true, size)
					}
				}
			}
		})
	}
	for range 20 {
		w.run(RekeyTimeout)
		w.connect(a, b)
	}
	a.RemovePeer(b.public)
	close(stop)
	wg.Wait()
}

// spec/40-wireguard.md#padding
func TestPadded(t *testing.T) {
	for _, c := range []struct{ n, mtu, want int }{
		{0, 1420, 0}, {1, 1420, 16}, {16, 1420, 16}, {17, 1420, 32}, {1408, 1420, 1408}, {1409, 1420, 1420}, {1420, 1420, 1420}, {1421, 1420, 1421},
	} {
		if got := Padded(c.n, c.mtu); got != c.want {
			t.Errorf("Padded(%d, %d) = %d, want %d", c.n, c.mtu, got, c.want)
		}
	}
}

func TestTransportAllocatesNothing(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	buf := make([]byte, HeaderLen+1424+TagLen)
	if n := testing.AllocsPerRun(200, func() {
		size, err := send.Seal(now, buf, 1424, 0)
		if err != nil {
			t.Fatal(err)
		}
		send.Peer().Sent(now, send, true, size)
		if _, _, err := receive.Open(now, buf[:size]); err != nil {
			t.Fatal(err)
		}
		receive.Peer().Received(now, receive, true, size)
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkSeal(b *testing.B)     { benchmarkSeal(b, false) }
func BenchmarkSealFast(b *testing.B) { benchmarkSeal(b, true) }
func BenchmarkOpen(b *testing.B)     { benchmarkOpen(b, false) }
func BenchmarkOpenFast(b *testing.B) { benchmarkOpen(b, true) }

func benchmarkSeal(b *testing.B, fast bool) {
	w, send, _ := tunnel(b)
	send.Peer().SetFast(fast)
	now := w.nodes[0].nanosNow()
	buf := make([]byte, HeaderLen+1420+TagLen)
	b.SetBytes(1420)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := send.Seal(now, buf, 1420, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkOpen(b *testing.B, fast bool) {
	w, send, receive := tunnel(b)
	send.Peer().SetFast(fast)
	now := w.nodes[0].nanosNow()
	sealed := make([]byte, HeaderLen+1420+TagLen)
	if _, err := send.Seal(now, sealed, 1420, 0); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, len(sealed))
	b.SetBytes(1420)
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, sealed)
		receive.window.filter.Reset()
		if _, _, err := receive.Open(now, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHandshakePair(b *testing.B) {
	w, alice, bob := pair(b)
	b.ReportAllocs()
	for b.Loop() {
		w.now = w.now.Add(RekeyTimeout)
		alice.errs, bob.errs = nil, nil
		w.connect(alice, bob)
	}
}

func BenchmarkMAC1(b *testing.B) {
	w, _, bob := pair(b)
	_ = w
	msg := remac(bob, append([]byte{1, 0, 0, 0}, make([]byte, InitiationLen-4)...))
	for b.Loop() {
		if !bob.Owns(msg) {
			b.Fatal("mac1")
		}
	}
}
