package discover

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/key"
)

var update = flag.Bool("update", false, "write spec/vectors/discover.json anew")

// slotVector is one slot. Strings of bytes are hexadecimal.
type slotVector struct {
	Secret  string   `json:"secret"`
	Join    bool     `json:"join"`
	Time    int64    `json:"time"`
	Day     int64    `json:"day"`
	Index   int      `json:"index"`
	Public  string   `json:"public"`
	Target  string   `json:"target"`
	Nonce   string   `json:"nonce"`
	Entries []string `json:"entries"`
	Value   string   `json:"value"`
	Groups  []string `json:"groups"`
	Beacon  string   `json:"beacon"`
}

// spec/70-discover.md#vectors
func TestVectors(t *testing.T) {
	var out struct {
		Slots []slotVector `json:"slots"`
	}
	secret := testKey(1)
	entries := []entry{
		{shortID(1), KindAnchor, 32, netip.MustParseAddrPort("198.51.100.1:51820")},
		{shortID(2), KindNewcomer, 63, netip.MustParseAddrPort("[2001:db8::1]:9")},
	}
	for i, c := range []struct {
		join  bool
		at    int64
		index int
	}{{false, 1800000000, 3}, {true, 1800086400, 0}, {false, -1, 0}} {
		f := newFamily(secret, c.join)
		s := f.slot(f.day(time.Unix(c.at, 0)), c.index)
		n := [24]byte{9, byte(i)}
		v := slotVector{Secret: hex.EncodeToString(secret[:]), Join: c.join, Time: c.at, Day: s.day, Index: c.index, Public: hex.EncodeToString(s.public),
			Target: hex.EncodeToString(s.target[:]), Nonce: hex.EncodeToString(n[:]), Value: hex.EncodeToString(s.encode(n, entries))}
		for _, e := range entries {
			v.Entries = append(v.Entries, fmt.Sprintf("%v kind %d stamp %d %v", e.id, e.kind, e.stamp, e.addr))
		}
		v.Groups = []string{f.groups[0].String(), f.groups[1].String()}
		v.Beacon = hex.EncodeToString(beacon{kind: answer, port: 51820, id: shortID(1), echo: token{1, 2, 3}}.encode(f.beacon, n))
		out.Slots = append(out.Slots, v)
	}
	got, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "../../spec/vectors/discover.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what this code does; if that is meant, run this test with -update", file)
	}
}

func drawEntry(rt *rapid.T) entry {
	ip := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "ip"))).Unmap()
	if ip.IsUnspecified() || rapid.Bool().Draw(rt, "four") {
		ip = netip.AddrFrom4([4]byte{byte(rapid.IntRange(1, 255).Draw(rt, "a")), 2, 3, 4})
	}
	return entry{key.ShortID(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(rt, "id")), Kind(rapid.IntRange(0, 3).Draw(rt, "kind")),
		uint8(rapid.IntRange(0, maxStamp).Draw(rt, "stamp")), netip.AddrPortFrom(ip, uint16(rapid.IntRange(1, 65535).Draw(rt, "port")))}
}

// spec/70-discover.md#value
func TestValuesComeBackAndAreOfOneSize(t *testing.T) {
	f := newFamily(testKey(1), false)
	s, other := f.slot(20000, 1), f.slot(20001, 1)
	rapid.Check(t, func(rt *rapid.T) {
		es := rapid.SliceOfN(rapid.Custom(drawEntry), 0, maxEntries).Draw(rt, "entries")
		v := s.encode([24]byte{1}, es)
		if len(v) != ValueSize {
			rt.Fatalf("%d bytes", len(v))
		}
		got, err := s.decode(v)
		if err != nil || len(got) != len(es) {
			rt.Fatalf("%v, %v", got, err)
		}
		for i := range es {
			if got[i] != es[i] {
				rt.Fatalf("%v became %v", es[i], got[i])
			}
		}
		if _, err := other.decode(v); err == nil {
			rt.Fatal("opened with another slot's key")
		}
		v[rapid.IntRange(0, len(v)-1).Draw(rt, "at")] ^= 1
		if _, err := s.decode(v); err == nil {
			rt.Fatal("a damaged value was read")
		}
	})
}

