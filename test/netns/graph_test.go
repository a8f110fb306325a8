//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

const (
	meshLimit = 30 * time.Second // for all pairs to reach each other over relays after the last join
	gapLimit  = 4 * time.Second  // of silence for those who talk when a relay or a link on their way fails
)

// graph is a topology in which hosts reach only those on a segment with them: nobody forwards, nobody has a default route.
// Segment number s, from 1, has 198.18.s.0/24 and 2001:db8:s::/64; host number h, from 1 in the order of naming, is .h and ::h
// in all of its own.
type graph struct {
	*lab.Lab
	t        *testing.T
	nodes    []*lab.Node // in the order of naming
	segments []*segment
	parent   map[*lab.Node]*lab.Node // by whose code it joined
	admin    map[*lab.Node]bool      // may invite
}

// segment is what some hosts share.
type segment struct {
	nodes []*lab.Node
	ports []*lab.Port // of each
	addrs [][]string  // of each: IPv4, IPv6, with the length of the prefix
	wire  *lab.Wire   // nil: it is a switch
}

// addr4 is the IPv4 address of n in the segment.
func (s *segment) addr4(n *lab.Node) netip.Addr {
	return netip.MustParsePrefix(s.addrs[slices.Index(s.nodes, n)][0]).Addr()
}

// newGraph makes the hosts of the segments and starts a daemon on each. "a-b", "b-c-d" are switches, "a=b" is a wire.
func newGraph(t *testing.T, segments ...string) *graph {
	t.Helper()
	g := &graph{Lab: lab.New(t), t: t, parent: map[*lab.Node]*lab.Node{}, admin: map[*lab.Node]bool{}}
	for number, text := range segments {
		s := &segment{}
		for _, name := range strings.FieldsFunc(text, func(r rune) bool { return r == '-' || r == '=' }) {
			n := g.find(name)
			if n == nil {
				h := g.Host(name)
				h.Sysctl("net.ipv4.ip_forward", "0") // a new namespace takes it over from the machine
				n = h.NewNode()
				g.nodes = append(g.nodes, n)
			}
			h := slices.Index(g.nodes, n) + 1
			s.nodes = append(s.nodes, n)
			s.addrs = append(s.addrs, []string{fmt.Sprintf("198.18.%d.%d/24", number+1, h), fmt.Sprintf("2001:db8:%x::%x/64", number+1, h)})
		}
		if strings.Contains(text, "=") {
			s.wire = g.Wire(s.nodes[0].Host, s.nodes[1].Host)
			s.ports = []*lab.Port{s.wire.A, s.wire.B}
		} else {
			sw := g.Switch(fmt.Sprintf("s%d", number+1))
			for _, n := range s.nodes {
				s.ports = append(s.ports, n.Plug(sw))
			}
		}
		for i, p := range s.ports {
			for _, a := range s.addrs[i] {
				p.Add(a)
			}
		}
		g.segments = append(g.segments, s)
	}
	for _, n := range g.nodes {
		n.Up()
	}
	return g
}

// find looks a node up by the name of its host; nil: there is none.
func (g *graph) find(name string) *lab.Node {
	if i := slices.IndexFunc(g.nodes, func(n *lab.Node) bool { return n.Name == name }); i >= 0 {
		return g.nodes[i]
	}
	return nil
}

