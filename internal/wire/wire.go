// Package wire holds what nodes say to each other: records, control messages, join frames and invite codes. For each
// there is a layout, an Append or Marshal, and a strict Parse.
//
// Everything here is a value; nothing does I/O. Parsers never panic, copy nothing that they need not, and refuse what is
// not in its one canonical form. Slices in parsed values alias the input: the caller owns both. Numbers of kinds and
// types are append-only (spec/20-records.md, spec/50-control.md).
package wire

import "errors"

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
