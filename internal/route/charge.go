package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const maxEvidence = 4

// evidence says that a relay was on a route that failed.
type evidence struct {
	dst   key.NodeID
	route wire.Route
	at    time.Time
	sure  bool // all other relays of the route are cleared
}

// blame is what speaks against a relay.
type blame struct {
	evidence []evidence
	avoided  bool
	until    time.Time
	strikes  int
}

func (b *blame) heavy() bool { return b != nil && b.avoided }

// enough reports whether the evidence speaks against the relay: routes to two destinations failed, or nobody else can have
// done it.
func (b *blame) enough() bool {
	return slices.ContainsFunc(b.evidence, func(o evidence) bool { return o.sure || o.dst != b.evidence[0].dst })
}

// charge notes ev against n, and blames n when that is enough. What the map explains speaks against nobody.
func (e *Engine) charge(now time.Time, n *node, ev evidence) {
	if e.broken(ev) {
		return
	}
	if n.blame == nil {
		n.blame = &blame{}
	}
	b := n.blame
	b.evidence = slices.DeleteFunc(b.evidence, func(o evidence) bool {
		return o.dst == ev.dst && o.route == ev.route && !o.sure || now.Sub(o.at) > evidenceFor
	})
	if len(b.evidence) >= maxEvidence {
		b.evidence = b.evidence[1:]
	}
	b.evidence = append(b.evidence, ev)
	if b.evidence = slices.DeleteFunc(b.evidence, e.broken); b.enough() {
		e.avoid(now, n)
	}
}

// broken reports whether some link of the route of ev does not count any more: that is why it failed.
func (e *Engine) broken(ev evidence) bool {
	u := e.self
	for i := range ev.route.Len() + 1 {
		v := e.member(ev.dst)
		if i < ev.route.Len() {
			v = e.members[ev.route.At(i)]
		}
		if v == nil || !e.joined(u, v) {
			return true
		}
		u = v
	}
	return false
}

// joined reports whether the link between u and v counts.
func (e *Engine) joined(u, v *node) (found bool) {
	e.edges(u, func(o *node, _ uint32) { found = found || o == v })
	return found
}

// acquit takes back the blame of those of whom the map shows now that they had nothing to do with it; once, for one who
// swallows could drop its links too.
func (e *Engine) acquit(now time.Time) {
	for _, n := range slices.Clone(e.blamed) {
		if b := n.blame; b.strikes == 1 && !slices.ContainsFunc(b.evidence, func(ev evidence) bool { return !e.broken(ev) }) {
			e.clear(now, n)
		}
	}
}

// avoid lets all routes avoid n for a while.
func (e *Engine) avoid(now time.Time, n *node) {
	b := n.blame
	if b.avoided {
		return
	}
	if now.Sub(b.until) > avoidMemory {
		b.strikes = 0
	}
	b.avoided, b.until = true, now.Add(min(avoidFirst<<min(b.strikes, 10), avoidMost))
	b.strikes++
	e.blamed = append(e.blamed, n)
	e.touch(n)
	e.expireAt = earlier(e.expireAt, b.until)
	e.log.Info("relay loses datagrams and is avoided", "relay", n.short, "until", b.until)
	e.stale(now, urgent)
}

// clear takes back what speaks against n.
func (e *Engine) clear(now time.Time, n *node) {
	b := n.blame
	if b == nil {
		return
	}
	b.evidence = nil
	if b.avoided {
		b.avoided, b.until = false, now
		e.touch(n)
		e.blamed = slices.DeleteFunc(e.blamed, func(o *node) bool { return o == n })
		e.stale(now, soon)
	}
}

// tickBlame gives relays another chance.
func (e *Engine) tickBlame(now time.Time) {
	for _, n := range slices.Clone(e.blamed) {
		if reached(n.blame.until, now) {
			until := n.blame.until
			e.clear(now, n)
			n.blame.until = until
			continue
		}
		e.expireAt = earlier(e.expireAt, n.blame.until)
	}
}
