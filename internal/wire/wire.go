// Package wire holds what nodes say to each other: records, control messages, join frames and invite codes. For each
// there is a layout, an Append or Marshal, and a strict Parse.
//
// Everything here is a value; nothing does I/O. Parsers never panic, copy nothing that they need not, and refuse what is
// not in its one canonical form. Slices in parsed values alias the input: the caller owns both. Numbers of kinds and
// types are append-only (spec/20-records.md, spec/50-control.md).
package wire

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed reports bytes that are not what they claim to be. It is wrapped with the reason.
var ErrMalformed = errors.New("malformed")

// First bytes of the datagrams on Warren's one port (spec/50-control.md#demultiplexing). WireGuard's are 1 to 4.
const (
	TypeInitiation  = 1
	TypeResponse    = 2
	TypeCookieReply = 3
	TypeTransport   = 4
	TypeRelay       = 5
	TypeJoin        = 6
	TypeDHT         = 'd' // messages of the Mainline DHT begin so (spec/71-dht.md)
)

// STUNCookie is at byte 4 of each message of STUN (RFC 8489 section 5); an answer begins with 1, as an initiation does
// (spec/73-nat.md#servers).
const STUNCookie = 0x2112A442

// IsSTUN reports whether b is a message of STUN, by its looks.
func IsSTUN(b []byte) bool {
	return len(b) >= 20 && b[0] < 0x40 && binary.BigEndian.Uint32(b[4:]) == STUNCookie
}
