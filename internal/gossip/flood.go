package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Sending of records (spec/50-control.md#flooding).
const (
	coalesce   = 10 * time.Millisecond // records that come within go out together
	flushPause = 10 * time.Millisecond // between the portions of a long queue
	flushMost  = 16                    // messages in one portion
	emptyPause = 50 * time.Millisecond // when the peer's tokens are used up
	repairMost = 4                     // times that a flooded record is sent anew without being asked for
	urgentMost = 32                    // more that is found missing at once is bulk
)

// peer is what is under way with one peer.
type peer struct {
	id          key.NodeID
	known       ids[wire.RecordPrefix]     // it sent us these
	refused     ids[wire.RecordPrefix]     // it sent us these, and they were rejected
	unconfirmed cache[wire.RecordID, push] // flooded to it, and we do not know that it has them

	urgent, bulk []wire.RecordID
	sorted       bool // bulk is in order of arrival here
	queued       map[wire.RecordID]struct{}
	flush        time.Time // when to send of the queues; zero: they are empty

	serial   uint32    // of our present round
	open     bool      // it has not ended with equal sets
	repaired bool      // it showed a difference, and what was flooded went out anew
	step     int       // rounds in a row that did not
	retry    time.Time // when to begin it anew
	wanted   time.Time // when to begin another
	check    time.Time // when to see whether a flood arrived
	began    time.Time
	fresh    time.Time // last record that was accepted of it while it was the intake
	barred   time.Time // it may not be the intake before

	sends, records, delivers, parses, syncs, floods bucket
}

// push is a record that was flooded.
type push struct {
	at    time.Time
	again int // times it was sent anew
}

func newPeer(now time.Time, id key.NodeID) *peer {
	return &peer{
		id: id, known: newIDs[wire.RecordPrefix](maxKnown), refused: newIDs[wire.RecordPrefix](maxRefused),
		unconfirmed: newCache[wire.RecordID, push](maxKnown), queued: map[wire.RecordID]struct{}{},
		sends: newBucket(now, sendRate, sendBurst), records: newBucket(now, bulkRate, bulkBurst),
		delivers: newBucket(now, deliverRate, deliverBurst), parses: newBucket(now, parseRate, parseBurst),
		syncs: newBucket(now, syncRate, syncBurst), floods: newBucket(now, floodRate, floodBurst),
	}
}

// has notes that p sent the record id.
func (p *peer) has(now time.Time, id wire.RecordID) {
	p.known.put(id.Prefix(), struct{}{})
	p.confirmed(id)
}

// confirmed notes that a flooded record arrived.
func (p *peer) confirmed(id wire.RecordID) {
	if !p.unconfirmed.has(id) {
		return
	}
	p.unconfirmed.remove(id)
	if len(p.unconfirmed.values) == 0 {
		p.check = time.Time{}
	}
}

// repair sends anew what was flooded and may be lost, now that p is known to differ.
func (p *peer) repair(now time.Time) {
	lost := p.unconfirmed.keys()
	if len(lost) > urgentMost {
		return // the round finds out which
	}
	for _, id := range lost {
		u := p.unconfirmed.values[id]
		if u.again++; u.again > repairMost {
			p.unconfirmed.remove(id)
			continue
		}
		p.unconfirmed.put(id, u)
		p.push(now, id, true)
	}
}

// push queues the record id for p. What does not fit is left to a later round.
func (p *peer) push(now time.Time, id wire.RecordID, urgent bool) {
	if _, ok := p.queued[id]; ok {
		return
	}
	switch {
	case urgent && len(p.urgent) < maxUrgent:
		p.urgent = append(p.urgent, id)
	case len(p.bulk) < maxBulk:
		p.bulk = append(p.bulk, id)
		p.sorted = false
	default:
		p.want(now.Add(leftToRounds))
		return
	}
	p.queued[id] = struct{}{}
	p.flush = earlier(p.flush, now.Add(coalesce))
}

// drain sends one portion of what is queued for p: what is urgent first, then the rest in the order in which it came
// to us, so that what a record depends on goes before it.
func (e *Engine) drain(now time.Time, p *peer) {
	p.flush = now.Add(flushPause)
	if !p.sorted {
		slices.SortStableFunc(p.bulk, func(a, b wire.RecordID) int {
			return cmp.Compare(e.set.records[a].seq, e.set.records[b].seq)
		})
		p.sorted = true
	}
	for range flushMost {
		m, ok := e.batch(now, p)
		if len(m.Raw) > 0 {
			e.effects = append(e.effects, Send{Peer: p.id, Body: m})
		}
		if !ok {
			p.flush = now.Add(emptyPause)
			break
		}
		if len(p.urgent)+len(p.bulk) == 0 {
			p.flush = time.Time{}
			break
		}
	}
	if len(p.unconfirmed.values) > 0 && p.check.IsZero() {
		p.check = now.Add(checkAfter)
	}
}

// batch fills one message from p's queues. It reports false when p's tokens are used up.
func (e *Engine) batch(now time.Time, p *peer) (m wire.Records, ok bool) {
	space := maxBody
	for {
		queue := &p.urgent
		if len(p.urgent) == 0 {
			queue = &p.bulk
		}
		if len(*queue) == 0 {
			return m, true
		}
		id := (*queue)[0]
		raw := e.set.records[id].raw
		if raw == nil || p.known.has(id.Prefix()) { // removed since, or the peer sent it itself
			p.pop(queue)
			continue
		}
		need := wire.RecordSpace(raw)
		if need > space {
			return m, true
		}
		cost := need
		if len(m.Raw) == 0 {
			cost += wire.ControlHeader
		}
		p.records.fill(now)
		if queue == &p.bulk && p.records.tokens < 1 || !p.sends.take(now, float64(cost)) {
			return m, false
		}
		p.records.tokens = max(0, p.records.tokens-1)
		m.Raw = append(m.Raw, raw)
		space -= need
		p.pop(queue)
	}
}

func (p *peer) pop(queue *[]wire.RecordID) {
	delete(p.queued, (*queue)[0])
	if *queue = (*queue)[1:]; len(*queue) == 0 {
		*queue = nil
	}
}
