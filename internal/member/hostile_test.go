package member

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// sealed signs something without asking whether it has an effect.
func (n *node) sealed(kind wire.Kind, body any) wire.Record {
	n.w.t.Helper()
	r, err := wire.SealRecord(n.w.network, kind, body, n.id)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return r
}

// An admin of a lower rank puts a higher one out but cannot undo what that one did (spec/21-roster.md#adopt).
func TestLowerAdminCannotReject(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "victim")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", someRights)
	root.makeAdmin("carol", someRights)
	w.sync(root, bob, carol)
	bob.revoke("victim", Removal{})
	w.sync(root, bob, carol)

	carol.revoke("bob", Removal{Compromised: true})
	var reject []wire.RecordPrefix
	for _, e := range carol.kinds[wire.KindRevocation] {
		if e.signerID == bob.id.NodeID() {
			reject = append(reject, e.rec.ID.Prefix())
		}
	}
	carol.take(carol.sealed(wire.KindAdopt, &wire.Adopt{Subject: bob.id.NodeID(), Reject: reject, Time: w.now.Unix()}))
	carol.wantMembers("root", "carol")
	w.sync(root, bob, carol)
}

// One who waits for an approval, or whose own join does not count, is no witness (spec/21-roster.md#join).
func TestWitnessMustBeAMember(t *testing.T) {
	w, root := newWorld(t)
	careful, open := root.invite("careful", InviteTerms{Approve: true}), root.invite("open", InviteTerms{})
	if _, status := root.tryJoin("pending", careful); status != wire.JoinPending {
		t.Fatal(status)
	}
	var prefix wire.RecordPrefix
	for _, v := range root.Roster().Invites {
		if v.Key == open.Identity().Public() {
			prefix = v.ID.Prefix()
		}
	}
	witness := who("pending").Public()
	draft, err := wire.MarshalCanonical(&wire.Member{Key: who("friend").Public(), Name: "friend", Addr4: [4]byte{100, 64, 9, 9},
		Time: w.now.Unix() + 1, Invite: &prefix, Witness: &witness})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := Finish(w.network, draft, signDraft(w.network, draft, open, who("friend")), who("pending"))
	root.must(rec, err)
	root.wantMembers("root")
	if inv, status := root.Roster().CheckInvite(w.now, open.JoinKey().Locator()); inv.Left != 1 || status != wire.JoinOK {
		t.Errorf("%d uses left, %v", inv.Left, status)
	}

	root.must(root.Approve(root.id, w.now, who("pending").NodeID()))
	root.wantMembers("root", "pending", "friend")
}

// Who loses a right has not given it to others any more (spec/21-roster.md#rights).
func TestRightsShrinkWithTheGivers(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("anna", "bob", "carol")
	anna, bob := nodes[0], nodes[1]
	root.makeAdmin("anna", subRights)
	root.makeAdmin("bob", wire.RightInvite|wire.RightDelegate)
	w.sync(root, anna, bob)
	anna.makeAdmin("bob", wire.RightRevoke)
	w.sync(root, anna, bob)
	bob.makeAdmin("carol", wire.RightInvite|wire.RightRevoke)
	w.sync(root, anna, bob)
	root.wantRights("carol", wire.RightInvite|wire.RightRevoke)

	root.revoke("anna", Removal{Scope: wire.ScopeAdmin, Compromised: true})
	root.wantRights("bob", wire.RightInvite|wire.RightDelegate)
	root.wantRights("carol", wire.RightInvite)
}

// Two who give rights to each other do not rise by it, nor protect themselves (spec/21-roster.md#rank).
func TestGrantsInACircle(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", subRights)
	w.sync(root, bob, carol)
	bob.makeAdmin("carol", subRights)
	w.sync(root, bob, carol)
	carol.take(carol.sealed(wire.KindAdmin, &wire.Admin{Subject: bob.id.Public(), Rights: subRights, Time: start.Unix() + 1}))
	w.sync(root, bob, carol)

	bob.revoke("carol", Removal{})
	w.sync(root, bob, carol)
	bob.wantMembers("root", "bob")
	root.revoke("bob", Removal{})
	root.wantMembers("root")
}

// A stolen key, put out by two admins of different rank, is judged by the higher one, whatever the lower adopted or the thief
// adopts itself (spec/21-roster.md#adopt).
func TestHighestRevokerDecides(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", someRights)
	root.makeAdmin("carol", someRights)
	w.sync(root, bob, carol)
	sybil := carol.must(carol.IssueMember(carol.id, w.now, NewMember{Key: who("sybil").Public(), Name: "sybil"}))
	w.sync(root, bob, carol)

	bob.revoke("carol", Removal{})
	bob.wantMembers("root", "bob", "sybil")
	carol.revoke("carol", Removal{})
	root.revoke("carol", Removal{Compromised: true})
	w.sync(root, bob, carol)
	root.wantMembers("root", "bob")
	carol.take(carol.sealed(wire.KindAdopt, &wire.Adopt{Subject: carol.id.NodeID(), Keep: []wire.RecordPrefix{sybil.ID.Prefix()}, Time: w.now.Unix()}))
	w.sync(root, bob, carol)
	root.wantMembers("root", "bob")
}

// A rejection by an admin that was put out itself counts only if it was kept (spec/21-roster.md#adopt).
func TestRejectionByARemovedAdmin(t *testing.T) {
	for _, compromised := range []bool{false, true} {
		w, root := newWorld(t)
		nodes := root.welcomes("bob", "carol", "victim")
		bob, carol := nodes[0], nodes[1]
		root.makeAdmin("bob", someRights)
		w.later(time.Second)
		root.makeAdmin("carol", someRights)
		w.sync(root, bob, carol)
		carol.revoke("victim", Removal{})
		w.sync(root, bob, carol)
		bob.revoke("carol", Removal{Compromised: true})
		w.sync(root, bob, carol)
		root.wantMembers("root", "bob", "victim")

		root.revoke("bob", Removal{Scope: wire.ScopeAdmin, Compromised: compromised})
		if compromised { // bob's removal of carol is rejected, so carol's removal of the victim is in force again
			root.wantMembers("root", "bob", "carol")
		} else {
			root.wantMembers("root", "bob", "victim")
		}
	}
}

// Nor can a lower one undo a removal upwards (spec/21-roster.md#adopt).
func TestLowerAdminCannotRejectUpwardRemoval(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "dave")
	bob, carol, dave := nodes[0], nodes[1], nodes[2]
	for _, name := range []string{"bob", "carol", "dave"} {
		root.makeAdmin(name, someRights)
	}
	w.sync(root, bob, carol, dave)
	carol.revoke("bob", Removal{})
	root.AddAll(carol.Records())
	root.revoke("carol", Removal{})
	w.sync(root, carol, dave)
	root.wantMembers("root", "dave")

	var reject []wire.RecordPrefix
	for _, e := range dave.kinds[wire.KindRevocation] {
		if e.signerID == carol.id.NodeID() {
			reject = append(reject, e.rec.ID.Prefix())
		}
	}
	dave.take(dave.sealed(wire.KindAdopt, &wire.Adopt{Subject: carol.id.NodeID(), Reject: reject, Time: w.now.Unix()}))
	dave.wantMembers("root", "dave")
	root.take(root.sealed(wire.KindAdopt, &wire.Adopt{Subject: carol.id.NodeID(), Reject: reject, Time: w.now.Unix()}))
	root.wantMembers("root", "bob", "dave")
}
