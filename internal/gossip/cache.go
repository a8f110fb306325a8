package gossip

import "time"

// cache maps at most limit keys to values; the oldest key makes room.
type cache[K comparable, V any] struct {
	limit  int
	values map[K]V
	ring   []K // in order of arrival from next on, once it is full
	next   int
}

// ids is a cache that is only a set.
type ids[K comparable] = cache[K, struct{}]

func newCache[K comparable, V any](limit int) cache[K, V] {
	return cache[K, V]{limit: limit, values: map[K]V{}}
}

func newIDs[K comparable](limit int) ids[K] { return newCache[K, struct{}](limit) }

// put maps k to v. A key that is there keeps its place.
func (c *cache[K, V]) put(k K, v V) {
	_, old := c.values[k]
	c.values[k] = v
	switch {
	case old:
	case len(c.ring) < c.limit:
		c.ring = append(c.ring, k)
	default:
		if c.ring[c.next] != k {
			delete(c.values, c.ring[c.next])
		}
		c.ring[c.next] = k
		c.next = (c.next + 1) % c.limit
	}
}

func (c *cache[K, V]) has(k K) bool { _, ok := c.values[k]; return ok }

// remove takes k out; its place in the ring stays until its turn comes.
func (c *cache[K, V]) remove(k K) { delete(c.values, k) }

// keys returns the keys in order of arrival.
func (c *cache[K, V]) keys() (out []K) {
	for i := range c.ring {
		if k := c.ring[(c.next+i)%len(c.ring)]; c.has(k) {
			out = append(out, k)
		}
	}
	return out
}

// bucket is a token bucket.
type bucket struct {
	rate, burst float64 // tokens a second, tokens at most
	tokens      float64
	at          time.Time
}

func newBucket(now time.Time, rate, burst float64) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst, at: now}
}

// take takes n tokens if they are there.
func (b *bucket) take(now time.Time, n float64) bool {
	b.fill(now)
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.at = now
	}
}
