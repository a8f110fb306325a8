package discover

import (
	"math"
	"slices"
	"time"
)

const (
	firstWait  = 5 * time.Second
	joinWait   = 2500 * time.Millisecond // between the rounds of a newcomer in its first minute
	joinHaste  = time.Minute
	maxWait    = 5 * time.Minute
	rewrite    = 30 * time.Minute // how often a slot is written
	changeWait = time.Minute      // from a change of our addresses until it is published
	mendPause  = 15 * time.Second // between repairs of one slot; doubled each time that they do not hold
	hurryWait  = 5 * time.Second  // the same, of who waits to be found
	clashWait  = time.Second      // between two writers of the same time, at most; doubled each time
	lostWait   = time.Minute      // what the owner has not answered by then failed
	readFor    = 10 * time.Second // how long what was read may be merged with
	maxGets    = 4                // under way, but for those of who reads
	maxTries   = 4
	maxMends   = 7
	failedWait = 30 * time.Second // at least, between two looks of which one failed

	watchPrevious = 15 * time.Minute
	watchHidden   = 5 * time.Minute
	watchFirst    = 3 * time.Second // of an invite just made
)

// job is what this node does with one slot.
type job struct {
	*slot
	read, write, watch bool
	every              time.Duration

	due     bool      // a round wants it read
	writeAt time.Time // zero: not planned, or under way
	watchAt time.Time
	out     time.Time // since when a Get is under way, or zero
	putting time.Time // since when a Put is under way, or zero

	got    []entry // what was read last
	gotSeq int64
	gotAt  time.Time
	floor  int64     // highest sequence number that was seen there or stored
	used   int64     // the last that we tried
	tries  int       // that failed in a row
	clash  int       // times in a row that another wrote meanwhile
	empty  bool      // there was nothing to say
	mendAt time.Time // when what is missing of ours may be written anew; zero: nothing was written yet
	mends  int       // in a row
	held   bool      // a newcomer's first put was held back once, for there are anchors to ask
}

// setJobs makes the jobs those of wants.
func (e *Engine) setJobs(now time.Time, wants []want) {
	old := e.jobs
	e.jobs = nil
	for _, w := range wants {
		if !w.read && !w.write && !w.watch {
			continue
		}
		var j *job
		if i := slices.IndexFunc(old, func(o *job) bool { return o.f == w.f && o.day == w.day && o.index == w.index }); i >= 0 {
			j = old[i]
		} else {
			j = &job{slot: w.f.slot(w.day, w.index)}
		}
		if w.write && !j.write {
			j.writeAt = now.Add(e.firstWrite(now, w))
		} else if !w.write {
			j.writeAt = time.Time{}
		}
		began := w.watch && (!j.watch || j.every == 0)
		j.read, j.write, j.watch, j.every = w.read, w.write, w.watch, w.every
		if began || !w.watch || w.every == 0 {
			j.watchAt = e.nextWatch(now, j)
		}
		e.jobs = append(e.jobs, j)
	}
}

// firstWrite returns how long a new publisher of a slot waits.
func (e *Engine) firstWrite(now time.Time, w want) time.Duration {
	switch {
	case e.newcomer(), e.links == 0 && w.made.IsZero(): // to be found is urgent
		return 0
	case w.day != w.f.day(now): // all of its publishers get the same idea at the same time
		return e.within(45 * time.Minute)
	case w.made.IsZero():
		return changeWait + e.within(30*time.Second)
	case now.Sub(w.made) < time.Minute: // somebody hands the code over just now
		return e.within(time.Second)
	}
	return e.within(30 * time.Second)
}

// nextWatch returns when a slot is to be looked at again for those who wait there.
func (e *Engine) nextWatch(now time.Time, j *job) time.Time {
	if !j.watch || j.every == 0 {
		return time.Time{}
	}
	return now.Add(e.jitter(j.every, j.every/4))
}

// changed notes that our addresses are others now.
func (j *job) changed(now time.Time) {
	switch {
	case !j.write || !j.putting.IsZero() || j.locked(): // stored will see it
	case j.empty:
		j.writeAt = now
	case j.read:
		j.writeAt = earlier(j.writeAt, now.Add(hurryWait))
	default:
		j.writeAt = earlier(j.writeAt, now.Add(changeWait))
	}
}

