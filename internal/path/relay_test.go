package path

import (
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	viaA  = "via a"
	viaB  = "via b"
	viaCD = "via cd"
)

// effectsOf returns the effects of type E so far.
func effectsOf[E Effect](l *lab) (list []E) {
	for _, f := range l.effects {
		if g, ok := f.(E); ok {
			list = append(list, g)
		}
	}
	return list
}

// The first packet leaves over the mesh, before anything is proven, and twice for good measure.
// spec/51-path.md#optimism
func TestFirstPacketGoesOverTheMesh(t *testing.T) {
	l := newLab(t, false)
	l.link(viaA, 50*time.Millisecond)
	l.link(viaCD, 90*time.Millisecond)
	l.link(public, 30*time.Millisecond)
	l.routes(viaA, viaCD)
	l.candidates(SourceInfo, public)
	l.up("")
	l.wantBest(viaA)
	if got := l.peer.Choice(); got.Also != way(viaCD) || got.MTU != 1280 {
		t.Errorf("unproven: %+v, want copies by the other route", got)
	}
	l.run(40 * time.Millisecond) // the direct way answers first
	l.wantBest(public)
	l.active(10 * time.Second)
	l.wantBest(public)
	if got := l.peer.Choice(); got.Also.IsValid() {
		t.Errorf("copies by %v of what goes by a proven path", got.Also)
	}
}

// Direct comes before relayed, as soon as it answers and without a break.
// spec/51-path.md#choice
func TestDirectTakesOver(t *testing.T) {
	l := newLab(t, false)
	l.link(viaA, 20*time.Millisecond)
	l.routes(viaA)
	l.up(viaA)
	l.active(10 * time.Second)
	l.wantBest(viaA)
	if got := l.peer.Choice().MTU; got != 1360 {
		t.Errorf("MTU %d by the route, want 1360", got)
	}
	l.link(public, 22*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.run(25 * time.Millisecond)
	l.wantBest(public)
	if s := l.e.Status(l.id); s.Why != "direct" || s.Detour {
		t.Errorf("why: %q", s.Why)
	}
}

// A session that comes up by a route of the peer's choice can be answered, whatever our own map says.
// spec/51-path.md#routes
func TestRouteOfThePeer(t *testing.T) {
	l := newLab(t, false)
	l.link(viaCD, 50*time.Millisecond)
	l.up(viaCD)
	l.wantBest(viaCD)
	l.active(time.Minute)
	l.wantBest(viaCD)
	l.link(viaA, 60*time.Millisecond) // our map is there at last
	l.routes(viaA)
	if got := l.peer.Choice(); got.Also != way(viaA) {
		t.Errorf("the route was replaced, and no copies go by the new one: %+v", got)
	}
	l.run(70 * time.Millisecond)
	l.wantBest(viaA)
}

// spec/51-path.md#routes
func TestOrderOfRoutes(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b time.Duration
		want string
	}{
		{"the owner's order counts", 80 * time.Millisecond, 60 * time.Millisecond, viaA},
		{"a relay that delays is convicted", 300 * time.Millisecond, 60 * time.Millisecond, viaB},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, false)
			l.link(viaA, c.a)
			l.link(viaB, c.b)
			l.routes(viaA, viaB)
			l.up(viaA)
			l.active(time.Minute)
			l.wantBest(c.want)
		})
	}
}

// The map changes its mind: the new best route is taken when it answers, the old one carries the traffic until then.
func TestRouteReplaced(t *testing.T) {
	l := newLab(t, false)
	l.link(viaA, 40*time.Millisecond)
	l.link(viaB, 50*time.Millisecond)
	l.routes(viaA)
	l.up("")
	l.active(20 * time.Second)
	l.routes(viaB)
	l.wantBest(viaA)
	l.run(60 * time.Millisecond)
	l.wantBest(viaB)
	if s := l.e.Status(l.id); len(s.Candidates) != 1 {
		t.Errorf("the old route is still a candidate: %+v", s.Candidates)
	}
	if n := count[Dead](l); n > 0 {
		t.Error("Dead, although a route was there all the time")
	}
}

