package key

import (
	"crypto/rand"
	"fmt"
	"log/slog"
)

// DiscoverySeed is the secret that a discovery key follows from: the nonce of a genesis, or what a rendezvous record states
// (spec/10-identity.md#discovery-key).
type DiscoverySeed [32]byte

// DiscoveryKey is what the present members of a network share to find each other again: whoever has it can see where the
// network is, and no more than that. It changes when someone is put out (spec/21-roster.md#discovery).
type DiscoveryKey [32]byte

// NewDiscoverySeed draws a seed from crypto/rand.
func NewDiscoverySeed() DiscoverySeed {
	var s DiscoverySeed
	rand.Read(s[:]) //nolint:errcheck // documented never to fail
	return s
}

// Key returns the discovery key of a network that follows from s.
func (s DiscoverySeed) Key(network NetworkID) DiscoveryKey {
	return DiscoveryKey(derive(s[:], "warren discovery v1"+string(network[:]), 32))
}

// IsZero reports whether s was never set.
func (s DiscoverySeed) IsZero() bool { return s == DiscoverySeed{} }

// IsZero reports whether k was never set.
func (k DiscoveryKey) IsZero() bool { return k == DiscoveryKey{} }

// Format hides the secret whatever the verb.
func (s DiscoverySeed) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (s DiscoverySeed) LogValue() slog.Value { return slog.StringValue("redacted") }

// Format hides the secret whatever the verb.
func (k DiscoveryKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (k DiscoveryKey) LogValue() slog.Value { return slog.StringValue("redacted") }
