package path

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

func (l *lab) received(from string) { l.e.Received(l.now, l.id, way(from)); l.settle() }

// The peer leaves its Wi-Fi: its next packets come from elsewhere, and the old address answers no more.
// spec/51-path.md#roaming
func TestPeerMoves(t *testing.T) {
	l := newLab(t, false)
	old := l.link(public, 5*time.Millisecond)
	l.link(public2, 60*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(20 * time.Second)
	old.down = true
	l.received(public2)
	l.run(70 * time.Millisecond) // one round trip by the new address
	l.wantBest(public2)
	l.active(30 * time.Second)
	l.wantBest(public2)
	if count[Dead](l) != 0 {
		t.Error("Dead, although the peer only moved")
	}
}

// A packet from another address of a peer that did not move does not pull the path to a worse one.
func TestOtherAddressOfPeerThatDidNotMove(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 5*time.Millisecond)
	l.link(public2, 60*time.Millisecond)
	l.up(public)
	l.active(20 * time.Second)
	for range 20 {
		l.received(public2)
		l.active(time.Second)
		l.wantBest(public)
	}
}

// When the path has been silent, the new address is taken at once, before it is proven.
// spec/51-path.md#roaming
func TestSilentPathIsLeftAtOnce(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 5*time.Millisecond).down = false
	l.up(public)
	l.run(20 * time.Second) // idle: the last answer is old
	l.links[way(public)].down = true
	l.link(public2, 60*time.Millisecond)
	l.received(public2)
	l.wantBest(public2)
}

// Somebody sends the peer's packets on from an address of his own, ahead of the originals.
func TestStolenPathHeals(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 5*time.Millisecond)
	thief := l.link("192.0.2.66:66", 0)
	thief.down = true
	l.up(public)
	l.run(20 * time.Second)
	l.received("192.0.2.66:66")
	l.run(100 * time.Millisecond)
	l.wantBest(public)
	for range 600 {
		l.received("192.0.2.66:66")
		l.run(time.Second)
	}
	l.wantBest(public)
	if thief.sent > maxCandidates*maxAttempts*2 {
		t.Errorf("%d pings to an address that never answered, in 10 minutes", thief.sent)
	}
}

// spec/51-path.md#roaming
func TestNetworkChanged(t *testing.T) {
	l := newLab(t, false)
	gone := l.link(public, 5*time.Millisecond)
	dead := l.link(public2, 20*time.Millisecond)
	dead.down = true
	l.candidates(SourceInfo, public, public2)
	l.up(public)
	l.active(20 * time.Second)
	gone.down, dead.down = true, false
	l.e.NetworkChanged(l.now)
	l.active(4 * time.Second)
	l.wantBest(public2)
}

// spec/51-path.md#stock
func TestStockPeer(t *testing.T) {
	l := newLab(t, true)
	l.received(public)
	l.wantBest(public)
	l.up(public)
	l.active(3 * time.Second)
	l.received(public2)
	l.wantBest(public2)
	l.active(time.Second)
	l.received(public)
	l.wantBest(public2) // not back within 2 s
	l.received(public6)
	l.wantBest(public6) // elsewhere is fine
	l.active(2 * time.Second)
	l.received(public2)
	l.wantBest(public2)

	l.e.HandlePing(l.now, l.id, way(public2), wire.Ping{ID: 1})
	l.e.HandlePong(l.now, l.id, way(public2), wire.Pong{ID: 1})
	l.candidates(SourceHint, private)
	l.active(100 * time.Second)
	for a, k := range l.links {
		if k.sent > 0 {
			t.Errorf("a stock peer was pinged at %v", a)
		}
	}
	if n := count[SendPong](l); n != 0 {
		t.Error("a stock peer was sent a pong")
	}
	if l.peer.Choice().MTU != 1280 {
		t.Errorf("MTU of a stock peer is %d", l.peer.Choice().MTU)
	}
	l.e.SessionDown(l.now, l.id)
	if got := l.e.Targets(l.now, l.id); len(got) == 0 || got[0] != way(public2) {
		t.Errorf("targets %v, want the last address first", got)
	}
}

