package packet

import (
	"bytes"
	"encoding/binary"
)

const (
	maxRun    = 65535
	maxPieces = 64
)

// Joiner puts TCP segments, or UDP datagrams, that follow one another in one flow together into a super-packet, as a network
// card's receive offload does. It gathers without copying: the pieces point into the packets that were added, which must
// stay unchanged until the run is flushed. It is not safe for concurrent use; the zero Joiner is ready.
//
// Invariant: cutting the super-packet with a [Segmenter] gives back the packets that were added, byte for byte, but for the
// IPv4 ids of datagrams that must not be fragmented, which mean nothing (RFC 6864).
type Joiner struct {
	// UDP says that the host takes super-packets of UDP datagrams.
	UDP bool

	pieces  [][]byte
	first   []byte // whole first packet; its headers become the super-packet's
	partial bool   // checksums were left to the host
	proto   byte
	at      int    // of the transport header
	field   int    // of the checksum in it
	header  int    // of all headers; 0 when nothing can follow
	size    int    // payload bytes of each segment but the last
	total   int    // bytes in pieces
	nextSeq uint32 // TCP
	nextID  uint16 // IPv4
	closed  bool   // nothing may follow: a short segment or PSH was last
}

// Add takes p, a whole IP packet, into the run and reports whether it fitted. When it did not, the caller flushes and adds
// it again: an empty Joiner takes any packet. partial says that p's checksum is left to the host, and that PartialOK(p).
func (j *Joiner) Add(p []byte, partial bool) bool {
	if len(j.pieces) == 0 {
		j.start(p, partial)
		return true
	}
	if j.closed || j.header == 0 || len(j.pieces) == maxPieces || partial != j.partial || !j.follows(p) {
		return false
	}
	payload := p[j.header:]
	if j.total+len(payload) > maxRun {
		return false
	}
	j.pieces = append(j.pieces, payload)
	j.total += len(payload)
	j.nextSeq += uint32(len(payload))
	j.nextID++
	if j.proto == ProtoTCP && p[j.at+13]&tcpPSH != 0 {
		j.first[j.at+13] |= tcpPSH
		j.closed = true
	}
	j.closed = j.closed || len(payload) < j.size
	return true
}

// start begins a run with p.
func (j *Joiner) start(p []byte, partial bool) {
	*j = Joiner{UDP: j.UDP, pieces: append(j.pieces[:0], p), first: p, total: len(p), partial: partial}
	proto, at, field, ok := checksumField(p)
	if !ok {
		return
	}
	j.proto, j.at, j.field = proto, at, field
	header := at + udpHeader
	if proto == ProtoTCP {
		header = at + int(p[at+12]>>4)*4
		if p[at+13] != tcpACK || header < at+tcpHeader {
			return
		}
		j.nextSeq = binary.BigEndian.Uint32(p[at+4:]) + uint32(len(p)-header)
	} else if !j.UDP || int(binary.BigEndian.Uint16(p[at+4:])) != len(p)-at {
		return
	}
	if p[0]>>4 == 4 && at != IPv4Header || header >= len(p) || !j.intact(p) {
		return
	}
	j.header, j.size = header, len(p)-header
	j.nextID = binary.BigEndian.Uint16(p[4:]) + 1
}

// intact reports whether p's checksum is good, so that the host may be told to rely on it. A UDP checksum of zero is none.
func (j *Joiner) intact(p []byte) bool {
	if j.partial {
		return true
	}
	if j.proto == ProtoUDP && p[j.at+6] == 0 && p[j.at+7] == 0 {
		return false
	}
	return goodTransport(p, j.proto, j.at)
}

// follows reports whether p is the next packet of the run's flow, alike in everything that a cut would copy.
func (j *Joiner) follows(p []byte) bool {
	f, at := j.first, j.at
	if len(p) <= j.header || len(p)-j.header > j.size || p[0] != f[0] || p[1] != f[1] {
		return false
	}
	if p[0]>>4 == 4 {
		// Flags, TTL and protocol, and addresses.
		if !bytes.Equal(p[6:10], f[6:10]) || !bytes.Equal(p[12:20], f[12:20]) || !j.rightID(p) {
			return false
		}
	} else if !bytes.Equal(p[2:4], f[2:4]) || !bytes.Equal(p[6:40], f[6:40]) {
		return false
	}
	t, u := p[at:j.header], f[at:j.header]
	if !bytes.Equal(t[0:4], u[0:4]) { // ports
		return false
	}
	if j.proto == ProtoUDP {
		return int(binary.BigEndian.Uint16(t[4:])) == len(p)-at && j.intact(p)
	}
	return binary.BigEndian.Uint32(t[4:]) == j.nextSeq &&
		bytes.Equal(t[8:13], u[8:13]) && // acknowledgement, header length
		t[13]&^tcpPSH == tcpACK &&
		bytes.Equal(t[14:16], u[14:16]) && // window
		bytes.Equal(t[18:], u[18:]) && // urgent pointer, options
		j.intact(p)
}

// rightID reports whether p's IPv4 id is the one that a cut would give it, or does not matter.
func (j *Joiner) rightID(p []byte) bool {
	id := binary.BigEndian.Uint16(p[4:])
	return id == j.nextID || j.proto == ProtoUDP && p[6]&0x40 != 0
}

// Flush ends the run: it returns the pieces of one packet or super-packet in order, and its offload header. Both are valid
// until the next Add. No pieces means that the run was empty. The first piece's headers are changed in place.
func (j *Joiner) Flush() (pieces [][]byte, o Offload) {
	pieces = j.pieces
	j.pieces = j.pieces[:0]
	if len(pieces) == 0 {
		return pieces, o
	}
	if len(pieces) > 1 || j.partial {
		o = Offload{NeedsChecksum: true, HeaderLen: uint16(j.header), ChecksumStart: uint16(j.at), ChecksumOffset: uint16(j.field)}
	}
	if len(pieces) > 1 {
		j.finish(&o)
	}
	return pieces, o
}

// finish makes the first packet's headers those of the super-packet.
func (j *Joiner) finish(o *Offload) {
	p := j.first
	o.Segment = uint16(j.size)
	switch {
	case j.proto == ProtoUDP:
		o.GSO = GSOUDP
		binary.BigEndian.PutUint16(p[j.at+4:], uint16(j.total-j.at))
	case p[0]>>4 == 4:
		o.GSO = GSOTCPv4
	default:
		o.GSO = GSOTCPv6
	}
	if p[0]>>4 == 4 {
		binary.BigEndian.PutUint16(p[2:], uint16(j.total))
		setIPv4Checksum(p)
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(j.total-IPv6Header))
	}
	// The kernel completes the checksum from the pseudo-header's sum.
	binary.BigEndian.PutUint16(p[j.at+j.field:], fold(pseudo(p, j.proto, j.total-j.at)))
}
