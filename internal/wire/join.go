package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/warren-vpn/warren/internal/key"
)

// Join frames share the one port with WireGuard (spec/30-join.md#frames). Integers are big-endian:
//
//	step 1  06 01 00 00 | sender u32 | locator 8 | Noise message 1                 newcomer to introducer, always MaxJoin bytes
//	step 2  06 02 00 00 | receiver u32 | Noise message 2                           introducer to newcomer
//	step 3  06 03 00 00 | receiver u32 | Noise message 3                           newcomer to introducer
//	step 4  06 04 00 00 | receiver u32 | part u8 | parts u8 | sealed chunk         introducer to newcomer, 1 to MaxJoinParts times
//	proof   06 05 00 00 | Noise message | mac 16                                   member to a member that does not know it
const (
	// MaxJoin is the limit of a join frame in bytes: it passes any path that carries IPv6. Step 1 has exactly this size.
	MaxJoin = 1200
	// MaxJoinParts is the limit of step 4 frames in one answer.
	MaxJoinParts = 112
	// MaxJoinGrant is the limit of an encoded JoinGrant in bytes.
	MaxJoinGrant = 128 << 10
	// MaxJoinRecords is the limit of records in one JoinGrant.
	MaxJoinRecords = 256
	// MaxJoinName is the limit of a wanted name in bytes.
	MaxJoinName = 63
	// JoinVersion is what this software understands of joining.
	JoinVersion = 1

	// JoinPartHeader is the size of a step 4 frame before its chunk: the chunk's additional data.
	JoinPartHeader = 10
	// JoinChunk is the size of the plaintext in every step 4 frame but the last, in bytes.
	JoinChunk = MaxJoin - JoinPartHeader - joinTag

	// JoinProofSpace is the room in a proof for its payload, in bytes: a whole record at least.
	JoinProofSpace = MaxJoin - joinProof

	joinTag       = 16
	joinDH        = 32
	joinHello     = 16 + joinDH + joinTag                   // step 1 around its payload
	joinOffer     = 8 + joinDH + joinDH + joinTag + joinTag // step 2 around its payload
	joinAccept    = 8 + joinDH + joinTag + joinTag          // step 3 around its payload
	joinHelloSize = MaxJoin - joinHello                     // payload of step 1, padding included
	joinProof     = 4 + joinDH + joinDH + joinTag + joinTag + joinTag
)

// JoinStatus says how a join stands. Numbers are append-only; one that is not known means JoinDenied.
type JoinStatus uint8

// The answers to a wish to join (spec/30-join.md#status).
const (
	JoinOK      JoinStatus = 1 // go on; in a grant: you are a member
	JoinKnown   JoinStatus = 2 // as JoinOK, and this identity joined by this invite before
	JoinPending JoinStatus = 3 // an admin must approve: ask again
	JoinUsed    JoinStatus = 4 // the invite has no uses left
	JoinExpired JoinStatus = 5
	JoinRevoked JoinStatus = 6 // the invite, or the admin behind it, was put out
	JoinFull    JoinStatus = 7 // no address or no room left
	JoinTooOld  JoinStatus = 8 // the newcomer's software is too old
	JoinDenied  JoinStatus = 9
)

var joinStatusNames = map[JoinStatus]string{JoinOK: "ok", JoinKnown: "known", JoinPending: "pending", JoinUsed: "used",
	JoinExpired: "expired", JoinRevoked: "revoked", JoinFull: "full", JoinTooOld: "version", JoinDenied: "denied"}

// String names s in one word.
func (s JoinStatus) String() string {
	if n, ok := joinStatusNames[s]; ok {
		return n
	}
	return joinStatusNames[JoinDenied]
}

// JoinStep1 asks whoever knows the invite of this locator to introduce the sender.
type JoinStep1 struct {
	Sender  uint32 // chosen by the newcomer: receiver of steps 2 and 4
	Locator key.Locator
	Noise   []byte
}

// JoinStep2 answers step 1.
type JoinStep2 struct {
	Receiver uint32
	Noise    []byte
}

// JoinStep3 hands over the newcomer's signatures.
type JoinStep3 struct {
	Receiver uint32
	Noise    []byte
}

// JoinStep4 is one part of the introducer's last answer. Header is the frame before Sealed.
type JoinStep4 struct {
	Receiver    uint32
	Part, Parts uint8
	Header      []byte // set by ParseJoin only
	Sealed      []byte
}

// JoinProof shows a member the records by which the sender is one, too. Nobody answers it.
type JoinProof struct {
	Noise []byte
	MAC   [joinTag]byte
}

