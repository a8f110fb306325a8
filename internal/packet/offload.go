package packet

import (
	"encoding/binary"
	"errors"
)

// OffloadSize is the size of an encoded Offload: Linux's struct virtio_net_hdr.
const OffloadSize = 10

// GSO says how a super-packet is cut (virtio 1.2 section 5.1.6).
type GSO uint8

// The ways of cutting.
const (
	GSONone  GSO = 0
	GSOTCPv4 GSO = 1
	GSOTCPv6 GSO = 4
	GSOUDP   GSO = 5 // USO: UDP datagrams of equal size, IPv4 or IPv6
)

// Offload is what a kernel leaves to us, or we to it, for one packet: the transport checksum, and the cutting into segments.
type Offload struct {
	NeedsChecksum  bool // the field at ChecksumStart + ChecksumOffset holds the pseudo-header's sum only
	GSO            GSO
	HeaderLen      uint16 // of all headers; a hint that is not relied upon
	Segment        uint16 // payload bytes per segment
	ChecksumStart  uint16
	ChecksumOffset uint16
}

// Frame is what one read or write of a TUN device moves: a packet, or with GSO set a super-packet.
type Frame struct {
	Offload Offload
	Data    []byte
}

// ErrOffload reports an offload header that does not fit its packet.
var ErrOffload = errors.New("offload header does not fit the packet")

// ParseOffload reads a virtio header in the byte order of the host, which is little-endian by VHDR_LE.
func ParseOffload(b []byte) (Offload, error) {
	if len(b) < OffloadSize {
		return Offload{}, ErrOffload
	}
	o := Offload{
		NeedsChecksum:  b[0]&1 != 0,
		GSO:            GSO(b[1] &^ 0x80), // 0x80: ECN, which our cutting keeps anyway
		HeaderLen:      binary.LittleEndian.Uint16(b[2:]),
		Segment:        binary.LittleEndian.Uint16(b[4:]),
		ChecksumStart:  binary.LittleEndian.Uint16(b[6:]),
		ChecksumOffset: binary.LittleEndian.Uint16(b[8:]),
	}
	switch o.GSO {
	case GSONone, GSOTCPv4, GSOTCPv6, GSOUDP:
		return o, nil
	}
	return Offload{}, ErrOffload
}

// Put writes o into b[:OffloadSize].
func (o Offload) Put(b []byte) {
	b[0] = 0
	if o.NeedsChecksum {
		b[0] = 1
	}
	b[1] = byte(o.GSO)
	binary.LittleEndian.PutUint16(b[2:], o.HeaderLen)
	binary.LittleEndian.PutUint16(b[4:], o.Segment)
	binary.LittleEndian.PutUint16(b[6:], o.ChecksumStart)
	binary.LittleEndian.PutUint16(b[8:], o.ChecksumOffset)
}

// Segmenter cuts a frame into the packets that it stands for. The zero Segmenter is spent; [Segmenter.Reset] loads it.
// It is not safe for concurrent use.
type Segmenter struct {
	p        []byte
	proto    byte
	at       int // of the transport header
	header   int // of all headers
	size     int // payload bytes per segment
	next     int // offset of the next payload byte in p; 0 when spent
	index    int
	single   bool
	partial  bool // leave checksums to the receiver
	checksum Offload
}

// Reset loads f, which must stay unchanged until the last segment is taken.
func (s *Segmenter) Reset(f Frame) error {
	*s = Segmenter{p: f.Data, single: f.Offload.GSO == GSONone, checksum: f.Offload, next: 1}
	if Version(f.Data) == 0 {
		s.next = 0
		return ErrOffload
	}
	if s.single {
		return nil
	}
	proto, at, ok := transport(f.Data)
	s.proto, s.at, s.size = proto, at, int(f.Offload.Segment)
	switch {
	case ok && proto == ProtoTCP && f.Offload.GSO != GSOUDP && len(f.Data) >= at+tcpHeader:
		s.header = at + int(f.Data[at+12]>>4)*4
	case ok && proto == ProtoUDP && f.Offload.GSO == GSOUDP:
		s.header = at + udpHeader
	}
	if s.header < at+udpHeader || s.header >= len(f.Data) || s.size == 0 || s.header < at+tcpHeader && proto == ProtoTCP {
		s.next = 0
		return ErrOffload
	}
	s.next = s.header
	return nil
}

