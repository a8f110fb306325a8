package node

import (
	"errors"
	"time"

	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/wire"
)

// newIntroducer makes the part that answers newcomers. Its callbacks run in the control loop.
func (w *network) newIntroducer() *join.Introducer {
	return join.NewIntroducer(join.IntroducerConfig{
		Network: w.id, Identity: w.keys.Identity, WG: w.keys.WG, NewIndex: w.n.newIndex,
		Invite: func(loc key.Locator) (join.Invite, bool) {
			inv, status := w.roster.CheckInvite(time.Time{}, loc)
			return join.Invite{JoinKey: inv.JoinKey, Key: inv.Key, Prefix: inv.ID.Prefix()}, status != wire.JoinDenied
		},
		Draft: w.draft,
		Admit: w.admit,
		Learn: w.learnMember,
	}, w.log)
}

// draft proposes what a newcomer would be, or says why it cannot join.
func (w *network) draft(now time.Time, inv join.Invite, newcomer key.Public, name string) ([]byte, wire.JoinStatus) {
	return w.set.Draft(now, w.keys.Identity.Public(), inv.Prefix, newcomer, name)
}

// admit takes a newcomer's signed records and gives it what proves its membership.
func (w *network) admit(now time.Time, memberRecord, nodeInfo []byte) ([][]byte, wire.JoinStatus) {
	r, err := wire.ParseRecord(w.id, memberRecord)
	if err != nil {
		return nil, wire.JoinDenied
	}
	var m wire.Member
	if err := wire.UnmarshalCanonical(r.Payload, &m); err != nil {
		return nil, wire.JoinDenied
	}
	for _, raw := range [][]byte{memberRecord, nodeInfo} { // ErrKnown: it joined before, and its answer was lost
		if err := w.accept(raw, key.NodeID{}); err != nil && !errors.Is(err, member.ErrKnown) && !errors.Is(err, member.ErrSuperseded) {
			w.log.Warn("newcomer's record not accepted", "name", m.Name, "err", err)
			return nil, wire.JoinDenied
		}
	}
	w.save(now)
	if len(w.inbox) > 0 { // a membership that a crash could undo is not given out
		return nil, wire.JoinFull
	}
	w.rosterChanged(now)
	id := m.Key.NodeID()
	switch status := w.roster.Standing(id); status {
	case wire.JoinOK:
		w.log.Info("new member", "name", m.Name, "id", id)
		return w.proof(id), status
	case wire.JoinPending:
		w.log.Info("newcomer waits for approval", "name", m.Name, "id", id)
		return nil, status
	default:
		return nil, status
	}
}

const (
	maxProof    = 64 // records, beyond which a newcomer is shown its introducer alone
	maxPointers = 2  // other members that it is shown
)

// proof is what shows a newcomer that it is a member, and whom it can call (spec/30-join.md#grant).
func (w *network) proof(newcomer key.NodeID) [][]byte {
	least := []key.NodeID{newcomer, w.keys.Identity.NodeID()}
	nodes := least
	if w.mesh != nil {
		nodes = append(nodes, w.mesh.company(maxPointers, newcomer)...)
	}
	if records := w.set.Chain(nodes...); len(records) <= maxProof {
		return records
	}
	return w.set.Chain(least...)
}

// company returns up to n members that this node talks to, but one: those reached directly first, else in no order.
func (m *mesh) company(n int, but key.NodeID) (out []key.NodeID) {
	for _, direct := range []bool{true, false} {
		for _, p := range m.peers {
			if len(out) < n && p.talks && !p.device && p.direct == direct && p.id != but {
				out = append(out, p.id)
			}
		}
	}
	return out
}

// learnMember takes the records by which a stranger shows that it is a member (spec/30-join.md#proof).
func (w *network) learnMember(now time.Time, raw [][]byte) {
	for _, r := range raw {
		if res, err := w.set.AddShown(r); err == nil {
			w.took(res, key.NodeID{})
		}
	}
	if w.changed {
		w.save(now)
		w.rosterChanged(now) // its next message is a handshake
	}
}

const maxProofTargets = 4

// showMembership shows p, who has not answered, that this node is a member: who let it in may have told nobody, and be gone.
func (m *mesh) showMembership(p *peer, targets []wire.Way, mask *wire.Mask) {
	if p.met || p.device {
		return
	}
	if p.unanswered++; p.unanswered < 2 || p.unanswered&(p.unanswered-1) != 0 { // the 2nd, 4th, 8th...
		return
	}
	frames, err := join.Prove(nil, m.w.keys.WG, p.wg, m.w.set.Chain(m.self))
	if err != nil {
		m.log.Warn("membership not shown", "peer", p.name, "err", err)
		return
	}
	n := 0
	for _, to := range targets {
		if to.IsRelayed() || n == maxProofTargets {
			continue
		}
		n++
		for _, f := range frames {
			m.w.n.plane.SendRaw(to.Addr, f, mask)
		}
	}
	m.log.Debug("membership shown", "peer", p.name, "addresses", n, "frames", len(frames))
}
