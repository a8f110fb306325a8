package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }

func person(name string) key.Identity {
	sum := sha256.Sum256([]byte("person " + name))
	id, err := key.IdentityFromSeed(sum[:])
	if err != nil {
		panic(err)
	}
	return id
}

// payloads has one payload of each kind, with all fields in use.
func payloads() map[Kind]any {
	a, b := person("a"), person("b")
	prefix, witness := RecordPrefix{1, 2, 3}, b.Public()
	return map[Kind]any{
		KindGenesis:    &Genesis{Name: "home", Nonce: [32]byte{5}, Roots: []key.Public{a.Public()}, Threshold: 1, Pool4: []byte{100, 64, 0, 0, 10}, Created: 1900000000},
		KindAdmin:      &Admin{Subject: b.Public(), Rights: RightInvite | RightRevoke, Time: 1900000001},
		KindInvite:     &Invite{Key: b.Public(), JoinKey: key.JoinKey{6}, Uses: 3, NotAfter: 1900086400, Groups: []string{"family"}, Approve: true, Time: 1900000002},
		KindMember:     &Member{Key: a.Public(), Name: "laptop", Addr4: [4]byte{100, 64, 3, 4}, Time: 1900000003, Groups: []string{"family"}, Invite: &prefix, Witness: &witness},
		KindRevocation: &Revocation{Subject: b.NodeID(), Scope: ScopeAll, Time: 1900000004, Reason: "lost", Adopts: 2},
		KindNodeInfo:   &NodeInfo{Seq: 7, WG: key.WGPublic{8}, Name: "desk", Endpoints: [][]byte{{192, 0, 2, 1, 202, 108}}, Caps: 1, Version: "v0.1.0", Time: 1900000005, Streams: []string{"tls://192.0.2.1:443"}},
		KindDevice:     &Device{WG: key.WGPublic{9}, Name: "phone", Addr4: [4]byte{100, 64, 5, 6}, Gateways: []key.NodeID{a.NodeID()}, Time: 1900000006},
		KindAdopt:      &Adopt{Subject: b.NodeID(), Keep: []RecordPrefix{{1}}, Reject: []RecordPrefix{{2}}, Time: 1900000007},
		KindPolicy:     &Policy{Seq: 3, Setting: SettingRelays, Value: PolicyGroups, Groups: []string{"servers"}, Time: 1900000008},
		KindRendezvous: &Rendezvous{Seq: 2, Secret: key.DiscoverySeed{7}, After: []RecordPrefix{{1}, {2}}, Time: 1900000009},
	}
}

