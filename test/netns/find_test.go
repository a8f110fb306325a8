//go:build linux

package netns

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/test/netns/lab"
)

const (
	beaconLimit = 3 * time.Second  // to join by beacon
	findTarget  = 10 * time.Second // from the command to the first ping, by a code without hints through two NATs: the median
	findLimit   = 60 * time.Second // the same, each time
	wakeLimit   = 2 * time.Second  // to be back after a restart, by saved addresses
	lostLimit   = 2 * time.Minute  // for members that lost each other to find each other by the DHT
)

// away is an internet on which there is nothing but a DHT, and homes behind routers that let in what answers, nothing else.
// All of it is IPv4.
//
//	a 10.1.0.2 --- 10.1.0.1 gate-a 46.1.0.2 ---+
//	b 10.2.0.2 --- 10.2.0.1 gate-b 46.2.0.2 ---+--- core, with the DHT: 45.1.7.1, 45.2.7.1, ...
//	...                                        +
type away struct {
	*lab.Lab
	t     *testing.T
	core  *lab.Host
	swarm *lab.Swarm
	nodes []*lab.Node
	gates []*lab.Port // of the routers, outside
	at    []int       // the last byte of their addresses
	many  int         // so many nodes of the DHT store an item that is stored well: 12 are asked to, some of which may lie
}

// newAway makes the internet with that many homes, in each a host whose daemon runs. So many of the DHT's nodes lie.
func newAway(t *testing.T, homes, liars int) *away {
	t.Helper()
	w := &away{Lab: lab.New(t), t: t, many: 8}
	if liars > 0 {
		w.many = 3
	}
	w.core = w.Router("core")
	w.swarm = w.core.StartSwarm(liars)
	t.Cleanup(w.showDHT)
	for range homes {
		w.add()
	}
	return w
}

// add makes one more home.
func (w *away) add() *lab.Node {
	w.t.Helper()
	i := len(w.nodes) + 1
	name := string(rune('a' + i - 1))
	home, street := w.Switch("lan-"+name), w.Switch("street-"+name)
	gate := w.Router("gate-" + name)
	gate.Plug(home, fmt.Sprintf("10.%d.0.1/24", i))
	out := gate.Plug(street)
	w.core.Plug(street, fmt.Sprintf("46.%d.0.1/24", i))
	w.gates, w.at = append(w.gates, out), append(w.at, 1)
	w.move(i - 1)
	gate.NFT(fmt.Sprintf(`table ip gate {
 chain post { type nat hook postrouting priority srcnat; oifname %[1]q masquerade; }
 chain in { type filter hook input priority filter; iifname %[1]q ct state new meta l4proto { tcp, udp } drop; }
 chain pass { type filter hook forward priority filter; iifname %[1]q ct state new drop; }
}
`, out.Dev))
	h := w.Host(name)
	h.Plug(home, fmt.Sprintf("10.%d.0.2/24", i))
	h.IP("route", "add", "default", "via", fmt.Sprintf("10.%d.0.1", i))
	n := h.NewNode()
	n.Configure(w.config())
	n.Up()
	w.nodes = append(w.nodes, n)
	return n
}

func (w *away) config() string {
	return fmt.Sprintf("[daemon]\nlog_level = \"debug\"\nport_mapping = false\ndht_bootstrap = %q\n", w.swarm.Bootstrap())
}

// outside is the public address of a home now.
func (w *away) outside(home int) netip.Addr {
	return netip.AddrFrom4([4]byte{46, byte(home + 1), 0, byte(w.at[home])})
}

// move gives a home another public address, as providers do at night: what others know of it is wrong from now on.
func (w *away) move(home int) {
	w.t.Helper()
	p := w.gates[home]
	p.Host.IP("addr", "flush", "dev", p.Dev)
	w.at[home]++
	p.Add(w.outside(home).String() + "/24")
	p.Host.IP("route", "replace", "default", "via", fmt.Sprintf("46.%d.0.1", home+1))
}

