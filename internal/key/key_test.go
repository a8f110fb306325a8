package key

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write spec/vectors/identity.json anew")

const vectorFile = "../../spec/vectors/identity.json"

// vectors are examples of every derivation. Strings are hexadecimal but for WireGuard keys, which are base64.
type vectors struct {
	Identities []identityVector  `json:"identities"`
	WireGuard  []wgVector        `json:"wireguard"`
	Invites    []inviteVector    `json:"invites"`
	Discovery  []discoveryVector `json:"discovery"`
}

type identityVector struct {
	Seed      string `json:"seed"`
	Public    string `json:"public"`
	NodeID    string `json:"node_id"`
	ShortID   string `json:"short_id"`
	Message   string `json:"message"`
	Signature string `json:"signature"`
}

type wgVector struct {
	Private  string `json:"private"`
	Public   string `json:"public"`
	DeviceID string `json:"device_id"`
}

type inviteVector struct {
	Seed         string `json:"seed"`
	InviteSecret string `json:"invite_key_seed"`
	InvitePublic string `json:"invite_key_public"`
	JoinKey      string `json:"join_key"`
	Locator      string `json:"locator"`
}

type discoveryVector struct {
	Seed    string `json:"seed"`
	Network string `json:"network"`
	Key     string `json:"discovery_key"`
}

func makeVectors(t *testing.T) vectors {
	var v vectors
	for _, fill := range []byte{0, 1, 0xff} {
		seed := bytes.Repeat([]byte{fill}, 32)
		id, err := IdentityFromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		msg := []byte("a burrow")
		sig := id.Sign(msg)
		v.Identities = append(v.Identities, identityVector{hex.EncodeToString(seed), id.Public().String(), id.NodeID().String(),
			id.NodeID().Short().String(), hex.EncodeToString(msg), hex.EncodeToString(sig[:])})
		private := WGPrivate(seed)
		v.WireGuard = append(v.WireGuard, wgVector{private.Base64(), private.Public().String(), DeviceID(private.Public()).String()})
		s := InviteSeed(seed[:16])
		k := s.JoinKey()
		loc := k.Locator()
		v.Invites = append(v.Invites, inviteVector{hex.EncodeToString(s[:]), hex.EncodeToString(s.Identity().Seed()), s.Identity().Public().String(),
			hex.EncodeToString(k[:]), hex.EncodeToString(loc[:])})
		network := NetworkID(id.NodeID())
		d := DiscoverySeed(seed).Key(network)
		v.Discovery = append(v.Discovery, discoveryVector{hex.EncodeToString(seed), network.String(), hex.EncodeToString(d[:])})
	}
	return v
}