// spec/20-records.md#encoding
func TestRecordRoundTrip(t *testing.T) {
	network := key.NetworkID{42}
	for kind, p := range payloads() {
		r, err := SealRecord(network, kind, p, person("a"), person("b"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRecord(network, r.Raw)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("kind %d: %v", kind, err)
		}
		if !got.Verify(network) || !got.SignedBy(person("a").Public()) || got.SignedBy(person("c").Public()) {
			t.Errorf("kind %d: signatures", kind)
		}
		body, err := ParsePayload(kind, got.Payload)
		if err != nil || !reflect.DeepEqual(body, p) {
			t.Errorf("kind %d: %+v, %v", kind, body, err)
		}
	}
	if v, err := ParsePayload(4711, []byte("anything")); v != nil || err != nil {
		t.Errorf("unknown kind: %v, %v", v, err)
	}
}

// A record is bound to its kind and its network, all signatures must be good (spec/20-records.md#signed-input).
func TestVerify(t *testing.T) {
	network := key.NetworkID{42}
	r, err := SealRecord(network, KindAdmin, payloads()[KindAdmin], person("a"), person("b"))
	if err != nil {
		t.Fatal(err)
	}
	if other := (key.NetworkID{43}); r.Verify(other) {
		t.Error("good in another network")
	}
	moved, err := EncodeRecord(network, KindDevice, r.Payload, r.Sigs)
	if err != nil || moved.Verify(network) {
		t.Errorf("good as another kind; %v", err)
	}
	sigs := slices.Clone(r.Sigs)
	sigs[1].Signature[5] ^= 1
	one, err := EncodeRecord(network, KindAdmin, r.Payload, sigs)
	if err != nil || one.Verify(network) {
		t.Errorf("good with a bad second signature; %v", err)
	}
	var none Record
	if none.Verify(network) {
		t.Error("good without signatures")
	}
	// A genesis has no network before it.
	g, err := SealRecord(network, KindGenesis, payloads()[KindGenesis], person("a"))
	if err != nil || !g.Verify(key.NetworkID{}) {
		t.Errorf("genesis depends on a network; %v", err)
	}
}

// The id does not depend on signature bytes or on the order of signing, but on who signed (spec/20-records.md#record-id).
func TestRecordID(t *testing.T) {
	network := key.NetworkID{42}
	p := payloads()[KindAdmin]
	ab, _ := SealRecord(network, KindAdmin, p, person("a"), person("b"))
	ba, _ := SealRecord(network, KindAdmin, p, person("b"), person("a"))
	a, _ := SealRecord(network, KindAdmin, p, person("a"))
	b, _ := SealRecord(network, KindAdmin, p, person("b"))
	if ab.ID != ba.ID || !bytes.Equal(ab.Raw, ba.Raw) {
		t.Error("the order of signing matters")
	}
	if a.ID == b.ID || a.ID == ab.ID || b.ID == ab.ID {
		t.Error("who signed does not matter")
	}
	sigs := slices.Clone(a.Sigs)
	sigs[0].Signature = key.Signature{1}
	forged, err := EncodeRecord(network, KindAdmin, a.Payload, sigs)
	if err != nil || forged.ID != a.ID {
		t.Errorf("the signature matters; %v", err)
	}
	if id := a.ID.Prefix(); !bytes.Equal(id[:], a.ID[:16]) || len(a.ID.String()) != 64 {
		t.Error("prefix")
	}
}

// spec/20-records.md#size
func TestRecordSize(t *testing.T) {
	fits := 0
	for n := 800; n < 1000; n++ {
		r, err := SealRecord(key.NetworkID{}, 500, make([]byte, n), person("a"))
		if err == nil {
			fits = len(r.Raw)
		} else if !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	}
	if fits != MaxRecord {
		t.Errorf("largest record has %d bytes, want %d", fits, MaxRecord)
	}
}

// There is one encoding of a record (spec/20-records.md#encoding).
func TestRecordStrictness(t *testing.T) {
	r, err := SealRecord(key.NetworkID{}, KindAdmin, payloads()[KindAdmin], person("a"), person("b"))
	if err != nil {
		t.Fatal(err)
	}
	raw := r.Raw
	swapped, _ := MarshalCanonical(envelope{Kind: r.Kind, Payload: r.Payload, Sigs: []Sig{r.Sigs[1], r.Sigs[0]}})
	twice, _ := MarshalCanonical(envelope{Kind: r.Kind, Payload: r.Payload, Sigs: []Sig{r.Sigs[0], r.Sigs[0]}})
	none, _ := MarshalCanonical(envelope{Kind: r.Kind, Payload: r.Payload, Sigs: []Sig{}})
	five, _ := MarshalCanonical(envelope{Kind: r.Kind, Payload: r.Payload[:20], Sigs: []Sig{{Signer: key.Public{1}}, {Signer: key.Public{2}}, {Signer: key.Public{3}}, {Signer: key.Public{4}}, {Signer: key.Public{5}}}})
	zero, _ := MarshalCanonical(envelope{Payload: r.Payload, Sigs: r.Sigs})
	empty, _ := MarshalCanonical(envelope{Kind: r.Kind, Payload: []byte{}, Sigs: r.Sigs})
	for name, b := range map[string][]byte{
		"empty":             {},
		"cut":               raw[:len(raw)-1],
		"trailing byte":     append(bytes.Clone(raw), 0),
		"long integer":      append([]byte{raw[0], 0x18}, raw[1:]...),
		"indefinite length": append(append([]byte{0x9f}, raw[1:]...), 0xff),
		"tagged":            append([]byte{0xc1}, raw...),
		"signers swapped":   swapped,
		"one signer twice":  twice,
		"no signer":         none,
		"five signers":      five,
		"kind 0":            zero,
		"empty payload":     empty,
		"null":              {0xf6},
		"map":               {0xa0},
	} {
		if _, err := ParseRecord(key.NetworkID{}, b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// There is one encoding of a payload, and nothing in it that this version does not know (spec/20-records.md#encoding).
func TestPayloadStrictness(t *testing.T) {
	good := []byte{0xa3, 1, 0x58, 32}
	good = append(good, make([]byte, 32)...)
	good = append(good, 2, 1, 3, 9)
	if _, err := ParsePayload(KindAdmin, good); err != nil {
		t.Fatal(err)
	}
	body := good[1:]
	for name, b := range map[string][]byte{
		"unknown key":    append(append([]byte{0xa4}, body...), 4, 0),
		"doubled key":    append(append([]byte{0xa4}, body...), 3, 9),
		"missing key":    append([]byte{0xa2}, body[:len(body)-2]...),
		"other order":    append([]byte{0xa3, 3, 9}, body[:len(body)-2]...),
		"text key":       append(append([]byte{0xa3}, body[:len(body)-2]...), 0x61, '3', 9),
		"short key":      {0xa3, 1, 0x41, 0, 2, 1, 3, 9},
		"negative right": append(append([]byte{0xa3}, body[:len(body)-4]...), 2, 0x20, 3, 9),
		"float":          append(append([]byte{0xa3}, body[:len(body)-1]...), 0xf9, 0, 0),
		"long integer":   append(append([]byte{0xa3}, body[:len(body)-1]...), 0x18, 9),
	} {
		if v, err := ParsePayload(KindAdmin, b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	zeroField := []byte{0xa4, 1, 0x58, 32}
	zeroField = append(zeroField, make([]byte, 32)...)
	zeroField = append(zeroField, 2, 1, 3, 9, 4, 0x60) // an empty reason is left out, not stated
	if _, err := ParsePayload(KindRevocation, zeroField); err == nil {
		t.Error("an empty optional field is let through")
	}
}

func TestRights(t *testing.T) {
	r := RightInvite | RightRevoke
	if r.String() != "invite,revoke" || !r.Has(RightInvite) || r.Has(RightInvite|RightIssue) {
		t.Error(r)
	}
	if len(AllRights.Names()) != 6 {
		t.Error(AllRights)
	}
	for _, n := range AllRights.Names() {
		if x, ok := ParseRight(n); !ok || x.String() != n {
			t.Errorf("%s is %v", n, x)
		}
	}
	if _, ok := ParseRight("root"); ok {
		t.Error("there is a right root")
	}
}

// Nothing that a payload type holds in secret is printed by accident.
func TestPayloadsKeepSecrets(t *testing.T) {
	v, r := payloads()[KindInvite].(*Invite), payloads()[KindRendezvous].(*Rendezvous)
	s := fmt.Sprintf("%v %+v %#v %v %+v %#v", *v, *v, *v, *r, *r, *r)
	for _, secret := range []string{"[6 0 0", "0x6, 0x0", "[7 0 0", "0x7, 0x0"} {
		if strings.Contains(s, secret) {
			t.Error(s)
		}
	}
}
