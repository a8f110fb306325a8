package path

import (
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// Every kind of NAT against every other: what ought to be direct is so soon, within the ceiling of packets, and what cannot
// be stays relayed and polite. spec/73-nat.md#pairs, spec/73-nat.md#ceiling
func TestNATMatrix(t *testing.T) {
	kinds := []testnet.NATKind{testnet.FullCone, testnet.AddressRestricted, testnet.PortRestricted, testnet.Firewall,
		testnet.SymmetricPredictable, testnet.SymmetricRandom}
	impossible := func(a, b testnet.NATKind) bool {
		return a == testnet.SymmetricRandom && (b == testnet.PortRestricted || b == testnet.Firewall || b == testnet.SymmetricPredictable || b == testnet.SymmetricRandom)
	}
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			t.Run(a.String()+" to "+b.String(), func(t *testing.T) {
				inBurrows(t, home(a), home(b), Config{}, func(w *burrows) {
					took := w.run(20*time.Second, w.direct)
					want := !impossible(a, b) && !impossible(b, a)
					if w.direct() != want {
						t.Errorf("direct: %t after %v, %+v", w.direct(), took, w.n[0].e.Status(w.n[0].other).Punch)
					}
					if want && took > 3*time.Second {
						t.Errorf("took %v", took)
					}
					t.Logf("%v, %d and %d pings", took, w.n[0].pings, w.n[1].pings)
				})
			})
		}
	}
}

// lan puts both behind one NAT.
func lan(x **testnet.NAT, kind testnet.NATKind, hairpin bool) place {
	return func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
		if i == 0 {
			*x = n.NAT(kind, netip.MustParseAddr("203.0.113.77"))
			(*x).SetHairpin(hairpin)
		}
		a := netip.AddrFrom4([4]byte{192, 168, 7, byte(2 + i)})
		return (*x).Host(name, a), []netip.Addr{a}
	}
}

// flats gives each a router of its own behind one NAT of the provider.
func flats(x **testnet.NAT, kind testnet.NATKind, hairpin bool) place {
	return func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
		if i == 0 {
			*x = n.NAT(kind, netip.MustParseAddr("203.0.113.77"))
			(*x).SetHairpin(hairpin)
		}
		a := netip.MustParseAddr("192.168.1.2")
		return (*x).NAT(testnet.PortRestricted, netip.AddrFrom4([4]byte{100, 64, 0, byte(2 + i)})).Host(name, a), []netip.Addr{a}
	}
}

// dual has IPv6 beside a bad NAT for IPv4.
func dual(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
	x := n.NAT(testnet.SymmetricRandom, netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + 10*i)}))
	addrs := []netip.Addr{netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr([]string{"2001:db8:a::2", "2001:db8:b::2"}[i])}
	return x.Host(name, addrs...), addrs
}

// Places where the two are closer to each other, or have more than one family. spec/73-nat.md#pairs
func TestPunchInOtherPlaces(t *testing.T) {
	var x *testnet.NAT
	for _, c := range []struct {
		name string
		a, b place
		want bool
	}{
		{"one LAN, no hairpin", lan(&x, testnet.PortRestricted, false), lan(&x, testnet.PortRestricted, false), true},
		{"one LAN, symmetric NAT", lan(&x, testnet.SymmetricRandom, false), lan(&x, testnet.SymmetricRandom, false), true},
		{"one provider that hairpins", flats(&x, testnet.PortRestricted, true), flats(&x, testnet.PortRestricted, true), true},
		{"one provider that does not", flats(&x, testnet.PortRestricted, false), flats(&x, testnet.PortRestricted, false), false},
		{"IPv6 behind firewalls", dual, dual, true},
		{"UDP blocked", home(testnet.Blocked), home(testnet.FullCone), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBurrows(t, c.a, c.b, Config{}, func(w *burrows) {
				took := w.run(10*time.Second, w.direct)
				if w.direct() != c.want {
					t.Errorf("direct: %t after %v, %+v", w.direct(), took, w.n[0].e.Status(w.n[0].other))
				}
			})
		})
	}
}

// Messages and pings get lost; it works all the same. spec/73-nat.md#exchange, spec/73-nat.md#bursts
func TestPunchUnderLoss(t *testing.T) {
	for _, lossy := range []float64{0.1, 0.2, 0.3} {
		inBurrows(t, home(testnet.PortRestricted), home(testnet.PortRestricted), Config{}, func(w *burrows) {
			w.lossy = lossy
			w.net.SetDefault(testnet.Link{Delay: directDelay, Jitter: directDelay, Loss: 0.3})
			if took := w.run(10*time.Second, w.direct); !w.direct() {
				t.Errorf("not direct after %v with %v of the messages lost", took, lossy)
			}
		})
	}
}

// Predictable NATs on which others open ports in the same moment. spec/73-nat.md#prediction
func TestPredictionBesideOthers(t *testing.T) {
	for _, step := range []int{1, -1, 2, 5} {
		for skip := range 7 {
			var routers [2]*testnet.NAT
			at := func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
				routers[i] = n.NAT(testnet.SymmetricPredictable, netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + 10*i)}))
				routers[i].SetStep(step)
				return routers[i].Host(name, netip.MustParseAddr("192.168.1.2")), []netip.Addr{netip.MustParseAddr("192.168.1.2")}
			}
			inBurrows(t, at, at, Config{}, func(w *burrows) {
				routers[0].Skip(skip)
				routers[1].Skip(skip / 2)
				if took := w.run(7*time.Second, w.direct); !w.direct() {
					t.Errorf("step %d, %d ports taken by others: not direct after %v", step, skip, took)
				}
			})
		}
	}
}

