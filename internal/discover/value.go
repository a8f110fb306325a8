package discover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/warren-vpn/warren/internal/key"
)

// ValueSize is the size of every value in the DHT in bytes, whatever it holds.
const ValueSize = 900

// The value of a slot is (spec/70-discover.md#value):
//
//	0-23   random nonce
//	24-    sealed by XChaCha20-Poly1305, with the target as additional data:
//	         0   1: version
//	         1   number of entries, 0 to 24
//	         2-  entries, each: short id 8 | kind and time 1 | address 16 | port 2
//	         -   zeros, to 860 bytes
//	last 16 tag
const (
	maxEntries   = 24
	entrySize    = 8 + 1 + 16 + 2
	valueVersion = 1
	plainSize    = ValueSize - chacha20poly1305.NonceSizeX - chacha20poly1305.Overhead
	stampUnit    = 1350 // seconds: a 64th of a day
	maxStamp     = 63
)

var errValue = errors.New("value of a slot is malformed")

// Kind says what an address found is good for. Lower ones are better.
type Kind uint8

// The kinds. Their numbers are on the wire.
const (
	KindAnchor   Kind = iota // its node is reachable from anywhere
	KindMapped               // a router maps it to its node
	KindOther                // behind a NAT or a firewall: reachable when it sends too
	KindNewcomer             // of somebody who wants to join: only in slots of invites
)

// entry is one address of one node.
type entry struct {
	id    key.ShortID
	kind  Kind
	stamp uint8 // when it was stated, in units of 22.5 min since the slot's day began
	addr  netip.AddrPort
}

// stamp returns the stamp of t in s: the first and last one for times before and after the day.
func (s *slot) stamp(t time.Time) uint8 {
	return uint8(min(max(int64(t.Sub(s.f.begin(s.day))/time.Second)/stampUnit, 0), maxStamp))
}

// encode makes the sealed value of at most maxEntries entries.
func (s *slot) encode(nonce [chacha20poly1305.NonceSizeX]byte, entries []entry) []byte {
	plain := make([]byte, 0, plainSize)
	plain = append(plain, valueVersion, byte(len(entries)))
	for _, e := range entries {
		plain = append(plain, e.id[:]...)
		plain = append(plain, byte(e.kind)|e.stamp<<2)
		ip := e.addr.Addr().As16()
		plain = append(plain, ip[:]...)
		plain = binary.BigEndian.AppendUint16(plain, e.addr.Port())
	}
	return aead(s.seal).Seal(nonce[:], nonce[:], plain[:plainSize], s.target[:])
}

// decode opens a value and reads it.
func (s *slot) decode(value []byte) ([]entry, error) {
	if len(value) != ValueSize {
		return nil, fmt.Errorf("%d bytes: %w", len(value), errValue)
	}
	const n = chacha20poly1305.NonceSizeX
	plain, err := aead(s.seal).Open(nil, value[:n], value[n:], s.target[:])
	if err != nil {
		return nil, fmt.Errorf("open: %w", errValue)
	}
	return parseValue(plain)
}

// parseValue reads an opened value. There is one encoding of what it holds.
func parseValue(b []byte) ([]entry, error) {
	if len(b) != plainSize || b[0] != valueVersion || b[1] > maxEntries {
		return nil, errValue
	}
	out := make([]entry, b[1])
	b = b[2:]
	for i := range out {
		e := &out[i]
		e.id = key.ShortID(b)
		e.kind, e.stamp = Kind(b[8]&3), b[8]>>2
		e.addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[9:])).Unmap(), binary.BigEndian.Uint16(b[25:]))
		if e.addr.Port() == 0 || e.addr.Addr().IsUnspecified() {
			return nil, fmt.Errorf("entry %d: %w", i, errValue)
		}
		b = b[entrySize:]
	}
	for _, c := range b {
		if c != 0 {
			return nil, fmt.Errorf("padding: %w", errValue)
		}
	}
	return out, nil
}

// public reports whether an address may stand in a slot by default: one that means the same host to everybody.
func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !reserved4.Contains(a) && !cgn.Contains(a)
}

var (
	reserved4 = netip.MustParsePrefix("240.0.0.0/4")
	cgn       = netip.MustParsePrefix("100.64.0.0/10")
)
