package discover

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	publishers = 4             // of one slot
	overlap    = 2 * time.Hour // around the change of the day, when the neighbour day is read too
	ahead      = time.Hour     // before the day changes, when the next one's slots are written too
	freshFor   = time.Hour     // of an invite: who made it publishes it by itself
	maxPicks   = 64
	begIndex   = 0 // of the slot in which all look for those who wait
)

// want is one slot of the plan and what is done with it.
type want struct {
	f                  *family
	day                int64
	index              int
	read, write, watch bool
	every              time.Duration // how often it is watched; 0: when it is written
	made               time.Time     // of the invite
}

// plan decides which slots matter now, and keeps, makes and ends jobs accordingly (spec/70-discover.md#readers,
// spec/70-discover.md#publishers).
func (e *Engine) plan(now time.Time) {
	e.dirty = false
	e.planAt = time.Time{}
	var wants []want
	if e.mode.DHT {
		if e.current != nil {
			wants = e.planNetwork(now, wants)
		}
		if e.newcomer() && e.mode.LAN && !reached(e.joinAt, now) {
			e.look(now, e.joinAt)
		} else if e.newcomer() {
			for _, d := range e.days(now, e.join) {
				wants = append(wants, want{f: e.join, day: d, index: joinSlot, read: true, write: d == e.join.day(now)})
			}
		}
	}
	e.setJobs(now, wants)
	e.planMeetings(now)
	reading := slices.ContainsFunc(wants, func(w want) bool { return w.read })
	if reading && !e.reading {
		e.round = round{at: now, wait: firstWait}
	}
	e.reading = reading
	e.planLAN()
}

func (e *Engine) planNetwork(now time.Time, wants []want) []want {
	isolated := e.isolated(now)
	beg := isolated && reached(e.lonelyAt.Add(begWait), now)
	if !isolated {
		e.look(now, e.lonelyAt)
	} else if !beg {
		e.look(now, e.lonelyAt.Add(begWait))
	}
	for _, d := range e.days(now, e.current) {
		ours := e.written(now, e.current, d)
		for i := range slots {
			w := want{f: e.current, day: d, index: i, read: isolated}
			chosen := e.links > 0 && e.publishes(d, i)
			w.write = ours && chosen || beg && d == e.current.day(now) && (i == begIndex || i == e.begSlot(d))
			if w.watch = chosen && e.hidden(); i == begIndex && e.publishers(d, i)[0].ID == e.cfg.Self {
				w.every = watchHidden
			}
			wants = append(wants, w)
		}
	}
	if e.previous != nil {
		for _, d := range e.days(now, e.previous) {
			for i := range slots {
				wants = append(wants, want{f: e.previous, day: d, index: i, read: isolated, every: watchPrevious,
					watch: i == begIndex && e.links > 0 && e.publishes(d, i)})
			}
		}
	}
	for _, in := range e.invites {
		wants = e.planInvite(now, in, beg, wants)
	}
	return wants
}

func (e *Engine) planInvite(now time.Time, in *invite, beg bool, wants []want) []want {
	if in.made.Before(e.keys.Since) {
		return wants
	}
	alone := e.members == 0 || beg
	if e.links == 0 && !alone {
		end := in.made.Add(freshFor)
		alone = now.Before(end)
		e.look(now, end)
	}
	every := min(max(now.Sub(in.made)/20, watchFirst), rewrite)
	if e.hidden() {
		e.look(now, now.Add(4*every)) // it grows
	}
	for _, d := range e.days(now, in.family) {
		chosen := alone || e.links > 0 && e.publishes(d, joinSlot)
		wants = append(wants, want{f: in.family, day: d, index: joinSlot, made: in.made,
			every: every,
			write: chosen && e.written(now, in.family, d), watch: chosen && e.hidden()})
	}
	return wants
}

// look makes the next plan not later than t, if that is still to come.
func (e *Engine) look(now, t time.Time) {
	if t.After(now) {
		e.planAt = earlier(e.planAt, t)
	}
}

// days lists the days of a family that are read now, and sees to it that this is asked again when it changes.
func (e *Engine) days(now time.Time, f *family) []int64 {
	today := f.day(now)
	out := []int64{today}
	if e.mode.ClockSuspect || f.day(now.Add(overlap)) != today {
		out = append(out, today+1)
	}
	if e.mode.ClockSuspect || f.day(now.Add(-overlap)) != today {
		out = append(out, today-1)
	}
	end := f.begin(today + 1)
	e.look(now, now.Add(maxPlan)) // whatever the clock does
	for _, t := range []time.Time{end.Add(-overlap), end.Add(-ahead), end, f.begin(today).Add(overlap)} {
		e.look(now, t)
	}
	return out
}

