package wire

import "github.com/warren-vpn/warren/internal/key"

// Rendezvous replaces the discovery key, as someone was put out who knows the one before. It names what it follows, and is
// accepted only where all that is known, so that it never comes to those it is to be kept from (spec/20-records.md#rendezvous).
// Of the records that have an effect the one with the highest Seq counts (spec/21-roster.md#discovery).
type Rendezvous struct {
	Seq    uint64            `cbor:"1,keyasint"` // at most one more than the highest Seq among the rendezvous records in After
	Secret key.DiscoverySeed `cbor:"2,keyasint"` // random: the new key follows from it
	After  []RecordPrefix    `cbor:"3,keyasint"` // revocations, adopt records and rendezvous records, ascending
	Time   int64             `cbor:"4,keyasint"`
}