// withHints returns the code with these hints instead of its own.
func withHints(t *testing.T, code string, hints ...netip.AddrPort) string {
	t.Helper()
	c, err := wire.ParseCode(code)
	if err != nil {
		t.Fatal(err)
	}
	c.Hints = hints
	return c.Text()
}

// join joins b by a code of a without its hints; it returns the time from the command to b's first ping of a.
func (w *away) join(a, b *lab.Node, code string) time.Duration {
	w.t.Helper()
	start := time.Now()
	b.Do("join", withHints(w.t, code))
	joined := time.Since(start)
	lab.Eventually(w.t, findLimit, func() error { return b.Ping(a.Addr4()) })
	took := time.Since(start)
	w.t.Logf("%s joined after %s, first ping of %s after %s", b.Name, joined.Round(time.Millisecond), a.Name, took.Round(time.Millisecond))
	return took
}

// written lists the targets of the items that a home has written, with the number of nodes that store its last value.
func (w *away) written(home int) map[string]int {
	type value struct {
		target string
		seq    int64
	}
	last, nodes := map[string]int64{}, map[value]int{}
	for _, e := range w.swarm.Events() {
		at, err := netip.ParseAddrPort(e.From)
		switch {
		case e.What == "put" && err == nil && at.Addr() == w.outside(home):
			last[string(e.Target)] = e.Seq
		case e.What == "stored":
			nodes[value{string(e.Target), e.Seq}]++
		}
	}
	out := map[string]int{}
	for target, seq := range last {
		out[target] = nodes[value{target, seq}]
	}
	return out
}

// stored waits until a home has stored n more items than it had before, each well.
func (w *away) stored(home, n int, before map[string]int) {
	w.t.Helper()
	lab.Eventually(w.t, lostLimit, func() error {
		more := 0
		for target, nodes := range w.written(home) {
			if before[target] == 0 && nodes >= w.many {
				more++
			}
		}
		if more < n {
			return fmt.Errorf("%s has stored %d items, want %d", w.nodes[home].Name, more, n)
		}
		return nil
	})
}

// create founds a network at a home and returns its first code, once that is in the DHT.
func (w *away) create(home int) (code string) {
	w.t.Helper()
	before := w.written(home)
	var reply struct{ Invite struct{ Code string } }
	w.nodes[home].JSON(&reply, "create", "home")
	w.stored(home, 1, before)
	return reply.Invite.Code
}

// invite makes a code at a home and returns it once it is in the DHT.
func (w *away) invite(home int) (code string) {
	w.t.Helper()
	before := w.written(home)
	code = w.nodes[home].Invite()
	w.stored(home, 1, before)
	return code
}

// showDHT prints who wrote what, when the test fails.
func (w *away) showDHT() {
	if !w.t.Failed() {
		return
	}
	type what struct {
		what, from, target, value string
		seq                       int64
	}
	var order []what
	nodes := map[what]int{}
	for _, e := range w.swarm.Events() {
		k := what{e.What, e.From, fmt.Sprintf("%.4x", e.Target), fmt.Sprintf("%.4x", e.Value), e.Seq}
		if nodes[k] == 0 {
			order = append(order, k)
		}
		nodes[k]++
	}
	for _, k := range order {
		w.t.Logf("DHT: %d nodes: %+v", nodes[k], k)
	}
}

// idOf returns the id of a node in its only network.
func idOf(t *testing.T, n *lab.Node) []byte {
	t.Helper()
	var status struct {
		Networks []struct {
			Self struct {
				ID string `json:"id"`
			} `json:"self"`
		} `json:"networks"`
	}
	n.JSON(&status, "status")
	id, err := hex.DecodeString(status.Networks[0].Self.ID)
	if err != nil || len(id) != 32 {
		t.Fatalf("%s has the id %q", n.Name, status.Networks[0].Self.ID)
	}
	return id
}

