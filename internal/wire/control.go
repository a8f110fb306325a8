package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Control messages ride inside sessions (spec/50-control.md#frame):
//
//	0      0xC0: high nibble 0xC (neither IPv4 nor IPv6), low nibble the version, 0
//	1      type
//	2-3    length of the body in bytes, big-endian; what follows the body is padding
//	4-     body
const (
	controlFirst = 0xC0
	// ControlHeader is the size of the header in bytes.
	ControlHeader = 4
	// MaxControl is the limit of header and body together: with WireGuard, UDP and IPv6 around it, it passes any path of
	// 1280 bytes. Only padded pings are larger.
	MaxControl = 1184
)

// ControlType numbers the control messages; append-only.
type ControlType uint8

// The control messages.
const (
	ControlPing    ControlType = 1
	ControlPong    ControlType = 2
	ControlRecords ControlType = 3
	ControlSync    ControlType = 4
	ControlBye     ControlType = 5
	ControlLink    ControlType = 6
	ControlStates  ControlType = 7
	ControlDigest  ControlType = 8

	ControlPathError  ControlType = 9
	ControlCandidates ControlType = 10
)

// Ping asks for a Pong on the path by which it came. Size is that of the whole control message in bytes, header and
// padding included: larger pings prove larger paths. Size below the minimum means no padding.
type Ping struct {
	ID   uint64
	Size int
}

// Pong answers the Ping of the same ID and says from where it came; Observed is the zero AddrPort when it came through relays.
type Pong struct {
	ID       uint64
	Observed netip.AddrPort
}

// Records carries whole encoded records.
type Records struct{ Raw [][]byte }

// Sync is one step of set reconciliation; gossip reads the body (spec/50-control.md#sync).
type Sync struct{ Body []byte }

// Bye says that the sender stops now, so that peers need not wait for a timeout.
type Bye struct{}

// LinkWish is one side's word on whether the two keep a link (spec/54-routes.md#link-agreement).
type LinkWish struct {
	Want bool // the sender wants the link
	Seen bool // what the sender last heard of the receiver's wish
	Leaf bool // the sender carries no transit
}

// States carries whole encoded link states (spec/53-map.md#flooding).
type States struct{ Raw [][]byte }

// Digest is one step of the repair of link states; gossip reads the body (spec/53-map.md#repair).
type Digest struct{ Body []byte }

// IsControl reports whether the plaintext of a transport message is a control message of any version.
func IsControl(plaintext []byte) bool { return len(plaintext) > 0 && plaintext[0]>>4 == 0xC }

// ParseControl reads one control message: one of the types above, a PathError or Candidates. Bytes after the body are padding. An
// unknown type gives nil and no error: it is ignored, so that later versions can add types.
func ParseControl(b []byte) (any, error) {
	if len(b) < ControlHeader || b[0] != controlFirst {
		return nil, fmt.Errorf("control message header: %w", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b)-ControlHeader {
		return nil, fmt.Errorf("control message of %d bytes says %d: %w", len(b), n, ErrMalformed)
	}
	body := b[ControlHeader : ControlHeader+n]
	switch ControlType(b[1]) {
	case ControlPing:
		if len(body) < 8 {
			return nil, fmt.Errorf("ping: %w", ErrMalformed)
		}
		return Ping{ID: binary.BigEndian.Uint64(body), Size: ControlHeader + n}, nil
	case ControlPong:
		return parsePong(body)
	case ControlRecords:
		raw, err := parseList(body, MaxRecord)
		return Records{Raw: raw}, err
	case ControlSync:
		return Sync{Body: body}, nil
	case ControlBye:
		return Bye{}, nil
	case ControlLink:
		if len(body) < 1 {
			return nil, fmt.Errorf("link: %w", ErrMalformed)
		}
		return LinkWish{Want: body[0]&linkWant != 0, Seen: body[0]&linkSeen != 0, Leaf: body[0]&linkLeaf != 0}, nil
	case ControlStates:
		raw, err := parseList(body, MaxLinkState)
		return States{Raw: raw}, err
	case ControlDigest:
		return Digest{Body: body}, nil
	case ControlPathError:
		return parsePathError(body)
	case ControlCandidates:
		return parseCandidates(body)
	}
	return nil, nil
}

func parsePong(body []byte) (any, error) {
	if len(body) != 8+18 {
		return nil, fmt.Errorf("pong: %w", ErrMalformed)
	}
	var ap netip.AddrPort
	if [18]byte(body[8:]) != [18]byte{} {
		var err error
		if ap, err = ParseEndpoint(body[8:]); err != nil {
			return nil, fmt.Errorf("pong: %w", err)
		}
	}
	return Pong{ID: binary.BigEndian.Uint64(body), Observed: ap}, nil
}

// parseList reads items of 1 to limit bytes, each behind its length, to the end of the body.
func parseList(body []byte, limit int) (raw [][]byte, err error) {
	for len(body) > 0 {
		if len(body) < 2 {
			return nil, fmt.Errorf("list: %w", ErrMalformed)
		}
		n := int(binary.BigEndian.Uint16(body))
		if n == 0 || n > limit || n > len(body)-2 {
			return nil, fmt.Errorf("list: %w", ErrMalformed)
		}
		raw = append(raw, body[2:2+n])
		body = body[2+n:]
	}
	return raw, nil
}

// Append encodes m, zero-padded to its Size.
func (m Ping) Append(b []byte) []byte {
	n := max(m.Size, ControlHeader+8)
	b = appendHeader(b, ControlPing, n-ControlHeader)
	b = binary.BigEndian.AppendUint64(b, m.ID)
	return append(b, make([]byte, n-ControlHeader-8)...)
}

// Append encodes m.
func (m Pong) Append(b []byte) []byte {
	b = appendHeader(b, ControlPong, 26)
	b = binary.BigEndian.AppendUint64(b, m.ID)
	var a [16]byte
	if m.Observed.IsValid() {
		a = m.Observed.Addr().As16()
	}
	b = append(b, a[:]...)
	return binary.BigEndian.AppendUint16(b, m.Observed.Port())
}

// RecordSpace returns the bytes that raw takes in a Records or States message, of which MaxControl - ControlHeader are to be
// had.
func RecordSpace(raw []byte) int { return 2 + len(raw) }

// Append encodes m; the caller has kept the sum of RecordSpace within the limit.
func (m Records) Append(b []byte) []byte { return appendList(b, ControlRecords, m.Raw) }

// Append encodes m; the caller has kept the sum of RecordSpace within the limit.
func (m States) Append(b []byte) []byte { return appendList(b, ControlStates, m.Raw) }

func appendList(b []byte, t ControlType, raw [][]byte) []byte {
	n := 0
	for _, r := range raw {
		n += RecordSpace(r)
	}
	b = appendHeader(b, t, n)
	for _, r := range raw {
		b = binary.BigEndian.AppendUint16(b, uint16(len(r)))
		b = append(b, r...)
	}
	return b
}

// Append encodes m.
func (m Digest) Append(b []byte) []byte {
	return append(appendHeader(b, ControlDigest, len(m.Body)), m.Body...)
}

// Bits of a LinkWish.
const (
	linkWant = 1 << iota
	linkSeen
	linkLeaf
)

// Append encodes m.
func (m LinkWish) Append(b []byte) []byte {
	var bits byte
	for i, set := range []bool{m.Want, m.Seen, m.Leaf} {
		if set {
			bits |= 1 << i
		}
	}
	return append(appendHeader(b, ControlLink, 1), bits)
}

// Append encodes m.
func (m Sync) Append(b []byte) []byte {
	return append(appendHeader(b, ControlSync, len(m.Body)), m.Body...)
}

// Append encodes m.
func (m Bye) Append(b []byte) []byte { return appendHeader(b, ControlBye, 0) }

func appendHeader(b []byte, t ControlType, n int) []byte {
	b = append(b, controlFirst, byte(t))
	return binary.BigEndian.AppendUint16(b, uint16(n))
}

// ParseEndpoint reads an address and port of 6 (IPv4) or 18 bytes (IPv6, or IPv4 mapped into it). The address is
// unmapped; the unspecified address and port 0 are refused.
func ParseEndpoint(b []byte) (netip.AddrPort, error) {
	if len(b) != 6 && len(b) != 18 {
		return netip.AddrPort{}, fmt.Errorf("endpoint of %d bytes: %w", len(b), ErrMalformed)
	}
	a, _ := netip.AddrFromSlice(b[:len(b)-2])
	ap := netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[len(b)-2:]))
	if ap.Addr().IsUnspecified() || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("endpoint %v: %w", ap, ErrMalformed)
	}
	return ap, nil
}

// AppendEndpoint encodes ap in 6 bytes (IPv4) or 18 (IPv6). Zones are not sent.
func AppendEndpoint(b []byte, ap netip.AddrPort) []byte {
	b = append(b, ap.Addr().Unmap().WithZone("").AsSlice()...)
	return binary.BigEndian.AppendUint16(b, ap.Port())
}
