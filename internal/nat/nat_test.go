package nat

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/wire"
)

// lab is one engine in virtual time.
type lab struct {
	testing.TB
	e   *Engine
	now time.Time
}

func newLab(t testing.TB, local ...string) *lab {
	l := &lab{TB: t, e: New(Config{Refuse: func(a netip.Addr) bool { return a == ap("203.0.113.250:1").Addr() }}, nil), now: time.Unix(1e9, 0)}
	l.e.SetLocal(l.now, aps(local...))
	return l
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func aps(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, ap(s))
	}
	return out
}

// observers lie in different prefixes, but for the last, which is beside the first.
var observers = []string{"198.51.100.1:1", "192.0.2.1:1", "8.8.8.8:1", "9.9.9.9:1", "198.51.200.9:1"}

// sees lets observers report in turn, 100 ms apart.
func (l *lab) sees(saw ...string) *lab {
	for i, s := range saw {
		if s != "" {
			l.e.Tried(l.now, ap(observers[i]))
			l.e.Observe(l.now.Add(time.Duration(50-10*i)*time.Millisecond), ap(observers[i]), ap(s))
		}
		l.now = l.now.Add(100 * time.Millisecond)
	}
	return l
}

// run lets d pass and returns what was said last.
func (l *lab) run(d time.Duration) Changed {
	l.Helper()
	end := l.now.Add(d)
	for steps := 0; ; steps++ {
		next := l.e.Tick(l.now)
		if steps > 1000 {
			l.Fatalf("the engine does not come to rest: it wants to wake at %v, it is %v", next, l.now)
		}
		if next.IsZero() || next.After(end) {
			l.now = end
			return l.e.Status()
		}
		if next.After(l.now) {
			l.now = next
		}
	}
}

func (l *lab) want(class wire.NATClass, step int8) {
	l.Helper()
	if got := l.run(time.Second); got.V4 != (wire.NAT{Class: class, Step: step}) {
		l.Errorf("%+v, want %v with step %d", got, class, step)
	}
}

// spec/73-nat.md#classes
func TestClass(t *testing.T) {
	const own, x = "192.168.1.2:1000", "203.0.113.7:"
	for _, c := range []struct {
		name string
		saw  []string
		want wire.NATClass
		step int8
	}{
		{"nobody", nil, wire.NATUnknown, 0},
		{"one", []string{x + "5"}, wire.NATUnknown, 0},
		{"two agree", []string{x + "5", x + "5"}, wire.NATIndependent, 0},
		{"one of three lies", []string{x + "5", "203.0.113.66:9", x + "5"}, wire.NATIndependent, 0},
		{"one after the other", []string{x + "5000", x + "5001", x + "5002"}, wire.NATPredictable, 1},
		{"two at a time", []string{x + "5000", x + "5002", x + "5006"}, wire.NATPredictable, 2},
		{"downwards", []string{x + "5000", x + "4999", x + "4995"}, wire.NATPredictable, -1},
		{"answers out of order", []string{x + "5001", x + "5000", x + "5002", x + "5003"}, wire.NATPredictable, 1},
		{"order unknown", nil, wire.NATPredictable, 1},
		{"two that are near", []string{x + "5000", x + "5003"}, wire.NATPredictable, 3},
		{"two that are far", []string{x + "5000", x + "5017"}, wire.NATRandom, 0},
		{"random", []string{x + "5000", x + "61000", x + "33333"}, wire.NATRandom, 0},
		{"one by chance near", []string{x + "5000", x + "61000", x + "5001"}, wire.NATRandom, 0},
		{"several outer addresses", []string{x + "5000", "203.0.113.8:5001", "203.0.113.9:5002"}, wire.NATRandom, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, own).sees(c.saw...)
			for i := range 4 {
				if c.name == "order unknown" {
					l.e.Observe(l.now, ap(observers[i]), ap(x+strconv.Itoa(5004-i)))
				}
			}
			l.want(c.want, c.step)
		})
	}
	t.Run("no NAT", func(t *testing.T) { newLab(t, x+"1000").sees(x+"1000", x+"1000").want(wire.NATOpen, 0) })
	t.Run("no address of the family", func(t *testing.T) { newLab(t, "[2001:db8::1]:1000").want(wire.NATBlocked, 0) })
	t.Run("two ports of one host are one observer", func(t *testing.T) {
		l := newLab(t, own)
		l.e.Observe(l.now, ap("192.0.2.1:1"), ap(x+"5"))
		l.e.Observe(l.now, ap("192.0.2.1:2"), ap(x+"5"))
		l.want(wire.NATUnknown, 0)
	})
	t.Run("IPv6 by itself", func(t *testing.T) {
		l := newLab(t, own, "[2001:db8::1]:1000")
		l.e.Observe(l.now, ap("[2001:db9::1]:1"), ap("[2001:db8::1]:1000"))
		if got := l.run(time.Second); got.V6.Class != wire.NATOpen || got.V4.Class != wire.NATUnknown {
			t.Errorf("%+v", got)
		}
	})
}

