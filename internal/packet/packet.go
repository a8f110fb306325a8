// Package packet reads and edits the IP, TCP, UDP and ICMP headers of inner packets in place.
//
// It holds also the two shapes in which packets move between the edges and the data plane: a [Frame] is what one read or
// write of a TUN device moves, [Datagrams] what one send or receive of a socket moves. Both may hold many packets at once
// (a super-packet: segmentation offload), which is where speed comes from.
//
// All functions work on the caller's bytes, allocate nothing, and accept anything: what is no packet gives ok = false. None
// keeps a reference. Sizes are bytes. Sources: RFC 791, 8200 (IP), 9293 (TCP), 768 (UDP), 792, 4443 (ICMP), 1071 (checksum).
package packet

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// Sizes of headers without options.
const (
	IPv4Header = 20
	IPv6Header = 40
	tcpHeader  = 20
	udpHeader  = 8
)

// Datagrams is a run of UDP datagrams from or to one address, back to back in Data: each is Segment bytes long but for the
// last, which may be shorter. Segment == len(Data) means one datagram.
type Datagrams struct {
	Data    []byte
	Segment int
	Addr    netip.AddrPort // sender when read, receiver when written
}

// Split writes b in its order, those to addresses that are somebody's by theirs, all others by rest. The error is the last one; what
// comes after it is still written. It allocates nothing itself.
func Split(b []Datagrams, is func(netip.Addr) bool, theirs, rest func([]Datagrams) error) (err error) {
	for len(b) > 0 {
		n, by := 1, is(b[0].Addr.Addr())
		for n < len(b) && is(b[n].Addr.Addr()) == by {
			n++
		}
		write := rest
		if by {
			write = theirs
		}
		if e := write(b[:n]); e != nil {
			err = e
		}
		b = b[n:]
	}
	return err
}

// Version returns 4, 6, or 0 for what is no IP packet.
func Version(p []byte) int {
	if len(p) >= IPv4Header && p[0]>>4 == 4 {
		return 4
	}
	if len(p) >= IPv6Header && p[0]>>4 == 6 {
		return 6
	}
	return 0
}

// Source returns the source address of an IP packet.
func Source(p []byte) (a netip.Addr, ok bool) {
	switch Version(p) {
	case 4:
		return netip.AddrFrom4([4]byte(p[12:16])), true
	case 6:
		return netip.AddrFrom16([16]byte(p[8:24])), true
	}
	return netip.Addr{}, false
}

// Destination returns the destination address of an IP packet.
func Destination(p []byte) (a netip.Addr, ok bool) {
	switch Version(p) {
	case 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// Trim cuts what follows the packet's own length, such as WireGuard's padding. ok is false when the header claims more than
// there is, or less than itself.
func Trim(p []byte) (_ []byte, ok bool) {
	n := 0
	switch Version(p) {
	case 4:
		n = int(binary.BigEndian.Uint16(p[2:]))
		if n < IPv4Header || n < int(p[0]&15)*4 || p[0]&15 < 5 {
			return nil, false
		}
	case 6:
		n = IPv6Header + int(binary.BigEndian.Uint16(p[4:]))
	default:
		return nil, false
	}
	if n > len(p) {
		return nil, false
	}
	return p[:n], true
}

// transport finds the transport header of an unfragmented packet without IPv6 extension headers: its protocol and offset.
// Everything else gives ok = false and takes the plain path.
func transport(p []byte) (proto byte, at int, ok bool) {
	switch Version(p) {
	case 4:
		at = int(p[0]&15) * 4
		if at < IPv4Header || at > len(p) || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return 0, 0, false // more fragments, or an offset
		}
		return p[9], at, true
	case 6:
		return p[6], IPv6Header, true
	}
	return 0, 0, false
}

// pseudo starts a transport checksum with the pseudo-header of RFC 793 or 8200 section 8.1, for n bytes of transport.
func pseudo(p []byte, proto byte, n int) uint64 {
	if p[0]>>4 == 4 {
		return sum(p[12:20], uint64(proto)+uint64(n))
	}
	return sum(p[8:40], uint64(proto)+uint64(n))
}
