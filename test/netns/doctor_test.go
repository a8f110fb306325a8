//go:build linux

package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Machines in trouble, each in its own: the doctor says what it is, and does not take it for something else.
//
//	x (open, takes TCP), y (open) --- [internet] --+-- [no UDP] --- n
//	                                               +-- [carrier's NAT] --- c
//	                                               +-- [IPv6 alone] --- v
//	                                               +-- t, whose card carries 1300 bytes
//
// spec/60-api.md#finding
func TestDoctorSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	net := lab.New(t).Internet()
	x, y, n := net.Public("x").NewNode(), net.Public("y").NewNode(), net.Site("office", lab.SiteNoUDP).Add("n").NewNode()
	c := net.Carrier("isp", lab.NAT{Kind: lab.SymmetricRandom}).Add("c").NewNode()
	v, small := net.Site("modern", lab.SiteFirewall6).Add("v").NewNode(), net.Public("t").NewNode()
	small.IP("link", "set", "eth0", "mtu", "1300")
	for _, node := range []*lab.Node{x, v, y, n, c, small} {
		config := "[daemon]\ndht = false\n"
		if node == x {
			config += "tls_port = 443\nstun = \"192.0.2.1:3478\"\n"
		}
		node.Configure(config)
		node.Up()
		if node == x {
			saysNow(t, x, "network", "info", "in no network", "warren create")
			saysNow(t, x, "ipv4", "info", "has the address 20.1.0.1, which is of the internet")
			x.Do("create", "home")
			continue
		}
		node.Do("join", x.Invite())
	}
	lab.AllReach(t, joinLimit, []*lab.Node{x, y, n, c, v})
	saysSoon(t, n, "udp", "warn", "nothing comes back by UDP", "by TCP instead", "let UDP out, from port 48271")
	saysSoon(t, n, "ipv4", "warn", "nothing comes back by UDP over IPv4")
	saysSoon(t, c, "ipv4", "warn", "behind the NAT of a provider", "at random", "ask the provider")
	saysSoon(t, c, "port", "warn", "behind the NAT of a provider", "ask the provider")
	saysSoon(t, c, "conflict", "warn", "100.64.0.0/10 overlaps 100.64.0.0/16 on eth0", "--pool")
	saysSoon(t, c, "peer", "warn", "v is reached through", "it has no IPv4 address", "IPv6 for this machine, or IPv4 for v")
	saysSoon(t, v, "peer", "warn", "c is reached through", "this machine has no IPv4 address", "IPv4 for this machine, or IPv6 for c")
	saysSoon(t, small, "mtu", "warn", "those of 1280 bytes", "x in home", "1360 bytes")
	for _, node := range []*lab.Node{x, y} {
		saysNow(t, node, "udp", "ok", "answers come back")
		saysNow(t, node, "port", "ok", "public address itself")
		saysNow(t, node, "drops", "ok") // whatever sizes and addresses were tried
	}
	saysNow(t, x, "reach", "ok", "without being called first", "members in touch")
	if out := x.Do("doctor"); !strings.Contains(out, "public host: 192.0.2.1:3478, asked") {
		t.Errorf("the server of STUN is not among the public hosts:\n%s", out)
	}
}

// saysNow checks that the doctor of n has a finding of this name and state, with all the words in text and remedy.
func saysNow(t *testing.T, n *lab.Node, name, state string, words ...string) {
	t.Helper()
	if err := says(n, name, state, words); err != nil {
		t.Error(err)
	}
}

// saysSoon waits for it.
func saysSoon(t *testing.T, n *lab.Node, name, state string, words ...string) {
	t.Helper()
	lab.Eventually(t, 40*time.Second, func() error { return says(n, name, state, words) })
}

func says(n *lab.Node, name, state string, words []string) error {
	var others []error
	for _, f := range findings(n, name) {
		missing := ""
		for _, w := range words {
			if !strings.Contains(f.Text+" -> "+f.Remedy, w) {
				missing = w
			}
		}
		if f.State == state && missing == "" {
			return nil
		}
		others = append(others, fmt.Errorf("the doctor of %s says %s: %s -> %s; want %s and %q", n.Name, f.State, f.Text, f.Remedy, state, missing))
	}
	return errors.Join(append(others, fmt.Errorf("the doctor of %s finds no %s that is %s", n.Name, name, state))...)
}
