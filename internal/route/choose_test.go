package route

import (
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// star is a chart in which this node has links with 1 to n, and each of these with the destinations from 10 on: n routes of one
// relay to each. That by 1 costs 60 ms, each further one step more.
func star(t *testing.T, n, step int) *chart {
	c := newChart(t, 14)
	for i := 1; i <= n; i++ {
		c.link(0, i, 20+step*(i-1))
		for d := 10; d < 14; d++ {
			c.link(i, d, 20)
		}
	}
	c.tell()
	return c
}

// changed drains the effects and lists whose routes changed.
func (c *chart) changed() (out []int) {
	for _, f := range c.Effects() {
		if r, ok := f.(RoutesChanged); ok {
			for _, n := range r.IDs {
				out = append(out, number(n.Short()))
			}
		}
	}
	slices.Sort(out)
	return out
}

// spec/54-routes.md#hysteresis
func TestHysteresis(t *testing.T) {
	c := star(t, 2, 20)
	c.want(10, via(1), via(2))
	move := func(rtt int) { c.Measured(c.now, id(2), time.Duration(rtt)*time.Millisecond, 0, 0) }
	c.pass(time.Minute)
	move(12) // 52 ms against 60: not clearly
	c.pass(5 * time.Minute)
	c.want(10, via(1), via(2))
	move(1) // 41 ms, less than 0.8 x 60 - 5: clearly
	c.pass(25 * time.Second)
	c.want(10, via(1), via(2))
	move(19) // not any more
	c.pass(2 * time.Second)
	move(1)
	c.pass(29 * time.Second)
	c.want(10, via(1), via(2))
	if x := c.Explain(c.now, id(10)); x.Better == nil || x.Better.Route != via(2) {
		t.Errorf("the better route is not told: %+v", x)
	}
	c.changed()
	c.pass(2500 * time.Millisecond)
	c.want(10, via(2), via(1))
	if got := c.changed(); !slices.Equal(got, []int{10}) {
		t.Errorf("told of changes to %v", got)
	}
}

// On a LAN each relay more costs 10 ms by the formula, which is never "clearly" more; and yet one relay less is better.
// spec/54-routes.md#hysteresis
func TestARouteWithFewerRelaysTakesOver(t *testing.T) {
	c := newChart(t, 6)
	c.link(0, 1, 1)
	c.link(1, 2, 1)
	c.link(2, 3, 1)
	c.tell()
	c.want(3, via(1, 2))
	c.pass(time.Minute)
	c.link(0, 4, 2)
	c.link(4, 3, 2)
	c.tell()
	c.pass(29 * time.Second)
	c.want(3, via(1, 2), via(4))
	c.pass(2 * time.Second)
	c.want(3, via(4), via(1, 2))
	if x := c.Explain(c.now, id(3)); x.Why == "" || x.Routes[0].Cost >= x.Routes[1].Cost {
		t.Errorf("%+v", x)
	}
	c.changed()
	moves := 0
	for i := range 600 { // measurements go up and down
		c.Measured(c.now, id(1), time.Duration(1+i%7*4)*time.Millisecond, 0, 0)
		c.Measured(c.now, id(4), time.Duration(1+i%5*5)*time.Millisecond, 0, 0)
		c.pass(5 * time.Second)
		moves += len(c.changed())
	}
	if moves > 0 {
		t.Errorf("the routes changed %d times in 50 minutes", moves)
	}
	c.want(3, via(4), via(1, 2))
	c.Measured(c.now, id(4), 100*time.Millisecond, 0, 0) // it has become worse than two
	c.pass(35 * time.Second)
	c.want(3, via(1, 2), via(4))
}

// What was chosen while link states were still coming gives way to the better one that they show, but not for ever.
// spec/54-routes.md#hysteresis
func TestARouteOfHalfAMapIsReplacedAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name    string
		forget  func(c *chart)
		later   time.Duration
		replace bool
	}{
		{"none before", func(*chart) {}, time.Second, true},
		{"the one before broke", func(c *chart) { c.pass(time.Minute); c.link(1, 3, 0); c.tell() }, time.Second, true},
		{"long after", func(*chart) {}, 6 * time.Second, false},
	} {
		c := newChart(t, 4)
		c.link(0, 1, 1)
		c.link(1, 2, 1)
		c.link(2, 3, 1)
		if tc.name == "the one before broke" {
			c.link(1, 3, 1)
		}
		c.tell()
		c.Routes(id(3))
		tc.forget(c)
		c.pass(100 * time.Millisecond)
		c.want(3, via(1, 2))
		c.pass(tc.later)
		c.link(1, 3, 1)
		c.tell()
		c.pass(100 * time.Millisecond)
		if got := c.Routes(id(3))[0] == via(1); got != tc.replace {
			t.Errorf("%s: replaced at once: %v, want %v", tc.name, got, tc.replace)
		}
		c.pass(31 * time.Second)
		c.want(3, via(1), via(1, 2))
	}
}

