package stream

import (
	"sync"
	"time"
)

// The limits of a queue (spec/72-streams.md#queue).
const (
	queueLength = 64
	queueAge    = 100 * time.Millisecond
)

// queue holds the newest datagrams of one stream that wait for TCP: at most 64, none older than 100 ms. It belongs to several
// writers and one taker.
type queue struct {
	wake chan struct{} // has room for one; filled when something was pushed

	mu    sync.Mutex
	slots [queueLength]slot
	first int // place of the oldest
	n     int
}

type slot struct {
	data []byte // its memory is kept
	at   time.Time
}

// push adds the datagrams of data, segment bytes each but for the last, and returns how many were dropped for want of room: the
// oldest go first. Those that no frame can hold are dropped too.
func (q *queue) push(now time.Time, data []byte, segment int) (dropped int) {
	if segment <= 0 || len(data) == 0 {
		return 0
	}
	q.mu.Lock()
	for len(data) > 0 {
		d := data[:min(segment, len(data))]
		data = data[len(d):]
		if len(d) > MaxDatagram {
			dropped++
			continue
		}
		if q.n == queueLength {
			q.first, q.n = (q.first+1)%queueLength, q.n-1
			dropped++
		}
		s := &q.slots[(q.first+q.n)%queueLength]
		s.data, s.at = append(s.data[:0], d...), now
		q.n++
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default: // it is awake
	}
	return dropped
}

// take appends frames to out, the oldest datagram first, as long as they fit its capacity. sent is how many, dropped how many
// were too old.
func (q *queue) take(now time.Time, out []byte) (frames []byte, sent, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; q.n > 0; q.first, q.n = (q.first+1)%queueLength, q.n-1 {
		s := &q.slots[q.first]
		if now.Sub(s.at) > queueAge {
			dropped++
			continue
		}
		if len(out)+frameHeader+len(s.data) > cap(out) {
			break
		}
		out = appendFrame(out, s.data)
		sent++
	}
	return out, sent, dropped
}
