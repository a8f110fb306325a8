//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

const (
	streamJoin  = 30 * time.Second // a join by TLS: 3 s of silence come first
	streamReach = 30 * time.Second
)

// newHub makes an internet with a member "hub" that takes streams on port 443.
func newHub(t *testing.T) (*lab.Internet, *lab.Node) {
	t.Helper()
	net := lab.New(t).Internet()
	hub := net.Public("hub").NewNode()
	configure(t, hub, "tls_port = 443")
	hub.Up()
	hub.Do("create", "home")
	return net, hub
}

// configure writes the [daemon] table of a node that does not run yet. No node here asks the DHT, which is not there.
func configure(t *testing.T, n *lab.Node, lines ...string) {
	t.Helper()
	if err := os.MkdirAll(n.State, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "[daemon]\ndht = false\nport_mapping = false\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(n.State, "warren.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// by checks how n reaches the peer: the text is in its words on it.
func by(n *lab.Node, peer, text string) error {
	p := n.Network().Peer(peer)
	if p == nil || p.Path != "direct" || !strings.Contains(p.Why, text) || text == "" && strings.Contains(p.Why, "TCP") {
		return fmt.Errorf("%s reaches %s: %+v; want a direct path by %q", n.Name, peer, p, text)
	}
	return nil
}

// carries checks that the two reach each other and that 16 MiB of TCP pass each way.
func carries(t *testing.T, a, b *lab.Node) {
	t.Helper()
	lab.AllReach(t, streamReach, []*lab.Node{a, b})
	for _, p := range [][2]*lab.Node{{a, b}, {b, a}} {
		got := p[0].Send(p[1].Host, p[1].Addr4(), mediumFile, 60*time.Second)
		if got.Bytes != mediumFile {
			t.Errorf("%s to %s: %+v", p[0].Name, p[1].Name, got)
		}
		t.Logf("%s to %s: 16 MiB at %.0f Mbit/s", p[0].Name, p[1].Name, got.Rate())
	}
}

// A machine of whose packets only TCP to port 443 gets out joins by a code and talks to all; when its firewall opens, it goes back
// to UDP. spec/72-streams.md#when
func TestOnlyTCP443(t *testing.T) {
	t.Parallel()
	net, hub := newHub(t)
	other := net.Public("other").NewNode()
	configure(t, other)
	other.Up()
	other.Do("join", hub.Invite())
	site := net.Site("office", lab.SiteTCP443)
	desk := site.Add("desk").NewNode()
	configure(t, desk)
	desk.Up()
	start := time.Now()
	desk.Do("join", hub.Invite())
	if took := time.Since(start); took > streamJoin {
		t.Errorf("the join took %v", took)
	} else {
		t.Logf("joined after %v", took)
	}
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "tls over TCP") })
	carries(t, desk, hub)
	lab.AllReach(t, streamReach, []*lab.Node{desk, hub, other})

	desk.Stop() // and again, without a code
	desk.Up()
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "tls over TCP") })
	lab.AllReach(t, streamReach, []*lab.Node{desk, hub, other})

	site.Router.Must("nft", "flush", "chain", "ip", "nat", "pass")
	took := lab.Eventually(t, 100*time.Second, func() error { return by(desk, "hub", "") })
	t.Logf("back to UDP after %v", took)
	carries(t, desk, hub)
}

// Where nothing gets out but by a proxy, HTTP or SOCKS5, the config file or the environment names it. spec/72-streams.md#proxies
func TestOnlyAProxy(t *testing.T) {
	t.Parallel()
	net, hub := newHub(t)
	site := net.Site("office", lab.SiteProxy)
	desk := site.Add("desk").NewNode()
	configure(t, desk, fmt.Sprintf("proxy = %q", site.Proxy))
	desk.Up()
	desk.Do("join", hub.Invite())
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "tls over TCP") })
	carries(t, desk, hub)
	lap := site.Add("lap").NewNode()
	lap.Env = []string{"HTTPS_PROXY=" + site.Proxy}
	configure(t, lap)
	pad := site.Add("pad").NewNode()
	configure(t, pad, fmt.Sprintf("proxy = %q", site.Socks))
	for _, n := range []*lab.Node{lap, pad} {
		n.Up()
		n.Do("join", hub.Invite())
		lab.Eventually(t, streamReach, func() error { return by(n, "hub", "tls over TCP") })
	}
	carries(t, pad, hub)
	lab.AllReach(t, streamReach, []*lab.Node{desk, hub, lap, pad})
}

// A member behind a reverse proxy states its URL; a machine from which only a web proxy leads out joins by it, with a code that
// names it, and finds it again without. spec/72-streams.md#websocket, spec/72-streams.md#when
func TestBehindAReverseProxy(t *testing.T) {
	t.Parallel()
	net := lab.New(t).Internet()
	front, home := net.Public("front"), net.Public("hub")
	at, _ := net.Addrs(front)
	back, _ := net.Addrs(home)
	front.StartReverseProxy("/dig", netip.AddrPortFrom(back, 8443))
	hub := home.NewNode()
	configure(t, hub, "tls_port = 8443", fmt.Sprintf("tls_urls = [\"wss://%v/dig\"]", at))
	hub.Up()
	hub.Do("create", "home")
	site := net.Site("office", lab.SiteProxy)
	desk := site.Add("desk").NewNode()
	configure(t, desk, fmt.Sprintf("proxy = %q", site.Proxy))
	desk.Up()
	desk.Do("join", hub.Invite())
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "wss over TCP") })
	carries(t, desk, hub)
	desk.Stop()
	desk.Up()
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "wss over TCP") })
	lab.AllReach(t, streamReach, []*lab.Node{desk, hub})
}

// A newcomer from whose network no UDP gets out joins at another port than 443, because the code says where.
// spec/31-code.md#layout, spec/72-streams.md#when
func TestAnotherPortThan443(t *testing.T) {
	t.Parallel()
	net := lab.New(t).Internet()
	hub := net.Public("hub").NewNode()
	configure(t, hub, "tls_port = 8443")
	hub.Up()
	hub.Do("create", "home")
	desk := net.Site("office", lab.SiteNoUDP).Add("desk").NewNode()
	configure(t, desk)
	desk.Up()
	desk.Do("join", hub.Invite())
	lab.Eventually(t, streamReach, func() error { return by(desk, "hub", "tls over TCP") })
	lab.AllReach(t, streamReach, []*lab.Node{desk, hub})
}
