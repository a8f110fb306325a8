package path

import (
	"io"
	"testing"
	"time"
)

// spec/51-path.md#failover, spec/51-path.md#doubt
func TestGap(t *testing.T) {
	for _, c := range []struct {
		name  string
		rtt   time.Duration
		other string // what is left
		most  time.Duration
	}{
		{"LAN, another address", time.Millisecond, public2, 1400 * time.Millisecond},
		{"LAN, a route", time.Millisecond, viaA, 1400 * time.Millisecond},
		{"30 ms, a route", 30 * time.Millisecond, viaA, 1400 * time.Millisecond},
		{"100 ms, a route", 100 * time.Millisecond, viaA, 1500 * time.Millisecond},
		{"300 ms, a route", 300 * time.Millisecond, viaA, 2400 * time.Millisecond},
		{"800 ms, another address", 800 * time.Millisecond, public2, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, false)
			k := l.link(public, c.rtt)
			l.link(c.other, c.rtt+20*time.Millisecond)
			l.candidates(SourceInfo, public, public2)
			l.routes(viaA)
			l.up(public)
			l.active(20 * time.Second)
			l.wantBest(public)
			l.run(900 * time.Millisecond)
			k.down = true
			if g := l.gap(); g > c.most {
				t.Errorf("packets arrive again after %v, want at most %v", g, c.most)
			}
			l.active(4 * time.Second)
			l.wantBest(c.other)
			if !l.reaches() || count[Dead](l) > 0 {
				t.Error("no way is left")
			}
		})
	}
}

// A standby that broke unnoticed is no help: what remains is found nevertheless.
func TestGapWithADeadStandby(t *testing.T) {
	l := newLab(t, false)
	k, standby := l.link(public, 30*time.Millisecond), l.link(public2, 30*time.Millisecond)
	l.link(viaA, 50*time.Millisecond)
	l.candidates(SourceInfo, public, public2)
	l.routes(viaA)
	l.up(public)
	l.active(20 * time.Second)
	k.down, standby.down = true, true
	if g := l.gap(); g > 4*time.Second {
		t.Errorf("packets arrive again after %v", g)
	}
}

// While the peer's packets still come by the path, more pings may be lost before it is given up: they show that it works.
// spec/51-path.md#failover
func TestPathThatIsHeardLivesLonger(t *testing.T) {
	left := map[string]time.Duration{}
	for _, from := range []string{public, viaA} {
		l := newLab(t, false)
		k := l.link(public, 30*time.Millisecond)
		l.link(viaA, 90*time.Millisecond)
		l.routes(viaA)
		l.candidates(SourceInfo, public)
		l.up(public)
		l.traffic(20*time.Second, from)
		start := l.now
		k.down = true // one direction of it
		for l.peer.Choice().Way == way(public) && l.now.Sub(start) < 10*time.Second {
			l.received(from)
			l.active(50 * time.Millisecond)
		}
		l.wantBest(viaA)
		left[from] = l.now.Sub(start)
	}
	if left[viaA] > 2*time.Second {
		t.Errorf("a path that is not heard was left after %v", left[viaA])
	}
	if more := left[public] - left[viaA]; more < 600*time.Millisecond || left[public] > 4*time.Second {
		t.Errorf("a path that is heard was left after %v, %v later than another", left[public], more)
	}
}

// Under load the round trip grows tenfold at once. Answers that come late are answers.
// spec/51-path.md#failover
func TestSlowerIsNotDead(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.link(viaA, 900*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(20 * time.Second)
	for _, rtt := range []time.Duration{700, 40, 850, 300, 20, 800} {
		k.rtt = rtt * time.Millisecond
		l.active(10 * time.Second)
		l.wantBest(public)
	}
	if n := count[Changed](l); n != 1 {
		t.Errorf("the path changed %d times", n-1)
	}
}

// spec/51-path.md#doubt
func TestDoubtEndsWithAnAnswer(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(20 * time.Second)
	k.down = true
	l.gap()
	if s := l.e.Status(l.id); !s.Doubt || s.Also != way(viaA) || s.Way != way(public) {
		t.Errorf("in doubt: %+v", s)
	}
	k.down = false
	l.active(700 * time.Millisecond)
	l.wantBest(public)
	if got := l.peer.Choice(); got.Also.IsValid() {
		t.Errorf("copies still go by %v", got.Also)
	}
}

// spec/51-path.md#doubt
func TestUnprovenWhileSending(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.run(200 * time.Second)                     // idle for long is no doubt
	l.e.cfg.Rand = io.LimitReader(&counter{}, 0) // no ping can be sent
	l.active(6 * time.Second)
	if got := l.peer.Choice(); got.Also.IsValid() {
		t.Errorf("in doubt after 6 s of sending")
	}
	l.active(time.Second)
	if got := l.peer.Choice(); got.Also != way(viaA) {
		t.Errorf("after 7 s of sending without a proof: %+v", got)
	}
}

// Copies of large packets do not shrink what the path carries: only the copies are left out.
// spec/51-path.md#doubt
func TestDoubtKeepsTheMTU(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond).mtu = 1390
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(20 * time.Second)
	k.down = true
	l.gap()
	if got := l.peer.Choice(); got.MTU != 1420 || got.AlsoMax != 1360 {
		t.Errorf("%+v, want MTU 1420 and copies up to 1360", got)
	}
	l.active(2 * time.Second)
	if got := l.peer.Choice(); got.Way != way(viaA) || got.MTU != 1360 { // measured before it was needed
		t.Errorf("%+v, want the route with 1360", got)
	}
}

