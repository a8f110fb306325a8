package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// The bytes of the control messages (spec/50-control.md#frame).
func TestControlBytes(t *testing.T) {
	record := bytes.Repeat([]byte{7}, 3)
	route, _ := NewRoute(short(2), short(3))
	pathError := PathError{Source: short(1), Route: route, Destination: short(4), Failed: 1, Reason: ReasonRefused}
	candidates := Candidates{Round: 0x01020304, Answer: true, V4: NAT{Class: NATPredictable, Step: -2}, V6: NAT{Class: NATOpen},
		RTT: 258 * time.Millisecond, List: []Candidate{{CandidateExternal, netip.MustParseAddrPort("192.0.2.1:258")},
			{CandidateHost, netip.MustParseAddrPort("[2001:db8::1]:258")}}}
	cases := []struct {
		name string
		msg  interface{ Append([]byte) []byte }
		want string
	}{
		{"ping", Ping{ID: 0x0102030405060708, Size: 12}, "c0010008" + "0102030405060708"},
		{"padded ping", Ping{ID: 1, Size: 14}, "c001000a" + "00000000000000010000"},
		{"pong v4", Pong{ID: 2, Observed: netip.MustParseAddrPort("192.0.2.1:258")}, "c002001a" + "0000000000000002" + "00000000000000000000ffffc0000201" + "0102"},
		{"pong v6", Pong{ID: 2, Observed: netip.MustParseAddrPort("[2001:db8::1]:258")}, "c002001a" + "0000000000000002" + "20010db8000000000000000000000001" + "0102"},
		{"records", Records{Raw: [][]byte{record, {8}}}, "c0030008" + "0003070707" + "000108"},
		{"no records", Records{}, "c0030000"},
		{"sync", Sync{Body: []byte{1, 2}}, "c0040002" + "0102"},
		{"bye", Bye{}, "c0050000"},
		{"pong over relays", Pong{ID: 2}, "c002001a" + "0000000000000002" + "00000000000000000000000000000000" + "0000"},
		{"link wish", LinkWish{Want: true, Leaf: true}, "c0060001" + "05"},
		{"link wish seen", LinkWish{Seen: true}, "c0060001" + "02"},
		{"states", States{Raw: [][]byte{record, {8}}}, "c0070008" + "0003070707" + "000108"},
		{"digest", Digest{Body: []byte{1, 2}}, "c0080002" + "0102"},
		{"path error", pathError, "c0090023" + "020102" + "0101010101010101" + "0202020202020202" + "0303030303030303" + "0404040404040404"},
		{"candidates", candidates, "c00a0032" + "01020304" + "01" + "03fe" + "0100" + "0102" + "02" +
			"01" + "00000000000000000000ffffc0000201" + "0102" + "00" + "20010db8000000000000000000000001" + "0102"},
		{"hard candidates, none", Candidates{Hard: true, V4: NAT{Class: NATBlocked}}, "c00a000c" + "00000000" + "02" + "0500" + "0000" + "0000" + "00"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := c.msg.Append([]byte{0xEE})[1:]
			if got := hex.EncodeToString(b); got != c.want {
				t.Fatalf("encodes to\n%s, want\n%s", got, c.want)
			}
			if !IsControl(b) {
				t.Error("is not taken for a control message")
			}
			for _, padding := range []int{0, 15} {
				got, err := ParseControl(append(bytes.Clone(b), make([]byte, padding)...))
				if err != nil || !reflect.DeepEqual(got, c.msg) {
					t.Errorf("with %d bytes of padding: %+v, %v", padding, got, err)
				}
			}
		})
	}
}

func short(b byte) key.ShortID { return key.ShortID(bytes.Repeat([]byte{b}, 8)) }

func TestPingIsNeverTooSmall(t *testing.T) {
	if n := len(Ping{ID: 1}.Append(nil)); n != ControlHeader+8 {
		t.Errorf("%d bytes", n)
	}
}

