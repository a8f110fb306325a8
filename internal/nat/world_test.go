package nat

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// Behind each kind of NAT the engine finds out what it is by what four hosts on the internet see. spec/73-nat.md#classes
func TestClassOfSimulatedNATs(t *testing.T) {
	for _, c := range []struct {
		kind  testnet.NATKind
		step  int
		under bool // behind one more NAT, of the provider
		want  wire.NAT
		known bool // an address is confirmed
	}{
		{testnet.FullCone, 1, false, wire.NAT{Class: wire.NATIndependent}, true},
		{testnet.AddressRestricted, 1, false, wire.NAT{Class: wire.NATIndependent}, true},
		{testnet.PortRestricted, 1, false, wire.NAT{Class: wire.NATIndependent}, true},
		{testnet.PortRestricted, 1, true, wire.NAT{Class: wire.NATIndependent}, true},
		{testnet.SymmetricPredictable, 1, false, wire.NAT{Class: wire.NATPredictable, Step: 1}, false},
		{testnet.SymmetricPredictable, -2, false, wire.NAT{Class: wire.NATPredictable, Step: -2}, false},
		{testnet.SymmetricRandom, 1, false, wire.NAT{Class: wire.NATRandom}, false},
		{testnet.SymmetricRandom, 1, true, wire.NAT{Class: wire.NATRandom}, false},
		{testnet.Firewall, 1, false, wire.NAT{Class: wire.NATOpen}, false},
		{testnet.Blocked, 1, false, wire.NAT{Class: wire.NATBlocked}, false},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := testnet.New(5)
				defer n.Close()
				x := n.NAT(c.kind, netip.MustParseAddr("203.0.113.1"))
				x.SetStep(c.step)
				own := netip.MustParseAddr("192.168.1.2")
				if c.kind == testnet.Firewall {
					own = netip.MustParseAddr("203.0.113.2")
				}
				h := x.Host("h", own)
				if c.under {
					h.Move(x.NAT(testnet.FullCone, netip.MustParseAddr("100.64.0.2")), own)
				}
				s, err := h.Listen(1000)
				if err != nil {
					t.Fatal(err)
				}
				e := New(Config{}, nil)
				e.SetLocal(time.Now(), []netip.AddrPort{netip.AddrPortFrom(own, 1000)})
				for i, o := range observers[:4] {
					server, err := n.Host(o, ap(o).Addr()).Listen(1)
					if err != nil {
						t.Fatal(err)
					}
					if err := s.WriteTo([]byte{1}, ap(o)); err != nil {
						t.Fatal(err)
					}
					e.Tried(time.Now(), ap(o))
					testnet.Wait(time.Millisecond)
					if i == 0 && n.Count(testnet.Delivered) == 0 {
						continue // blocked
					}
					if n.Count(testnet.Delivered) > i {
						_, saw, err := server.ReadFrom(make([]byte, 9))
						if err != nil {
							t.Fatal(err)
						}
						e.Observe(time.Now(), ap(o), saw)
					}
				}
				testnet.Wait(15 * time.Second)
				e.Tick(time.Now())
				testnet.Wait(time.Second)
				e.Tick(time.Now())
				if got := e.Status(); got.V4 != c.want || (len(got.Addresses) > 0) != c.known {
					t.Errorf("%+v, want %+v, an address: %t", got, c.want, c.known)
				}
			})
		})
	}
}
