package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// How the neighbours of a node find out together that it has gone (spec/54-routes.md#watch).
const (
	turnEvery  = 8 * time.Second // somebody's ping of each node
	checkGap   = 5 * time.Second // between checks of one link
	checkRate  = 1. / 60         // a second, for the word of one node
	checkBurst = 2
)

// allowance is a budget that fills with time. The zero allowance is full.
type allowance struct {
	spent float64
	at    time.Time
}

// take takes one of burst, which fills at rate a second, and reports whether there was one.
func (a *allowance) take(now time.Time, rate, burst float64) bool {
	a.spent = max(0, a.spent-rate*max(0, now.Sub(a.at).Seconds()))
	a.at = now
	if a.spent+1 > burst {
		return false
	}
	a.spent++
	return true
}

// turns tells the owner when this node's turn is to ping the neighbour n, among all of n's neighbours.
func (e *Engine) turns(n *node) {
	if n.neighbour == nil || !n.neighbour.linked || !n.known {
		return
	}
	if len(e.members) < 2 { // nobody else has a map
		e.effect(Pace{ID: n.id})
		return
	}
	links := n.state.Links
	rank, listed := slices.BinarySearchFunc(links, e.self.short, func(l wire.Link, id key.ShortID) int { return compareShort(l.To, id) })
	count := len(links)
	if !listed {
		count++
	}
	e.effect(Pace{ID: n.id, Every: time.Duration(count) * turnEvery, Share: (float64(rank) + .5) / float64(count), Since: n.heard})
}

// missing compares the links that n states now with those before: where a neighbour of this node's is not among them any more,
// it may have gone, and is asked. What other nodes n misses is noted.
func (e *Engine) missing(now time.Time, n *node, before []wire.Link) {
	for _, l := range before {
		x := e.members[l.To]
		if x == nil {
			continue
		}
		if _, still := n.lists(x); still {
			continue
		}
		if _, counted := x.lists(n); !counted {
			continue
		}
		e.alarm.note(now, n, x)
		if x.neighbour == nil || !x.neighbour.linked || now.Sub(x.neighbour.checked) < checkGap || !n.checks.take(now, checkRate, checkBurst) {
			continue
		}
		x.neighbour.checked = now
		e.effect(Check{x.id})
	}
}
