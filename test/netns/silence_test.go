//go:build linux

package netns

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// idleBytes is what a minute with one idle peer may cost in the first minutes, in both directions together. Pauses become longer
// step by step; what a day costs then is shown in virtual time: TestTwoIdleMembersCostLittle of package node.
const idleBytes = 4000

// frames returns the UDP datagrams of a capture with their sender and receiver, IPv4 only, and the size of each as an IP packet.
func frames(t *testing.T, c *lab.Capture) (out []frame) {
	t.Helper()
	all, err := c.End()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		udp := lab.FindUDP(b)
		if udp == nil || b[12] != 0x08 {
			continue
		}
		port := func(i int) uint16 { return uint16(udp[i])<<8 | uint16(udp[i+1]) }
		out = append(out, frame{netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[26:30])), port(0)),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[30:34])), port(2)), udp[lab.UDPHeader:], len(udp) + 20})
	}
	return out
}

type frame struct {
	from, to netip.AddrPort
	data     []byte
	size     int
}

// leaks lists where the host with that address sent to by IP, of all it captured, other than it should: to addresses that may answers,
// to the groups of the LAN (beacons, and what the kernel itself says to its neighbours), and by IPv6 beyond the segment.
func leaks(t *testing.T, c *lab.Capture, own netip.Addr, may func(to netip.Addr) bool) map[string]int {
	t.Helper()
	all, err := c.End()
	if err != nil {
		t.Fatal(err)
	}
	out, sent := map[string]int{}, 0
	for _, b := range all {
		var from, to netip.Addr
		switch {
		case len(b) >= 34 && b[12] == 8 && b[13] == 0:
			from, to = netip.AddrFrom4([4]byte(b[26:30])), netip.AddrFrom4([4]byte(b[30:34]))
			if from != own {
				continue
			}
		case len(b) >= 54 && b[12] == 0x86 && b[13] == 0xdd:
			from, to = netip.AddrFrom16([16]byte(b[22:38])), netip.AddrFrom16([16]byte(b[38:54]))
		default: // ARP, by which the kernel asks its segment
			continue
		}
		sent++
		group := to.IsMulticast() && (to.Is6() || to.As4()[0] == 239 || to == netip.MustParseAddr("224.0.0.22"))
		if !group && !to.IsLinkLocalUnicast() && !may(to) {
			out[fmt.Sprintf("%s > %s, %d bytes", from, to, len(b))]++
		}
	}
	if sent < 100 {
		t.Errorf("%d packets of %s were captured: the test shows nothing", sent, own)
	}
	return out
}

// Two members on the internet, the DHT there, their slots written, nobody says anything: nor do they, but for keeping the path.
// Only the one whose turn it is may look into one slot for who waits. Strangers get no answer at all. And from the first moment on nothing
// goes to anybody but the other member, the LAN's groups, the router, and the nodes of the DHT that was given.
//
//	core, with the DHT --- [street] --- a 46.90.0.2, b .3, a stranger .9
//
// spec/70-discover.md#publishers spec/51-path.md#idle-budget
func TestSilence(t *testing.T) {
	t.Parallel()
	w := &away{Lab: lab.New(t), t: t}
	w.core = w.Router("core")
	w.swarm = w.core.StartSwarm(0)
	t.Cleanup(w.showDHT)
	street := w.Switch("street")
	w.core.Plug(street, "46.90.0.1/24")
	addrs := map[string]netip.Addr{}
	plug := func(name string, last int) *lab.Host {
		h := w.Host(name)
		addrs[name] = netip.AddrFrom4([4]byte{46, 90, 0, byte(last)})
		h.Plug(street, addrs[name].String()+"/24")
		h.IP("route", "add", "default", "via", "46.90.0.1")
		return h
	}
	whole := map[string]*lab.Capture{}
	for i, name := range []string{"a", "b"} {
		h := plug(name, i+2)
		whole[name] = h.Capture("eth0")
		n := h.NewNode()
		n.Configure(strings.Replace(w.config(), "port_mapping = false", "port_mapping = true", 1)) // so that the router is asked too
		n.Up()
		w.nodes = append(w.nodes, n)
	}
	stranger := plug("x", 9)
	a, b := w.nodes[0], w.nodes[1]
	var reply struct{ Invite struct{ Code string } }
	a.JSON(&reply, "create", "home")
	b.Do("join", reply.Invite.Code) // and no code is open, which would be looked after in the DHT
	lab.AllReach(t, joinLimit, w.nodes)
	strangersGetNoAnswer(t, a, stranger, netip.AddrPortFrom(addrs["a"], uint16(a.Status().Port)))

	lab.Eventually(t, lostLimit, func() error { // the slots are written
		puts := map[string]int{}
		for _, e := range w.swarm.Events() {
			if e.What == "put" {
				puts[e.From+string(e.Target)]++
			}
		}
		if len(puts) < 2*4 {
			return fmt.Errorf("%d slots are written", len(puts))
		}
		return nil
	})
	for name, c := range whole {
		strange := leaks(t, c, addrs[name], func(to netip.Addr) bool {
			node := to.Is4() && to.As4()[0] == 45 && to.As4()[1] <= lab.SwarmNodes && to.As4()[2] == 7 && to.As4()[3] == 1
			router := to == netip.MustParseAddr("46.90.0.1")
			return node || router || to == addrs["a"] || to == addrs["b"]
		})
		if len(strange) > 0 {
			t.Errorf("%s sent to addresses that it was never given: %v", name, strange)
		}
	}
	lab.Always(t, 10*time.Second, func() error { return nil }) // lookups end
	wire := b.Capture("eth0")
	wireA := a.Capture("eth0")
	const idle = time.Minute
	lab.Always(t, idle, func() error { return nil })
	asked := map[netip.Addr]int{}
	size, count, large := 0, 0, 0
	kinds := map[string]int{}
	for _, f := range frames(t, wire) {
		if len(f.data) > 1000 {
			large++
		}
		switch {
		case len(f.data) > 0 && f.data[0] == 'd' && f.from.Addr() == addrs["b"]:
			asked[addrs["b"]]++
		case f.from.Addr() == addrs["a"] && f.to.Addr() == addrs["b"], f.from.Addr() == addrs["b"] && f.to.Addr() == addrs["a"]:
			size, count = size+f.size, count+1
			kinds[fmt.Sprintf("%s > %s: %d, %d bytes", f.from, f.to, f.data[:min(1, len(f.data))], len(f.data))]++
		}
	}
	for _, f := range frames(t, wireA) {
		if len(f.data) > 0 && f.data[0] == 'd' && f.from.Addr() == addrs["a"] {
			asked[addrs["a"]]++
		}
	}
	t.Logf("in a minute: %d datagrams, %d bytes between a and b; %d large; datagrams to the DHT: %v", count, size, large, asked)
	if len(asked) > 1 {
		t.Errorf("both ask the DHT: %v", asked)
	}
	for who, n := range asked {
		if n > 20 {
			t.Errorf("%s sent %d datagrams to the DHT, want one lookup at most", who, n)
		}
	}
	if size > idleBytes {
		t.Errorf("an idle peer costs %d bytes a minute, want at most %d: %v", size, idleBytes, kinds)
	}
}

