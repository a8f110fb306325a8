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

// Who sees that several seem gone, by the word of several, asks all whom it knows; not for one, nor for the word of one, nor when the
// others say it too. spec/54-routes.md#watch
func TestManyWhoVanishAreLookedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		lose [][2]int // the first says that its link with the second is gone
		also bool     // and the second says so, too
		late []int    // those who spoke again, and said the same, 1 s before
		back []int    // ... or 1 s after
		want int      // links that are checked
	}{
		"two, by two":      {lose: [][2]int{{3, 5}, {4, 6}}, want: 2},
		"two, by one":      {lose: [][2]int{{3, 5}, {3, 6}}},
		"one, by two":      {lose: [][2]int{{3, 5}, {4, 5}}},
		"links given up":   {lose: [][2]int{{3, 5}, {4, 6}}, also: true},
		"own and another":  {lose: [][2]int{{0, 1}, {3, 5}}, want: 1},
		"neighbours alone": {lose: [][2]int{{1, 2}, {2, 1}}, also: true},
		"one spoke lately": {lose: [][2]int{{3, 5}, {4, 6}}, late: []int{5}},
		"one speaks again": {lose: [][2]int{{3, 5}, {4, 6}}, back: []int{6}},
		"others speak":     {lose: [][2]int{{3, 5}, {4, 6}}, late: []int{1, 3}, back: []int{2}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChart(t, 8)
			for _, l := range [][2]int{{0, 1}, {0, 2}, {1, 2}, {1, 3}, {2, 4}, {3, 5}, {3, 6}, {4, 5}, {4, 6}, {5, 6}} {
				c.link(l[0], l[1], 10)
			}
			c.tell()
			c.now = c.now.Add(holdMost)
			say := func(who []int) {
				for _, i := range who {
					c.Learn(c.now, c.state(i))
				}
			}
			say(tt.late)
			c.now = c.now.Add(time.Second)
			c.Tick(c.now)
			taken[Check](c)
			lose := func(a, b int) {
				if a == 0 {
					c.link(0, b, 0)
					return
				}
				delete(c.links[a], b)
				c.Learn(c.now, c.state(a))
			}
			for _, l := range tt.lose {
				lose(l[0], l[1])
			}
			if tt.also {
				c.now = c.now.Add(gapWait / 2)
				for _, l := range tt.lose {
					lose(l[1], l[0])
				}
			}
			taken[Check](c) // of those who lost a common neighbour
			if tt.back != nil {
				c.now = c.now.Add(gapWait / 2)
				say(tt.back)
			}
			checks := func(d time.Duration) (n int) {
				for end := c.now.Add(d); c.now.Before(end); {
					c.now = c.now.Add(100 * time.Millisecond)
					c.Tick(c.now)
					n += len(taken[Check](c))
				}
				return n
			}
			if got := checks(10 * time.Second); got != tt.want {
				t.Errorf("%d links were checked, want %d", got, tt.want)
			}
			if tt.want == 0 {
				return
			}
			for range 20 { // two that cry wolf all the time
				for _, l := range [][2]int{{3, 5}, {4, 6}} {
					c.links[l[0]][l[1]] = 200
					c.Learn(c.now, c.state(l[0]))
					lose(l[0], l[1])
				}
				if got := checks(3 * time.Second); got > tt.want {
					t.Fatalf("%d links were checked at once", got)
				} else if got > 0 {
					tt.want -= got // once in this minute
				}
			}
		})
	}
}

// Those who vanish may be so many that they would never be done with vanishing, and a liar may miss whom it likes: it is noticed all the same.
// spec/54-routes.md#watch
func TestTheAlarmIsNotDrowned(t *testing.T) {
	const many = 400
	c := newChart(t, 2+2*many)
	c.link(0, 1, 10)
	liar := 2
	for i := range many {
		c.link(2+i, 2+many+i, 10)
		if i > 0 && i <= maxGaps {
			c.link(liar, 2+many+i, 10)
		}
	}
	c.tell()
	c.now = c.now.Add(holdMost)
	lose := func(a, b int) (checks int) {
		delete(c.links[a], b)
		c.Learn(c.now, c.state(a))
		c.now = c.now.Add(10 * time.Millisecond)
		c.Tick(c.now)
		return len(taken[Check](c))
	}
	for i := 1; i <= maxGaps; i++ {
		lose(liar, 2+many+i)
	}
	rang := 0
	for i := 1; i < many && rang == 0; i++ {
		if rang = lose(2+i, 2+many+i); rang > 0 && i > 250 {
			t.Errorf("it was noticed after %d were gone", i)
		}
	}
	if rang != 1 {
		t.Errorf("%d links were checked, want 1", rang)
	}

	// Much later, others vanish.
	for end := c.now.Add(2 * time.Minute); c.now.Before(end); c.now = c.now.Add(time.Second) {
		c.Tick(c.now)
	}
	taken[Check](c)
	rang = 0
	for i := many - 1; i > 0 && rang == 0; i-- {
		rang = lose(2+i, 2+many+i)
	}
	if rang != 1 {
		t.Errorf("the second time, %d links were checked, want 1", rang)
	}
}
