package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/warren-vpn/warren/internal/key"
)

// Kind says what a record states. Numbers are append-only (spec/20-records.md#kinds).
type Kind uint16

// The kinds this version understands. Others are stored and passed on.
const (
	KindGenesis    Kind = 1
	KindAdmin      Kind = 2
	KindInvite     Kind = 3
	KindMember     Kind = 4
	KindRevocation Kind = 5
	KindNodeInfo   Kind = 6
	KindDevice     Kind = 7
	KindAdopt      Kind = 8
	KindPolicy     Kind = 9
	KindRendezvous Kind = 10
)

const (
	// MaxRecord is the size limit of an encoded record in bytes: a record fits one control message (spec/20-records.md#size).
	MaxRecord = 1024
	// MaxSigs is the limit of signatures on one record.
	MaxSigs = 4

	recordLabel = "warren/record/v1"
)

// RecordID is SHA-256 over the digest of what a record's signers sign and over their keys: it does not depend on the
// signatures, but one payload signed by another is another record (spec/20-records.md#record-id).
type RecordID [sha256.Size]byte

// Prefix returns the first 16 bytes, by which other records name this one.
func (id RecordID) Prefix() RecordPrefix { return RecordPrefix(id[:16]) }

// String prints id in hexadecimal.
func (id RecordID) String() string { return hex.EncodeToString(id[:]) }

// RecordPrefix names a record inside another record.
type RecordPrefix [16]byte

// Sig is one signer's signature of a record.
type Sig struct {
	_         struct{} `cbor:",toarray"`
	Signer    key.Public
	Signature key.Signature
}

// Record is one signed, immutable fact. The zero Record is not valid; get one from [ParseRecord] or [SealRecord].
// Its slices are shared and must not be changed.
type Record struct {
	Kind    Kind
	Payload []byte   // deterministic CBOR of the kind's payload type, as signed
	Sigs    []Sig    // ascending by signer
	Raw     []byte   // the encoded record as it came; what is stored and passed on
	ID      RecordID // from kind, network, payload and the signers' keys
}

// envelope is the encoded form: a CBOR array of three.
type envelope struct {
	_       struct{} `cbor:",toarray"`
	Kind    Kind
	Payload []byte
	Sigs    []Sig
}

// Strict deterministic CBOR (RFC 8949 section 4.2.1): what a decoder lets through is re-encoded and compared.
var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxArrayElements: 512, MaxMapPairs: 64, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("BUG: cbor options: " + err.Error())
	}
	return v
}

// MarshalCanonical encodes v as deterministic CBOR.
func MarshalCanonical(v any) ([]byte, error) { return encMode.Marshal(v) }

// UnmarshalCanonical decodes b into v and refuses anything but the one deterministic encoding of the result.
func UnmarshalCanonical(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(b, again) {
		return fmt.Errorf("%w: CBOR is not in its deterministic form", ErrMalformed)
	}
	return nil
}

// SignedInput returns the bytes that the signers of a record sign. network is zero for a genesis record, whose id is
// the network's (spec/20-records.md#signed-input).
func SignedInput(kind Kind, network key.NetworkID, payload []byte) []byte {
	if kind == KindGenesis {
		network = key.NetworkID{}
	}
	b := make([]byte, 0, len(recordLabel)+2+len(network)+len(payload))
	b = append(b, recordLabel...)
	b = binary.BigEndian.AppendUint16(b, uint16(kind))
	b = append(b, network[:]...)
	return append(b, payload...)
}

// ParseRecord decodes raw, which must be one whole record of network. It does not check the signatures: see
// [Record.Verify]. The record keeps raw.
func ParseRecord(network key.NetworkID, raw []byte) (Record, error) {
	if len(raw) > MaxRecord {
		return Record{}, fmt.Errorf("record of %d bytes: %w: limit is %d", len(raw), ErrMalformed, MaxRecord)
	}
	var e envelope
	if err := UnmarshalCanonical(raw, &e); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if e.Kind == 0 || len(e.Payload) == 0 {
		return Record{}, fmt.Errorf("record without kind or payload: %w", ErrMalformed)
	}
	if len(e.Sigs) == 0 || len(e.Sigs) > MaxSigs {
		return Record{}, fmt.Errorf("record with %d signatures: %w", len(e.Sigs), ErrMalformed)
	}
	for i := range e.Sigs[1:] {
		if compareSigs(e.Sigs[i], e.Sigs[i+1]) >= 0 {
			return Record{}, fmt.Errorf("record whose signers are not in ascending order: %w", ErrMalformed)
		}
	}
	return Record{Kind: e.Kind, Payload: e.Payload, Sigs: e.Sigs, Raw: raw, ID: recordID(e, network)}, nil
}

// recordID names a record by what is signed and by whom. Without the signers, whoever signs the payload of another could
// take that record's place.
func recordID(e envelope, network key.NetworkID) RecordID {
	digest := sha256.Sum256(SignedInput(e.Kind, network, e.Payload))
	b := append(make([]byte, 0, (1+MaxSigs)*32), digest[:]...)
	for _, s := range e.Sigs {
		b = append(b, s.Signer[:]...)
	}
	return sha256.Sum256(b)
}

func compareSigs(a, b Sig) int { return bytes.Compare(a.Signer[:], b.Signer[:]) }

// Verify reports whether every signature of r is good in network.
func (r *Record) Verify(network key.NetworkID) bool {
	input := SignedInput(r.Kind, network, r.Payload)
	for _, s := range r.Sigs {
		if !s.Signer.Verify(input, s.Signature) {
			return false
		}
	}
	return len(r.Sigs) > 0
}

// SignedBy reports whether p is among the signers.
func (r *Record) SignedBy(p key.Public) bool {
	for _, s := range r.Sigs {
		if s.Signer == p {
			return true
		}
	}
	return false
}

// SealRecord signs payload, one of this package's payload types or its canonical encoding as []byte, with every signer
// and encodes the record.
func SealRecord(network key.NetworkID, kind Kind, payload any, signers ...key.Identity) (Record, error) {
	body, ok := payload.([]byte)
	if !ok {
		var err error
		if body, err = MarshalCanonical(payload); err != nil {
			return Record{}, fmt.Errorf("encode record: %w", err)
		}
	}
	input := SignedInput(kind, network, body)
	sigs := make([]Sig, 0, len(signers))
	for _, s := range signers {
		sigs = append(sigs, Sig{Signer: s.Public(), Signature: s.Sign(input)})
	}
	return EncodeRecord(network, kind, body, sigs)
}

// EncodeRecord puts a canonical payload and signatures made elsewhere, in any order, together. It checks the form, not
// the signatures. It keeps none of the slices.
func EncodeRecord(network key.NetworkID, kind Kind, payload []byte, sigs []Sig) (Record, error) {
	sigs = slices.SortedFunc(slices.Values(sigs), compareSigs)
	raw, err := MarshalCanonical(envelope{Kind: kind, Payload: payload, Sigs: sigs})
	if err != nil {
		return Record{}, fmt.Errorf("encode record: %w", err)
	}
	return ParseRecord(network, raw)
}
