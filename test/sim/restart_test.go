package sim

import (
	"slices"
	"testing"
	"time"
)

// After a power cut all nodes start at once, and know nothing but addresses. Those who talked go on within seconds.
// spec/51-path.md#targets spec/54-routes.md#origination
func TestStreamsGoOnAfterAllHaveRestarted(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{10, 40} {
		story(t, shape{nodes: fewer(nodes)}, func(w *world) {
			w.each(w.nodes, 5*time.Second, (*node).start)
			w.wait(2 * time.Minute)
			var flows []*flow
			for i := 3; i+oneIn < len(w.nodes); i += oneIn { // no datagram can go straight between these
				flows = append(flows, w.flow(w.nodes[i], w.nodes[i+oneIn]))
			}
			w.wait(30 * time.Second)
			var gaps []time.Duration
			for range 3 {
				for _, f := range flows {
					f.fresh()
				}
				w.each(w.nodes, time.Second, func(n *node) { n.kill(); n.start() })
				w.wait(30 * time.Second)
				for _, f := range flows {
					gap, _ := f.gap()
					gaps = append(gaps, gap)
				}
				w.wait(time.Minute)
			}
			slices.Sort(gaps)
			median, longest := gaps[len(gaps)/2], gaps[len(gaps)-1]
			t.Logf("%d nodes: streams are silent for %v (median of %d) to %v", len(w.nodes), median, len(gaps), longest)
			if median > 3*time.Second || longest > 8*time.Second {
				t.Errorf("streams are silent for %v (median), at most %v", median, longest)
			}
		})
	}
}
