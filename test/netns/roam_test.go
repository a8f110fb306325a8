//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// b changes its addresses, as a laptop does that leaves one network for another, under a TCP transfer and a stream in each
// direction. The connection lives on.
func TestRoaming(t *testing.T) {
	l := newMesh(t, 3)
	a, b := l.nodes[0], l.nodes[1]
	file := b.StartSend(a.Host, a.Addr4(), 10<<20, 16<<20) // five seconds
	out, in := b.StartStream(a.Host, a.Addr4()), a.StartStream(b.Host, b.Addr4())
	lab.Always(t, time.Second, func() error { return a.Ping(b.Addr4()) })

	port := l.ports[1]
	port.Del("192.0.2.2/24")
	port.Del("2001:db8::2/64")
	port.Add("192.0.2.77/24")
	port.Add("2001:db8::77/64")

	lab.AllReach(t, healLimit, l.nodes)
	file.Wait(time.Minute)
	for name, s := range map[string]*lab.Stream{"b to a": out, "a to b": in} {
		if flow := s.End(); flow.Longest() > 5*time.Second {
			t.Errorf("the stream from %s was silent for %s, want at most 5s", name, flow.Longest())
		} else {
			t.Logf("the stream from %s was silent for %s", name, flow.Longest().Round(time.Millisecond))
		}
	}
	lab.Eventually(t, newsLimit, func() error {
		if e := a.Network().Peer("b").Endpoint; !strings.HasPrefix(e, "192.0.2.77:") && !strings.HasPrefix(e, "[2001:db8::77]:") {
			return fmt.Errorf("a reaches b at %s, want its new address", e)
		}
		return nil
	})
}

// The plug of b is out for a while. Nothing needs to be done when it is back.
func TestPlugOut(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	l.ports[1].Down()
	lab.Eventually(t, 5*time.Second, func() error {
		if a.Ping(b.Addr4()) == nil {
			return errors.New("a reaches b, whose plug is out")
		}
		return nil
	})
	l.ports[1].Up()
	l.ports[1].Add("2001:db8::2/64")
	lab.AllReach(t, healLimit, l.nodes)
}

// roamLimit is the longest silence between two members, from the moment when there is a network again.
const roamLimit = time.Second

// flows are a stream of UDP each way between two members, and perhaps a TCP connection that talks.
type flows struct {
	t    *testing.T
	a, b *lab.Node
	udp  []*lab.Stream
	tcp  []*lab.Talk
}

// startFlows starts the traffic, with IPv4 inside, and lets it settle.
func startFlows(t *testing.T, a, b *lab.Node, tcp bool) flows {
	t.Helper()
	f := flows{t: t, a: a, b: b}
	for _, p := range [][2]*lab.Node{{a, b}, {b, a}} {
		f.udp = append(f.udp, p[0].StartStream(p[1].Host, p[1].Addr4()))
		if tcp {
			f.tcp = append(f.tcp, p[0].StartTalk(p[1].Host, p[1].Addr4(), p[0].Name, lab.Pace{}))
		}
	}
	lab.Always(t, 3*time.Second, func() error { return nil })
	return f
}

// end waits until the two reach each other, and two seconds more, and checks how long it was silent after since. TCP may take twice as
// long, for it waits longer and longer before it tries again.
func (f flows) end(since time.Time, limit time.Duration, what string) {
	f.t.Helper()
	addr := f.b.Addr4()
	lab.Eventually(f.t, healLimit, func() error { return f.a.Ping(addr) })
	lab.Always(f.t, 2*time.Second, func() error { return nil })
	after := func(g lab.Flow) (d time.Duration) {
		for _, gap := range g.Gaps {
			if gap.To.After(since) && gap.To.Before(g.Last.Add(time.Millisecond)) {
				d = max(d, gap.To.Sub(since))
			}
		}
		return d
	}
	names := []string{f.a.Name + " to " + f.b.Name, f.b.Name + " to " + f.a.Name}
	for i, name := range names {
		flow := f.udp[i].End()
		d := after(flow)
		f.t.Logf("%s: %s: UDP again after %s (silent for %s, %d of %d lost)", what, name, d.Round(time.Millisecond),
			flow.Longest().Round(time.Millisecond), flow.Sent-flow.Count, flow.Sent)
		if d > limit || flow.Count == 0 {
			f.t.Errorf("%s: %s: UDP again after %s, want %s at most", what, name, d, limit)
		}
	}
	for i, talk := range f.tcp {
		flow := talk.End()
		d := after(flow)
		f.t.Logf("%s: %s: TCP again after %s (silent for %s)", what, names[i], d.Round(time.Millisecond), flow.Longest().Round(time.Millisecond))
		if flow.Broken != "" {
			f.t.Errorf("%s: the TCP connection broke: %s", what, flow.Broken)
		}
		if d > 2*limit {
			f.t.Errorf("%s: %s: TCP again after %s, want %s at most", what, names[i], d, 2*limit)
		}
	}
}

