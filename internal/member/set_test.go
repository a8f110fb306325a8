package member

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// chainOfTrust is a network in which every record needs the one before it.
func chainOfTrust(t testing.TB) (*world, *node, []wire.Record) {
	w, root := newWorld(t)
	recs := slices.Clone(w.genesis)
	by := root
	for i := range 5 {
		name := fmt.Sprint("admin", i)
		n := w.node(name)
		w.later(time.Second)
		recs = append(recs, by.must(by.IssueMember(by.id, w.now, NewMember{Key: n.id.Public(), Name: name})))
		recs = append(recs, by.must(by.GrantAdmin(by.id, w.now, n.id.NodeID(), subRights)))
		n.take(recs...)
		by = n
	}
	recs = append(recs, by.must(by.NodeInfo(by.id, w.now, wire.NodeInfo{WG: wgOf("last")})))
	root.AddAll(rawOf(recs))
	return w, root, recs
}

func rawOf(recs []wire.Record) (out [][]byte) {
	for _, r := range recs {
		out = append(out, r.Raw)
	}
	return out
}

// Records that come before their signers wait, and all come out, in order, when the first one does
// (spec/20-records.md#acceptance).
func TestRecordsBeforeTheirSigners(t *testing.T) {
	w, root, recs := chainOfTrust(t)
	late := w.node("late")
	for _, r := range slices.Backward(recs[1:]) {
		_, err := late.Add(r.Raw)
		wantErr(t, err, ErrPenned)
		_, err = late.Add(r.Raw)
		wantErr(t, err, ErrPenned)
	}
	if late.Len() != 0 {
		t.Fatalf("%d records without the genesis", late.Len())
	}
	res, err := late.Add(recs[0].Raw)
	if err != nil || len(res.Accepted) != len(recs) {
		t.Fatalf("%d accepted, want %d; %v", len(res.Accepted), len(recs), err)
	}
	again := w.node("again")
	again.take(res.Accepted...) // they are in an order in which each is accepted at once
	w.sync(root, late, again)
}

// spec/20-records.md#limits
func TestPenForgetsTheOldest(t *testing.T) {
	w, root := newWorld(t)
	stranger := who("stranger")
	var first wire.Record
	for i := range maxPen + 1 {
		r, err := wire.SealRecord(w.network, wire.KindInvite, &wire.Invite{Key: who(fmt.Sprint(i)).Public(), Uses: 1, Time: 1, NotAfter: 2}, stranger)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = r
		}
		_, err = root.Add(r.Raw)
		wantErr(t, err, ErrPenned)
	}
	if len(root.pen) != maxPen || len(root.penned) != maxPen {
		t.Fatalf("pen of %d and %d", len(root.pen), len(root.penned))
	}
	root.must(root.IssueMember(root.id, w.now, NewMember{Key: stranger.Public(), Name: "stranger"}))
	grant, err := root.GrantAdmin(root.id, w.now, stranger.NodeID(), wire.RightInvite)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := root.Add(grant.Raw); err != nil || len(res.Accepted) != 1+maxPen || root.Has(first.ID) {
		t.Errorf("%d accepted, the first one too: %t; %v", len(res.Accepted), root.Has(first.ID), err)
	}
	root.take(first) // it comes again, by gossip
}

// More records than the pen holds, in the worst order, are no trouble when they come at once (spec/20-records.md#limits).
func TestAddAllInAnyOrder(t *testing.T) {
	w, root := newWorld(t)
	var recs [][]byte
	for i := range 2 * maxPen {
		r, err := wire.SealRecord(w.network, wire.KindMember, &wire.Member{Key: who(fmt.Sprint(i)).Public(), Name: fmt.Sprint("n", i), Time: 1}, root.id)
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, r.Raw)
	}
	recs = append(recs, w.genesis[1].Raw, w.genesis[0].Raw, []byte("no record"))
	s := NewSet(w.network)
	res, rejected := s.AddAll(recs)
	if rejected != 1 || len(res.Accepted) != len(recs)-1 || len(s.Roster().Members) != 2*maxPen+1 {
		t.Errorf("%d rejected, %d accepted, %d members", rejected, len(res.Accepted), len(s.Roster().Members))
	}
}

