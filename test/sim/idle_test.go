package sim

import (
	"testing"
	"time"
)

// At rest link states are made anew each half hour, and seldom otherwise: that now and then a datagram is lost is no news.
// spec/54-routes.md#origination
func TestAtRestTheMapIsQuiet(t *testing.T) {
	t.Parallel()
	story(t, shape{nodes: fewer(40)}, func(w *world) {
		w.each(w.nodes, 10*time.Second, (*node).start)
		w.wait(4 * time.Minute)
		for i, most := range []float64{20, 6} { // times what regular ones make, of which 1.2 to 4.2 were seen in 24 runs; at first links are still exchanged for better ones
			const span = 10 * time.Minute
			before, sent := w.originated.Load(), w.total()
			w.wait(span)
			states := float64(w.originated.Load()-before) / span.Seconds()
			bytes := w.total().minus(sent)
			regular := float64(len(w.nodes)) / 1800
			t.Logf("%d min after the start: %.3f link states a second (regular ones %.3f), %.0f B/s a node for the map, %.0f for pings", 4+10*i, states, regular,
				float64(bytes[classMap])/span.Seconds()/float64(len(w.nodes)), float64(bytes[classPing])/span.Seconds()/float64(len(w.nodes)))
			if states > most*regular {
				t.Errorf("%.3f link states a second, want at most %.0f times the regular ones", states, most)
			}
		}
	})
}