// spec/51-path.md#path-error
func TestPathErrorIsFollowedAtOnce(t *testing.T) {
	l := newLab(t, false)
	a := l.link(viaA, 40*time.Millisecond)
	l.link(viaB, 50*time.Millisecond)
	l.routes(viaA, viaB)
	l.up("")
	l.active(20 * time.Second)
	a.down = true
	l.e.Failed(l.now, l.id, way(viaA).Route)
	l.wantBest(viaB)
	for range 20 {
		l.e.Failed(l.now, l.id, way(viaA).Route) // packets were on the way
	}
	l.settle()
	if n := count[Swallowed](l); n != 0 {
		t.Error("a relay is blamed that said what was wrong")
	}
	a.down = false
	l.active(10 * time.Second) // one backoff of 5 s, not twenty
	if s := l.e.Status(l.id); s.Candidates[0].State != StateAlive || s.Candidates[1].State != StateAlive {
		t.Errorf("the route did not return: %+v", s.Candidates)
	}
	l.e.Failed(l.now, l.id, way(viaCD).Route) // none of ours
	l.e.Failed(l.now, key.NodeID{9}, way(viaA).Route)
	if len(l.e.Effects()) != 0 {
		t.Error("an error on a route that is not used had effects")
	}
}

// spec/51-path.md#optimism
func TestRoutesAreTriedWhenAllElseIsDead(t *testing.T) {
	l := newLab(t, false)
	d, a := l.link(public, 30*time.Millisecond), l.link(viaA, 50*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(10 * time.Second)
	d.down, a.down = true, true
	l.active(time.Second)
	l.routes(viaA) // not known to be dead
	l.active(time.Second)
	l.wantBest(viaA)
	if n := count[Dead](l); n != 1 {
		t.Errorf("%d Dead, want 1 when no proven way is left", n)
	}
	l.active(5 * time.Second)
	l.wantBest("")
	if n := count[Dead](l); n != 1 {
		t.Errorf("%d Dead in one outage", n)
	}
	if got := l.e.Targets(l.now, l.id); !slices.Equal(got, []wire.Way{way(public), way(viaA)}) {
		t.Errorf("targets %v", got)
	}
	a.down = false
	l.active(20 * time.Second)
	l.wantBest(viaA)
}

// spec/51-path.md#targets
func TestTargetsTakeRoutes(t *testing.T) {
	l := newLab(t, false)
	l.candidates(SourceInfo, public, public2, public6, private)
	l.routes(viaA, viaB, viaCD)
	got := l.e.Targets(l.now, l.id)
	if len(got) != 5 || got[3] != way(viaA) || got[4] != way(viaB) {
		t.Errorf("targets %v, want three addresses and the two best routes", got)
	}
	l.e.Failed(l.now, l.id, way(viaA).Route)
	if got = l.e.Targets(l.now, l.id); len(got) < 2 || got[len(got)-2] != way(viaB) || got[len(got)-1] != way(viaCD) {
		t.Errorf("targets %v, want the routes that did not fail", got)
	}
	l.link(public, 5*time.Millisecond)
	l.up(public)
	l.run(time.Second)
	for _, w := range l.e.Targets(l.now, l.id) {
		if w.IsRelayed() {
			t.Errorf("a relay is asked to carry a handshake although %v answers", l.peer.Choice().Way)
		}
	}
}

// A relay that loses what it should carry is found, and told from a peer that has gone.
// spec/51-path.md#blame
func TestRelayThatSwallows(t *testing.T) {
	for _, c := range []struct {
		name  string
		down  []string
		other bool // another member is heard
		want  []string
	}{
		{"the route in use", []string{viaA}, true, []string{viaA}},
		{"the standby", []string{viaB}, true, []string{viaB}},
		{"both, while a direct way answers", []string{viaA, viaB}, true, []string{viaA, viaB}},
		{"everything, and others are heard", []string{viaA, viaB, public}, true, []string{viaA, viaB}},
		{"everything, and nobody is heard", []string{viaA, viaB, public}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLabWith(t, Config{}, false)
			l.link(viaA, 20*time.Millisecond)
			l.link(viaB, 30*time.Millisecond)
			l.link(public, 100*time.Millisecond)
			l.routes(viaA, viaB)
			l.candidates(SourceInfo, public)
			l.up("")
			l.active(45 * time.Second) // a detour
			l.wantBest(viaA)
			friend := key.NodeID{2}
			l.e.AddPeer(friend, false)
			for _, d := range c.down {
				l.links[way(d)].down = true
			}
			for range 40 {
				if c.other {
					l.e.Received(l.now, friend, way(public2))
				}
				l.active(time.Second)
			}
			var want, got []wire.Way
			for _, w := range c.want {
				want = append(want, way(w))
			}
			for _, s := range effectsOf[Swallowed](l) {
				if !slices.Contains(got, wire.Via(s.Route)) {
					got = append(got, wire.Via(s.Route))
				}
			}
			slices.SortFunc(got, func(a, b wire.Way) int { return int(a.Route.At(0)[0]) - int(b.Route.At(0)[0]) })
			if !slices.Equal(got, want) {
				t.Errorf("blamed %v, want %v", got, want)
			}
			vain := map[wire.Route]bool{}
			for _, v := range effectsOf[Vain](l) {
				vain[v.Route] = true
			}
			if lost := len(c.down) == 3 && c.other; lost != (vain[way(viaA).Route] && vain[way(viaB).Route]) || !lost && len(vain) > 0 {
				t.Errorf("in vain: %v; want all routes when nothing else works and others are heard, else none", vain)
			}
		})
	}
}

