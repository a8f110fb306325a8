package wireguard

import (
	"testing"
	"time"
)

// The machine of b sleeps, and its clock stands still: its keys are as old as those of a all the same
// (spec/40-wireguard.md#sleep).
func TestSleepCountsIntoTheAgeOfKeys(t *testing.T) {
	for _, test := range []struct {
		what          string
		slept         time.Duration
		kept, renewed bool
	}{
		{"a nap", 40 * time.Second, true, false},
		{"until the session is near its end", 160 * time.Second, true, true},
		{"longer than a session", time.Hour, false, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			w, a, b := pair(t)
			w.connect(a, b)
			w.run(6 * time.Second)
			before := b.peer(a).Sending()
			w.now = w.now.Add(test.slept)
			b.skew = -test.slept
			b.Slept(b.time(), test.slept)
			w.settle()
			now := b.peer(a).Sending()
			if (now != nil) != test.kept || (now != nil && now != before) != test.renewed {
				t.Fatalf("there is a session: %v, a new one: %v, want %v and %v", now != nil, now != before, test.kept, test.renewed)
			}
			if !test.kept && b.down != 1 {
				t.Errorf("%d sessions went down, want the one", b.down)
			}
			w.run(6 * time.Second)
			w.connect(b, a)
			w.talk(a, b)
		})
	}
}

// The process of b is stopped while its clock goes on, in the middle of a handshake: it tries again at once when it runs.
// spec/40-wireguard.md#sleep
func TestHandshakeGoesOnAfterAStop(t *testing.T) {
	w, a, b := pair(t)
	w.pass = func(*datagram) bool { return false }
	b.Initiate(b.time(), b.peer(a))
	w.settle()
	w.pass = nil
	w.now = w.now.Add(200 * time.Second)
	b.Slept(b.time(), 0)
	w.run(time.Millisecond)
	if b.peer(a).Sending() == nil {
		t.Fatal("no session at once")
	}
	w.talk(b, a)
}

// While b was stopped, a asked for a new session and gave up. What waited at b is answered when it runs again, in vain, and must not keep b from
// asking itself at once. spec/40-wireguard.md#sleep
func TestAnOldInitiationDelaysNothingAfterAStop(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(200 * time.Second)
	old := w.capture(typeInitiation)
	a.Initiate(a.time(), a.peer(b))
	w.settle()
	w.pass = func(*datagram) bool { return false }
	w.run(100 * time.Second) // a gives up
	w.pass = nil
	b.receive(a.addr, *old) //nolint:errcheck // seen below
	w.settle()
	if b.peer(a).Sending() != nil {
		t.Fatal("the old initiation made a session")
	}
	b.Slept(b.time(), 0)
	b.Initiate(b.time(), b.peer(a))
	w.run(time.Millisecond)
	if b.peer(a).Sending() == nil {
		t.Fatal("no session at once")
	}
	w.talk(b, a)
}
