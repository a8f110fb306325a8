package packet

import (
	"encoding/binary"
	"net/netip"
)

// Reach says to how many a packet is addressed.
type Reach uint8

// The reaches (spec/55-broadcast.md#reach).
const (
	ReachOne   Reach = iota // one host
	ReachAll                // every member: broadcast, and the group of all hosts
	ReachGroup              // the members that listen to the group
	ReachHost               // a group, but the packet must neither leave the host nor be taken from a peer
)

// Numbers of protocols and ports that tell one kind of packet from the other.
const (
	protoHopByHop    = 0
	protoIGMP        = 2
	protoRouting     = 43
	protoFragment    = 44
	protoDestOptions = 60

	dhcpServer, dhcpClient     = 67, 68
	dhcpv6Client, dhcpv6Server = 546, 547

	maxExtensions = 8 // IPv6 extension headers that are looked through
)

const (
	limitedBroadcast = 0xffffffff
	allHosts         = 0xe0000001 // 224.0.0.1
)

// Broadcast returns the directed broadcast address of an IPv4 prefix, its last one; the zero Addr when it has none.
func Broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() < 0 || p.Bits() > 30 {
		return netip.Addr{}
	}
	a := p.Addr().As4()
	last := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, last)))
}

// BroadcastKey returns the form of a directed broadcast address that [ReachOf] takes; 0 for the zero Addr.
func BroadcastKey(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// ReachOf says to how many the whole IP packet p is addressed. broadcast is the BroadcastKey of the network's directed
// broadcast address, or 0.
func ReachOf(p []byte, broadcast uint32) Reach {
	switch Version(p) {
	case 4:
		dst := binary.BigEndian.Uint32(p[16:])
		if dst>>28 < 0xe && (dst != broadcast || broadcast == 0) {
			return ReachOne
		}
		return reach4(p, dst)
	case 6:
		if p[24] == 0xff {
			return reach6(p)
		}
	}
	return ReachOne
}

func reach4(p []byte, dst uint32) Reach {
	multicast := dst>>28 == 0xe
	switch {
	case dst>>28 == 0xf && dst != limitedBroadcast: // reserved, not a group
		return ReachOne
	case p[9] == protoIGMP:
		return ReachHost
	case p[9] == ProtoUDP && ports4(p, dhcpServer, dhcpClient):
		return ReachHost
	case multicast && dst != allHosts:
		return ReachGroup
	}
	return ReachAll
}

// ports4 reports whether one of the UDP ports of p is a or b. Later fragments have none.
func ports4(p []byte, a, b uint16) bool {
	at := int(p[0]&15) * 4
	return binary.BigEndian.Uint16(p[6:])&0x1fff == 0 && hasPort(p, at, a, b)
}

func hasPort(p []byte, at int, a, b uint16) bool {
	if len(p) < at+udpHeader {
		return false
	}
	src, dst := binary.BigEndian.Uint16(p[at:]), binary.BigEndian.Uint16(p[at+2:])
	return src == a || src == b || dst == a || dst == b
}

func reach6(p []byte) Reach {
	switch p[25] & 0xf { // the scope
	case 0, 1, 15: // reserved, or of one interface
		return ReachHost
	}
	proto, at, ok := payload6(p)
	switch {
	case !ok, proto == ProtoICMPv6 && (len(p) <= at || linkICMP(p[at])), proto == ProtoUDP && hasPort(p, at, dhcpv6Client, dhcpv6Server):
		return ReachHost
	case p[24] == 0xff && p[25] == 0x02 && binary.BigEndian.Uint64(p[26:]) == 0 && binary.BigEndian.Uint64(p[32:]) == 1: // ff02::1
		return ReachAll
	}
	return ReachGroup
}

// linkICMP reports whether an ICMPv6 type is about one link: listeners, neighbours, routers (RFC 2710, 3810, 4861, 4286).
func linkICMP(kind byte) bool {
	return kind >= 130 && kind <= 137 || kind == 143 || kind >= 151 && kind <= 153
}

// payload6 looks through the extension headers of an IPv6 packet for what they carry: its protocol and offset. Of later
// fragments it returns protoFragment. ok is false when they do not end where they should.
func payload6(p []byte) (proto byte, at int, ok bool) {
	proto, at = p[6], IPv6Header
	for range maxExtensions {
		switch proto {
		case protoHopByHop, protoRouting, protoDestOptions:
			if len(p) < at+8 {
				return 0, 0, false
			}
			proto, at = p[at], at+8+int(p[at+1])*8
		case protoFragment:
			if len(p) < at+8 {
				return 0, 0, false
			}
			if binary.BigEndian.Uint16(p[at+2:])&^7 != 0 {
				return protoFragment, at, true
			}
			proto, at = p[at], at+8
		default:
			return proto, at, at <= len(p)
		}
	}
	return 0, 0, false
}

// AllowCut makes the IPv4 packet p one that may be cut into fragments, which id then tells apart, unless it may be already.
// Nobody can be told that a packet for a group is too big, so for these alone "do not fragment" is no help.
func AllowCut(p []byte, id uint16) {
	if Version(p) != 4 || p[6]&0x40 == 0 || int(p[0]&15)*4 < IPv4Header || int(p[0]&15)*4 > len(p) {
		return
	}
	p[6] &^= 0x40
	if binary.BigEndian.Uint16(p[4:]) == 0 {
		binary.BigEndian.PutUint16(p[4:], id)
	}
	setIPv4Checksum(p)
}

// GroupAny stands in the list of groups of a host that listens to more than it can list: to every group.
const GroupAny uint32 = 0

// GroupHash returns the number that stands for a multicast group (spec/55-broadcast.md#groups): an IPv4 group is itself, an
// IPv6 group a hash below 2^31. 0, which is GroupAny, for what is no group.
func GroupHash(group netip.Addr) uint32 {
	switch {
	case !group.IsMulticast():
		return GroupAny
	case group.Is4():
		return BroadcastKey(group)
	}
	const offset, prime = 2166136261, 16777619 // FNV-1a
	h := uint32(offset)
	for _, b := range group.As16() {
		h = (h ^ uint32(b)) * prime
	}
	return max(h&^(1<<31), 1)
}