// named returns nodes by the names of their hosts.
func (g *graph) named(names ...string) (nodes []*lab.Node) {
	g.t.Helper()
	for _, name := range names {
		n := g.find(name)
		if n == nil {
			g.t.Fatalf("BUG: there is no host %s", name)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// between returns the first segment that both hosts are on; nil: there is none.
func (g *graph) between(a, b string) *segment {
	nodes := g.named(a, b)
	for _, s := range g.segments {
		if slices.Contains(s.nodes, nodes[0]) && slices.Contains(s.nodes, nodes[1]) {
			return s
		}
	}
	return nil
}

// unplug pulls the plug of n out of the segment.
func (s *segment) unplug(n *lab.Node) { s.ports[slices.Index(s.nodes, n)].Down() }

// plug puts it in again.
func (s *segment) plug(n *lab.Node) {
	i := slices.Index(s.nodes, n)
	s.ports[i].Up()
	s.ports[i].Add(s.addrs[i][1])
}

// found lets the first host found the network "home", and each of the others join by a code of the first one named before it
// that it can reach.
func (g *graph) found() {
	g.t.Helper()
	g.nodes[0].Do("create", "home")
	g.admin[g.nodes[0]] = true
	for i, n := range g.nodes[1:] {
		for _, by := range g.nodes[:i+1] {
			if g.between(by.Name, n.Name) != nil {
				g.join(n, by)
				break
			}
		}
	}
}

// join lets n join by a code of by, who first gets the right to make one.
func (g *graph) join(n, by *lab.Node) {
	g.t.Helper()
	if !g.admin[by] {
		g.parent[by].Do("admin", "add", by.Name, "--can", "invite,delegate")
		lab.Eventually(g.t, newsLimit, func() error {
			if r := by.Warren("invite", "--json"); r.Code != 0 {
				return fmt.Errorf("%s cannot invite: %s", by.Name, r)
			}
			return nil
		})
		g.admin[by] = true
	}
	n.Do("join", by.Invite())
	g.parent[n] = by
}

// way fails unless a reaches b as the words say: "direct", "relayed via x, y".
func way(a, b *lab.Node, want ...string) error {
	if got := a.Network().Way(b.Name); !slices.Contains(want, got) {
		return fmt.Errorf("%s reaches %s %s, want %q", a.Name, b.Name, got, want)
	}
	return nil
}

// relayOf returns the only relay by which a reaches b now.
func (g *graph) relayOf(a, b *lab.Node) (relay *lab.Node) {
	g.t.Helper()
	lab.Eventually(g.t, newsLimit, func() error {
		p := a.Network().Peer(b.Name)
		if p == nil || p.Path != "relayed" || len(p.Via) != 1 {
			return fmt.Errorf("%s reaches %s as %+v, want over one relay", a.Name, b.Name, p)
		}
		relay = g.named(p.Via[0])[0]
		return nil
	})
	return relay
}

// talkers is traffic from one node to another that shows every silence: TCP with some load, and UDP.
type talkers struct {
	t   *testing.T
	tcp *lab.Talk
	udp *lab.Stream
}

// startTalkers starts the traffic and lets it settle for a second.
func (g *graph) startTalkers(a, b *lab.Node) talkers {
	g.t.Helper()
	v4, v6 := b.Addrs()
	k := talkers{g.t, a.StartTalk(b.Host, v4, a.Name, lab.Pace{Size: 8 << 10, Every: 4 * time.Millisecond}), a.StartStream(b.Host, v6)}
	lab.Always(g.t, time.Second, func() error { return nil })
	return k
}

// end waits until a reaches b again and a second more, and checks that nothing was silent for longer than the limit.
func (k talkers) end(a, b *lab.Node, limit time.Duration, what string) {
	k.t.Helper()
	addr := b.Addr4()
	lab.Eventually(k.t, healLimit, func() error { return a.Ping(addr) })
	lab.Always(k.t, time.Second, func() error { return nil })
	tcp, udp := k.tcp.End(), k.udp.End()
	k.t.Logf("%s: TCP was silent for %s, UDP for %s (%d of %d datagrams lost)", what,
		tcp.Longest().Round(time.Millisecond), udp.Longest().Round(time.Millisecond), udp.Sent-udp.Count, udp.Sent)
	if tcp.Broken != "" {
		k.t.Errorf("%s: the TCP connection broke: %s", what, tcp.Broken)
	}
	if tcp.Longest() > limit || udp.Longest() > limit {
		k.t.Errorf("%s: TCP was silent for %s, UDP for %s, want at most %s", what, tcp.Longest(), udp.Longest(), limit)
	}
}

// logBlame tells which relays were thought to swallow datagrams. Honest ones are, now and then, when much fails at once.
func (g *graph) logBlame() {
	for _, n := range g.nodes {
		if times := strings.Count(n.Log(), "is avoided"); times > 0 {
			g.t.Logf("%s has blamed a relay %d times since it started", n.Name, times)
		}
	}
}

// mark is text that nobody else on this machine writes.
func mark() string {
	return "the badger walks by night and nobody sees it " + fmt.Sprint(time.Now().UnixNano())
}

// lastOf is the last address of an IPv4 prefix: its directed broadcast.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
