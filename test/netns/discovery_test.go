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

// Programs that look for others on a LAN find them across the network: each member that listens hears each call once, and its
// answer comes. d is reached over c only; b, c and d listen to everything, a and d call.
//
//	a --- b --- c --- d      a, b, c on one segment, c and d on another
func TestGamesAndServicesFindEachOther(t *testing.T) {
	t.Parallel()
	g := newGraph(t, "a-b-c", "c-d")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, d := g.find("a"), g.find("d")
	kinds := []struct {
		name string
		to   netip.AddrPort
		join bool
	}{
		{"limited broadcast", netip.MustParseAddrPort("255.255.255.255:27015"), false},
		{"directed broadcast", netip.AddrPortFrom(lastOf(a.Network().Pool), 6112), false},
		{"mDNS", netip.MustParseAddrPort("224.0.0.251:5353"), true},
		{"mDNS over IPv6", netip.MustParseAddrPort("[ff02::fb]:5354"), true},
		{"SSDP", netip.MustParseAddrPort("239.255.255.250:1900"), true},
		{"a group of a site over IPv6", netip.MustParseAddrPort("[ff05::4711]:4711"), true},
	}
	dev := a.Network().Interface // of all: each has one network
	own := map[*lab.Node][]netip.Addr{}
	for _, n := range []*lab.Node{a, d} {
		v4, v6 := n.Addrs()
		own[n] = []netip.Addr{v4, v6}
	}
	call := func(from *lab.Node, to netip.AddrPort, text string) []string {
		addr := own[from][0]
		if to.Addr().Is6() {
			addr = own[from][1]
		}
		names := from.Call(dev, addr, to, text, 200*time.Millisecond)
		return slices.DeleteFunc(names, func(name string) bool { return name == from.Name }) // the kernel's own loop
	}
	ears := map[string][]*lab.Answerer{} // by kind, of each node
	for _, k := range kinds {
		for _, n := range g.nodes {
			var groups []netip.Addr
			if k.join {
				groups = append(groups, k.to.Addr())
			}
			ears[k.name] = append(ears[k.name], n.StartAnswerer(dev, k.to.Port(), groups...))
		}
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for _, caller := range []*lab.Node{a, d} {
				want := strings.Split(strings.TrimSpace(strings.ReplaceAll(" a b c d", " "+caller.Name, "")), " ")
				tries := 0
				lab.Eventually(t, newsLimit, func() error { // what was joined must be told first
					tries++
					if got := call(caller, k.to, fmt.Sprintf("%s tries %d", caller.Name, tries)); !slices.Equal(got, want) {
						return fmt.Errorf("%s calls %s: %v answer, want %v", caller.Name, k.to, got, want)
					}
					return nil
				})
				for i := range 2 {
					text := fmt.Sprintf("call %d of %s", i, caller.Name)
					if got := call(caller, k.to, text); !slices.Equal(got, want) {
						t.Errorf("%s calls %s: %v answer, want %v", caller.Name, k.to, got, want)
					}
				}
			}
			for i, ear := range ears[k.name] {
				for text, times := range ear.Heard() {
					if times > 1 {
						t.Errorf("%s heard %q %d times", g.nodes[i].Name, text, times)
					}
				}
			}
		})
	}
}

// A group goes to those who joined it alone; and the policy of the network can forbid all of it.
func TestGroupsGoOnlyWhereTheyAreWanted(t *testing.T) {
	t.Parallel()
	g := newGraph(t, "a-b-c")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, b, c := g.nodes[0], g.nodes[1], g.nodes[2]
	group := netip.MustParseAddrPort("239.7.7.7:7777")
	dev := a.Network().Interface
	call := func(to netip.AddrPort, text string) []string {
		names := a.Call(dev, a.Addr4(), to, text, 300*time.Millisecond)
		return slices.DeleteFunc(names, func(name string) bool { return name == a.Name })
	}
	hears := func(to netip.AddrPort, names ...string) func() error {
		return func() error {
			if got := call(to, "hello"); !slices.Equal(got, names) {
				return fmt.Errorf("a calls %s: %v answer, want %v", to, got, names)
			}
			return nil
		}
	}
	ear := b.StartAnswerer(b.Network().Interface, group.Port(), group.Addr())
	lab.Eventually(t, newsLimit, hears(group, "b"))
	wire := c.Capture(c.Network().Interface)
	call(group, "for b alone")
	if ear.Heard()["for b alone"] != 1 || wire.Count([]byte("for b alone")) != 0 {
		t.Errorf("b heard %v; c, which did not join, got %d packets", ear.Heard(), wire.Count([]byte("for b alone")))
	}
	second := c.StartAnswerer(c.Network().Interface, group.Port(), group.Addr())
	lab.Eventually(t, newsLimit, hears(group, "b", "c"))
	second.Stop()
	before := wire.Count([]byte("after c left"))
	lab.Eventually(t, newsLimit, func() error {
		call(group, "after c left")
		now := wire.Count([]byte("after c left"))
		if now != before {
			before = now
			return fmt.Errorf("c still gets what goes to the group that it left")
		}
		return nil
	})

	limited := netip.MustParseAddrPort("255.255.255.255:27015")
	for _, n := range []*lab.Node{b, c} {
		n.StartAnswerer(n.Network().Interface, limited.Port())
	}
	lab.Eventually(t, newsLimit, hears(limited, "b", "c"))
	a.Do("policy", "broadcast", "off")
	lab.Eventually(t, newsLimit, hears(limited))
	lab.Eventually(t, newsLimit, hears(group))
	lab.AllReach(t, newsLimit, g.nodes)
	a.Do("policy", "broadcast", "on")
	lab.Eventually(t, newsLimit, hears(limited, "b", "c"))
	lab.Eventually(t, newsLimit, hears(group, "b"))
}
