//go:build linux

package netns

import (
	"fmt"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Two members behind the worst of NATs. The router of one passes ports on when asked to: so they reach each other directly. When
// that member stops, the router passes nothing on any more.
//
//	a --- r (miniupnpd) --- [internet] --- NAT --- b
//	                            x
func TestRouterPassesThePortOn(t *testing.T) {
	for _, protocol := range []lab.MapProtocol{lab.MapPCP, lab.MapNATPMP, lab.MapUPnP} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			net := lab.New(t).Internet()
			home, work := net.Site("home", lab.SiteRandom), net.Site("work", lab.SiteRandom)
			home.StartMiniUPnPd(protocol)
			x, a, b := net.Public("x").NewNode(), home.Add("a").NewNode(), work.Add("b").NewNode()
			for _, n := range []*lab.Node{x, a, b} {
				n.Configure("[daemon]\ndht = false\n")
				n.Up()
			}
			passed := func(want int) func() error {
				return func() error {
					if rules := home.PassedOn(); len(rules) != want {
						return fmt.Errorf("the router passes on %q, want %d ports", rules, want)
					}
					return nil
				}
			}
			lab.Eventually(t, newsLimit, passed(1))
			x.Do("create", "home")
			a.Do("join", x.Invite())
			b.Do("join", x.Invite())
			lab.AllReach(t, joinLimit, []*lab.Node{x, a, b})
			took := lab.Eventually(t, 30*time.Second, func() error { return way(b, a, "direct") })
			t.Logf("direct %s after all reached all, by %q", took.Round(time.Millisecond), home.PassedOn())
			a.Stop()
			lab.Eventually(t, newsLimit, passed(0))
		})
	}
}