// locked reports whether a holder of the key has used up the slot's sequence numbers: nothing can be stored there that day.
func (j *job) locked() bool { return max(j.floor, j.used) == math.MaxInt64 }

func (e *Engine) tickJobs(now time.Time) (next time.Time) {
	if e.reading && reached(e.round.at, now) {
		for _, j := range e.jobs {
			j.due = j.due || j.read
		}
		wait := e.round.wait
		if e.newcomer() && now.Before(e.joinAt.Add(joinHaste)) {
			wait = joinWait
		} else {
			e.round.wait = min(2*wait, maxWait)
		}
		e.round.at = now.Add(e.jitter(wait, wait/4))
	}
	gets := 0
	for _, j := range e.jobs {
		if reached(j.out, now.Add(-lostWait)) {
			e.failed(now, j)
		}
		if reached(j.putting, now.Add(-lostWait)) {
			e.stored(now, j, false)
		}
		if !j.out.IsZero() {
			gets++
		}
	}
	if e.reading {
		next = e.round.at
	}
	for _, j := range e.jobs {
		idle := j.out.IsZero() && j.putting.IsZero()
		wants := j.due || reached(j.writeAt, now) || reached(j.watchAt, now)
		switch {
		case idle && reached(j.writeAt, now) && now.Before(j.gotAt.Add(readFor)):
			e.put(now, j)
		case idle && wants && (j.due || gets < maxGets):
			j.due, j.out = false, now
			gets++
			e.effect(Get{Target: j.target, Public: j.public})
		}
		next = earlier(next, j.next())
		if at := earlier(j.writeAt, j.watchAt); j.out.IsZero() && j.putting.IsZero() && at.After(now) {
			next = earlier(next, at)
		} // what is due and must wait for others gets its turn when they end
	}
	return next
}

// next returns when what is under way is given up.
func (j *job) next() time.Time {
	switch {
	case !j.out.IsZero():
		return j.out.Add(lostWait)
	case !j.putting.IsZero():
		return j.putting.Add(lostWait)
	}
	return time.Time{}
}

func (e *Engine) job(t Target) *job {
	for _, j := range e.jobs {
		if j.target == t {
			return j
		}
	}
	return nil
}

// HandleItem takes the outcome of a Get: an error if the DHT could not be asked; a nil value if nothing is there. The value is
// raw bytes, not kept, and may be anything: the signature of the item is no merit, for whoever has the key can sign.
func (e *Engine) HandleItem(now time.Time, target Target, seq int64, value []byte, err error) {
	j := e.job(target)
	if j == nil || j.out.IsZero() {
		return
	}
	if err != nil {
		e.failed(now, j)
		return
	}
	j.out = time.Time{}
	j.watchAt = e.nextWatch(now, j)
	e.read(now, j, seq, value)
	switch missing := e.missing(j); {
	case !missing && j.putting.IsZero() && len(j.got) > 0:
		j.mends = 0
	case missing && reached(j.mendAt, now): // another wrote at the same time, or the nodes that held it are gone
		j.mendAt = now.Add(min(mendPause<<j.mends, rewrite))
		j.mends = min(j.mends+1, maxMends)
		j.writeAt = earlier(j.writeAt, now.Add(e.within(clashWait)))
	}
	if reached(j.writeAt, now) {
		e.put(now, j)
	}
}

// read takes what stands in a slot now.
func (e *Engine) read(now time.Time, j *job, seq int64, value []byte) {
	j.got, j.gotSeq, j.gotAt = nil, 0, now
	if value == nil {
		return
	}
	j.gotSeq = max(seq, 0)
	j.floor = max(j.floor, seq)
	if got, err := j.decode(value); err == nil {
		j.got = e.good(j, got)
		e.report(now, j)
	}
}

// HandleNewer takes the outcome of a Put that another writer was faster than: the item that stands there now, or a nil value if
// it is not known. What we had to say is merged into it and written again soon (spec/70-discover.md#merging).
func (e *Engine) HandleNewer(now time.Time, target Target, seq int64, value []byte) {
	j := e.job(target)
	if j == nil || j.putting.IsZero() {
		return
	}
	if j.clash++; j.clash > maxTries { // somebody means it
		j.clash = 0
		e.stored(now, j, false)
		return
	}
	j.putting = time.Time{}
	if value != nil {
		e.read(now, j, seq, value)
	}
	if j.write {
		j.writeAt = now.Add(e.within(clashWait << (j.clash - 1)))
	}
}

