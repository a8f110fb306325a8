package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Attempts to open a direct way through NATs, while the path is relayed (spec/73-nat.md#exchange, spec/73-nat.md#back-off):
//
//	            due                    answer                     direct way proven
//	waiting ----------> asking -------------------> probing ---------------------------> (nothing to do)
//	   ^     or the peer opens: --------------------^  |
//	   +-------------- no answer, or no luck ----------+
const (
	punchDelay    = 300 * time.Millisecond // plain pings may do
	punchAsk      = time.Second            // between messages that open
	punchAsks     = 3
	punchFirst    = 5 * time.Second // after the first attempt that failed; doubles
	punchMost     = 600 * time.Second
	punchHopeless = time.Hour
	punchStable   = time.Minute // a way that lasted so long was worth it
	punchLead     = time.Second // at most: half a round trip
	freshFor      = 3 * time.Second

	punchBurst = 4.0 // attempts with one peer, whoever opens
	punchRate  = 1.0 / 60

	hardRest  = time.Hour   // between hard attempts with one peer
	hardPause = time.Minute // between two of one host
	hardMost  = 25 * time.Second
)

// Turn lets one hard attempt run at a time on this host: the engines of all networks share one. The zero Turn is ready. It is
// not safe for concurrent use: all engines belong to one control loop.
type Turn struct {
	holder *peer
	until  time.Time // then another may have it
}

func (t *Turn) take(now time.Time, p *peer) bool {
	if t.holder != p && now.Before(t.until) {
		return false
	}
	t.holder, t.until = p, now.Add(hardMost)
	return true
}

// release gives the turn back; used says that a search was begun.
func (t *Turn) release(now time.Time, p *peer, used bool) {
	if t.holder != p {
		return
	}
	t.holder, t.until = nil, now
	if used {
		t.until = now.Add(hardPause)
	}
}

// phase is what an attempt is at.
type phase uint8

const (
	punchWaiting phase = iota
	punchAsking
	punchProbing
)

// punch is what is known of attempts with one peer.
type punch struct {
	phase  phase
	due    time.Time // of the next step; zero: none
	round  uint32
	opener bool
	asks   int

	theirs wire.Candidates // as last said
	told   bool            // they were
	since  time.Time       // when they said it
	start  time.Time       // of probing
	burst  int             // the next one
	aims   []aim
	hard   search

	failed  int // attempts in a row
	backoff time.Duration
	won     time.Time // a direct way was there since; zero: there is none
	bucket  bucket
}

// aim is one address that is pinged again and again with one id.
type aim struct {
	addr netip.AddrPort
	id   uint64
}

// SetOwn says how this node looks from outside, and what addresses a peer is told when a direct way to it is wanted, best
// first. What differs from the last word makes every attempt worth a new one; one that goes on begins anew when the peer was told
// what would not lead it here.
func (e *Engine) SetOwn(now time.Time, v4, v6 wire.NAT, list []wire.Candidate) {
	list = slices.Clone(list[:min(len(list), wire.MaxCandidates)])
	if v4 == e.own.V4 && v6 == e.own.V6 && slices.Equal(list, e.own.List) {
		return
	}
	old := e.own
	e.own = wire.Candidates{V4: v4, V6: v6, List: list}
	was, _ := base(old.List)
	is, _ := base(list)
	misled := v4 != old.V4 || v6 != old.V6 || v4.Class == wire.NATPredictable && is != was
	for _, p := range e.order {
		if u := &p.punch; misled && u.phase == punchProbing && !u.hard.on {
			u.phase, u.due, u.aims = punchWaiting, now, nil
		}
		p.freshPunch(now)
		e.run(now, p)
	}
}

// AllowHard says whether a search among many ports may be made to reach id directly (spec/73-nat.md#birthday). It is off
// until the owner says otherwise.
func (e *Engine) AllowHard(now time.Time, id key.NodeID, allow bool) {
	p := e.peers[id]
	if p == nil || p.hard == allow {
		return
	}
	p.hard = allow
	if p.work == nil {
		return
	}
	if allow && p.punch.phase == punchWaiting && !p.punch.due.IsZero() {
		p.punch.due = earlier(p.punch.due, now.Add(punchFirst))
	}
	e.run(now, p)
}

// HandleCandidates takes the message by which id opens or answers an attempt. Besides, the owner calls [Engine.Received] for
// it.
func (e *Engine) HandleCandidates(now time.Time, id key.NodeID, m wire.Candidates) {
	p := e.used(id)
	if p == nil || p.stock || !p.up {
		return
	}
	u := &p.punch
	switch {
	case m.Answer:
		if u.phase != punchAsking || m.Round != u.round {
			return
		}
		if u.hard.on && !m.Hard {
			e.endHard(now, p)
		}
		e.launch(now, p, m, now, true)
	case u.phase == punchAsking && u.round < m.Round:
		return // both opened: the smaller number counts
	case u.phase == punchProbing && !u.opener && u.round == m.Round: // the answer was lost
		e.sendOwn(p, true)
	case e.freshens(now): // it asks again in a second
		return
	case u.phase != punchAsking && !u.bucket.take(now, punchRate, punchBurst):
		return
	default:
		e.endHard(now, p)
		u.round = m.Round
		u.hard.on = m.Hard && e.mayHard(now, p, m.V4)
		e.sendOwn(p, true)
		half := m.RTT / 2
		if p.current != nil && p.current.rtt > 0 {
			half = p.current.rtt / 2
		}
		e.launch(now, p, m, now.Add(min(half, punchLead)), false)
	}
	e.run(now, p)
}

// sendOwn tells p our addresses, to open or to answer.
func (e *Engine) sendOwn(p *peer, answer bool) {
	m := e.own
	m.Round, m.Answer, m.Hard = p.punch.round, answer, p.punch.hard.on
	if c := p.current; c != nil {
		m.RTT = c.rtt
	}
	e.effect(SendCandidates{ID: p.id, Candidates: m})
}

// wantsPunch reports whether there is something to gain: p is reached by relays or streams and by nothing else.
func (e *Engine) wantsPunch(p *peer) bool {
	return p.current != nil && (p.current.relayed() || p.current.stream()) && !p.open() && len(e.own.List) > 0
}

// punchDue carries on with the attempt at p.
func (e *Engine) punchDue(now time.Time, p *peer) {
	u := &p.punch
	wants := e.wantsPunch(p)
	switch {
	case u.phase == punchProbing:
		e.probe(now, p)
	case !wants:
		if p.open() && u.won.IsZero() {
			u.won = now
		}
		e.endHard(now, p)
		u.phase, u.due = punchWaiting, time.Time{}
	case u.due.IsZero():
		if !u.won.IsZero() && now.Sub(u.won) >= punchStable {
			u.failed, u.backoff = 0, 0
		}
		u.won, u.due = time.Time{}, now.Add(punchDelay+u.backoff)
	case u.due.After(now):
	case u.phase == punchAsking && u.asks == punchAsks:
		e.punchFailed(now, p, "no answer")
	case u.phase == punchAsking:
		u.asks++
		u.due = now.Add(punchAsk)
		e.sendOwn(p, false)
	case e.freshens(now):
		u.due = now.Add(punchDelay)
	default:
		e.openPunch(now, p)
	}
}

// freshens reports whether the port of a predictable NAT that we would tell may be an old one, and asks for a new one.
func (e *Engine) freshens(now time.Time) bool {
	if !e.cfg.Freshens || e.own.V4.Class != wire.NATPredictable || !e.freshAt.IsZero() && now.Sub(e.freshAt) < freshFor {
		return false
	}
	e.freshAt = now
	e.effect(Freshen{})
	return true
}

// openPunch begins an attempt.
func (e *Engine) openPunch(now time.Time, p *peer) {
	u := &p.punch
	id, ok := e.nonce()
	if !ok || !u.bucket.take(now, punchRate, punchBurst) {
		u.due = now.Add(punchFirst)
		return
	}
	u.hard.on = u.failed > 0 && u.told && e.mayHard(now, p, u.theirs.V4)
	u.phase, u.round, u.asks, u.due = punchAsking, uint32(id), 1, now.Add(punchAsk)
	e.sendOwn(p, false)
}

// launch begins to probe at the given time.
func (e *Engine) launch(now time.Time, p *peer, theirs wire.Candidates, start time.Time, opener bool) {
	u := &p.punch
	theirs.List = slices.DeleteFunc(slices.Clone(theirs.List), func(c wire.Candidate) bool { return !e.mayAim(c.Addr) })
	u.phase, u.opener, u.theirs, u.told = punchProbing, opener, theirs, true
	u.since, u.start, u.due, u.burst, u.aims = now, start, start, 0, nil
	for _, c := range theirs.List {
		e.aim(p, c.Addr)
	}
	if u.hard.on {
		e.launchHard(now, p)
	}
}

// mayAim reports whether a peer may be at a: what it states is what it says.
func (e *Engine) mayAim(a netip.AddrPort) bool {
	_, ok := e.cleanAddr(a)
	return ok && !wire.IsLabel(a.Addr())
}

// aim adds an address that the peer stated, or spoke from, to those that are pinged.
func (e *Engine) aim(p *peer, a netip.AddrPort) {
	u := &p.punch
	a, ok := e.cleanAddr(a)
	if !ok || wire.IsLabel(a.Addr()) || len(u.aims) == maxAims || slices.ContainsFunc(u.aims, func(t aim) bool { return t.addr == a }) ||
		slices.ContainsFunc(e.own.List, func(c wire.Candidate) bool { return c.Addr == a }) || e.ownNAT(a.Addr()).Class == wire.NATBlocked {
		return
	}
	if id, ok := e.nonce(); ok {
		u.aims = append(u.aims, aim{a, id})
	}
}

func (e *Engine) ownNAT(a netip.Addr) wire.NAT {
	if a.Is4() {
		return e.own.V4
	}
	return e.own.V6
}

// punched takes the answer to a ping of an attempt; it reports false if it is none.
func (e *Engine) punched(now time.Time, p *peer, from netip.AddrPort, m wire.Pong) bool {
	u := &p.punch
	is := func(t aim) bool { return t.addr == from && t.id == m.ID }
	if !p.up || !slices.ContainsFunc(u.aims, is) && !slices.ContainsFunc(u.hard.feet, is) {
		return false
	}
	way := wire.Direct(from)
	e.observe(now, p, from, m.Observed)
	e.hear(now, p, way)
	p.see(now, way)
	c := p.find(way)
	if c.state != StateAlive {
		e.alive(now, p, c)
		c.due = now // to measure it
	}
	c.proven, c.heard, p.outage = now, now, false
	e.choose(now, p, c)
	return true
}

// punchFailed plans the next attempt.
func (e *Engine) punchFailed(now time.Time, p *peer, why string) {
	u := &p.punch
	e.endHard(now, p)
	u.failed++
	u.backoff = min(max(2*u.backoff, punchFirst), punchMost)
	if e.hopeless(u) {
		u.backoff = punchHopeless
	}
	u.phase, u.due, u.aims = punchWaiting, now.Add(u.backoff), nil
	if !u.opener {
		u.due = u.due.Add(punchAsk) // the other will open first again
	}
	e.log.Debug("no direct way", "peer", p.id, "why", why, "ipv4", e.own.V4.Class, "theirs", u.theirs.V4.Class, "again", u.backoff)
}

// hopeless reports whether the classes leave nothing to hope for but a change (spec/73-nat.md#pairs).
func (e *Engine) hopeless(u *punch) bool {
	a, b := e.own.V4.Class, u.theirs.V4.Class
	v4 := a == wire.NATBlocked || b == wire.NATBlocked || a.Symmetric() && b.Symmetric() && (a == wire.NATRandom || b == wire.NATRandom)
	v6 := e.own.V6.Class == wire.NATBlocked || u.theirs.V6.Class == wire.NATBlocked ||
		!hasIPv6(e.own.List) || !hasIPv6(u.theirs.List)
	return u.told && v4 && v6
}

func hasIPv6(list []wire.Candidate) bool {
	return slices.ContainsFunc(list, func(c wire.Candidate) bool { return c.Addr.Addr().Is6() && !c.Addr.Addr().IsLinkLocalUnicast() })
}

// freshPunch lets the next attempt come at once: something changed.
func (p *peer) freshPunch(now time.Time) {
	u := &p.punch
	u.failed, u.backoff = 0, 0
	if u.phase == punchWaiting && !u.due.IsZero() {
		u.due = earlier(u.due, now.Add(punchDelay))
	}
}

// resetPunch ends what goes on: there is no session any more.
func (e *Engine) resetPunch(now time.Time, p *peer) {
	u := &p.punch
	e.endHard(now, p)
	u.phase, u.due, u.aims, u.won = punchWaiting, time.Time{}, nil, time.Time{}
	u.failed, u.backoff = 0, 0
}

// PunchStatus says how it goes with a direct way to a peer that is reached by relays.
type PunchStatus struct {
	Phase    string // "" if there is nothing to do, "waiting", "asking", "probing" or "searching"
	V4, V6   wire.NAT
	Told     bool      // the peer has said what V4 and V6 are
	Failed   int       // attempts in a row
	Hopeless bool      // the two NATs leave nothing to hope for (spec/73-nat.md#pairs)
	Next     time.Time // of the next attempt while waiting
}

func (e *Engine) punchStatus(p *peer) PunchStatus {
	u := &p.punch
	s := PunchStatus{V4: u.theirs.V4, V6: u.theirs.V6, Told: u.told, Failed: u.failed, Hopeless: u.told && e.hopeless(u)}
	switch {
	case u.hard.on && u.phase == punchProbing:
		s.Phase = "searching"
	case u.phase == punchProbing:
		s.Phase = "probing"
	case u.phase == punchAsking:
		s.Phase = "asking"
	case !u.due.IsZero():
		s.Phase, s.Next = "waiting", u.due
	}
	return s
}