// spec/51-path.md#blame
func TestRouteIsProvenAgainAndAgain(t *testing.T) {
	l := newLab(t, false)
	l.link(viaA, 20*time.Millisecond)
	l.routes(viaA)
	l.up("")
	l.active(5 * time.Minute)
	if n := count[Proven](l); n < 9 || n > 11 {
		t.Errorf("%d times Proven in 5 minutes, want each 30 s", n)
	}
}

// What comes by relays pulls no path that works, and makes no candidates. spec/51-path.md#roaming
func TestRelayedPacketsPullNothing(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 20*time.Millisecond)
	l.up(public)
	l.active(20 * time.Second)
	for i := range 200 {
		r, _ := wire.NewRoute(key.ShortID{byte(i), 1})
		l.e.Received(l.now, l.id, wire.Via(r))
		l.e.HandlePing(l.now, l.id, wire.Via(r), wire.Ping{ID: 1})
		l.active(100 * time.Millisecond)
	}
	l.wantBest(public)
	if s := l.e.Status(l.id); len(s.Candidates) != 1 {
		t.Errorf("%d candidates", len(s.Candidates))
	}
	if n := count[SendPong](l); n != 200 {
		t.Errorf("%d pongs for 200 relayed pings", n)
	}
}

// A member that speaks by ever other routes, when nothing else works, wins few pings. spec/51-path.md#politeness
func TestManyRoutesOfThePeer(t *testing.T) {
	l := newLab(t, false)
	l.up("")
	for i := range 3000 {
		r, _ := wire.NewRoute(key.ShortID{byte(i), byte(i >> 8), 1})
		l.e.Received(l.now, l.id, wire.Via(r))
		l.settle()
		l.run(200 * time.Millisecond)
	}
	total := 0
	for _, k := range l.links {
		total += k.sent
	}
	if total > 2*maxCandidates*maxAttempts {
		t.Errorf("%d pings by routes that the peer made up, in 10 minutes", total)
	}
}

// The direct way broke while nothing was sent, and the peer noticed first: it speaks by a relay. What we answer must reach
// it, before our own pings have shown anything. spec/51-path.md#roaming
func TestPeerThatLostItsDirectWay(t *testing.T) {
	l := newLab(t, false)
	d := l.link(public, 20*time.Millisecond)
	l.link(viaA, 50*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.run(70 * time.Second)
	l.links[way(viaA)].sent = 0
	d.down = true
	l.received(viaA)
	if !l.reaches() {
		l.run(20 * time.Millisecond)
	}
	if g := l.gap(); g > 1100*time.Millisecond {
		t.Errorf("%v until the answer reaches the peer", g)
	}
	l.active(3 * time.Second)
	l.wantBest(viaA)
}

// spec/51-path.md#candidates
func TestRoutesAreFew(t *testing.T) {
	l := newLab(t, false)
	var list []wire.Route
	for i := range 20 {
		r, _ := wire.NewRoute(key.ShortID{byte(i / 2)})
		list = append(list, r)
	}
	l.e.SetRoutes(l.now, l.id, append([]wire.Route{{}}, list...))
	if s := l.e.Status(l.id); len(s.Candidates) != maxRoutes || s.Candidates[0].Way != wire.Via(list[0]) || s.Candidates[1].Way != wire.Via(list[2]) {
		t.Errorf("candidates %+v", s.Candidates)
	}
	stock := newLab(t, true)
	stock.routes(viaA)
	stock.up(viaA)
	stock.received(viaA)
	stock.wantBest("")
}
