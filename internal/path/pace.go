package path

import (
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// idleSteps are the times between pings on an idle path. The mappings of NATs last for 30 s or for minutes, which is found out by
// trying (spec/51-path.md#stretching).
var idleSteps = [...]time.Duration{25 * time.Second, 50 * time.Second, 75 * time.Second}

// rekeyBy is how long after a session came up its path is pinged at the latest: whoever was the initiator sends then, and
// makes a new one. Without it a session of 180 s might end between two pings.
const rekeyBy = 150 * time.Second

// turnLeast is the least time between pings by turns, on a path that bears it: what it costs in a day stays below the budget
// (spec/51-path.md#idle-budget).
const turnLeast = 50 * time.Second

const checkFresh = time.Second // a proof so young needs no check

// pace is when the owner wants an idle path pinged. The zero pace is as seldom as can be.
type pace struct {
	every time.Duration
	share float64
	since time.Time
}

// Pace says that the path to id, while it is idle, should be pinged every so often, as far as that is neither too often nor more
// seldom than NATs bear; and at the moments that come share (0 to 1) of that time after since, and whole times later. Zero
// every takes that back.
func (e *Engine) Pace(now time.Time, id key.NodeID, every time.Duration, share float64, since time.Time) {
	p := e.awake(id)
	if p == nil || p.pace == (pace{every, share, since}) {
		return
	}
	p.pace = pace{every, share, since}
	if c := p.current; c != nil && c.state == StateAlive && !c.due.IsZero() && !p.active(now) {
		c.due = earlier(c.due, p.nextPing(now, c))
	}
	e.run(now, p)
}

// Check has the way to id pinged at once: others seem to have lost it.
func (e *Engine) Check(now time.Time, id key.NodeID) {
	p := e.used(id)
	if p == nil || !p.up || p.stock {
		return
	}
	for _, c := range p.cands {
		if (c == p.current || c == p.direct()) && now.Sub(c.proven) > checkFresh && !p.asking(c, false) {
			c.due = now
		}
	}
	e.run(now, p)
}

// answeredIdle counts an answer on an idle path.
func (c *candidate) answeredIdle(now time.Time) {
	if c.calm++; c.calm >= calmPings && c.stretch < len(idleSteps)-1 && !now.Before(c.noStretch) {
		c.stretch, c.calm = c.stretch+1, 0
	}
}

// strained takes back a stretch: a ping after a long pause was lost.
func (c *candidate) strained(now time.Time) {
	c.calm = 0
	if c.stretch > 0 {
		c.stretch, c.noStretch = 0, now.Add(stretchPause)
	}
}

// idlePause returns the time between pings of c while it is the path and idle.
func (p *peer) idlePause(c *candidate) time.Duration {
	most := idleSteps[c.stretch]
	if p.pace.every == 0 {
		return most
	}
	return min(max(p.pace.every, turnLeast), most)
}

// Sharing the pings of an idle path (spec/51-path.md#stretching).
const (
	sharedPings = 4
	sharedSlack = 5 * time.Second
)

// spare puts off our own ping of an idle way after a ping of the peer's came by it, which keeps it as well as ours would. After
// four of them it is our turn.
func (p *peer) spare(now time.Time, from wire.Way) {
	c := p.find(from)
	if c == nil || c.state != StateAlive || c.misses > 0 || p.active(now) || p.asking(c, false) {
		return
	}
	pause := p.interval(now, c)
	if rare := pause == idleSteps[len(idleSteps)-1] && p.pace.every == 0 || pause == standbyRare; !rare {
		return
	}
	switch c.spared++; { // an answer to ours begins it anew: those that come before our turn do not put it off
	case c.spared < sharedPings:
		c.due = p.rekeyed(now, c, later(c.due, now.Add(pause+sharedSlack)), sharedSlack)
	case c.spared == sharedPings:
		c.due = p.rekeyed(now, c, now.Add(pause-sharedSlack), 0)
	}
}

// rekeyed returns the time at, or that by which a ping of the path c must lead to a new session, and slack, if that is earlier.
func (p *peer) rekeyed(now time.Time, c *candidate, at time.Time, slack time.Duration) time.Time {
	if by := p.sessionAt.Add(rekeyBy + slack); c == p.current && by.After(now) && at.After(by) {
		return by
	}
	return at
}

// interval returns how long after an answer c is pinged again (spec/51-path.md#timers).
func (p *peer) interval(now time.Time, c *candidate) time.Duration {
	used := c == p.current || c.used
	switch {
	case used && p.busy(now):
		return heartbeatBusy
	case used && p.active(now):
		return heartbeat
	case c == p.current, c.used && !c.relayed():
		return p.idlePause(c)
	case p.active(now):
		return standby
	}
	if p.current != nil && p.current.stretch == len(idleSteps)-1 && c.state == StateAlive {
		return standbyRare
	}
	return standbyIdle
}

// nextPing returns when c, which has just answered, is pinged again; an idle path when its turn comes.
func (p *peer) nextPing(now time.Time, c *candidate) time.Time {
	pause := p.interval(now, c)
	if c != p.current || p.active(now) || p.pace.every == 0 {
		return p.rekeyed(now, c, now.Add(pause), 0)
	}
	turn := p.pace.since.Add(time.Duration(p.pace.share * float64(pause)))
	left := turn.Sub(now) % pause // the sign is that of the difference
	if left <= 0 {
		left += pause
	}
	return p.rekeyed(now, c, now.Add(left), 0)
}
