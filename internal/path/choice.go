package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Several ways at once (spec/51-path.md#modes).
const (
	redundantMax = 256 // bytes of an inner packet
	maxSpread    = 4
	spreadTimes  = 1.5 // of the best round trip
	spreadMargin = 5 * time.Millisecond
	spreadStay   = 2 // the limit is so many times as far for what is spread over already
)

// Choice is how packets go to a peer now. It never changes once a [Peer] gave it out: the next decision is a new Choice.
type Choice struct {
	// Way is the path; the zero Way is none.
	Way wire.Way
	// Also, when it is valid, is a second way: copies of packets of at most AlsoMax inner bytes go there too; 0 is no limit.
	// The receiver drops what comes twice.
	Also    wire.Way
	AlsoMax int
	// Spread, when it is not nil, has two ways at least, Way among them: each flow keeps to one of them by its hash, and what
	// is no flow goes by Way. Nobody may write to it.
	Spread []wire.Way
	// Direct is the address at which the peer answers without relays, and to which datagrams are relayed to it: Way's, or the
	// best there is while Way is relayed. The zero AddrPort is none.
	Direct netip.AddrPort
	// MTU is the size in bytes of the largest inner packet that is known to pass by Way and by each of Spread, 1280 at least.
	// Copies of larger packets than pass by Also are held back by AlsoMax.
	MTU int
}

// noChoice is that of a peer without a path.
var noChoice = &Choice{MTU: minMTU}

// Choice returns how packets go to the peer now; never nil. What it points to is read-only.
func (p *Peer) Choice() *Choice {
	if c := p.choice.Load(); c != nil {
		return c
	}
	return noChoice
}

// publish tells the workers what was decided.
func (e *Engine) publish(now time.Time, p *peer) {
	next, old := e.decide(now, p), p.hot.Choice()
	if old.Way == next.Way && old.Also == next.Also && old.AlsoMax == next.AlsoMax &&
		old.Direct == next.Direct && old.MTU == next.MTU && slices.Equal(old.Spread, next.Spread) {
		return
	}
	shared := next
	p.hot.choice.Store(&shared)
	if up := next.Direct.IsValid(); up != old.Direct.IsValid() {
		e.effect(Direct{ID: p.id, Up: up})
	}
}

// decide makes the Choice of p, and marks the candidates in use.
func (e *Engine) decide(now time.Time, p *peer) Choice {
	c := p.current
	doubted := p.doubt
	p.doubt = !p.stock && p.inDoubt(now)
	spread := e.spread(p)
	for _, o := range p.cands {
		o.used = slices.Contains(spread, o)
	}
	if c == nil {
		return *noChoice
	}
	next := Choice{Way: c.way, MTU: c.size()}
	if d := p.direct(); d != nil {
		next.Direct = d.way.Addr
		d.used = d.used || p.detour // relayed datagrams may go there
	}
	if p.stock {
		next.MTU = minMTU
		return next
	}
	for _, o := range spread {
		next.Spread = append(next.Spread, o.way)
		next.MTU = min(next.MTU, o.size())
	}
	switch {
	case p.doubt:
		if o := p.fallback(c); o != nil {
			next.Also = o.way
			if o.size() < next.MTU {
				next.AlsoMax = o.size()
			}
			if !doubted {
				e.log.Debug("path in doubt", "peer", p.id, "way", c.way, "also", o.way)
			}
		}
	case e.cfg.Mode == ModeRedundant:
		if o := p.second(); o != nil {
			next.Also, next.AlsoMax = o.way, redundantMax
			o.used = true
		}
	}
	return next
}

// inDoubt reports whether the path of p may not work (spec/51-path.md#doubt).
func (p *peer) inDoubt(now time.Time) bool {
	c := p.current
	switch {
	case c == nil:
		return false
	case c.state != StateAlive, c.misses > 0, c.mtu.thin, p.asked.After(c.lastSign()):
		return true
	case c.relayed() && !c.listed && len(p.routes) > 0:
		first := p.find(wire.Via(p.routes[0])) // it takes over as soon as it answers
		if first.backoff == 0 && first.state != StateAlive && first.state != StateDead {
			return true
		}
	}
	at := p.doubtAt(now)
	return !at.IsZero() && !at.After(now)
}

// doubtAt returns when the path will be in doubt because nothing proved it while data was sent; zero is never.
func (p *peer) doubtAt(now time.Time) time.Time {
	if p.current == nil || !p.busy(now) {
		return time.Time{}
	}
	return later(p.current.proven, p.busySince).Add(trust)
}

// direct returns the path if it is an address, else the best address that answers, or nil.
func (p *peer) direct() *candidate {
	if p.current != nil && !p.current.relayed() {
		return p.current
	}
	if c := p.bestDirect(nil); c != nil {
		return c
	}
	for _, c := range p.cands {
		if !c.relayed() && c.state == StateAlive {
			return c
		}
	}
	return nil
}

// second returns the best alive candidate beside the path, or nil.
func (p *peer) second() *candidate {
	if c := p.bestDirect(p.current); c != nil {
		return c
	}
	return p.bestRoute(p.current)
}

// spread returns the candidates among which flows are shared out, or nil.
func (e *Engine) spread(p *peer) (list []*candidate) {
	cur := p.current
	if e.cfg.Mode != ModeBalance || cur == nil || cur.relayed() || cur.stream() || p.stock || p.doubt {
		return nil
	}
	best := cur.rtt
	for _, c := range p.cands {
		if !c.relayed() && !c.stream() && c.ready() {
			best = min(best, c.rtt)
		}
	}
	for _, c := range p.cands {
		limit := time.Duration(spreadTimes*float64(best)) + spreadMargin
		if c.used {
			limit *= spreadStay
		}
		if c == cur || !c.relayed() && !c.stream() && c.ready() && c.rtt <= limit {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *candidate) int { // the path, then the fastest
		if a == cur || b != cur && a.rtt < b.rtt {
			return -1
		}
		return 1
	})
	list = list[:min(len(list), maxSpread)]
	if len(list) < 2 {
		return nil
	}
	slices.SortFunc(list, func(a, b *candidate) int { return a.way.Addr.Compare(b.way.Addr) }) // so that flows stay
	return list
}

// ready reports whether c may carry traffic beside the path: it is alive, measured, and its size is known.
func (c *candidate) ready() bool {
	return c.state == StateAlive && c.misses == 0 && c.rtt > 0 && c.mtu.size > 0 && c.mtu.search == 0 && !c.mtu.thin
}
