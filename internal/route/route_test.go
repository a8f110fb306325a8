package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func build(t *testing.T, entries ...string) *Table[string] {
	t.Helper()
	var b Builder[string]
	for _, e := range entries {
		if !b.Add(netip.MustParsePrefix(e), e) {
			t.Fatalf("prefix %s was refused", e)
		}
	}
	return b.Build()
}

func TestLookup(t *testing.T) {
	table := build(t, "100.64.0.0/10", "100.64.7.9/32", "192.168.1.77/24", "fd00:1::/48", "fd00:1::5/128")
	for _, c := range []struct{ addr, want string }{
		{"100.64.7.9", "100.64.7.9/32"},
		{"100.64.7.10", "100.64.0.0/10"},
		{"192.168.1.1", "192.168.1.77/24"},
		{"192.168.2.1", ""},
		{"fd00:1::5", "fd00:1::5/128"},
		{"fd00:1::6", "fd00:1::/48"},
		{"fd00:2::6", ""},
		{"::ffff:100.64.7.9", ""},
	} {
		if got, ok := table.Lookup(netip.MustParseAddr(c.addr)); got != c.want || ok != (c.want != "") {
			t.Errorf("%s goes to %q (%v), want %q", c.addr, got, ok, c.want)
		}
	}
	if _, ok := table.Lookup(netip.Addr{}); ok {
		t.Error("the zero address has a route")
	}
	if table.Len() != 5 {
		t.Errorf("%d prefixes, want 5", table.Len())
	}
}

func TestNilAndEmptyFindNothing(t *testing.T) {
	var none *Table[int]
	var b Builder[int]
	for name, table := range map[string]*Table[int]{"nil": none, "empty": b.Build()} {
		if _, ok := table.Lookup(netip.MustParseAddr("10.0.0.1")); ok || table.Len() != 0 {
			t.Errorf("the %s table has a route", name)
		}
	}
}

func TestBuiltTableDoesNotChange(t *testing.T) {
	var b Builder[int]
	p, a := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("10.1.2.3")
	b.Add(p, 1)
	b.Add(p, 2)
	first := b.Build()
	b.Add(p, 3)
	second := b.Build()
	if v, _ := first.Lookup(a); v != 2 {
		t.Errorf("first table says %d, want the last value added before Build, 2", v)
	}
	if v, _ := second.Lookup(a); v != 3 {
		t.Errorf("second table says %d, want 3", v)
	}
}

func TestAddRefuses(t *testing.T) {
	var b Builder[int]
	if b.Add(netip.Prefix{}, 1) || b.Add(netip.MustParsePrefix("::ffff:10.0.0.0/104"), 1) || b.Build().Len() != 0 {
		t.Error("a prefix that no packet can have was added")
	}
}

// The oracle walks all entries and keeps the longest that holds the address.
func TestAgainstOracle(t *testing.T) {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		// Few distinct bits, so that prefixes nest and addresses hit.
		if rapid.Bool().Draw(t, "v4") {
			return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "b")), 0, byte(rapid.IntRange(0, 255).Draw(t, "d"))})
		}
		a := [16]byte{0: 0xfd, 3: byte(rapid.IntRange(0, 3).Draw(t, "b")), 15: byte(rapid.IntRange(0, 255).Draw(t, "d"))}
		return netip.AddrFrom16(a)
	})
	rapid.Check(t, func(t *rapid.T) {
		oracle := map[netip.Prefix]int{}
		var b Builder[int]
		for i := range rapid.IntRange(0, 60).Draw(t, "entries") {
			a := addr.Draw(t, "prefix")
			p := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
			b.Add(p, i)
			oracle[p.Masked()] = i
		}
		table := b.Build()
		if table.Len() != len(oracle) {
			t.Fatalf("%d prefixes, want %d", table.Len(), len(oracle))
		}
		for range 50 {
			a := addr.Draw(t, "address")
			want, bits := 0, -1
			for p, v := range oracle {
				if p.Contains(a) && p.Bits() > bits {
					want, bits = v, p.Bits()
				}
			}
			if got, ok := table.Lookup(a); ok != (bits >= 0) || got != want {
				t.Fatalf("%v goes to %d (%v), want %d (length %d)", a, got, ok, want, bits)
			}
		}
	})
}

func members(n int) (*Table[*int], []netip.Addr) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Builder[*int]
	var addrs []netip.Addr
	for range n {
		a4 := netip.AddrFrom4([4]byte{100, 64 + byte(r.IntN(64)), byte(r.IntN(256)), byte(r.IntN(256))})
		a6 := [16]byte{0: 0xfd, 1: 1, 2: 2}
		for i := 8; i < 16; i++ {
			a6[i] = byte(r.IntN(256))
		}
		for _, a := range []netip.Addr{a4, netip.AddrFrom16(a6)} {
			b.Add(netip.PrefixFrom(a, a.BitLen()), new(int))
			addrs = append(addrs, a)
		}
	}
	return b.Build(), addrs
}

func TestLookupAllocatesNothing(t *testing.T) {
	table, addrs := members(100)
	i := 0
	if n := testing.AllocsPerRun(1000, func() { table.Lookup(addrs[i%len(addrs)]); i++ }); n != 0 {
		t.Errorf("a lookup allocates %v times", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		table, addrs := members(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := table.Lookup(addrs[i]); !ok {
					b.Fatal("a member has no route")
				}
				if i++; i == len(addrs) {
					i = 0
				}
			}
		})
	}
}
