package gossip

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// The bytes that spec/53-map.md#digest shows.
func TestDigestBytes(t *testing.T) {
	abc := prefix{digits: 3, id: key.ShortID{0xab, 0xc0}}
	if p := (prefix{}).part(0xa).part(0xb).part(0xc); p != abc || p.last() != 0xabcfffffffffffff {
		t.Errorf("the prefix abc is %v to %x", p, p.last())
	}
	for want, d := range map[string]digest{
		"01 00 01 00000002 aa0000000000000000000000000000bb": {kind: digestCompare, ranges: []stretch{{mode: rangePrint, count: 2, print: print{0xaa, 15: 0xbb}}}},
		"01 03 abc0 02 01 abc0112233445566 00000007 00000002": {kind: digestCompare, ranges: []stretch{{prefix: abc, mode: rangeList,
			list: []stamp{{key.ShortID{0xab, 0xc0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66}, wire.Version{Epoch: 7, Seq: 2}}}}}},
		"02":                                    {kind: digestEqual},
		"03 0000000000000001 00000000 00000001": {kind: digestHave, stamps: []stamp{{key.ShortID{7: 1}, wire.Version{Seq: 1}}}},
		"05 0000000000000001 0000000000000000":  {kind: digestWant, wants: []key.ShortID{{7: 1}, {}}},
		"06 01":                                 {kind: digestMode, eager: true},
		"06 00":                                 {kind: digestMode},
	} {
		b := d.append(nil)
		if got := hex.EncodeToString(b); got != strings.ReplaceAll(want, " ", "") {
			t.Errorf("bytes %s, want %s", got, want)
		}
		if got, err := parseDigest(b); err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("read back: %+v, %v", got, err)
		}
	}
}

