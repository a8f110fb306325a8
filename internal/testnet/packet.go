package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Numbers of the inner protocols.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	protoIGMP   = 2
	ProtoICMPv6 = 58
	// ProtoFragment is the number of the IPv6 fragment header; [ReadInner] reports IPv4 fragments by it, too.
	ProtoFragment = 44
)

// Inner is what [ReadInner] finds in an IP packet. Payload points into the packet.
type Inner struct {
	Src, Dst netip.AddrPort // ports are zero but for UDP
	Proto    byte
	Hops     byte   // TTL or hop limit
	Type     byte   // ICMP: type
	ID, Seq  uint16 // ICMP echo
	Payload  []byte // of UDP and ICMP echo; else all after the IP header
}

var allNodes = netip.MustParseAddr("ff02::1")

// Echo reports whether p is an ICMP echo request (of its family).
func (p Inner) Echo() bool {
	return p.Proto == ProtoICMP && p.Type == 8 || p.Proto == ProtoICMPv6 && p.Type == 128
}

// EchoReply reports whether p answers an ICMP echo request.
func (p Inner) EchoReply() bool {
	return p.Proto == ProtoICMP && p.Type == 0 || p.Proto == ProtoICMPv6 && p.Type == 129
}

// PacketTooBig reports whether p says that a packet did not fit: ICMPv4 destination unreachable or ICMPv6 packet too big.
func (p Inner) PacketTooBig() bool {
	return p.Proto == ProtoICMP && p.Type == 3 || p.Proto == ProtoICMPv6 && p.Type == 2
}

// EchoRequest builds a ping from src to dst, which must be of one family.
func EchoRequest(src, dst netip.Addr, id, seq uint16, payload []byte) []byte {
	return echo(src, dst, 8, 128, id, seq, payload)
}

// EchoReply builds the answer to a ping.
func EchoReply(src, dst netip.Addr, id, seq uint16, payload []byte) []byte {
	return echo(src, dst, 0, 129, id, seq, payload)
}

func echo(src, dst netip.Addr, type4, type6 byte, id, seq uint16, payload []byte) []byte {
	body := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(body[4:], id)
	binary.BigEndian.PutUint16(body[6:], seq)
	body = append(body, payload...)
	if src.Is4() {
		body[0] = type4
		binary.BigEndian.PutUint16(body[2:], checksum(body))
		return IP(src, dst, ProtoICMP, body)
	}
	body[0] = type6
	binary.BigEndian.PutUint16(body[2:], checksum(pseudoHeader(src, dst, ProtoICMPv6, len(body)), body))
	return IP(src, dst, ProtoICMPv6, body)
}

// UDP builds a UDP packet from src to dst, which must be of one family.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	body := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(body[0:], src.Port())
	binary.BigEndian.PutUint16(body[2:], dst.Port())
	binary.BigEndian.PutUint16(body[4:], uint16(8+len(payload)))
	body = append(body, payload...)
	sum := checksum(pseudoHeader(src.Addr(), dst.Addr(), ProtoUDP, len(body)), body)
	if sum == 0 {
		sum = 0xffff // RFC 768: a sum of zero is sent as all ones
	}
	binary.BigEndian.PutUint16(body[6:], sum)
	return IP(src.Addr(), dst.Addr(), ProtoUDP, body)
}

// IP puts an IP header (no options, 64 hops, do not fragment) in front of body.
func IP(src, dst netip.Addr, proto byte, body []byte) []byte {
	if src.Is4() != dst.Is4() {
		panic(fmt.Sprintf("BUG: testnet: packet from %s to %s", src, dst))
	}
	if src.Is4() {
		p := make([]byte, 20, 20+len(body))
		p[0], p[8], p[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(p[2:], uint16(20+len(body)))
		p[6] = 0x40
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(p[10:], checksum(p))
		return append(p, body...)
	}
	p := make([]byte, 40, 40+len(body))
	p[0], p[6], p[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(body)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, body...)
}

var errPacket = errors.New("not a sound IP packet")

// ReadInner reads an IP packet and checks every length and checksum in it, as the host behind a tunnel would.
func ReadInner(p []byte) (Inner, error) {
	var in Inner
	var src, dst netip.Addr
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		head := int(p[0]&15) * 4
		if head < 20 || int(binary.BigEndian.Uint16(p[2:])) != len(p) || len(p) < head || checksum(p[:head]) != 0 {
			return in, fmt.Errorf("IPv4 header %x of %d bytes: %w", p[:20], len(p), errPacket)
		}
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		in.Proto, in.Hops, in.Payload = p[9], p[8], p[head:]
		if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 { // more fragments, or an offset
			in.Proto = ProtoFragment
		}
	case len(p) >= 40 && p[0]>>4 == 6:
		if int(binary.BigEndian.Uint16(p[4:])) != len(p)-40 {
			return in, fmt.Errorf("IPv6 header %x of %d bytes: %w", p[:40], len(p), errPacket)
		}
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		in.Proto, in.Hops, in.Payload = p[6], p[7], p[40:]
	default:
		return in, fmt.Errorf("%d bytes: %w", len(p), errPacket)
	}
	in.Src, in.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	return in, in.readBody()
}

func (p *Inner) readBody() error {
	b, pseudo := p.Payload, []byte(nil)
	switch p.Proto {
	case ProtoICMP:
	case ProtoUDP, ProtoICMPv6, ProtoTCP:
		pseudo = pseudoHeader(p.Src.Addr(), p.Dst.Addr(), p.Proto, len(b))
	default:
		return nil
	}
	if len(b) < 8 {
		return fmt.Errorf("protocol %d with %d bytes: %w", p.Proto, len(b), errPacket)
	}
	noSum := p.Proto == ProtoUDP && p.Src.Addr().Is4() && b[6] == 0 && b[7] == 0
	if !noSum && checksum(pseudo, b) != 0 {
		return fmt.Errorf("protocol %d: checksum: %w", p.Proto, errPacket)
	}
	switch p.Proto {
	case ProtoUDP:
		if int(binary.BigEndian.Uint16(b[4:])) != len(b) {
			return fmt.Errorf("UDP length: %w", errPacket)
		}
		p.Src = netip.AddrPortFrom(p.Src.Addr(), binary.BigEndian.Uint16(b))
		p.Dst = netip.AddrPortFrom(p.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
		p.Payload = b[8:]
	case ProtoICMP, ProtoICMPv6:
		p.Type, p.ID, p.Seq = b[0], binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		p.Payload = b[8:]
	}
	return nil
}

func pseudoHeader(src, dst netip.Addr, proto byte, size int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return append(b, 0, proto, byte(size>>8), byte(size))
	}
	return append(b, byte(size>>24), byte(size>>16), byte(size>>8), byte(size), 0, 0, 0, proto)
}

// checksum is RFC 1071 over the parts, all but the last of even length: written the slow way, as a second reader of what
// package packet does fast.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i, x := range b {
			if i%2 == 0 {
				sum += uint32(x) << 8
			} else {
				sum += uint32(x)
			}
			sum = sum&0xffff + sum>>16
		}
	}
	return ^uint16(sum)
}
