package packet

import (
	"encoding/binary"
	"net/netip"
)

// Membership is what a host says of one multicast group: that it listens to it from now on, or does no more.
type Membership struct {
	Group netip.Addr
	Joins bool
}

// Message types (RFC 2236, 3376, 2710, 3810) and those of the records in a report of IGMPv3 or MLDv2.
const (
	igmpQuery    = 0x11
	igmpReportV1 = 0x12
	igmpReportV2 = 0x16
	igmpLeave    = 0x17
	igmpReportV3 = 0x22
	mldQuery     = 130
	mldReportV1  = 131
	mldDone      = 132
	mldReportV2  = 143

	modeIsInclude, modeIsExclude = 1, 2
	changeInclude, changeExclude = 3, 4
	allowSources, blockSources   = 5, 6
)

// maxMemberships is the limit of records of one report that are read. A packet of 1500 bytes has room for 184.
const maxMemberships = 256

// ParseMembership reads a whole IP packet that may be a report of IGMP (any version) or MLD, and appends what it says to
// into. ok is false when it is no such report, or is malformed; then nothing is appended. Groups of which nobody else needs
// to know are left out (spec/55-broadcast.md#groups). Checksums are not looked at: such a packet comes from this very host.
func ParseMembership(into []Membership, p []byte) (out []Membership, ok bool) {
	p, ok = Trim(p)
	if !ok {
		return into, false
	}
	if Version(p) == 4 {
		at := int(p[0]&15) * 4
		if p[9] != protoIGMP || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 || len(p) < at+8 {
			return into, false
		}
		return parseIGMP(into, p[at:])
	}
	proto, at, ok := payload6(p)
	if !ok || proto != ProtoICMPv6 || len(p) < at+8 {
		return into, false
	}
	return parseMLD(into, p[at:])
}

func parseIGMP(into []Membership, b []byte) ([]Membership, bool) {
	switch b[0] {
	case igmpReportV1, igmpReportV2, igmpLeave:
		return add(into, netip.AddrFrom4([4]byte(b[4:8])), b[0] != igmpLeave)
	case igmpReportV3:
		return parseRecords(into, b, 4)
	}
	return into, false
}

func parseMLD(into []Membership, b []byte) ([]Membership, bool) {
	switch b[0] {
	case mldReportV1, mldDone:
		if len(b) < 24 {
			return into, false
		}
		return add(into, netip.AddrFrom16([16]byte(b[8:24])), b[0] != mldDone)
	case mldReportV2:
		return parseRecords(into, b, 16)
	}
	return into, false
}

// parseRecords reads the report of IGMPv3 or MLDv2, whose form differs by the size of its addresses alone:
//
//	type 1 | 0 | checksum 2 | reserved 2 | number of records 2
//	record: type 1 | words of auxiliary data 1 | number of sources 2 | group | sources | auxiliary data
func parseRecords(into []Membership, b []byte, size int) ([]Membership, bool) {
	count, rest, out := int(binary.BigEndian.Uint16(b[6:])), b[8:], into
	if count > maxMemberships {
		return into, false
	}
	for range count {
		if len(rest) < 4+size {
			return into, false
		}
		kind, sources := rest[0], int(binary.BigEndian.Uint16(rest[2:]))
		group, _ := netip.AddrFromSlice(rest[4 : 4+size])
		n := 4 + size + sources*size + int(rest[1])*4
		if len(rest) < n {
			return into, false
		}
		rest = rest[n:]
		var ok bool
		switch {
		case kind == modeIsExclude, kind == changeExclude, kind == allowSources, kind == modeIsInclude && sources > 0, kind == changeInclude && sources > 0:
			out, ok = add(out, group, true)
		case kind == changeInclude, kind == modeIsInclude:
			out, ok = add(out, group, false)
		default: // blockSources says too little, others are not known yet
			ok = group.IsMulticast()
		}
		if !ok {
			return into, false
		}
	}
	return out, true
}

// add appends one group, unless nobody needs to know of it; false when it is no group.
func add(into []Membership, group netip.Addr, joins bool) ([]Membership, bool) {
	if !group.IsMulticast() || group.Is4In6() {
		return into, false
	}
	if !dull(group) {
		into = append(into, Membership{group, joins})
	}
	return into, true
}

// dull reports whether membership of a group is of no use to others: every host is in it, or what is sent to it never
// leaves a host.
func dull(group netip.Addr) bool {
	if group.Is4() {
		a := group.As4()
		return a == [4]byte{224, 0, 0, 1} || a == [4]byte{224, 0, 0, 22} // all hosts, IGMPv3 routers
	}
	a := group.As16()
	switch high, low := binary.BigEndian.Uint64(a[2:]), binary.BigEndian.Uint64(a[8:]); {
	case a[1]&0xf < 2, a[1]&0xf == 15:
		return true // does not leave the host
	case a[1]>>4 == 0 && high == 0 && (low == 1 || low == 2 || low == 0x16):
		return true // all nodes, all routers, MLDv2 routers
	case a[1] == 2 && high == 0 && low>>24 == 0x1ff:
		return true // solicited nodes
	}
	return false
}

// MaxQuery is the size in bytes of the larger of the packets that [MembershipQuery] builds.
const MaxQuery = IPv6Header + 8 + 28

// MembershipQuery writes to dst, which has room for MaxQuery bytes, the question to a host which groups it listens to: a
// general query of IGMPv3, or for v6 of MLDv2. The host answers within a second. It returns the length.
func MembershipQuery(dst []byte, v6 bool) int {
	const robustness, interval = 2, 125
	if !v6 {
		const header = IPv4Header + 4 // with the option that wakes routers
		d := dst[:header+12]
		clear(d)
		d[0], d[1], d[8], d[9] = 0x46, 0xc0, 1, protoIGMP
		binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
		binary.BigEndian.PutUint32(d[16:], allHosts)
		d[20], d[21] = 0x94, 4
		setIPv4Checksum(d)
		q := d[header:]
		q[0], q[1] = igmpQuery, 10 // tenths of a second
		q[8], q[9] = robustness, interval
		binary.BigEndian.PutUint16(q[2:], Checksum(q))
		return len(d)
	}
	d := dst[:MaxQuery]
	clear(d)
	d[0], d[6], d[7] = 0x60, protoHopByHop, 1
	binary.BigEndian.PutUint16(d[4:], uint16(len(d)-IPv6Header))
	d[8], d[9], d[23] = 0xfe, 0x80, 1 // a query must come from a link-local address: fe80::1
	d[24], d[25], d[39] = 0xff, 0x02, 1
	copy(d[40:48], []byte{ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0})
	q := d[48:]
	q[0] = mldQuery
	binary.BigEndian.PutUint16(q[4:], 1000) // milliseconds
	q[24], q[25] = robustness, interval
	binary.BigEndian.PutUint16(q[2:], ^fold(sum(q, pseudo(d, ProtoICMPv6, len(q)))))
	return len(d)
}
