package gossip

import (
	"fmt"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Reconciliation (spec/50-control.md#rounds).
const (
	buckets      = 16
	answerMost   = 32 // messages in answer to one
	wantMost     = 4  // of them, messages that ask for records
	checkAfter   = 400 * time.Millisecond
	leftToRounds = time.Second
	retryLeast   = 500 * time.Millisecond // three times, so that a flood is repaired in 2 s; then it doubles
	retryFlat    = 2
	retrySteps   = 9                      // up to 64 s
	roundPause   = 400 * time.Millisecond // between the beginnings of two rounds with one peer
	bulkPause    = 500 * time.Millisecond // no round while records come in
	askAgain     = time.Second
	idleLeast    = 40 * time.Second
	idleSpan     = 40 * time.Second
	calmRounds   = 4 // times that these are doubled while nothing changes: up to 640 to 1,280 s

	bulkLack    = 64 // a peer that has so many more than we is an intake
	busyQueue   = 64
	intakePause = 2 * time.Second
	intakeMost  = 60 * time.Second
	intakeRest  = 5 * time.Second
	intakeBar   = 30 * time.Second
)

// intake is the one peer from which many records are taken at a time, so that a newcomer does not get the whole set from
// everybody at once.
type intake struct {
	peer   *peer
	since  time.Time
	last   time.Time // a record of it was accepted then
	useful bool      // one ever was
}

// request is a record that was asked for.
type request struct {
	of key.NodeID
	at time.Time
}

// want asks for a round with p at the time at, if none is planned before.
func (p *peer) want(at time.Time) { p.wanted = earlier(p.wanted, at) }

// round returns when the next round with p begins; zero is never.
func (p *peer) round() time.Time {
	at := earlier(earlier(p.retry, p.wanted), p.check)
	if at.IsZero() {
		return at
	}
	if again := p.began.Add(roundPause); !p.began.IsZero() && at.Before(again) {
		at = again
	}
	if quiet := p.fresh.Add(bulkPause); !p.fresh.IsZero() && at.Before(quiet) {
		at = quiet
	}
	return at
}

// begin begins a round with p: one range, all ids.
func (e *Engine) begin(now time.Time, p *peer) {
	p.wanted, p.check = time.Time{}, time.Time{}
	if len(p.bulk) > 0 {
		p.retry = now.Add(bulkPause) // what is on its way first
		return
	}
	p.serial, p.open, p.repaired, p.began = uint32(e.random()), true, false, now
	p.retry = now.Add(retryLeast << max(0, p.step-retryFlat))
	p.step = min(p.step+1, retrySteps)
	n := len(e.set.all())
	e.answer(now, p, p.serial, []span{{upper: bound{end: true}, mode: modePrint, count: n, print: e.set.print(0, n)}})
}

// equal notes that p has what we had at the time since.
func (p *peer) equal(since time.Time) {
	p.open, p.step, p.retry = false, 0, time.Time{}
	for _, id := range p.unconfirmed.keys() {
		if !p.unconfirmed.values[id].at.After(since) {
			p.unconfirmed.remove(id)
		}
	}
}

// handleSync answers one step.
func (e *Engine) handleSync(now time.Time, p *peer, m wire.Sync) error {
	if !p.syncs.take(now, 1) {
		return nil
	}
	f, err := parseSync(m.Body)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	switch f.kind {
	case kindEqual:
		if p.open && f.round == p.serial {
			p.equal(p.began)
		}
	case kindWant:
		for _, id := range f.ids {
			if e.set.has(id) {
				p.known.remove(id.Prefix())
				p.push(now, id, len(p.urgent) < maxUrgent/4)
			}
		}
	case kindRanges:
		e.handleRanges(now, p, f)
	}
	return nil
}

// step is what comes of one Ranges message.
type step struct {
	answer []span
	wants  []wire.RecordID // the peer has them, we have not
	pushes []wire.RecordID // we have them, the peer has not
	same   bool            // all ranges, without a gap, are the same
	lack   int             // how many more the peer has, by its fingerprints
}

func (e *Engine) handleRanges(now time.Time, p *peer, f frame) {
	s := e.compare(now, p, f)
	if s.same {
		p.equal(now)
		p.wanted, p.check = time.Time{}, time.Time{}
		e.sync(now, p, frame{kind: kindEqual, round: f.round})
		return
	}
	e.stir(now)
	if p.open && f.round == p.serial && !p.repaired {
		p.repaired = true
		p.repair(now)
	}
	if s.lack > bulkLack && !e.mayTake(now, p) {
		p.want(now.Add(intakePause))
		return
	}
	if len(p.bulk) > busyQueue {
		s.answer = slices.DeleteFunc(s.answer, func(a span) bool { return a.mode == modePrint })
	}
	e.answer(now, p, f.round, s.answer)
	for i := 0; i < len(s.wants) && i < wantMost*maxIDs; i += maxIDs {
		e.sync(now, p, frame{kind: kindWant, round: f.round, ids: s.wants[i:min(i+maxIDs, len(s.wants))]})
	}
	for _, id := range s.pushes {
		p.known.remove(id.Prefix())
		p.push(now, id, len(s.pushes) <= urgentMost)
	}
}

// compare works through the ranges of f.
func (e *Engine) compare(now time.Time, p *peer, f frame) (out step) {
	out.same = f.spans[len(f.spans)-1].upper.end
	for _, s := range f.spans {
		lo, hi := e.set.index(s.lower), e.set.index(s.upper)
		switch s.mode {
		case modeSkip:
			out.same = false
		case modePrint:
			mine := e.set.print(lo, hi)
			if mine == s.print && hi-lo == s.count {
				continue
			}
			out.same = false
			out.lack += max(0, s.count-(hi-lo))
			out.answer = append(out.answer, e.split(s, lo, hi, mine)...)
		case modeIDs:
			out.same = false
			e.diff(now, p, s, lo, hi, &out)
		}
	}
	slices.SortFunc(out.wants, func(a, b wire.RecordID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// split answers the range s, in which we have ids[lo:hi] and the peer something else: by our ids when they are few, by
// our fingerprint when its are, else by those of 16 parts.
func (e *Engine) split(s span, lo, hi int, mine print) []span {
	n := hi - lo
	switch {
	case n <= maxIDs:
		return []span{{lower: s.lower, upper: s.upper, mode: modeIDs, ids: e.set.ids[lo:hi]}}
	case s.count <= maxIDs:
		return []span{{lower: s.lower, upper: s.upper, mode: modePrint, count: n, print: mine}}
	}
	out := make([]span, 0, buckets)
	lower, from := s.lower, lo
	for i := 1; i <= buckets; i++ {
		to, upper := lo+i*n/buckets, s.upper
		if i < buckets {
			upper = between(e.set.ids[to-1], e.set.ids[to])
		}
		out = append(out, span{lower: lower, upper: upper, mode: modePrint, count: to - from, print: e.set.print(from, to)})
		lower, from = upper, to
	}
	return out
}

// diff compares the peer's ids in the range s with ours, ids[lo:hi].
func (e *Engine) diff(now time.Time, p *peer, s span, lo, hi int, out *step) {
	theirs := s.ids
	for _, id := range e.set.ids[lo:hi] {
		for len(theirs) > 0 && slices.Compare(theirs[0][:], id[:]) < 0 {
			e.lacking(now, p, theirs[0], out)
			theirs = theirs[1:]
		}
		if len(theirs) > 0 && theirs[0] == id {
			p.confirmed(id)
			theirs = theirs[1:]
			continue
		}
		out.pushes = append(out.pushes, id)
	}
	for _, id := range theirs {
		e.lacking(now, p, id, out)
	}
}

// lacking notes that p has the record id and we have not, unless it is of no use to ask.
func (e *Engine) lacking(now time.Time, p *peer, id wire.RecordID, out *step) {
	if e.gone.has(id) || p.refused.has(id.Prefix()) || len(out.wants) >= wantMost*maxIDs {
		return
	}
	if last, ok := e.asked.values[id]; ok && last.of != p.id && now.Sub(last.at) < askAgain {
		return // another peer is at it
	}
	e.asked.put(id, request{of: p.id, at: now})
	out.wants = append(out.wants, id)
}

// mayTake reports whether p may be, and now is, the peer from which many records are taken.
func (e *Engine) mayTake(now time.Time, p *peer) bool {
	in := &e.intake
	if in.peer != nil && now.Sub(in.since) > intakeMost {
		in.peer.barred = now.Add(intakeRest)
		in.peer = nil
	}
	if in.peer == p {
		return true
	}
	if in.peer != nil && now.Sub(in.last) < intakePause || now.Before(p.barred) {
		return false
	}
	if in.peer != nil && !in.useful { // it said that it had records, and had none
		in.peer.barred = now.Add(intakeBar)
	}
	*in = intake{peer: p, since: now, last: now}
	return true
}

// answer sends spans to p, as many as one answer may have.
func (e *Engine) answer(now time.Time, p *peer, round uint32, spans []span) {
	for _, body := range pack(round, spans, answerMost) {
		e.send(now, p, body)
	}
}

func (e *Engine) sync(now time.Time, p *peer, f frame) { e.send(now, p, f.append(nil)) }

// send sends a Sync body to p if its tokens allow it; a later round makes up for it if not.
func (e *Engine) send(now time.Time, p *peer, body []byte) {
	if p.sends.take(now, float64(len(body)+wire.ControlHeader)) {
		e.effects = append(e.effects, Send{Peer: p.id, Body: wire.Sync{Body: body}})
	}
}