// What a later version may send is no error (spec/50-control.md#frame).
func TestUnknownControl(t *testing.T) {
	if m, err := ParseControl([]byte{0xC0, 99, 0, 1, 5}); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	for _, first := range []byte{0x45, 0x60, 0x00, 0xD0} {
		if IsControl([]byte{first}) {
			t.Errorf("%#x is taken for a control message", first)
		}
	}
	if IsControl(nil) {
		t.Error("a keepalive is taken for a control message")
	}
}

func TestBadControl(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                "",
		"short header":         "c00100",
		"another version":      "c1050000",
		"body cut":             "c0040003" + "0102",
		"short ping":           "c0010007" + "01020304050607",
		"short pong":           "c0020019" + "0000000000000002" + "20010db80000000000000000000000010100",
		"long pong":            "c002001b" + "0000000000000002" + "20010db8000000000000000000000001010200",
		"pong without port":    "c002001a" + "0000000000000002" + "20010db8000000000000000000000001" + "0000",
		"pong without address": "c002001a" + "0000000000000002" + "00000000000000000000000000000000" + "0102",
		"record cut":           "c0030004" + "00030707",
		"half a length":        "c0030001" + "00",
		"empty record":         "c0030002" + "0000",
		"huge record":          "c0030002" + "0401",
		"short candidates":     "c00a000b" + "0000000000000000000000",
		"candidates cut":       "c00a000c" + "0000000000000000000000" + "01",
		"candidates left over": "c00a000d" + "0000000000000000000000" + "00" + "00",
		"too many candidates":  "c00a0103" + "0000000000000000000000" + "0d" + strings.Repeat("00"+"20010db8000000000000000000000001"+"0102", 13),
		"candidate port 0":     "c00a001f" + "0000000000000000000000" + "01" + "00" + "20010db8000000000000000000000001" + "0000",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := ParseControl(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// One record of the largest size fits a message (spec/20-records.md#size).
func TestLargestRecordFits(t *testing.T) {
	m := Records{Raw: [][]byte{make([]byte, MaxRecord)}}
	if n := len(m.Append(nil)); n > MaxControl || n != ControlHeader+RecordSpace(m.Raw[0]) {
		t.Errorf("%d bytes", n)
	}
}

func TestEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"c00002010102":                         "192.0.2.1:258",
		"20010db80000000000000000000000010102": "[2001:db8::1]:258",
		"00000000000000000000ffffc00002010102": "192.0.2.1:258",
	} {
		b, _ := hex.DecodeString(in)
		got, err := ParseEndpoint(b)
		if err != nil || got.String() != want {
			t.Errorf("%s is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "c0000201", "c000020101", "c00002010000", "000000000102", "0000000000000000000000000000000001", "00000000000000000000ffff000000000102"} {
		b, _ := hex.DecodeString(in)
		if got, err := ParseEndpoint(b); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
	if b := AppendEndpoint(nil, netip.MustParseAddrPort("[fe80::1%eth0]:1")); len(b) != 18 {
		t.Errorf("a zone is sent: %x", b)
	}
	if b := AppendEndpoint(nil, netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")); len(b) != 6 {
		t.Errorf("a mapped address is sent as %x", b)
	}
}

// What a later version may say does not spoil the rest; nor does what a careless sender says. spec/50-control.md#candidates
func TestCandidatesOfLaterVersions(t *testing.T) {
	addr := "20010db8000000000000000000000001" + "0102"
	b, _ := hex.DecodeString("c00a0032" + "00000001" + "fc" + "0901" + "0300" + "0000" + "02" + "07" + addr + "02" + addr)
	want := Candidates{Round: 1, V6: NAT{Class: NATRandom}, List: []Candidate{{CandidateMapped, netip.MustParseAddrPort("[2001:db8::1]:258")}}}
	if got, err := ParseControl(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	many := Candidates{RTT: time.Hour, List: make([]Candidate, 40)}
	for i := range many.List {
		many.List[i] = want.List[0]
	}
	got, err := ParseControl(many.Append(nil))
	if m, ok := got.(Candidates); err != nil || !ok || len(m.List) != MaxCandidates || m.RTT != 65535*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
}
