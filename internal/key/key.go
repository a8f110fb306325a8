// Package key holds the keys and identifiers of Warren: how they are made, derived, printed, compared and hidden.
//
// Every type is a value, safe to copy and to compare with ==, and safe for concurrent use. Secret types print as
// "redacted" whatever the verb, and as such in slog; their bytes are reached only through a named method.
// The derivations are spec/10-identity.md.
package key

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
)

// Public is the Ed25519 public key of an identity.
type Public [ed25519.PublicKeySize]byte

// Signature is an Ed25519 signature (RFC 8032).
type Signature [ed25519.SignatureSize]byte

// NodeID names a node for ever: SHA-256 of its identity's public key (spec/10-identity.md#node-id).
// Devices have one too: see [DeviceID].
type NodeID [sha256.Size]byte

// ShortID is the first 8 bytes of a NodeID: enough to name a member inside one network, never enough to trust one.
type ShortID [8]byte

// NetworkID names a network: the id of its genesis record (spec/20-records.md#network-id).
type NetworkID [sha256.Size]byte

// Identity is a node's long-lived signing key in one network. The zero Identity cannot sign.
type Identity struct{ seed [ed25519.SeedSize]byte }

// ErrLength reports key material of the wrong size.
var ErrLength = errors.New("key has the wrong length")

// NewIdentity draws an identity from crypto/rand, which never fails (it aborts the process instead).
func NewIdentity() Identity {
	var id Identity
	rand.Read(id.seed[:]) //nolint:errcheck // documented never to fail
	return id
}

// IdentityFromSeed rebuilds an identity from the 32 bytes that [Identity.Seed] gave.
func IdentityFromSeed(seed []byte) (Identity, error) {
	var id Identity
	if len(seed) != len(id.seed) {
		return id, fmt.Errorf("identity seed of %d bytes: %w", len(seed), ErrLength)
	}
	copy(id.seed[:], seed)
	return id, nil
}

// Seed returns the secret from which the identity can be rebuilt. It is for package state alone.
func (i Identity) Seed() []byte { return append([]byte(nil), i.seed[:]...) }

// IsZero reports whether i was never set.
func (i Identity) IsZero() bool { return i == Identity{} }

// Public returns the key that others verify i's signatures with.
func (i Identity) Public() Public {
	return Public(ed25519.NewKeyFromSeed(i.seed[:]).Public().(ed25519.PublicKey))
}

// NodeID returns the id of the node that owns i.
func (i Identity) NodeID() NodeID { return i.Public().NodeID() }

// Sign signs msg. Callers put a domain label in front of everything they sign.
func (i Identity) Sign(msg []byte) Signature {
	return Signature(ed25519.Sign(ed25519.NewKeyFromSeed(i.seed[:]), msg))
}

// Format hides the secret whatever the verb.
func (i Identity) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (i Identity) LogValue() slog.Value { return slog.StringValue("redacted") }

// Verify reports whether sig is p's signature of msg.
func (p Public) Verify(msg []byte, sig Signature) bool { return ed25519.Verify(p[:], msg, sig[:]) }

// NodeID returns SHA-256(p).
func (p Public) NodeID() NodeID { return sha256.Sum256(p[:]) }

// String prints p in hexadecimal.
func (p Public) String() string { return hex.EncodeToString(p[:]) }

// Short returns the first 8 bytes of n.
func (n NodeID) Short() ShortID { return ShortID(n[:8]) }

// IsZero reports whether n was never set.
func (n NodeID) IsZero() bool { return n == NodeID{} }

// String prints n in hexadecimal, whole.
func (n NodeID) String() string { return hex.EncodeToString(n[:]) }

// LogValue prints the short id.
func (n NodeID) LogValue() slog.Value { return slog.StringValue(n.Short().String()) }

// ParseNodeID reads what [NodeID.String] printed.
func ParseNodeID(s string) (NodeID, error) {
	b, err := parseHex(s, sha256.Size)
	if err != nil {
		return NodeID{}, fmt.Errorf("node id: %w", err)
	}
	return NodeID(b), nil
}

// String prints s in hexadecimal.
func (s ShortID) String() string { return hex.EncodeToString(s[:]) }

// IsZero reports whether n was never set.
func (n NetworkID) IsZero() bool { return n == NetworkID{} }

// String prints n in hexadecimal, whole.
func (n NetworkID) String() string { return hex.EncodeToString(n[:]) }

// LogValue prints the first 8 bytes.
func (n NetworkID) LogValue() slog.Value { return slog.StringValue(hex.EncodeToString(n[:8])) }

// ParseNetworkID reads what [NetworkID.String] printed.
func ParseNetworkID(s string) (NetworkID, error) {
	b, err := parseHex(s, sha256.Size)
	if err != nil {
		return NetworkID{}, fmt.Errorf("network id: %w", err)
	}
	return NetworkID(b), nil
}

func parseHex(s string, size int) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%d bytes, want %d: %w", len(b), size, ErrLength)
	}
	return b, nil
}

// derive is HKDF-SHA256 with an empty salt; it cannot fail for outputs this short (RFC 5869).
func derive(secret []byte, label string, size int) []byte {
	out, err := hkdf.Key(sha256.New, secret, nil, label, size)
	if err != nil {
		panic("BUG: hkdf: " + err.Error())
	}
	return out
}
