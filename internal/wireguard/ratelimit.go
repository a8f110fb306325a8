package wireguard

import (
	"net/netip"
	"time"
)

// The rate of handshakes accepted from one source while under load (spec/40-wireguard.md#rate).
const (
	limitCost  = int64(time.Second / 20)
	limitMax   = 5 * limitCost
	limitIdle  = int64(time.Second) // a bucket is long full again after it
	maxBuckets = 4096
)

// limiter holds a token bucket per source: an IPv4 address or an IPv6 /64. It knows at most maxBuckets sources; when
// all of them are active, further ones are refused. Its zero value is ready.
type limiter struct {
	buckets map[netip.Addr]bucket
	swept   int64 // when idle buckets were last dropped
}

type bucket struct{ tokens, last int64 } // both in nanoseconds

// allow takes one token of the source's bucket and reports whether there was one.
func (l *limiter) allow(now int64, from netip.Addr) bool {
	source := from.Unmap().WithZone("")
	if source.Is6() {
		source = netip.PrefixFrom(source, 64).Masked().Addr()
	}
	b, ok := l.buckets[source]
	if !ok {
		l.sweep(now)
		if len(l.buckets) >= maxBuckets {
			return false
		}
		if l.buckets == nil {
			l.buckets = make(map[netip.Addr]bucket)
		}
		b = bucket{tokens: limitMax, last: now}
	}
	b.tokens = min(limitMax, b.tokens+max(0, now-b.last))
	b.last = now
	ok = b.tokens >= limitCost
	if ok {
		b.tokens -= limitCost
	}
	l.buckets[source] = b
	return ok
}

// sweep drops idle buckets, at most once a second.
func (l *limiter) sweep(now int64) {
	if len(l.buckets) == 0 || now-l.swept < limitIdle {
		return
	}
	l.swept = now
	for source, b := range l.buckets {
		if now-b.last >= limitIdle {
			delete(l.buckets, source)
		}
	}
}