func TestDays(t *testing.T) {
	f := newFamily(testKey(1), false)
	rapid.Check(t, func(rt *rapid.T) {
		at := time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(rt, "t"), 0)
		d := f.day(at)
		if at.Before(f.begin(d)) || !at.Before(f.begin(d+1)) {
			rt.Fatalf("%v is not in day %d", at, d)
		}
		if st := f.slot(d, 0).stamp(at); int64(st) != int64(at.Sub(f.begin(d))/time.Second)/stampUnit || st > maxStamp {
			rt.Fatalf("stamp %d", st)
		}
	})
	if a, b := f.slot(1, 0).stamp(f.begin(0)), f.slot(1, 0).stamp(f.begin(5)); a != 0 || b != maxStamp {
		t.Errorf("stamps outside of the day: %d, %d", a, b)
	}
}

func FuzzParseValue(f *testing.F) {
	s := newFamily(testKey(1), false).slot(1, 1)
	plain := make([]byte, plainSize)
	plain[0] = valueVersion
	f.Add(plain)
	sealed := s.encode([24]byte{}, []entry{{shortID(1), KindOther, 3, addrOf(3)}})
	opened, err := aead(s.seal).Open(nil, sealed[:24], sealed[24:], s.target[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(opened)
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := s.decode(b); err == nil && !bytes.Equal(b, sealed) {
			t.Error("opened what nobody sealed")
		}
		es, err := parseValue(b)
		if err != nil {
			return
		}
		again := s.encode([24]byte{}, es)
		plain, _ := aead(s.seal).Open(nil, again[:24], again[24:], s.target[:])
		if !bytes.Equal(plain, b) {
			t.Errorf("%x has another encoding: %x", b, plain)
		}
	})
}

func FuzzBeacon(f *testing.F) {
	k := newFamily(testKey(1), false).beacon
	f.Add(make([]byte, beaconPlain))
	f.Add(append([]byte{2, 0, 1, 1}, make([]byte, 20)...))
	f.Add(make([]byte, BeaconSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		e := New(Config{Self: shortID(1), Rand: seeded(1)})
		e.SetMode(epoch, Mode{LAN: true, Port: 1})
		e.SetKey(epoch, Keys{Current: testKey(1)})
		e.HandleBeacon(epoch, addrOf(1), "eth0", p)
		if len(e.Effects()) > 0 {
			t.Error("a beacon that nobody sealed has effects")
		}
		b, err := parseBeacon(p)
		if err != nil {
			return
		}
		again := b.encode(k, [24]byte{})
		plain, _ := aead(k).Open(nil, again[:24], again[24:], nil)
		if !bytes.Equal(plain, p) {
			t.Errorf("%x has another encoding: %x", p, plain)
		}
		if got, err := openBeacon(k, again); err != nil || got != b {
			t.Errorf("%v became %v, %v", b, got, err)
		}
	})
}

func BenchmarkHandleBeaconOfStrangers(b *testing.B) {
	e := New(Config{Self: shortID(1), Rand: seeded(1)})
	e.SetMode(epoch, Mode{LAN: true, Port: 1})
	e.SetKey(epoch, Keys{Current: testKey(1), Previous: testKey(2)})
	var open []Invite
	for i := range maxInvites {
		open = append(open, Invite{key.JoinKey{byte(i)}, epoch})
	}
	e.SetInvites(epoch, open)
	data := make([]byte, BeaconSize)
	now := epoch
	for b.Loop() {
		now = now.Add(time.Second)
		e.HandleBeacon(now, addrOf(1), "eth0", data)
	}
}
