package member

import (
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// admissions is the last part of an evaluation: who was let in, by whom, what waits, the policy and the discovery key.
type admissions struct {
	members map[key.Public]*admission
	devices map[key.NodeID]*admission
	pending map[key.Public]*admission
	used    map[wire.RecordID]map[key.Public]bool // by invite: who joined by it
	vouched map[key.NodeID][]*entry               // by admin or witness: what would fall with it
	policy  map[wire.Setting]*entry               // the record that counts

	rendezvous []*entry // those with an effect, the one that counts last
}

// admission is a record that lets someone in, and why it counts.
type admission struct {
	rec    *entry
	invite *entry // nil: by an admin
}

// admit decides who is let in, put out again or not. Members by admins come first, so that any join can be witnessed by
// them; joins follow in the order of their time, so that a witness comes before those it witnessed.
func (v *evaluation) admit() {
	v.admissions = admissions{members: map[key.Public]*admission{}, devices: map[key.NodeID]*admission{},
		pending: map[key.Public]*admission{}, used: map[wire.RecordID]map[key.Public]bool{},
		vouched: map[key.NodeID][]*entry{}, policy: map[wire.Setting]*entry{}}
	for _, a := range v.ranks {
		for _, g := range a.from {
			if g.by.rights.Has(wire.RightDelegate) && v.kept(g.by.id, g.rec.rec.ID, asAdmin) {
				v.vouch(g.by.id, g.rec)
			}
		}
	}
	var joins []*entry
	for _, e := range v.set.sorted(wire.KindMember) {
		m := e.body.(*wire.Member)
		switch {
		case m.Invite != nil:
			joins = append(joins, e)
		case v.vouches(e.signerID, wire.RightIssue, e.rec.ID):
			v.vouch(e.signerID, e)
			if v.members[m.Key] == nil {
				v.members[m.Key] = &admission{rec: e}
			}
		}
	}
	for _, e := range joins {
		v.admitJoin(e, e.body.(*wire.Member))
	}
	for p := range v.members {
		delete(v.pending, p)
	}
	for _, e := range v.set.sorted(wire.KindDevice) {
		id := key.DeviceID(e.body.(*wire.Device).WG)
		if v.vouches(e.signerID, wire.RightIssue, e.rec.ID) {
			v.vouch(e.signerID, e)
			if v.devices[id] == nil {
				v.devices[id] = &admission{rec: e}
			}
		}
	}
	v.settlePolicy()
	v.settleRendezvous()
}

// admitJoin judges one join by invite (spec/21-roster.md#join).
func (v *evaluation) admitJoin(e *entry, m *wire.Member) {
	inv := v.set.inviteOf(e, m)
	terms := inv.body.(*wire.Invite)
	if v.members[*m.Witness] == nil || !v.kept(e.signerID, e.rec.ID, asWitness) || !v.vouches(inv.signerID, wire.RightInvite, e.rec.ID) {
		return
	}
	used := v.used[inv.rec.ID]
	if used == nil {
		used = map[key.Public]bool{}
		v.used[inv.rec.ID] = used
	}
	if used[m.Key] {
		return // one newcomer, two witnesses: the first counts
	}
	if uint32(len(used)) >= terms.Uses {
		return
	}
	used[m.Key] = true
	v.vouch(inv.signerID, e)
	if e.signerID != inv.signerID {
		v.vouch(e.signerID, e)
	}
	a := &admission{rec: e, invite: inv}
	switch old := v.members[m.Key]; {
	case terms.Approve:
		if v.pending[m.Key] == nil {
			v.pending[m.Key] = a
		}
	case old == nil, byTime(e, old.rec) < 0:
		v.members[m.Key] = a
	}
}

func (v *evaluation) vouch(by key.NodeID, e *entry) {
	v.vouched[by] = append(v.vouched[by], e)
}