// spec/73-nat.md#confirmed
func TestConfirmed(t *testing.T) {
	const x = "203.0.113.7:5"
	for _, c := range []struct {
		name   string
		saw    []string
		mapped []string
		want   []string
	}{
		{"one observer", []string{x}, nil, nil},
		{"two", []string{x, x}, nil, []string{x}},
		{"two of one network", []string{x, "", "", "", x}, nil, nil},
		{"a lie beside the truth", []string{x, "203.0.113.66:6", x}, nil, []string{x}},
		{"private", []string{"10.0.0.1:5", "10.0.0.1:5"}, nil, nil},
		{"shared by a provider", []string{"100.64.0.1:5", "100.64.0.1:5"}, nil, nil},
		{"inside the network", []string{"203.0.113.250:5", "203.0.113.250:5"}, nil, nil},
		{"mapped, nobody saw us", nil, []string{"203.0.113.7:7"}, nil},
		{"mapped, one saw us there", []string{x}, []string{"203.0.113.7:7"}, []string{"203.0.113.7:7"}},
		{"mapped, seen elsewhere", []string{x}, []string{"203.0.113.8:7"}, nil},
		{"mapped behind another NAT", []string{x, x}, []string{"100.64.0.1:7"}, []string{x}},
		{"mapped first", []string{x, x}, []string{"203.0.113.7:7"}, []string{"203.0.113.7:7", x}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "192.168.1.2:1000")
			l.e.SetMapped(l.now, aps(c.mapped...))
			l.sees(c.saw...)
			if got := l.run(time.Second); !slices.Equal(got.Addresses, aps(c.want...)) {
				t.Errorf("%v", got.Addresses)
			}
		})
	}
}

// A mapped port makes the node open, for as long as there is the agreement.
func TestMappedPortIsOpen(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000").sees("203.0.113.7:5000", "203.0.113.7:61000", "203.0.113.7:33333")
	l.want(wire.NATRandom, 0)
	l.e.SetMapped(l.now, aps("203.0.113.7:7"))
	l.want(wire.NATOpen, 0)
	l.e.SetMapped(l.now, nil)
	l.want(wire.NATRandom, 0)
}

// spec/73-nat.md#candidates
func TestCandidates(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000", "[fe80::1]:1000", "[2001:db8::1]:1000", "127.0.0.1:1000", "0.0.0.0:1000")
	l.e.SetMapped(l.now, aps("203.0.113.7:7"))
	l.sees("203.0.113.7:5000", "203.0.113.7:5002", "203.0.113.7:5001")
	l.e.SetMapped(l.now, nil)
	got := l.run(time.Second)
	want := []wire.Candidate{{Kind: wire.CandidateExternal, Addr: ap("203.0.113.7:5002")}, {Kind: wire.CandidateExternal, Addr: ap("203.0.113.7:1000")}, {Addr: ap("[2001:db8::1]:1000")},
		{Addr: ap("192.168.1.2:1000")}, {Addr: ap("[fe80::1]:1000")}}
	if !slices.Equal(got.Candidates, want) {
		t.Errorf("%v, want %v", got.Candidates, want)
	}
	l.e.SetMapped(l.now, aps("203.0.113.7:7"))
	if got := l.run(time.Second).Candidates; got[0] != (wire.Candidate{Kind: wire.CandidateMapped, Addr: ap("203.0.113.7:7")}) {
		t.Errorf("%v", got)
	}
}

