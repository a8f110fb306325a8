package join

import (
	"net/netip"
	"time"
)

// bucket is a token bucket: rate tokens a second, at most burst.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if b.last.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*rate)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// sources limits how often each source may ask. A source is an IPv4 address or an IPv6 /64. The table is capped: the source
// that was added first is forgotten first, which gives it a new burst; the limits over all sources bound what that is
// worth (spec/30-join.md#limits).
type sources struct {
	buckets map[netip.Addr]*bucket
	order   []netip.Addr // ring of the keys of buckets, oldest at next once it is full
	next    int
}

func (s *sources) allow(now time.Time, a netip.Addr, rate, burst float64) bool {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, err := a.Prefix(64)
		if err != nil {
			return false
		}
		a = p.Addr()
	}
	b := s.buckets[a]
	if b == nil {
		b = &bucket{}
		s.add(a, b)
	}
	return b.take(now, rate, burst)
}

func (s *sources) add(a netip.Addr, b *bucket) {
	if s.buckets == nil {
		s.buckets = make(map[netip.Addr]*bucket)
	}
	if len(s.order) < maxSources {
		s.order = append(s.order, a)
	} else {
		delete(s.buckets, s.order[s.next])
		s.order[s.next] = a
		s.next = (s.next + 1) % maxSources
	}
	s.buckets[a] = b
}