// strangersGetNoAnswer probes a node's port with what scanners and the curious send.
func strangersGetNoAnswer(t *testing.T, n *lab.Node, x *lab.Host, at netip.AddrPort) {
	t.Helper()
	random := func(first byte, size int) []byte {
		b := make([]byte, size)
		rand.Read(b)
		if size > 0 {
			b[0] = first
		}
		return b
	}
	probes := [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), []byte("M-SEARCH * HTTP/1.1\r\n\r\n"), []byte("\x16\x03\x01\x00\x05hello"),
		[]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"),
		[]byte("d1:ad2:id20:abcdefghij01234567896:target20:abcdefghij0123456789e1:q3:get1:t2:aa1:y1:qe"),
		[]byte("\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"), {}, {0},
	}
	for first := range 256 {
		for _, size := range []int{1, 32, 64, 148, 1200} {
			probes = append(probes, random(byte(first), size))
		}
	}
	for kind, size := range map[byte]int{1: 148, 2: 92, 3: 64, 4: 96} { // messages of WireGuard
		p := random(kind, size)
		copy(p[1:4], []byte{0, 0, 0})
		probes = append(probes, p)
	}
	var status struct {
		Networks []struct {
			Self struct {
				PublicKey string `json:"public_key"`
			} `json:"self"`
		} `json:"networks"`
	}
	n.JSON(&status, "status")
	theirs := status.Networks[0].Self.PublicKey
	if theirs == "" {
		t.Fatalf("%s does not tell its key", n.Name)
	}
	wire := x.Capture("eth0")
	for i, key := range []string{theirs, text(newKey(t).PublicKey().Bytes())} { // who knows the key, and who does not
		p := startPeer(t, x, fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\nAddress = 10.9.%d.1/24\n"+
			"[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = 10.9.%d.2/32\nPersistentKeepalive = 1\n",
			text(newKey(t).Bytes()), 51820+i, i, key, at, i))
		x.Ping(netip.AddrFrom4([4]byte{10, 9, byte(i), 2})) //nolint:errcheck // to make it begin
		p.Stop()
	}
	if answers := x.Probe(at, probes, 2*time.Second); len(answers) > 0 {
		t.Errorf("strangers got %d answers, such as %.40x", len(answers), answers[0])
	}
	sent, initiations := 0, 0
	for _, f := range frames(t, wire) {
		switch {
		case f.from == at || f.from.Addr() == at.Addr() && f.to.Addr().IsPrivate():
			t.Errorf("%s answered %s: %.40x", n.Name, f.to, f.data)
		case f.to == at && f.from.Port() >= 51820 && f.from.Port() <= 51821 && bytes.HasPrefix(f.data, []byte{1, 0, 0, 0}):
			initiations++
		case f.to == at:
			sent++
		}
	}
	t.Logf("%d probes and %d initiations of WireGuard", sent, initiations)
	if sent < len(probes) || initiations < 2 {
		t.Errorf("%d probes and %d initiations were sent", sent, initiations)
	}
}
