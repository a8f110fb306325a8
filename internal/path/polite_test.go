package path

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// spec/51-path.md#politeness
func TestUnprovenAddressIsTriedThreeTimes(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 10*time.Millisecond)
	silent := l.link(public2, 0)
	silent.down = true
	l.candidates(SourceInfo, public, public2)
	l.up(public)
	l.active(599 * time.Second)
	if silent.sent != 3 {
		t.Errorf("%d pings in 10 minutes to an address that never answered, want 3", silent.sent)
	}
	l.candidates(SourceInfo, public, public2) // the same list is no news
	l.active(time.Second)
	if silent.sent > 3+1 {
		t.Errorf("the same list again won %d pings", silent.sent-3)
	}
	silent.sent = 0
	l.candidates(SourceInfo, public2, public)
	l.run(10 * time.Second)
	if silent.sent != 3 {
		t.Errorf("%d pings after the list changed, want 3", silent.sent)
	}
}

// spec/51-path.md#politeness
func TestHandshakesCountAsAttempts(t *testing.T) {
	l := newLab(t, false)
	l.candidates(SourceInfo, public, public2)
	sent := map[wire.Way]int{}
	for range 100 {
		for _, a := range l.e.Targets(l.now, l.id) {
			sent[a]++
		}
		l.run(5 * time.Second)
	}
	if sent[way(public)] != 3 || sent[way(public2)] != 3 {
		t.Errorf("handshakes in 500 s: %v, want 3 each", sent)
	}
}

// A saved address worked before: it is tried each time that the owner asks.
func TestSavedAddressIsTriedAgainAndAgain(t *testing.T) {
	l := newLab(t, false)
	l.candidates(SourceSaved, public)
	for i := range 20 {
		if got := l.e.Targets(l.now, l.id); len(got) != 1 {
			t.Fatalf("attempt %d: targets %v", i, got)
		}
		l.run(5 * time.Second)
	}
}

// spec/51-path.md#targets
func TestTargetsRotate(t *testing.T) {
	l := newLab(t, false)
	l.link(public, time.Millisecond)
	l.up(public)
	l.run(time.Second)
	l.e.SessionDown(l.now, l.id)
	var many []string
	for i := range 7 {
		many = append(many, fmt.Sprintf("198.51.100.%d:9", 10+i))
	}
	l.candidates(SourceInfo, many...)
	met := map[wire.Way]int{}
	for range 4 {
		got := l.e.Targets(l.now, l.id)
		if len(got) != 3 || got[0] != way(public) {
			t.Fatalf("targets %v, want three and the one that worked first", got)
		}
		for _, a := range got[1:] {
			met[a]++
		}
		l.run(5 * time.Second)
	}
	if len(met) != 7 {
		t.Errorf("in four handshakes %d of 7 addresses were tried: %v", len(met), met)
	}
}

// A member cannot aim us at a third party: whatever it lists and however often, the packets to unproven addresses are
// few. spec/51-path.md#politeness
func TestListsThatChangeAllTheTime(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 10*time.Millisecond)
	l.up(public)
	victim := l.link("203.0.113.200:53", 0)
	victim.down = true
	for i := range 3000 { // for 10 minutes
		l.candidates(SourceInfo, "203.0.113.200:53", fmt.Sprintf("198.51.100.9:%d", 1+i))
		l.run(200 * time.Millisecond)
	}
	total := 0
	for a, k := range l.links {
		if a != way(public) {
			total += k.sent
		}
	}
	if total > 2*maxCandidates*maxAttempts {
		t.Errorf("%d pings to unproven addresses in 10 minutes, %d to one", total, victim.sent)
	}
}

// spec/51-path.md#ids
func TestLiarProvesNothing(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 10*time.Millisecond).lie = true
	l.candidates(SourceInfo, public)
	l.e.SessionUp(l.now, l.id, wire.Way{})
	l.settle()
	l.run(time.Minute)
	if s := l.e.Status(l.id); s.RTT != 0 || s.State == StateAlive || !s.LastProven.IsZero() || count[Proven](l) != 0 {
		t.Errorf("wrong ids proved a path: %+v", s)
	}
	if count[Observed](l) != 0 {
		t.Error("an observed address was taken from a pong that answers nothing")
	}
}

