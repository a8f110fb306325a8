package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// NATClass says how what stands between a node and the internet treats its UDP datagrams, for one address family
// (spec/73-nat.md#classes). Append-only.
type NATClass uint8

// The classes.
const (
	NATUnknown     NATClass = iota // not enough observers yet
	NATOpen                        // no translation, or a mapped port; a firewall may stand there all the same
	NATIndependent                 // everybody sees the same address and port
	NATPredictable                 // another port for each destination, by a step that can be foretold
	NATRandom                      // another port for each destination, by chance
	NATBlocked                     // nothing comes back, or the host has no address of the family
	numNATClasses
)

// String names c as status and logs do.
func (c NATClass) String() string {
	switch c {
	case NATOpen:
		return "open"
	case NATIndependent:
		return "endpoint-independent"
	case NATPredictable:
		return "symmetric, predictable"
	case NATRandom:
		return "symmetric, random"
	case NATBlocked:
		return "blocked"
	}
	return "unknown"
}

// Symmetric reports whether c gives each destination another port.
func (c NATClass) Symmetric() bool { return c == NATPredictable || c == NATRandom }

// NAT is a class with what belongs to it. The zero NAT is unknown.
type NAT struct {
	Class NATClass
	Step  int8 // of NATPredictable: from one new port to the next, never 0; else 0
}

// CandidateKind says what an address of a node's own is. Append-only.
type CandidateKind uint8

// The kinds.
const (
	CandidateHost     CandidateKind = iota // of an interface
	CandidateExternal                      // as others observed it: what a NAT made of ours
	CandidateMapped                        // a port that the router passes on by agreement
	numCandidateKinds
)

// Candidate is one address at which a node says it may be reached.
type Candidate struct {
	Kind CandidateKind
	Addr netip.AddrPort
}

// MaxCandidates is the limit of addresses in one Candidates message.
const MaxCandidates = 12

// Candidates begins or answers an attempt to open a direct way (spec/73-nat.md#exchange).
type Candidates struct {
	Round  uint32 // chosen by who opens; the answer repeats it
	Answer bool
	Hard   bool // the sender is ready for the search of spec/73-nat.md#birthday
	V4, V6 NAT
	RTT    time.Duration // of the relayed path, as the sender measured it, in whole milliseconds; 0: not measured
	List   []Candidate   // MaxCandidates at most
}

// Layout of the body (spec/50-control.md#candidates).
const (
	candidatesFixed = 12
	candidateSize   = 19

	candidatesAnswer = 1 << 0
	candidatesHard   = 1 << 1
)

// parseCandidates reads the body. What later versions may add, classes and kinds, reads as unknown or is left out.
func parseCandidates(b []byte) (any, error) {
	if len(b) < candidatesFixed || b[11] > MaxCandidates || len(b) != candidatesFixed+int(b[11])*candidateSize {
		return nil, fmt.Errorf("candidates of %d bytes: %w", len(b), ErrMalformed)
	}
	m := Candidates{Round: binary.BigEndian.Uint32(b), Answer: b[4]&candidatesAnswer != 0, Hard: b[4]&candidatesHard != 0,
		V4: parseNAT(b[5], b[6]), V6: parseNAT(b[7], b[8]), RTT: time.Duration(binary.BigEndian.Uint16(b[9:])) * time.Millisecond}
	for b = b[candidatesFixed:]; len(b) > 0; b = b[candidateSize:] {
		ap, err := ParseEndpoint(b[1:candidateSize])
		if err != nil {
			return nil, fmt.Errorf("candidates: %w", err)
		}
		if k := CandidateKind(b[0]); k < numCandidateKinds {
			m.List = append(m.List, Candidate{Kind: k, Addr: ap})
		}
	}
	return m, nil
}

func parseNAT(class, step byte) NAT {
	n := NAT{Class: NATClass(class)}
	switch {
	case n.Class >= numNATClasses:
		n.Class = NATUnknown
	case n.Class == NATPredictable && step == 0:
		n.Class = NATRandom
	case n.Class == NATPredictable:
		n.Step = int8(step)
	}
	return n
}

// Append encodes m; what List has beyond MaxCandidates is left out. Zones are not sent.
func (m Candidates) Append(b []byte) []byte {
	list := m.List[:min(len(m.List), MaxCandidates)]
	b = appendHeader(b, ControlCandidates, candidatesFixed+len(list)*candidateSize)
	b = binary.BigEndian.AppendUint32(b, m.Round)
	var flags byte
	if m.Answer {
		flags |= candidatesAnswer
	}
	if m.Hard {
		flags |= candidatesHard
	}
	b = append(b, flags, byte(m.V4.Class), byte(m.V4.Step), byte(m.V6.Class), byte(m.V6.Step))
	b = binary.BigEndian.AppendUint16(b, uint16(min(max(m.RTT.Milliseconds(), 0), 1<<16-1)))
	b = append(b, byte(len(list)))
	for _, c := range list {
		a := c.Addr.Addr().As16()
		b = append(append(b, byte(c.Kind)), a[:]...)
		b = binary.BigEndian.AppendUint16(b, c.Addr.Port())
	}
	return b
}