// newTravellers makes a public member a, a public member r that can relay, and b behind a NAT, with direct paths.
//
//	a   r
//	|   |
//	+-[internet]-+-[NAT home]- b
//	             +-[NAT cafe]
func newTravellers(t *testing.T) (a, b *lab.Node, home, cafe *lab.Site) {
	t.Helper()
	i := lab.New(t).Internet()
	home, cafe = i.SiteBehind("home", lab.NAT{Kind: lab.PortRestricted}), i.SiteBehind("cafe", lab.NAT{Kind: lab.PortRestricted})
	nodes := []*lab.Node{i.Public("a").NewNode(), i.Public("r").NewNode(), home.Add("b").NewNode()}
	for _, n := range nodes {
		n.Up()
	}
	nodes[0].Do("create", "home")
	for _, n := range nodes[1:] {
		n.Do("join", nodes[0].Invite())
	}
	lab.AllReach(t, joinLimit, nodes)
	lab.Eventually(t, newsLimit, func() error { return way(nodes[0], nodes[2], "direct") })
	return nodes[0], nodes[2], home, cafe
}

// warm waits until a relayed way from a to b answers beside the direct one.
func warm(t *testing.T, a, b *lab.Node) {
	t.Helper()
	lab.Eventually(t, 30*time.Second, func() error {
		ways := a.Route(b.Name).Ways
		for _, w := range ways {
			if w.Path == "relayed" && w.State == "alive" {
				return nil
			}
		}
		return fmt.Errorf("a$ warren route b: %+v, want a relayed way that is alive", ways)
	})
}

// b is carried from home to a cafe: another network, another NAT. A way over r is known and answers.
func TestRoamingToAnotherNetwork(t *testing.T) {
	t.Parallel()
	a, b, _, cafe := newTravellers(t)
	f := startFlows(t, a, b, true)
	warm(t, a, b)
	b.IP("link", "set", "eth0", "down")
	cafe.Enter(b.Host)
	f.end(time.Now(), roamLimit, "b in another network")
}

// The NAT of b is restarted: it knows no connection any more, and gives b another port. Nothing on b has changed.
func TestNATRebinding(t *testing.T) {
	t.Parallel()
	a, b, home, _ := newTravellers(t)
	f := startFlows(t, a, b, true)
	home.Rebind(20000, 29999)
	f.end(time.Now(), roamLimit, "another port at the NAT")
	if e := a.Network().Peer("b").Endpoint; !strings.Contains(e, ":2") {
		t.Errorf("a reaches b at %s, want the new port", e)
	}
	only := a.StartStream(b.Host, b.Addr4()) // b says nothing of its own
	lab.Always(t, 15*time.Second, func() error { return nil })
	home.Rebind(30000, 39999)
	lab.Always(t, 5*time.Second, func() error { return nil })
	if e := a.Network().Peer("b").Endpoint; !strings.Contains(e, ":3") {
		t.Errorf("a reaches b at %s, want the newest port", e)
	}
	flow := only.End()
	t.Logf("a alone sends: silent for %s", flow.Longest())
	if flow.Longest() > 2*roamLimit {
		t.Errorf("a alone sends: silent for %s, want %s at most", flow.Longest(), 2*roamLimit)
	}
}

// IPv6 comes to the network of b, and IPv4 goes.
func TestIPv6Comes(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	a, b := l.nodes[0], l.nodes[1]
	b.IP("-6", "addr", "flush", "dev", "eth0")
	a.Do("create", "home")
	for _, n := range l.nodes[1:] {
		n.Do("join", a.Invite())
	}
	lab.AllReach(t, joinLimit, l.nodes)
	f := startFlows(t, a, b, true)
	l.ports[1].Add("2001:db8::2/64")
	l.ports[1].Del("192.0.2.2/24")
	f.end(time.Now(), roamLimit, "IPv6 instead of IPv4")
	if e := a.Network().Peer("b").Endpoint; !strings.HasPrefix(e, "[2001:db8::2]:") {
		t.Errorf("a reaches b at %s, want its IPv6 address", e)
	}
}

// The daemon of b sleeps under traffic, for a while, and for so long that the keys of its sessions are too old.
func TestSleepAndWake(t *testing.T) {
	t.Parallel()
	times := []time.Duration{40 * time.Second}
	if os.Getenv("WARREN_LONG") != "" { // each takes its time
		times = append(times, 170*time.Second, 200*time.Second, 400*time.Second)
	}
	for _, d := range times {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			a, b, _, _ := newTravellers(t)
			f := startFlows(t, a, b, false) // UDP alone: a TCP that was not answered for so long tries again once in 10 to 30 s
			b.Freeze()
			lab.Always(t, d, func() error { return nil })
			b.Thaw()
			f.end(time.Now(), 2*roamLimit, "asleep for "+d.String())
		})
	}
}
