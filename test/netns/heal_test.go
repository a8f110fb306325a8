//go:build linux

package netns

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// moveLimit is the longest silence while a host moves from one network to another in which it knows a member.
const moveLimit = 5 * time.Second

// A ring of five, cut three times under traffic from a to c: unnoticed between the relay and c, with the plug of the relay
// pulled, unnoticed next to a. Each time the traffic goes on by the other half of the ring.
//
//	a ====== b
//	|         \
//	|          c
//	|         /
//	e ====== d
func TestRingCut(t *testing.T) {
	t.Parallel()
	g := newGraph(t, "a=b", "b=c", "c=d", "d=e", "e=a")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, b, c, e := g.nodes[0], g.nodes[1], g.nodes[2], g.nodes[4]
	const short, long = "relayed via b", "relayed via e, d"

	// next returns the relay next to a, and next to c, that the traffic takes now.
	next := func() (near, far string) {
		lab.Eventually(t, newsLimit, func() error { return way(a, c, short, long) })
		via := a.Network().Peer("c").Via
		return via[0], via[len(via)-1]
	}
	for _, how := range []struct {
		name string
		cut  func() (mend func())
	}{
		{"far cut", func() func() {
			_, far := next()
			s := g.between(far, "c")
			s.wire.Cut()
			return s.wire.Mend
		}},
		{"plug of the relay", func() func() {
			_, far := next()
			s := g.between(far, "c")
			s.unplug(g.find(far))
			return func() { s.plug(g.find(far)) }
		}},
		{"near cut", func() func() {
			near, _ := next()
			s := g.between("a", near)
			s.wire.Cut()
			return s.wire.Mend
		}},
	} {
		k := g.startTalkers(a, c)
		before := a.Network().Way("c")
		mend := how.cut()
		k.end(a, c, gapLimit, how.name+", "+before)
		if after := a.Network().Way("c"); after == before {
			t.Errorf("%s: a reaches c %s as before", how.name, after)
		}
		mend()
		for _, pair := range [][2]*lab.Node{{a, b}, {b, c}, {c, g.nodes[3]}, {e, a}} {
			lab.Eventually(t, healLimit, func() error { return way(pair[0], pair[1], "direct") })
			lab.Eventually(t, healLimit, func() error { return way(pair[1], pair[0], "direct") })
		}
		lab.Eventually(t, healLimit, func() error { // the map has the mended link again
			if r := a.Route("c"); len(r.Ways) < 2 {
				return fmt.Errorf("%s: a knows the ways %+v to c, want both", how.name, r.Ways)
			}
			return nil
		})
	}
	g.logBlame()
}

// newDiamond makes two hosts with two relays between them.
//
//	    r
//	  /   \
//	a       b
//	  \   /
//	    s
func newDiamond(t *testing.T) *graph {
	t.Helper()
	g := newGraph(t, "a-r", "a-s", "r-b", "s-b")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	return g
}

// The relay in use is killed with no chance to say goodbye, twice; each time the other takes over.
func TestKillOfARelay(t *testing.T) {
	t.Parallel()
	g := newDiamond(t)
	a, b := g.find("a"), g.find("b")
	for range 2 {
		k := g.startTalkers(a, b)
		relay := g.relayOf(a, b)
		relay.Kill()
		k.end(a, b, gapLimit, "kill -9 of "+relay.Name)
		if other := g.relayOf(a, b); other == relay {
			t.Errorf("a reaches b over %s, which was killed", relay.Name)
		}
		relay.Up()
		lab.AllReach(t, healLimit, g.nodes)
		lab.Eventually(t, healLimit, func() error {
			if r := a.Route("b"); len(r.Ways) < 2 {
				return fmt.Errorf("a knows the ways %+v to b, want both", r.Ways)
			}
			return nil
		})
	}
}