// A direct way that comes and goes does not drag the traffic to and fro. spec/51-path.md#choice
func TestDirectWayThatFlaps(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	for i := range 60 { // 10 minutes
		k.down = i%2 == 1
		l.active(10 * time.Second)
	}
	if n := count[Changed](l) - 1; n > 16 {
		t.Errorf("the path changed %d times in 10 minutes", n)
	}
	k.down = false
	l.active(11 * time.Minute)
	l.wantBest(public)
}

// spec/51-path.md#sleep
func TestSessionOnDemandFallsAsleep(t *testing.T) {
	l := newLab(t, false)
	k, r := l.link(public, 30*time.Millisecond), l.link(viaA, 60*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.e.Keep(l.now, l.id, false)
	l.up(public)
	l.active(30 * time.Second)
	l.run(4 * time.Minute)
	k.sent, r.sent = 0, 0
	l.run(30 * time.Second)
	if k.sent == 0 {
		t.Error("asleep too early")
	}
	l.run(time.Minute)
	k.sent, r.sent = 0, 0
	l.run(time.Hour)
	if k.sent+r.sent > 0 {
		t.Errorf("%d pings while asleep", k.sent+r.sent)
	}
	l.wantBest(public)
	k.down = true // nobody looked
	if g := l.gap(); g > 1100*time.Millisecond {
		t.Errorf("%v until the first data after a long sleep arrives", g)
	}
	l.e.Keep(l.now, l.id, true)
	l.active(time.Minute)
	k.sent, r.sent = 0, 0
	l.run(time.Hour)
	if r.sent < 100 {
		t.Errorf("%d pings in an hour of a session to be kept", r.sent)
	}
}

// spec/51-path.md#rtt
func TestJitterAndLoss(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(time.Minute)
	if s := l.e.Status(l.id); s.Jitter != 0 || s.Loss != 0 || s.RTT != 30*time.Millisecond {
		t.Errorf("on a steady path: %+v", s)
	}
	k.drop = 5
	for i := range 300 {
		k.rtt = time.Duration(30+10*(i%2)) * time.Millisecond
		l.active(time.Second)
	}
	if s := l.e.Status(l.id); s.Jitter < 4*time.Millisecond || s.Jitter > 11*time.Millisecond || s.Loss < 0.1 || s.Loss > 0.3 {
		t.Errorf("10 ms of jitter, a fifth lost: jitter %v, loss %v", s.Jitter, s.Loss)
	}
}

// A way that was cut has lost nothing when it is back: neither when it died of that, nor when its session ended meanwhile.
// spec/51-path.md#rtt
func TestAnOutageIsNoLoss(t *testing.T) {
	for _, down := range []bool{false, true} {
		l := newLab(t, false)
		a := l.link(public, 30*time.Millisecond)
		l.up(public)
		l.active(30 * time.Second)
		a.down = true
		l.active(4500 * time.Millisecond)
		if down {
			l.e.SessionDown(l.now, l.id)
		} else {
			l.active(10 * time.Second)
		}
		if s := l.e.Status(l.id); s.State == StateAlive && len(s.Candidates) > 0 && s.Candidates[0].State == StateAlive {
			t.Fatalf("the cut was not noticed: %+v", s)
		}
		a.down = false
		l.up(public)
		l.active(5 * time.Second)
		l.wantBest(public)
		if s := l.e.Status(l.id); s.Loss != 0 {
			t.Errorf("session ended %v: the loss is %v", down, s.Loss)
		}
	}
}
