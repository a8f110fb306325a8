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
	joinLimit  = 15 * time.Second // for all pairs to reach each other after the last join
	healLimit  = 20 * time.Second // for all pairs to reach each other after a crash or a move
	tellLimit  = 2 * time.Second  // for a revocation to reach connected members
	newsLimit  = 10 * time.Second // for anything else that members tell each other
	bigFile    = 256 << 20
	mediumFile = 16 << 20
)

// lan is the usual topology: hosts on one Ethernet segment, all with a daemon that runs.
//
//	a .1    b .2    c .3   ...   192.0.2.0/24
//	|       |       |            2001:db8::/64
//	+-------+-------+--- [lan]
type lan struct {
	*lab.Lab
	t     *testing.T
	wire  *lab.Switch
	nodes []*lab.Node
	ports []*lab.Port
}

// newLAN makes hosts named a, b, c, ... and starts their daemons.
func newLAN(t *testing.T, hosts int) *lan {
	t.Helper()
	l := &lan{Lab: lab.New(t), t: t}
	l.wire = l.Switch("lan")
	for range hosts {
		l.add()
	}
	return l
}

// add makes one more host and starts its daemon.
func (l *lan) add() *lab.Node {
	l.t.Helper()
	n := len(l.nodes) + 1
	h := l.Host(string(rune('a' + n - 1)))
	l.ports = append(l.ports, h.Plug(l.wire, fmt.Sprintf("192.0.2.%d/24", n), fmt.Sprintf("2001:db8::%d/64", n)))
	node := h.NewNode()
	l.nodes = append(l.nodes, node)
	node.Up()
	return node
}

// newMesh is newLAN, with all hosts in one network "home" that a founded, all in reach of all.
func newMesh(t *testing.T, hosts int) *lan {
	t.Helper()
	l := newLAN(t, hosts)
	l.nodes[0].Do("create", "home")
	for _, n := range l.nodes[1:] {
		n.Do("join", l.nodes[0].Invite())
	}
	lab.AllReach(t, joinLimit, l.nodes)
	return l
}

// knows checks that a node's peers are exactly these.
func knows(n *lab.Node, peers ...string) error {
	got := n.Network().PeerNames()
	if slices.Sort(got); !slices.Equal(got, peers) {
		return fmt.Errorf("%s has the peers %v, want %v", n.Name, got, peers)
	}
	return nil
}