// missing reports whether what we have written in the slot is not there any more, and there would be room for it.
func (e *Engine) missing(j *job) bool {
	if !j.write || len(e.own) == 0 || !j.putting.IsZero() || j.locked() || j.mendAt.IsZero() || len(j.got) >= maxEntries {
		return false
	}
	return !slices.ContainsFunc(j.got, func(o entry) bool { return o.id == e.cfg.Self })
}

// failed ends a Get that brought nothing.
func (e *Engine) failed(now time.Time, j *job) {
	j.out = time.Time{}
	if reached(j.writeAt, now) {
		j.writeAt = now.Add(e.retry(j))
	}
	if reached(j.watchAt, now) {
		j.watchAt = later(e.nextWatch(now, j), now.Add(e.jitter(failedWait, failedWait/4)))
	}
}

// retry returns how long to wait after a failure.
func (e *Engine) retry(j *job) time.Duration {
	if j.tries++; j.tries > maxTries {
		return e.jitter(rewrite, rewrite/4)
	}
	d := firstWait << j.tries
	return e.jitter(d, d/2)
}

// put writes a slot, by what was read a moment ago.
func (e *Engine) put(now time.Time, j *job) {
	if j.f == e.join && !j.held && slices.ContainsFunc(j.got, func(o entry) bool { return o.kind <= KindMapped }) {
		j.held = true // they can be reached without our being known to anybody
		j.writeAt = now.Add(hurryWait)
		return
	}
	if j.locked() {
		j.writeAt = time.Time{}
		return
	}
	entries := e.merge(now, j)
	j.empty = entries == nil
	nonce, ok := e.nonce()
	if entries == nil || !ok {
		j.writeAt = now.Add(e.jitter(rewrite, rewrite/4)) // or when there are addresses
		return
	}
	p := Put{Target: j.target, Private: j.private, Seq: max(now.Unix(), j.floor+1, j.used+1), Value: j.encode(nonce, entries)}
	if j.gotSeq == j.floor {
		p.CAS = j.gotSeq // else what was read is known to be old
	}
	j.used = p.Seq
	j.putting, j.writeAt, j.gotAt = now, time.Time{}, time.Time{}
	e.effect(p)
}

// HandleStored takes the outcome of a Put: how many nodes of the DHT have stored it, or why none did.
func (e *Engine) HandleStored(now time.Time, target Target, stored int, err error) {
	if j := e.job(target); j != nil && !j.putting.IsZero() {
		e.stored(now, j, stored > 0 && err == nil)
	}
}

func (e *Engine) stored(now time.Time, j *job, ok bool) {
	changed := e.ownAt.After(j.putting)
	j.putting = time.Time{}
	switch {
	case !j.write:
	case !ok:
		j.writeAt = now.Add(e.retry(j))
	default:
		j.tries, j.clash, j.floor = 0, 0, max(j.floor, j.used)
		j.mendAt = later(j.mendAt, now)
		j.writeAt = now.Add(e.jitter(rewrite, rewrite/4))
		if changed {
			j.changed(now)
		}
	}
}

// report tells the owner whom it may find by what was read.
func (e *Engine) report(now time.Time, j *job) {
	waiting := j.f.join && j.f != e.join // for us: newcomers
	if !j.read && !j.watch {
		return
	}
	var found []*Found
	for _, o := range j.got {
		switch {
		case o.id == e.cfg.Self, waiting != (o.kind == KindNewcomer),
			waiting && !fresh(o.stamp, j.stamp(now), newcomerUnits),
			!j.read && e.alive[o.id], !e.hints.allow(now, o.addr):
			continue
		}
		i := slices.IndexFunc(found, func(f *Found) bool { return f.ID == o.id })
		if i < 0 {
			i = len(found)
			found = append(found, &Found{ID: o.id, Kind: o.kind, Source: DHT})
		}
		found[i].Addrs = append(found[i].Addrs, o.addr)
	}
	for _, f := range found {
		e.effect(*f)
	}
}
