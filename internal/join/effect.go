package join

import (
	"net/netip"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Effect is something that the owner must now do: a [Send], [Joined], [Pending] or [Failed].
type Effect interface{ effect() }

// Send asks to send Data as one datagram.
type Send struct {
	To   netip.AddrPort
	Data []byte
}

// Joined says that an introducer admitted this node. The records are parsed, and those that prove the answer are checked (see
// the package comment), but the chain is not: the owner adds them to a roster of Network and either finds itself and the
// introducer in it, or says Reject.
type Joined struct {
	Network    key.NetworkID
	Records    [][]byte // genesis first; the node info that was sent to the introducer last
	Introducer Introduced
}

// Introduced is a member as the newcomer came to know it.
type Introduced struct {
	WG       key.WGPublic
	Identity key.Public
	Addr     netip.AddrPort
}

// Pending says, once, that an admin of Network must approve. The Joiner goes on asking until the owner drops it.
type Pending struct{ Network key.NetworkID }

// Failed ends the join.
type Failed struct{ Reason Reason }

func (Send) effect()    {}
func (Joined) effect()  {}
func (Pending) effect() {}
func (Failed) effect()  {}

// Reason says why a join failed.
type Reason uint8

// The reasons.
const (
	Silent   Reason = iota + 1 // nobody answered: no introducer is reachable, or none knows the code
	Used                       // the invite has no uses left
	Expired                    // the invite's time is over
	Revoked                    // the invite, or the admin behind it, was put out
	Denied                     // the network does not want this node
	Full                       // no address or no room left
	TooOld                     // this software is too old for the network
	Mismatch                   // who answered is not of the code's network, or lied
)

var reasonNames = [...]string{"", "silent", "used", "expired", "revoked", "denied", "full", "version", "mismatch"}

// String names r in one word.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// refusal translates an introducer's status. Final refusals end the join; others only this introducer's part in it
// (spec/30-join.md#status).
func refusal(s wire.JoinStatus) (r Reason, final bool) {
	switch s {
	case wire.JoinUsed:
		return Used, true
	case wire.JoinExpired:
		return Expired, true
	case wire.JoinRevoked:
		return Revoked, true
	case wire.JoinFull:
		return Full, false
	case wire.JoinTooOld:
		return TooOld, false
	}
	return Denied, true
}
