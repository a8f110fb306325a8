package member

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	someRights = wire.RightInvite | wire.RightIssue | wire.RightRevoke
	subRights  = someRights | wire.RightDelegate
)

func TestFounderIsMemberAndRoot(t *testing.T) {
	_, root := newWorld(t)
	r := root.Roster()
	m, ok := r.ByName("root")
	if r.Name != "home" || !ok || !m.Root || m.Rights != wire.AllRights {
		t.Fatalf("network %q, founder %+v", r.Name, m)
	}
	if !r.Pool.Contains(m.Addr4) || !r.Prefix6.Contains(m.Addr6) || r.Prefix6.Bits() != 48 {
		t.Errorf("addresses %v, %v", m.Addr4, m.Addr6)
	}
}

// A member that is no admin lets a newcomer in while every admin is away (spec/21-roster.md#join).
func TestAnyMemberWitnesses(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	code := root.invite("for carol", InviteTerms{Groups: []string{"games", "family"}})
	w.sync(root, bob)

	carol := bob.join("carol", code)
	carol.wantMembers("root", "bob", "carol")
	m, _ := carol.Roster().ByName("carol")
	if m.Via.Witness != bob.id.NodeID() || m.Via.Admin != root.id.NodeID() {
		t.Errorf("via %+v", m.Via)
	}
	if len(m.Groups) != 2 || m.Groups[0] != "family" {
		t.Errorf("groups %v", m.Groups)
	}
	w.sync(root, bob, carol)
}

// A revoked key cannot come back by an invite made elsewhere at the same time: its owner needs a new key
// (spec/21-roster.md#revocation).
func TestRevokedAndReinvitedConcurrently(t *testing.T) {
	w, root := newWorld(t)
	bob, mallory := root.welcomes("bob", "mallory")[0], who("mallory")
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)

	root.revoke("mallory", Removal{Reason: "stolen"})
	// Bob has not heard of it: mallory joins with the same key by a new code.
	code := bob.invite("again", InviteTerms{})
	inv, _ := bob.Roster().CheckInvite(w.now, code.JoinKey().Locator())
	draft, status := bob.Draft(w.now, bob.id.Public(), inv.ID.Prefix(), mallory.Public(), "mallory")
	if status != wire.JoinOK {
		t.Fatal(status)
	}
	rec, err := Finish(w.network, draft, signDraft(w.network, draft, code, mallory), bob.id)
	bob.must(rec, err)

	w.sync(root, bob)
	bob.wantMembers("root", "bob")
	if st := bob.Roster().Standing(mallory.NodeID()); st != wire.JoinRevoked {
		t.Errorf("standing %v", st)
	}
	// With a new key she can.
	w.later(time.Second)
	bob.join("mallory2", bob.invite("new key", InviteTerms{})).wantMembers("root", "bob", "mallory2")
}

// A revoked member that kept a code cannot use its own old key as the witness of a new one (spec/21-roster.md#adopt).
func TestRevokedWitnessVouchesForNobody(t *testing.T) {
	w, root := newWorld(t)
	mallory := root.welcomes("mallory")[0]
	code := root.invite("many", InviteTerms{Uses: 10})
	w.sync(root, mallory)
	mallory.join("friend", code)
	w.sync(root, mallory)

	root.revoke("mallory", Removal{})
	root.wantMembers("root", "friend")
	if _, status := mallory.tryJoin("mallory2", code); status != wire.JoinOK {
		t.Fatal(status) // on her own node it works
	}
	root.AddAll(mallory.Records())
	root.wantMembers("root", "friend")
}

// One single-use code used twice in a partition: the earlier witness time wins, on all nodes (spec/21-roster.md#join).
func TestSingleUseCodeUsedTwiceInPartition(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	code := root.invite("single", InviteTerms{})
	w.sync(root, bob, carol)

	w.later(time.Minute)
	late := bob.join("late", code)
	w.later(-30 * time.Second)
	early := carol.join("early", code)
	late.wantMembers("root", "bob", "carol", "late")
	early.wantMembers("root", "bob", "carol", "early")

	w.sync(root, bob, carol, late, early)
	late.wantMembers("root", "bob", "carol", "early")
	if st := late.Roster().Standing(late.id.NodeID()); st != wire.JoinUsed {
		t.Errorf("standing of the later one: %v", st)
	}
	w.later(time.Hour)
	if _, status := root.Roster().CheckInvite(w.now, code.JoinKey().Locator()); status != wire.JoinUsed {
		t.Errorf("the code is %v", status)
	}
}

