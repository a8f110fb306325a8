package dataplane

import (
	"sync/atomic"
	"time"
)

// bucket is a token bucket that several workers share without a lock: it holds the time at which it will be full again. The
// zero bucket is full.
type bucket struct{ full atomic.Int64 }

// take takes what needs cost nanoseconds to come again, and reports whether it was there. The bucket holds burst nanoseconds.
func (b *bucket) take(now, cost, burst int64) bool {
	for {
		full := b.full.Load()
		next := max(full, now) + cost
		if next-now > burst {
			return false
		}
		if b.full.CompareAndSwap(full, next) {
			return true
		}
	}
}

// limit is a rate of events, as take wants it.
type limit struct{ cost, burst int64 }

func perSecond(rate, burst int64) limit {
	cost := int64(time.Second) / rate
	return limit{cost, cost * burst}
}

// takeBytes takes n bytes at rate bytes a second. The bucket holds a quarter of a second of them, but no less than minBurst.
func (b *bucket) takeBytes(now int64, n int, rate int64) bool {
	const minBurst = 128 << 10
	scale := int64(time.Second)
	burst := max(scale/4, minBurst*scale/rate)
	return b.take(now, int64(n)*scale/rate, burst)
}