// Two engines, one with two addresses, find each other and settle on the same pair.
func TestTwoEngines(t *testing.T) {
	l := newLab(t, false)
	other := New(Config{Rand: &counter{n: 1 << 32}}, nil)
	mine := ap("10.0.0.1:1")
	far := other.AddPeer(l.id, false)
	var pump func()
	deliver := func(do func()) { l.at(l.now.Add(10*time.Millisecond), func() { do(); pump() }) }
	carry := func(from *Engine, to *Engine, seenFrom netip.AddrPort) {
		for _, f := range from.Effects() {
			switch f := f.(type) {
			case SendPing:
				deliver(func() { to.HandlePing(l.now, l.id, wire.Direct(seenFrom), f.Ping) })
			case SendPong:
				deliver(func() { to.HandlePong(l.now, l.id, wire.Direct(seenFrom), f.Pong) })
			}
		}
	}
	pump = func() { carry(l.e, other, mine); carry(other, l.e, ap(public)) }
	l.e.SessionUp(l.now, l.id, way(public))
	other.SessionUp(l.now, l.id, wire.Direct(mine))
	for range 600 {
		l.e.Tick(l.now)
		other.Tick(l.now)
		pump()
		end := l.now.Add(100 * time.Millisecond)
		for len(l.events) > 0 && !l.events[0].at.After(end) {
			l.now = l.events[0].at
			do := l.events[0].do
			l.events = l.events[1:]
			do()
		}
		l.now = end
	}
	l.wantBest(public)
	if got := far.Choice(); got.Way != wire.Direct(mine) || got.MTU != 1420 || l.peer.Choice().MTU != 1420 {
		t.Errorf("far side sends as %+v, MTU here %d", got, l.peer.Choice().MTU)
	}
}

// This host comes to another network, in which the direct way does not work: with the news, packets go over the relay too.
// spec/51-path.md#doubt
func TestOwnMoveWithAWarmRelay(t *testing.T) {
	l := newLab(t, false)
	direct := l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.routes(viaA)
	l.up(public)
	l.active(20 * time.Second)
	direct.down = true
	l.e.NetworkChanged(l.now)
	l.settle()
	l.run(0)
	if g := l.gap(); g > 0 {
		t.Errorf("packets arrive again after %v, want at once", g)
	}
	l.active(5 * time.Second)
	l.wantBest(viaA)

	direct.down = false
	l.e.NetworkChanged(l.now)
	l.run(time.Second)
	l.wantBest(public)
	l.active(10 * time.Second)
	l.e.NetworkChanged(l.now) // the path goes on to work
	l.run(0)
	if st := l.e.Status(l.id); !st.Doubt || st.Also != way(viaA) {
		t.Errorf("the path is not in doubt at the change: %+v", st)
	}
	l.run(31 * time.Millisecond)
	if st := l.e.Status(l.id); st.Doubt || st.Also.IsValid() {
		t.Errorf("the path is still in doubt after its answer: %+v", st)
	}
}

// The peer comes to another network, from which only a relay leads here: it speaks by the relay, and the path must show that it
// works.
// spec/51-path.md#doubt
func TestPeerMovesBehindARelay(t *testing.T) {
	l := newLab(t, false)
	direct := l.link(public, 30*time.Millisecond)
	l.link(viaA, 60*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.routes(viaA)
	l.up(public)
	l.active(20 * time.Second)
	l.run(500 * time.Millisecond)
	direct.down = true
	l.received(viaA)
	if g := l.gap(); g > 650*time.Millisecond {
		t.Errorf("packets arrive again after %v, want the time of a ping that is missed", g)
	}
	sent := direct.sent
	for range 100 { // whoever holds packets back and sends them late causes no storm
		l.received(viaA)
		l.run(time.Millisecond)
	}
	if n := direct.sent - sent; n > 3 {
		t.Errorf("%d pings in 100 ms", n)
	}
}

// A peer that speaks from ever new addresses pushes out none that is being asked: else none of them would ever answer in time.
// spec/73-nat.md#bursts
func TestAddressesThatAreAskedAreNotPushedOut(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 20*time.Millisecond)
	l.up(public)
	l.run(time.Second)
	asked := []string{"198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1", "198.51.100.4:1"}[:maxSeen-1]
	for _, a := range asked {
		l.link(a, 400*time.Millisecond)
		l.e.Received(l.now, l.id, way(a))
		l.settle()
	}
	for i := range 100 {
		l.e.Received(l.now, l.id, way(fmt.Sprintf("203.0.113.7:%d", 1000+i)))
		l.settle()
		l.run(2 * time.Millisecond)
	}
	l.run(time.Second)
	for _, a := range asked {
		alive := func(c CandidateStatus) bool { return c.Way == way(a) && c.State == StateAlive }
		if !slices.ContainsFunc(l.e.Status(l.id).Candidates, alive) {
			t.Errorf("%s was pushed out before it could answer", a)
		}
	}
}

// Each packet of a peer from an address that does not answer is a sign that it may be there, but not a reason for one more ping.
// spec/51-path.md#politeness
func TestPacketsFromWhereNothingAnswers(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 20*time.Millisecond)
	l.up(public)
	k := l.link("198.51.100.1:1", time.Millisecond)
	k.down = true
	for range 300 {
		l.received("198.51.100.1:1")
		l.run(100 * time.Millisecond)
	}
	if k.sent == 0 || k.sent > 3*(1+30/5) {
		t.Errorf("%d pings in 30 s, want at most 3 in 5 s", k.sent)
	}
}
