package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/wire"
)

func ids32(n int) (list []wire.RecordID) {
	for i := range n {
		list = append(list, wire.RecordID{byte(i + 1)})
	}
	return list
}

// The bytes that spec/50-control.md#sync shows.
func TestSyncBytes(t *testing.T) {
	x := wire.RecordID{0x20, 1}
	f := frame{kind: kindRanges, round: 0x01020304, spans: []span{
		{upper: bound{id: wire.RecordID{0x20}}, mode: modeSkip},
		{lower: bound{id: wire.RecordID{0x20}}, upper: bound{id: wire.RecordID{0x20, 0x80}}, mode: modeIDs, ids: []wire.RecordID{x}},
		{lower: bound{id: wire.RecordID{0x20, 0x80}}, upper: bound{end: true}, mode: modePrint, count: 2, print: print{0xaa, 15: 0xbb}},
	}}
	want := "0101020304" + "012000" + "02208002" + "01" + hex.EncodeToString(x[:]) + "0001" + "00000002" + "aa" + "0000000000000000000000000000" + "bb"
	b := f.append(nil)
	if hex.EncodeToString(b) != want {
		t.Errorf("bytes %x, want %s", b, want)
	}
	got, err := parseSync(b)
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("read back: %+v, %v", got, err)
	}
}

// spec/50-control.md#sync
func TestSyncRefuses(t *testing.T) {
	head := []byte{kindRanges, 0, 0, 0, 0}
	id := func(b byte) []byte { x := wire.RecordID{b}; return x[:] }
	cat := func(parts ...[]byte) []byte { return slices.Concat(append([][]byte{head}, parts...)...) }
	for name, b := range map[string][]byte{
		"empty":                 {},
		"short":                 {1, 0, 0, 0},
		"kind 0":                {0, 0, 0, 0, 0},
		"no ranges":             head,
		"no mode":               cat([]byte{0}),
		"unknown mode":          cat([]byte{0, 3}),
		"short print":           cat([]byte{0, 1}, make([]byte, 19)),
		"bound of 33 bytes":     cat([]byte{33}, make([]byte, 40)),
		"bound cut":             cat([]byte{5, 1, 2}),
		"bound ends in zero":    cat([]byte{2, 1, 0, 2, 0}),
		"bound zero":            cat([]byte{1, 0, 2, 0}),
		"bounds descend":        cat([]byte{1, 9, 2, 0, 1, 8, 2, 0}),
		"bounds repeat":         cat([]byte{1, 9, 2, 0, 1, 9, 2, 0}),
		"after the end":         cat([]byte{0, 2, 0, 1, 8, 2, 0}),
		"skip at the end":       cat([]byte{1, 9, 2, 0, 0, 0}),
		"two skips":             cat([]byte{1, 1, 0, 1, 2, 0, 0, 2, 0}),
		"33 ids":                cat([]byte{0, 2, 33}, make([]byte, 33*32)),
		"ids cut":               cat([]byte{0, 2, 2}, id(1)),
		"ids descend":           cat([]byte{0, 2, 2}, id(2), id(1)),
		"ids repeat":            cat([]byte{0, 2, 2}, id(2), id(2)),
		"id below the range":    cat([]byte{1, 5, 0, 0, 2, 1}, id(4)),
		"id above the range":    cat([]byte{1, 5, 2, 1}, id(5)),
		"want nothing":          {kindWant, 0, 0, 0, 0},
		"want a half":           slices.Concat([]byte{kindWant, 0, 0, 0, 0}, make([]byte, 16)),
		"want 33":               slices.Concat([]byte{kindWant, 0, 0, 0, 0}, bytes.Repeat(id(1), 33)),
		"want twice":            slices.Concat([]byte{kindWant, 0, 0, 0, 0}, id(1), id(1)),
		"equal with more":       {kindEqual, 0, 0, 0, 0, 1},
		"larger than a message": append(slices.Clone(head), make([]byte, maxBody)...),
	} {
		if _, err := parseSync(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// FuzzParseSync: whatever comes, there is no panic, and what is accepted has one form.
func FuzzParseSync(f *testing.F) {
	for _, fr := range []frame{
		{kind: kindEqual, round: 7},
		{kind: kindWant, round: 7, ids: ids32(32)},
		{kind: kindRanges, round: 7, spans: []span{{upper: bound{end: true}, mode: modePrint, count: 5}}},
		{kind: kindRanges, round: 7, spans: []span{{upper: bound{id: wire.RecordID{1, 2}}, mode: modeSkip},
			{lower: bound{id: wire.RecordID{1, 2}}, upper: bound{end: true}, mode: modeIDs, ids: ids32(32)[4:]}}},
	} {
		f.Add(fr.append(nil))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := parseSync(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		if again := fr.append(nil); fr.kind <= kindEqual && !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %x", b, again)
		}
	})
}

// The fingerprint against a slow reading of spec/50-control.md#fingerprint, over sets that grow and shrink.
func TestFingerprint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSet()
		oracle := map[wire.RecordID]bool{}
		small := rapid.Custom(func(t *rapid.T) wire.RecordID {
			var id wire.RecordID
			id[0], id[31] = byte(rapid.IntRange(0, 255).Draw(t, "first")), byte(rapid.IntRange(0, 3).Draw(t, "last"))
			for i := 1; i < 31 && id[0]%2 == 0; i++ {
				id[i] = 0xff // carries
			}
			return id
		})
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			id := small.Draw(t, "id")
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				s.remove(id)
				delete(oracle, id)
			} else {
				s.add(id, []byte{1})
				oracle[id] = true
			}
			if rapid.Bool().Draw(t, "look") {
				s.print(0, len(s.ids)) // sums are kept: they must not outlive a change
			}
		}
		lower, upper := bound{id: small.Draw(t, "lower")}, bound{id: small.Draw(t, "upper")}
		if rapid.Bool().Draw(t, "to the end") {
			upper = bound{end: true}
		}
		if !upper.above(lower) {
			return
		}
		total, n := new(big.Int), 0
		for id := range oracle {
			if !lower.above(bound{id: id}) && upper.above(bound{id: id}) {
				total.Add(total, new(big.Int).SetBytes(id[:]))
				n++
			}
		}
		total.Mod(total, new(big.Int).Lsh(big.NewInt(1), 256))
		input := binary.BigEndian.AppendUint32(total.FillBytes(make([]byte, 32)), uint32(n))
		want := sha256.Sum256(input)
		lo, hi := s.index(lower), s.index(upper)
		if got := s.print(lo, hi); hi-lo != n || !bytes.Equal(got[:], want[:16]) {
			t.Fatalf("fingerprint of %d ids %x, want %d and %x", hi-lo, got, n, want[:16])
		}
	})
}

