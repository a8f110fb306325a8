package sim

import (
	"testing"
	"time"
)

// When many nodes vanish at once, routes die in rows; the relays that are left have done nothing wrong.
// spec/54-routes.md#blame
func TestHonestRelaysAreNotBlamedForTheDead(t *testing.T) {
	t.Parallel()
	story(t, shape{nodes: fewer(40)}, func(w *world) {
		w.each(w.nodes, 5*time.Second, (*node).start)
		w.wait(2 * time.Minute)
		for i := 3; i < len(w.nodes); i += oneIn { // no datagram can go straight between these
			for j := i + oneIn; j < len(w.nodes); j += oneIn {
				w.flow(w.nodes[i], w.nodes[j])
			}
		}
		w.wait(30 * time.Second)
		var all, honest, seconds int
		for range 2 {
			gone := w.some(w.living(), 0.3)
			for _, n := range gone {
				n.kill()
			}
			worst := 0
			for range 60 {
				w.wait(time.Second)
				now := 0
				for _, n := range w.living() {
					for _, b := range n.blames() {
						if all++; b.runs() {
							honest++
							now++
						}
					}
				}
				seconds += len(w.living())
				worst = max(worst, now)
			}
			t.Logf("%d vanish: at the worst moment, %d nodes that live are blamed by %d", len(gone), worst, len(w.living()))
			w.each(gone, 10*time.Second, (*node).start)
			w.wait(2 * time.Minute)
		}
		t.Logf("of %d relays blamed, each second and by each node, %d live (%.3f at a time on each)", all, honest, float64(honest)/float64(seconds))
		if share := float64(honest) / float64(seconds); share > 0.02 {
			t.Errorf("each node blames %.2f honest relays", share)
		}
	})
}

// blames lists whom n's routes avoid.
func (n *node) blames() (out []*node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for o := range n.flows {
		for _, b := range n.routing.Explain(time.Now(), o.id).Blamed {
			out = append(out, n.w.byID[b.ID])
		}
		break
	}
	return out
}