// Three times two homes behind NATs, and a code that names no address: they find each other by the DHT alone. What its nodes
// hold says nothing: it names nobody, and no two items have anything in common.
//
// spec/70-discover.md#derivations spec/70-discover.md#value
func TestJoinByTheDHT(t *testing.T) {
	long(t)
	t.Parallel()
	w := newAway(t, 6, 0)
	var took []time.Duration
	for i := 0; i < len(w.nodes); i += 2 {
		code := w.create(i)
		took = append(took, w.join(w.nodes[i], w.nodes[i+1], code))
	}
	w.judge(took)
	for i := range w.nodes {
		w.stored(i, 4, nil) // the slots of the networks
	}

	marks := map[string][]byte{"the name of the network": []byte("home"), "the program": []byte("warren")}
	for i, n := range w.nodes {
		id := idOf(t, n)
		at := w.outside(i).As4()
		port := n.Status().Port
		marks["the short id of "+n.Name] = id[:8]
		marks["the address of "+n.Name] = append(at[:], byte(port>>8), byte(port))
		marks["the inner address of "+n.Name] = []byte{10, byte(i + 1), 0, 2, byte(port >> 8), byte(port)}
		marks["the address of "+n.Name+" as text"] = []byte(w.outside(i).String())
	}
	seen := map[string]string{} // every 8 bytes of what is held, and where
	kept := 0
	for _, e := range w.swarm.Events() {
		if e.What != "stored" {
			continue
		}
		whole := slices.Concat(e.Target, e.Key, e.Salt, e.Value)
		if len(e.Value) != 900 || len(e.Salt) != 0 {
			t.Errorf("an item of %d bytes with a salt of %d is stored, want 900 and none", len(e.Value), len(e.Salt))
		}
		for what, mark := range marks {
			if bytes.Contains(whole, mark) {
				t.Errorf("the DHT holds %s in the clear", what)
			}
		}
		for part, where := range parts(e) {
			if other, ok := seen[part]; ok && other != where {
				t.Errorf("two items share the bytes %x", part)
			} else if !ok {
				kept++
			}
			seen[part] = where
		}
	}
	t.Logf("%d pieces of items compared", kept)
}

// A code is typed the moment it is made: both write the slot at once, and neither must be lost.
//
// spec/70-discover.md#merging
func TestJoinByTheDHTAtOnce(t *testing.T) {
	t.Parallel()
	w := newAway(t, 6, 0)
	var took []time.Duration
	for i := 0; i < len(w.nodes); i += 2 {
		w.nodes[i].Do("create", "home")
		took = append(took, w.join(w.nodes[i], w.nodes[i+1], w.nodes[i].Invite()))
	}
	w.judge(took)
}

// judge checks how long joins took.
func (w *away) judge(took []time.Duration) {
	w.t.Helper()
	slices.Sort(took)
	median := took[len(took)/2]
	w.t.Logf("the median is %s", median.Round(time.Millisecond))
	if median > findTarget {
		w.t.Errorf("the median is %s, want at most %s", median, findTarget)
	}
}

// parts cuts an item into all its pieces of 8 bytes, and names the item of each: key and target return with each new value of the
// same slot, the value returns on other nodes.
func parts(e lab.SwarmEvent) map[string]string {
	out := map[string]string{}
	for _, b := range []struct{ bytes, of []byte }{{e.Target, e.Key}, {e.Key, e.Key}, {e.Value, slices.Concat(e.Key, e.Value)}} {
		for i := range len(b.bytes) - 7 {
			out[string(b.bytes[i:i+8])] = string(b.of)
		}
	}
	return out
}

// A third of the DHT's nodes lie: false values, old values, huge sequence numbers, false addresses, broken datagrams, silence.
//
// spec/70-discover.md#what-a-storing-node-can-do
func TestJoinByAHostileDHT(t *testing.T) {
	long(t)
	t.Parallel()
	w := newAway(t, 2, 20)
	a, b := w.nodes[0], w.nodes[1]
	w.join(a, b, w.create(0))
	asked := map[int]bool{}
	for _, e := range w.swarm.Events() {
		if e.Lies {
			asked[e.Node] = true
		}
	}
	t.Logf("liars asked: %v", asked)
	if len(asked) == 0 {
		t.Error("no liar was asked: the test shows nothing")
	}
	for _, n := range w.nodes {
		if log := n.Log(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
			t.Errorf("the log of %s shows an error", n.Name)
		}
	}
}

