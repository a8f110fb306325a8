package wire

import (
	"fmt"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
)

// A relayed datagram is a hop header, sealed under the session of the two nodes next to each other, and behind it the
// untouched datagram of the two ends (spec/52-relay.md#frame):
//
//	0      5
//	1      LL: length of the header in bytes, without its tag
//	2      form: 0 sealed as stock WireGuard does, 1 in the fast form
//	3      place among the datagrams under one seal, 0 to 63
//	4-7    receiver index, little-endian, as in a transport message
//	8-15   counter, little-endian: the session's own, of place 0
//	16-    header, LL bytes | tag, 16 bytes
//	32+LL  tail: a WireGuard message of type 1 to 4 between the ends
//
// and the header:
//
//	0      the seal's own, see package wireguard; ignored here
//	1      0: version and kind
//	2      number of ids, 3 to 6
//	3      the receiver's place in the list, 1 to number-1
//	4-     8-byte short ids: source, relays, destination
//
// The list keeps its length on the whole way, so a relay forwards a datagram in its own buffer, and the destination knows the
// way back.
const (
	// RelayOverhead is the size of a relayed datagram without its header and its tail, in bytes.
	RelayOverhead = 32
	// MaxRelayHeader is the size of the largest header in bytes.
	MaxRelayHeader = relayFixed + (MaxRelays+2)*shortSize

	relayFixed = 4
	shortSize  = len(key.ShortID{})
	minHops    = 3
	maxHops    = MaxRelays + 2
)

// RelayHeaderSize returns the size in bytes of the header for so many relays.
func RelayHeaderSize(relays int) int { return relayFixed + (relays+2)*shortSize }

// RelayHeader is the parsed header of a relayed datagram: a value, no part of the buffer it came in.
type RelayHeader struct {
	n, at uint8
	ids   [maxHops]key.ShortID
}

// NewRelayHeader returns the header with which source begins route to destination: its receiver is the first relay. The
// route must have a relay.
func NewRelayHeader(source key.ShortID, route Route, destination key.ShortID) (h RelayHeader) {
	h.n, h.at = route.n+2, 1
	h.ids[0] = source
	copy(h.ids[1:], route.relays[:route.n])
	h.ids[h.n-1] = destination
	return h
}

// ParseRelayHeader reads an opened header. No id may come twice: so no route can have a loop.
func ParseRelayHeader(b []byte) (h RelayHeader, err error) {
	if len(b) < relayFixed || b[1] != 0 {
		return h, fmt.Errorf("relay header: %w", ErrMalformed)
	}
	h.n, h.at = b[2], b[3]
	if h.n < minHops || h.n > maxHops || h.at == 0 || h.at >= h.n || len(b) != relayFixed+int(h.n)*shortSize {
		return h, fmt.Errorf("relay header of %d bytes for %d ids: %w", len(b), h.n, ErrMalformed)
	}
	for i := range h.n {
		h.ids[i] = key.ShortID(b[relayFixed+int(i)*shortSize:])
		if slices.Contains(h.ids[:i], h.ids[i]) {
			return h, fmt.Errorf("relay header: id twice: %w", ErrMalformed)
		}
	}
	return h, nil
}

// Size returns the length of the encoded header in bytes: RelayHeaderSize of its relays.
func (h *RelayHeader) Size() int { return relayFixed + int(h.n)*shortSize }

// Put encodes h into b, which has at least Size bytes, and returns Size.
func (h *RelayHeader) Put(b []byte) int {
	b[0], b[1], b[2], b[3] = 0, 0, h.n, h.at
	for i := range h.n {
		copy(b[relayFixed+int(i)*shortSize:], h.ids[i][:])
	}
	return h.Size()
}

// Source returns who sent the tail, by what the relays vouch for: each has checked the one before it.
func (h *RelayHeader) Source() key.ShortID { return h.ids[0] }

// Destination returns for whom the tail is.
func (h *RelayHeader) Destination() key.ShortID { return h.ids[h.n-1] }

// Previous returns from whom this datagram must have come, by whose session it was sealed.
func (h *RelayHeader) Previous() key.ShortID { return h.ids[h.at-1] }

// Receiver returns to whom this datagram was sent.
func (h *RelayHeader) Receiver() key.ShortID { return h.ids[h.at] }

// Final reports whether the receiver is the destination.
func (h *RelayHeader) Final() bool { return h.at == h.n-1 }

