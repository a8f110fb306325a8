package wireguard

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// relayed returns a buffer with a header of n bytes, ready to be sealed, and a tail.
func relayed(n int) []byte {
	buf := make([]byte, HeaderLen+n+TagLen, HeaderLen+n+TagLen+100)
	for i := range n {
		buf[HeaderLen+i] = byte(i) // and 0 as its first, which is the seal's
	}
	return append(buf, bytes.Repeat([]byte("tail"), 25)...)
}

// openHeader opens a header and lets its datagram through, as for one that stands alone.
func openHeader(k *Keypair, now int64, msg []byte) ([]byte, error) {
	header, s, err := k.OpenHeader(now, msg)
	if err == nil {
		err = k.Take(s, msg)
	}
	return header, err
}

// spec/52-relay.md#sealing
func TestSealOpenHeader(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		for _, n := range []int{1, 2, 28, 52, MaxHeader} {
			buf := relayed(n)
			plain, tail := bytes.Clone(buf[HeaderLen:HeaderLen+n]), bytes.Clone(buf[HeaderLen+n+TagLen:])
			before := send.counter.Load()
			size, err := send.SealHeader(now, buf, n, 1)
			if err != nil || size != n+32 {
				t.Fatalf("%d bytes: %d, %v", n, size, err)
			}
			form := byte(0)
			if fast {
				form = 1
			}
			if !bytes.Equal(buf[:4], []byte{5, byte(n), form, 0}) || binary.LittleEndian.Uint32(buf[4:]) != receive.LocalIndex() || binary.LittleEndian.Uint64(buf[8:]) != before {
				t.Fatalf("front %x", buf[:HeaderLen])
			}
			if n > 15 && bytes.Contains(buf, plain[:16]) {
				t.Error("the header is in clear")
			}
			got, err := openHeader(receive, now, buf)
			if err != nil || !bytes.Equal(got, plain) || !bytes.Equal(buf[size:], tail) {
				t.Fatalf("%d bytes: opened %x, %v; tail %q", n, got, err, buf[size:])
			}
		}
	}
	for _, c := range []struct{ length, n, share int }{{40, 0, 1}, {59, 28, 1}, {400, MaxHeader + 1, 1}, {100, -1, 1}, {100, 28, 0}, {100, 28, MaxShare + 1}} {
		before := send.counter.Load()
		if _, err := send.SealHeader(now, make([]byte, c.length), c.n, c.share); err != ErrBuffer || send.counter.Load() != before {
			t.Errorf("length %d, n %d, share %d: %v, want ErrBuffer and no counter spent", c.length, c.n, c.share, err)
		}
	}
}

// spec/52-relay.md#sealing
func TestOpenHeaderRefuses(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	seal := func() []byte {
		buf := relayed(28)
		if _, err := send.SealHeader(now, buf, 28, 1); err != nil {
			t.Fatal(err)
		}
		return buf
	}
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		for _, c := range []struct {
			name   string
			change func(m []byte) []byte
			want   error
		}{
			{"short", func(m []byte) []byte { return m[:31] }, ErrMalformed},
			{"cut in the tag", func(m []byte) []byte { return m[:59] }, ErrMalformed},
			{"type", func(m []byte) []byte { m[0] = 4; return m }, ErrMalformed},
			{"length beyond the end", func(m []byte) []byte { m[1] = 200; return m }, ErrMalformed},
			{"smaller length", func(m []byte) []byte { m[1]--; return m }, ErrAuth},
			{"greater length", func(m []byte) []byte { m[1]++; return m }, ErrAuth},
			{"other form", func(m []byte) []byte { m[2] ^= 1; return m }, ErrAuth},
			{"unknown form", func(m []byte) []byte { m[2] |= 2; return m }, ErrMalformed},
			{"no header", func(m []byte) []byte { m[1] = 0; return m }, ErrMalformed},
			{"place beyond the seal's", func(m []byte) []byte { m[3] = 1; return m }, ErrMalformed},
			{"place beyond all", func(m []byte) []byte { m[3] = MaxShare; return m }, ErrMalformed},
			{"counter", func(m []byte) []byte { m[8]++; return m }, ErrAuth},
			{"text", func(m []byte) []byte { m[20] ^= 1; return m }, ErrAuth},
			{"tag", func(m []byte) []byte { m[59] ^= 1; return m }, ErrAuth},
			{"counter beyond all", func(m []byte) []byte { copy(m[8:16], bytes.Repeat([]byte{0xff}, 8)); return m }, ErrExpired},
		} {
			if _, err := openHeader(receive, now, c.change(seal())); err != c.want {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		if _, err := openHeader(send, now, seal()); err != ErrAuth {
			t.Errorf("a header reflected to its sender: %v", err)
		}
		if _, err := openHeader(receive, now+int64(RejectAfterTime), seal()); err != ErrExpired {
			t.Errorf("too late: %v", err)
		}
	}
	if _, err := send.SealHeader(now+int64(RejectAfterTime), relayed(28), 28, 1); err != ErrExpired {
		t.Errorf("sealed too late: %v", err)
	}
}

// A header and a transport message of the same session, form and length, with the first bytes changed to those of the other.
// spec/52-relay.md#sealing
func TestHeaderAndTransportAreNeverTakenForEachOther(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		for form := byte(0); form <= 1; form++ {
			h := relayed(28)
			size, err := send.SealHeader(now, h, 28, 1)
			if err != nil {
				t.Fatal(err)
			}
			copy(h, []byte{4, form, 0, 0})
			if _, _, err := receive.Open(now, h[:size]); err != ErrAuth {
				t.Errorf("fast %v: a header as transport message of form %d: %v", fast, form, err)
			}
			m := relayed(28)[:60]
			if _, err := send.Seal(now, m, 28, 0); err != nil {
				t.Fatal(err)
			}
			copy(m, []byte{5, 28, form, 0})
			if _, err := openHeader(receive, now, m); err != ErrAuth {
				t.Errorf("fast %v: a transport message as header of form %d: %v", fast, form, err)
			}
		}
	}
}

