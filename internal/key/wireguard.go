package key

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
)

// WGPublic is a WireGuard (X25519) public key.
type WGPublic [32]byte

// WGPrivate is a WireGuard (X25519) private key, clamped. It is separate from the identity and replaceable.
type WGPrivate [32]byte

// NewWGPrivate draws a private key from crypto/rand.
func NewWGPrivate() WGPrivate {
	var k WGPrivate
	rand.Read(k[:]) //nolint:errcheck // documented never to fail
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// Public returns the key's public half.
func (k WGPrivate) Public() WGPublic {
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil { // only a wrong length can fail
		panic("BUG: x25519: " + err.Error())
	}
	return WGPublic(p.PublicKey().Bytes())
}

// IsZero reports whether k was never set.
func (k WGPrivate) IsZero() bool { return k == WGPrivate{} }

// Base64 returns the secret in the form of WireGuard's configuration files. It is for a file that only its owner
// reads and for the screen of the one who asked.
func (k WGPrivate) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Format hides the secret whatever the verb.
func (k WGPrivate) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (k WGPrivate) LogValue() slog.Value { return slog.StringValue("redacted") }

// IsZero reports whether k was never set.
func (k WGPublic) IsZero() bool { return k == WGPublic{} }

// String prints k as WireGuard does, in base64.
func (k WGPublic) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParseWGPublic reads what [WGPublic.String] or `wg pubkey` printed.
func ParseWGPublic(s string) (WGPublic, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return WGPublic{}, fmt.Errorf("WireGuard public key: %w", err)
	}
	if len(b) != 32 {
		return WGPublic{}, fmt.Errorf("WireGuard public key of %d bytes: %w", len(b), ErrLength)
	}
	return WGPublic(b), nil
}

// DeviceID returns the node id of a device, which has no identity key of its own: SHA-256 over a label and its
// WireGuard key (spec/10-identity.md#device-id).
func DeviceID(k WGPublic) NodeID {
	return sha256.Sum256(append([]byte("warren device v1"), k[:]...))
}
