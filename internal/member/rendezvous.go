package member

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	maxAfter = 32 // records that a rendezvous record names, so that it fits wire.MaxRecord
	maxOld   = 2  // previous discovery keys that a roster lists
)

// NewRendezvous makes the record that replaces the discovery key, after every revocation that none follows yet, or, of very
// many, after the oldest: [Roster.Uncovered] says whether another one is due. The error is ErrUnchanged when none is.
//
// Who puts someone out publishes one right after the revocation; any other admin that may, when none has come for a random
// time. As each change makes it harder to find members that are away, a caller makes no more than one a minute.
func (s *Set) NewRendezvous(by key.Identity, now time.Time) (wire.Record, error) {
	return s.newRendezvous(by, now, key.NewDiscoverySeed())
}

func (s *Set) newRendezvous(by key.Identity, now time.Time, secret key.DiscoverySeed) (wire.Record, error) {
	if err := s.need(by, wire.RightRevoke, "change the discovery key"); err != nil {
		return wire.Record{}, err
	}
	v := s.evaluate()
	if !v.uncovered() {
		return wire.Record{}, fmt.Errorf("the discovery key is newer than every removal: that %w", ErrUnchanged)
	}
	b := &wire.Rendezvous{Seq: 1, Secret: secret, Time: now.Unix()}
	if e := v.counting(); e != nil {
		b.Seq = e.body.(*wire.Rendezvous).Seq + 1
		b.After = append(b.After, e.rec.ID.Prefix()) // and with it all that it follows
	}
	for _, e := range v.unfollowed() {
		if len(b.After) < maxAfter {
			b.After = append(b.After, e.rec.ID.Prefix())
		}
	}
	slices.SortFunc(b.After, comparePrefix)
	return seal(s.network, wire.KindRendezvous, b, by)
}

func comparePrefix(a, b wire.RecordPrefix) int { return bytes.Compare(a[:], b[:]) }

// canFollow reports whether rendezvous records can name records of a kind.
func canFollow(k wire.Kind) bool {
	return k == wire.KindRevocation || k == wire.KindAdopt || k == wire.KindRendezvous
}

// follows reports whether all that b names is in the set, and its number fits. What it names was accepted on the same terms,
// so all that leads to it is in the set too (spec/20-records.md#rendezvous).
func (s *Set) follows(b *wire.Rendezvous) bool {
	var top uint64
	for _, p := range b.After {
		if len(s.steps[p]) == 0 {
			return false
		}
		for _, e := range s.steps[p] {
			if r, ok := e.body.(*wire.Rendezvous); ok {
				top = max(top, r.Seq)
			}
		}
	}
	return b.Seq <= top+1 // top counts accepted records: it cannot be the last number
}

// settleRendezvous finds the rendezvous records that have an effect, the one that counts last. Of each signer's records the
// newest alone can ever count, so that is all there is to adopt when the signer is put out.
func (v *evaluation) settleRendezvous() {
	newest := map[key.NodeID]*entry{}
	for _, e := range v.set.sorted(wire.KindRendezvous) {
		if v.vouches(e.signerID, wire.RightRevoke, e.rec.ID) {
			v.rendezvous = append(v.rendezvous, e)
		}
	}
	slices.SortStableFunc(v.rendezvous, func(a, b *entry) int {
		return cmp.Compare(a.body.(*wire.Rendezvous).Seq, b.body.(*wire.Rendezvous).Seq)
	})
	for _, e := range v.rendezvous {
		newest[e.signerID] = e
	}
	for _, e := range v.rendezvous {
		if newest[e.signerID] == e {
			v.vouch(e.signerID, e)
		}
	}
}

// counting returns the rendezvous record that counts; nil: the discovery key is still that of the genesis.
func (v *evaluation) counting() *entry {
	if n := len(v.rendezvous); n > 0 {
		return v.rendezvous[n-1]
	}
	return nil
}

// uncovered reports whether somebody who was put out may know the discovery key: because the record that counts does not
// follow its removal, or because it is of its own making.
func (v *evaluation) uncovered() bool {
	e := v.counting()
	return e != nil && v.out(e.signerID, wire.ScopeAll) || len(v.unfollowed()) > 0
}