// ParseJoin reads one join frame: a JoinStep1, 2, 3 or 4, or a JoinProof. It checks the outer form only.
func ParseJoin(b []byte) (any, error) {
	if len(b) < 8 || len(b) > MaxJoin || b[0] != TypeJoin || b[2] != 0 || b[3] != 0 {
		return nil, fmt.Errorf("join frame of %d bytes: %w", len(b), ErrMalformed)
	}
	first := binary.BigEndian.Uint32(b[4:])
	switch b[1] {
	case 1:
		if len(b) != MaxJoin {
			return nil, fmt.Errorf("join step 1 of %d bytes: %w", len(b), ErrMalformed)
		}
		return JoinStep1{Sender: first, Locator: key.Locator(b[8:16]), Noise: b[16:]}, nil
	case 2:
		if len(b) <= joinOffer {
			return nil, fmt.Errorf("join step 2 of %d bytes: %w", len(b), ErrMalformed)
		}
		return JoinStep2{Receiver: first, Noise: b[8:]}, nil
	case 3:
		if len(b) <= joinAccept {
			return nil, fmt.Errorf("join step 3 of %d bytes: %w", len(b), ErrMalformed)
		}
		return JoinStep3{Receiver: first, Noise: b[8:]}, nil
	case 4:
		return parseJoinPart(b, first)
	case 5:
		if len(b) <= joinProof {
			return nil, fmt.Errorf("proof of %d bytes: %w", len(b), ErrMalformed)
		}
		at := len(b) - joinTag
		return JoinProof{Noise: b[4:at], MAC: [joinTag]byte(b[at:])}, nil
	}
	return nil, fmt.Errorf("join step %d: %w", b[1], ErrMalformed)
}

func parseJoinPart(b []byte, receiver uint32) (any, error) {
	if len(b) <= JoinPartHeader+joinTag {
		return nil, fmt.Errorf("join step 4 of %d bytes: %w", len(b), ErrMalformed)
	}
	m := JoinStep4{Receiver: receiver, Part: b[8], Parts: b[9], Header: b[:JoinPartHeader], Sealed: b[JoinPartHeader:]}
	if m.Parts == 0 || m.Parts > MaxJoinParts || m.Part >= m.Parts {
		return nil, fmt.Errorf("join part %d of %d: %w", m.Part, m.Parts, ErrMalformed)
	}
	if m.Part < m.Parts-1 && len(b) != MaxJoin {
		return nil, fmt.Errorf("join part %d of %d has %d bytes: %w", m.Part, m.Parts, len(b), ErrMalformed)
	}
	return m, nil
}

// JoinReceiver returns the receiver index of a step 2, 3 or 4 frame, by which the one port finds the frame's owner.
func JoinReceiver(b []byte) (index uint32, ok bool) {
	if len(b) < 8 || b[0] != TypeJoin || b[1] < 2 || b[1] > 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[4:]), true
}

// Append encodes m. Without Noise it gives the header, which the prologue of the handshake authenticates.
func (m JoinStep1) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, TypeJoin, 1, 0, 0), m.Sender)
	b = append(b, m.Locator[:]...)
	return append(b, m.Noise...)
}

// Append encodes m.
func (m JoinStep2) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, TypeJoin, 2, 0, 0), m.Receiver)
	return append(b, m.Noise...)
}

// Append encodes m.
func (m JoinStep3) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, TypeJoin, 3, 0, 0), m.Receiver)
	return append(b, m.Noise...)
}

// Append encodes m. Without Sealed it gives the header.
func (m JoinStep4) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, TypeJoin, 4, 0, 0), m.Receiver)
	b = append(b, m.Part, m.Parts)
	return append(b, m.Sealed...)
}

// Append encodes m.
func (m JoinProof) Append(b []byte) []byte { return append(m.AppendBody(b), m.MAC[:]...) }

// AppendBody encodes what the MAC covers.
func (m JoinProof) AppendBody(b []byte) []byte {
	return append(append(b, TypeJoin, 5, 0, 0), m.Noise...)
}

// JoinHello is the payload of step 1: who wants to join.
type JoinHello struct {
	Key     key.Public `cbor:"1,keyasint"` // the newcomer's identity
	Name    string     `cbor:"2,keyasint"` // the name it wants
	Version uint32     `cbor:"3,keyasint"`
}

// JoinOffer is the payload of step 2: whether the newcomer may join, and as what.
type JoinOffer struct {
	Status     JoinStatus    `cbor:"1,keyasint"`
	Network    key.NetworkID `cbor:"2,keyasint"`
	Introducer key.Public    `cbor:"3,keyasint"`           // identity of the introducer
	Sender     uint32        `cbor:"4,keyasint"`           // chosen by the introducer: receiver of step 3
	Draft      []byte        `cbor:"5,keyasint,omitempty"` // encoded Member for the newcomer to sign; with JoinOK and JoinKnown only
}

// JoinAccept is the payload of step 3: the newcomer's consent to the draft.
type JoinAccept struct {
	InviteSig key.Signature `cbor:"1,keyasint"` // by the invite key, over the signed input of the draft
	OwnSig    key.Signature `cbor:"2,keyasint"` // by the newcomer's identity, over the same
	NodeInfo  []byte        `cbor:"3,keyasint"` // the newcomer's node info record
}

