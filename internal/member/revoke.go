package member

import (
	"fmt"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// adoptChunk is how many records one Adopt record can name within wire.MaxRecord.
const adoptChunk = 48

// Removal says who is to be put out and how.
type Removal struct {
	Subject key.NodeID // member, device, admin or pending newcomer; one's own id means to leave
	Scope   wire.Scope // 0 means ScopeAll
	Reason  string     // for people, up to 200 bytes
	// Compromised says that the subject's key was in wrong hands: what it granted is not adopted, and its revocations are
	// rejected if the signer ranks above it.
	Compromised bool
}

// Revoke makes the records that put someone out for ever: Adopt records first, if any, and the revocation last. Unless the
// subject is compromised, all that is known to stand thanks to it is adopted and stays.
func (s *Set) Revoke(by key.Identity, now time.Time, o Removal) ([]wire.Record, error) {
	if o.Scope == 0 {
		o.Scope = wire.ScopeAll
	}
	if err := s.mayRevoke(by, o); err != nil {
		return nil, err
	}
	keep, reject := s.adoption(by, o)
	adopts, err := s.sealAdopts(by, now, o.Subject, keep, reject)
	if err != nil {
		return nil, err
	}
	count := len(adopts)
	for _, e := range s.kinds[wire.KindAdopt] {
		if e.signerID == by.NodeID() && e.body.(*wire.Adopt).Subject == o.Subject {
			count++
		}
	}
	rev, err := seal(s.network, wire.KindRevocation, &wire.Revocation{Subject: o.Subject, Scope: o.Scope, Time: now.Unix(), Reason: o.Reason, Adopts: uint32(count)}, by)
	if err != nil {
		return nil, err
	}
	return append(adopts, rev), nil
}

func (s *Set) mayRevoke(by key.Identity, o Removal) error {
	r, v := s.Roster(), s.evaluate()
	id := by.NodeID()
	target := v.admins[o.Subject]
	_, isMember := r.ByID(o.Subject)
	_, isPending := r.pending[o.Subject]
	_, isRevoked := r.revoked[o.Subject]
	switch {
	case !isMember && !isPending && !isRevoked && target == nil:
		return fmt.Errorf("%w: %v", ErrUnknownMember, o.Subject.Short())
	case o.Scope == wire.ScopeAdmin && target == nil:
		return fmt.Errorf("%w: %s is no admin", ErrUnknownMember, r.nameOf(o.Subject))
	case o.Subject == id:
		return nil
	case target != nil && target.root:
		return fmt.Errorf("%w: %s founded the network and can only leave it by itself", ErrNoRight, r.nameOf(o.Subject))
	case s.mayFightBack(id, target):
		return nil
	}
	if err := s.need(by, wire.RightRevoke, "put members out"); err != nil {
		return err
	}
	if target != nil && !v.mayRemove(v.admins[id], target) {
		return fmt.Errorf("%w: %s has its rights from %s", ErrNoRight, r.nameOf(id), r.nameOf(o.Subject))
	}
	return nil
}

// mayFightBack reports whether id was put out by target alone, which it outranks: its own revocation of target undoes that.
func (s *Set) mayFightBack(id key.NodeID, target *admin) bool {
	v := s.evaluate()
	a, rem := v.admins[id], v.removals[id]
	if a == nil || rem == nil || target == nil || target.rank < a.rank || !a.rights.Has(wire.RightRevoke) {
		return false
	}
	return !slices.ContainsFunc(rem.cuts, func(c cut) bool { return c.by != target })
}

// adoption lists what of the subject's is to be kept and what to be rejected, less what the signer has named before.
func (s *Set) adoption(by key.Identity, o Removal) (keep, reject []wire.RecordPrefix) {
	v := s.evaluate()
	self := o.Subject == by.NodeID()
	target := v.admins[o.Subject]
	if self && target == nil {
		return nil, nil // who leaves takes nobody with it
	}
	for _, e := range v.vouched[o.Subject] {
		if o.Compromised && !s.onlyWitnessed(e, o.Subject) {
			continue
		}
		keep = append(keep, e.rec.ID.Prefix())
	}
	for _, e := range s.kinds[wire.KindAdopt] {
		if e.signerID == o.Subject && len(e.body.(*wire.Adopt).Reject) > 0 && !o.Compromised {
			keep = append(keep, e.rec.ID.Prefix())
		}
	}
	if a := v.admins[by.NodeID()]; o.Compromised && !self && target != nil && a.rank < target.rank {
		for _, e := range v.cutsBy[o.Subject] {
			reject = append(reject, e.rec.ID.Prefix())
		}
	}
	before := v.adopted[adopter{by.NodeID(), o.Subject}]
	if before != nil {
		keep = slices.DeleteFunc(keep, func(id wire.RecordPrefix) bool { return before.keep[id] })
	}
	reject = slices.DeleteFunc(reject, func(id wire.RecordPrefix) bool {
		return slices.ContainsFunc(v.rejects[id], func(e *entry) bool { return e.signerID == by.NodeID() })
	})
	return keep, reject
}

// onlyWitnessed reports whether e is a join that subject witnessed but another invited to.
func (s *Set) onlyWitnessed(e *entry, subject key.NodeID) bool {
	m, ok := e.body.(*wire.Member)
	return ok && m.Invite != nil && e.signerID == subject && s.inviteOf(e, m).signerID != subject
}

func (s *Set) sealAdopts(by key.Identity, now time.Time, subject key.NodeID, keep, reject []wire.RecordPrefix) ([]wire.Record, error) {
	var out []wire.Record
	for len(keep)+len(reject) > 0 {
		a := &wire.Adopt{Subject: subject, Time: now.Unix()}
		a.Keep, keep = cutOff(keep, adoptChunk)
		a.Reject, reject = cutOff(reject, adoptChunk-len(a.Keep))
		rec, err := seal(s.network, wire.KindAdopt, a, by)
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

func cutOff(list []wire.RecordPrefix, n int) (head, tail []wire.RecordPrefix) {
	n = min(n, len(list))
	if n == 0 {
		return nil, list
	}
	return list[:n], list[n:]
}