// unfollowed lists, in the order of records, what the next rendezvous record has to follow and the one that counts does not:
// the revocations in force that put out someone who knows the discovery key; and, when others fell because too little was
// adopted, so many adopt records that they have fallen wherever the record is accepted (spec/21-roster.md#discovery).
func (v *evaluation) unfollowed() []*entry {
	if len(v.removals) == 0 {
		return nil
	}
	followed, felled, devices := v.followed(), v.felled(), map[key.NodeID]bool{}
	for _, e := range v.set.kinds[wire.KindDevice] {
		devices[key.DeviceID(e.body.(*wire.Device).WG)] = true
	}
	missing := map[*entry]bool{}
	for id, rem := range v.removals {
		if devices[id] || !v.out(id, wire.ScopeAll) && len(felled[id]) == 0 {
			continue // a device never had the key, and who is put out as an admin alone may keep it
		}
		for _, c := range rem.cuts {
			missing[c.rec] = !followed[c.rec]
		}
		for j := range felled[id] {
			v.needAdopts(adopter{j.by, id}, j.need, followed, missing)
		}
	}
	var out []*entry
	for e, is := range missing {
		if is {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, byTime)
	return out
}

// needAdopts adds adopt records to missing until need of them are followed.
func (v *evaluation) needAdopts(of adopter, need uint32, followed, missing map[*entry]bool) {
	a := v.adopted[of]
	if a == nil {
		return
	}
	for _, e := range a.recs {
		if followed[e] && need > 0 {
			need--
		}
	}
	for _, e := range a.recs {
		if !followed[e] && need > 0 {
			missing[e] = true
			need--
		}
	}
}

// followed collects all that the rendezvous record that counts follows, itself or through others.
func (v *evaluation) followed() map[*entry]bool {
	seen := map[*entry]bool{}
	e := v.counting()
	if e == nil {
		return seen
	}
	for stack := []*entry{e}; len(stack) > 0; {
		b, ok := stack[len(stack)-1].body.(*wire.Rendezvous)
		stack = stack[:len(stack)-1]
		if !ok {
			continue
		}
		for _, p := range b.After {
			for _, next := range v.set.steps[p] {
				if !seen[next] {
					seen[next] = true
					stack = append(stack, next)
				}
			}
		}
	}
	return seen
}

// felled finds the keys that were put out and took with them rights or memberships that they vouched for, and what decided
// that.
func (v *evaluation) felled() map[key.NodeID]map[*verdict]bool {
	out := map[key.NodeID]map[*verdict]bool{}
	note := func(id key.NodeID, e *entry, p purpose) {
		if v.kept(id, e.rec.ID, p) {
			return
		}
		if out[id] == nil {
			out[id] = map[*verdict]bool{}
		}
		out[id][v.removals[id].verdicts[p]] = true
	}
	for _, e := range v.set.kinds[wire.KindAdmin] {
		note(e.signerID, e, asAdmin)
	}
	for _, e := range v.set.kinds[wire.KindMember] {
		m := e.body.(*wire.Member)
		if m.Invite == nil {
			note(e.signerID, e, asAdmin)
			continue
		}
		note(e.signerID, e, asWitness)
		note(v.set.inviteOf(e, m).signerID, e, asAdmin)
	}
	return out
}

// listDiscovery lists the discovery key that counts and those before it, none twice.
func (v *evaluation) listDiscovery(r *Roster) {
	g := v.set.genesis.body.(*wire.Genesis)
	keys := []key.DiscoveryKey{}
	add := func(seed key.DiscoverySeed) {
		if k := seed.Key(v.set.network); len(keys) <= maxOld && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	for _, e := range slices.Backward(v.rendezvous) {
		add(e.body.(*wire.Rendezvous).Secret)
	}
	add(g.Nonce)
	r.Discovery, r.DiscoveryOld, r.DiscoverySince = keys[0], keys[1:], r.Created
	if e := v.counting(); e != nil {
		r.DiscoverySince = unix(e.time)
	}
	r.Uncovered = v.uncovered()
}

func validRendezvous(b *wire.Rendezvous) error {
	switch {
	case b.Seq == 0:
		return errors.New("rendezvous without a number")
	case b.Secret.IsZero():
		return errors.New("rendezvous without a secret")
	case len(b.After) == 0 || len(b.After) > maxAfter:
		return fmt.Errorf("rendezvous after %d records", len(b.After))
	}
	for i := range b.After[1:] {
		if comparePrefix(b.After[i], b.After[i+1]) >= 0 {
			return errors.New("records are not in ascending order")
		}
	}
	return validTime(b.Time)
}