// JoinGrant is what the parts of step 4 make up.
type JoinGrant struct {
	Status  JoinStatus `cbor:"1,keyasint"`
	Records [][]byte   `cbor:"2,keyasint,omitempty"` // genesis first; with JoinOK and JoinKnown only
}

// Marshal encodes h for step 1: length u16, CBOR, zeros up to the fixed size (spec/30-join.md#hello).
func (h JoinHello) Marshal() ([]byte, error) {
	body, err := MarshalCanonical(h)
	if err != nil {
		return nil, fmt.Errorf("encode join hello: %w", err)
	}
	if h.Name == "" || len(h.Name) > MaxJoinName {
		return nil, fmt.Errorf("join name of %d bytes: %w", len(h.Name), ErrMalformed)
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, joinHelloSize), uint16(len(body)))
	return append(b, body...)[:joinHelloSize], nil
}

// ParseJoinHello reads the payload of step 1.
func ParseJoinHello(b []byte) (JoinHello, error) {
	var h JoinHello
	if len(b) != joinHelloSize {
		return h, fmt.Errorf("join hello of %d bytes: %w", len(b), ErrMalformed)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if n > len(b) {
		return h, fmt.Errorf("join hello: %w", ErrMalformed)
	}
	for _, pad := range b[n:] {
		if pad != 0 {
			return h, fmt.Errorf("join hello padding: %w", ErrMalformed)
		}
	}
	if err := UnmarshalCanonical(b[2:n], &h); err != nil {
		return JoinHello{}, fmt.Errorf("join hello: %w", err)
	}
	if h.Name == "" || len(h.Name) > MaxJoinName {
		return JoinHello{}, fmt.Errorf("join hello name of %d bytes: %w", len(h.Name), ErrMalformed)
	}
	return h, nil
}

// Marshal encodes o; what would not fit step 2 is an error.
func (o JoinOffer) Marshal() ([]byte, error) { return marshalJoin("offer", o, MaxJoin-joinOffer) }

// ParseJoinOffer reads the payload of step 2.
func ParseJoinOffer(b []byte) (JoinOffer, error) {
	o, err := parseJoin[JoinOffer]("offer", b, MaxJoin-joinOffer)
	if err == nil && (o.Status == 0 || o.Status.Goes() != (len(o.Draft) > 0)) {
		err = fmt.Errorf("join offer: status %d and draft disagree: %w", o.Status, ErrMalformed)
	}
	return o, err
}

// Marshal encodes a; a node info that would not fit step 3 is an error.
func (a JoinAccept) Marshal() ([]byte, error) { return marshalJoin("accept", a, MaxJoin-joinAccept) }

// ParseJoinAccept reads the payload of step 3.
func ParseJoinAccept(b []byte) (JoinAccept, error) {
	return parseJoin[JoinAccept]("accept", b, MaxJoin-joinAccept)
}

// Marshal encodes g within MaxJoinGrant.
func (g JoinGrant) Marshal() ([]byte, error) {
	if len(g.Records) > MaxJoinRecords {
		return nil, fmt.Errorf("join grant of %d records: %w", len(g.Records), ErrMalformed)
	}
	return marshalJoin("grant", g, MaxJoinGrant)
}

// ParseJoinGrant reads the joined parts of step 4.
func ParseJoinGrant(b []byte) (JoinGrant, error) {
	g, err := parseJoin[JoinGrant]("grant", b, MaxJoinGrant)
	if err != nil {
		return g, err
	}
	if g.Status == 0 || g.Status.Goes() != (len(g.Records) > 0) || len(g.Records) > MaxJoinRecords {
		return JoinGrant{}, fmt.Errorf("join grant: status %d with %d records: %w", g.Status, len(g.Records), ErrMalformed)
	}
	return g, nil
}

// Goes reports whether the join goes on with status s: in an offer there is a draft, in a grant there are records.
func (s JoinStatus) Goes() bool { return s == JoinOK || s == JoinKnown }

func marshalJoin(what string, v any, limit int) ([]byte, error) {
	b, err := MarshalCanonical(v)
	if err != nil {
		return nil, fmt.Errorf("encode join %s: %w", what, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("join %s of %d bytes, limit %d: %w", what, len(b), limit, ErrMalformed)
	}
	return b, nil
}

func parseJoin[T any](what string, b []byte, limit int) (T, error) {
	var v, zero T
	if len(b) > limit {
		return zero, fmt.Errorf("join %s of %d bytes: %w", what, len(b), ErrMalformed)
	}
	if err := UnmarshalCanonical(b, &v); err != nil {
		return zero, fmt.Errorf("join %s: %w", what, err)
	}
	return v, nil
}
