package node

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
)

// A machine sleeps, with a clock that stands still meanwhile: when it wakes it has new sessions within two seconds, before
// anything is sent, and the daemon looks at its addresses anew (spec/40-wireguard.md#sleep).
func TestWakingUp(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		a, b := ms[0], ms[1]
		w.eventually("in touch", 30*time.Second, func() bool { return w.linked(ms...) })
		for _, test := range []struct {
			what    string
			slept   time.Duration
			renewed bool
		}{{"a nap", 20 * time.Second, false}, {"ten minutes", 10 * time.Minute, true}, {"a night", 9 * time.Hour, true}} {
			w.eventually("a young session", 5*time.Minute, func() bool {
				p := a.peer(b.self())
				return p.Path == api.PathDirect && time.Since(p.LastHandshake.Time) < 60*time.Second
			})
			before := a.peer(b.self()).LastHandshake.Time
			a.slept.Add(int64(test.slept))
			if !test.renewed {
				w.eventually("the session is looked at", 3*time.Second, func() bool { return a.peer(b.self()).LastHandshake.Time.Equal(before) })
				continue
			}
			took := w.eventually("a session that is new", 2*time.Second, func() bool {
				p := a.peer(b.self())
				return p.Path == api.PathDirect && p.LastHandshake.Time.After(before)
			})
			w.Logf("%s: a new session %v after waking up", test.what, took)
			a.reaches(b)
		}
	})
}