// Behind a symmetric NAT the port of the socket is told at the address that two saw, for its owner may have forwarded it; what one
// observer alone says, and what a better NAT does, needs none of it.
//
// spec/73-nat.md#by-hand
func TestPortForwardedByHand(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	l.sees("203.0.113.7:5000")
	if got := l.run(time.Second).ByHand; len(got) != 0 {
		t.Errorf("one observer: %v", got)
	}
	l.sees("203.0.113.7:5000", "203.0.113.7:9000")
	if got := l.run(time.Second); !slices.Equal(got.ByHand, aps("203.0.113.7:1000")) || len(got.Addresses) != 0 {
		t.Errorf("by hand %v, confirmed %v", got.ByHand, got.Addresses)
	}
	l.sees("203.0.113.7:5000", "203.0.113.7:5000", "203.0.113.7:5000")
	if got := l.run(time.Second); len(got.ByHand) != 0 {
		t.Errorf("class %v: %v", got.V4.Class, got.ByHand)
	}
}

// spec/73-nat.md#observations
func TestObserversOnTheLANSayNothing(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	l.e.Observe(l.now, ap("192.168.1.9:1"), ap("192.168.1.2:1000"))
	l.e.Observe(l.now, ap("[fd00::9]:1"), ap("[fd00::2]:1000"))
	l.e.Observe(l.now, ap("192.0.2.1:1"), ap("[2001:db8::1]:1000"))
	l.e.Observe(l.now, netip.AddrPort{}, netip.AddrPort{})
	l.want(wire.NATUnknown, 0)
}

// spec/73-nat.md#observations
func TestOldWordsAreForgotten(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000").sees("203.0.113.7:5", "203.0.113.7:5", "203.0.113.7:5")
	l.want(wire.NATIndependent, 0)
	l.run(11 * time.Minute)
	if got := l.e.Status(); len(got.Addresses) != 0 || got.V4.Class != wire.NATIndependent {
		t.Errorf("after 11 minutes of silence %+v, want no address; the class stands for an hour", got)
	}
	l.run(time.Hour)
	l.want(wire.NATUnknown, 0)
}

// One observer that sees another port tells us that the old one is gone for all. spec/73-nat.md#observations
func TestRebinding(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000").sees("203.0.113.7:5", "203.0.113.7:5", "203.0.113.7:5")
	l.want(wire.NATIndependent, 0)
	l.sees("203.0.113.7:6")
	if got := l.run(time.Second); len(got.Addresses) != 0 || got.V4.Class != wire.NATIndependent {
		t.Errorf("%+v", got)
	}
	l.sees("203.0.113.7:6", "203.0.113.7:6")
	if got := l.run(time.Second); !slices.Equal(got.Addresses, aps("203.0.113.7:6")) || got.V4.Class != wire.NATIndependent {
		t.Errorf("%+v", got)
	}
	l.e.NetworkChanged(l.now)
	l.want(wire.NATUnknown, 0)
}

// spec/73-nat.md#classes
func TestBlocked(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	for _, o := range observers[:3] {
		l.e.Tried(l.now, ap(o))
		l.e.Tried(l.now, ap("192.168.1.77:5"))
	}
	l.want(wire.NATUnknown, 0)
	l.run(10 * time.Second)
	l.want(wire.NATBlocked, 0)
	l.e.Heard(l.now, ap(observers[0]))
	l.want(wire.NATUnknown, 0)
	for range 100 { // one that is gone is not the network
		l.e.Tried(l.now, ap(observers[0]))
		l.run(time.Minute)
	}
	l.want(wire.NATUnknown, 0)
}

