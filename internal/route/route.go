// Package route finds the way: which member an inner address belongs to, which members this node keeps links with, and by
// which relays it reaches the others.
//
// A [Table] is an immutable table from prefixes to values, longest prefix first, for IPv4 and IPv6. A [Builder] is filled by
// one goroutine; Build hands the entries over to a Table, which never changes and may be read by any number of goroutines
// without a lock. To change it, build another table and publish it. The table says nothing of what a value means and
// knows no policy: the control loop of package node decides who may have which prefix.
//
// An [Engine] is the cold part (spec/54-routes.md). It wants a few links and agrees on them with the other side, states
// them in this node's link state, holds the link states of all members, which are the map, and finds on it, for each destination
// that is asked for, the cheapest route of at most 4 relays and a second one that is as disjoint as possible:
//
//	members, sessions, round trips --> links ---> Dial, SendWish, LinkUp, Originate
//	                                     |
//	link states of others ----------->  map ----> labels --> choice with hysteresis --> RoutesChanged
//	                                     ^                      |
//	path errors, vanished datagrams -----+----------------------+
//
// It sends, signs and verifies nothing, and measures nothing itself: package path does. It does not know direct ways to
// a destination, nor whether a route or a direct way is better.
package route

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Table maps prefixes to values of V. A nil Table is empty. Lookups allocate nothing.
type Table[V any] struct {
	entries bart.Fast[V]
}

// Builder collects the entries of one Table. The zero Builder is empty and ready. It is not safe for concurrent use.
type Builder[V any] struct {
	table *Table[V]
}

// Add maps prefix p to v. Bits of p behind its length are ignored. A prefix added twice has the last
// value. An invalid prefix, or one of IPv4 addresses mapped into IPv6, is not added: Add reports false.
func (b *Builder[V]) Add(p netip.Prefix, v V) bool {
	if !p.IsValid() || p.Addr().Is4In6() {
		return false
	}
	if b.table == nil {
		b.table = new(Table[V])
	}
	b.table.entries.Insert(p.Masked(), v)
	return true
}

// Build returns the table of all that was added and empties b.
func (b *Builder[V]) Build() *Table[V] {
	t := b.table
	b.table = nil
	if t == nil {
		t = new(Table[V])
	}
	return t
}

// Lookup returns the value of the longest prefix that holds a. It finds nothing for the zero address and for an IPv4
// address mapped into IPv6: a packet of one family must never use a route of the other.
func (t *Table[V]) Lookup(a netip.Addr) (v V, ok bool) {
	if t == nil || !a.IsValid() || a.Is4In6() {
		return v, false
	}
	return t.entries.Lookup(a)
}

// Len returns the number of prefixes.
func (t *Table[V]) Len() int {
	if t == nil {
		return 0
	}
	return t.entries.Size()
}
