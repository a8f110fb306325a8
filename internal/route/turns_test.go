package route

import (
	"math"
	"testing"
	"time"
)

// taken returns the effects of type E so far.
func taken[E Effect](c *chart) (out []E) {
	for _, f := range c.Effects() {
		if g, ok := f.(E); ok {
			out = append(out, g)
		}
	}
	return out
}

// spec/54-routes.md#watch: each neighbour knows its turn by the list of the one that is watched.
func TestTurnsByTheNeighboursList(t *testing.T) {
	c := newChart(t, 8)
	for _, o := range []int{0, 3, 5, 7} {
		c.link(o, 2, 10)
	}
	c.tell()
	paces := taken[Pace](c)
	if len(paces) != 1 || paces[0].ID != id(2) || paces[0].Every != 32*time.Second || math.Abs(paces[0].Share-.125) > 1e-9 || paces[0].Since != c.now {
		t.Errorf("the link with 2 is pinged %+v, want every 32 s, an eighth of that after its link state came", paces)
	}
	c.link(0, 2, 0)
	if paces = taken[Pace](c); len(paces) != 1 || paces[0].Every != 0 {
		t.Errorf("a link that is gone is still watched: %+v", paces)
	}
}

// One that finds its neighbour gone has the others look at once; one that cries wolf gains nothing.
// spec/54-routes.md#watch
func TestALostLinkIsCheckedByTheOthers(t *testing.T) {
	c := newChart(t, 6)
	c.link(0, 1, 10)
	c.link(0, 2, 10)
	c.link(1, 2, 10)
	c.link(1, 3, 10)
	c.link(1, 4, 10)
	c.tell()
	taken[Check](c)
	says := func(i int, linked bool) []Check {
		delete(c.links[i], 1)
		if linked {
			c.links[i][1] = 200
		}
		c.Learn(c.now, c.state(i))
		return taken[Check](c)
	}
	if got := says(3, false); len(got) != 1 || got[0].ID != id(1) {
		t.Errorf("3 lost 1: checked are %v", got)
	}
	if got := says(4, false); len(got) != 0 {
		t.Errorf("and so did 4, at once: checked are %v, again", got)
	}
	says(3, true)
	says(4, true)
	checks := 0
	for end := c.now.Add(10 * time.Minute); c.now.Before(end); c.now = c.now.Add(2 * time.Second) { // as often as gossip takes them
		says(3, true)
		checks += len(says(3, false))
	}
	if checks == 0 || checks > 12 {
		t.Errorf("for the word of one, 1 was pinged %d times in 10 minutes", checks)
	}
	c.now = c.now.Add(checkGap)
	if got := says(4, false); len(got) != 1 {
		t.Error("then 4 is not believed")
	}
	c.now = c.now.Add(checkGap)
	says(5, true) // 1 does not say so
	if got := says(5, false); len(got) != 0 {
		t.Errorf("5 never had a link with 1, and has %v checked", got)
	}
	if c.Learn(c.now, c.state(0)); len(taken[Check](c)) != 0 {
		t.Error("own links are checked for an own link state")
	}
}
