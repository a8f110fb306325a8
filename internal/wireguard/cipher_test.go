package wireguard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// spec/40-wireguard.md#fast-form
func TestFastFormIsSentOnlyWhenAskedFor(t *testing.T) {
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	seal := func(marks Mark) []byte {
		buf := append(make([]byte, HeaderLen, 200), "an inner packet of 32 bytes 12345"[:32]...)
		n, err := send.Seal(now, buf, 32, marks)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	if m := seal(0); !bytes.Equal(m[:4], []byte{4, 0, 0, 0}) {
		t.Fatalf("a stock peer is sent %x", m[:4])
	}
	send.Peer().SetFast(true)
	m := seal(MarkPartial)
	if !bytes.Equal(m[:4], []byte{4, 1, 1, 0}) {
		t.Fatalf("a fast peer is sent %x", m[:4])
	}
	for at, bit := range map[int]byte{1: 1, 2: 1, 3: 1, 8: 1, 20: 1} { // the header is authenticated too
		bad := bytes.Clone(m)
		bad[at] ^= bit
		if _, _, err := receive.Open(now, bad); err == nil {
			t.Fatalf("opened with byte %d changed", at)
		}
	}
	plain, marks, err := receive.Open(now, m)
	if err != nil || marks != MarkPartial || string(plain[:8]) != "an inner" {
		t.Fatalf("%q, marks %d, %v", plain, marks, err)
	}
	if _, marks, err := receive.Open(now, seal(0)); err != nil || marks != 0 {
		t.Fatalf("marks %d, %v", marks, err)
	}
}

// The two forms never share a key, in either direction, and both draw from one counter: so no key and nonce occur twice.
// spec/40-wireguard.md#fast-form
func TestFormsShareNeitherKeyNorNonce(t *testing.T) {
	var one, two [32]byte
	one[0], two[0] = 1, 2
	seen := map[string]string{}
	for name, k := range map[string][32]byte{"initiator": one, "responder": two} {
		fast, err := fastKey(k)
		if err != nil {
			t.Fatal(err)
		}
		for form, key := range map[string][]byte{"stock": k[:], "fast": fast} {
			if other := seen[string(key)]; other != "" {
				t.Fatalf("%s %s has the key of %s", name, form, other)
			}
			seen[string(key)] = name + " " + form
		}
	}
	w, send, receive := tunnel(t)
	now := w.nodes[0].nanosNow()
	counters := map[uint64]bool{}
	for i := range 100 {
		send.Peer().SetFast(i%3 == 0)
		buf := make([]byte, 100)
		n, err := send.Seal(now, buf, 16, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := binary.LittleEndian.Uint64(buf[8:])
		if counters[c] {
			t.Fatalf("counter %d was used for both forms", c)
		}
		counters[c] = true
		again := bytes.Clone(buf[:n])
		if _, _, err := receive.Open(now, buf[:n]); err != nil {
			t.Fatal(err)
		}
		if _, _, err := receive.Open(now, again); !errors.Is(err, ErrReplay) {
			t.Fatalf("replayed: %v", err)
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	var w window
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		if !w.accept(n) {
			b.Fatal("a new counter was refused")
		}
	}
}
