package packet

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to acc as big-endian 16-bit words in one's complement (RFC 1071), eight bytes at a time; the result is not
// folded. A trailing odd byte counts as the high half of a word.
func sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[24:]), carry)
		acc += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(last[:]), 0)
	return acc + carry
}

// fold brings a sum down to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// Checksum returns the Internet checksum of b (RFC 1071).
func Checksum(b []byte) uint16 { return ^fold(sum(b, 0)) }

// setIPv4Checksum writes the header checksum of the IPv4 packet p.
func setIPv4Checksum(p []byte) {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], Checksum(p[:int(p[0]&15)*4]))
}

// setTransport writes the checksum of the transport header at offset at, whose checksum field is at field.
func setTransport(p []byte, proto byte, at, field int) {
	binary.BigEndian.PutUint16(p[at+field:], 0)
	c := ^fold(sum(p[at:], pseudo(p, proto, len(p)-at)))
	if c == 0 && proto == ProtoUDP {
		c = 0xffff // RFC 768: zero means none
	}
	binary.BigEndian.PutUint16(p[at+field:], c)
}

// goodTransport reports whether the transport checksum of p verifies.
func goodTransport(p []byte, proto byte, at int) bool {
	return fold(sum(p[at:], pseudo(p, proto, len(p)-at))) == 0xffff
}
