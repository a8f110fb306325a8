//go:build linux

// Package natmatrix finds out by experiment who reaches whom, and how fast: it puts two members of a network behind two kinds of
// NATs and firewalls, on the real kernel, with the built binary, and watches. A third member has a public address; all
// know each other through it, and it relays.
//
//	a --- [site of one kind] --- [internet] --- [site of another kind] --- b
//	                                 |
//	                                 x
//
// `make natmatrix` tries all pairs and prints the table of docs/NAT.md; expect.go says what is the least that must come out.
package natmatrix

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Result is how two members reach each other, the worst first.
type Result int

// The results.
const (
	Impossible Result = iota // not at all
	Relayed                  // over the third member
	Direct
)

// String names it.
func (r Result) String() string { return [...]string{"impossible", "relayed", "direct"}[r] }

// Case is a pair of places.
type Case struct {
	Name string
	A, B lab.SiteKind                         // of Pairs; "": see place
	put  func(*lab.Internet) (a, b *lab.Host) // of Neighbours

	Servers int           // of STUN, which the two may ask
	Config  string        // more lines of [daemon] of the two
	Load    int64         // bytes that a sends to b by TCP besides, once it reaches it
	Limit   time.Duration // for a direct way, from the second join on; 0: 20 s
}

// Outcome is what came out.
type Outcome struct {
	Result Result
	From   time.Time     // the first packet was sent, just after the second join
	First  time.Duration // from then to the first packet that arrived; 0: none did
	Direct time.Duration // from then to the moment when both say "direct"; 0: they never did
	Gap    time.Duration // the longest time without a packet after the first
	Why    string        // what they say of each other if it is not direct
}

// String is for logs.
func (o Outcome) String() string {
	return fmt.Sprintf("%s; from %s first packet after %s, direct after %s, longest gap %s; %s", o.Result, o.From.UTC().Format("15:04:05.000"), o.First.Round(time.Millisecond),
		o.Direct.Round(time.Millisecond), o.Gap.Round(time.Millisecond), o.Why)
}

// Pairs lists all pairs of kinds, each once, in the order of the table.
func Pairs() (cases []Case) {
	kinds := lab.SiteKinds()
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			cases = append(cases, Pair(a, b))
		}
	}
	return cases
}

// Pair makes the case of two kinds.
func Pair(a, b lab.SiteKind) Case { return Case{Name: string(a) + ", " + string(b), A: a, B: b} }

// Neighbours lists the cases of two members behind one router.
func Neighbours() []Case {
	home := func(hairpin, isolated bool) func(*lab.Internet) (a, b *lab.Host) {
		return func(i *lab.Internet) (a, b *lab.Host) {
			s := i.SiteBehind("home", lab.NAT{Kind: lab.PortRestricted, Hairpin: hairpin})
			if isolated {
				return s.AddIsolated("a"), s.AddIsolated("b")
			}
			return s.Add("a"), s.Add("b")
		}
	}
	carrier := func(hairpin bool) func(*lab.Internet) (a, b *lab.Host) {
		return func(i *lab.Internet) (a, b *lab.Host) {
			s := i.Carrier("isp", lab.NAT{Kind: lab.AddressRestricted, Hairpin: hairpin})
			return s.Subscriber("home").Add("a"), s.Subscriber("work").Add("b")
		}
	}
	return []Case{
		{Name: "one LAN", put: home(false, false)},
		{Name: "one router, kept apart by it, with hairpin", put: home(true, true)},
		{Name: "one router, kept apart by it, without hairpin", put: home(false, true)},
		{Name: "two homes of one carrier NAT, with hairpin", put: carrier(true)},
		{Name: "two homes of one carrier NAT, without hairpin", put: carrier(false)},
	}
}

const (
	firstLimit  = 10 * time.Second // for the first packet
	directLimit = 20 * time.Second // for a direct way, from the second join on
)

// Configuration of the members. Nothing is to be found outside of the lab.
const (
	memberConfig = "[daemon]\ndht = false\n"
	anchorConfig = memberConfig + "tls_port = 443\n"
)