// One member alone sees both: no class is known, and the next ports are guessed nevertheless. spec/73-nat.md#prediction
func TestPredictionByOneObserver(t *testing.T) {
	for _, other := range []testnet.NATKind{testnet.PortRestricted, testnet.AddressRestricted} {
		inBurrowsSeenBy(t, 1, home(testnet.SymmetricPredictable), home(other), Config{}, func(w *burrows) {
			if took := w.run(7*time.Second, w.direct); !w.direct() {
				t.Errorf("with %v: not direct after %v", other, took)
			}
		})
	}
}

// A class that is found while an attempt goes on begins it anew. spec/73-nat.md#back-off
func TestPunchAgainWithTheRightClass(t *testing.T) {
	inBurrowsSeenBy(t, 1, home(testnet.SymmetricPredictable), home(testnet.SymmetricPredictable), Config{}, func(w *burrows) {
		w.run(time.Second, w.direct)
		for i, n := range w.n { // as a second observer would have it, by the port that comes next
			base, _ := base(n.e.own.List)
			n.e.SetOwn(time.Now(), wire.NAT{Class: wire.NATPredictable, Step: 1}, n.e.own.V6,
				[]wire.Candidate{{Kind: wire.CandidateExternal, Addr: netip.AddrPortFrom(base.Addr(), base.Port()+2)}})
			if i == 0 {
				w.run(100*time.Millisecond, w.direct)
			}
		}
		if took := w.run(7*time.Second, w.direct); !w.direct() {
			t.Errorf("not direct after %v", took)
		}
	})
}

// spec/73-nat.md#back-off
func TestPunchBackOff(t *testing.T) {
	inBurrows(t, home(testnet.PortRestricted), home(testnet.SymmetricRandom), Config{}, func(w *burrows) {
		w.use(30 * time.Minute)
		for _, n := range w.n {
			if n.messages < 5 || n.messages > 24 || n.pings > 20*18*3 {
				t.Errorf("%d messages and %d pings in half an hour without hope", n.messages, n.pings)
			}
			for a, sent := range n.perAddr {
				if sent > 20*18 {
					t.Errorf("%d pings to %v", sent, a)
				}
			}
		}
		s := w.n[0].e.Status(w.n[0].other).Punch
		if s.Phase != "waiting" || s.Failed < 5 || s.Hopeless || !s.Next.After(time.Now()) {
			t.Errorf("%+v", s)
		}
		before := w.n[0].messages
		w.n[1].nat.SetMapped(time.Now(), nil) // nothing new
		w.run(time.Second)
		w.n[1].nat.SetLocal(time.Now(), []netip.AddrPort{ap("192.168.1.9:5")})
		w.run(2 * time.Second)
		if w.n[0].messages == before {
			t.Error("no new attempt although something changed")
		}
	})
}

// spec/73-nat.md#back-off
func TestHopelessPairsWait(t *testing.T) {
	inBurrows(t, home(testnet.SymmetricRandom), home(testnet.SymmetricRandom), Config{}, func(w *burrows) {
		w.use(50 * time.Minute)
		n := w.n[0]
		if s := n.e.Status(n.other).Punch; n.messages > 4 || !s.Hopeless || !s.Told {
			t.Errorf("%d messages in 50 minutes, %+v", n.messages, s)
		}
	})
}

// A port that the router opens later is used at once. spec/73-nat.md#back-off
func TestPunchAgainOnChange(t *testing.T) {
	var x *testnet.NAT
	mapped := func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
		x = n.NAT(testnet.SymmetricRandom, netip.MustParseAddr("203.0.113.1"))
		a := netip.MustParseAddr("192.168.1.2")
		return x.Host(name, a), []netip.Addr{a}
	}
	inBurrows(t, mapped, home(testnet.PortRestricted), Config{}, func(w *burrows) {
		w.use(5 * time.Minute)
		if w.direct() {
			t.Fatal("direct too soon")
		}
		n := w.n[0]
		x.Map(7777, netip.AddrPortFrom(netip.MustParseAddr("192.168.1.2"), n.socks[0].Port()))
		for _, o := range []string{"198.51.100.1:1", "198.52.100.1:1"} { // what was observed is old
			w.check(n.socks[0].WriteTo([]byte{9}, ap(o)))
		}
		n.nat.SetMapped(time.Now(), []netip.AddrPort{ap("203.0.113.1:7777")})
		if took := w.run(5*time.Second, w.direct); !w.direct() {
			t.Errorf("not direct %v after the port was opened", took)
		}
	})
}

// A router that forgets its mappings costs seconds, and the relay carries on. spec/73-nat.md#back-off
func TestPunchAfterRebinding(t *testing.T) {
	var x *testnet.NAT
	at := func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
		x = n.NAT(testnet.PortRestricted, netip.MustParseAddr("203.0.113.1"))
		a := netip.MustParseAddr("192.168.1.2")
		return x.Host(name, a), []netip.Addr{a}
	}
	inBurrows(t, at, home(testnet.PortRestricted), Config{}, func(w *burrows) {
		w.use(2 * time.Minute)
		for i := range 3 {
			if !w.direct() {
				t.Fatal("not direct")
			}
			x.Reset()
			lost := func() bool { return !w.direct() }
			w.use(5 * time.Second)
			w.run(time.Minute, lost)
			for _, o := range []string{"198.51.100.1:1", "198.52.100.1:1"} {
				w.check(w.n[0].socks[0].WriteTo([]byte{9}, ap(o)))
			}
			if took := w.run(20*time.Second, w.direct); !w.direct() {
				t.Errorf("reset %d: not direct again after %v: %+v", i, took, w.n[0].e.Status(w.n[0].other).Punch)
			}
			w.use(2 * time.Minute)
		}
	})
}
