package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"

	"github.com/warren-vpn/warren/internal/wire"
)

// print is the fingerprint of a set of ids (spec/50-control.md#fingerprint).
type print [16]byte

// bound is the upper limit of a range, which does not belong to it.
type bound struct {
	end bool // the end of all ids
	id  wire.RecordID
}

// sum is a sum of ids modulo 2^256, least significant word first.
type sum [4]uint64

// entry is one record of a set.
type entry struct {
	raw []byte
	seq uint64 // order of arrival: what a record depends on came before it
}

// set holds records in the order of their ids. A fingerprint of any range costs O(log n), after a change O(n) once.
type set struct {
	records map[wire.RecordID]entry
	ids     []wire.RecordID // those that came before fresh
	fresh   []wire.RecordID // in order of arrival: a whole network at once is sorted once
	sums    []sum           // sums[i] is that of ids[:i]; valid as far as it reaches
	seq     uint64
}

func newSet() set { return set{records: map[wire.RecordID]entry{}, sums: []sum{{}}} }

func (s *set) has(id wire.RecordID) bool { _, ok := s.records[id]; return ok }

// add reports whether id is new.
func (s *set) add(id wire.RecordID, raw []byte) bool {
	if s.has(id) {
		return false
	}
	s.seq++
	s.records[id] = entry{raw, s.seq}
	s.fresh = append(s.fresh, id)
	return true
}

// settle takes the fresh ids in among the others.
func (s *set) settle() {
	if len(s.fresh) == 0 {
		return
	}
	fresh := s.fresh
	s.fresh = nil
	slices.SortFunc(fresh, compareIDs)
	s.sums = s.sums[:min(len(s.sums), s.index(bound{id: fresh[0]})+1)]
	old := len(s.ids)
	s.ids = append(s.ids, fresh...)
	for to := len(s.ids); len(fresh) > 0; { // from the end, so that nothing is overwritten
		to--
		if last := fresh[len(fresh)-1]; old > 0 && compareIDs(s.ids[old-1], last) > 0 {
			old--
			s.ids[to] = s.ids[old]
		} else {
			s.ids[to] = last
			fresh = fresh[:len(fresh)-1]
		}
	}
}

func compareIDs(a, b wire.RecordID) int { return bytes.Compare(a[:], b[:]) }

// all returns the ids in order.
func (s *set) all() []wire.RecordID {
	s.settle()
	return s.ids
}

func (s *set) remove(id wire.RecordID) {
	if !s.has(id) {
		return
	}
	delete(s.records, id)
	i := s.index(bound{id: id})
	s.ids = slices.Delete(s.ids, i, i+1)
	s.sums = s.sums[:min(len(s.sums), i+1)]
}

// index returns the number of ids below b.
func (s *set) index(b bound) int {
	s.settle()
	if b.end {
		return len(s.ids)
	}
	return sort.Search(len(s.ids), func(i int) bool { return bytes.Compare(s.ids[i][:], b.id[:]) >= 0 })
}

// print returns the fingerprint of ids[lo:hi].
func (s *set) print(lo, hi int) print {
	s.settle()
	for i := len(s.sums); i <= hi; i++ {
		s.sums = append(s.sums, s.sums[i-1].plus(s.ids[i-1]))
	}
	var b [36]byte
	d := s.sums[hi].minus(s.sums[lo])
	for i, w := range d {
		binary.BigEndian.PutUint64(b[24-8*i:], w)
	}
	binary.BigEndian.PutUint32(b[32:], uint32(hi-lo))
	h := sha256.Sum256(b[:])
	return print(h[:16])
}

func (a sum) plus(id wire.RecordID) (r sum) {
	var carry uint64
	for i := range a {
		r[i], carry = bits.Add64(a[i], binary.BigEndian.Uint64(id[24-8*i:]), carry)
	}
	return r
}

func (a sum) minus(b sum) (r sum) {
	var borrow uint64
	for i := range a {
		r[i], borrow = bits.Sub64(a[i], b[i], borrow)
	}
	return r
}

// between returns the shortest bound that is above a and not above b; a is below b.
func between(a, b wire.RecordID) bound {
	var out bound
	for i := range b {
		out.id[i] = b[i]
		if a[i] != b[i] {
			break
		}
	}
	return out
}

// above reports whether b is above o.
func (b bound) above(o bound) bool {
	if b.end || o.end {
		return b.end && !o.end
	}
	return bytes.Compare(b.id[:], o.id[:]) > 0
}
