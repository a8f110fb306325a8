package path

import (
	"testing"
	"time"
)

// spec/51-path.md#mtu
func TestPathMTUIsFound(t *testing.T) {
	for _, c := range []struct{ path, want int }{
		{1279, 1280}, {1280, 1280}, {1319, 1280}, {1339, 1320}, {1340, 1340}, {1379, 1340}, {1399, 1380}, {1419, 1400}, {1420, 1420}, {9000, 1420},
	} {
		l := newLab(t, false)
		l.link(public, 30*time.Millisecond).mtu = c.path
		l.up(public)
		l.active(5 * time.Second)
		if got := l.peer.Choice().MTU; got != c.want {
			t.Errorf("on a path for %d: MTU %d, want %d", c.path, got, c.want)
		}
	}
}

// However wide the way is now, its links may change: what leaves is never larger than what goes straight.
// spec/51-path.md#mtu
func TestPathMTUByARoute(t *testing.T) {
	for _, c := range []struct {
		route      string
		path, want int
	}{
		{"via a", 9000, 1360}, {"via ab", 9000, 1352}, {"via abc", 9000, 1344}, {"via abcd", 9000, 1336},
		{"via a", 1360, 1360}, {"via a", 1359, 1340}, {"via a", 1339, 1320}, {"via a", 1319, 1280}, {"via abcd", 1335, 1316},
	} {
		l := newLab(t, false)
		l.link(c.route, 30*time.Millisecond).mtu = c.path
		l.routes(c.route)
		l.up(c.route)
		l.active(time.Minute)
		if got := l.peer.Choice().MTU; got != c.want {
			t.Errorf("%s on a path for %d: MTU %d, want %d", c.route, c.path, got, c.want)
		}
		if size := l.largest + way(c.route).Route.Overhead(); size > maxMTU {
			t.Errorf("%s: a ping leaves that is as large as a packet of %d, more than %d", c.route, size, maxMTU)
		}
	}
}

// A relay moves to another network, which carries less: the ends find out before their connections give up.
// spec/51-path.md#black-hole
func TestBlackHoleBehindARelay(t *testing.T) {
	for offset := range 10 {
		l := newLab(t, false)
		k := l.link(viaA, 30*time.Millisecond)
		l.routes(viaA)
		l.up(viaA)
		l.active(time.Minute + time.Duration(offset)*700*time.Millisecond)
		k.mtu = 1300
		begun := l.now
		for l.peer.Choice().MTU > k.mtu && l.now.Sub(begun) < time.Minute {
			l.active(100 * time.Millisecond)
		}
		if took := l.now.Sub(begun); took > 9*time.Second {
			t.Errorf("packets that do not pass are sent for %v, want 9 s at most", took)
		}
		l.wantBest(viaA)
	}
}

// An idle peer too: the first connection must not start with the smallest segments.
func TestPathMTUIsFoundBeforeData(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 30*time.Millisecond)
	l.up(public)
	l.run(500 * time.Millisecond)
	if got := l.peer.Choice().MTU; got != 1420 {
		t.Errorf("MTU %d, want 1420", got)
	}
}

// The first ping leaves at the moment when the handshake proves the address; when it is lost, another follows.
func TestPathMTUIsFoundAfterALostFirstPing(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	k.down = true
	l.up(public)
	l.run(500 * time.Millisecond)
	k.down = false
	l.run(3 * time.Second)
	if got := l.peer.Choice().MTU; got != 1420 || l.e.Status(l.id).RTT == 0 {
		t.Errorf("MTU %d, want 1420; round trip %v", got, l.e.Status(l.id).RTT)
	}
}

// spec/51-path.md#mtu
func TestSizesAboveTheFirstFailureAreAbandoned(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	k.mtu = 1380
	l.up(public)
	l.active(10 * time.Second)
	if got := l.peer.Choice().MTU; got != 1380 {
		t.Fatalf("MTU %d, want 1380", got)
	}
	k.mtu = 0
	l.active(500 * time.Second)
	if got := l.peer.Choice().MTU; got != 1380 {
		t.Errorf("MTU %d before the check is due", got)
	}
	l.active(120 * time.Second)
	if got := l.peer.Choice().MTU; got != 1420 {
		t.Errorf("MTU %d after the path grew wider, want 1420", got)
	}
}

// spec/51-path.md#black-hole
func TestBlackHole(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.up(public)
	l.active(30 * time.Second)
	k.mtu = 1390 // the route changed, and nobody sends packet-too-big
	fell := false
	for range 2500 {
		l.active(10 * time.Millisecond)
		fell = fell || l.peer.Choice().MTU == 1280
	}
	if !fell {
		t.Error("big pings are lost, small ones are not, and the MTU never fell to 1280")
	}
	if got := l.peer.Choice().MTU; got != 1380 {
		t.Errorf("MTU %d after the new search, want 1380", got)
	}
	l.wantBest(public)
}

// Losing every ping is no black hole: the path is dead, and its MTU unknown when it returns.
func TestOutageIsNoBlackHole(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(14 * time.Second)
	k.down = true
	l.active(10 * time.Second)
	l.wantBest("")
	if got := l.peer.Choice().MTU; got != 1280 {
		t.Errorf("MTU %d without a path", got)
	}
	k.down = false
	l.active(15 * time.Second)
	if got := l.peer.Choice().MTU; got != 1420 {
		t.Errorf("MTU %d after the outage, want 1420", got)
	}
}

