package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// What an attempt sends (spec/73-nat.md#bursts, spec/73-nat.md#prediction, spec/73-nat.md#birthday, spec/73-nat.md#ceiling).
const (
	maxAims     = wire.MaxCandidates + maxSeen
	rounds      = 3
	roundGap    = 2 * time.Second
	probeGrace  = time.Second            // for the last answers
	probeLate   = 500 * time.Millisecond // a burst that is later is left out
	probeTokens = 1000.0                 // pings of all attempts of an engine
	probeRate   = 50.0                   // a second

	nextPorts  = 50 // of a predictable NAT, when we need no foresight for our own
	crossPorts = 24 // when both are predictable, a round

	searchPorts = 1024
	searchBatch = 8
	searchEvery = 125 * time.Millisecond // 64 ports a second
	searchDelay = 500 * time.Millisecond // until the other side's sockets have sent
	searchFor   = 18 * time.Second
	feetBatch   = 16
	feetEvery   = 50 * time.Millisecond
	feetRounds  = 2
	feetAgain   = 8 * time.Second
	maxFeet     = 256

	firstPort  = 1024
	portRange  = 1<<16 - firstPort
	portStride = 25867 // shares no divisor with portRange: every port comes once
)

var bursts = [...]time.Duration{0, 60 * time.Millisecond, 180 * time.Millisecond, 420 * time.Millisecond, 900 * time.Millisecond,
	1800 * time.Millisecond}

// search is a birthday search: one side opens many sockets, the other tries many ports.
type search struct {
	on      bool // in this attempt
	at      time.Time
	wide    bool // we open the sockets
	from    int  // where the order of ports begins; 0: not drawn yet
	done    int  // ports tried in all, so that the next attempt goes on
	batches int  // of this attempt
	feet    []aim
	kicked  int // pings sent from feet
	keep    netip.AddrPort
}

// burstAt returns when burst k is due.
func (u *punch) burstAt(k int) time.Time {
	return u.start.Add(time.Duration(k/len(bursts))*roundGap + bursts[k%len(bursts)])
}

// probe sends what is due, and ends the attempt.
func (e *Engine) probe(now time.Time, p *peer) {
	u := &p.punch
	if c := p.direct(); c != nil && c.proven.After(u.since) {
		u.hard.keep = c.way.Addr
		e.endHard(now, p)
		u.phase, u.due, u.aims = punchWaiting, time.Time{}, nil
		e.log.Debug("direct way found", "peer", p.id, "way", c.way, "bursts", u.burst)
		return
	}
	for u.burst < rounds*len(bursts) && !u.burstAt(u.burst).After(now) {
		if now.Sub(u.burstAt(u.burst)) < probeLate {
			e.sendBurst(now, p, u.burst)
		}
		u.burst++
	}
	end := u.burstAt(rounds*len(bursts) - 1).Add(probeGrace)
	u.due = time.Time{}
	if u.burst < rounds*len(bursts) {
		u.due = u.burstAt(u.burst)
	}
	if u.hard.on {
		end = u.start.Add(searchFor)
		u.due = earlier(u.due, e.searchDue(now, p))
	}
	if !end.After(now) {
		e.punchFailed(now, p, "no luck")
		return
	}
	u.due = earlier(u.due, end)
}

// sendBurst pings every address that the peer stated or spoke from, and those that can be foretold.
func (e *Engine) sendBurst(now time.Time, p *peer, k int) {
	u := &p.punch
	round, i := k/len(bursts), k%len(bursts)
	for _, a := range p.seen {
		e.aim(p, a)
	}
	guesses, cross := e.predict(u, round, i)
	for _, a := range guesses {
		id, ok := e.nonce()
		if a, fine := e.cleanAddr(a); ok && fine {
			e.shoot(now, p, aim{a, id})
		}
	}
	site := e.sameSite(u)
	for _, t := range u.aims {
		a := t.addr.Addr()
		if near(a) && !site && i%3 != 0 || cross && a.Is4() && round < rounds-1 {
			continue // little hope; and in a cross each new destination spoils the count
		}
		e.shoot(now, p, t)
	}
}

// shoot sends one ping of an attempt, within what all attempts may send.
func (e *Engine) shoot(now time.Time, p *peer, t aim) {
	if !e.probes.take(now, probeRate, probeTokens) {
		return
	}
	if c := p.find(wire.Direct(t.addr)); c != nil {
		c.tried = now
	}
	e.effect(SendPing{ID: p.id, To: wire.Direct(t.addr), Ping: wire.Ping{ID: t.id}})
}

// sameSite reports whether both are seen at one address: then they may be on one LAN.
func (e *Engine) sameSite(u *punch) bool {
	for _, c := range u.theirs.List {
		for _, o := range e.own.List {
			if c.Kind != wire.CandidateHost && o.Kind != wire.CandidateHost && c.Addr.Addr() == o.Addr.Addr() {
				return true
			}
		}
	}
	return false
}

// base returns the IPv4 address at which a NAT was last seen.
func base(list []wire.Candidate) (netip.AddrPort, bool) {
	for _, c := range list {
		if c.Kind == wire.CandidateExternal && c.Addr.Addr().Is4() {
			return c.Addr, true
		}
	}
	return netip.AddrPort{}, false
}