// LeaveChecksums asks for packets whose transport checksum is left to the receiver's host, as this host's kernel left it to us:
// the field holds the pseudo-header's sum only. It reports whether it will be so; it is not when the kernel left nothing, nor
// for packets that must be looked at on the way (TCP SYN), fragments and IPv6 with extension headers. It is called between
// Reset and the first Next.
func (s *Segmenter) LeaveChecksums() bool {
	if !s.checksum.NeedsChecksum {
		return false
	}
	proto, at, field, ok := checksumField(s.p)
	if !ok || s.single && (int(s.checksum.ChecksumStart) != at || int(s.checksum.ChecksumOffset) != field) {
		return false
	}
	s.partial = !(proto == ProtoTCP && s.p[at+13]&tcpSYN != 0)
	return s.partial
}

// checksumField finds the transport checksum of an unfragmented TCP or UDP packet: the offset of the transport header, and of
// the field in it.
func checksumField(p []byte) (proto byte, at, field int, ok bool) {
	proto, at, ok = transport(p)
	switch {
	case ok && proto == ProtoTCP && len(p) >= at+tcpHeader:
		return proto, at, 16, true
	case ok && proto == ProtoUDP && len(p) >= at+udpHeader:
		return proto, at, 6, true
	}
	return 0, 0, 0, false
}

// PartialOK reports whether p may have come with its checksum left to the host: what [Segmenter.LeaveChecksums] allows.
func PartialOK(p []byte) bool {
	proto, at, _, ok := checksumField(p)
	return ok && !(proto == ProtoTCP && p[at+13]&tcpSYN != 0)
}

// MaxLen returns the length of the largest packet that the frame is cut into.
func (s *Segmenter) MaxLen() int {
	if s.single {
		return len(s.p)
	}
	return min(s.header+s.size, len(s.p))
}

// Count returns how many packets there are in all.
func (s *Segmenter) Count() int {
	if s.single {
		return 1
	}
	return (len(s.p) - s.header + s.size - 1) / s.size
}

// Next writes the next packet to dst, which has room for MaxLen bytes, and returns its length; 0 when there are no more.
// Checksums are complete.
func (s *Segmenter) Next(dst []byte) int {
	if s.next == 0 {
		return 0
	}
	if s.single {
		s.next = 0
		n := copy(dst, s.p)
		if !s.partial { // else the field is as it must be
			finishChecksum(dst[:n], s.checksum)
		}
		return n
	}
	end := min(s.next+s.size, len(s.p))
	n := copy(dst, s.p[:s.header])
	n += copy(dst[n:], s.p[s.next:end])
	s.fix(dst[:n], end == len(s.p))
	s.next = end
	if end == len(s.p) {
		s.next = 0
	}
	s.index++
	return n
}

// fix makes the headers of segment d true: lengths, IPv4 id, TCP sequence number and flags, checksums.
func (s *Segmenter) fix(d []byte, last bool) {
	if d[0]>>4 == 4 {
		binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
		binary.BigEndian.PutUint16(d[4:], binary.BigEndian.Uint16(s.p[4:])+uint16(s.index))
		setIPv4Checksum(d)
	} else {
		binary.BigEndian.PutUint16(d[4:], uint16(len(d)-IPv6Header))
	}
	t := d[s.at:]
	if s.proto == ProtoUDP {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		s.sum(d, 6)
		return
	}
	binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(s.p[s.at+4:])+uint32(s.index*s.size))
	if !last {
		t[13] &^= tcpFIN | tcpPSH
	}
	if s.index > 0 {
		t[13] &^= tcpCWR
	}
	s.sum(d, 16)
}

// sum writes the checksum of segment d, or what leaves it to the receiver.
func (s *Segmenter) sum(d []byte, field int) {
	if s.partial {
		binary.BigEndian.PutUint16(d[s.at+field:], fold(pseudo(d, s.proto, len(d)-s.at)))
		return
	}
	setTransport(d, s.proto, s.at, field)
}

// finishChecksum completes a checksum that the kernel left to us; one that lies outside the packet is left alone.
func finishChecksum(p []byte, o Offload) {
	at, field := int(o.ChecksumStart), int(o.ChecksumStart)+int(o.ChecksumOffset)
	if !o.NeedsChecksum || at >= len(p) || field+2 > len(p) {
		return
	}
	c := ^fold(sum(p[at:], 0))
	if c == 0 && o.ChecksumOffset == 6 {
		c = 0xffff // UDP
	}
	binary.BigEndian.PutUint16(p[field:], c)
}