// spec/54-routes.md#hysteresis spec/54-routes.md#when
func TestBrokenRouteIsLeftAtOnce(t *testing.T) {
	for name, breakIt := range map[string]func(c *chart){
		"own link down":      func(c *chart) { c.link(0, 1, 0) },
		"path error":         func(c *chart) { c.Exclude(c.now, id(10).Short(), id(1).Short(), 30*time.Second) },
		"suspicion":          func(c *chart) { c.Suspect(c.now, id(10), via(1)) },
		"no member any more": func(c *chart) { c.SetMembers(c.now, append(ids(1), ids(14)[2:]...)) },
		"policy": func(c *chart) {
			m := ids(14)
			m[1].NoTransit = true
			c.SetMembers(c.now, m)
		},
	} {
		c := star(t, 3, 20)
		c.want(10, via(1), via(2))
		c.pass(time.Minute)
		c.changed()
		breakIt(c)
		c.pass(60 * time.Millisecond)
		want := []wire.Route{via(2), via(3)}
		if got := c.Routes(id(10)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if got := c.changed(); !slices.Contains(got, 10) {
			t.Errorf("%s: told of changes to %v", name, got)
		}
	}
}

// spec/54-routes.md#map: a revoked member is on no route from the moment on, asked for or not.
func TestRevokedMemberRelaysNothing(t *testing.T) {
	c := star(t, 1, 20)
	c.want(10, via(1))
	c.SetMembers(c.now, append(ids(1), ids(14)[2:]...))
	c.want(10)
	c.want(11)
	c.want(1)
}

// spec/54-routes.md#map: an excluded edge comes back, but the route in use stays.
func TestExclusionEnds(t *testing.T) {
	c := star(t, 2, 20)
	c.want(10, via(1), via(2))
	c.Exclude(c.now, id(1).Short(), id(10).Short(), 30*time.Second)
	c.pass(29 * time.Second)
	c.want(10, via(2), via(1, 11, 2))
	c.pass(2 * time.Second)
	c.want(10, via(2), via(1))
}

// spec/54-routes.md#map
func TestExclusionsAreFew(t *testing.T) {
	c := newChart(t, 60)
	c.tell()
	said := 0
	for a := range c.n {
		for b := range a { // each two once: 1,770 links
			c.Exclude(c.now, id(a).Short(), id(b).Short(), time.Duration(30+said)*time.Second)
			said++
		}
	}
	if len(c.excluded) != maxExcluded {
		t.Errorf("%d links of %d are excluded", len(c.excluded), said)
	}
	c.pass(time.Hour)
	for _, n := range c.order {
		if n.shut != 0 {
			t.Fatalf("an hour later, %d exclusions of a node's links still count", n.shut)
		}
	}
}

// A relay that had no session yet says so by its next link state. spec/54-routes.md#map
func TestALinkStatedAnewIsNoLongerExcluded(t *testing.T) {
	c := star(t, 1, 20)
	c.want(10, via(1))
	c.Exclude(c.now, id(1).Short(), id(10).Short(), 30*time.Second)
	c.pass(time.Second)
	c.want(10)
	c.Learn(c.now, c.state(2))
	c.pass(time.Second)
	c.want(10)
	c.Learn(c.now, c.state(1))
	c.pass(time.Second)
	c.want(10, via(1))
}

// All routes are tried one after the other, nobody is blamed for them, and later the cheapest comes first again.
// spec/54-routes.md#vain
func TestAVainRouteGivesWayAndNobodyIsBlamed(t *testing.T) {
	c := star(t, 4, 40)
	c.want(10, via(1), via(2))
	c.pass(time.Minute)
	c.changed()
	c.Vain(c.now, id(10), via(1))
	c.want(10, via(2), via(3))
	if got := c.changed(); !slices.Equal(got, []int{10}) {
		t.Errorf("told of changes to %v", got)
	}
	c.Vain(c.now, id(10), via(2))
	c.want(10, via(3), via(4))
	c.want(11, via(1), via(2))
	c.Proved(c.now, id(10), via(3))
	c.pass(time.Second)
	if x := c.Explain(c.now, id(10)); len(x.Blamed) > 0 {
		t.Errorf("blamed: %+v", x.Blamed)
	}
	c.want(10, via(3), via(4))
	c.pass(2 * time.Minute)
	c.want(10, via(1), via(2))

	c.Suspect(c.now, id(10), via(1)) // not the second time
	c.pass(55 * time.Second)
	c.want(10, via(2), via(3))
	c.pass(40 * time.Second)
	c.want(10, via(1), via(2))
}

// spec/54-routes.md#blame
func TestSwallowingRelayIsFound(t *testing.T) {
	c := star(t, 4, 40)
	for d := 10; d < 14; d++ {
		c.want(d, via(1), via(2))
	}
	c.pass(time.Minute)
	c.changed()

	// One failed route speaks against nobody but itself: the destination may be dead.
	c.Suspect(c.now, id(10), via(1))
	c.want(10, via(2), via(3))
	c.want(11, via(1), via(2))

	// But an answer by another route leaves only one relay that can be guilty.
	c.now = c.now.Add(time.Second)
	c.Proved(c.now, id(10), via(2))
	c.pass(200 * time.Millisecond)
	for d := 10; d < 14; d++ {
		c.want(d, via(2), via(3))
	}
	x := c.Explain(c.now, id(11))
	if len(x.Blamed) != 1 || x.Blamed[0].ID != id(1) || !slices.Equal(x.Blamed[0].Routes, []wire.Route{via(1)}) || x.Blamed[0].Penalty != 10*time.Second {
		t.Errorf("blamed: %+v", x.Blamed)
	}

	// It gets another chance, and twice as long a break the next time.
	c.pass(58 * time.Second)
	if len(c.blamed) != 1 {
		t.Error("forgiven too soon")
	}
	c.pass(3 * time.Second)
	if len(c.blamed) != 0 {
		t.Error("not forgiven")
	}
	c.pass(time.Minute) // 1 is clearly cheaper for 30 s
	c.want(10, via(1), via(2))
	c.Suspect(c.now, id(10), via(1))
	c.now = c.now.Add(time.Second)
	c.Proved(c.now, id(10), via(2))
	c.pass(100 * time.Second)
	c.want(11, via(2), via(3))
	if len(c.blamed) != 1 {
		t.Error("forgiven too soon the second time")
	}
	c.Proved(c.now, id(12), via(1)) // an answer ends it
	c.pass(50 * time.Second)
	c.want(11, via(1), via(2))
}

// spec/54-routes.md#blame: routes to two destinations failed; what they share is to blame, what was cleared is not.
func TestBlameByTwoDestinations(t *testing.T) {
	c := newChart(t, 14)
	for i := 1; i <= 2; i++ {
		c.link(0, i, 20*i)
		for j := 3; j <= 6; j++ {
			c.link(i, j, 10+j)
		}
	}
	for j := 3; j <= 6; j++ {
		for d := 10; d < 14; d++ {
			c.link(j, d, 10)
		}
	}
	c.tell()
	c.want(10, via(1, 3), via(2, 4))
	c.want(11, via(1, 3), via(2, 4))
	c.Suspect(c.now, id(10), via(1, 3))
	if r := c.Routes(id(10))[0]; r.Has(id(1).Short()) || r.Has(id(3).Short()) {
		t.Errorf("the next route %v has relays of the one that failed", r)
	}
	if len(c.blamed) != 0 {
		t.Error("blamed after one failed route")
	}
	c.pass(time.Second)
	c.Proved(c.now, id(12), via(1, 5)) // 1 is honest
	c.Suspect(c.now, id(11), via(1, 3))
	if len(c.blamed) != 1 || c.blamed[0].id != id(3) {
		t.Errorf("blamed: %+v", c.blames())
	}
	c.pass(time.Second)
	for d := 10; d < 14; d++ {
		for _, r := range c.Routes(id(d)) {
			if r.Has(id(3).Short()) {
				t.Errorf("route %v to %d has the relay to blame", r, d)
			}
		}
	}
}

// When links die in rows, the map shows a moment before or after that it was not the relays.
// spec/54-routes.md#blame
func TestTheMapClearsRelays(t *testing.T) {
	c := newChart(t, 14)
	c.link(0, 1, 20)
	c.link(0, 2, 60)
	for d := 10; d < 14; d++ {
		c.link(1, d, 20)
		c.link(2, d, 20)
	}
	c.tell()
	lose := func(dst ...int) {
		for _, d := range dst {
			c.link(1, d, 0)
		}
		c.tell()
		c.pass(100 * time.Millisecond)
	}
	for d := 10; d < 14; d++ {
		if got := c.Routes(id(d)); got[0] != via(1) {
			t.Fatalf("routes to %d: %v", d, got)
		}
	}
	lose(10, 11)
	c.Suspect(c.now, id(10), via(1))
	c.Suspect(c.now, id(11), via(1))
	if len(c.blamed) != 0 {
		t.Errorf("blamed for links that are known to be dead: %+v", c.blames())
	}

	c.link(1, 10, 20)
	c.link(1, 11, 20)
	lose()
	c.Suspect(c.now, id(10), via(1))
	c.Suspect(c.now, id(11), via(1))
	if len(c.blamed) != 1 {
		t.Fatal("nobody is blamed although all links stand")
	}
	lose(10, 11)
	if len(c.blamed) != 0 {
		t.Errorf("blamed for what links explain that turned out to be dead: %+v", c.blames())
	}

	c.Suspect(c.now, id(12), via(1)) // but if it goes on so, swallowing and then dropping links
	c.Suspect(c.now, id(13), via(1))
	lose(12, 13)
	if len(c.blamed) != 1 {
		t.Error("cleared the second time too")
	}
}

// What spoke against a relay counts no more once the map explains it, or when it is old: with one more failed route the relay is not
// to blame. spec/54-routes.md#blame
func TestEvidenceThatCountsNoMore(t *testing.T) {
	for what, between := range map[string]func(c *chart){
		"explained": func(c *chart) { c.link(1, 10, 0); c.tell() },
		"old":       func(c *chart) { c.pass(evidenceFor + time.Second) },
		"neither":   func(*chart) {},
	} {
		c := star(t, 2, 20)
		c.want(10, via(1), via(2))
		c.want(11, via(1), via(2))
		c.Suspect(c.now, id(10), via(1))
		between(c)
		c.Suspect(c.now, id(11), via(1))
		if blamed := len(c.blamed) > 0; blamed != (what == "neither") {
			t.Errorf("%s: blamed: %v", what, blamed)
		}
	}
}

// One who is blamed again and again is avoided for longer each time, an hour at most; after an hour without, it is the first time again.
// spec/54-routes.md#blame
func TestBlameGrowsToAnHour(t *testing.T) {
	c := star(t, 2, 20)
	avoided := func() time.Duration {
		c.tell() // link states do not last as long
		c.Suspect(c.now, id(10), via(1))
		c.Suspect(c.now, id(11), via(1))
		if len(c.blamed) != 1 {
			t.Fatalf("blamed: %v", c.blames())
		}
		took := c.blamed[0].blame.until.Sub(c.now)
		c.pass(took + time.Second)
		return took
	}
	for i := range 12 {
		if got, want := avoided(), min(time.Minute<<i, time.Hour); got != want {
			t.Errorf("time %d: avoided for %v, want %v", i+1, got, want)
		}
	}
	c.pass(time.Hour)
	if got := avoided(); got != time.Minute {
		t.Errorf("after a quiet hour: avoided for %v", got)
	}
}

// Who has just carried an answer is not charged with what vanished elsewhere at that moment. spec/54-routes.md#blame
func TestAnAnswerIsAnAlibi(t *testing.T) {
	for _, ago := range []time.Duration{alibi / 2, 2 * alibi} {
		c := star(t, 2, 20)
		c.Proved(c.now, id(12), via(1))
		c.now = c.now.Add(ago)
		c.Suspect(c.now, id(10), via(1))
		c.Suspect(c.now, id(11), via(1))
		if blamed := len(c.blamed) > 0; blamed != (ago > alibi) {
			t.Errorf("an answer %v ago; blamed: %v", ago, blamed)
		}
	}
}

// However many routes fail, little is kept of them: of one destination, and of one relay. spec/54-routes.md#blame
func TestFailuresAreForgotten(t *testing.T) {
	c := newChart(t, 60)
	for i := 1; i < 60; i++ {
		c.link(0, i, 20)
		for j := 1; j < i; j++ {
			c.link(i, j, 20)
		}
	}
	c.tell()
	c.Routes(id(59))
	for i := 2; i < 59; i++ {
		c.Suspect(c.now, id(59), via(1, i))
		c.Suspect(c.now, id(i), via(1))
	}
	if n := len(c.member(id(59)).watch.failed); n != maxFailed {
		t.Errorf("%d failed routes of one destination are kept", n)
	}
	if n := len(c.member(id(1)).blame.evidence); n != maxEvidence {
		t.Errorf("%d pieces of evidence against one relay are kept", n)
	}
}

// A relay that is the only way stays it, blamed or not.
func TestBlameDoesNotCutOff(t *testing.T) {
	c := star(t, 1, 20)
	c.want(10, via(1))
	c.want(11, via(1))
	c.Suspect(c.now, id(10), via(1))
	c.Suspect(c.now, id(11), via(1))
	c.pass(time.Second)
	c.want(10, via(1))
	c.want(12, via(1))
	for range 1000 { // what is noted is limited
		c.Suspect(c.now, id(10), via(1))
		c.Suspect(c.now, id(11), via(1, 2))
		c.Suspect(c.now, key.NodeID{}, via(1))
	}
	n, w := c.member(id(1)), c.member(id(11)).watch
	if len(n.blame.evidence) > maxEvidence || len(w.failed) > maxFailed || len(c.blamed) > 2 {
		t.Errorf("%d pieces of evidence, %d failures, %d blamed", len(n.blame.evidence), len(w.failed), len(c.blamed))
	}
}

func TestExplainAndMap(t *testing.T) {
	c := star(t, 2, 20)
	members := ids(14)
	c.SetMembers(c.now, members)
	c.flags[2] = wire.StateOverloaded | wire.StateAnchor
	c.tell()
	c.pass(time.Second)
	x := c.Explain(c.now, id(10))
	if len(x.Routes) != 2 || x.Why == "" {
		t.Fatalf("%+v", x)
	}
	want := RouteInfo{Route: via(2), Cost: 580 * time.Millisecond, Hops: []Hop{
		{From: id(0), To: id(2), Cost: 50 * time.Millisecond},
		{From: id(2), To: id(10), Cost: 30 * time.Millisecond, Penalty: 500 * time.Millisecond}}}
	if got := x.Routes[1]; got.Route != want.Route || got.Cost != want.Cost || !slices.Equal(got.Hops, want.Hops) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(c.watched) != 0 {
		t.Error("an explanation makes a destination watched")
	}
	for _, y := range []Explanation{c.Explain(c.now, id(5)), c.Explain(c.now, id(99))} {
		if len(y.Routes) != 0 || y.Why == "" {
			t.Errorf("%+v", y)
		}
	}
	m := c.Map()
	if len(m.Nodes) != 14 || len(m.Edges) != 10 {
		t.Errorf("%d nodes, %d edges, want 14 and 10", len(m.Nodes), len(m.Edges))
	}
	for _, n := range m.Nodes {
		i := number(n.ID.Short())
		if reached := i <= 2 || i >= 10; n.Reached != reached || n.Overloaded != (i == 2) || n.Anchor != (i == 2) || i >= 10 && n.Relays != 1 {
			t.Errorf("%d: %+v", i, n)
		}
	}
	for _, e := range m.Edges {
		if !e.Both || e.Cost < 30*time.Millisecond {
			t.Errorf("%+v", e)
		}
	}
	if l := c.Links(); len(l) < 2 || !l[0].Up || l[1].RTT != 40*time.Millisecond || l[0].Kind != "near" {
		t.Errorf("%+v", l)
	}
}
