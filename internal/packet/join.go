package packet

import (
	"bytes"
	"encoding/binary"
)

const (
	maxRun    = 65535
	maxPieces = 64
)

// Joiner puts TCP segments that follow one another in one flow together into a super-packet, as a network card's receive
// offload does. It gathers without copying: the pieces point into the packets that were added, which must stay unchanged
// until the run is flushed. It is not safe for concurrent use; the zero Joiner is ready.
//
// Invariant: cutting the super-packet with a [Segmenter] gives back the packets that were added, byte for byte, but for
// IPv4 ids when the sender did not count them up.
type Joiner struct {
	pieces  [][]byte
	first   []byte // whole first packet; its headers become the super-packet's
	at      int    // of the TCP header
	header  int    // of all headers
	size    int    // payload bytes of each segment but the last
	total   int    // bytes in pieces
	nextSeq uint32
	nextID  uint16
	closed  bool // nothing may follow: a short segment or PSH was last
}

// Add takes p, a whole IP packet, into the run and reports whether it fitted. When it did not, the caller flushes and adds
// it again: an empty Joiner takes any packet.
func (j *Joiner) Add(p []byte) bool {
	if len(j.pieces) == 0 {
		j.start(p)
		return true
	}
	if j.closed || j.header == 0 || len(j.pieces) == maxPieces || !j.follows(p) {
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
	if flags := p[j.at+13]; flags&tcpPSH != 0 {
		j.first[j.at+13] |= tcpPSH
		j.closed = true
	}
	j.closed = j.closed || len(payload) < j.size
	return true
}

// start begins a run with p. header stays 0 when nothing can follow it.
func (j *Joiner) start(p []byte) {
	*j = Joiner{pieces: append(j.pieces[:0], p), first: p, total: len(p)}
	proto, at, ok := transport(p)
	if !ok || proto != ProtoTCP || len(p) < at+tcpHeader || p[0]>>4 == 4 && at != IPv4Header {
		return
	}
	header := at + int(p[at+12]>>4)*4
	if p[at+13] != tcpACK || header < at+tcpHeader || header >= len(p) || !goodTransport(p, ProtoTCP, at) {
		return
	}
	j.at, j.header, j.size = at, header, len(p)-header
	j.nextSeq = binary.BigEndian.Uint32(p[at+4:]) + uint32(j.size)
	j.nextID = binary.BigEndian.Uint16(p[4:]) + 1
}

// follows reports whether p is the next segment of the run's flow, alike in everything that a cut would copy.
func (j *Joiner) follows(p []byte) bool {
	f, at := j.first, j.at
	if len(p) <= j.header || len(p)-j.header > j.size || p[0] != f[0] || p[1] != f[1] {
		return false
	}
	if p[0]>>4 == 4 {
		// Flags, TTL and protocol, addresses, and an id that counts up.
		if !bytes.Equal(p[6:10], f[6:10]) || !bytes.Equal(p[12:20], f[12:20]) || binary.BigEndian.Uint16(p[4:]) != j.nextID {
			return false
		}
	} else if !bytes.Equal(p[2:4], f[2:4]) || !bytes.Equal(p[6:40], f[6:40]) {
		return false
	}
	t, u := p[at:j.header], f[at:j.header]
	return bytes.Equal(t[0:4], u[0:4]) && // ports
		binary.BigEndian.Uint32(t[4:]) == j.nextSeq &&
		bytes.Equal(t[8:13], u[8:13]) && // acknowledgement, header length
		t[13]&^tcpPSH == tcpACK &&
		bytes.Equal(t[14:16], u[14:16]) && // window
		bytes.Equal(t[18:], u[18:]) && // urgent pointer, options
		goodTransport(p, ProtoTCP, at)
}

// Flush ends the run: it returns the pieces of one packet or super-packet in order, and its offload header. Both are valid
// until the next Add. No pieces means that the run was empty. The first piece's headers are changed in place.
func (j *Joiner) Flush() (pieces [][]byte, o Offload) {
	pieces = j.pieces
	j.pieces = j.pieces[:0]
	if len(pieces) < 2 {
		return pieces, o
	}
	p := j.first
	o = Offload{NeedsChecksum: true, HeaderLen: uint16(j.header), Segment: uint16(j.size),
		ChecksumStart: uint16(j.at), ChecksumOffset: 16}
	if p[0]>>4 == 4 {
		o.GSO = GSOTCPv4
		binary.BigEndian.PutUint16(p[2:], uint16(j.total))
		setIPv4Checksum(p)
	} else {
		o.GSO = GSOTCPv6
		binary.BigEndian.PutUint16(p[4:], uint16(j.total-IPv6Header))
	}
	// The kernel completes the checksum from the pseudo-header's sum.
	binary.BigEndian.PutUint16(p[j.at+16:], fold(pseudo(p, ProtoTCP, j.total-j.at)))
	return pieces, o
}
