package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Whether a record is accepted depends on other records in one way only: some must be there. granted, members, invites and
// steps grow with every accepted record and never shrink, so what is acceptable once stays so, and two nodes with the same
// records accept the same ones, whatever the order they came in (spec/20-records.md#acceptance).

// shape checks the number and the roles of the signers, and sets who answers for e and the time that it states.
func (s *Set) shape(e *entry) error {
	one := len(e.rec.Sigs) == 1
	switch b := e.body.(type) {
	case *wire.Genesis:
		e.time = b.Created
		if key.NetworkID(e.rec.ID) != s.network {
			return errors.New("genesis of another network")
		}
		if !slices.Contains(b.Roots, e.signer) {
			return errors.New("genesis is not signed by a root")
		}
	case *wire.Admin:
		e.time = b.Time
	case *wire.Invite:
		e.time = b.Time
	case *wire.Member:
		e.time = b.Time
		if b.Invite != nil {
			e.signer = *b.Witness
			if len(e.rec.Sigs) == 2 && e.rec.SignedBy(b.Key) && !e.rec.SignedBy(*b.Witness) {
				return errUnwitnessed
			}
			if len(e.rec.Sigs) != 3 || !e.rec.SignedBy(b.Key) || !e.rec.SignedBy(*b.Witness) || b.Key == *b.Witness {
				return errors.New("a join is signed by invite, newcomer and witness")
			}
			return nil
		}
	case *wire.Revocation:
		e.time = b.Time
	case *wire.NodeInfo:
		e.time = b.Time
	case *wire.Device:
		e.time = b.Time
	case *wire.Adopt:
		e.time = b.Time
	case *wire.Policy:
		e.time = b.Time
	case *wire.Rendezvous:
		e.time = b.Time
	default:
		one = true
	}
	if !one {
		return fmt.Errorf("%d signatures", len(e.rec.Sigs))
	}
	return nil
}

// errUnwitnessed is a join signed by invite and newcomer only.
var errUnwitnessed = errors.New("a join without its witness's signature")

// witnessed reports whether the set has e, an unwitnessed join, with all signatures.
func (s *Set) witnessed(e *entry) bool {
	return slices.ContainsFunc(s.kinds[wire.KindMember], func(x *entry) bool { return bytes.Equal(x.rec.Payload, e.rec.Payload) })
}

// grants reports whether records of a kind can make other records acceptable.
func grants(k wire.Kind) bool {
	return k == wire.KindGenesis || k == wire.KindAdmin || k == wire.KindInvite || k == wire.KindMember || canFollow(k)
}

// learn takes note of what e makes acceptable.
func (s *Set) learn(e *entry) {
	if canFollow(e.rec.Kind) {
		s.steps[e.rec.ID.Prefix()] = append(s.steps[e.rec.ID.Prefix()], e)
	}
	switch b := e.body.(type) {
	case *wire.Genesis:
		s.genesis = e
		for _, r := range b.Roots {
			s.granted[r] = wire.AllRights
		}
	case *wire.Admin:
		s.granted[b.Subject] |= b.Rights & wire.AllRights
	case *wire.Invite:
		s.invites[e.rec.ID.Prefix()] = append(s.invites[e.rec.ID.Prefix()], e)
	case *wire.Member:
		s.members[b.Key] = true
	}
}

// acceptable says nil, ErrPenned (not yet) or ErrInvalid (never).
func (s *Set) acceptable(e *entry) error {
	ok := false
	has := func(r wire.Rights) bool { return s.granted[e.signer].Has(r) }
	switch b := e.body.(type) {
	case *wire.Genesis:
		ok = true
	case *wire.Admin:
		ok = has(wire.RightDelegate | b.Rights&wire.AllRights)
	case *wire.Invite:
		ok = has(wire.RightInvite)
	case *wire.Member:
		if b.Invite != nil {
			return s.acceptableJoin(e, b)
		}
		ok = has(wire.RightIssue)
	case *wire.Revocation:
		ok = has(wire.RightRevoke) || b.Subject == e.signerID && s.known(e.signer)
	case *wire.NodeInfo:
		ok = s.members[e.signer]
	case *wire.Device:
		ok = has(wire.RightIssue)
	case *wire.Adopt:
		ok = has(wire.RightRevoke) || b.Subject == e.signerID && s.known(e.signer)
	case *wire.Policy:
		ok = has(wire.RightPolicy)
	case *wire.Rendezvous:
		ok = has(wire.RightRevoke) && s.follows(b)
	default:
		ok = s.knowsSigner(e)
	}
	if !ok {
		return ErrPenned
	}
	return nil
}

// known reports whether p was ever a member's or an admin's key.
func (s *Set) known(p key.Public) bool { return s.members[p] || s.granted[p] != 0 }

// knowsSigner looks for a signer that answers for a record of an unknown kind.
func (s *Set) knowsSigner(e *entry) bool {
	for _, sig := range e.rec.Sigs {
		if s.known(sig.Signer) {
			e.signer, e.signerID = sig.Signer, sig.Signer.NodeID()
			return true
		}
	}
	return false
}

// acceptableJoin judges a member record by invite and witness against the terms of the invite (spec/21-roster.md#join).
func (s *Set) acceptableJoin(e *entry, m *wire.Member) error {
	inv := s.inviteOf(e, m)
	if inv == nil || !s.members[*m.Witness] {
		return ErrPenned
	}
	v := inv.body.(*wire.Invite)
	if m.Time < v.Time || m.Time > v.NotAfter {
		return fmt.Errorf("%w: witnessed outside the time of the invite", ErrInvalid)
	}
	if !slices.Equal(m.Groups, v.Groups) {
		return fmt.Errorf("%w: groups are not those of the invite", ErrInvalid)
	}
	return nil
}

// inviteOf finds the invite whose key signed a join; nil when it is not known.
func (s *Set) inviteOf(e *entry, m *wire.Member) *entry {
	var best *entry
	for _, inv := range s.invites[*m.Invite] {
		k := inv.body.(*wire.Invite).Key
		if k != m.Key && k != *m.Witness && e.rec.SignedBy(k) && (best == nil || byTime(inv, best) < 0) {
			best = inv
		}
	}
	return best
}
