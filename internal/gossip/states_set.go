package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// held is the newest link state of one node.
type held struct {
	node    key.ShortID
	version wire.Version
	raw     []byte        // nil: the slot is free
	item    wire.RecordID // what it adds to the sum (spec/53-map.md#fingerprint)
	news    allowance     // new versions that are taken of it
}

// allowance is a bucket of originBurst tokens, one more each originEvery. There is one for each node of the network.
type allowance struct {
	tokens float64
	at     time.Duration // as stateSet.age
}

func (a *allowance) fill(age time.Duration) {
	if d := age - a.at; d > 0 {
		a.tokens = min(originBurst, a.tokens+float64(d)/float64(originEvery))
		a.at = age
	}
}

// stateSet holds link states, each in a slot that stays its own, and knows the order of their nodes.
type stateSet struct {
	slots  []held
	free   []int32
	index  map[key.ShortID]int32
	sorted []int32 // slots, by node
	sums   []sum   // sums[i] is that of sorted[:i]; valid as far as it reaches, and up to the node low if there is an old one
	old    bool
	low    uint64 // the lowest node that changed since

	begun time.Time // when something was first asked
}

func newStateSet() stateSet { return stateSet{index: map[key.ShortID]int32{}, sums: []sum{{}}} }

func (t *stateSet) version(node key.ShortID) wire.Version {
	if slot, ok := t.index[node]; ok {
		return t.slots[slot].version
	}
	return wire.Version{}
}

// age returns how long ago the set began: unlike the time of day, it only grows, whatever the clock is set to.
func (t *stateSet) age(now time.Time) time.Duration {
	if t.begun.IsZero() {
		t.begun = now
	}
	return now.Sub(t.begun)
}

// early reports whether node has made more link states of late than are taken of it, with those that wait for a verdict.
func (t *stateSet) early(now time.Time, node key.ShortID, waiting int) bool {
	slot, ok := t.index[node]
	if !ok {
		return false
	}
	b := &t.slots[slot].news
	b.fill(t.age(now))
	return b.tokens < float64(1+waiting)
}

// put takes version v of node's link state. It reports false if it is not newer, or there is no room for another node; there
// always is for our own.
func (t *stateSet) put(now time.Time, node key.ShortID, v wire.Version, raw []byte, own bool) (slot int32, ok bool) {
	if v.Compare(t.version(node)) <= 0 {
		return 0, false
	}
	t.changed(node)
	if slot, ok = t.index[node]; !ok {
		if len(t.index) >= MaxStates && !own {
			return 0, false
		}
		slot = t.slot()
		t.index[node] = slot
		t.sorted = slices.Insert(t.sorted, t.at(uint64Of(node)), slot)
		t.slots[slot] = held{node: node, news: allowance{originBurst, t.age(now)}}
	}
	h := &t.slots[slot]
	if h.news.fill(t.age(now)); h.news.tokens >= 1 {
		h.news.tokens--
	}
	h.version, h.raw = v, raw
	h.item = sha256.Sum256(appendVersion(nil, stamp{node, v}))
	return slot, true
}

// changed notes that sums from node on are old.
func (t *stateSet) changed(node key.ShortID) {
	if n := uint64Of(node); !t.old || n < t.low {
		t.old, t.low = true, n
	}
}

// slot returns a free slot.
func (t *stateSet) slot() int32 {
	if n := len(t.free); n > 0 {
		slot := t.free[n-1]
		t.free = t.free[:n-1]
		return slot
	}
	t.slots = append(t.slots, held{})
	return int32(len(t.slots) - 1)
}

func (t *stateSet) remove(node key.ShortID) {
	slot, ok := t.index[node]
	if !ok {
		return
	}
	at := t.at(uint64Of(node))
	t.sorted = slices.Delete(t.sorted, at, at+1)
	t.changed(node)
	delete(t.index, node)
	t.slots[slot] = held{}
	t.free = append(t.free, slot)
}

// at returns the number of nodes below n.
func (t *stateSet) at(n uint64) int {
	return sort.Search(len(t.sorted), func(i int) bool { return uint64Of(t.slots[t.sorted[i]].node) >= n })
}

// find returns the places in sorted of the nodes that begin with p.
func (t *stateSet) find(p prefix) (lo, hi int) {
	lo = t.at(p.first())
	if last := p.last(); last < ^uint64(0) {
		return lo, t.at(last + 1)
	}
	return lo, len(t.sorted)
}

// print returns the fingerprint of sorted[lo:hi].
func (t *stateSet) print(lo, hi int) print {
	if t.old {
		t.sums = t.sums[:min(len(t.sums), t.at(t.low)+1)]
		t.old = false
	}
	for i := len(t.sums); i <= hi; i++ {
		t.sums = append(t.sums, t.sums[i-1].plus(t.slots[t.sorted[i-1]].item))
	}
	return t.sums[hi].minus(t.sums[lo]).print(hi - lo)
}

// stamps returns nodes and versions of sorted[lo:hi].
func (t *stateSet) stamps(lo, hi int) (list []stamp) {
	for _, slot := range t.sorted[lo:hi] {
		list = append(list, stamp{t.slots[slot].node, t.slots[slot].version})
	}
	return list
}

// print returns the fingerprint of n items whose sum is s.
func (s sum) print(n int) print {
	var b [36]byte
	for i, w := range s {
		binary.BigEndian.PutUint64(b[24-8*i:], w)
	}
	binary.BigEndian.PutUint32(b[32:], uint32(n))
	h := sha256.Sum256(b[:])
	return print(h[:16])
}

func uint64Of(id key.ShortID) uint64 { return binary.BigEndian.Uint64(id[:]) }

// pile holds at most limit values by key, in the order in which the keys came. What does not fit is refused.
type pile[K comparable, V any] struct {
	limit  int
	values map[K]V
	order  []K
}

func newPile[K comparable, V any](limit int) pile[K, V] {
	return pile[K, V]{limit: limit, values: map[K]V{}}
}

// put sets the value of k. It reports false if there is no room.
func (p *pile[K, V]) put(k K, v V) bool {
	if _, old := p.values[k]; !old {
		if len(p.values) >= p.limit {
			return false
		}
		p.order = append(p.order, k)
	}
	p.values[k] = v
	return true
}

// sift asks keep about each value, in order: what to keep in its place, or nothing. The pile must not be touched meanwhile.
func (p *pile[K, V]) sift(keep func(k K, v V) (V, bool)) {
	order := p.order[:0]
	for _, k := range p.order {
		if v, ok := keep(k, p.values[k]); ok {
			p.values[k] = v
			order = append(order, k)
		} else {
			delete(p.values, k)
		}
	}
	if p.order = order; len(order) == 0 && cap(order) > 64 {
		*p = newPile[K, V](p.limit)
	}
}

func (p *pile[K, V]) len() int { return len(p.order) }