// A newcomer whose answer was lost asks again, elsewhere or at the same member: it takes one use and one record counts
// (spec/21-roster.md#join).
func TestJoinRepeated(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	code := root.invite("two", InviteTerms{Uses: 2})
	w.sync(root, bob)
	root.join("carol", code)
	w.later(time.Second)
	bob.join("carol", code)
	w.sync(root, bob)
	bob.wantMembers("root", "bob", "carol")
	inv, _ := bob.Roster().CheckInvite(w.now, code.JoinKey().Locator())
	if inv.Left != 1 {
		t.Errorf("%d uses left, want 1", inv.Left)
	}
	payload, status := bob.Draft(w.now, bob.id.Public(), inv.ID.Prefix(), who("carol").Public(), "carol")
	m, _ := bob.Roster().ByName("carol")
	if status != wire.JoinKnown || string(bob.byID[m.Record].rec.Payload) != string(payload) {
		t.Errorf("status %v, or another record than the one that counts", status)
	}
}

// spec/21-roster.md#join
func TestExpiredInvite(t *testing.T) {
	w, root := newWorld(t)
	code := root.invite("short", InviteTerms{NotAfter: w.now.Add(time.Hour)})
	w.later(time.Hour + time.Second)
	if _, status := root.tryJoin("bob", code); status != wire.JoinExpired {
		t.Errorf("status %v", status)
	}
	inv, _ := root.Roster().CheckInvite(w.now, code.JoinKey().Locator())
	if _, status := root.Draft(w.now, root.id.Public(), inv.ID.Prefix(), who("bob").Public(), "bob"); status != wire.JoinExpired {
		t.Errorf("draft: status %v", status)
	}
	// A witness that does not care is not believed.
	prefix, witness := inv.ID.Prefix(), root.id.Public()
	rec, err := wire.SealRecord(w.network, wire.KindMember, &wire.Member{Key: who("bob").Public(), Name: "bob", Addr4: [4]byte{100, 64, 0, 9},
		Time: w.now.Unix(), Invite: &prefix, Witness: &witness}, code.Identity(), who("bob"), root.id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.Add(rec.Raw)
	wantErr(t, err, ErrInvalid)
}

// An invite dies with its issuer's rights; who joined before stays (spec/21-roster.md#adopt).
func TestInviteOutlivesItsIssuer(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	code := bob.invite("many", InviteTerms{Uses: 5})
	bob.join("carol", code)
	w.sync(root, bob)

	root.revoke("bob", Removal{})
	root.wantMembers("root", "carol")
	if _, status := root.Roster().CheckInvite(w.now, code.JoinKey().Locator()); status != wire.JoinRevoked {
		t.Errorf("the code is %v", status)
	}
	// Dave joined at the same time where the news had not come: he has to be invited again.
	bob.join("dave", code)
	w.sync(root, bob)
	root.wantMembers("root", "carol")
}

// Two nodes claim one name: the earlier admission keeps it, and a granted name comes before a chosen one
// (spec/21-roster.md#names).
func TestTwoNodesClaimOneName(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	one, two := root.invite("one", InviteTerms{}), root.invite("two", InviteTerms{})
	w.sync(root, bob, carol)

	joinAs := func(n *node, name, person string, seed key.InviteSeed) {
		inv, _ := n.Roster().CheckInvite(w.now, seed.JoinKey().Locator())
		draft, _ := n.Draft(w.now, n.id.Public(), inv.ID.Prefix(), who(person).Public(), name)
		rec, err := Finish(w.network, draft, signDraft(w.network, draft, seed, who(person)), n.id)
		n.must(rec, err)
	}
	w.later(time.Second)
	joinAs(bob, "laptop", "dave", one)
	w.later(time.Second)
	joinAs(carol, "laptop", "erin", two)
	w.sync(root, bob, carol)
	erin, _ := root.Roster().ByID(who("erin").NodeID())
	if want := "laptop-" + who("erin").NodeID().String()[:4]; erin.Name != want {
		t.Errorf("the later one is named %s, want %s", erin.Name, want)
	}
	if m, _ := root.Roster().ByName("laptop"); m.ID != who("dave").NodeID() {
		t.Errorf("laptop is %v", m.ID)
	}

	// In one view, the second gets a number.
	w.later(time.Second)
	joinAs(root, "laptop", "frank", root.invite("three", InviteTerms{}))
	if m, ok := root.Roster().ByName("laptop-2"); !ok || m.ID != who("frank").NodeID() {
		t.Errorf("members are %v", root.names())
	}

	// Bob, there before all of them, calls himself laptop: no use.
	bob.AddAll(root.Records())
	_, err := bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob"), Name: "laptop"})
	wantErr(t, err, ErrNameTaken)
	rec, err := wire.SealRecord(w.network, wire.KindNodeInfo, &wire.NodeInfo{Seq: 1, WG: wgOf("bob"), Name: "laptop", Time: w.now.Unix()}, bob.id)
	root.must(rec, err)
	if m, _ := root.Roster().ByName("laptop"); m.ID != who("dave").NodeID() {
		t.Errorf("laptop is %v", m.ID)
	}
}

// spec/21-roster.md#names
func TestRename(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	bob.must(bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob"), Name: "desk"}))
	bob.wantMembers("desk", "root")
	bob.must(bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob"), Name: "attic"}))
	bob.wantMembers("attic", "root")
	bob.must(bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob")}))
	bob.wantMembers("bob", "root")
}

// Two nodes claim one IPv4 address: the earlier admission keeps it, the later gets the next free candidate, the same
// everywhere (spec/21-roster.md#addresses).
func TestTwoNodesClaimOneAddress(t *testing.T) {
	w, root := newWorldIn(t, "10.9.0.0/29")
	issue := func(name string, last byte, at int64) wire.Record {
		rec, err := wire.SealRecord(w.network, wire.KindMember, &wire.Member{Key: who(name).Public(), Name: name, Addr4: [4]byte{10, 9, 0, last}, Time: start.Unix() + at}, root.id)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	rootAddr, _ := root.Roster().ByName("root")
	last := byte(1)
	if rootAddr.Addr4.As4()[3] == 1 {
		last = 2
	}
	root.take(issue("later", last, 20), issue("earlier", last, 10), issue("broadcast", 7, 30), issue("network", 0, 40))
	r := root.Roster()
	earlier, _ := r.ByName("earlier")
	if earlier.Addr4.As4()[3] != last {
		t.Errorf("the earlier one has %v", earlier.Addr4)
	}
	seen := map[string]bool{}
	for _, m := range r.Members {
		if seen[m.Addr4.String()] || !r.Pool.Contains(m.Addr4) || m.Addr4.As4()[3] == 0 || m.Addr4.As4()[3] == 7 {
			t.Errorf("%s has %v", m.Name, m.Addr4)
		}
		seen[m.Addr4.String()] = true
	}

	// The pool has six addresses: one more goes in, the next does not.
	_, err := root.IssueMember(root.id, w.now, NewMember{Key: who("sixth").Public(), Name: "sixth"})
	if err != nil {
		t.Fatal(err)
	}
	root.take(issue("sixth", 1, 50), issue("seventh", 1, 60))
	if m, _ := root.Roster().ByName("seventh"); m.Addr4.IsValid() || !m.Addr6.IsValid() {
		t.Errorf("the seventh has %v and %v", m.Addr4, m.Addr6)
	}
	_, err = root.IssueMember(root.id, w.now, NewMember{Key: who("eighth").Public(), Name: "eighth"})
	wantErr(t, err, ErrPoolFull)
	code := root.invite("full", InviteTerms{})
	if _, status := root.tryJoin("eighth", code); status != wire.JoinFull {
		t.Errorf("join status %v", status)
	}
}

// An admin that is removed keeps nothing, but what it granted stays as far as it was known (spec/21-roster.md#adopt).
func TestRemovedAdminsMembersStay(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", subRights)
	w.sync(root, bob)
	carol := bob.welcomes("carol")[0]
	bob.makeAdmin("carol", wire.RightInvite)
	w.sync(root, bob, carol)

	root.revoke("bob", Removal{Scope: wire.ScopeAdmin})
	root.wantMembers("root", "bob", "carol")
	root.wantRights("bob", 0)
	root.wantRights("carol", wire.RightInvite)

	// What bob signs from now on, or says he signed before, has no effect.
	w.later(-time.Hour)
	bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who("eve").Public(), Name: "eve"}))
	w.sync(root, bob, carol)
	root.wantMembers("root", "bob", "carol")
	_, err := bob.IssueMember(bob.id, w.now, NewMember{Key: who("fred").Public(), Name: "fred"})
	wantErr(t, err, ErrNoRight)
	_, err = root.GrantAdmin(root.id, w.now, bob.id.NodeID(), wire.RightInvite)
	wantErr(t, err, ErrRevoked)
}

// The revocation of an admin says how many Adopt records belong to it: until they are there, nobody falls
// (spec/21-roster.md#adopt).
func TestRevocationArrivesBeforeItsAdopts(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	carol := bob.welcomes("carol")[0]
	w.sync(root, bob, carol)

	recs, err := root.Revoke(root.id, w.now, Removal{Subject: bob.id.NodeID()})
	if err != nil || len(recs) != 2 {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	carol.take(recs[1])
	carol.wantMembers("root", "carol")
	carol.take(recs[0])
	carol.wantMembers("root", "carol")
}

// An admin's key is stolen: nothing it granted stays, and those that it put out come back (spec/21-roster.md#adopt).
func TestCompromisedAdmin(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "victim")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", subRights)
	w.sync(root, bob, carol)

	bob.revoke("victim", Removal{})
	bob.welcomes("sybil1")
	bob.makeAdmin("sybil1", someRights)
	sybil := w.node("sybil1")
	sybil.AddAll(bob.Records())
	sybil.welcomes("sybil2")
	sybil.revoke("carol", Removal{})
	w.sync(root, bob, sybil)
	root.wantMembers("root", "bob", "sybil1", "sybil2")

	root.revoke("bob", Removal{Compromised: true})
	root.wantMembers("root", "carol", "victim")
	w.sync(root, bob, carol, sybil)
	carol.wantMembers("root", "carol", "victim")
}

// Without that, what a removed admin has put out stays out (spec/21-roster.md#revocation).
func TestRemovedAdminsRevocationsStay(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob", "victim")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	bob.revoke("victim", Removal{})
	w.sync(root, bob)
	root.revoke("bob", Removal{})
	root.wantMembers("root")
}

// Two admins remove each other at the same time: the higher in rank stays (spec/21-roster.md#mutual).
func TestMutualRemoval(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", someRights)
	root.makeAdmin("carol", someRights)
	w.sync(root, bob, carol)

	carol.revoke("bob", Removal{})
	carol.wantMembers("root", "carol")
	bob.revoke("carol", Removal{})
	bob.wantMembers("root", "bob")
	w.sync(root, bob, carol)
	carol.wantMembers("root", "bob")
	carol.wantRights("bob", someRights)
}

// A lower admin can put a lost higher one out; the higher one, if it is still there, can undo that
// (spec/21-roster.md#mutual).
func TestLowerAdminRemovesHigher(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", someRights)
	root.makeAdmin("carol", someRights)
	w.sync(root, bob, carol)
	bob.welcomes("dave")
	w.sync(root, bob, carol)

	carol.revoke("bob", Removal{})
	w.sync(root, bob, carol)
	bob.wantMembers("root", "carol", "dave")
	bob.revoke("carol", Removal{})
	bob.wantMembers("root", "bob", "dave")
	w.sync(root, bob, carol)
}

// Nobody puts out the founder, nor an admin from whom it has its own rights (spec/21-roster.md#revocation).
func TestWhoCannotBeRemoved(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "dave")
	bob, carol, dave := nodes[0], nodes[1], nodes[2]
	root.makeAdmin("bob", subRights)
	w.sync(root, bob)
	bob.makeAdmin("carol", subRights)
	w.sync(root, bob, carol, dave)

	for _, c := range []struct {
		by     *node
		target string
	}{{carol, "bob"}, {carol, "root"}, {bob, "root"}, {dave, "carol"}} {
		_, err := c.by.Revoke(c.by.id, w.now, Removal{Subject: who(c.target).NodeID()})
		wantErr(t, err, ErrNoRight)
		// Nor does a record help that says so nevertheless.
		rec, err := wire.SealRecord(w.network, wire.KindRevocation, &wire.Revocation{Subject: who(c.target).NodeID(), Scope: wire.ScopeAll, Time: w.now.Unix()}, c.by.id)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.by.Add(rec.Raw)
		c.by.wantMembers("root", "bob", "carol", "dave")
	}
	w.sync(root, bob, carol)
	_, err := root.Revoke(root.id, w.now, Removal{Subject: who("stranger").NodeID()})
	wantErr(t, err, ErrUnknownMember)
}

// A delegated admin gives no right that it lacks (spec/21-roster.md#rights).
func TestDelegatedAdminCannotWidenRights(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", wire.RightInvite|wire.RightDelegate)
	w.sync(root, bob, carol)

	_, err := bob.GrantAdmin(bob.id, w.now, carol.id.NodeID(), wire.RightInvite|wire.RightRevoke)
	wantErr(t, err, ErrNoRight)
	rec, err := wire.SealRecord(w.network, wire.KindAdmin, &wire.Admin{Subject: carol.id.Public(), Rights: wire.AllRights, Time: w.now.Unix()}, bob.id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.Add(rec.Raw)
	wantErr(t, err, ErrPenned)
	root.wantRights("carol", 0)

	bob.makeAdmin("carol", wire.RightInvite)
	bob.wantRights("carol", wire.RightInvite)
	_, err = carol.GrantAdmin(carol.id, w.now, bob.id.NodeID(), wire.RightInvite)
	wantErr(t, err, ErrNoRight)
}

// spec/21-roster.md#join
func TestApproveFirst(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	code := root.invite("careful", InviteTerms{Uses: 2, Approve: true, Groups: []string{"guests"}})
	w.sync(root, bob)

	carol := bob.join("carol", code)
	w.sync(root, bob, carol)
	root.wantMembers("root", "bob")
	p, err := root.Roster().FindPending("carol")
	if err != nil || p.Via.Witness != bob.id.NodeID() {
		t.Fatalf("pending %+v, %v", p, err)
	}
	if _, status := carol.Draft(w.now, carol.id.Public(), p.Via.Invite.Prefix(), who("dave").Public(), "dave"); status != wire.JoinDenied {
		t.Errorf("one who waits witnesses: %v", status)
	}
	_, err = bob.Approve(bob.id, w.now, p.ID)
	wantErr(t, err, ErrNoRight)

	w.later(time.Minute)
	root.must(root.Approve(root.id, w.now, p.ID))
	w.sync(root, bob, carol)
	bob.wantMembers("root", "bob", "carol")
	m, _ := bob.Roster().ByName("carol")
	if m.Addr4 != p.Addr4 || len(m.Groups) != 1 || len(bob.Roster().Pending) != 0 {
		t.Errorf("member %+v, pending %v", m, bob.Roster().Pending)
	}
	_, err = root.Approve(root.id, w.now, p.ID)
	wantErr(t, err, ErrUnknownMember)
}

// One who leaves takes nobody with it, and does not come back (spec/21-roster.md#revocation).
func TestLeave(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	code := root.invite("carol", InviteTerms{})
	w.sync(root, bob)
	carol := bob.join("carol", code)
	bob.revoke("bob", Removal{})
	w.sync(root, bob, carol)
	carol.wantMembers("root", "carol")
	if !carol.Roster().IsRevoked(bob.id.NodeID()) {
		t.Error("bob is not known to have left")
	}
}

// The founder goes; what was built stays (spec/21-roster.md#revocation).
func TestFounderLeaves(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", subRights)
	w.sync(root, bob)
	root.revoke("root", Removal{})
	w.sync(root, bob)
	bob.wantMembers("bob")
	bob.wantRights("bob", subRights)
	bob.welcomes("carol")
	bob.wantMembers("bob", "carol")
}

// spec/21-roster.md#devices
func TestDevice(t *testing.T) {
	w, root := newWorld(t)
	root.must(root.NodeInfo(root.id, w.now, wire.NodeInfo{WG: wgOf("root")}))
	d := root.must(root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("phone"), Name: "phone", Gateways: []key.NodeID{root.id.NodeID()}}))
	m, err := root.Roster().Find("phone")
	if err != nil || !m.Device || m.ID != key.DeviceID(wgOf("phone")) || m.Record != d.ID || len(m.Gateways) != 1 {
		t.Fatalf("device %+v, %v", m, err)
	}
	if byKey, _ := root.Roster().ByWG(wgOf("phone")); byKey.ID != m.ID {
		t.Errorf("by key: %+v", byKey)
	}
	_, err = root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("phone"), Name: "phone2", Gateways: m.Gateways})
	wantErr(t, err, ErrAlreadyMember)
	_, err = root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("tablet"), Name: "phone", Gateways: m.Gateways})
	wantErr(t, err, ErrNameTaken)
	_, err = root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("tablet"), Name: "tablet", Gateways: []key.NodeID{m.ID}})
	wantErr(t, err, ErrUnknownMember)

	recs, err := root.Revoke(root.id, w.now, Removal{Subject: m.ID})
	if err != nil {
		t.Fatal(err)
	}
	root.take(recs...)
	root.wantMembers("root")
	_, err = root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("phone"), Name: "phone", Gateways: m.Gateways})
	wantErr(t, err, ErrRevoked)
}

// A member that states another's WireGuard key does not get its packets (spec/21-roster.md#keys).
func TestStolenWireGuardKey(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "mallory")
	bob, mallory := nodes[0], nodes[1]
	bob.must(bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob")}))
	mallory.must(mallory.NodeInfo(mallory.id, w.now, wire.NodeInfo{WG: wgOf("bob")}))
	w.sync(root, bob, mallory)
	if m, _ := root.Roster().ByWG(wgOf("bob")); m.Name != "bob" {
		t.Errorf("the key is that of %s", m.Name)
	}
	if m, _ := root.Roster().ByName("mallory"); !m.WG.IsZero() {
		t.Errorf("mallory has the key %v", m.WG)
	}
}