// Run tries one case in a lab of its own, with so many public members.
func Run(t testing.TB, c Case, anchors int) (o Outcome) {
	t.Helper()
	net := lab.New(t).Internet()
	var public []*lab.Node
	for i := range anchors {
		x := net.Public(fmt.Sprintf("x%d", i+1)).NewNode()
		x.Configure(anchorConfig)
		x.Up()
		if i == 0 {
			x.Do("create", "home")
		} else {
			x.Do("join", public[0].Invite())
		}
		public = append(public, x)
	}
	if anchors > 1 {
		lab.AllReach(t, firstLimit, public)
	}
	a, b := places(net, c)
	config := memberConfig + c.Config
	if c.Servers > 0 {
		config += "stun = \"" + servers(net, c.Servers) + "\"\n"
	}
	if dir := os.Getenv("WARREN_NATMATRIX_LOGS"); dir != "" {
		config += "log_level = \"debug\"\n"
		defer keepLogs(t, filepath.Join(dir, strings.NewReplacer(", ", "~", " ", "-").Replace(c.Name)), &o, append(public, a, b))
	}
	stream := a.ReadyStream(b.Host, "")
	var self lab.Network
	for _, n := range []*lab.Node{a, b} {
		n.Configure(config)
		n.Up()
		r := n.Warren("join", public[0].Invite(), "--json")
		if r.Code != 0 {
			o.Why = n.Name + " cannot join: " + strings.TrimSpace(r.Err)
			return o
		}
		if err := json.Unmarshal([]byte(r.Out), &self); err != nil || len(self.Self.Addresses) == 0 {
			t.Fatalf("warren join --json: %v: %s", err, r.Out)
		}
	}
	stream.Aim(self.Self.Addresses[0])
	limit := c.Limit
	if limit == 0 {
		limit = directLimit
	}
	if c.Load > 0 {
		lab.AllReach(t, firstLimit, []*lab.Node{a, b})
		a.Send(b.Host, self.Self.Addresses[0], c.Load, limit)
	}
	return watch(t, a, b, stream, limit)
}

// servers adds servers of STUN and names them as the config file does.
func servers(net *lab.Internet, count int) string {
	var list []string
	for i := range count {
		h := net.Public(fmt.Sprintf("s%d", i+1))
		h.StartSTUN()
		v4, _ := net.Addrs(h)
		list = append(list, netip.AddrPortFrom(v4, lab.STUNPort).String())
	}
	return strings.Join(list, " ")
}

// keepLogs writes what the daemons logged, and the outcome, into a folder.
func keepLogs(t testing.TB, dir string, o *Outcome, nodes []*lab.Node) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
	}
	files := map[string]string{"outcome": o.String()}
	for _, n := range nodes {
		files[n.Name] = n.Log()
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(text+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// places puts the two members where the case wants them.
func places(net *lab.Internet, c Case) (a, b *lab.Node) {
	if c.put != nil {
		ha, hb := c.put(net)
		return ha.NewNode(), hb.NewNode()
	}
	var nodes []*lab.Node
	for i, kind := range []lab.SiteKind{c.A, c.B} {
		s := net.Site([]string{"home", "work"}[i], kind)
		n := s.Add([]string{"a", "b"}[i]).NewNode()
		if s.Proxy != "" {
			n.Env = []string{"HTTPS_PROXY=" + s.Proxy, "https_proxy=" + s.Proxy}
		}
		nodes = append(nodes, n)
	}
	return nodes[0], nodes[1]
}

// watch looks on while a sends to b, from the end of the second join on, until both say that the way is direct, or the time is over.
func watch(t testing.TB, a, b *lab.Node, stream *lab.Stream, limit time.Duration) (o Outcome) {
	t.Helper()
	start := time.Now()
	direct := func(from, to *lab.Node) bool {
		p := from.Network().Peer(to.Name)
		if p == nil {
			o.Why = from.Name + " does not know " + to.Name
			return false
		}
		o.Why = fmt.Sprintf("%s: %s %s %s", from.Name, p.Path, p.Endpoint, p.Why)
		return p.Path == "direct"
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for o.Direct == 0 && time.Since(start) < limit {
		<-tick.C
		if direct(a, b) && direct(b, a) {
			o.Direct = time.Since(start)
		}
	}
	lab.Always(t, 500*time.Millisecond, func() error { return nil }) // traffic goes on over the new way
	flow := stream.End()
	if flow.Count == 0 {
		return o
	}
	o.First, o.From = flow.First.Sub(flow.Begun), flow.Begun
	for _, g := range flow.Gaps {
		if g.From.After(flow.First.Add(-time.Millisecond)) {
			o.Gap = max(o.Gap, g.To.Sub(g.From))
		}
	}
	if o.Result = Relayed; o.Direct > 0 {
		o.Result = Direct
	}
	return o
}
