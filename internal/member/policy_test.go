package member

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const policyRights = someRights | wire.RightPolicy

// setPolicy states a setting in words.
func (n *node) setPolicy(name, value string) wire.Record {
	n.w.t.Helper()
	p, err := PolicyWords(name, value)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.later(time.Second)
	return n.must(n.SetPolicy(n.id, n.w.now, p))
}

// wantPolicy compares what n sees with "broadcast, relays" in words.
func (n *node) wantPolicy(broadcast, relays string) {
	n.w.t.Helper()
	if got := n.Roster().Policy.Lines(); got[0].Value != broadcast || got[1].Value != relays {
		n.w.t.Errorf("%s sees the policy %+v, want %s, %s", n.name, got, broadcast, relays)
	}
}

// A network begins with broadcast and with every member as a relay (spec/21-roster.md#policy).
func TestPolicyOfANewNetwork(t *testing.T) {
	_, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	bob.wantPolicy("on", "all")
	if p := NewSet(key.NetworkID{1}).Roster().Policy; !reflect.DeepEqual(p, defaultPolicy()) {
		t.Errorf("without a genesis: %+v", p)
	}
	if l := bob.Roster().Policy.Lines(); l[0].By != (key.NodeID{}) || !l[0].Since.IsZero() {
		t.Errorf("somebody stated %+v", l[0])
	}
	p, _ := PolicyWords("broadcast", "on")
	_, err := root.SetPolicy(root.id, start, p)
	wantErr(t, err, ErrUnchanged)
}

// Two admins who change two settings at the same time do not undo each other; of two who change one, the later counts on
// all nodes (spec/21-roster.md#policy).
func TestPolicyOfTwoAdmins(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)

	root.setPolicy("broadcast", "off")
	bob.setPolicy("relays", "none")
	w.sync(root, bob)
	bob.wantPolicy("off", "none")
	if l := root.Roster().Policy.Lines(); l[0].By != root.id.NodeID() || l[1].By != bob.id.NodeID() || !l[1].Since.Equal(w.now) {
		t.Errorf("%+v", l)
	}

	root.setPolicy("relays", "all")
	bob.setPolicy("broadcast", "on")
	root.setPolicy("broadcast", "on")
	w.sync(root, bob)
	root.wantPolicy("on", "all")
	if by := bob.Roster().Policy.Lines()[0].By; by != root.id.NodeID() {
		t.Error("the earlier of two equal ones counts")
	}
}

// Of equal statements the last in the order of records counts, in whatever order they come (spec/21-roster.md#policy).
func TestPolicyTies(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	state := func(by *node, seq uint64, value uint64, later time.Duration) wire.Record {
		return by.sealed(wire.KindPolicy, &wire.Policy{Seq: seq, Setting: wire.SettingRelays, Value: value, Time: w.now.Add(later).Unix()})
	}
	base := root.Records()
	for _, tt := range []struct {
		name         string
		first, other wire.Record
		want         uint64
	}{
		{"one signer, later time", state(bob, 2, wire.PolicyAll, 0), state(bob, 2, wire.PolicyNone, time.Second), wire.PolicyNone},
		{"two signers, later time", state(bob, 2, wire.PolicyNone, time.Second), state(root, 2, wire.PolicyAll, 0), wire.PolicyNone},
		{"higher seq, earlier time", state(bob, 3, wire.PolicyNone, 0), state(root, 2, wire.PolicyAll, time.Hour), wire.PolicyNone},
	} {
		for _, order := range [][]wire.Record{{tt.first, tt.other}, {tt.other, tt.first}} {
			n := w.node("fresh")
			n.AddAll(base)
			n.take(order...)
			if got := n.Roster().Policy; got.Relays != tt.want {
				t.Errorf("%s: %+v", tt.name, got)
			}
		}
	}
	x, y := state(bob, 2, wire.PolicyAll, 0), state(bob, 2, wire.PolicyNone, 0)
	if slices.Compare(x.ID[:], y.ID[:]) > 0 {
		x, y = y, x
	}
	for _, order := range [][]wire.Record{{x, y}, {y, x}} {
		n := w.node("fresh")
		n.AddAll(base)
		n.take(order...)
		if n.Roster().Policy.Stated[0].Record != y.ID {
			t.Error("same seq and time: the lower id counts")
		}
	}
}

