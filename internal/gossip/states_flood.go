package gossip

import (
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Flooding of link states (spec/53-map.md#flooding). Those that come within coalesce share messages, and so do stamps that
// come within tellPause.
const (
	tellPause  = 50 * time.Millisecond
	checkPause = 500 * time.Millisecond // a push that is not acknowledged by then is offered; the next time after twice as long
	checkMost  = 4
	treeStates = 200 // from so many nodes on, or with so many links, most links only tell
	treeLinks  = 6
	treeLeast  = 50                     // but never with fewer nodes
	branches   = 3                      // links that push, at least
	graftAfter = 250 * time.Millisecond // what a neighbour told of and nobody pushed is asked for then
	pruneAgain = time.Second
)

// link is what is under way with one neighbour.
type link struct {
	id     key.NodeID
	eager  bool      // link states are pushed to it; else it is told of them
	pruned time.Time // when it was last asked not to push

	has     slotSet   // it is known to have the version that we hold of these
	pushes  slotQueue // to be sent; marked: it asked
	tells   slotQueue // to be told of; marked: it pushed that, and waits for a word
	unacked pile[int32, unacked]
	news    pile[key.ShortID, promise]
	refused cache[key.ShortID, wire.Version] // it sent us these, and they were rejected
	pen     cache[key.ShortID, penned]

	pushAt, tellAt, checkAt, askAt, roundAt time.Time // when to see to these; zero: there is nothing

	step   int       // rounds in a row that did not end with equal sets
	calm   int       // rounds in a row that found equal sets, while all that was pushed was acknowledged
	gained bool      // it sent us something of use since the last round
	barred time.Time // it may not be the load before

	sends, states, looks, digests, asks bucket
}

// unacked is a link state that was pushed.
type unacked struct {
	version wire.Version
	at      time.Time // when to offer it
	again   int       // times that it was offered
}

// promise is a link state that a neighbour has and we lack.
type promise struct {
	version wire.Version
	at      time.Time // when to ask for it
	tries   int
	graft   bool // if it must be asked for, the neighbour is to push from now on
}

// penned is a link state that cannot be judged yet.
type penned struct {
	version wire.Version
	raw     []byte
}

func newLink(now time.Time, id key.NodeID) *link {
	return &link{
		id: id, eager: true,
		unacked: newPile[int32, unacked](maxUnacked), news: newPile[key.ShortID, promise](maxNews),
		refused: newCache[key.ShortID, wire.Version](maxRefused), pen: newCache[key.ShortID, penned](maxPen),
		sends: newBucket(now, sendRate, sendBurst), states: newBucket(now, stateRate, stateBurst),
		looks: newBucket(now, lookRate, lookBurst), digests: newBucket(now, digestRate, digestBurst),
		asks: newBucket(now, askRate, askBurst),
	}
}

// slotSet is a set of slots.
type slotSet []uint64

func (s *slotSet) add(slot int32) {
	if n := int(slot)/64 + 1 - len(*s); n > 0 {
		*s = append(*s, make([]uint64, n)...)
	}
	(*s)[slot/64] |= 1 << (slot % 64)
}

func (s slotSet) remove(slot int32) {
	if int(slot)/64 < len(s) {
		s[slot/64] &^= 1 << (slot % 64)
	}
}

func (s slotSet) has(slot int32) bool {
	return int(slot)/64 < len(s) && s[slot/64]&(1<<(slot%64)) != 0
}

// slotQueue holds slots, each once, in the order in which they came; some are marked.
type slotQueue struct {
	in, marked slotSet
	order      []int32
}

func (q *slotQueue) put(slot int32, mark bool) {
	if !q.in.has(slot) {
		q.in.add(slot)
		q.order = append(q.order, slot)
	}
	if mark {
		q.marked.add(slot)
	}
}

// sift asks keep about each slot, in order. The queue must not be touched meanwhile.
func (q *slotQueue) sift(keep func(slot int32, marked bool) bool) {
	order := q.order[:0]
	for _, slot := range q.order {
		if keep(slot, q.marked.has(slot)) {
			order = append(order, slot)
			continue
		}
		q.in.remove(slot)
		q.marked.remove(slot)
	}
	if q.order = order; len(order) == 0 && cap(order) > 64 {
		*q = slotQueue{}
	}
}

// push queues what is in the slot: it is sent as it is when its turn comes, and not at all if the neighbour has it by then,
// unless it asked.
func (l *link) push(now time.Time, slot int32, asked bool) {
	l.pushes.put(slot, asked)
	l.pushAt = earlier(l.pushAt, now.Add(coalesce))
}

// tell queues a word on which version is in the slot.
func (l *link) tell(now time.Time, slot int32, ack bool) {
	l.tells.put(slot, ack)
	l.tellAt = earlier(l.tellAt, now.Add(tellPause))
}

// note remembers that the neighbour has version v of node's link state, which we lack, to ask for it at the time at.
func (l *link) note(at time.Time, node key.ShortID, v wire.Version, graft bool) {
	p, ok := l.news.values[node]
	switch {
	case !ok || v.Compare(p.version) > 0:
		p = promise{version: v, at: at, graft: graft}
	case v == p.version && at.Before(p.at) && p.tries == 0:
		p.at, p.graft = at, p.graft && graft
	}
	if l.news.put(node, p) {
		l.askAt = earlier(l.askAt, p.at)
	}
}

// repeated deals with a link state that l sent and is not newer than ours, in the slot.
func (s *States) repeated(now time.Time, l *link, slot int32, v wire.Version) {
	h := &s.set.slots[slot]
	before := l.has.has(slot)
	if v == h.version {
		l.has.add(slot)
	}
	sent := l.unacked.values[slot].version == h.version
	switch {
	case l.has.has(slot) && sent: // the two crossed, and both know it now
	case v == h.version:
		l.tell(now, slot, true)
	case !sent && !l.has.has(slot):
		l.push(now, slot, false)
	}
	if v == h.version && !before {
		s.prune(now, l, h.node)
	}
}

// prune asks l not to push any more, because another was faster with node's link state.
func (s *States) prune(now time.Time, l *link, node key.ShortID) {
	n := s.Len()
	tree := n >= treeStates || n >= treeLeast && len(s.order) >= treeLinks
	if tree && now.Sub(l.pruned) >= pruneAgain && s.asked.values[node].of != l.id && s.eager(l) >= branches {
		l.pruned = now
		s.setEager(now, l, false)
	}
}

// eager returns the number of links that push, but l.
func (s *States) eager(l *link) (n int) {
	for _, o := range s.order {
		if o != l && o.eager {
			n++
		}
	}
	return n
}

// pruned deals with l's wish not to be pushed to. In its place, another link is to push, if too few are left.
func (s *States) pruned(now time.Time, l *link) {
	l.eager = false
	if len(s.order) <= branches || s.eager(l) >= branches {
		return
	}
	for i, at := 0, int(s.upTo(time.Duration(len(s.order)))); i < len(s.order); i++ {
		if o := s.order[(at+i)%len(s.order)]; o != l && !o.eager {
			s.setEager(now, o, true)
			return
		}
	}
}

// setEager says to l whether it and we push, or only tell.
func (s *States) setEager(now time.Time, l *link, eager bool) {
	l.eager = eager
	s.sendDigest(now, l, digest{kind: digestMode, eager: eager})
}

// drain sends one portion of what is queued for l and returns when to send the next.
func (s *States) drain(now time.Time, l *link) (next time.Time) {
	var m wire.States
	space, messages := maxBody, 0
	send := func() {
		if len(m.Raw) > 0 {
			s.effects = append(s.effects, Send{Peer: l.id, Body: m})
			m, space = wire.States{}, maxBody
			messages++
		}
	}
	l.pushes.sift(func(slot int32, asked bool) (keep bool) {
		h := &s.set.slots[slot]
		if h.raw == nil || !asked && l.has.has(slot) {
			return false
		}
		need := wire.RecordSpace(h.raw)
		if !next.IsZero() {
			return true
		}
		if need > space {
			send()
		}
		cost := need
		if len(m.Raw) == 0 {
			cost += wire.ControlHeader
		}
		switch {
		case messages >= flushMost:
			next = now.Add(flushPause)
			return true
		case !l.sends.take(now, float64(cost)):
			next = now.Add(emptyPause)
			return true
		}
		m.Raw = append(m.Raw, h.raw)
		space -= need
		if !asked {
			at := now.Add(checkPause)
			if !l.unacked.put(slot, unacked{version: h.version, at: at}) {
				s.doubt(now, l)
			}
			l.checkAt = earlier(l.checkAt, at)
		}
		return false
	})
	send()
	return next
}

// announce sends the words that are queued for l.
func (s *States) announce(now time.Time, l *link) time.Time {
	var list []stamp
	l.tells.sift(func(slot int32, ack bool) (keep bool) {
		if h := &s.set.slots[slot]; h.raw != nil && (ack || !l.has.has(slot)) {
			list = append(list, stamp{h.node, h.version})
		}
		return false
	})
	s.sendStamps(now, l, digestHave, list)
	return time.Time{}
}

// check offers what was pushed to l and not acknowledged, and returns when to look again.
func (s *States) check(now time.Time, l *link) (next time.Time) {
	var list []stamp
	l.unacked.sift(func(slot int32, u unacked) (unacked, bool) {
		h := &s.set.slots[slot]
		if h.version != u.version || l.has.has(slot) || u.again > checkMost {
			return u, false
		}
		if u.again == checkMost { // left to repair, soon
			l.calm = 0
			if l.step == 0 {
				l.roundAt = earlier(l.roundAt, now.Add(s.upTo(againLeast)))
			}
			return u, false
		}
		if !u.at.After(now) {
			list = append(list, stamp{h.node, h.version})
			u.again++
			u.at = now.Add(checkPause << u.again)
		}
		next = earlier(next, u.at)
		return u, true
	})
	s.sendStamps(now, l, digestOffer, list)
	return next
}

// sendStamps sends the list in as many digests as it needs, 32 at most; what is left over is left to rounds.
func (s *States) sendStamps(now time.Time, l *link, kind byte, list []stamp) {
	for i := 0; i < len(list) && i < answerMost*maxStamps; i += maxStamps {
		s.sendDigest(now, l, digest{kind: kind, stamps: list[i:min(i+maxStamps, len(list))]})
	}
}

// sendDigest sends d to l if its tokens allow it; a later round makes up for it if not.
func (s *States) sendDigest(now time.Time, l *link, d digest) {
	body := d.append(nil)
	if !l.sends.take(now, float64(len(body)+wire.ControlHeader)) {
		s.doubt(now, l)
		return
	}
	s.effects = append(s.effects, Send{Peer: l.id, Body: wire.Digest{Body: body}})
}