// spec/10-identity.md#node-id, spec/10-identity.md#device-id, spec/10-identity.md#invite-seed, spec/10-identity.md#discovery-key
func TestVectors(t *testing.T) {
	got, err := json.MarshalIndent(makeVectors(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(vectorFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("spec/vectors/identity.json differs from what this code does; if that is meant, run this test with -update")
	}
}

// RFC 8032, section 7.1, test 2.
func TestEd25519(t *testing.T) {
	seed, _ := hex.DecodeString("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
	id, err := IdentityFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	sig := id.Sign([]byte{0x72})
	if id.Public().String() != "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c" || !strings.HasPrefix(hex.EncodeToString(sig[:]), "92a009a9f0d4cab8720e820b5f642540") {
		t.Errorf("public %v, signature %x", id.Public(), sig)
	}
	if !id.Public().Verify([]byte{0x72}, sig) || id.Public().Verify([]byte{0x73}, sig) {
		t.Error("verification")
	}
}

// RFC 7748, section 6.1.
func TestX25519(t *testing.T) {
	private, _ := hex.DecodeString("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
	public := WGPrivate(private).Public()
	if hex.EncodeToString(public[:]) != "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a" {
		t.Errorf("public %v", public)
	}
}

// A node id is the SHA-256 of the public key, a device's that of a label and its WireGuard key (spec/10-identity.md#node-id).
func TestIDs(t *testing.T) {
	id := NewIdentity()
	p := id.Public()
	if id.NodeID() != NodeID(sha256.Sum256(p[:])) {
		t.Error("node id")
	}
	wg := NewWGPrivate().Public()
	if DeviceID(wg) != NodeID(sha256.Sum256(append([]byte("warren device v1"), wg[:]...))) {
		t.Error("device id")
	}
	if DeviceID(WGPublic(p)) == p.NodeID() {
		t.Error("a device can have the id of a node")
	}
}

func TestParse(t *testing.T) {
	id := NewIdentity()
	if got, err := ParseNodeID(id.NodeID().String()); err != nil || got != id.NodeID() {
		t.Errorf("node id: %v", err)
	}
	if got, err := ParseNetworkID(NetworkID(id.NodeID()).String()); err != nil || got != NetworkID(id.NodeID()) {
		t.Errorf("network id: %v", err)
	}
	wg := NewWGPrivate().Public()
	if got, err := ParseWGPublic(wg.String()); err != nil || got != wg {
		t.Errorf("WireGuard key: %v", err)
	}
	for _, s := range []string{"", "00", "zz", id.NodeID().String() + "00"} {
		if _, err := ParseNodeID(s); err == nil {
			t.Errorf("node id %q", s)
		}
		if _, err := ParseNetworkID(s); err == nil {
			t.Errorf("network id %q", s)
		}
		if _, err := ParseWGPublic(s); err == nil {
			t.Errorf("WireGuard key %q", s)
		}
	}
	if _, err := IdentityFromSeed(make([]byte, 31)); !errors.Is(err, ErrLength) {
		t.Errorf("short seed: %v", err)
	}
	if again, err := IdentityFromSeed(id.Seed()); err != nil || again != id {
		t.Errorf("seed: %v", err)
	}
}

func TestKeysAreNew(t *testing.T) {
	id, wg, seed, discovery := NewIdentity(), NewWGPrivate(), NewInviteSeed(), NewDiscoverySeed()
	if id == NewIdentity() || wg == NewWGPrivate() || seed == NewInviteSeed() || discovery == NewDiscoverySeed() {
		t.Error("two keys are equal")
	}
	k := NewWGPrivate()
	if k[0]&7 != 0 || k[31]&0xC0 != 0x40 {
		t.Errorf("key is not clamped: %x", [32]byte(k))
	}
	if !(Identity{}).IsZero() || !(WGPrivate{}).IsZero() || !(WGPublic{}).IsZero() || !(NodeID{}).IsZero() || !(NetworkID{}).IsZero() || NewIdentity().IsZero() ||
		!(DiscoverySeed{}).IsZero() || !(DiscoveryKey{}).IsZero() || (DiscoverySeed{}).Key(NetworkID{}).IsZero() {
		t.Error("IsZero")
	}
}

// secrets has one of each secret type, with bytes that are easy to find in any notation.
func secrets(t *testing.T) map[string]any {
	b := bytes.Repeat([]byte{0xA7}, 32)
	id, err := IdentityFromSeed(b)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"identity": id, "WireGuard key": WGPrivate(b), "invite seed": InviteSeed(b[:16]), "join key": JoinKey(b),
		"discovery seed": DiscoverySeed(b), "discovery key": DiscoveryKey(b)}
}

// leaks reports whether s shows the bytes of secrets.
func leaks(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "a7a7") || strings.Contains(s, "167") || strings.Contains(s, "0xa7") || strings.Contains(s, "\\xa7") ||
		strings.Contains(s, "p6en") || strings.Contains(s, "\xa7") || strings.Contains(s, "10100111") || strings.Contains(s, "247")
}

// Secrets print as "redacted", whatever the verb and wherever they stand (spec/10-identity.md#secrets).
func TestSecretsAreRedacted(t *testing.T) {
	for name, v := range secrets(t) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"} {
			for where, x := range map[string]any{"alone": v, "in a slice": []any{v}, "in a struct": struct{ K any }{v}, "in a map": map[string]any{"k": v}} {
				if s := fmt.Sprintf(verb, x); leaks(s) || !strings.Contains(s, "redacted") {
					t.Errorf("%s %s with %s: %s", name, where, verb, s)
				}
			}
		}
		if s := fmt.Sprint(v) + fmt.Sprintln(v) + fmt.Errorf("x: %v", v).Error(); leaks(s) {
			t.Errorf("%s: %s", name, s)
		}
		var b strings.Builder
		noTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // its digits look like bytes now and then
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, noTime), slog.NewJSONHandler(&b, noTime)} {
			slog.New(h).Info("x", "k", v)
		}
		if s := b.String(); leaks(s) || strings.Count(s, "redacted") != 2 {
			t.Errorf("%s in a log: %s", name, s)
		}
	}
}

// Public ids are short in logs.
func TestIDsInLogs(t *testing.T) {
	var b strings.Builder
	id := NodeID(bytes.Repeat([]byte{0xA7}, 32))
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "node", id, "network", NetworkID(id))
	if s := b.String(); !strings.Contains(s, "node=a7a7a7a7a7a7a7a7 network=a7a7a7a7a7a7a7a7\n") {
		t.Error(s)
	}
}
