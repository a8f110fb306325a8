package gossip

import (
	"fmt"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Repair of link states (spec/53-map.md#repair).
const (
	firstRound  = 100 * time.Millisecond // the first round with a neighbour begins within
	roundEvery  = 24 * time.Second       // the next ones after this and up to roundSpan more
	roundSpan   = 12 * time.Second
	calmSteps   = 4           // times that these are doubled while there is no doubt: up to 6.4 to 9.6 min
	againLeast  = time.Second // after a round without an end; then it doubles
	againSteps  = 5
	gainedPause = 200 * time.Millisecond // after what was lacking has come
	askMost     = 3                      // times that one link state is asked of one neighbour
	askSame     = 2 * time.Second        // between them
	askPause    = 10 * time.Millisecond
)

// load is the one neighbour from which many link states are taken at a time, so that a newcomer does not get the whole map
// from everybody at once.
type load struct {
	link  *link
	since time.Time
	last  time.Time // something of it was accepted then
}

// begin begins a round with l: one range, all nodes. It returns when to begin another if this one has no end.
func (s *States) begin(now time.Time, l *link) (next time.Time) {
	if l.news.len() > 0 && l.step > 0 {
		return now.Add(againLeast) // what is asked for first
	}
	l.gained = false
	l.step = min(l.step+1, againSteps)
	n := len(s.set.sorted)
	s.compare(now, l, []stretch{{mode: rangePrint, count: n, print: s.set.print(0, n)}})
	return now.Add(againLeast<<(l.step-1) + s.upTo(againLeast))
}

// equal notes that l has what we have.
func (s *States) equal(now time.Time, l *link) {
	if s.load.link == l {
		s.load = load{}
	}
	l.step = 0
	l.roundAt = now.Add((roundEvery + s.upTo(roundSpan)) << l.calm)
	if l.eager { // otherwise words may be lost of which nobody knows
		l.calm = min(l.calm+1, calmSteps)
	}
}

// doubt notes that l and we may differ though the last round found us equal: the next one is not put off any longer.
func (s *States) doubt(now time.Time, l *link) {
	l.calm = 0
	if l.step == 0 {
		l.roundAt = earlier(l.roundAt, now.Add(roundEvery+s.upTo(roundSpan)))
	}
}

// handleDigest answers one digest.
func (s *States) handleDigest(now time.Time, l *link, m wire.Digest) error {
	if !l.digests.take(now, 1) {
		return nil
	}
	d, err := parseDigest(m.Body)
	if err != nil {
		return fmt.Errorf("link states: %w", err)
	}
	switch d.kind {
	case digestCompare:
		s.handleRanges(now, l, d.ranges)
	case digestEqual:
		s.equal(now, l)
	case digestHave, digestOffer:
		for _, t := range d.stamps {
			s.handleStamp(now, l, t, d.kind == digestOffer)
		}
	case digestWant:
		for _, id := range d.wants {
			if slot, ok := s.set.index[id]; ok {
				l.push(now, slot, true)
				if u, ok := l.unacked.values[slot]; ok { // it knows of it
					u.again = checkMost + 1
					l.unacked.values[slot] = u
				}
			}
		}
	case digestMode:
		if l.eager = d.eager; !d.eager {
			s.pruned(now, l)
			s.doubt(now, l)
		}
	}
	return nil
}

// handleStamp takes note of a link state that l has.
func (s *States) handleStamp(now time.Time, l *link, t stamp, offer bool) {
	if slot, ok := s.set.index[t.node]; ok && t.version.Compare(s.set.slots[slot].version) <= 0 {
		s.has(l, slot, t.version)
		if offer {
			l.tell(now, slot, true)
		}
		return
	}
	if s.useless(l, t.node, t.version) {
		return
	}
	at := now.Add(askPause)
	if !offer {
		at = now.Add(graftAfter)
	}
	l.note(at, t.node, t.version, !offer)
}

// has notes that l has version v of what is in the slot, which is not newer than ours.
func (s *States) has(l *link, slot int32, v wire.Version) {
	if v == s.set.slots[slot].version {
		l.has.add(slot)
	}
}

// ask asks l for what it has and we lack, and returns when to do so again.
func (s *States) ask(now time.Time, l *link) (next time.Time) {
	var wants []key.ShortID
	graft := false
	l.news.sift(func(id key.ShortID, p promise) (promise, bool) {
		if slot, ok := s.set.index[id]; ok && p.version.Compare(s.set.slots[slot].version) <= 0 {
			s.has(l, slot, p.version)
			return p, false
		}
		last, asked := s.asked.values[id]
		again := last.at.Add(askAgain)
		if last.of == l.id {
			again = last.at.Add(askSame) // the others first
		}
		switch {
		case s.useless(l, id, p.version):
			return p, false
		case p.at.After(now):
		case asked && again.After(now):
			p.at = again
		case p.tries >= askMost:
			s.doubt(now, l)
			return p, false
		case len(wants) >= maxWants*wantMost || !l.asks.take(now, 1):
			p.at = now.Add(emptyPause)
		default:
			wants = append(wants, id)
			graft = graft || p.graft
			s.asked.put(id, request{of: l.id, at: now})
			p.tries++
			p.at = now.Add(askSame)
		}
		next = earlier(next, p.at)
		return p, true
	})
	for i := 0; i < len(wants); i += maxWants {
		s.sendDigest(now, l, digest{kind: digestWant, wants: wants[i:min(i+maxWants, len(wants))]})
	}
	if graft && !l.eager {
		s.setEager(now, l, true)
	}
	if l.news.len() == 0 && l.gained && l.step > 0 {
		l.step = 1
		l.roundAt = earlier(l.roundAt, now.Add(gainedPause))
	}
	return next
}

// handleRanges answers one comparison.
func (s *States) handleRanges(now time.Time, l *link, ranges []stretch) {
	var answer []stretch
	var offers []stamp
	same := len(ranges) == 1 && ranges[0].prefix.digits == 0
	lack := 0
	for i := range ranges {
		r := &ranges[i]
		lo, hi := s.set.find(r.prefix)
		switch mine := s.set.print(lo, hi); {
		case r.mode == rangePrint && mine == r.print && hi-lo == r.count:
			continue
		case r.mode == rangePrint:
			answer = s.split(answer, r, lo, hi, mine)
			lack += max(0, r.count-(hi-lo))
		default:
			offers = s.diff(now, l, r, lo, hi, offers)
		}
		same = false
	}
	if same {
		s.equal(now, l)
		s.sendDigest(now, l, digest{kind: digestEqual})
		return
	}
	l.calm = 0
	if lack > bulkLack && !s.mayTake(now, l) {
		l.roundAt = earlier(l.roundAt, now.Add(intakePause))
		return
	}
	if l.step == 0 && l.roundAt.Before(now.Add(againLeast)) { // the round of l may do
		l.roundAt = now.Add(againLeast + s.upTo(againLeast))
	}
	s.compare(now, l, answer)
	s.sendStamps(now, l, digestOffer, offers)
}

// split appends what is said to the range r, in which we have sorted[lo:hi] and l something else: our list if it is short, our
// fingerprint if l's is, else those of 16 parts.
func (s *States) split(answer []stretch, r *stretch, lo, hi int, mine print) []stretch {
	switch n := hi - lo; {
	case n <= maxList:
		return append(answer, stretch{prefix: r.prefix, mode: rangeList, list: s.set.stamps(lo, hi)})
	case r.count <= maxList:
		return append(answer, stretch{prefix: r.prefix, mode: rangePrint, count: n, print: mine})
	}
	for d := range buckets {
		p := r.prefix.part(d)
		from, to := s.set.find(p)
		answer = append(answer, stretch{prefix: p, mode: rangePrint, count: to - from, print: s.set.print(from, to)})
	}
	return answer
}

// diff compares l's list in the range r with ours, sorted[lo:hi]: what we lack is noted, and what l lacks added to the offers.
func (s *States) diff(now time.Time, l *link, r *stretch, lo, hi int, offers []stamp) []stamp {
	theirs := r.list
	for _, mine := range s.set.stamps(lo, hi) {
		for len(theirs) > 0 && uint64Of(theirs[0].node) < uint64Of(mine.node) {
			s.handleStamp(now, l, theirs[0], true)
			theirs = theirs[1:]
		}
		var version wire.Version
		if len(theirs) > 0 && theirs[0].node == mine.node {
			version = theirs[0].version
			theirs = theirs[1:]
		}
		switch c := version.Compare(mine.version); {
		case c > 0:
			s.handleStamp(now, l, stamp{mine.node, version}, true)
		case c < 0:
			offers = append(offers, mine)
		default:
			l.has.add(s.set.index[mine.node])
		}
	}
	for _, t := range theirs {
		s.handleStamp(now, l, t, true)
	}
	return offers
}

// compare sends ranges to l in as many digests as they need, 32 at most; what is left over is left to a later round.
func (s *States) compare(now time.Time, l *link, ranges []stretch) {
	for n := 0; len(ranges) > 0 && n < answerMost; n++ {
		size, count := 1, 0
		for count < len(ranges) && size+ranges[count].size() <= maxBody {
			size += ranges[count].size()
			count++
		}
		s.sendDigest(now, l, digest{kind: digestCompare, ranges: ranges[:count]})
		ranges = ranges[count:]
	}
}

// mayTake reports whether l may be, and now is, the neighbour from which many link states are taken.
func (s *States) mayTake(now time.Time, l *link) bool {
	in := &s.load
	switch {
	case in.link == l:
		return true
	case now.Before(l.barred), in.link != nil && now.Sub(in.last) < intakePause && now.Sub(in.since) < intakeMost:
		return false
	case in.link != nil && in.last == in.since: // it said that it had many, and had nothing
		in.link.barred = now.Add(intakeBar)
	case in.link != nil:
		in.link.barred = now.Add(intakeRest)
	}
	*in = load{link: l, since: now, last: now}
	return true
}