// spec/52-relay.md#sealing
func TestHeadersAndMessagesShareCountersAndWindow(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	seen := map[uint64]bool{}
	for i := range 100 {
		buf := relayed(28)
		var err error
		if i%2 == 0 {
			_, err = send.SealHeader(now, buf, 28, 1)
		} else {
			_, err = send.Seal(now, buf, 28, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		c := binary.LittleEndian.Uint64(buf[8:])
		if seen[c] {
			t.Fatalf("counter %d was used twice", c)
		}
		seen[c] = true
		open := func() error {
			b := bytes.Clone(buf)
			if i%2 == 0 {
				_, err := openHeader(receive, now, b)
				return err
			}
			_, _, err := receive.Open(now, b[:60])
			return err
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if err := open(); err != ErrReplay {
			t.Fatalf("replayed: %v", err)
		}
	}
}

// A seal for three: each is read without the others and in any order, each once; there is no fourth, and what is sealed next has
// counters of its own. spec/52-relay.md#shared-seals
func TestSharedSeal(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		front := relayed(28)[:60]
		before := send.counter.Load()
		if _, err := send.SealHeader(now, front, 28, 3); err != nil {
			t.Fatal(err)
		}
		next := relayed(28)
		if _, err := send.SealHeader(now, next, 28, 1); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(next[8:]); got != before+3 {
			t.Errorf("the counter behind three from %d is %d", before, got)
		}
		at := func(i int) []byte {
			buf := relayed(28)
			ShareSeal(buf, front, i)
			return buf
		}
		for _, c := range []struct {
			place int
			want  error
		}{{2, nil}, {0, nil}, {2, ErrReplay}, {3, ErrMalformed}, {1, nil}, {0, ErrReplay}, {1, ErrReplay}, {MaxShare - 1, ErrMalformed}} {
			if !SameSeal(front, at(c.place)[:60]) {
				t.Errorf("place %d has another seal", c.place)
			}
			got, err := openHeader(receive, now, at(c.place))
			if err != c.want || err == nil && !bytes.Equal(got, relayed(28)[HeaderLen:HeaderLen+28]) {
				t.Errorf("place %d: %x, %v, want %v", c.place, got, err, c.want)
			}
		}
		if _, err := openHeader(receive, now, next); err != nil {
			t.Errorf("the one sealed next: %v", err)
		}
	}
}

// Whatever byte is changed but for the place, it is another seal. spec/52-relay.md#shared-seals
func TestSameSeal(t *testing.T) {
	w, send, _ := tunnel(t)
	front := relayed(28)[:60]
	if _, err := send.SealHeader(w.nodes[0].nanosNow(), front, 28, 2); err != nil {
		t.Fatal(err)
	}
	for i := range front {
		other := bytes.Clone(front)
		other[i] ^= 1
		if got := SameSeal(front, other); got != (i == 3) {
			t.Errorf("byte %d changed: %v", i, got)
		}
	}
}

func TestHeaderAllocatesNothing(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		buf := relayed(28)
		if n := testing.AllocsPerRun(200, func() {
			if _, err := send.SealHeader(now, buf, 28, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := openHeader(receive, now, buf); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations a header", n)
		}
	}
}

// FuzzOpenHeader opens whatever comes; nothing but what was sealed may be accepted.
func FuzzOpenHeader(f *testing.F) {
	w, send, receive := tunnel(f)
	now := w.nodes[0].nanosNow()
	sealed := relayed(28)
	if _, err := send.SealHeader(now, sealed, 28, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:60])
	f.Add([]byte{5, 0, 0, 0})
	f.Add(append([]byte{5, 28, 0, 1}, sealed[4:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		genuine := len(b) >= 60 && b[3] == 0 && SameSeal(b[:60], sealed[:60])
		if _, err := openHeader(receive, now, bytes.Clone(b)); err == nil && !genuine {
			t.Fatalf("%x was accepted", b)
		}
	})
}

func BenchmarkHeader(b *testing.B)     { benchmarkHeader(b, false) }
func BenchmarkHeaderFast(b *testing.B) { benchmarkHeader(b, true) }

// benchmarkHeader opens a header and seals it again, as a relay does for one datagram.
func benchmarkHeader(b *testing.B, fast bool) {
	w, send, receive := tunnel(b)
	send.Peer().SetFast(fast)
	now := w.nodes[0].nanosNow()
	buf := relayed(28)
	if _, err := send.SealHeader(now, buf, 28, 1); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := openHeader(receive, now, buf); err != nil {
			b.Fatal(err)
		}
		if _, err := send.SealHeader(now, buf, 28, 1); err != nil {
			b.Fatal(err)
		}
	}
}
