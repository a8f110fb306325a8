//go:build linux

package netns

import (
	"strings"
	"testing"

	"github.com/warren-vpn/warren/test/natmatrix"
	"github.com/warren-vpn/warren/test/netns/lab"
)

// Two members behind NATs find the best way that there is: a part of what `make natmatrix` tries.
//
//	a --- [NAT] --- [internet] --- [NAT] --- b
//	                    x
func TestMembersBehindNATs(t *testing.T) {
	cases := []natmatrix.Case{
		natmatrix.Pair(lab.SiteOpen, lab.SiteRandom),
		natmatrix.Pair(lab.SitePort, lab.SitePort),
		natmatrix.Pair(lab.SiteAddress, lab.SiteRandom),
		natmatrix.Pair(lab.SitePort, lab.SiteRandom),
		natmatrix.Pair(lab.SitePort, lab.SitePredictable),
		natmatrix.Pair(lab.SiteDouble, lab.SiteCarrier),
		natmatrix.Pair(lab.SitePort, lab.SiteFirewall6),
		natmatrix.Pair(lab.SiteFirewall6, lab.SiteDual),
	}
	for _, c := range natmatrix.Neighbours() {
		if strings.Contains(c.Name, "with hairpin") {
			cases = append(cases, c)
		}
	}
	want, err := natmatrix.Expected()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(strings.NewReplacer(", ", "~", " ", "-").Replace(c.Name), func(t *testing.T) {
			t.Parallel()
			o := natmatrix.Run(t, c, 1)
			if t.Log(o); o.Result < want[c.Name] {
				t.Errorf("%s, want %s", o.Result, want[c.Name])
			}
		})
	}
}