// spec/51-path.md#ids
func TestPongFromElsewhereProvesNothing(t *testing.T) {
	e, id, now := New(Config{Rand: &counter{}}, nil), key.NodeID{1}, time.Unix(1e9, 0)
	e.AddPeer(id, false)
	e.SetCandidates(now, id, SourceInfo, []netip.AddrPort{ap(public)})
	e.SessionUp(now, id, wire.Way{})
	for _, f := range e.Effects() {
		if g, ok := f.(SendPing); ok {
			e.HandlePong(now, id, way(public2), wire.Pong{ID: g.Ping.ID, Observed: ap(public2)})
		}
	}
	for _, f := range e.Effects() {
		switch f.(type) {
		case Proven, Observed:
			t.Errorf("a pong from another address than was asked gave %+v", f)
		}
	}
}

// spec/51-path.md#observed
func TestObservedIsReportedOnceAMinute(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 10*time.Millisecond)
	l.up(public)
	l.active(59 * time.Second)
	if n := count[Observed](l); n != 1 {
		t.Errorf("%d reports in a minute, want 1", n)
	}
	l.active(30 * time.Second)
	if n := count[Observed](l); n != 2 {
		t.Errorf("%d reports in a minute and a half, want 2", n)
	}
}

// spec/51-path.md#answer, spec/50-control.md#ping
func TestPingIsAnsweredToWhereItCameFrom(t *testing.T) {
	l := newLab(t, false)
	l.up(public)
	l.effects = nil
	for i := range 1000 {
		l.e.HandlePing(l.now, l.id, way(public2), wire.Ping{ID: uint64(i), Size: 1420})
	}
	l.settle()
	n := 0
	for _, f := range l.effects {
		if pong, ok := f.(SendPong); ok {
			if pong.To != way(public2) || pong.Pong.Observed != ap(public2) || pong.Pong.ID != uint64(n) {
				t.Fatalf("ping from %s answered by %+v", public2, pong)
			}
			n++
		}
	}
	if n != pongBurst {
		t.Errorf("%d pongs for 1,000 pings at once, want %d", n, pongBurst)
	}
	l.e.HandlePing(l.now, key.NodeID{77}, way(public2), wire.Ping{ID: 5})
	if len(l.e.Effects()) != 0 {
		t.Error("a stranger's ping was answered")
	}
}

// spec/51-path.md#candidates
func TestNoSourcePushesOutAnother(t *testing.T) {
	l := newLab(t, false)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("198.51.100.7:%d", 1+i))
	}
	l.candidates(SourceHint, public)
	l.candidates(SourceSaved, private)
	l.candidates(SourceInfo, many...)
	l.candidates(SourceObserved, many[50:]...)
	s := l.e.Status(l.id)
	var addrs []netip.AddrPort
	for _, c := range s.Candidates {
		addrs = append(addrs, c.Way.Addr)
	}
	if len(addrs) > 16 || !slices.Contains(addrs, ap(public)) || !slices.Contains(addrs, ap(private)) {
		t.Errorf("candidates %v", addrs)
	}
}

// spec/51-path.md#candidates
func TestAddressesNobodyCanHave(t *testing.T) {
	e, id := New(Config{Refuse: func(a netip.Addr) bool { return netip.MustParsePrefix("100.64.0.0/10").Contains(a) }}, nil), key.NodeID{1}
	e.AddPeer(id, false)
	now := time.Unix(1e9, 0)
	var list []netip.AddrPort
	for _, s := range []string{"0.0.0.0:1", "[::]:1", "224.0.0.1:5", "[ff02::1]:5", "255.255.255.255:5", "198.51.100.1:0", "100.64.0.9:5"} {
		list = append(list, ap(s))
	}
	e.SetCandidates(now, id, SourceInfo, list)
	e.SetCandidates(now, id, SourceHint, []netip.AddrPort{ap("[::ffff:198.51.100.1]:5"), {}})
	if got := e.Targets(now, id); len(got) != 1 || got[0] != way("198.51.100.1:5") {
		t.Errorf("targets %v", got)
	}
}
