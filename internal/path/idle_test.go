package path

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var idlePeer = key.NodeID{7}

// spec/51-path.md#stretching
func TestAnIdlePathCostsLittle(t *testing.T) {
	e := New(Config{}, nil)
	now := time.Unix(1e9, 0)
	e.AddPeer(idlePeer, false)
	e.Keep(now, idlePeer, true)
	at := wire.Direct(ap("192.0.2.1:1000"))
	e.SessionUp(now, idlePeer, at)
	const pingSize = 20 + 8 + 32 + 16 // IPv4, UDP, WireGuard, the message padded
	bytes, pings, longest := 0, 0, time.Duration(0)
	last := now
	lose := false
	for end := now.Add(24 * time.Hour); now.Before(end); {
		next := e.Tick(now)
		for _, f := range e.Effects() {
			if p, ok := f.(SendPing); ok {
				pings++
				bytes += max(pingSize, 28+32+p.Ping.Size)
				if pings > 60 {
					longest = max(longest, now.Sub(last))
				}
				last = now
				if !lose {
					e.HandlePong(now.Add(20*time.Millisecond), idlePeer, p.To, wire.Pong{ID: p.Ping.ID, Observed: ap("192.0.2.9:9")})
				}
			}
		}
		if next.IsZero() {
			t.Fatal("the path is not kept up")
		}
		now = next
	}
	t.Logf("%d pings and %d bytes a day, one way; the longest pause was %v", pings, bytes, longest)
	if bytes > 600_000/2 { // as much goes out in answers to the other side's pings
		t.Errorf("an idle path costs %d bytes a day", 2*bytes)
	}
	if longest.Round(time.Second) != 75*time.Second {
		t.Errorf("the longest pause is %v", longest)
	}
	lose = true
	for range 2 {
		now = e.Tick(now)
		e.Effects()
	}
	lose = false
	before := now
	for i := 0; i < 20; i++ {
		next := e.Tick(now)
		for _, f := range e.Effects() {
			if p, ok := f.(SendPing); ok {
				e.HandlePong(now.Add(20*time.Millisecond), idlePeer, p.To, wire.Pong{ID: p.Ping.ID, Observed: ap("192.0.2.9:9")})
			}
		}
		if gap := next.Sub(now); i > 4 && gap > 26*time.Second {
			t.Errorf("%v after a loss the pause is %v", now.Sub(before), gap)
		}
		now = next
	}
}

// Neighbours that take turns find out within seconds, though each pings seldom.
// spec/54-routes.md#watch spec/51-path.md#stretching
func TestNeighboursTakeTurns(t *testing.T) {
	const neighbours = 6
	begun := time.Unix(1e9, 0)
	var engines []*Engine
	for i := range neighbours {
		e := New(Config{}, nil)
		e.AddPeer(idlePeer, false)
		e.Keep(begun, idlePeer, true)
		e.SessionUp(begun.Add(time.Duration(i)*time.Second), idlePeer, wire.Direct(ap("192.0.2.1:1000")))
		engines = append(engines, e)
	}
	last, longest, pings := begun, time.Duration(0), 0
	for now := begun; now.Before(begun.Add(2 * time.Hour)); now = now.Add(100 * time.Millisecond) {
		if now.Sub(begun)%(30*time.Minute) == 20*time.Second { // its link state comes anew
			for i, e := range engines {
				e.Pace(now, idlePeer, neighbours*8*time.Second, (float64(i)+.5)/neighbours, now)
			}
		}
		for _, e := range engines {
			e.Tick(now)
			for _, f := range e.Effects() {
				if p, ok := f.(SendPing); ok {
					e.HandlePong(now, idlePeer, p.To, wire.Pong{ID: p.Ping.ID, Observed: ap("192.0.2.9:9")})
					if pings++; now.Sub(begun) > 10*time.Minute { // the pauses are stretched now
						longest = max(longest, now.Sub(last))
					}
					last = now
				}
			}
		}
	}
	if longest > 9*time.Second {
		t.Errorf("nobody pinged for %v", longest)
	}
	if most := neighbours*int(2*time.Hour/(48*time.Second)) + 100; pings > most { // every 25 s in the first minutes
		t.Errorf("%d pings in two hours, want at most %d", pings, most)
	}
}

// spec/54-routes.md#watch
func TestACheckFindsAnIdlePathDeadInThreeSeconds(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 20*time.Millisecond)
	l.up(public)
	l.run(10 * time.Minute)
	sent := k.sent
	for range 50 {
		l.e.Check(l.now, l.id)
		l.settle()
	}
	l.run(100 * time.Millisecond) // it has answered
	l.e.Check(l.now, l.id)
	l.settle()
	l.run(900 * time.Millisecond)
	if k.sent != sent+1 {
		t.Errorf("%d pings for words that it has gone, want one", k.sent-sent)
	}
	l.wantBest(public)
	k.down = true
	l.e.Check(l.now.Add(time.Second), l.id)
	l.run(4500 * time.Millisecond)
	l.wantBest("")
}

// The pings of one side keep the way for both, but each side goes on to measure it: also against one that pings more often than it
// has to. spec/51-path.md#stretching
func TestTheOthersPingsDoNotReplaceAllOfOurs(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 20*time.Millisecond)
	l.e.Keep(l.now, l.id, true)
	l.up(public)
	l.run(time.Hour) // the pauses are stretched now
	l.e.SessionUp(l.now, l.id, way(public))
	l.run(rekeyBy + time.Second) // what keeps the session is behind us
	k.sent = 0
	const minutes = 60
	for range minutes {
		l.e.HandlePing(l.now, l.id, way(public), wire.Ping{ID: 1})
		l.settle()
		l.run(time.Minute)
	}
	t.Logf("%d pings in an hour, against %d of the other side's", k.sent, minutes)
	if k.sent < minutes/(sharedPings+2) || k.sent > 60*60/70 {
		t.Errorf("%d pings in an hour, against %d of the other side's", k.sent, minutes)
	}
}