// A DHT that refuses items: by dht = "full" two homes behind NATs join all the same, under announced addresses. Without it they find
// nobody, and nothing is announced.
//
// spec/70-discover.md#peers
func TestJoinWhereItemsAreRefused(t *testing.T) {
	long(t)
	t.Parallel()
	w := newAway(t, 2, 0)
	w.swarm.Age()
	a, b := w.nodes[0], w.nodes[1]
	var reply struct{ Invite struct{ Code string } }
	a.JSON(&reply, "create", "home")
	announced := func() (n int) {
		for _, e := range w.swarm.Events() {
			if e.What == "announced" {
				n++
			}
		}
		return n
	}
	lab.Always(t, 20*time.Second, func() error {
		if n := announced(); n > 0 {
			return fmt.Errorf("%d announcements of one who was not asked to", n)
		}
		return nil
	})
	for _, n := range w.nodes {
		n.Stop()
		n.Configure(strings.Replace(w.config(), "[daemon]\n", "[daemon]\ndht = \"full\"\n", 1))
		n.Up()
	}
	w.join(a, b, reply.Invite.Code)
	if announced() == 0 {
		t.Error("nothing was announced: the test shows nothing")
	}
}

// linked checks that a node has a direct path to another.
func linked(n *lab.Node, peer string) error {
	if way := n.Network().Way(peer); way != "direct" {
		return fmt.Errorf("%s reaches %s: %s", n.Name, peer, way)
	}
	return nil
}

// Two members behind NATs restart with nobody there to ask: saved addresses do. Then the DHT is there again, but has forgotten
// all, and both homes get other addresses at once: the members write the slots anew and find each other.
//
// spec/70-discover.md#waiting-to-be-found
func TestMembersFindEachOtherAgain(t *testing.T) {
	long(t)
	t.Parallel()
	w := newAway(t, 2, 0)
	a, b := w.nodes[0], w.nodes[1]
	w.join(a, b, w.create(0))
	lab.Eventually(t, newsLimit, func() error { return errors.Join(linked(a, "b"), linked(b, "a")) })
	to := a.Addr4()

	w.swarm.Stop()
	for i := range 3 {
		a.Stop()
		b.Stop()
		a.Up()
		start := time.Now()
		b.Up()
		up := time.Since(start)
		lab.Eventually(t, findLimit, func() error { return b.Ping(to) })
		took := time.Since(start)
		t.Logf("restart %d: b answers after %s, reaches a after %s", i, up.Round(time.Millisecond), took.Round(time.Millisecond))
		if took > wakeLimit {
			t.Errorf("back after %s, want at most %s", took, wakeLimit)
		}
	}

	w.swarm.Start()
	w.move(0)
	w.move(1)
	took := lab.Eventually(t, lostLimit, func() error { return b.Ping(to) })
	t.Logf("both moved, and an empty DHT: found again after %s", took.Round(time.Millisecond))
	w.join(a, w.add(), w.invite(0))
}