// The session of the README: nothing runs yet, create and join start the daemons, three more machines join by a code each.
func TestFourMachinesJoinByCode(t *testing.T) {
	l := lab.New(t)
	wire := l.Switch("lan")
	var nodes []*lab.Node
	for i, name := range []string{"a", "b", "c", "d"} {
		h := l.Host(name)
		h.Plug(wire, fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1))
		nodes = append(nodes, h.NewNode())
	}
	a := nodes[0]
	if out := a.Do("create", "home"); !strings.Contains(out, "warren join") {
		t.Errorf("create does not show what to type on the next machine:\n%s", out)
	}
	for _, n := range nodes[1:] {
		code := a.Invite()
		start := time.Now()
		n.Do("join", code)
		joined := time.Since(start)
		lab.Eventually(t, 5*time.Second, func() error { return n.Ping(a.Addr4()) })
		t.Logf("%s joined in %s, first ping %s after the command", n.Name, joined.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
	lab.AllReach(t, joinLimit, nodes)

	for i, n := range nodes {
		network := n.Network()
		if network.Name != "home" || network.Self.Name != n.Name || len(network.Peers) != 3 {
			t.Errorf("%s: network %q, self %q, peers %v", n.Name, network.Name, network.Self.Name, network.PeerNames())
		}
		if !slices.Contains(n.Interfaces(), "warren0") {
			t.Errorf("%s has the interfaces %v, want warren0 among them", n.Name, n.Interfaces())
		}
		lab.Eventually(t, newsLimit, func() error {
			for _, p := range n.Network().Peers {
				if p.Path != "direct" || p.RTT == nil || p.RxBytes == 0 || p.TxBytes == 0 || p.LastSeen == nil || len(p.Addresses) != 2 {
					return fmt.Errorf("%s: peer %+v", n.Name, p)
				}
				if _, err := netip.ParseAddrPort(p.Endpoint); err != nil {
					return fmt.Errorf("%s: peer %s: endpoint %q", n.Name, p.Name, p.Endpoint)
				}
			}
			return nil
		})
		to := nodes[(i+1)%len(nodes)]
		if out := n.Do("ping", to.Name, "--count", "1"); !strings.Contains(out, "direct") {
			t.Errorf("%s$ warren ping %s: %s", n.Name, to.Name, out)
		}
	}
}

// A big file over one TCP connection through the tunnel, b to c; both joined through a, which has no part in it.
func TestBigFile(t *testing.T) {
	l := newMesh(t, 3)
	b, c := l.nodes[1], l.nodes[2]
	got := b.Send(c.Host, c.Addr4(), bigFile, 2*time.Minute)
	t.Logf("256 MiB over IPv4 at %.0f Mbit/s", got.Rate())
	_, v6 := c.Addrs()
	got = b.Send(c.Host, v6, mediumFile, time.Minute)
	t.Logf("16 MiB over IPv6 at %.0f Mbit/s", got.Rate())
	if rx := c.Network().Peer("b").RxBytes; rx < bigFile+mediumFile {
		t.Errorf("c counts %d bytes from b", rx)
	}
}

// An internet without IPv4: a and b have IPv6 addresses only; inside the tunnel there are both.
func TestOnlyIPv6Outside(t *testing.T) {
	l := lab.New(t)
	wire := l.Switch("lan")
	var nodes []*lab.Node
	for i, name := range []string{"a", "b"} {
		h := l.Host(name)
		h.Plug(wire, fmt.Sprintf("2001:db8::%d/64", i+1))
		n := h.NewNode()
		n.Up()
		nodes = append(nodes, n)
	}
	nodes[0].Do("create", "home")
	nodes[1].Do("join", nodes[0].Invite())
	lab.AllReach(t, joinLimit, nodes)
}

// b moves to a network where it gets the very address that c has inside. What a sends there would enter the tunnel: the address is
// refused, and IPv6 carries on. spec/51-path.md#candidates
func TestAnAddressOutsideThatIsOnesInside(t *testing.T) {
	l := newMesh(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	dev := l.ports[1].Dev
	b.IP("address", "flush", "dev", dev, "scope", "global")
	b.IP("address", "add", fmt.Sprintf("%s/10", c.Addr4()), "dev", dev)
	b.IP("address", "add", "2001:db8::2/64", "dev", dev, "nodad")
	lab.Eventually(t, healLimit, func() error {
		if err := a.Ping(b.Addr4()); err != nil {
			return err
		}
		if p := a.Network().Peer("b"); !strings.HasPrefix(p.Endpoint, "[2001:db8::2]:") {
			return fmt.Errorf("a reaches b %s at %s", p.Path, p.Endpoint)
		}
		return nil
	})
	for _, w := range a.Route("b").Ways {
		if strings.HasPrefix(w.Endpoint, c.Addr4().String()+":") {
			t.Errorf("a tries %s, which leads into the tunnel", w.Endpoint)
		}
	}
}

// The way between a and b is narrower than Ethernet, and no router says so: what is too big vanishes.
//
//	a 192.0.2.1 --- [left] --- r (MTU 1340, silent) --- [right] --- 198.51.100.1 b
func TestNarrowPath(t *testing.T) {
	l := lab.New(t)
	left, right := l.Switch("left"), l.Switch("right")
	ha, hb, r := l.Host("a"), l.Host("b"), l.Router("r")
	ha.Plug(left, "192.0.2.1/24")
	hb.Plug(right, "198.51.100.1/24")
	for port, addr := range map[*lab.Switch]string{left: "192.0.2.254/24", right: "198.51.100.254/24"} {
		r.Plug(port, addr).MTU(1340)
	}
	r.NFT("table ip silent {\n chain out {\n type filter hook output priority 0;\n icmp type destination-unreachable drop\n }\n}\n")
	ha.IP("route", "add", "default", "via", "192.0.2.254")
	hb.IP("route", "add", "default", "via", "198.51.100.254")
	a, b := ha.NewNode(), hb.NewNode()
	a.Up()
	b.Up()
	a.Do("create", "home")
	b.Do("join", a.Invite())
	lab.AllReach(t, joinLimit, []*lab.Node{a, b})
	_, v6 := b.Addrs()
	for _, to := range []netip.Addr{b.Addr4(), v6} {
		a.Send(hb, to, mediumFile, time.Minute)
	}
	if err := a.Ping(b.Addr4()); err != nil {
		t.Error(err)
	}
}

// One daemon, two networks: a and b share home, b and c share work. b is in both; a and c know nothing of each other.
func TestTwoNetworksAtOnce(t *testing.T) {
	l := newLAN(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	a.Do("create", "home")
	c.Do("create", "work", "--pool", "10.99.0.0/16")
	b.Do("join", a.Invite())
	b.Do("join", c.Invite())
	lab.AllReach(t, joinLimit, []*lab.Node{a, b}, "home")
	lab.AllReach(t, joinLimit, []*lab.Node{b, c}, "work")

	if s := b.Status(); len(s.Networks) != 2 || s.Networks[0].Interface == s.Networks[1].Interface {
		t.Errorf("b has the networks %+v, want two with an interface each", s.Networks)
	}
	work, _ := b.Addrs("work")
	if !netip.MustParsePrefix("10.99.0.0/16").Contains(work) {
		t.Errorf("b has the address %s in work, want one of its pool", work)
	}
	cWork, cWork6 := c.Addrs("work")
	for _, addr := range []netip.Addr{cWork, cWork6} {
		if a.Ping(addr) == nil {
			t.Errorf("a reaches %s, which is in a network that a is not in", addr)
		}
	}
	b.Do("leave", "home", "--yes")
	if s := b.Status(); len(s.Networks) != 1 || s.Networks[0].Name != "work" {
		t.Errorf("b has the networks %+v after it left home", s.Networks)
	}
	lab.AllReach(t, newsLimit, []*lab.Node{b, c}, "work")
}
