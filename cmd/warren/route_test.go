package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/api"
)

// The sentence of `warren route` is one that people say.
func TestRouteSentence(t *testing.T) {
	direct := func(rtt float64) api.List[api.Way] {
		return api.List[api.Way]{{Path: api.PathDirect, State: api.WayUsed, Endpoint: netip.MustParseAddrPort("[2001:db8::7]:41641"), Hops: api.List[api.Hop]{{Name: "bob"}}, RTT: millis(rtt)}}
	}
	relayed := func(names ...string) api.List[api.Way] {
		w := api.Way{Path: api.PathRelayed, State: api.WayUsed, RTT: millis(20)}
		for _, n := range append(names, "bob") {
			w.Hops = append(w.Hops, api.Hop{Name: n})
		}
		return api.List[api.Way]{w}
	}
	for want, r := range map[string]api.RouteReply{
		"alice is this machine itself":                                                                      {Name: "alice", Self: true},
		"bob is reached directly at [2001:db8::7]:41641 (about 0.42 ms)":                                    {Name: "bob", Ways: direct(0.42)},
		"bob is reached directly at [2001:db8::7]:41641 (not measured yet): served by this machine":         {Name: "bob", Device: true, Ways: direct(0), Why: "served by this machine"},
		"bob is reached through carl (2 hops, about 20 ms): 40 % faster than the direct path":               {Name: "bob", Ways: relayed("carl"), Why: "40 % faster than the direct path"},
		"bob is reached through ann, ben, carl and dora (5 hops, about 20 ms)":                              {Name: "bob", Ways: relayed("ann", "ben", "carl", "dora")},
		"there is no path to bob now: not in use: a session is made when something is sent":                 {Name: "bob", Why: "not in use: a session is made when something is sent"},
		"there is no path to bob now: none of its addresses answers, and no member that it is linked to is": {Name: "bob", Why: "none of its addresses answers, and no member that it is linked to is"},
	} {
		used, _ := waysOf(r)
		if got := routeSentence(r, used); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// A reply of another version, with less in it than we know, is shown without harm.
func TestRouteOdd(t *testing.T) {
	for _, r := range []api.RouteReply{
		{},
		{Name: "bob", Ways: api.List[api.Way]{{}, {State: "sideways"}, {State: api.WayUsed}, {State: api.WayUsed}}, Avoided: api.List[api.Avoided]{{}}},
	} {
		var out bytes.Buffer
		c := &cli{system: system{out: &out, now: func() time.Time { return testNow }}}
		c.printRoute(r)
		if out.Len() == 0 {
			t.Errorf("nothing shown of %+v", r)
		}
	}
}

func TestRelayWords(t *testing.T) {
	for want, r := range map[string]api.Relay{
		"": {},
		"carries nothing for others: it runs on battery":                                          {Why: "it runs on battery"},
		"has carried 1.0 MiB for others":                                                          {Enabled: true, Bytes: 1 << 20},
		"has carried 1.0 MiB for others, and asks them to go round it now":                        {Enabled: true, Bytes: 1 << 20, Overloaded: true},
		"has carried 1.0 MiB for others, and asks them to go round it now: the processor is busy": {Enabled: true, Bytes: 1 << 20, Overloaded: true, Why: "the processor is busy"},
	} {
		if got := relayWords(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := relayWords(api.Relay{Enabled: true}); got != "" {
		t.Errorf("before anything was carried: %q", got)
	}
}

func TestHumanShare(t *testing.T) {
	for in, want := range map[float64]string{0: "0 %", 0.0004: "< 0.1 %", 0.004: "0.4 %", 0.01: "1 %", 0.0999: "10 %", 0.5: "50 %", 1: "100 %"} {
		if got := humanShare(api.ShareOf(in)); got != want {
			t.Errorf("humanShare(%v) = %q, want %q", in, got, want)
		}
	}
	if got := humanShare(api.Share{}); got != "-" {
		t.Errorf("an unknown share is shown as %q", got)
	}
}

// Whatever the links are, each member stands on the map once, and as near to this machine as the links allow.
func TestMapTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "members")
		name := func(i int) string { return fmt.Sprintf("m%d", i) }
		m := api.MapReply{Network: "home", Self: name(0)}
		for i := range n {
			node := api.MapNode{Name: name(i), Self: i == 0, Path: rapid.SampledFrom([]string{api.PathDirect, api.PathRelayed, api.PathNone}).Draw(t, "path")}
			if node.Path == api.PathRelayed {
				node.Via = api.List[string]{name(rapid.IntRange(0, n).Draw(t, "via"))}
			}
			if node.Device = i > 0 && rapid.IntRange(0, 4).Draw(t, "device") == 0; node.Device {
				node.Gateways = api.List[string]{name(rapid.IntRange(0, n).Draw(t, "gateway"))}
			}
			m.Nodes = append(m.Nodes, node)
		}
		far := map[string]int{m.Self: 0} // by Bellman and Ford, who know nothing of trees
		for range rapid.IntRange(0, 30).Draw(t, "links") {
			m.Links = append(m.Links, api.MapLink{A: name(rapid.IntRange(0, n).Draw(t, "a")), B: name(rapid.IntRange(0, n).Draw(t, "b")),
				Cost: api.Millis(rapid.IntRange(0, 3).Draw(t, "cost")), TwoWay: rapid.Bool().Draw(t, "two ways")})
		}
		for range n {
			for _, l := range m.Links {
				for _, e := range [][2]string{{l.A, l.B}, {l.B, l.A}} {
					d, ok := far[e[0]]
					if old, known := far[e[1]]; l.TwoWay && l.A != name(n) && l.B != name(n) && ok && (!known || d+1 < old) {
						far[e[1]] = d + 1
					}
				}
			}
		}
		var out bytes.Buffer
		c := &cli{system: system{out: &out}}
		c.printMap(m)
		tree, lost, _ := strings.Cut(out.String(), "No way is known to: ")
		chart := newChart(m)
		for _, node := range m.Nodes {
			lines := strings.Count(tree, "─ "+node.Name+" ") + strings.Count(tree, "─ "+node.Name+"\n")
			if node.Self {
				lines = 1
			}
			for l := range strings.SplitSeq(strings.TrimSpace(lost), ", ") {
				if l == node.Name {
					lines++
				}
			}
			if lines != 1 {
				t.Fatalf("%s stands there %d times:\n%s", node.Name, lines, out.String())
			}
			if d, ok := far[node.Name]; ok && d > 0 && len(chart.above(node.Name)) != d-1 {
				t.Fatalf("%s is %d hops away, and hangs below %v:\n%s", node.Name, d, chart.above(node.Name), out.String())
			}
		}
		c.printDot(m)
	})
}

// What others chose cannot break out of the drawing, or command the terminal.
func TestMapHostile(t *testing.T) {
	var out bytes.Buffer
	c := &cli{system: system{out: &out}}
	m := api.MapReply{Network: "a\"b", Self: "x\\", Nodes: api.List[api.MapNode]{{Name: "x\\", Self: true}, {Name: "\x1b[2J\"]; evil [", Path: api.PathDirect}}}
	c.printMap(m)
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("an escape sequence in:\n%s", out.String())
	}
	out.Reset()
	c.printDot(m)
	for _, bad := range []string{"\x1b", "J\"];", "\"a\"b\""} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q in:\n%s", bad, out.String())
		}
	}
}