// Next returns to whom the receiver, a relay, passes the datagram on. It must not be Final.
func (h *RelayHeader) Next() key.ShortID { return h.ids[h.at+1] }

// AdvanceRelayHeader makes an encoded header that of the next hop, in place. ParseRelayHeader has read it, and it is not Final.
func AdvanceRelayHeader(b []byte) { b[3]++ }

// Failure returns the path error of the receiver, a relay that could not pass on a datagram with this header.
func (h *RelayHeader) Failure(why PathReason) PathError {
	return PathError{Source: h.Source(), Destination: h.Destination(), Route: h.Route(), Failed: int(h.at) - 1, Reason: why}
}

// Route returns the relays between source and destination.
func (h *RelayHeader) Route() (r Route) {
	r.n = h.n - 2
	copy(r.relays[:], h.ids[1:h.n-1])
	return r
}

// IsTail reports whether b may be the tail of a relayed datagram: a WireGuard message by its type and length
// (spec/52-relay.md#tail).
func IsTail(b []byte) bool {
	const initiation, response, cookieReply, transport = 148, 92, 64, 32
	if len(b) < transport {
		return false
	}
	switch b[0] {
	case TypeInitiation:
		return len(b) == initiation
	case TypeResponse:
		return len(b) == response
	case TypeCookieReply:
		return len(b) == cookieReply
	}
	return b[0] == TypeTransport
}

// PathError says that a datagram could not be passed on. It goes back from the relay that failed, hop by hop, to the source
// (spec/52-relay.md#path-error).
type PathError struct {
	Source, Destination key.ShortID
	Route               Route // on which the datagram was
	Failed              int   // place of the relay that could not go on, in Route
	Reason              PathReason
}

// Back reports what self does with m, which came in the session with from: to whom it sends it on, or that it is for self, then
// to is self. ok is false when m did not come from the node that follows self on the route, or names a place that lies before.
func (m *PathError) Back(self, from key.ShortID) (to key.ShortID, ok bool) {
	ids := [maxHops]key.ShortID{m.Source}
	n := 1 + copy(ids[1:], m.Route.relays[:m.Route.n]) // the destination sends none
	at := slices.Index(ids[:n], from)
	if at < 1 || at > m.Failed+1 || ids[at-1] != self {
		return to, false
	}
	return ids[max(at-2, 0)], true
}

// PathReason says why a relay did not pass a datagram on.
type PathReason uint8

// The reasons. Append-only; an unknown one counts as ReasonUnreachable.
const (
	ReasonUnreachable PathReason = 1 // no session or path to the next hop
	ReasonRefused     PathReason = 2 // it does not relay, or not for these two
	ReasonOverloaded  PathReason = 3 // it has no room for more
)

// String names the reason as status does.
func (r PathReason) String() string {
	switch r {
	case ReasonRefused:
		return "refused"
	case ReasonOverloaded:
		return "overloaded"
	}
	return "unreachable"
}

// Append encodes m.
func (m PathError) Append(b []byte) []byte {
	b = appendHeader(b, ControlPathError, 3+RelayHeaderSize(m.Route.Len())-relayFixed)
	b = append(b, byte(m.Reason), byte(m.Failed), m.Route.n)
	b = append(b, m.Source[:]...)
	for i := range m.Route.n {
		b = append(b, m.Route.relays[i][:]...)
	}
	return append(b, m.Destination[:]...)
}

func parsePathError(b []byte) (any, error) {
	if len(b) < 3 || b[2] == 0 || b[2] > MaxRelays || len(b) != 3+(int(b[2])+2)*shortSize || b[1] >= b[2] {
		return nil, fmt.Errorf("path error: %w", ErrMalformed)
	}
	m := PathError{Reason: PathReason(b[0]), Failed: int(b[1])}
	n, ids := int(b[2]), b[3:]
	m.Source = key.ShortID(ids)
	var relays []key.ShortID
	for i := range n {
		relays = append(relays, key.ShortID(ids[(i+1)*shortSize:]))
	}
	m.Destination = key.ShortID(ids[(n+1)*shortSize:])
	var ok bool
	if m.Route, ok = NewRoute(relays...); !ok || m.Route.Has(m.Source) || m.Route.Has(m.Destination) || m.Source == m.Destination {
		return nil, fmt.Errorf("path error: id twice: %w", ErrMalformed)
	}
	return m, nil
}