// A record of a kind that this version does not know is kept, passed on and without effect (spec/20-records.md#kinds).
func TestUnknownKind(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	r, err := wire.SealRecord(w.network, 999, []byte("from the future"), bob.id)
	if err != nil {
		t.Fatal(err)
	}
	before := root.Roster()
	root.take(r)
	if !root.Has(r.ID) || !slices.ContainsFunc(root.Records(), func(raw []byte) bool { return string(raw) == string(r.Raw) }) {
		t.Error("it is not passed on")
	}
	if len(root.Roster().Members) != len(before.Members) {
		t.Error("it has an effect")
	}
	foreign, err := wire.SealRecord(w.network, 999, []byte("from a stranger"), who("stranger"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.Add(foreign.Raw)
	wantErr(t, err, ErrPenned)
}

// spec/20-records.md#node-info
func TestNewestNodeInfoCounts(t *testing.T) {
	w, root := newWorld(t)
	info := func(seq uint64, version string) wire.Record {
		r, err := wire.SealRecord(w.network, wire.KindNodeInfo, &wire.NodeInfo{Seq: seq, WG: wgOf("root"), Version: version, Time: 1}, root.id)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	two, three := info(2, "b"), info(3, "c")
	root.take(two)
	res, err := root.Add(three.Raw)
	if err != nil || len(res.Superseded) != 1 || res.Superseded[0] != two.ID || root.Has(two.ID) {
		t.Errorf("result %+v, %v", res.Superseded, err)
	}
	_, err = root.Add(two.Raw)
	wantErr(t, err, ErrSuperseded)
	_, err = root.Add(three.Raw)
	wantErr(t, err, ErrKnown)
	if m, _ := root.Roster().ByName("root"); m.Info.Version != "c" {
		t.Errorf("version %s", m.Info.Version)
	}
	// Of two with one number, the lower id counts.
	x, y := info(4, "x"), info(4, "y")
	if slices.Compare(x.ID[:], y.ID[:]) > 0 {
		x, y = y, x
	}
	root.take(y, x)
	_, err = root.Add(y.Raw)
	wantErr(t, err, ErrSuperseded)
	// What a node makes itself comes after that, whatever its clock says.
	rec := root.must(root.NodeInfo(root.id, time.Unix(2, 0), wire.NodeInfo{WG: wgOf("root")}))
	if m, _ := root.Roster().ByName("root"); m.Info.Seq != 5 || !root.Has(rec.ID) {
		t.Errorf("seq %d", m.Info.Seq)
	}
}

// spec/20-records.md#acceptance
func TestNotAccepted(t *testing.T) {
	w, root := newWorld(t)
	bob, carol := root.welcomes("bob", "carol")[0], who("carol")
	seed := root.invite("code", InviteTerms{Groups: []string{"guests"}})
	inv, _ := root.Roster().CheckInvite(w.now, seed.JoinKey().Locator())
	prefix, witness := inv.ID.Prefix(), bob.id.Public()
	joined := func(change func(*wire.Member)) *wire.Member {
		m := &wire.Member{Key: who("new").Public(), Name: "new", Addr4: [4]byte{100, 64, 1, 1}, Time: w.now.Unix(), Groups: []string{"guests"}, Invite: &prefix, Witness: &witness}
		change(m)
		return m
	}
	now := w.now.Unix()
	otherPrefix := wire.RecordPrefix{1}
	cases := []struct {
		name    string
		network key.NetworkID
		kind    wire.Kind
		body    any
		signers []key.Identity
		want    error
	}{
		{"another network", key.NetworkID{9}, wire.KindInvite, &wire.Invite{Uses: 1, Time: now, NotAfter: now}, []key.Identity{root.id}, ErrInvalid},
		{"genesis of another network", w.network, wire.KindGenesis, &wire.Genesis{Name: "x", Roots: []key.Public{bob.id.Public()}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1}, []key.Identity{bob.id}, ErrInvalid},
		{"two signers", w.network, wire.KindInvite, &wire.Invite{Uses: 1, Time: now, NotAfter: now}, []key.Identity{root.id, bob.id}, ErrInvalid},
		{"member without the right", w.network, wire.KindInvite, &wire.Invite{Uses: 1, Time: now, NotAfter: now}, []key.Identity{bob.id}, ErrPenned},
		{"node info of a stranger", w.network, wire.KindNodeInfo, &wire.NodeInfo{WG: wgOf("x"), Time: now}, []key.Identity{carol, bob.id}, ErrInvalid},
		{"revocation by a plain member", w.network, wire.KindRevocation, &wire.Revocation{Subject: carol.NodeID(), Scope: wire.ScopeAll, Time: now}, []key.Identity{bob.id}, ErrPenned},
		{"adopt by a plain member", w.network, wire.KindAdopt, &wire.Adopt{Subject: carol.NodeID(), Time: now}, []key.Identity{bob.id}, ErrPenned},
		{"policy by a plain member", w.network, wire.KindPolicy, &wire.Policy{Setting: wire.SettingBroadcast, Time: now}, []key.Identity{bob.id}, ErrPenned},
		{"policy with an unknown value", w.network, wire.KindPolicy, &wire.Policy{Setting: wire.SettingBroadcast, Value: 7, Time: now}, []key.Identity{root.id}, ErrInvalid},
		{"join without invite key", w.network, wire.KindMember, joined(func(*wire.Member) {}), []key.Identity{who("new"), carol, bob.id}, ErrPenned},
		{"join without witness", w.network, wire.KindMember, joined(func(*wire.Member) {}), []key.Identity{seed.Identity(), who("new"), carol}, ErrInvalid},
		{"join with two signatures", w.network, wire.KindMember, joined(func(*wire.Member) {}), []key.Identity{seed.Identity(), who("new")}, ErrInvalid},
		{"join by another invite", w.network, wire.KindMember, joined(func(m *wire.Member) { m.Invite = &otherPrefix }), []key.Identity{seed.Identity(), who("new"), bob.id}, ErrPenned},
		{"join with other groups", w.network, wire.KindMember, joined(func(m *wire.Member) { m.Groups = []string{"admins"} }), []key.Identity{seed.Identity(), who("new"), bob.id}, ErrInvalid},
		{"join before the invite", w.network, wire.KindMember, joined(func(m *wire.Member) { m.Time = start.Unix() }), []key.Identity{seed.Identity(), who("new"), bob.id}, ErrInvalid},
		{"good join", w.network, wire.KindMember, joined(func(*wire.Member) {}), []key.Identity{seed.Identity(), who("new"), bob.id}, nil},
		{"the same, unwitnessed", w.network, wire.KindMember, joined(func(*wire.Member) {}), []key.Identity{seed.Identity(), who("new")}, ErrKnown},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, err := wire.SealRecord(c.network, c.kind, c.body, c.signers...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := root.Add(r.Raw); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
	// A signature changed on the way.
	r, err := root.NewInvite(root.id, w.now, seedOf("x"), InviteTerms{Uses: 1, NotAfter: w.now})
	if err != nil {
		t.Fatal(err)
	}
	r.Raw[len(r.Raw)-1] ^= 1
	_, err = root.Add(r.Raw)
	wantErr(t, err, ErrInvalid)
}

// Somebody signs what another has said: that is another record and takes nobody's place (spec/20-records.md#record-id).
func TestCopiedPayload(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	mine := root.must(root.NodeInfo(root.id, w.now, wire.NodeInfo{WG: wgOf("root")}))
	copied, err := wire.SealRecord(w.network, wire.KindNodeInfo, mine.Payload, bob.id)
	if err != nil {
		t.Fatal(err)
	}
	if copied.ID == mine.ID {
		t.Fatal("one id for two signers")
	}
	fresh := w.node("fresh")
	fresh.AddAll(append([][]byte{copied.Raw}, root.Records()...))
	if m, _ := fresh.Roster().ByName("root"); m.WG != wgOf("root") {
		t.Error("the copy took the place of the original")
	}
}

// One member cannot fill the set, and admins can always act (spec/20-records.md#limits).
func TestLimits(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	fill := func(signer key.Identity, kind wire.Kind, body any) error {
		r, err := wire.SealRecord(w.network, kind, body, signer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = root.Add(r.Raw)
		return err
	}
	for i := range maxUnknown {
		if err := fill(bob.id, 999, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, fill(bob.id, 999, []byte("one more")), ErrFull)
	if err := fill(root.id, 999, []byte("of another")); err != nil {
		t.Error(err)
	}

	root.shares[root.id.Public()].all = maxPerSigner
	wantErr(t, fill(root.id, wire.KindMember, &wire.Member{Key: who("x").Public(), Name: "x", Time: 1}), ErrFull)
	root.shares[root.id.Public()].all = 0
	root.order = append(root.order, make([]*entry, maxRecords-maxReserved)...)
	wantErr(t, fill(root.id, wire.KindMember, &wire.Member{Key: who("x").Public(), Name: "x", Time: 1}), ErrFull)
	wantErr(t, fill(bob.id, wire.KindRevocation, &wire.Revocation{Subject: bob.id.NodeID(), Scope: wire.ScopeAll, Time: 1}), ErrFull)
	if err := fill(root.id, wire.KindRevocation, &wire.Revocation{Subject: bob.id.NodeID(), Scope: wire.ScopeAll, Time: 1}); err != nil {
		t.Errorf("an admin's revocation: %v", err)
	}
}

// The records of a set are the caller's to keep; the set does not look at them again.
func TestAddCopies(t *testing.T) {
	w, _ := newWorld(t)
	raw := slices.Clone(w.genesis[0].Raw)
	s := NewSet(w.network)
	if _, err := s.Add(raw); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if string(s.Records()[0]) != string(w.genesis[0].Raw) {
		t.Error("the set changed with the caller's buffer")
	}
}

func FuzzAdd(f *testing.F) {
	w, root, recs := chainOfTrust(f)
	for _, r := range recs {
		f.Add(r.Raw)
	}
	s := NewSet(w.network)
	s.AddAll(root.Records())
	n := s.Len()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := s.Add(raw); err == nil {
			t.Fatal("a record that nobody signed is accepted")
		}
		if s.Len() != n {
			t.Fatal("the set grew")
		}
	})
}
