package packet

import "encoding/binary"

// MaxTooBig is the largest packet that [TooBig] builds.
const MaxTooBig = 1280

// TooBig writes to dst the answer of a router whose next link takes only mtu bytes: ICMPv4 "fragmentation needed" (RFC 1191)
// or ICMPv6 "packet too big" (RFC 4443 section 3.2), from the packet's destination back to its source. dst has room for
// MaxTooBig bytes. It returns the length, or 0 when none must be sent: the packet is an ICMP error itself, a fragment
// other than the first, or multicast.
func TooBig(dst, p []byte, mtu int) int {
	switch Version(p) {
	case 4:
		if p[9] == ProtoICMP || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 || p[16] >= 224 {
			return 0
		}
		quote := p[:min(len(p), 548)]
		n := IPv4Header + 8 + len(quote)
		d := dst[:n]
		clear(d[:IPv4Header+8])
		d[0], d[8], d[9] = 0x45, 64, ProtoICMP
		binary.BigEndian.PutUint16(d[2:], uint16(n))
		copy(d[12:16], p[16:20])
		copy(d[16:20], p[12:16])
		d[20], d[21] = 3, 4
		binary.BigEndian.PutUint16(d[26:], uint16(mtu))
		copy(d[28:], quote)
		setIPv4Checksum(d)
		binary.BigEndian.PutUint16(d[22:], Checksum(d[20:]))
		return n
	case 6:
		if p[6] == ProtoICMPv6 && len(p) > IPv6Header && p[IPv6Header] < 128 || p[24] == 0xff {
			return 0
		}
		quote := p[:min(len(p), MaxTooBig-IPv6Header-8)]
		n := IPv6Header + 8 + len(quote)
		d := dst[:n]
		clear(d[:IPv6Header+8])
		d[0], d[6], d[7] = 0x60, ProtoICMPv6, 64
		binary.BigEndian.PutUint16(d[4:], uint16(n-IPv6Header))
		copy(d[8:24], p[24:40])
		copy(d[24:40], p[8:24])
		d[40] = 2
		binary.BigEndian.PutUint32(d[44:], uint32(mtu))
		copy(d[48:], quote)
		setTransport(d, ProtoICMPv6, IPv6Header, 2)
		return n
	}
	return 0
}

// MayFragment reports whether p is an IPv4 packet that routers may cut: its DF bit is clear.
func MayFragment(p []byte) bool { return Version(p) == 4 && p[6]&0x40 == 0 }

// Fragment writes to dst the fragment of the IPv4 packet p that starts at payload offset from, in bytes, and returns its
// length and the offset of the next one, 0 after the last (RFC 791 section 3.2). No fragment is longer than mtu, which is at
// least 68.
func Fragment(dst, p []byte, from, mtu int) (n, next int) {
	header := int(p[0]&15) * 4
	size := (mtu - header) &^ 7
	end := header + from + size
	more := uint16(0x2000)
	if end >= len(p) {
		end, more = len(p), 0
	}
	n = copy(dst, p[:header])
	n += copy(dst[n:], p[header+from:end])
	was := binary.BigEndian.Uint16(p[6:])
	binary.BigEndian.PutUint16(dst[2:], uint16(n))
	binary.BigEndian.PutUint16(dst[6:], was&0x2000|more|(was&0x1fff+uint16(from/8)))
	setIPv4Checksum(dst[:n])
	if more != 0 {
		next = from + size
	}
	return n, next
}
