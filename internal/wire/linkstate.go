package wire

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
)

// A link state is what a node says of its own links, signed by its identity (spec/53-map.md#link-state). Numbers are
// big-endian:
//
//	0      1: version
//	1      flags
//	2      number of links
//	3      number of groups
//	4-11   short id of the node
//	12-15  epoch
//	16-19  sequence number
//	20-    links: short id 8 | cost u16, ascending by id
//	       groups: u32 each, ascending
//	       Ed25519 signature, 64 bytes, over "warren/linkstate/v1" | network id | all before
const (
	// MaxLinks is the limit of links in one link state.
	MaxLinks = 64
	// MaxGroups is the limit of multicast groups in one link state.
	MaxGroups = 32
	// MaxLinkState is the size of the largest encoded link state in bytes.
	MaxLinkState = stateFixed + MaxLinks*linkSize + MaxGroups*groupSize + sigSize

	stateFixed = 20
	linkSize   = shortSize + 2
	groupSize  = 4
	sigSize    = len(key.Signature{})
	stateLabel = "warren/linkstate/v1"
)

// StateFlags says what others must know of a node. Bits are append-only.
type StateFlags uint8

// The flags.
const (
	StateLeaf       StateFlags = 1 << iota // never carries transit: metered, on battery, or its owner's wish
	StateOverloaded                        // carries as much as it can
	StateAnchor                            // is reached from outside without help
)

// Link is one entry of a link state.
type Link struct {
	To   key.ShortID
	Cost uint16 // in tenths of a millisecond (spec/54-routes.md#cost)
}

// Version orders the link states of one node: the greater one counts. The zero Version is before all.
type Version struct{ Epoch, Seq uint32 }

// Compare returns -1, 0 or 1 when v is before, equal to or after o.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, o.Epoch), cmp.Compare(v.Seq, o.Seq))
}

// LinkState is one node's statement of its links. The slices are shared and must not be changed.
type LinkState struct {
	Node    key.ShortID
	Version Version
	Flags   StateFlags
	Links   []Link   // ascending by To, no one twice, never Node itself
	Groups  []uint32 // ascending: hashes of the multicast groups that the node listens to (spec/55-broadcast.md#groups)
}

// ParseLinkState reads an encoded link state without looking at its signature: that is for [VerifyLinkState], once the node's
// key is known. It refuses all but the one encoding. The result shares nothing with b.
func ParseLinkState(b []byte) (LinkState, error) {
	if len(b) < stateFixed+sigSize || b[0] != 1 || b[2] > MaxLinks || b[3] > MaxGroups ||
		len(b) != stateFixed+int(b[2])*linkSize+int(b[3])*groupSize+sigSize {
		return LinkState{}, fmt.Errorf("link state of %d bytes: %w", len(b), ErrMalformed)
	}
	s := LinkState{Flags: StateFlags(b[1]), Node: key.ShortID(b[4:]),
		Version: Version{binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])}}
	nlinks, ngroups := int(b[2]), int(b[3])
	b = b[stateFixed:]
	if nlinks > 0 {
		s.Links = make([]Link, nlinks)
	}
	for i := range s.Links {
		s.Links[i] = Link{To: key.ShortID(b), Cost: binary.BigEndian.Uint16(b[shortSize:])}
		if s.Links[i].To == s.Node || i > 0 && compareShort(s.Links[i-1].To, s.Links[i].To) >= 0 {
			return LinkState{}, fmt.Errorf("link state: order of links: %w", ErrMalformed)
		}
		b = b[linkSize:]
	}
	for i := range ngroups {
		s.Groups = append(s.Groups, binary.BigEndian.Uint32(b))
		if i > 0 && s.Groups[i-1] >= s.Groups[i] {
			return LinkState{}, fmt.Errorf("link state: order of groups: %w", ErrMalformed)
		}
		b = b[groupSize:]
	}
	return s, nil
}

// SealLinkState encodes and signs s, sorting its links and groups and dropping those beyond the limits, the dearest links
// first. The node's short id is the identity's.
func SealLinkState(network key.NetworkID, id key.Identity, s LinkState) []byte {
	links := slices.Clone(s.Links)
	if len(links) > MaxLinks {
		slices.SortStableFunc(links, func(a, b Link) int { return cmp.Compare(a.Cost, b.Cost) })
		links = links[:MaxLinks]
	}
	slices.SortFunc(links, func(a, b Link) int { return compareShort(a.To, b.To) })
	groups := slices.Clone(s.Groups)
	slices.Sort(groups)
	groups = slices.Compact(groups)
	groups = groups[:min(len(groups), MaxGroups)]
	node := id.NodeID().Short()
	b := append(make([]byte, 0, MaxLinkState), 1, byte(s.Flags), byte(len(links)), byte(len(groups)))
	b = append(b, node[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Version.Epoch)
	b = binary.BigEndian.AppendUint32(b, s.Version.Seq)
	for _, l := range links {
		b = append(b, l.To[:]...)
		b = binary.BigEndian.AppendUint16(b, l.Cost)
	}
	for _, g := range groups {
		b = binary.BigEndian.AppendUint32(b, g)
	}
	sig := id.Sign(stateSigned(network, b))
	return append(b, sig[:]...)
}

// VerifyLinkState reports whether raw, which ParseLinkState has read, is signed by the identity key pub.
func VerifyLinkState(network key.NetworkID, pub key.Public, raw []byte) bool {
	if len(raw) < stateFixed+sigSize {
		return false
	}
	body := raw[:len(raw)-sigSize]
	return pub.Verify(stateSigned(network, body), key.Signature(raw[len(body):]))
}

func stateSigned(network key.NetworkID, body []byte) []byte {
	return slices.Concat([]byte(stateLabel), network[:], body)
}

func compareShort(a, b key.ShortID) int {
	return cmp.Compare(binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:]))
}
