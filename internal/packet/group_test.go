package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// to makes a UDP packet to dst.
func to(t testing.TB, dst string, port uint16) []byte {
	t.Helper()
	a := netip.MustParseAddr(dst)
	p := udp(a.Is6(), []byte("hello"))
	at := IPv6Header
	if a.Is4() {
		copy(p[16:], a.AsSlice())
		setIPv4Checksum(p)
		at = IPv4Header
	} else {
		copy(p[24:], a.AsSlice())
	}
	binary.BigEndian.PutUint16(p[at+2:], port)
	setTransport(p, ProtoUDP, at, 6)
	return p
}

// icmp6 makes an ICMPv6 packet to dst behind the extension headers given, each with the number of the next in its first byte.
func icmp6(dst string, kind byte, first byte, extensions ...[]byte) []byte {
	body := append(bytes.Join(extensions, nil), kind, 0, 0, 0, 0, 0, 0, 0)
	p := append(ip(true, 0, first, len(body)), body...)
	copy(p[24:], netip.MustParseAddr(dst).AsSlice())
	return p
}

// spec/55-broadcast.md#reach
func TestReach(t *testing.T) {
	pool := BroadcastKey(Broadcast(netip.MustParsePrefix("100.64.0.0/10")))
	for _, c := range []struct {
		dst  string
		port uint16
		want Reach
	}{
		{"100.64.0.2", 7777, ReachOne},
		{"100.127.255.255", 7777, ReachAll},
		{"255.255.255.255", 7777, ReachAll},
		{"224.0.0.1", 7777, ReachAll},
		{"224.0.0.251", 5353, ReachGroup},
		{"239.255.255.250", 1900, ReachGroup},
		{"240.0.0.1", 7777, ReachOne},
		{"255.255.255.254", 7777, ReachOne},
		{"223.255.255.255", 7777, ReachOne},
		{"0.0.0.0", 7777, ReachOne},
		{"255.255.255.255", 67, ReachHost},
		{"255.255.255.255", 68, ReachHost},
		{"100.127.255.255", 67, ReachHost},
		{"224.0.0.251", 68, ReachHost},
		{"100.64.0.2", 67, ReachOne},
		{"fd00::2", 7777, ReachOne},
		{"ff02::1", 7777, ReachAll},
		{"ff02::fb", 5353, ReachGroup},
		{"ff12::1", 7777, ReachGroup},
		{"ff05::1234", 7777, ReachGroup},
		{"ff0e::1", 7777, ReachGroup},
		{"ff01::1", 7777, ReachHost},
		{"ff00::1", 7777, ReachHost},
		{"ff0f::1", 7777, ReachHost},
		{"ff02::1:2", 547, ReachHost},
		{"ff02::1", 546, ReachHost},
	} {
		if got := ReachOf(to(t, c.dst, c.port), pool); got != c.want {
			t.Errorf("%s port %d: %d, want %d", c.dst, c.port, got, c.want)
		}
	}
	if got := ReachOf(to(t, "100.127.255.255", 1), 0); got != ReachOne {
		t.Errorf("a network without a broadcast address: %d", got)
	}
	igmp := to(t, "239.1.2.3", 1)
	igmp[9] = protoIGMP
	later := to(t, "255.255.255.255", 67)
	later[7] = 1 // fragment offset: what stands there is no port
	if a, b := ReachOf(igmp, pool), ReachOf(later, pool); a != ReachHost || b != ReachAll {
		t.Errorf("IGMP %d, a later fragment %d", a, b)
	}
}

