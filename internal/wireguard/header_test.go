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
		buf[HeaderLen+i] = byte(i)
	}
	return append(buf, bytes.Repeat([]byte("tail"), 25)...)
}

// spec/52-relay.md#sealing
func TestSealOpenHeader(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		for _, n := range []int{0, 1, 28, 52, MaxHeader} {
			buf := relayed(n)
			plain, tail := bytes.Clone(buf[HeaderLen:HeaderLen+n]), bytes.Clone(buf[HeaderLen+n+TagLen:])
			before := send.counter.Load()
			size, err := send.SealHeader(now, buf, n)
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
			got, err := receive.OpenHeader(now, buf)
			if err != nil || !bytes.Equal(got, plain) || !bytes.Equal(buf[size:], tail) {
				t.Fatalf("%d bytes: opened %x, %v; tail %q", n, got, err, buf[size:])
			}
		}
	}
	for _, c := range []struct{ length, n int }{{31, 0}, {59, 28}, {400, MaxHeader + 1}, {100, -1}} {
		before := send.counter.Load()
		if _, err := send.SealHeader(now, make([]byte, c.length), c.n); err != ErrBuffer || send.counter.Load() != before {
			t.Errorf("length %d, n %d: %v, want ErrBuffer and no counter spent", c.length, c.n, err)
		}
	}
}

// spec/52-relay.md#sealing
func TestOpenHeaderRefuses(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	seal := func() []byte {
		buf := relayed(28)
		if _, err := send.SealHeader(now, buf, 28); err != nil {
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
			{"reserved", func(m []byte) []byte { m[3] = 1; return m }, ErrMalformed},
			{"counter", func(m []byte) []byte { m[8]++; return m }, ErrAuth},
			{"text", func(m []byte) []byte { m[20] ^= 1; return m }, ErrAuth},
			{"tag", func(m []byte) []byte { m[59] ^= 1; return m }, ErrAuth},
			{"counter beyond all", func(m []byte) []byte { copy(m[8:16], bytes.Repeat([]byte{0xff}, 8)); return m }, ErrExpired},
		} {
			if _, err := receive.OpenHeader(now, c.change(seal())); err != c.want {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		if _, err := send.OpenHeader(now, seal()); err != ErrAuth {
			t.Errorf("a header reflected to its sender: %v", err)
		}
		if _, err := receive.OpenHeader(now+int64(RejectAfterTime), seal()); err != ErrExpired {
			t.Errorf("too late: %v", err)
		}
	}
	if _, err := send.SealHeader(now+int64(RejectAfterTime), relayed(28), 28); err != ErrExpired {
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
			size, err := send.SealHeader(now, h, 28)
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
			if _, err := receive.OpenHeader(now, m); err != ErrAuth {
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
			_, err = send.SealHeader(now, buf, 28)
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
				_, err := receive.OpenHeader(now, b)
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

func TestHeaderAllocatesNothing(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	for _, fast := range []bool{false, true} {
		send.Peer().SetFast(fast)
		buf := relayed(28)
		if n := testing.AllocsPerRun(200, func() {
			if _, err := send.SealHeader(now, buf, 28); err != nil {
				t.Fatal(err)
			}
			if _, err := receive.OpenHeader(now, buf); err != nil {
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
	if _, err := send.SealHeader(now, sealed, 28); err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:60])
	f.Add([]byte{5, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		genuine := len(b) >= 60 && bytes.Equal(b[:60], sealed[:60])
		if _, err := receive.OpenHeader(now, bytes.Clone(b)); err == nil && !genuine {
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
	if _, err := send.SealHeader(now, buf, 28); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := receive.OpenHeader(now, buf); err != nil {
			b.Fatal(err)
		}
		if _, err := send.SealHeader(now, buf, 28); err != nil {
			b.Fatal(err)
		}
	}
}
