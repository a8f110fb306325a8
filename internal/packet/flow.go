package packet

import "encoding/binary"

// Flow returns a number that all packets of one flow share: of its addresses, its protocol and, for TCP and UDP, its ports. The
// fragments of a packet have one number too, without the ports. What is no IP packet gives 0.
func Flow(p []byte) uint32 {
	var h uint64
	switch Version(p) {
	case 4:
		h = mix(uint64(p[9]), binary.LittleEndian.Uint64(p[12:]))
	case 6:
		h = uint64(p[6])
		for at := 8; at < IPv6Header; at += 8 {
			h = mix(h, binary.LittleEndian.Uint64(p[at:]))
		}
	default:
		return 0
	}
	if proto, at, ok := transport(p); ok && (proto == ProtoTCP || proto == ProtoUDP) && len(p) >= at+4 {
		h = mix(h, uint64(binary.LittleEndian.Uint32(p[at:])))
	}
	return uint32(h >> 32)
}

// mix stirs v into h (the finisher of MurmurHash3): near inputs give far outputs.
func mix(h, v uint64) uint64 {
	h ^= v
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