// spec/55-broadcast.md#reach
func TestReachOfICMPv6(t *testing.T) {
	options := func(next byte) []byte { return []byte{next, 0, 5, 2, 0, 0, 1, 0} }
	fragment := func(next byte, offset uint16) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{next, 0}, offset<<3), 0, 0, 0, 0)
	}
	for kind := range 256 {
		want := ReachAll
		if kind >= 130 && kind <= 137 || kind == 143 || kind >= 151 && kind <= 153 {
			want = ReachHost
		}
		for _, p := range [][]byte{
			icmp6("ff02::1", byte(kind), ProtoICMPv6),
			icmp6("ff02::1", byte(kind), protoHopByHop, options(protoDestOptions), options(protoFragment), fragment(ProtoICMPv6, 0)),
		} {
			if got := ReachOf(p, 0); got != want {
				t.Errorf("type %d: %d, want %d", kind, got, want)
			}
		}
	}
	if got := ReachOf(icmp6("ff02::fb", 134, protoFragment, fragment(ProtoICMPv6, 10)), 0); got != ReachGroup {
		t.Errorf("a later fragment: %d", got)
	}
	long := icmp6("ff02::1", 128, protoDestOptions, options(60), options(60), options(60), options(60), options(60), options(60), options(60), options(60), options(ProtoICMPv6))
	short := icmp6("ff02::1", 128, protoDestOptions, []byte{ProtoICMPv6, 200, 0, 0, 0, 0, 0, 0})
	bare := icmp6("ff02::1", 128, ProtoICMPv6)[:IPv6Header]
	for _, p := range [][]byte{long, short, bare, icmp6("ff02::1", 128, protoFragment)[:IPv6Header+4], icmp6("ff02::1", 128, 0)[:IPv6Header+4]} {
		if got := ReachOf(p, 0); got != ReachHost {
			t.Errorf("headers without an end: %d", got)
		}
	}
}

func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"100.64.0.0/10": "100.127.255.255", "10.1.2.0/24": "10.1.2.255", "10.1.2.4/30": "10.1.2.7", "0.0.0.0/0": "255.255.255.255"} {
		if got := Broadcast(netip.MustParsePrefix(prefix)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s", prefix, got)
		}
	}
	for _, prefix := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("10.0.0.0/32"), netip.MustParsePrefix("fd00::/48")} {
		if got := Broadcast(prefix); got.IsValid() || BroadcastKey(got) != 0 {
			t.Errorf("%s: %s", prefix, got)
		}
	}
}

// spec/55-broadcast.md#size
func TestAllowCut(t *testing.T) {
	p := tcp(false, 0, 1, tcpACK, nil, bytesOf(100))
	was := bytes.Clone(p)
	AllowCut(p, 99)
	if !MayFragment(p) || binary.BigEndian.Uint16(p[4:]) != 99 || Checksum(p[:IPv4Header]) != 0 || !bytes.Equal(p[12:], was[12:]) {
		t.Errorf("became %x", p[:IPv4Header])
	}
	was = bytes.Clone(p)
	AllowCut(p, 7) // may be cut already
	six := udp(true, nil)
	AllowCut(six, 7)
	if !bytes.Equal(p, was) || !bytes.Equal(six, udp(true, nil)) {
		t.Error("changed a packet that needed no change")
	}
}

// spec/55-broadcast.md#groups
func TestGroupHash(t *testing.T) {
	for group, want := range map[string]uint32{"224.0.0.251": 0xe00000fb, "239.255.255.250": 0xeffffffa, "10.0.0.1": 0, "fd00::1": 0,
		"ff02::fb": 0x797f60b5, "ff02::1:3": 0x0e65d1e2} {
		if got := GroupHash(netip.MustParseAddr(group)); got != want {
			t.Errorf("%s: %#x, want %#x", group, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "group"))
		a[0] = 0xff
		oracle := fnv.New32a()
		oracle.Write(a[:])
		if h, want := GroupHash(netip.AddrFrom16(a)), max(oracle.Sum32()&^(1<<31), 1); h != want {
			t.Fatalf("%x, want %x", h, want)
		}
	})
}

