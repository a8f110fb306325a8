//go:build linux

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// What status and doctor say when nothing is left, and the one thing that is then enough.
const (
	noPath   = "no path can exist: this machine and it are both behind NATs that give each destination another port, and no third member that could relay is in reach"
	oneThing = "one thing is enough: forward UDP port 48271 to this machine on its router, or UDP port 48271 to %s on the router there; or any third member that both can reach; it is noticed within ten minutes, or when you run: warren ping %[1]s"
)

// Two members behind the worst of NATs have met while others were there to relay, and then those are gone for good. Status and doctor say on both
// sides that no path can exist, and which one thing would make one. Whichever of these is done, they reach each other again.
//
//	a --- [random] --- [internet] --- [random] --- b
//	                     x, y
//
// spec/60-api.md#finding, spec/73-nat.md#by-hand
func TestNoPathCanExist(t *testing.T) {
	for _, tt := range []struct {
		name string
		mend func(w *apart)
		way  string // of a to b afterwards
	}{
		{"a port is forwarded", func(w *apart) { w.work.Forward(48271) }, "direct"},
		{"a third comes back", func(w *apart) { w.x.Up() }, "relayed via x"},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newApart(t)
			w.y.Kill()
			w.x.Kill()
			took := lab.Eventually(t, 30*time.Second, func() error { return errors.Join(hopeless(w.a, "b"), hopeless(w.b, "a")) })
			t.Logf("both say so after %s", took.Round(time.Millisecond))
			tt.mend(w)
			w.a.Warren("ping", "-c", "3", "b") // or it would be some minutes until what did not answer is tried again; whether it answers is seen next
			took = lab.Eventually(t, healLimit, func() error { return errors.Join(w.a.Ping(w.to), way(w.a, w.b, tt.way), spoken(w.a, "b")) })
			t.Logf("they reach each other %s after %s: %s", took.Round(time.Millisecond), tt.name, w.a.Network().Way("b"))
		})
	}
}

// apart is the internet of TestNoPathCanExist.
type apart struct {
	work       *lab.Site
	x, y, a, b *lab.Node
	to         netip.Addr // of b, inside
}

// newApart makes it, and waits until each of the two knows what the other's NAT is, and where a forwarded port would be.
func newApart(t *testing.T) *apart {
	net := lab.New(t).Internet()
	home, work := net.Site("home", lab.SiteRandom), net.Site("work", lab.SiteRandom)
	w := &apart{work: work, x: net.Public("x").NewNode(), y: net.Public("y").NewNode(), a: home.Add("a").NewNode(), b: work.Add("b").NewNode()}
	for _, n := range []*lab.Node{w.x, w.y, w.a, w.b} {
		n.Configure("[daemon]\ndht = false\nport_mapping = false\n")
		n.Up()
	}
	w.x.Do("create", "home")
	for _, n := range []*lab.Node{w.y, w.a, w.b} {
		n.Do("join", w.x.Invite())
	}
	lab.AllReach(t, joinLimit, []*lab.Node{w.x, w.y, w.a, w.b})
	w.to = w.b.Addr4()
	took := lab.Eventually(t, 45*time.Second, func() error {
		return errors.Join(relayedFor(w.a, "b"), relayedFor(w.b, "a"), told(w.a, "b", work.Outside), told(w.b, "a", home.Outside))
	})
	t.Logf("all is known of the NATs after %s", took.Round(time.Millisecond))
	return w
}

// relayedFor checks that n says why the peer is relayed.
func relayedFor(n *lab.Node, peer string) error {
	const why = "no direct path: both are behind NATs that give each destination another port: only a relay works; forwarding UDP port 48271 on one router would fix it"
	if p := n.Network().Peer(peer); p == nil || p.Path != "relayed" || p.Why != why {
		return fmt.Errorf("%s says of %s: %+v", n.Name, peer, p)
	}
	return nil
}

// told checks that n knows the port of the peer at its router's address.
func told(n *lab.Node, peer string, router netip.Addr) error {
	var all struct {
		Members []struct {
			Name      string
			Endpoints []netip.AddrPort
		}
	}
	n.JSON(&all, "members")
	for _, m := range all.Members {
		if m.Name == peer && slices.Contains(m.Endpoints, netip.AddrPortFrom(router, 48271)) {
			return nil
		}
	}
	return fmt.Errorf("%s knows no port at %s: %+v", n.Name, router, all.Members)
}

// hopeless checks that status and doctor say that there can be no path, and what to do.
func hopeless(n *lab.Node, peer string) error {
	fix := fmt.Sprintf(oneThing, peer)
	if p := n.Network().Peer(peer); p == nil || p.Path != "none" || p.Why != noPath+"; "+fix {
		return fmt.Errorf("%s says of %s: %+v", n.Name, peer, p)
	}
	for _, f := range findings(n, "peer") {
		if f.State == "bad" && f.Text == fmt.Sprintf("home: %s cannot be reached: %s", peer, noPath) && f.Remedy == fix {
			return nil
		}
	}
	return fmt.Errorf("the doctor of %s says: %+v", n.Name, findings(n, "peer"))
}

// spoken checks that the doctor finds no peer unreachable any more.
func spoken(n *lab.Node, peer string) error {
	for _, f := range findings(n, "peer") {
		if f.State == "bad" {
			return fmt.Errorf("the doctor of %s says although %s answers: %+v", n.Name, peer, f)
		}
	}
	return nil
}

// finding is one of `warren doctor --json`.
type finding struct{ Name, State, Text, Remedy string }

// findings returns those of a name.
func findings(n *lab.Node, name string) []finding {
	var d struct{ Findings []finding }
	n.JSON(&d, "doctor")
	return slices.DeleteFunc(d.Findings, func(f finding) bool { return f.Name != name })
}
