package discover

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

const (
	maxMet     = 16               // addresses of one answer that are looked at
	meetPause  = 30 * time.Second // after an announcement that failed, doubled each time
	meetPauses = 6
)

// meeting is what this node does with one infohash of the DHT (BEP 5): the older way, which shows addresses to everybody
// (spec/70-discover.md#peers).
type meeting struct {
	f         *family
	day       int64
	hash      Target
	look, say bool
	every     time.Duration // how often it is looked at; 0: as those do who look for members

	lookAt, sayAt time.Time // zero: not planned
	wait          time.Duration
	out           time.Time // since when a Meet is under way, or zero
	saying        bool      // it announces
	tries         int       // announcements that failed in a row
}

// infohash is where those who know the family's secret meet on a day.
func (f *family) infohash(day int64) Target {
	label := "warren peers v1"
	if f.join {
		label = "warren join peers v1"
	}
	return Target(derive(f.root[:], label, binary.BigEndian.AppendUint64(nil, uint64(day)), len(Target{})))
}

// planMeetings decides where to announce and to look now.
func (e *Engine) planMeetings(now time.Time) {
	old := e.meetings
	e.meetings = nil
	if !e.mode.DHT || !e.mode.Peers {
		return
	}
	want := func(f *family, look, say bool, every time.Duration) {
		if !look && !say {
			return
		}
		for _, d := range e.days(now, f) {
			i := slices.IndexFunc(old, func(c *meeting) bool { return c.f == f && c.day == d })
			c := &meeting{f: f, day: d, hash: f.infohash(d), wait: firstWait}
			if i >= 0 {
				c = old[i]
			}
			if look && !c.look || look && every == 0 && c.every > 0 {
				c.lookAt, c.wait = now, firstWait
			}
			if say && !c.say {
				c.sayAt = now
			}
			c.look, c.say, c.every = look, say, every
			e.meetings = append(e.meetings, c)
		}
	}
	if e.newcomer() {
		begs := reached(e.joinAt.Add(begWait), now)
		e.look(now, e.joinAt.Add(begWait))
		want(e.join, begs, begs, 0)
	}
	if e.current == nil {
		return
	}
	beg := e.isolated(now) && reached(e.lonelyAt.Add(begWait), now)
	chosen := e.links > 0 && e.publishes(e.current.day(now), begIndex)
	every := watchHidden
	if beg {
		every = 0
	}
	want(e.current, beg || chosen && e.hidden(), beg || chosen, every)
	for _, in := range e.invites {
		if in.made.Before(e.keys.Since) {
			continue
		}
		mine := e.members == 0 || beg || e.links > 0 && e.publishes(in.day(now), joinSlot)
		want(in.family, mine && e.hidden(), mine, min(max(now.Sub(in.made)/20, firstWait), rewrite))
	}
}

// tickMeetings asks for what is due.
func (e *Engine) tickMeetings(now time.Time) (next time.Time) {
	for _, c := range e.meetings {
		if reached(c.out, now.Add(-lostWait)) {
			e.metDone(now, c, false)
		}
		due := c.look && reached(c.lookAt, now) || c.say && reached(c.sayAt, now)
		if due && c.out.IsZero() {
			c.out, c.saying = now, c.say && reached(c.sayAt, now)
			e.effect(Meet{Infohash: c.hash, Announce: c.saying})
		}
		if !c.out.IsZero() {
			next = earlier(next, c.out.Add(lostWait))
			continue
		}
		if c.look {
			next = earlier(next, c.lookAt)
		}
		if c.say {
			next = earlier(next, c.sayAt)
		}
	}
	return next
}

// HandleMet takes the outcome of a Meet: who announced there, and on how many nodes this node did. The addresses may be
// anybody's.
func (e *Engine) HandleMet(now time.Time, infohash Target, found []netip.AddrPort, announced int) {
	i := slices.IndexFunc(e.meetings, func(c *meeting) bool { return c.hash == infohash && !c.out.IsZero() })
	if i < 0 {
		return
	}
	c := e.meetings[i]
	e.metDone(now, c, announced > 0)
	if !c.look {
		return
	}
	f := Found{Kind: KindOther, Source: Peers}
	if c.f.join && c.f != e.join {
		f.Kind = KindNewcomer
	}
	for _, a := range found {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		known := slices.Contains(e.own, a) || e.links > 0 && slices.ContainsFunc(e.nodes, func(n Node) bool { return slices.Contains(n.Addrs, a) })
		if len(f.Addrs) < maxMet && a.Port() != 0 && e.cfg.Public(a.Addr()) && !known && e.hints.allow(now, a) {
			f.Addrs = append(f.Addrs, a)
		}
	}
	if len(f.Addrs) > 0 {
		e.effect(f)
	}
}

// metDone plans what follows on a Meet that has ended.
func (e *Engine) metDone(now time.Time, c *meeting, announced bool) {
	switch {
	case !c.saying:
	case announced:
		c.tries, c.sayAt = 0, now.Add(e.jitter(rewrite, rewrite/4))
	default:
		c.sayAt = now.Add(e.jitter(meetPause<<c.tries, meetPause/4))
		c.tries = min(c.tries+1, meetPauses)
	}
	c.out, c.saying = time.Time{}, false
	pause := c.every
	if pause == 0 {
		pause = c.wait
		c.wait = min(2*c.wait, maxWait)
	}
	c.lookAt = now.Add(e.jitter(pause, pause/4))
}