// What Linux 6 sends into a tunnel when a program joins and leaves.
const (
	linuxJoin4  = "46c000300000400001029fb064400001e000001694040000220003fd0000000204000000e00000fb04000000ef010203"
	linuxLeave4 = "46c000300000400001029fb064400001e000001694040000220005fd0000000203000000ef01020303000000e00000fb"
	linuxJoin6  = "600000000024000100000000000000000000000000000000ff0200000000000000000000000000163a000502000001008f006d910000000104000000ff0200000000000000000000000000fb"
	linuxLeave6 = "600000000024000100000000000000000000000000000000ff0200000000000000000000000000163a000502000001008f006e910000000103000000ff0200000000000000000000000000fb"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func groups(joins bool, addrs ...string) (out []Membership) {
	for _, a := range addrs {
		out = append(out, Membership{netip.MustParseAddr(a), joins})
	}
	return out
}

// igmp makes an IGMP packet of the body given.
func igmp(body ...byte) []byte { return append(ip(false, 1, protoIGMP, len(body)), body...) }

// mld makes an MLD packet of the body given.
func mld(body ...byte) []byte {
	options := []byte{ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0}
	return append(append(ip(true, 0, protoHopByHop, len(options)+len(body)), options...), body...)
}

// record makes one record of a report of the later versions.
func record(kind byte, group string, sources ...string) []byte {
	b := []byte{kind, 0, 0, byte(len(sources))}
	for _, a := range append([]string{group}, sources...) {
		b = append(b, netip.MustParseAddr(a).AsSlice()...)
	}
	return b
}

func report(kind byte, records ...[]byte) []byte {
	return append([]byte{kind, 0, 0, 0, 0, 0, 0, byte(len(records))}, bytes.Join(records, nil)...)
}

// spec/55-broadcast.md#groups
func TestReportsOfListeners(t *testing.T) {
	six := func(group string) []byte { return netip.MustParseAddr(group).AsSlice() }
	for name, c := range map[string]struct {
		p    []byte
		want []Membership
	}{
		"Linux joins":   {unhex(t, linuxJoin4), groups(true, "224.0.0.251", "239.1.2.3")},
		"Linux leaves":  {unhex(t, linuxLeave4), groups(false, "239.1.2.3", "224.0.0.251")},
		"Linux joins6":  {unhex(t, linuxJoin6), groups(true, "ff02::fb")},
		"Linux leaves6": {unhex(t, linuxLeave6), groups(false, "ff02::fb")},
		"IGMPv1":        {igmp(igmpReportV1, 0, 0, 0, 239, 1, 2, 3), groups(true, "239.1.2.3")},
		"IGMPv2":        {igmp(igmpReportV2, 0, 0, 0, 239, 1, 2, 3), groups(true, "239.1.2.3")},
		"IGMPv2 leave":  {igmp(igmpLeave, 0, 0, 0, 239, 1, 2, 3), groups(false, "239.1.2.3")},
		"MLDv1":         {mld(append([]byte{mldReportV1, 0, 0, 0, 0, 0, 0, 0}, six("ff05::2:3")...)...), groups(true, "ff05::2:3")},
		"MLDv1 done":    {mld(append([]byte{mldDone, 0, 0, 0, 0, 0, 0, 0}, six("ff05::2:3")...)...), groups(false, "ff05::2:3")},
		"sources": {igmp(report(igmpReportV3, record(modeIsInclude, "232.0.0.1", "10.0.0.9"), record(changeInclude, "232.0.0.2", "10.0.0.9"),
			record(allowSources, "232.0.0.3", "10.0.0.8", "10.0.0.9"), record(modeIsExclude, "232.0.0.4"))...),
			groups(true, "232.0.0.1", "232.0.0.2", "232.0.0.3", "232.0.0.4")},
		"no sources": {igmp(report(igmpReportV3, record(modeIsInclude, "232.0.0.1"), record(blockSources, "232.0.0.2", "10.0.0.1"))...), groups(false, "232.0.0.1")},
		"of no use":  {igmp(report(igmpReportV3, record(modeIsExclude, "224.0.0.1"), record(modeIsExclude, "224.0.0.22"))...), nil},
		"of no use6": {mld(report(mldReportV2, record(modeIsExclude, "ff02::1"), record(modeIsExclude, "ff05::2"), record(modeIsExclude, "ff02::16"),
			record(modeIsExclude, "ff01::77"), record(modeIsExclude, "ff02::1:ff12:3456"))...), nil},
		"nothing": {igmp(report(igmpReportV3)...), nil},
	} {
		got, ok := ParseMembership(nil, c.p)
		if !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, ok, c.want)
		}
	}
}