// While the peer is heard but answers nothing, the way is no black hole either: small pings are lost as well.
// spec/51-path.md#black-hole
func TestLostAnswersAreNoBlackHole(t *testing.T) {
	for offset := range 15 { // one of them begins as the size is asked for
		l := newLab(t, false)
		k := l.link(public, 30*time.Millisecond)
		l.up(public)
		l.active(time.Minute)
		l.run(busyFor + time.Duration(offset)*time.Second) // then answers may take a second each
		k.down = true
		for range 9 {
			l.received(public)
			l.run(500 * time.Millisecond)
			if got := l.peer.Choice().MTU; got != 1420 {
				t.Fatalf("MTU %d while small pings are lost too", got)
			}
		}
		k.down = false
		l.active(5 * time.Second)
		if got := l.peer.Choice().MTU; got != 1420 {
			t.Errorf("MTU %d after that", got)
		}
	}
}

// One lost ping in five hurts neither the path nor its MTU for long.
func TestLossySearch(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 30*time.Millisecond).drop = 5
	l.up(public)
	l.active(60 * time.Second)
	l.wantBest(public)
	if got := l.peer.Choice().MTU; got != 1420 {
		t.Errorf("MTU %d, want 1420", got)
	}
}

func TestEachPathHasItsMTU(t *testing.T) {
	l := newLab(t, false)
	lan := l.link(private, time.Millisecond)
	l.link(public, 30*time.Millisecond).mtu = 1340
	l.candidates(SourceInfo, private, public)
	l.up(private)
	l.active(5 * time.Second)
	if got := l.peer.Choice().MTU; got != 1420 {
		t.Fatalf("MTU %d by the LAN", got)
	}
	lan.down = true
	l.active(2 * time.Second)
	l.wantBest(public)
	if got := l.peer.Choice().MTU; got != 1340 {
		t.Errorf("MTU %d by the public address, want 1340", got)
	}
}

// A relay that passes pings and swallows data is found by its size.
// spec/51-path.md#thin-ways
func TestARelayThatDropsLargePacketsIsLeft(t *testing.T) {
	for name, later := range map[string]bool{"from the beginning": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, false)
			evil := l.link(viaA, 20*time.Millisecond)
			l.link(viaB, 60*time.Millisecond)
			if later {
				l.routes(viaA, viaB)
				l.up(viaA)
				l.active(time.Minute)
				l.wantBest(viaA)
			}
			evil.mtu = 300
			l.routes(viaA, viaB)
			l.up(viaA)
			begun := l.now
			for l.peer.Choice().Way != way(viaB) && l.now.Sub(begun) < time.Minute {
				l.active(100 * time.Millisecond)
			}
			if took := l.now.Sub(begun); took > 9*time.Second {
				t.Errorf("left after %v", took)
			}
			l.active(time.Second)
			if got := effectsOf[Swallowed](l); len(got) != 1 || got[0].Route != way(viaA).Route {
				t.Errorf("reported as swallowed: %v", got)
			}
			for range 300 { // it answers small pings all the time, and is the best of the list
				l.active(time.Second)
				l.wantBest(viaB)
			}
			for _, p := range effectsOf[Proven](l)[1:] {
				if p.Way == way(viaA) && !later {
					t.Error("reported as good")
				}
			}
			evil.mtu = 0
			l.active(80 * time.Second)
			if s := l.e.Status(l.id); s.Thin || s.Candidates[0].Thin || s.Candidates[1].Thin {
				t.Errorf("still thin: %+v", s)
			}
		})
	}
}

// So is an address; it is better than nothing. spec/51-path.md#thin-ways
func TestAnAddressForSmallPacketsAloneIsLeft(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 10*time.Millisecond).mtu = 1000
	l.up(public)
	l.active(20 * time.Second)
	l.wantBest(public)
	if s := l.e.Status(l.id); !s.Thin || !s.Doubt {
		t.Errorf("not known as thin: %+v", s)
	}
	if got := effectsOf[Swallowed](l); len(got) > 0 {
		t.Errorf("blamed is %v", got)
	}
	l.link(viaA, 100*time.Millisecond)
	l.routes(viaA)
	l.active(time.Second)
	l.wantBest(viaA)
	l.active(5 * time.Minute)
	l.wantBest(viaA)
	if got := l.peer.Choice(); got.MTU != 1360 || got.Also.IsValid() {
		t.Errorf("%+v", got)
	}
	l.links[way(public)].mtu = 0
	l.active(2 * time.Minute)
	l.wantBest(public)
}

// Where all ways are thin, the fault is in none of them.
// spec/51-path.md#thin-ways
func TestWhereNothingLargePassesNobodyIsBlamedAtOnce(t *testing.T) {
	l := newLab(t, false)
	l.link(viaA, 10*time.Millisecond).mtu = 1000
	l.link(viaB, 10*time.Millisecond).mtu = 1000
	l.routes(viaA, viaB)
	l.up(viaA)
	l.active(10 * time.Second)
	if got := effectsOf[Swallowed](l); len(got) > 0 {
		t.Errorf("blamed is %v", got)
	}
	if !l.peer.Choice().Way.IsValid() {
		t.Error("there is no path for small packets")
	}
}