// Who was removed does not find the network any more, once it has moved: nothing is written where he can look.
//
// spec/70-discover.md#discovery-key
func TestTheRemovedFindsNobody(t *testing.T) {
	long(t)
	t.Parallel()
	w := newAway(t, 3, 0)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.join(a, b, w.create(0))
	w.join(a, c, w.invite(0))
	lab.Eventually(t, findLimit, func() error { return errors.Join(linked(a, "c"), linked(c, "a"), linked(b, "a"), linked(b, "c")) })
	w.stored(0, 2+4, nil) // two invites, four slots
	w.stored(2, 4, nil)
	b.Kill() // and so he is not told
	old := w.written(0)
	a.Do("revoke", "b")
	lab.Eventually(t, newsLimit, func() error { return errors.Join(knows(a, "c"), knows(c, "a")) })
	w.stored(0, 4, old)
	w.stored(2, 4, old)
	all := map[string]bool{}
	began := len(w.swarm.Events())
	w.move(0)
	w.move(2)
	took := lab.Eventually(t, lostLimit, func() error { return a.Ping(c.Addr4()) })
	t.Logf("a and c moved at once and found each other again after %s", took.Round(time.Millisecond))

	b.Up()
	lab.Always(t, 45*time.Second, func() error {
		if b.Ping(a.Addr4()) == nil || b.Ping(c.Addr4()) == nil {
			return errors.New("the removed member reaches the network")
		}
		return nil
	})
	looked := 0
	for n, e := range w.swarm.Events() {
		at, err := netip.ParseAddrPort(e.From)
		removed := err == nil && at.Addr() == w.outside(1)
		switch _, known := old[string(e.Target)]; {
		case e.What == "put" && !removed && !known:
			all[string(e.Target)] = true
		case e.What == "put" && !removed && n >= began:
			t.Errorf("%s writes where the removed member looks", e.From)
		case e.What == "get" && removed && n >= began:
			looked++
			if all[string(e.Target)] {
				t.Error("the removed member looks where the network is now")
			}
		}
	}
	if looked == 0 {
		t.Error("the removed member has not looked for the network")
	}
	for _, n := range []*lab.Node{a, c} {
		if i := slices.IndexFunc(n.Network().Peers, func(p lab.Peer) bool { return p.Name == "b" }); i >= 0 {
			t.Errorf("%s has the peer %+v", n.Name, n.Network().Peers[i])
		}
	}
}

// No internet, no server: a code whose hints lead nowhere, and two machines on one segment. The beacon finds it, over IPv4 or
// IPv6, whichever there is.
//
//	a --- [lan] --- b
//
// spec/70-discover.md#beacons
func TestJoinByBeacon(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, prefix, nobody string }{
		{"IPv4 only", "192.0.2.%d/24", "192.0.2.99:48271"},
		{"IPv6 only", "2001:db8::%d/64", "[2001:db8::99]:48271"},
		{"link-local IPv6 only", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			segment := l.Switch("lan")
			var nodes []*lab.Node
			for i, name := range []string{"a", "b", "c"} {
				h := l.Host(name)
				if tc.prefix == "" { // another link is there first: a link-local address alone does not say where it is
					h.Plug(l.Switch("elsewhere-" + name))
				}
				p := h.Plug(segment)
				if strings.Contains(tc.prefix, ".") {
					h.Sysctl("net.ipv6.conf."+p.Dev+".disable_ipv6", "1")
				}
				if tc.prefix != "" {
					p.Add(fmt.Sprintf(tc.prefix, i+1))
				}
				lab.Eventually(t, newsLimit, func() error { // the kernel makes sure that nobody else has it
					if out := h.Must("ip", "-6", "addr", "show", "tentative"); out != "" {
						return fmt.Errorf("%s has no address yet: %s", name, out)
					}
					return nil
				})
				n := h.NewNode()
				n.Configure("[daemon]\nlog_level = \"debug\"\ndht = false\nport_mapping = false\n")
				n.Up()
				nodes = append(nodes, n)
			}
			a := nodes[0]
			a.Do("create", "home")
			for _, n := range nodes[1:] {
				hints := []netip.AddrPort{}
				if tc.nobody != "" && n == nodes[2] {
					hints = append(hints, netip.MustParseAddrPort(tc.nobody))
				}
				code := withHints(t, a.Invite(), hints...)
				start := time.Now()
				n.Do("join", code)
				took := time.Since(start)
				t.Logf("%s joined with the hints %v after %s", n.Name, hints, took.Round(time.Millisecond))
				if took > beaconLimit {
					t.Errorf("joined after %s, want at most %s", took, beaconLimit)
				}
			}
			lab.AllReach(t, joinLimit, nodes)
		})
	}
}

// long skips a story that is too slow for each run.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("WARREN_LONG") == "" {
		t.Skip("takes minutes: WARREN_LONG=1 runs it")
	}
}
