package dataplane

import (
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Measures of the queue of relayed datagrams (spec/52-relay.md#fair-queue).
const (
	queueTime = 100 * time.Millisecond // at the rate, so long may a datagram wait
	minQueue  = 64 << 10               // bytes
	maxQueue  = 8 << 20
	burstTime = 5 * time.Millisecond // sent at once
	restTime  = 2 * time.Millisecond // between two times when something is sent
	minShot   = 16 << 10
	maxShot   = 256 << 10
	quantum   = 3000 // bytes that a neighbour may send in its turn: two full datagrams
	maxFree   = 512  // buffers kept for later
)

// item is a datagram that waits: its header is advanced and not sealed yet.
type item struct {
	data   []byte
	header int // its length
	next   *Peer
	source *Peer
}

// queue is what waits of one account, oldest first.
type queue struct {
	items []item
	first int // of items that still waits
	bytes int
}

// waiting is what waits of one lane.
type waiting struct {
	turns   []*account // those with something in the queue; the first is next
	bytes   int
	deficit int // bytes that it may still send in this turn
}

// shaper holds relayed datagrams back to a rate. Neighbours share it evenly by bytes (deficit round robin), and of what one
// neighbour sends its sources take turns; when all is full, the oldest datagram of the longest queue is dropped. It is used only
// when there is a limit on all that is relayed.
type shaper struct {
	wake chan struct{} // holds one token: there is something to look at

	mu     sync.Mutex // guards what follows
	lanes  []*lane    // those with something in a queue; the first is next
	bytes  int
	credit int64 // bytes that may be sent now
	last   int64 // when credit was reckoned
	free   [][]byte
}

// rouse lets shape look at the queue.
func (s *shaper) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waiting returns how many bytes wait.
func (s *shaper) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// add takes a copy of b, which the decision p lets pass.
func (s *shaper) add(p *passage, b []byte) {
	room := int(min(max(p.policy.Rate*int64(queueTime)/int64(time.Second), minQueue), maxQueue))
	s.mu.Lock()
	first := len(s.lanes) == 0
	s.push(p.lane, p.account, item{data: s.copy(b), header: p.n, next: p.next, source: p.source})
	for s.bytes > room {
		s.dropLongest()
	}
	s.mu.Unlock()
	if first {
		s.rouse()
	}
}

// copy returns a copy of b in a buffer that was used before, if there is one.
func (s *shaper) copy(b []byte) []byte {
	var buf []byte
	if n := len(s.free); n > 0 {
		buf, s.free = s.free[n-1], s.free[:n-1]
	}
	return append(buf[:0], b...)
}

// push puts a datagram at the end of its account's queue.
func (s *shaper) push(l *lane, a *account, it item) {
	if len(a.queue.items) == a.queue.first {
		l.queued.turns = append(l.queued.turns, a)
	}
	if l.queued.bytes == 0 {
		s.lanes = append(s.lanes, l)
	}
	a.queue.items = append(a.queue.items, it)
	n := len(it.data)
	a.queue.bytes += n
	l.queued.bytes += n
	s.bytes += n
}

// pop takes the oldest datagram of account i among the turns of lane j. The account goes to the end of the turns, or out.
func (s *shaper) pop(j, i int) item {
	l := s.lanes[j]
	a := l.queued.turns[i]
	q := &a.queue
	it := q.items[q.first]
	q.items[q.first] = item{}
	q.first++
	l.queued.turns = append(l.queued.turns[:i], l.queued.turns[i+1:]...)
	if q.first < len(q.items) {
		l.queued.turns = append(l.queued.turns, a)
		if q.first >= len(q.items)/2 && q.first >= 64 {
			q.items = q.items[:copy(q.items, q.items[q.first:])]
			q.first = 0
		}
	} else {
		q.items, q.first = q.items[:0], 0
	}
	n := len(it.data)
	q.bytes -= n
	l.queued.bytes -= n
	s.bytes -= n
	if l.queued.bytes == 0 {
		l.queued.deficit = 0
		s.lanes = append(s.lanes[:j], s.lanes[j+1:]...)
	}
	return it
}

// dropLongest drops the oldest datagram of the longest queue of the lane in which most waits.
func (s *shaper) dropLongest() {
	j, i := 0, 0
	for k, l := range s.lanes {
		if l.queued.bytes > s.lanes[j].queued.bytes {
			j = k
		}
	}
	turns := s.lanes[j].queued.turns
	for k, a := range turns {
		if a.queue.bytes > turns[i].queue.bytes {
			i = k
		}
	}
	it := s.pop(j, i)
	it.dropped(DropRelayQueue)
	it.next.network.relayed.shed.Add(1)
	s.recycle(it.data)
}

// recycle keeps a buffer for later.
func (s *shaper) recycle(b []byte) {
	if len(s.free) < maxFree {
		s.free = append(s.free, b)
	}
}

// take appends to out what may be sent at now with so many bytes a second (0: all), and returns when to come again: 0 when nothing
// waits.
func (s *shaper) take(now, rate int64, out []item) (_ []item, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shot := int64(maxQueue)
	if rate > 0 {
		shot = min(max(rate*int64(burstTime)/int64(time.Second), minShot), maxShot)
		passed := min(max(now-s.last, 0), int64(time.Second))
		s.credit = min(s.credit+rate*passed/int64(time.Second), shot)
	} else {
		s.credit = shot
	}
	s.last = now
	for s.credit > 0 && len(s.lanes) > 0 {
		l := s.lanes[0]
		if l.queued.deficit <= 0 {
			l.queued.deficit += quantum
			copy(s.lanes, s.lanes[1:])
			s.lanes[len(s.lanes)-1] = l
			continue
		}
		it := s.pop(0, 0)
		if l.queued.bytes > 0 {
			l.queued.deficit -= len(it.data)
		}
		s.credit -= int64(len(it.data))
		out = append(out, it)
	}
	if len(s.lanes) == 0 || rate == 0 {
		return out, 0
	}
	want := min(max(rate*int64(restTime)/int64(time.Second), quantum), shot) - s.credit
	return out, time.Duration(want * int64(time.Second) / rate)
}

// shape sends what waits, until stop is closed.
func (n *Network) shape(stop <-chan struct{}) {
	var s *sender
	var items []item
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-n.shaper.wake:
		case <-timer.C:
		}
		policy := n.hops.Load().policy
		if policy == nil {
			policy = &RelayPolicy{}
		}
		var again time.Duration
		if items, again = n.shaper.take(n.plane.now(), policy.Rate, items[:0]); len(items) > 0 {
			if s == nil {
				s = newSender(n.plane, nil, 0)
			}
			n.release(s, items)
		}
		if again > 0 {
			timer.Reset(again)
		}
	}
}

