package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

// over returns the route through the relays named.
func over(t testing.TB, relays ...byte) Route {
	t.Helper()
	var ids []key.ShortID
	for _, b := range relays {
		ids = append(ids, short(b))
	}
	r, ok := NewRoute(ids...)
	if !ok {
		t.Fatalf("no route over %v", relays)
	}
	return r
}

func TestRoute(t *testing.T) {
	r := over(t, 1, 2, 3)
	if r.Len() != 3 || r.At(0) != short(1) || r.At(2) != short(3) || !r.Has(short(2)) || r.Has(short(4)) || r.Has(key.ShortID{}) {
		t.Errorf("%v", r)
	}
	if got := r.Relays(); !reflect.DeepEqual(got, []key.ShortID{short(1), short(2), short(3)}) {
		t.Errorf("relays %v", got)
	}
	if back := r.Reverse(); back != over(t, 3, 2, 1) || back.Reverse() != r {
		t.Errorf("reverse %v", back)
	}
	if over(t, 1, 2) == over(t, 2, 1) || over(t, 1) == over(t, 1, 2) || over(t) != (Route{}) || (Route{}).Relays() != nil {
		t.Error("equality")
	}
	for name, ids := range map[string][]key.ShortID{"five": {short(1), short(2), short(3), short(4), short(5)}, "twice": {short(1), short(2), short(1)}} {
		if got, ok := NewRoute(ids...); ok || got != (Route{}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWay(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:5")
	for _, c := range []struct {
		way            Way
		valid, relayed bool
		text           string
	}{
		{Way{}, false, false, "none"},
		{Direct(netip.AddrPort{}), false, false, "none"},
		{Via(Route{}), false, false, "none"},
		{Direct(addr), true, false, "192.0.2.1:5"},
		{Via(over(t, 1, 2)), true, true, "via 0101010101010101>0202020202020202"},
	} {
		if c.way.IsValid() != c.valid || c.way.IsRelayed() != c.relayed || c.way.String() != c.text {
			t.Errorf("%+v: valid %v, relayed %v, %q", c.way, c.way.IsValid(), c.way.IsRelayed(), c.way)
		}
	}
}

// spec/52-relay.md#header
func TestRelayHeaderBytes(t *testing.T) {
	h := NewRelayHeader(short(0xa), over(t, 1, 2), short(0xb))
	b := make([]byte, h.Size())
	if n := h.Put(b); n != len(b) || n != RelayHeaderSize(2) {
		t.Fatalf("%d bytes, Size %d", n, len(b))
	}
	const want = "00000401" + "0a0a0a0a0a0a0a0a" + "0101010101010101" + "0202020202020202" + "0b0b0b0b0b0b0b0b"
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if RelayHeaderSize(MaxRelays) != MaxRelayHeader || MaxRelayHeader != 52 {
		t.Errorf("the largest header has %d bytes", MaxRelayHeader)
	}
}

// What each node on the way reads. spec/52-relay.md#header
func TestRelayHeaderOnItsWay(t *testing.T) {
	route := over(t, 1, 2)
	h := NewRelayHeader(short(0xa), route, short(0xb))
	b := make([]byte, h.Size())
	h.Put(b)
	b[0] = 63 // the seal's
	for i, c := range []struct {
		previous, receiver, next byte
		final                    bool
	}{{0xa, 1, 2, false}, {1, 2, 0xb, false}, {2, 0xb, 0, true}} {
		h, err := ParseRelayHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if h.Source() != short(0xa) || h.Destination() != short(0xb) || h.Route() != route || h.Previous() != short(c.previous) || h.Receiver() != short(c.receiver) || h.Final() != c.final {
			t.Errorf("leg %d: %+v", i, h)
		}
		if c.final {
			break
		}
		if h.Next() != short(c.next) {
			t.Errorf("leg %d: next %v", i, h.Next())
		}
		if got := h.Failure(ReasonOverloaded); got != (PathError{short(0xa), short(0xb), route, i, ReasonOverloaded}) {
			t.Errorf("leg %d: %+v", i, got)
		}
		AdvanceRelayHeader(b)
	}
}

// spec/52-relay.md#header
func TestBadRelayHeader(t *testing.T) {
	good := make([]byte, MaxRelayHeader)
	h := NewRelayHeader(short(0xa), over(t, 1, 2, 3, 4), short(0xb))
	h.Put(good)
	for name, change := range map[string]func(b []byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"short":              func(b []byte) []byte { return b[:3] },
		"another version":    func(b []byte) []byte { b[1] = 1; return b },
		"two ids":            func(b []byte) []byte { b[2] = 2; return b[:relayFixed+2*shortSize] },
		"seven ids":          func(b []byte) []byte { b[2] = 7; return append(b, make([]byte, 8)...) },
		"fewer than it says": func(b []byte) []byte { return b[:len(b)-8] },
		"more than it says":  func(b []byte) []byte { return append(b, 1, 2, 3, 4, 5, 6, 7, 8) },
		"half an id":         func(b []byte) []byte { return b[:len(b)-1] },
		"for its source":     func(b []byte) []byte { b[3] = 0; return b },
		"for nobody":         func(b []byte) []byte { b[3] = 6; return b },
		"far beyond":         func(b []byte) []byte { b[3] = 255; return b },
		"a relay twice":      func(b []byte) []byte { copy(b[relayFixed+8:], b[relayFixed+16:relayFixed+24]); return b },
		"source as relay":    func(b []byte) []byte { copy(b[relayFixed+16:], b[relayFixed:relayFixed+8]); return b },
		"to its source":      func(b []byte) []byte { copy(b[len(b)-8:], b[relayFixed:relayFixed+8]); return b },
	} {
		if h, err := ParseRelayHeader(change(bytes.Clone(good))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

// spec/52-relay.md#tail
func TestIsTail(t *testing.T) {
	for _, c := range []struct {
		typ  byte
		n    int
		want bool
	}{
		{1, 148, true}, {1, 147, false}, {1, 149, false}, {2, 92, true}, {2, 93, false}, {3, 64, true}, {3, 63, false},
		{4, 31, false}, {4, 32, true}, {4, 1452, true}, {5, 148, false}, {6, 148, false}, {0, 148, false}, {'d', 148, false},
	} {
		if got := IsTail(append([]byte{c.typ}, make([]byte, c.n-1)...)); got != c.want {
			t.Errorf("type %d of %d bytes: %v", c.typ, c.n, got)
		}
	}
	if IsTail(nil) {
		t.Error("nothing is a tail")
	}
}

// spec/52-relay.md#path-error
func TestPathErrorBytes(t *testing.T) {
	m := PathError{Source: short(0xa), Destination: short(0xb), Route: over(t, 1, 2), Failed: 1, Reason: ReasonUnreachable}
	b := m.Append(nil)
	const want = "c0090023" + "010102" + "0a0a0a0a0a0a0a0a" + "0101010101010101" + "0202020202020202" + "0b0b0b0b0b0b0b0b"
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	for _, padding := range []int{0, 15} {
		if got, err := ParseControl(append(bytes.Clone(b), make([]byte, padding)...)); err != nil || got != any(m) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for name, change := range map[string]func(b []byte){
		"no relays":         func(b []byte) { b[6] = 0 },
		"five relays":       func(b []byte) { b[6] = 5 },
		"fewer than it has": func(b []byte) { b[6] = 1 },
		"place beyond":      func(b []byte) { b[5] = 2 },
		"relay twice":       func(b []byte) { copy(b[15:23], b[23:31]) },
		"relay is source":   func(b []byte) { copy(b[7:15], b[23:31]) },
		"relay is end":      func(b []byte) { copy(b[31:39], b[23:31]) },
		"source is end":     func(b []byte) { copy(b[31:39], b[7:15]) },
	} {
		bad := bytes.Clone(b)
		change(bad)
		if got, err := ParseControl(bad); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for reason, want := range map[PathReason]string{ReasonUnreachable: "unreachable", ReasonRefused: "refused", ReasonOverloaded: "overloaded", 77: "unreachable"} {
		if reason.String() != want {
			t.Errorf("%d is %q", reason, reason)
		}
	}
}

// A path error goes back node by node, and only from the node that comes next on the route. spec/52-relay.md#path-error
func TestPathErrorGoesBackHopByHop(t *testing.T) {
	const a, b, stranger = 0xa, 0xb, 0xc // of a route a 1 2 3 b
	m := PathError{Source: short(a), Destination: short(b), Route: over(t, 1, 2, 3), Failed: 1}
	for _, c := range []struct {
		self, from, to byte
		ok             bool
	}{
		{1, 2, a, true},                           // from the relay that failed
		{a, 1, a, true},                           // to the source
		{2, 3, 0, false},                          // from a relay behind the one that failed
		{2, 1, 0, false},                          // the wrong way round
		{a, 2, 0, false},                          // not the neighbour on the route
		{stranger, 2, 0, false},                   // not on the route
		{1, stranger, 0, false}, {3, b, 0, false}, // from who is no relay
		{a, a, 0, false}, {1, a, 0, false}, {1, 1, 0, false},
	} {
		want := key.ShortID{}
		if c.ok {
			want = short(c.to)
		}
		if to, ok := m.Back(short(c.self), short(c.from)); ok != c.ok || to != want {
			t.Errorf("at %x from %x: to %v, %v", c.self, c.from, to, ok)
		}
	}
	m.Failed = 2
	if to, ok := m.Back(short(2), short(3)); !ok || to != short(1) {
		t.Errorf("the last relay failed: to %v, %v", to, ok)
	}
}

// A header that is let through is encoded in one way only but for its first byte, has no loop, and comes to its end.
func FuzzParseRelayHeader(f *testing.F) {
	for n := byte(1); n <= MaxRelays; n++ {
		h := NewRelayHeader(short(0xa), over(f, []byte{1, 2, 3, 4}[:n]...), short(0xb))
		b := make([]byte, h.Size())
		h.Put(b)
		f.Add(b)
		AdvanceRelayHeader(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseRelayHeader(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again := make([]byte, h.Size())
		h.Put(again)
		again[0] = b[0]
		if !bytes.Equal(again, b) {
			t.Fatalf("%x becomes %x", b, again)
		}
		seen := map[key.ShortID]bool{h.Previous(): true}
		for hops := 0; ; hops++ {
			if seen[h.Receiver()] || hops > MaxRelays {
				t.Fatalf("a loop in %x", b)
			}
			seen[h.Receiver()] = true
			if h.Final() {
				break
			}
			next := h.Next()
			AdvanceRelayHeader(b)
			if h, err = ParseRelayHeader(b); err != nil || h.Receiver() != next {
				t.Fatalf("%x does not come to %v: %v", b, next, err)
			}
		}
	})
}

func FuzzPathErrorBack(f *testing.F) {
	f.Add(PathError{Source: short(0xa), Destination: short(0xb), Route: over(f, 1, 2), Failed: 1, Reason: 1}.Append(nil), uint8(0), uint8(1))
	f.Add(PathError{Source: short(0xa), Destination: short(0xb), Route: over(f, 1), Reason: 9}.Append(nil), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, self, from uint8) {
		v, err := ParseControl(b)
		m, is := v.(PathError)
		if err != nil || !is {
			return
		}
		if again, err := ParseControl(m.Append(nil)); err != nil || again != any(m) {
			t.Fatalf("%+v becomes %+v, %v", m, again, err)
		}
		ids := append(append([]key.ShortID{m.Source}, m.Route.Relays()...), m.Destination)
		s, r := ids[int(self)%len(ids)], ids[int(from)%len(ids)]
		to, ok := m.Back(s, r)
		if ok && to != m.Source && !m.Route.Has(to) || ok && (to == r || s == r) {
			t.Fatalf("%+v at %v from %v goes to %v", m, s, r, to)
		}
	})
}
