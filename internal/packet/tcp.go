package packet

import "encoding/binary"

// TCP flags.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80
)

// ClampMSS lowers the MSS option of a TCP SYN so that its segments fit packets of mtu bytes, and mends the checksum
// (RFC 1624). Everything else is left as it is.
func ClampMSS(p []byte, mtu int) {
	proto, at, ok := transport(p)
	if !ok || proto != ProtoTCP || len(p) < at+tcpHeader || p[at+13]&tcpSYN == 0 {
		return
	}
	end := at + int(p[at+12]>>4)*4
	if end > len(p) {
		return
	}
	limit := mtu - at - tcpHeader
	if limit <= 0 {
		return
	}
	for i := at + tcpHeader; i+1 < end; {
		switch kind, n := p[i], int(p[i+1]); {
		case kind == 0:
			return
		case kind == 1:
			i++
		case n < 2 || i+n > end:
			return
		case kind == 2 && n == 4:
			if old := binary.BigEndian.Uint16(p[i+2:]); int(old) > limit {
				binary.BigEndian.PutUint16(p[i+2:], uint16(limit))
				replaceWord(p[at+16:], old, uint16(limit), (i+2-at)%2 != 0)
			}
			return
		default:
			i += n
		}
	}
}

// replaceWord mends the checksum at c for a 16-bit word that changed from old to new (RFC 1624 equation 3). odd says that
// the word does not start on an even offset, so its bytes count in swapped order.
func replaceWord(c []byte, old, new uint16, odd bool) {
	if odd {
		old, new = old>>8|old<<8, new>>8|new<<8
	}
	s := uint64(^binary.BigEndian.Uint16(c)) + uint64(^old) + uint64(new)
	binary.BigEndian.PutUint16(c, ^fold(s))
}
