package path

import (
	"testing"
	"time"
)

// spec/51-path.md#mtu
func TestPathMTUIsFound(t *testing.T) {
	for _, c := range []struct{ path, want int }{
		{1279, 1280}, {1280, 1280}, {1339, 1280}, {1340, 1340}, {1379, 1340}, {1399, 1380}, {1419, 1400}, {1420, 1420}, {9000, 1420},
	} {
		l := newLab(t, false)
		l.link(public, 30*time.Millisecond).mtu = c.path
		l.up(public)
		l.active(5 * time.Second)
		if got := l.peer.MTU(); got != c.want {
			t.Errorf("on a path for %d: MTU %d, want %d", c.path, got, c.want)
		}
	}
}

// An idle peer too: the first connection must not start with the smallest segments.
func TestPathMTUIsFoundBeforeData(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 30*time.Millisecond)
	l.up(public)
	l.run(500 * time.Millisecond)
	if got := l.peer.MTU(); got != 1420 {
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
	if got := l.peer.MTU(); got != 1420 || l.e.Status(l.id).RTT == 0 {
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
	if got := l.peer.MTU(); got != 1380 {
		t.Fatalf("MTU %d, want 1380", got)
	}
	k.mtu = 0
	l.active(500 * time.Second)
	if got := l.peer.MTU(); got != 1380 {
		t.Errorf("MTU %d before the check is due", got)
	}
	l.active(120 * time.Second)
	if got := l.peer.MTU(); got != 1420 {
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
		fell = fell || l.peer.MTU() == 1280
	}
	if !fell {
		t.Error("big pings are lost, small ones are not, and the MTU never fell to 1280")
	}
	if got := l.peer.MTU(); got != 1380 {
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
	if got := l.peer.MTU(); got != 1280 {
		t.Errorf("MTU %d without a path", got)
	}
	k.down = false
	l.active(15 * time.Second)
	if got := l.peer.MTU(); got != 1420 {
		t.Errorf("MTU %d after the outage, want 1420", got)
	}
}

// One lost ping in five hurts neither the path nor its MTU for long.
func TestLossySearch(t *testing.T) {
	l := newLab(t, false)
	l.link(public, 30*time.Millisecond).drop = 5
	l.up(public)
	l.active(60 * time.Second)
	l.wantBest(public)
	if got := l.peer.MTU(); got != 1420 {
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
	if got := l.peer.MTU(); got != 1420 {
		t.Fatalf("MTU %d by the LAN", got)
	}
	lan.down = true
	l.active(6100 * time.Millisecond)
	l.wantBest(public)
	if got := l.peer.MTU(); got > 1340 {
		t.Fatalf("MTU %d by the public address", got)
	}
	l.active(5 * time.Second)
	if got := l.peer.MTU(); got != 1340 {
		t.Errorf("MTU %d by the public address, want 1340", got)
	}
}
