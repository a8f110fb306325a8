package wire

import (
	"fmt"
	"strings"

	"github.com/warren-vpn/warren/internal/key"
)

// Rights are what an admin may do, as bits. They are append-only (spec/21-roster.md#rights).
type Rights uint32

// The rights.
const (
	RightInvite   Rights = 1 << iota // make invites
	RightIssue                       // admit members and devices directly, approve
	RightRenew                       // extend lifetimes (reserved)
	RightRevoke                      // put members, devices and other admins out
	RightPolicy                      // write the network's policy
	RightDelegate                    // make admins, with rights of its own only
)

// AllRights is what a root key holds.
const AllRights = RightInvite | RightIssue | RightRenew | RightRevoke | RightPolicy | RightDelegate

var rightNames = []struct {
	right Rights
	name  string
}{{RightInvite, "invite"}, {RightIssue, "issue"}, {RightRenew, "renew"}, {RightRevoke, "revoke"}, {RightPolicy, "policy"}, {RightDelegate, "delegate"}}

// Has reports whether all of want are in r.
func (r Rights) Has(want Rights) bool { return r&want == want }

// Names lists the rights in r in a fixed order.
func (r Rights) Names() []string {
	var out []string
	for _, n := range rightNames {
		if r.Has(n.right) {
			out = append(out, n.name)
		}
	}
	return out
}

// String joins the names with commas.
func (r Rights) String() string { return strings.Join(r.Names(), ",") }

// ParseRight reads one name; ok is false when there is no such right.
func ParseRight(name string) (r Rights, ok bool) {
	for _, n := range rightNames {
		if n.name == name {
			return n.right, true
		}
	}
	return 0, false
}

// Genesis founds a network: its record's id is the network's. Times in all payloads are Unix seconds.
type Genesis struct {
	Name      string       `cbor:"1,keyasint"`
	Nonce     [32]byte     `cbor:"2,keyasint"` // random: two networks of one name differ; secret, as the first discovery key follows from it
	Roots     []key.Public `cbor:"3,keyasint"` // 1 to 8
	Threshold uint8        `cbor:"4,keyasint"` // roots that must sign; only 1 is supported today
	Pool4     []byte       `cbor:"5,keyasint"` // IPv4 pool: 4 address bytes and the prefix length
	Created   int64        `cbor:"6,keyasint"`
}

// Admin grants rights to a member's identity key.
type Admin struct {
	Subject key.Public `cbor:"1,keyasint"`
	Rights  Rights     `cbor:"2,keyasint"`
	Time    int64      `cbor:"3,keyasint"`
}

// Invite lets the holders of its seed join.
type Invite struct {
	Key      key.Public  `cbor:"1,keyasint"` // invite key: signs the newcomers' member records
	JoinKey  key.JoinKey `cbor:"2,keyasint"`
	Uses     uint32      `cbor:"3,keyasint"` // how many may join; 0 is malformed
	NotAfter int64       `cbor:"4,keyasint"`
	Groups   []string    `cbor:"5,keyasint,omitempty"`
	Approve  bool        `cbor:"6,keyasint,omitempty"` // an admin must approve each
	Time     int64       `cbor:"7,keyasint"`
}

// Member admits an identity. It is signed by an admin, or (Invite set) by the invite key, the newcomer and a witness.
type Member struct {
	Key     key.Public    `cbor:"1,keyasint"`
	Name    string        `cbor:"2,keyasint"`
	Addr4   [4]byte       `cbor:"3,keyasint"`
	Time    int64         `cbor:"4,keyasint"`
	Groups  []string      `cbor:"5,keyasint,omitempty"`
	Invite  *RecordPrefix `cbor:"6,keyasint,omitempty"`
	Witness *key.Public   `cbor:"7,keyasint,omitempty"`
}

// Scope says what a revocation takes away.
type Scope uint8

// The scopes.
const (
	ScopeAll   Scope = 1 // the member or device, whole, with any rights it had
	ScopeAdmin Scope = 2 // its rights as an admin only
)

// Revocation puts a subject out for ever.
type Revocation struct {
	Subject key.NodeID `cbor:"1,keyasint"`
	Scope   Scope      `cbor:"2,keyasint"`
	Time    int64      `cbor:"3,keyasint"`
	Reason  string     `cbor:"4,keyasint,omitempty"`
	Adopts  uint32     `cbor:"5,keyasint,omitempty"` // Adopt records of this signer and subject to wait for (spec/21-roster.md#adopt)
}

// Adopt keeps grants of an admin whom its signer revoked, and rejects revocations of that admin.
type Adopt struct {
	Subject key.NodeID     `cbor:"1,keyasint"` // the revoked admin
	Keep    []RecordPrefix `cbor:"2,keyasint,omitempty"`
	Reject  []RecordPrefix `cbor:"3,keyasint,omitempty"`
	Time    int64          `cbor:"4,keyasint"`
}

// Caps says what a node can do beyond stock WireGuard. Bits are append-only.
type Caps uint32

// The capabilities.
const (
	CapFast  Caps = 1 // reads transport messages in the fast form, and its CPU does AES quickly (spec/40-wireguard.md#fast-form)
	CapRelay Caps = 2 // reads relayed datagrams and passes them on, and speaks of links (spec/52-relay.md)
	CapMask  Caps = 4 // reads masked datagrams (spec/75-mask.md)
)

// NodeInfo is what a node says of itself. Of one signer the highest Seq counts.
type NodeInfo struct {
	Seq       uint64       `cbor:"1,keyasint"`
	WG        key.WGPublic `cbor:"2,keyasint"`
	Name      string       `cbor:"3,keyasint,omitempty"` // a name of the node's own choice, see spec/21-roster.md#names
	Endpoints [][]byte     `cbor:"4,keyasint,omitempty"` // 6 or 18 bytes: address and big-endian port
	Caps      Caps         `cbor:"5,keyasint,omitempty"`
	Version   string       `cbor:"6,keyasint,omitempty"` // of the software, for people
	Time      int64        `cbor:"7,keyasint"`
	Streams   []string     `cbor:"8,keyasint,omitempty"` // URLs at which it takes streams (spec/72-streams.md#when)
}

// Device admits a stock WireGuard client that gateways serve.
type Device struct {
	WG       key.WGPublic `cbor:"1,keyasint"`
	Name     string       `cbor:"2,keyasint"`
	Addr4    [4]byte      `cbor:"3,keyasint"`
	Gateways []key.NodeID `cbor:"4,keyasint"`
	Time     int64        `cbor:"5,keyasint"`
}

// ParsePayload decodes the payload of a record of a known kind into a pointer to its type, such as *[Member]. For a kind
// that this version does not know, it gives nil and no error. It checks the encoding, not what the fields say.
func ParsePayload(kind Kind, payload []byte) (any, error) {
	var v any
	switch kind {
	case KindGenesis:
		v = new(Genesis)
	case KindAdmin:
		v = new(Admin)
	case KindInvite:
		v = new(Invite)
	case KindMember:
		v = new(Member)
	case KindRevocation:
		v = new(Revocation)
	case KindNodeInfo:
		v = new(NodeInfo)
	case KindDevice:
		v = new(Device)
	case KindAdopt:
		v = new(Adopt)
	case KindPolicy:
		v = new(Policy)
	case KindRendezvous:
		v = new(Rendezvous)
	default:
		return nil, nil
	}
	if err := UnmarshalCanonical(payload, v); err != nil {
		return nil, fmt.Errorf("payload of kind %d: %w", kind, err)
	}
	return v, nil
}