// Who has seen a statement can replace it, even if the clock of the one who made it was fast (spec/21-roster.md#policy).
func TestPolicyAfterAFastClock(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	w.later(1000 * time.Hour)
	bob.setPolicy("broadcast", "off")
	w.later(-1000 * time.Hour)
	w.sync(root, bob)
	root.setPolicy("broadcast", "on")
	w.sync(root, bob)
	bob.wantPolicy("on", "all")
}

// The right is needed, and it is enough (spec/21-roster.md#policy).
func TestPolicyNeedsTheRight(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob, carol := nodes[0], nodes[1]
	root.makeAdmin("bob", subRights)
	root.makeAdmin("carol", wire.RightPolicy)
	w.sync(root, bob, carol)
	off, _ := PolicyWords("broadcast", "off")
	_, err := bob.SetPolicy(bob.id, w.now, off)
	wantErr(t, err, ErrNoRight)
	if err == nil || !strings.Contains(err.Error(), "bob may not change the policy; ask root or carol") {
		t.Error(err)
	}
	_, err = carol.Add(bob.sealed(wire.KindPolicy, &wire.Policy{Seq: 9, Setting: wire.SettingBroadcast, Time: w.now.Unix()}).Raw)
	wantErr(t, err, ErrPenned)
	carol.setPolicy("broadcast", "off")
	w.sync(root, bob, carol)
	bob.wantPolicy("off", "all")
}

// An admin is put out: what it settled stays, unless its key was in wrong hands; then the word before it counts again
// (spec/21-roster.md#policy, spec/21-roster.md#adopt).
func TestPolicyOfAnAdminPutOut(t *testing.T) {
	for _, tt := range []struct {
		name   string
		how    Removal
		leaves bool
		want   string
	}{
		{"in peace", Removal{}, false, "off"},
		{"as an admin only", Removal{Scope: wire.ScopeAdmin}, false, "off"},
		{"by itself", Removal{}, true, "off"},
		{"with a stolen key", Removal{Compromised: true}, false, "on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, root := newWorld(t)
			bob := root.welcomes("bob")[0]
			root.makeAdmin("bob", policyRights)
			w.sync(root, bob)
			for _, n := range []*node{bob, root, bob} {
				n.setPolicy("broadcast", map[*node]string{root: "on", bob: "off"}[n])
				w.sync(root, bob)
			}
			by := root
			if tt.leaves {
				by = bob
			}
			by.revoke("bob", tt.how)
			w.sync(root, bob)
			root.wantPolicy(tt.want, "all")
		})
	}
}

// A key that was put out cannot push an adopted statement aside by a newer one (spec/20-records.md#policy).
func TestPolicyOfARevokedKeyDoesNotSupersede(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	bob.setPolicy("relays", "none")
	w.sync(root, bob)
	root.revoke("bob", Removal{})
	root.wantPolicy("on", "none")

	bob.setPolicy("relays", "all") // on its own node it works
	bob.wantPolicy("on", "all")
	w.sync(root, bob)
	bob.wantPolicy("on", "none")
}

// A statement with the highest seq there is can be got rid of, and only so (spec/21-roster.md#policy).
func TestPolicyWithTheLastSeq(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	bob.must(bob.sealed(wire.KindPolicy, &wire.Policy{Seq: math.MaxUint64, Setting: wire.SettingBroadcast, Time: w.now.Unix()}), nil)
	w.sync(root, bob)
	on, _ := PolicyWords("broadcast", "on")
	_, err := root.SetPolicy(root.id, w.now, on)
	wantErr(t, err, ErrNoRight)
	root.revoke("bob", Removal{Scope: wire.ScopeAdmin, Compromised: true})
	root.wantPolicy("on", "all")
	root.setPolicy("broadcast", "off")
	w.sync(root, bob)
	bob.wantPolicy("off", "all")
}

