package key

import (
	"crypto/rand"
	"fmt"
	"log/slog"
)

// InviteSeed is the 128-bit secret that a code carries. Two things follow from it (spec/10-identity.md#invite-seed):
// the invite key, which signs the newcomer's member record and which only the holder of the code has, and the join
// key, which every member knows from the invite record and which makes a join audible to members alone.
type InviteSeed [16]byte

// JoinKey is the pre-shared key of the join handshake of one invite.
type JoinKey [32]byte

// Locator tells members which invite a join message is for, without telling strangers that it is one.
type Locator [8]byte

// NewInviteSeed draws a seed from crypto/rand.
func NewInviteSeed() InviteSeed {
	var s InviteSeed
	rand.Read(s[:]) //nolint:errcheck // documented never to fail
	return s
}

// Identity returns the invite key.
func (s InviteSeed) Identity() Identity {
	return Identity{seed: [32]byte(derive(s[:], "warren invite key v1", 32))}
}

// JoinKey returns the join key.
func (s InviteSeed) JoinKey() JoinKey { return JoinKey(derive(s[:], "warren join key v1", 32)) }

// Locator returns the public name of the invite on the wire.
func (k JoinKey) Locator() Locator { return Locator(derive(k[:], "warren join locator v1", 8)) }

// Format hides the secret whatever the verb.
func (s InviteSeed) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (s InviteSeed) LogValue() slog.Value { return slog.StringValue("redacted") }

// Format hides the secret whatever the verb.
func (k JoinKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (k JoinKey) LogValue() slog.Value { return slog.StringValue("redacted") }