// A hostile relay keeps up its links, answers every ping, and swallows what it should pass on: as its firewall shows it, no
// relayed datagram ever comes. The two ends notice, go round it, and say so.
func TestRelayThatSwallows(t *testing.T) {
	t.Parallel()
	g := newDiamond(t)
	a, b := g.find("a"), g.find("b")
	k := g.startTalkers(a, b)
	relay := g.relayOf(a, b)
	relay.NFT(fmt.Sprintf("table inet hostile {\n chain in {\n type filter hook input priority 0;\n meta l4proto udp @th,64,8 %d counter drop\n }\n}\n", relayed))
	k.end(a, b, gapLimit, relay.Name+" swallows")
	if other := g.relayOf(a, b); other == relay {
		t.Errorf("a reaches b over %s, which swallows all", relay.Name)
	}
	for _, n := range []*lab.Node{a, b} { // the story is about a relay whose links stand
		if err := way(n, relay, "direct"); err != nil {
			t.Error(err)
		}
	}
	took := lab.Eventually(t, healLimit, func() error {
		avoided := a.Route("b").Avoided
		for _, v := range avoided {
			if v.Name == relay.Name {
				return nil
			}
		}
		return fmt.Errorf("a$ warren route b: avoided %+v, want %s", avoided, relay.Name)
	})
	t.Logf("a shows that it avoids %s %s after it went round it", relay.Name, took.Round(time.Second))
	k = g.startTalkers(a, b)
	lab.Always(t, 3*time.Second, func() error { return nil })
	k.end(a, b, time.Second, relay.Name+" still swallows")
}

// b, to which a talks over r, leaves the network that it shares with r and comes to one that it shares with s.
//
//	    r ··· b              r
//	  /                    /
//	a            -->     a
//	  \                    \
//	    s                    s ··· b
func TestMoveWhileRelayed(t *testing.T) {
	t.Parallel()
	g := newGraph(t, "a-r", "a-s", "r-b", "s-b")
	a, b := g.find("a"), g.find("b")
	old, now := g.between("r", "b"), g.between("s", "b")
	now.unplug(b)
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	lab.Eventually(t, newsLimit, func() error { return way(a, b, "relayed via r") })
	k, back := g.startTalkers(a, b), g.startTalkers(b, a)

	old.unplug(b)
	now.plug(b)
	k.end(a, b, moveLimit, "a to b, which moves")
	back.end(b, a, moveLimit, "b, which moves, to a")
	if err := way(a, b, "relayed via s"); err != nil {
		t.Error(err)
	}
	lab.AllReach(t, healLimit, g.nodes)
}

// The direct wire is slow, the detour over r is fast: after half a minute of proof the detour is used, and status says so.
//
//	a ===== 40 ms ===== b
//	  \               /
//	  2 ms         2 ms
//	      \       /
//	          r
func TestDetour(t *testing.T) { // not beside others: it compares round trips, which a busy machine makes up
	g := newGraph(t, "a=b", "a=r", "r=b")
	g.between("a", "b").wire.Set(lab.Conditions{Delay: 40 * time.Millisecond})
	g.between("a", "r").wire.Set(lab.Conditions{Delay: 2 * time.Millisecond})
	g.between("r", "b").wire.Set(lab.Conditions{Delay: 2 * time.Millisecond})
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, b := g.nodes[0], g.nodes[1]
	if err := way(a, b, "direct"); err != nil {
		t.Error(err)
	}
	s := a.StartStream(b.Host, b.Addr4())
	took := lab.Eventually(t, 60*time.Second, func() error {
		if err := way(a, b, "relayed via r"); err != nil {
			p := a.Network().Peer("b")
			return fmt.Errorf("%w; a received %d bytes of it and sent %d; %s", err, p.RxBytes, p.TxBytes, a.Do("route", "b"))
		}
		return nil
	})
	t.Logf("a takes the detour after %s", took.Round(time.Second))
	if why := a.Network().Peer("b").Why; why == "" {
		t.Error("status does not say why a takes a detour to b")
	}
	lab.Eventually(t, healLimit, func() error { // b decides for itself
		rtt := a.Network().Peer("b").RTT
		if rtt == nil || *rtt > 70 {
			return fmt.Errorf("over the detour the RTT is %v", rtt)
		}
		return nil
	})
	f := s.End()
	if f.Sent-f.Count > 2 || slices.ContainsFunc(f.Gaps, func(g lab.Gap) bool { return !g.From.Before(f.First) && g.To.Sub(g.From) > steady }) {
		t.Errorf("a change of way lost %d of %d datagrams, gaps %v after %s", f.Sent-f.Count, f.Sent, f.Gaps, f.First)
	}
	if !slices.ContainsFunc(a.Route("b").Ways, func(w lab.RouteWay) bool { return w.Path == "direct" && w.State == "alive" }) {
		t.Errorf("a$ warren route b: %+v, want the direct way among them", a.Route("b").Ways)
	}
}