// Settings that this version does not know are kept, passed on, adopted with the others, and change nothing
// (spec/20-records.md#policy).
func TestUnknownSetting(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	before := bob.Roster().Policy
	rec := bob.sealed(wire.KindPolicy, &wire.Policy{Seq: 1, Setting: 999, Value: 7, Groups: []string{"x"}, Time: w.now.Unix()})
	bob.take(rec)
	w.sync(root, bob)
	if !root.Has(rec.ID) || !reflect.DeepEqual(root.Roster().Policy, before) {
		t.Errorf("kept %t, policy %+v", root.Has(rec.ID), root.Roster().Policy)
	}
	recs, err := root.Revoke(root.id, w.now, Removal{Subject: bob.id.NodeID()})
	if err != nil {
		t.Fatal(err)
	}
	root.take(recs...)
	if root.evaluate().policy[999] == nil {
		t.Error("it falls with the admin")
	}
	_, err = root.SetPolicy(root.id, w.now, wire.Policy{Setting: 999})
	wantErr(t, err, ErrBadValue)
}

// However often a setting was changed, one record of each signer is enough to keep it as it is (spec/21-roster.md#policy).
func TestOnlyTheNewestPolicyIsAdopted(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", policyRights)
	w.sync(root, bob)
	for range 2 * adoptChunk {
		bob.setPolicy("broadcast", "off")
		bob.setPolicy("broadcast", "on")
	}
	bob.setPolicy("broadcast", "off")
	w.sync(root, bob)
	recs, err := root.Revoke(root.id, w.now, Removal{Subject: bob.id.NodeID()})
	if err != nil || len(recs) != 2 {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	for _, r := range slices.Backward(recs) { // the policy is the same at any moment
		root.take(r)
		root.wantPolicy("off", "all")
	}
}

// spec/21-roster.md#policy
func TestMayRelay(t *testing.T) {
	w, root := newWorld(t)
	code := root.invite("server", InviteTerms{Groups: []string{"fast", "servers"}})
	root.join("server", code)
	root.welcomes("bob")
	root.must(root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("phone"), Name: "phone", Gateways: []key.NodeID{root.id.NodeID()}}))
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, m := range root.Roster().Members {
			if root.Roster().MayRelay(m.ID) {
				got = append(got, m.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v may relay, want %v", got, want)
		}
	}
	check("bob", "root", "server")
	root.setPolicy("relays", "group:servers")
	check("server")
	root.wantPolicy("on", "group:servers")
	root.setPolicy("relays", "none")
	check()
	if root.Roster().MayRelay(who("stranger").NodeID()) {
		t.Error("a stranger may relay")
	}
	p, _ := PolicyWords("relays", "group:servres")
	_, err := root.SetPolicy(root.id, w.now, p)
	wantErr(t, err, ErrBadValue)
	root.setPolicy("relays", "group:fast,group:servers")
	check("server")
	root.revoke("server", Removal{})
	check()
}

func TestPolicyWords(t *testing.T) {
	for _, line := range []string{"broadcast on", "broadcast off", "relays all", "relays none", "relays group:a", "relays group:a,group:b"} {
		name, value, _ := strings.Cut(line, " ")
		w, err := PolicyWords(name, value)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		p := defaultPolicy()
		if w.Time = 1; validate(&w) != nil || !p.apply(&w) {
			t.Errorf("%s is %+v", line, w)
		}
		if !slices.ContainsFunc(p.Lines(), func(l PolicyLine) bool { return l.Name+" "+l.Value == line }) {
			t.Errorf("%s becomes %+v", line, p.Lines())
		}
	}
	if p, err := PolicyWords("relays", "group:b,group:a,group:b"); err != nil || !slices.Equal(p.Groups, []string{"a", "b"}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, line := range []string{" ", "broadcast ", "broadcast all", "relays ", "relays on", "relays a", "relays group:", "relays group:A", "relays group:a, group:b", "relays group:a,", "relay all"} {
		name, value, _ := strings.Cut(line, " ")
		_, err := PolicyWords(name, value)
		wantErr(t, err, ErrBadValue)
	}
}
