package path

import (
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// spec/51-path.md#detours
func TestDetour(t *testing.T) {
	for _, c := range []struct {
		name          string
		direct, route time.Duration
		no            bool
		want          string
	}{
		{"clearly faster", 100 * time.Millisecond, 70 * time.Millisecond, false, viaA},
		{"less than 20 %", 100 * time.Millisecond, 85 * time.Millisecond, false, public},
		{"less than 10 ms", 20 * time.Millisecond, 11 * time.Millisecond, false, public},
		{"switched off", 100 * time.Millisecond, 30 * time.Millisecond, true, public},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLabWith(t, Config{NoDetours: c.no}, false)
			l.link(public, c.direct)
			l.link(viaA, c.route)
			l.routes(viaA)
			l.candidates(SourceInfo, public)
			l.up(public)
			l.active(25 * time.Second)
			l.wantBest(public) // not before 30 s have shown it
			l.active(15 * time.Second)
			l.wantBest(c.want)
			if s := l.e.Status(l.id); s.Detour != (c.want == viaA) {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// spec/51-path.md#detours
func TestDetourEnds(t *testing.T) {
	l := newLab(t, false)
	d := l.link(public, 100*time.Millisecond)
	r := l.link(viaA, 50*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(45 * time.Second)
	l.wantBest(viaA)
	if got := l.peer.Choice(); got.Direct != ap(public) || count[Direct](l) != 1 {
		t.Errorf("during a detour: %+v, want the direct address too", got)
	}
	if s := l.e.Status(l.id); s.RTT != 50*time.Millisecond || s.Direct == nil || s.Direct.RTT != 100*time.Millisecond {
		t.Errorf("during a detour: %+v", s)
	}
	d.sent = 0
	l.active(10 * time.Second)
	if d.sent < 9 { // it may be a link of others
		t.Errorf("%d pings in 10 s to the direct address during a detour", d.sent)
	}
	d.rtt = 65 * time.Millisecond // better, but not as good
	l.active(5 * time.Minute)
	l.wantBest(viaA)
	d.rtt = 52 * time.Millisecond
	l.active(20 * time.Second)
	l.wantBest(viaA)
	l.active(100 * time.Second)
	l.wantBest(public)
	d.rtt = 200 * time.Millisecond
	l.active(3 * time.Minute)
	l.wantBest(viaA)
	r.down = true // and when it fails, direct is there at once
	l.active(2 * time.Second)
	l.wantBest(public)
	if s := l.e.Status(l.id); s.Detour {
		t.Error("the direct path counts as a detour")
	}
	r.down = false
	l.active(3 * time.Minute)
	l.wantBest(viaA)
	d.down = true // the link is gone, the path is not
	l.active(20 * time.Second)
	l.wantBest(viaA)
	if got := effectsOf[Direct](l); l.peer.Choice().Direct.IsValid() || len(got) != 2 || got[1].Up {
		t.Errorf("the direct way died during a detour: %+v, %+v", l.peer.Choice(), got)
	}
}

// An idle peer needs no detour.
func TestNoDetourWithoutTraffic(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 100*time.Millisecond)
	l.link(viaA, 30*time.Millisecond)
	l.routes(viaA)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.run(time.Hour)
	l.wantBest(public)
}

// spec/51-path.md#modes
func TestBalance(t *testing.T) {
	l := newLabWith(t, Config{Mode: ModeBalance}, false)
	a := l.link(public, 20*time.Millisecond)
	b := l.link(public2, 32*time.Millisecond)
	l.link(public6, 100*time.Millisecond) // too slow
	l.link(viaA, 20*time.Millisecond)     // relays are not spread over
	l.routes(viaA)
	l.candidates(SourceInfo, public, public2, public6)
	l.up(public)
	b.mtu = 1400
	l.active(10 * time.Second)
	want := []wire.Way{way(public), way(public2)}
	if got := l.peer.Choice(); !slices.Equal(got.Spread, want) || got.MTU != 1400 {
		t.Fatalf("%+v, want flows over %v and MTU 1400", got, want)
	}
	b.rtt = 55 * time.Millisecond // one that is in stays a little longer
	l.active(30 * time.Second)
	if got := l.peer.Choice(); !slices.Equal(got.Spread, want) {
		t.Errorf("spread %v at 55 ms", got.Spread)
	}
	b.rtt = 32 * time.Millisecond
	l.active(30 * time.Second)
	b.down = true
	l.active(1400 * time.Millisecond)
	if got := l.peer.Choice(); got.Spread != nil || got.Way != way(public) || got.MTU != 1420 {
		t.Errorf("flows still go by the way that failed: %+v", got)
	}
	b.down = false
	l.active(30 * time.Second)
	a.down = true
	if g := l.gap(); g > 1400*time.Millisecond {
		t.Errorf("%v until all flows arrive", g)
	}
}

// spec/51-path.md#modes
func TestRedundant(t *testing.T) {
	l := newLabWith(t, Config{Mode: ModeRedundant}, false)
	l.link(public, 20*time.Millisecond)
	b := l.link(public2, 32*time.Millisecond)
	l.link(viaA, 40*time.Millisecond)
	l.candidates(SourceInfo, public, public2)
	l.routes(viaA)
	l.up(public)
	l.active(10 * time.Second)
	if got := l.peer.Choice(); got.Way != way(public) || got.Also != way(public2) || got.AlsoMax != 256 || got.MTU != 1420 {
		t.Fatalf("%+v", got)
	}
	b.down = true
	l.active(1400 * time.Millisecond)
	if got := l.peer.Choice(); got.Also != way(viaA) || got.AlsoMax != 256 {
		t.Errorf("copies go by the way that failed: %+v", got)
	}
}
