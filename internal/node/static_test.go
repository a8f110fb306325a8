package node

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/testnet"
)

// Two members that both moved while they were away have nothing to find each other by but what an owner wrote down: an address of a
// member, or of whoever is there. Where nobody is, few datagrams go.
//
// spec/70-discover.md#static-addresses
func TestStaticAddresses(t *testing.T) {
	for _, peer := range []string{"a@192.0.2.101:48271", "192.0.2.101:48271", "192.0.2.66:1 192.0.2.101:48271", "b@192.0.2.101:48271", "192.0.2.66:1", ""} {
		t.Run(peer, func(t *testing.T) {
			story(t, lan, func(w *world) {
				ms := w.found("a", "b", "c")
				for _, m := range ms {
					m.shutdown()
				}
				ms[0].host.SetAddrs(address("192.0.2.101"))
				ms[1].host.SetAddrs(address("192.0.2.102"))
				ms[0].start()
				cfg := config.Defaults()
				own := cfg.Network("warren")
				own.Peer = peer
				cfg.Networks = map[string]config.Network{"warren": own}
				var tries atomic.Int32
				nowhere := netip.MustParseAddrPort("192.0.2.66:1")
				w.net.Tap(func(p testnet.Packet) {
					if p.To == nowhere {
						tries.Add(1)
					}
				})
				ms[1].startOn(ms[1].platform(), cfg)
				testnet.Wait(25 * time.Second)
				want := peer == "a@192.0.2.101:48271" || len(peer) > 0 && peer[0] == '1' && peer != nowhere.String()
				if p := ms[1].peer(ms[0].self()).Path; (p == "direct") != want {
					w.Errorf("b reaches a: %s", p)
				}
				testnet.Wait(10 * time.Minute)
				if n := tries.Load(); n > 18 { // of two members, three times, and a little more after that; among them proofs
					w.Errorf("%d datagrams to where nobody is", n)
				}
			})
		})
	}
}
