//go:build linux

package netns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Five hosts in a line; each joined by a code of the one before it. All reach all, a reaches e over three relays.
//
//	a --- b --- c --- d --- e
func TestLineOfFive(t *testing.T) {
	g := newGraph(t, "a-b", "b-c", "c-d", "d-e")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, b, c, e := g.nodes[0], g.nodes[1], g.nodes[2], g.nodes[4]
	if err := way(a, b, "direct"); err != nil {
		t.Error(err)
	}
	lab.Eventually(t, newsLimit, func() error { return way(a, e, "relayed via b, c, d") })
	lab.Eventually(t, newsLimit, func() error { return way(e, a, "relayed via d, c, b") })

	if out := a.Do("ping", "e", "--count", "1"); !strings.Contains(out, "via b, c, d") {
		t.Errorf("a$ warren ping e: %s\nwant the relays named", out)
	}
	var hops []string
	if r := a.Route("e"); len(r.Ways) > 0 {
		for _, h := range r.Ways[0].Hops {
			hops = append(hops, h.Name)
		}
	}
	if !slices.Equal(hops, []string{"b", "c", "d", "e"}) {
		t.Errorf("a$ warren route e: hops %v, want b c d e", hops)
	}

	before := c.Network().Relay
	v4, v6 := e.Addrs()
	for _, to := range []netip.Addr{v4, v6} {
		got := a.Send(e.Host, to, 64<<20, 2*time.Minute)
		t.Logf("64 MiB over three relays to %s at %.0f Mbit/s", to, got.Rate())
	}
	e.Send(a.Host, a.Addr4(), mediumFile, time.Minute)
	if after := c.Network().Relay; after.Bytes-before.Bytes < 2*64<<20 || after.Packets == before.Packets {
		t.Errorf("c counts %d bytes in %d packets that it passed on, before %d in %d", after.Bytes, after.Packets, before.Bytes, before.Packets)
	}
	for _, n := range g.nodes {
		if drops := n.Status().Drops; drops["bad_auth"]+drops["replayed"]+drops["bad_source"]+drops["relay_refused"]+drops["malformed"] > 0 {
			t.Errorf("%s dropped %v", n.Name, drops)
		}
	}
}