// spec/53-map.md#digest
func TestDigestRefuses(t *testing.T) {
	one := appendVersion(nil, stamp{key.ShortID{0xab, 1}, wire.Version{Epoch: 1}})
	two := appendVersion(nil, stamp{key.ShortID{0xab, 2}, wire.Version{Epoch: 1}})
	cat := func(head []byte, parts ...[]byte) []byte { return slices.Concat(append([][]byte{head}, parts...)...) }
	printed := append([]byte{1}, make([]byte, 20)...)
	for name, b := range map[string][]byte{
		"empty":                 {},
		"kind 0":                {0},
		"no ranges":             {1},
		"no mode":               {1, 0},
		"17 digits":             cat([]byte{1, 17}, make([]byte, 9), printed),
		"prefix cut":            {1, 16, 1, 2},
		"half byte in use":      cat([]byte{1, 1, 0x11}, printed),
		"unknown mode":          {1, 0, 3, 0},
		"short print":           cat([]byte{1, 0}, printed[:20]),
		"ranges overlap":        cat([]byte{1, 1, 0x10}, printed, []byte{2, 0x17}, printed),
		"ranges descend":        cat([]byte{1, 1, 0x10}, printed, []byte{1, 0}, printed),
		"range after all":       cat([]byte{1, 0}, printed, []byte{0}, printed),
		"list of 25":            cat([]byte{1, 0, 2, 25}, make([]byte, 25*16)),
		"list cut":              cat([]byte{1, 0, 2, 2}, one),
		"list descends":         cat([]byte{1, 0, 2, 2}, two, one),
		"list repeats":          cat([]byte{1, 0, 2, 2}, one, one),
		"list below":            cat([]byte{1, 1, 0xb0, 2, 1}, one),
		"list above":            cat([]byte{1, 2, 0xaa, 2, 1}, one),
		"list of version zero":  cat([]byte{1, 0, 2, 1}, make([]byte, 16)),
		"equal with more":       {2, 0},
		"have nothing":          {3},
		"have a half":           cat([]byte{3}, one[:8]),
		"have version zero":     cat([]byte{3}, make([]byte, 16)),
		"offer nothing":         {4},
		"want nothing":          {5},
		"want a half":           {5, 1, 2, 3, 4},
		"mode without":          {6},
		"mode 2":                {6, 2},
		"mode with more":        {6, 1, 1},
		"larger than a message": append([]byte{9}, make([]byte, maxBody)...),
	} {
		if _, err := parseDigest(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// FuzzParseDigest: whatever comes, there is no panic, and what is accepted has one form.
func FuzzParseDigest(f *testing.F) {
	for _, d := range []digest{{kind: digestEqual}, {kind: digestMode, eager: true}, {kind: digestWant, wants: make([]key.ShortID, 3)},
		{kind: digestHave, stamps: []stamp{{key.ShortID{1}, wire.Version{Seq: 1}}}}, {kind: digestOffer, stamps: []stamp{{version: wire.Version{Epoch: 1}}}},
		{kind: digestCompare, ranges: []stretch{{prefix: prefix{}.part(1), mode: rangePrint, count: 5},
			{prefix: prefix{}.part(2).part(3), mode: rangeList, list: []stamp{{key.ShortID{0x23, 1}, wire.Version{Seq: 1}}}}}}} {
		f.Add(d.append(nil))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDigest(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		if again := d.append(nil); d.kind <= digestMode && !bytes.Equal(again, b) {
			t.Fatalf("%x was read as %x", b, again)
		}
		s := NewStates(StatesConfig{Rand: random{rand.New(rand.NewPCG(1, 1))}}, nil)
		now := time.Unix(1e9, 0)
		s.PeerUp(now, key.NodeID{1})
		for i := range 30 {
			st, raw := some(i, 1)
			s.Set(now, raw, st, key.NodeID{})
		}
		if err := s.Handle(now, key.NodeID{1}, wire.Digest{Body: b}); err != nil {
			t.Fatal(err)
		}
	})
}

// spec/53-map.md#fingerprint
func TestStatePrints(t *testing.T) {
	now := time.Unix(1e9, 0)
	rapid.Check(t, func(r *rapid.T) {
		set, model := newStateSet(), map[key.ShortID]wire.Version{}
		for range rapid.IntRange(0, 60).Draw(r, "steps") {
			id := key.ShortID{rapid.Byte().Draw(r, "a"), rapid.Byte().Draw(r, "b")}
			if rapid.IntRange(0, 3).Draw(r, "what") == 0 {
				set.remove(id)
				delete(model, id)
				continue
			}
			v := wire.Version{Epoch: rapid.Uint32Range(0, 2).Draw(r, "epoch"), Seq: rapid.Uint32Range(0, 3).Draw(r, "seq")}
			newer := v.Compare(model[id]) > 0
			if _, ok := set.put(now, id, v, []byte{1}, false); ok != newer {
				r.Fatalf("put of %v over %v: %v", v, model[id], ok)
			}
			if newer {
				model[id] = v
			}
			set.print(0, rapid.IntRange(0, len(set.sorted)).Draw(r, "look"))
		}
		// Another set, filled in another order, has the same fingerprints; and each range what belongs there.
		other, mine := newStateSet(), 0
		for id, v := range model {
			other.put(now, id, v, []byte{1}, false)
		}
		p := prefix{}.part(rapid.IntRange(0, 15).Draw(r, "digit"))
		for _, p := range []prefix{{}, p, p.part(rapid.IntRange(0, 15).Draw(r, "digit"))} {
			mine = 0
			for id := range model {
				if n := uint64Of(id); n >= p.first() && n <= p.last() {
					mine++
				}
			}
			lo, hi := set.find(p)
			a, b := other.find(p)
			if hi-lo != mine || set.print(lo, hi) != other.print(a, b) || !slices.Equal(set.stamps(lo, hi), other.stamps(a, b)) {
				r.Fatalf("range %v has %d nodes, want %d", p, hi-lo, mine)
			}
		}
	})
	a, b := newStateSet(), newStateSet()
	a.put(now, key.ShortID{1}, wire.Version{Epoch: 1, Seq: 1}, []byte{1}, false)
	b.put(now, key.ShortID{1}, wire.Version{Epoch: 1, Seq: 2}, []byte{1}, false)
	if a.print(0, 1) == b.print(0, 1) || a.print(0, 0) != b.print(0, 0) {
		t.Error("fingerprints do not tell versions apart")
	}
}

func TestPile(t *testing.T) {
	p := newPile[int, string](3)
	for i, want := range []bool{true, true, true, false} {
		if p.put(i, "a") != want {
			t.Errorf("put of %d: %v", i, !want)
		}
	}
	if !p.put(1, "b") {
		t.Error("a key that is there has no room")
	}
	var seen []int
	p.sift(func(k int, v string) (string, bool) {
		seen = append(seen, k)
		return v + "c", k != 0
	})
	if !slices.Equal(seen, []int{0, 1, 2}) || p.len() != 2 || p.values[1] != "bc" || len(p.values) != 2 {
		t.Errorf("saw %v, left %v", seen, p.values)
	}
}
