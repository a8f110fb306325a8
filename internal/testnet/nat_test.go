package testnet

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// natLab is a host behind a NAT, with a socket, and servers outside, two of them at one address.
type natLab struct {
	*testing.T
	net     *Net
	nat     *NAT
	in      *Socket
	servers [3]*Socket
	addrs   [3]netip.AddrPort
}

func inNATLab(t *testing.T, kind NATKind, f func(l *natLab)) {
	synctest.Test(t, func(t *testing.T) {
		l := &natLab{T: t, net: New(3)}
		defer l.net.Close()
		l.nat = l.net.NAT(kind, netip.MustParseAddr("203.0.113.1"))
		own := netip.MustParseAddr("192.168.1.2")
		if kind == Firewall {
			own = netip.MustParseAddr("203.0.113.2")
		}
		l.in = listen(t, l.nat.Host("in", own), 1000)
		s1, s2 := l.net.Host("s1", addr1), l.net.Host("s2", addr2)
		l.servers = [3]*Socket{listen(t, s1, 1), listen(t, s1, 2), listen(t, s2, 1)}
		l.addrs = [3]netip.AddrPort{netip.AddrPortFrom(addr1, 1), netip.AddrPortFrom(addr1, 2), netip.AddrPortFrom(addr2, 1)}
		f(l)
	})
}

// says sends a datagram and returns from where it arrived at to; false if it did not.
func says(t *testing.T, from *Socket, addr netip.AddrPort, to *Socket) (netip.AddrPort, bool) {
	t.Helper()
	if err := from.WriteTo([]byte("x"), addr); err != nil {
		t.Fatal(err)
	}
	Wait(time.Millisecond)
	select {
	case d := <-to.in:
		return d.from, true
	default:
		return netip.AddrPort{}, false
	}
}

func TestNATKinds(t *testing.T) {
	for _, c := range []struct {
		kind NATKind
		same bool    // one port towards all
		back [3]bool // who may answer after the first server alone was sent to
	}{
		{FullCone, true, [3]bool{true, true, true}},
		{AddressRestricted, true, [3]bool{true, true, false}},
		{PortRestricted, true, [3]bool{true, false, false}},
		{SymmetricRandom, false, [3]bool{true, false, false}},
		{SymmetricPredictable, false, [3]bool{true, false, false}},
		{Firewall, true, [3]bool{true, false, false}},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			inNATLab(t, c.kind, func(l *natLab) {
				seen, ok := says(t, l.in, l.addrs[0], l.servers[0])
				if !ok {
					t.Fatal("nothing comes out")
				}
				if inside := seen.Addr() == l.in.LocalAddrs()[0]; inside != (c.kind == Firewall) {
					t.Errorf("seen as %s", seen)
				}
				for i, s := range l.servers {
					if _, ok := says(t, s, seen, l.in); ok != c.back[i] {
						t.Errorf("server %d gets in: %t", i, ok)
					}
				}
				for i := 1; i < 3; i++ {
					other, ok := says(t, l.in, l.addrs[i], l.servers[i])
					if !ok || (other == seen) != c.same {
						t.Errorf("seen as %s and %s (%t)", seen, other, ok)
					}
					if step := int(other.Port()) - int(seen.Port()); c.kind == SymmetricPredictable && step != i {
						t.Errorf("mapping %d is a step of %d away", i, step)
					}
				}
				if _, ok := says(t, l.servers[0], netip.AddrPortFrom(seen.Addr(), seen.Port()^1), l.in); ok {
					t.Error("a port that was never opened lets packets in")
				}
			})
		})
	}
	inNATLab(t, Blocked, func(l *natLab) {
		if _, ok := says(t, l.in, l.addrs[0], l.servers[0]); ok {
			t.Error("UDP passes where it is blocked")
		}
	})
}

func TestNATForgets(t *testing.T) {
	inNATLab(t, PortRestricted, func(l *natLab) {
		l.nat.SetTimeout(30 * time.Second)
		first, _ := says(t, l.in, l.addrs[0], l.servers[0])
		Wait(20 * time.Second)
		if again, _ := says(t, l.in, l.addrs[0], l.servers[0]); again != first {
			t.Errorf("the mapping did not last 20 s: %s, %s", first, again)
		}
		Wait(20 * time.Second)
		if _, ok := says(t, l.servers[0], first, l.in); !ok {
			t.Error("what was used 20 s ago is closed")
		}
		Wait(20 * time.Second)
		if _, ok := says(t, l.servers[0], first, l.in); ok {
			t.Error("what was used 40 s ago from inside is open")
		}
		later, _ := says(t, l.in, l.addrs[0], l.servers[0])
		if later == first {
			t.Error("the same mapping after the timeout")
		}
		l.nat.Reset()
		if _, ok := says(t, l.servers[0], later, l.in); ok {
			t.Error("the mapping outlived the router")
		}
		if n := l.nat.Mappings(); n != 2 {
			t.Errorf("%d mappings were made, want 2", n)
		}
	})
}