// predict returns the ports that the peer's NAT will open next. Where only theirs is symmetric, it is one of the next 50,
// whichever of our pings it was for. Where both are, the port that each opens belongs to one port that it aims at, so the
// two go through their lists in opposite directions: these must cross (spec/73-nat.md#prediction).
func (e *Engine) predict(u *punch, round, i int) (out []netip.AddrPort, cross bool) {
	base, ok := base(u.theirs.List)
	own, theirs := e.own.V4.Class, u.theirs.V4
	if theirs.Class == wire.NATUnknown && !own.Symmetric() && round > 0 { // nobody but one could tell: it may be
		theirs = wire.NAT{Class: wire.NATPredictable, Step: 1}
	}
	if !ok || theirs.Class != wire.NATPredictable || own == wire.NATRandom || own == wire.NATBlocked {
		return nil, false
	}
	add := func(n int) {
		if port := int(base.Port()) + n*int(theirs.Step); port >= firstPort && port < firstPort+portRange {
			out = append(out, netip.AddrPortFrom(base.Addr(), uint16(port)))
		}
	}
	if own != wire.NATPredictable {
		const third = (nextPorts + 2) / 3
		for n := i%3*third + 1; n <= min((i%3+1)*third, nextPorts); n++ {
			add(n)
		}
		return out, false
	}
	for n := range crossPorts {
		if u.opener {
			add(round*(crossPorts+1) + 1 + n)
		} else {
			add(round*(crossPorts+1) + crossPorts - n + round%2)
		}
	}
	return out, true
}

// mayHard reports whether a search with p is allowed and makes sense, and takes the turn for it.
func (e *Engine) mayHard(now time.Time, p *peer, theirs wire.NAT) bool {
	s := &p.punch.hard
	fixed := func(c wire.NATClass) bool { return c == wire.NATIndependent || c == wire.NATOpen }
	wide := e.own.V4.Class == wire.NATRandom && fixed(theirs.Class) && e.cfg.Feet > 0
	if !p.hard || !wide && !(fixed(e.own.V4.Class) && theirs.Class == wire.NATRandom) ||
		!s.at.IsZero() && now.Sub(s.at) < hardRest || !e.cfg.Turn.take(now, p) {
		return false
	}
	s.wide = wide
	return true
}

// launchHard begins the search.
func (e *Engine) launchHard(now time.Time, p *peer) {
	u := &p.punch
	s := &u.hard
	s.at, s.batches, s.kicked, s.feet, s.keep = now, 0, 0, nil, netip.AddrPort{}
	if base, ok := u.target(); ok && s.wide {
		e.effect(Feet{ID: p.id, To: base, Count: min(e.cfg.Feet, maxFeet)})
	}
	if s.from == 0 {
		if id, ok := e.nonce(); ok {
			s.from = 1 + int(id%portRange)
		}
	}
}

// target returns the IPv4 address to which many sockets send: where anybody may, or else where the peer was seen.
func (u *punch) target() (netip.AddrPort, bool) {
	for _, c := range u.theirs.List {
		if a := c.Addr.Addr(); a.Is4() && (c.Kind == wire.CandidateMapped || !near(a)) {
			return c.Addr, true
		}
	}
	return netip.AddrPort{}, false
}

// SetFeet gives the addresses that stand for the sockets which [Feet] asked for, of the owner's own making: what is sent to
// one goes out by that socket to Feet.To, and what comes by it from there is handed in as from it.
func (e *Engine) SetFeet(now time.Time, id key.NodeID, addrs []netip.AddrPort) {
	p := e.used(id)
	if p == nil || !p.punch.hard.on || !p.punch.hard.wide || p.punch.phase != punchProbing {
		return
	}
	s := &p.punch.hard
	s.feet, s.kicked = nil, 0
	for _, a := range addrs[:min(len(addrs), maxFeet)] {
		if id, ok := e.nonce(); ok && a.IsValid() {
			s.feet = append(s.feet, aim{a, id})
		}
	}
	e.run(now, p)
}

// searchDue carries on with the search and returns when there is more to do; zero is never.
func (e *Engine) searchDue(now time.Time, p *peer) (at time.Time) {
	u := &p.punch
	s := &u.hard
	if s.wide {
		for s.kicked < feetRounds*len(s.feet) {
			at = u.start.Add(time.Duration(s.kicked/len(s.feet))*feetAgain + time.Duration(s.kicked%len(s.feet)/feetBatch)*feetEvery)
			if at.After(now) {
				return at
			}
			for range min(feetBatch, len(s.feet)-s.kicked%len(s.feet)) {
				e.effect(SendPing{ID: p.id, To: wire.Direct(s.feet[s.kicked%len(s.feet)].addr), Ping: wire.Ping{ID: s.feet[s.kicked%len(s.feet)].id}})
				s.kicked++
			}
		}
		return time.Time{}
	}
	base, ok := base(u.theirs.List)
	for ok && s.batches < searchPorts/searchBatch {
		if at = u.start.Add(searchDelay + time.Duration(s.batches)*searchEvery); at.After(now) {
			return at
		}
		for range searchBatch {
			port := firstPort + (s.from+s.done*portStride)%portRange
			s.done++
			if id, ok := e.nonce(); ok {
				e.effect(SendPing{ID: p.id, To: wire.Direct(netip.AddrPortFrom(base.Addr(), uint16(port))), Ping: wire.Ping{ID: id}})
			}
		}
		s.batches++
	}
	return time.Time{}
}

// endHard ends the search of this attempt, if there is one.
func (e *Engine) endHard(now time.Time, p *peer) {
	s := &p.punch.hard
	if !s.on {
		return
	}
	if len(s.feet) > 0 || s.wide && p.punch.phase == punchProbing {
		keep := s.keep
		if !slices.ContainsFunc(s.feet, func(t aim) bool { return t.addr == keep }) {
			keep = netip.AddrPort{}
		}
		e.effect(FeetDone{ID: p.id, Keep: keep})
	}
	s.on, s.feet, s.keep = false, nil, netip.AddrPort{}
	e.cfg.Turn.release(now, p, p.punch.phase == punchProbing)
}