// written reports whether the slots of a day are written now by its publishers.
func (e *Engine) written(now time.Time, f *family, day int64) bool {
	return day == f.day(now) || day == f.day(now.Add(ahead))
}

// hidden reports whether newcomers and the isolated may be unable to reach us or any other publisher by themselves, so that
// we must look whether they wait somewhere.
func (e *Engine) hidden() bool {
	return e.ownKind == KindOther && !slices.ContainsFunc(e.nodes, func(n Node) bool { return n.Anchor })
}

// begSlot is the slot in which this node asks to be found, beside begIndex: others lie elsewhere.
func (e *Engine) begSlot(day int64) (index int) {
	index = begIndex + 1
	for i := index + 1; i < slots; i++ {
		a, b := rank(day, i, e.cfg.Self), rank(day, index, e.cfg.Self)
		if bytes.Compare(a[:], b[:]) < 0 {
			index = i
		}
	}
	return index
}

// pick names a choice of publishers.
type pick struct {
	day   int64
	index int
}

// publishes reports whether this node is one of the publishers of a slot.
func (e *Engine) publishes(day int64, index int) bool {
	return slices.ContainsFunc(e.publishers(day, index), func(n Node) bool { return n.ID == e.cfg.Self })
}

// publishers returns the nodes that publish a slot: the 4 anchors of the lowest rank; without anchors, the 4 nodes.
func (e *Engine) publishers(day int64, index int) []Node {
	p := pick{day, index}
	if ns, ok := e.picks[p]; ok {
		return ns
	}
	if e.picks == nil || len(e.picks) >= maxPicks {
		e.picks = map[pick][]Node{}
	}
	type ranked struct {
		rank [8]byte
		Node
	}
	var all []ranked
	anchors := e.ownKind == KindAnchor || slices.ContainsFunc(e.nodes, func(n Node) bool { return n.Anchor })
	add := func(n Node) {
		if n.Anchor || !anchors {
			all = append(all, ranked{rank(day, index, n.ID), n})
		}
	}
	for _, n := range e.nodes {
		if n.ID != e.cfg.Self {
			add(n)
		}
	}
	add(Node{ID: e.cfg.Self, Anchor: e.ownKind == KindAnchor})
	slices.SortFunc(all, func(a, b ranked) int { return bytes.Compare(a.rank[:], b.rank[:]) })
	var out []Node
	for _, r := range all[:min(len(all), publishers)] {
		out = append(out, r.Node)
	}
	e.picks[p] = out
	return out
}

// merge returns what is to stand in a slot: our own addresses, those of its other publishers as the map has them, and
// what others wrote there and is still fresh (spec/70-discover.md#merging). Nil: we have nothing to say.
func (e *Engine) merge(now time.Time, j *job) []entry {
	stamp := j.stamp(now)
	var out []entry
	have := map[key.ShortID]int{}
	add := func(id key.ShortID, kind Kind, stamp uint8, addr netip.AddrPort) {
		if len(out) < maxEntries && have[id] < maxOwn {
			out = append(out, entry{id, kind, stamp, addr})
			have[id]++
		}
	}
	kind := e.ownKind
	if j.f == e.join {
		kind = KindNewcomer
	}
	for _, a := range e.own {
		add(e.cfg.Self, kind, stamp, a)
	}
	if e.links > 0 && !e.newcomer() {
		for _, n := range e.publishers(j.day, j.index) {
			if slices.ContainsFunc(j.got, func(o entry) bool { return o.id == n.ID && fresh(o.stamp, stamp, staleUnits) }) {
				continue // it knows best itself
			}
			kind := KindOther
			if n.Anchor {
				kind = KindAnchor
			}
			for _, a := range n.Addrs {
				add(n.ID, kind, stamp, a)
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	ours := maps.Clone(have)
	ours[e.cfg.Self] = max(ours[e.cfg.Self], 1)
	for _, o := range j.got {
		if ours[o.id] == 0 && fresh(o.stamp, stamp, staleUnits) {
			add(o.id, o.kind, o.stamp, o.addr)
		}
	}
	return out
}

// good returns the entries that may be used or passed on, best first.
func (e *Engine) good(j *job, entries []entry) (out []entry) {
	for _, o := range entries {
		if e.cfg.Public(o.addr.Addr()) && (o.kind != KindNewcomer || j.f.join) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b entry) int {
		ra, rb := rank(j.day, j.index, a.id), rank(j.day, j.index, b.id)
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.stamp, a.stamp), bytes.Compare(ra[:], rb[:]))
	})
	return out
}

const (
	staleUnits    = 5 // about two hours
	newcomerUnits = 1
)

// fresh reports whether an entry is not older than so many units, nor from the future.
func fresh(stamp, now uint8, units int) bool {
	return int(stamp)+units >= int(now) && stamp <= now+1
}