func TestMappedPort(t *testing.T) {
	inNATLab(t, SymmetricRandom, func(l *natLab) {
		at := netip.AddrPortFrom(l.nat.Public(), 7000)
		l.nat.Map(7000, netip.MustParseAddrPort("192.168.1.2:1000"))
		l.nat.Reset()
		if _, ok := says(t, l.servers[0], at, l.in); !ok {
			t.Error("a mapped port is closed")
		}
		if from, ok := says(t, l.in, l.addrs[0], l.servers[0]); !ok || from != at {
			t.Errorf("the answer comes from %s", from)
		}
		if from, ok := says(t, l.in, l.addrs[1], l.servers[1]); !ok || from == at {
			t.Errorf("what is no answer comes from %s", from)
		}
	})
}

func TestHairpin(t *testing.T) {
	inNATLab(t, FullCone, func(l *natLab) {
		neighbour := listen(t, l.nat.Host("neighbour", netip.MustParseAddr("192.168.1.3")), 1000)
		at, _ := says(t, neighbour, l.addrs[0], l.servers[0])
		if _, ok := says(t, l.in, at, neighbour); ok {
			t.Error("the NAT hairpins")
		}
		l.nat.SetHairpin(true)
		if from, ok := says(t, l.in, at, neighbour); !ok || from.Addr() != l.nat.Public() {
			t.Errorf("from %s, %t", from, ok)
		}
		if from, ok := says(t, l.in, netip.MustParseAddrPort("192.168.1.3:1000"), neighbour); !ok || from.Addr() != l.in.LocalAddrs()[0] {
			t.Errorf("over the LAN: from %s, %t", from, ok)
		}
	})
}

// One private address may be in use behind each NAT, and NATs stand behind NATs.
func TestRealms(t *testing.T) {
	inNATLab(t, FullCone, func(l *natLab) {
		private := l.in.LocalAddrs()[0]
		carrier := l.net.NAT(PortRestricted, netip.MustParseAddr("203.0.113.9"))
		home := carrier.NAT(FullCone, netip.MustParseAddr("100.64.0.7"))
		deep := listen(t, home.Host("deep", private), 1000)
		seen, ok := says(t, deep, l.addrs[0], l.servers[0])
		if !ok || seen.Addr() != carrier.Public() {
			t.Fatalf("seen as %s, %t", seen, ok)
		}
		if _, ok := says(t, l.servers[0], seen, deep); !ok {
			t.Error("no answer through two NATs")
		}
		if _, ok := says(t, l.servers[1], seen, deep); ok {
			t.Error("the outer filter let a stranger in")
		}
		if _, ok := says(t, l.in, netip.MustParseAddrPort("100.64.0.7:1"), deep); ok {
			t.Error("an address of another realm was reached")
		}
		deep.host.Move(l.nat, netip.MustParseAddr("192.168.1.9"))
		if from, ok := says(t, l.in, netip.MustParseAddrPort("192.168.1.9:1000"), deep); !ok || from.Addr() != private {
			t.Errorf("after the move: from %s, %t", from, ok)
		}
		deep.host.Move(nil, addr3)
		if from, ok := says(t, deep, l.addrs[2], l.servers[2]); !ok || from.Addr() != addr3 {
			t.Errorf("on the internet: from %s, %t", from, ok)
		}
	})
}

// IPv6 is not translated behind an IPv4 NAT, and not open either.
func TestIPv6BehindNAT(t *testing.T) {
	inNATLab(t, FullCone, func(l *natLab) {
		own := netip.AddrPortFrom(addr6a, 1000)
		both := listen(t, l.nat.Host("both", netip.MustParseAddr("192.168.1.3"), addr6a), 1000)
		far := listen(t, l.net.Host("far", addr6b), 1)
		if _, ok := says(t, far, own, both); ok {
			t.Error("the firewall is open")
		}
		if from, ok := says(t, both, netip.AddrPortFrom(addr6b, 1), far); !ok || from != own {
			t.Errorf("from %s, %t", from, ok)
		}
		if _, ok := says(t, far, own, both); !ok {
			t.Error("no answer through the firewall")
		}
	})
}