// spec/55-broadcast.md#groups
func TestReportsThatAreNone(t *testing.T) {
	good := unhex(t, linuxJoin4)
	fragment := bytes.Clone(good)
	fragment[6] = 0x20
	half := append(report(igmpReportV3, record(modeIsExclude, "239.1.2.3")), record(modeIsExclude, "239.1.2.4")...)
	half[7] = 3 // records, of which there are two
	aux := report(igmpReportV3, record(modeIsExclude, "239.1.2.3"))
	aux[9] = 200 // words of auxiliary data that are not there
	many := report(igmpReportV3, record(modeIsExclude, "239.1.2.3"), record(modeIsExclude, "10.0.0.1"))
	for name, p := range map[string][]byte{
		"nothing": nil, "UDP": udp(false, nil), "UDP6": udp(true, nil), "cut": good[:len(good)-1], "a fragment": fragment,
		"fewer records": igmp(half...), "auxiliary data": igmp(aux...), "no group": igmp(many...),
		"a query": igmp(igmpQuery, 0, 0, 0, 0, 0, 0, 0), "short": igmp(igmpReportV2, 0, 0, 0), "one host": igmp(igmpReportV2, 0, 0, 0, 10, 0, 0, 1),
		"short6": mld(mldReportV1, 0, 0, 0, 0, 0, 0, 0, 0xff, 2), "echo": mld(128, 0, 0, 0, 0, 0, 0, 0), "one host6": mld(report(mldReportV2, record(4, "fd00::1"))...),
	} {
		if got, ok := ParseMembership(nil, p); ok || got != nil {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

// spec/55-broadcast.md#asking
func TestMembershipQuery(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		buf := bytes.Repeat([]byte{0xee}, MaxQuery)
		p := buf[:MembershipQuery(buf, v6)]
		if got, ok := Trim(p); !ok || len(got) != len(p) || ReachOf(p, 0) != ReachHost {
			t.Fatalf("query %x", p)
		}
		if v6 {
			if got := fold(sum(p[48:], pseudo(p, ProtoICMPv6, len(p)-48))); got != 0xffff {
				t.Errorf("checksum %04x", got)
			}
		} else if Checksum(p[:24]) != 0 || Checksum(p[24:]) != 0 {
			t.Errorf("checksums %04x, %04x", Checksum(p[:24]), Checksum(p[24:]))
		}
	}
}

func FuzzParseMembership(f *testing.F) {
	for _, s := range []string{linuxJoin4, linuxLeave4, linuxJoin6, linuxLeave6} {
		f.Add(unhex(f, s))
	}
	f.Add(igmp(igmpReportV2, 0, 0, 0, 239, 1, 2, 3))
	f.Add(mld(append([]byte{mldDone, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 16)...)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		was := bytes.Clone(p)
		keep := groups(true, "239.9.9.9")
		got, ok := ParseMembership(keep, p)
		if !bytes.Equal(p, was) || len(got) < 1 || got[0] != keep[0] || !ok && len(got) != 1 || len(got) > 1+maxMemberships {
			t.Fatalf("%v, %v", got, ok)
		}
		for _, m := range got {
			if !m.Group.IsMulticast() || dull(m.Group) || GroupHash(m.Group) == GroupAny {
				t.Fatalf("%v is no group of use", m)
			}
		}
		r := ReachOf(p, 0x0a0000ff)
		if dst, ok := Destination(p); r != ReachOne && (!ok || !dst.IsMulticast() && dst != netip.MustParseAddr("255.255.255.255") && dst != netip.MustParseAddr("10.0.0.255")) {
			t.Fatalf("%v has reach %d", dst, r)
		}
		AllowCut(p, 1)
	})
}

func BenchmarkReachOfOne(b *testing.B) {
	p := to(b, "100.64.0.2", 7777)
	for b.Loop() {
		if ReachOf(p, 0x647fffff) != ReachOne {
			b.Fatal()
		}
	}
}