// release seals items and sends them.
func (n *Network) release(s *sender, items []item) {
	s.now = n.plane.now()
	for i := range items {
		it := &items[i]
		k, to := it.next.Session.Sending(), it.next.Path.Choice().Direct
		if k == nil || !to.IsValid() {
			it.dropped(DropRelayNoHop)
			continue
		}
		buf := s.room(len(it.data))
		size := copy(buf, it.data)
		sealed, err := k.SealHeader(s.now, buf, it.header, 1)
		if err != nil {
			it.dropped(DropRelayNoHop)
			continue
		}
		s.add(size, to, it.next.maskTo(to))
		s.sent(it.next, k, true, sealed)
		if isUse(it.data[wire.RelayOverhead+it.header:]) {
			it.next.carried.Add(uint64(sealed))
		}
		n.relayed.add(1, size)
		it.source.relayed.add(1, size)
	}
	s.flush()
	n.shaper.mu.Lock()
	for _, it := range items {
		n.shaper.recycle(it.data)
	}
	n.shaper.mu.Unlock()
	clear(items)
}

// dropped counts that the datagram was not passed on.
func (it *item) dropped(d Drop) {
	n := it.next.network
	n.plane.drop(d)
	n.relayed.dropped.Add(1)
	it.source.relayed.dropped.Add(1)
}