func TestBetween(t *testing.T) {
	for _, c := range []struct {
		a, b wire.RecordID
		want int
	}{
		{wire.RecordID{1}, wire.RecordID{2}, 1},
		{wire.RecordID{1, 5}, wire.RecordID{2, 7, 7}, 1},
		{wire.RecordID{1, 5}, wire.RecordID{1, 6, 9}, 2},
		{wire.RecordID{}, wire.RecordID{31: 1}, 32},
	} {
		m := between(c.a, c.b)
		if !m.above(bound{id: c.a}) || m.above(bound{id: c.b}) || m.size() != 1+c.want {
			t.Errorf("between %x and %x is %x of %d bytes, want %d", c.a, c.b, m.id, m.size()-1, c.want)
		}
	}
}

// Whatever spans an answer has, every message that carries them is well formed, and together they say the same.
func TestPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cuts := rapid.SliceOfNDistinct(rapid.IntRange(1, 255), 2, 120, rapid.ID[int]).Draw(t, "cuts")
		slices.Sort(cuts)
		var spans []span
		for i := 1; i < len(cuts); i++ {
			s := span{lower: bound{id: wire.RecordID{byte(cuts[i-1])}}, upper: bound{id: wire.RecordID{byte(cuts[i])}}}
			switch rapid.IntRange(0, 2).Draw(t, "mode") {
			case 0:
				continue
			case 1:
				s.mode, s.count = modePrint, i
			default:
				s.mode = modeIDs
				for j := range rapid.IntRange(0, 32).Draw(t, "ids") {
					s.ids = append(s.ids, wire.RecordID{byte(cuts[i-1]), byte(j)})
				}
			}
			spans = append(spans, s)
		}
		var got []span
		for _, body := range pack(3, spans, 1000) {
			f, err := parseSync(body)
			if err != nil {
				t.Fatalf("%x: %v", body, err)
			}
			for _, s := range f.spans {
				if s.mode != modeSkip {
					got = append(got, s)
				}
			}
		}
		if !reflect.DeepEqual(got, spans) {
			t.Fatalf("sent %+v, arrived %+v", spans, got)
		}
		if n := len(pack(3, spans, 2)); n > 2 {
			t.Fatalf("%d messages, the limit is 2", n)
		}
	})
}

func TestCache(t *testing.T) {
	c := newIDs[int](3)
	for i := range 5 {
		c.put(i, struct{}{})
	}
	c.put(4, struct{}{})
	if got := c.keys(); !slices.Equal(got, []int{2, 3, 4}) {
		t.Errorf("keys %v, want the last three", got)
	}
	c.remove(3)
	c.put(3, struct{}{})
	for i := 10; i < 100; i++ {
		c.put(i, struct{}{})
		if len(c.values) > 3 || len(c.ring) > 3 {
			t.Fatal("the cache outgrew its limit")
		}
	}
}