// The order of what is sent in one moment counts, not that of the answers. spec/73-nat.md#observations
func TestOrderOfSending(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
		l := newLab(t, "192.168.1.2:1000")
		for _, o := range observers[:4] {
			l.e.Tried(l.now, ap(o))
		}
		for _, i := range order {
			l.e.Observe(l.now.Add(time.Millisecond), ap(observers[i]), ap("203.0.113.7:"+strconv.Itoa(5000-2*i)))
		}
		l.want(wire.NATPredictable, -2)
		if got := l.e.Status().Candidates[0].Addr; got != ap("203.0.113.7:4994") {
			t.Errorf("a peer is told %v, want the last port", got)
		}
	}
}

// Who was asked first comes first, also when it is asked again before it says anything. spec/73-nat.md#observations
func TestOrderOfFirstSending(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	for _, i := range []int{0, 1, 0} { // as by a join, which goes to one and another, and then a session with the first
		l.e.Tried(l.now, ap(observers[i]))
		l.run(8 * time.Second)
	}
	l.e.Observe(l.now, ap(observers[1]), ap("203.0.113.7:5001"))
	l.e.Observe(l.now, ap(observers[0]), ap("203.0.113.7:5000"))
	l.want(wire.NATPredictable, 1)
}

// What comes in one moment is told once; nothing new, nothing told.
func TestChangesAreTold(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	for _, o := range observers {
		l.e.Observe(l.now, ap(o), ap("203.0.113.7:5"))
	}
	l.run(time.Second)
	if n := len(l.e.Effects()); n != 1 {
		t.Errorf("told %d times", n)
	}
	for range 30 {
		for _, o := range observers {
			l.e.Observe(l.now, ap(o), ap("203.0.113.7:5"))
		}
		l.run(time.Minute)
	}
	l.run(5 * time.Minute)
	if n := len(l.e.Effects()); n != 0 {
		t.Errorf("told %d times more", n)
	}
}

// Whatever is said by whom: tables keep their limits, wake-ups are not in the past, and nothing is confirmed that fewer than
// two networks saw. spec/73-nat.md#observations, spec/73-nat.md#confirmed
func TestInvariants(t *testing.T) {
	addr := func(t *rapid.T, name string) netip.AddrPort {
		host := rapid.SampledFrom([]string{"203.0.113.7", "203.0.113.8", "192.168.1.2", "2001:db8::1", "2001:db9::2", "8.8.8.8", "8.9.8.8", "0.0.0.0"}).Draw(t, name)
		return netip.AddrPortFrom(netip.MustParseAddr(host), uint16(rapid.IntRange(0, 80).Draw(t, "port")))
	}
	rapid.Check(t, func(t *rapid.T) {
		e, now := New(Config{}, nil), time.Unix(1e9, 0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 8).Draw(t, "what") {
			case 0:
				e.SetLocal(now, []netip.AddrPort{addr(t, "local"), addr(t, "local2")})
			case 1:
				e.SetMapped(now, []netip.AddrPort{addr(t, "mapped")})
			case 2:
				e.Tried(now, addr(t, "tried"))
			case 3:
				e.Heard(now, addr(t, "heard"))
			case 4:
				if rapid.IntRange(0, 9).Draw(t, "rare") == 0 {
					e.NetworkChanged(now)
				}
			default:
				e.Observe(now, addr(t, "by"), addr(t, "saw"))
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "ms")) * time.Millisecond)
			if next := e.Tick(now); !next.IsZero() && !next.After(now) {
				t.Fatalf("wake-up %v ago", now.Sub(next))
			}
			for _, f := range []*family{&e.v4, &e.v6} {
				if len(f.seen) > maxObservers || len(f.asked) > maxObservers || len(f.tried) > maxTried {
					t.Fatalf("%d observers, %d tried", len(f.seen), len(f.tried))
				}
			}
			s := e.Status()
			if len(s.Candidates) > wire.MaxCandidates || (s.V4.Step != 0) != (s.V4.Class == wire.NATPredictable) {
				t.Fatalf("%+v", s)
			}
			for _, a := range s.Addresses {
				if reserved(a.Addr()) || a.Port() == 0 {
					t.Fatalf("%v is confirmed", a)
				}
			}
		}
	})
}
