package wire

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/warren-vpn/warren/internal/key"
)

// MaxRelays is the largest number of relays between two members (spec/52-relay.md#header).
const MaxRelays = 4

// Route lists the relays through which datagrams go to a peer, the one next to the sender first. The zero Route has none:
// straight to the peer. Routes are values and can be compared with ==.
type Route struct {
	n      uint8
	relays [MaxRelays]key.ShortID
}

// NewRoute makes a Route. It reports false when there are more than MaxRelays, or one comes twice.
func NewRoute(relays ...key.ShortID) (r Route, ok bool) {
	if len(relays) > MaxRelays {
		return Route{}, false
	}
	for i, id := range relays {
		if slices.Contains(relays[:i], id) {
			return Route{}, false
		}
		r.relays[i] = id
	}
	r.n = uint8(len(relays))
	return r, true
}

// Len returns the number of relays.
func (r Route) Len() int { return int(r.n) }

// At returns the relay at place i, from 0 to Len()-1.
func (r Route) At(i int) key.ShortID { return r.relays[i] }

// Relays returns the relays in order, as a slice of the caller's own; nil when there are none.
func (r Route) Relays() []key.ShortID { return append([]key.ShortID(nil), r.relays[:r.n]...) }

// Has reports whether id is a relay of r.
func (r Route) Has(id key.ShortID) bool { return slices.Contains(r.relays[:r.n], id) }

// Reverse returns the way back.
func (r Route) Reverse() (back Route) {
	back.n = r.n
	for i := range r.n {
		back.relays[r.n-1-i] = r.relays[i]
	}
	return back
}

// Overhead returns by how many bytes the relays of r make each datagram larger; 0 without any (spec/52-relay.md#mtu).
func (r Route) Overhead() int {
	if r.n == 0 {
		return 0
	}
	return RelayOverhead + RelayHeaderSize(r.Len())
}

// String lists the relays, for logs.
func (r Route) String() string {
	var b strings.Builder
	for i := range r.n {
		if i > 0 {
			b.WriteByte('>')
		}
		b.WriteString(r.relays[i].String())
	}
	return b.String()
}

// Way is one way to carry datagrams to a peer: straight to an address, or by a route through relays. Exactly one of the two
// fields is set; the zero Way is none at all. Ways are values and can be compared with ==.
type Way struct {
	Addr  netip.AddrPort
	Route Route
}

// Direct returns the way straight to addr; the zero Way if addr is not valid.
func Direct(addr netip.AddrPort) Way { return Way{Addr: addr} }

// Via returns the way through the relays of r; the zero Way if there are none.
func Via(r Route) Way { return Way{Route: r} }

// IsValid reports whether w is a way at all.
func (w Way) IsValid() bool { return w.Route.n > 0 || w.Addr.IsValid() }

// IsRelayed reports whether w goes through relays.
func (w Way) IsRelayed() bool { return w.Route.n > 0 }

// IsStream reports whether w is a stream of this machine's.
func (w Way) IsStream() bool { return IsStream(w.Addr.Addr()) }

// IsLabel reports whether a stands for something of this machine's, a stream or a foot: it lies in 100::/64, which is never routed
// (RFC 6666). Such an address means something to the machine that made it and to nobody else, so it must not be told to others nor
// kept (spec/72-streams.md#addresses).
func IsLabel(a netip.Addr) bool {
	if !a.Is6() {
		return false
	}
	b := a.As16()
	return b[0] == 1 && [7]byte(b[1:8]) == [7]byte{}
}

// footBit tells the labels of feet from those of streams, in byte 8.
const footBit = 0x80

// IsStream reports whether a stands for a stream.
func IsStream(a netip.Addr) bool { return IsLabel(a) && a.As16()[8]&footBit == 0 }

// IsFoot reports whether a stands for a foot: one more UDP socket, which speaks with one address (spec/73-nat.md#birthday).
func IsFoot(a netip.Addr) bool { return IsLabel(a) && a.As16()[8]&footBit != 0 }

// NewLabel makes the address of a stream or a foot of eight random bytes. With those it cannot be guessed, so no peer can name
// one that is not its own.
func NewLabel(foot bool, random [8]byte) netip.Addr {
	b := [16]byte{0: 1}
	copy(b[8:], random[:])
	if b[8] &^= footBit; foot {
		b[8] |= footBit
	}
	return netip.AddrFrom16(b)
}

// String names the address or the relays, for logs.
func (w Way) String() string {
	switch {
	case w.IsRelayed():
		return fmt.Sprintf("via %v", w.Route)
	case w.Addr.IsValid():
		return w.Addr.String()
	}
	return "none"
}
