package member

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// rotate changes the discovery key.
func (n *node) rotate() wire.Record {
	n.w.t.Helper()
	n.w.later(time.Second)
	return n.must(n.NewRendezvous(n.id, n.w.now))
}

func (n *node) wantUncovered(want bool) {
	n.w.t.Helper()
	if got := n.Roster().Uncovered; got != want {
		n.w.t.Errorf("%s sees that someone who was put out may know the key: %t, want %t", n.name, got, want)
	}
}

// key returns the discovery key that n has.
func (n *node) key() key.DiscoveryKey { return n.Roster().Discovery }

// secretOf returns the key of a rendezvous record.
func (w *world) secretOf(r wire.Record) key.DiscoveryKey {
	w.t.Helper()
	b, err := wire.ParsePayload(r.Kind, r.Payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.(*wire.Rendezvous).Secret.Key(w.network)
}

// last returns the newest record of a kind that n took.
func (n *node) last(kind wire.Kind) wire.Record {
	n.w.t.Helper()
	list := n.kinds[kind]
	if len(list) == 0 {
		n.w.t.Fatalf("%s has no record of kind %d", n.name, kind)
	}
	return list[len(list)-1].rec
}

// All members of a new network have one discovery key, which nobody else has (spec/10-identity.md#discovery-key).
func TestFirstDiscoveryKey(t *testing.T) {
	_, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	if k := bob.key(); k.IsZero() || k != root.key() || len(bob.Roster().DiscoveryOld) != 0 {
		t.Error("the members have no key in common")
	}
	root.wantUncovered(false)
	if since := bob.Roster().DiscoverySince; !since.Equal(start) {
		t.Errorf("since %v", since)
	}
	_, other, err := Genesis(who("root"), start, Founding{Network: "home", Node: "root", Pool: root.Roster().Pool, Nonce: [32]byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSet(key.NetworkID(other[0].ID))
	s.AddAll(rawOf(other))
	if s.Roster().Discovery == root.key() || (key.DiscoverySeed{1}).Key(s.network) == root.key() {
		t.Error("two networks have one key")
	}
	if r := NewSet(s.network).Roster(); !r.Discovery.IsZero() || r.Uncovered {
		t.Error("a key without a genesis")
	}
	_, err = NewSet(s.network).NewRendezvous(root.id, start)
	wantErr(t, err, ErrNoRight)
}

// Someone is put out, or leaves, and the others get a new key, once (spec/21-roster.md#discovery).
func TestKeyChangesAfterARemoval(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		w, root := newWorld(t)
		nodes := root.welcomes("bob", "carol")
		bob, carol := nodes[0], nodes[1]
		_, err := root.NewRendezvous(root.id, w.now)
		wantErr(t, err, ErrUnchanged)
		if leaves {
			bob.revoke("bob", Removal{})
			root.AddAll(bob.Records())
		} else {
			root.revoke("bob", Removal{})
		}
		first := root.key()
		root.wantUncovered(true)
		root.rotate()
		root.wantUncovered(false)
		_, err = root.NewRendezvous(root.id, w.now)
		wantErr(t, err, ErrUnchanged)

		w.sync(root, carol)
		if r := carol.Roster(); r.Discovery == first || !slices.Equal(r.DiscoveryOld, []key.DiscoveryKey{first}) || !r.DiscoverySince.Equal(w.now) {
			t.Error("the key has not changed, or the old one is lost")
		}
	}
}

// The newest key counts, and the two before it are there for reading (spec/21-roster.md#discovery).
func TestOldDiscoveryKeys(t *testing.T) {
	_, root := newWorld(t)
	root.welcomes("a", "b", "c")
	keys := []key.DiscoveryKey{root.key()}
	for _, name := range []string{"a", "b", "c"} {
		root.revoke(name, Removal{})
		root.rotate()
		keys = append([]key.DiscoveryKey{root.key()}, keys...)
	}
	if r := root.Roster(); r.Discovery != keys[0] || !slices.Equal(r.DiscoveryOld, keys[1:3]) {
		t.Error("other keys")
	}
}

// The new key does not come to a node that takes the one whom it is to be kept from for a member (spec/20-records.md#rendezvous).
func TestKeyDoesNotTravelAhead(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "dave")
	dave := nodes[2]
	root.revoke("bob", Removal{})
	notBob := root.last(wire.KindRevocation)
	first := root.rotate()
	root.revoke("carol", Removal{})
	notCarol := root.last(wire.KindRevocation)
	second := root.rotate()

	for _, r := range []wire.Record{second, first} {
		_, err := dave.Add(r.Raw)
		wantErr(t, err, ErrPenned)
	}
	dave.take(notCarol) // the second record names that alone, and the first record
	if dave.Has(second.ID) || dave.Has(first.ID) || slices.Contains(dave.names(), "carol") {
		t.Fatal("the key is ahead of the removal of bob")
	}
	res, err := dave.Add(notBob.Raw)
	if err != nil || len(res.Accepted) != 3 || dave.key() != w.secretOf(second) {
		t.Errorf("%d accepted, %v", len(res.Accepted), err)
	}
	again := w.node("again") // they are in an order in which each is accepted at once
	again.AddAll(root.Chain(root.id.NodeID()))
	again.take(append([]wire.Record{notCarol}, res.Accepted...)...)
	w.sync(root, dave)
}

// Two parts of a network each put someone out and change the key. When they meet, neither key will do: each is known to one
// who was put out by the others. One more is enough (spec/21-roster.md#discovery).
func TestKeysOfTwoParts(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "dave")
	bob := nodes[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	root.revoke("carol", Removal{})
	bob.revoke("dave", Removal{})
	one, two := root.rotate(), bob.rotate()
	root.wantUncovered(false)
	bob.wantUncovered(false)

	w.sync(root, bob)
	if root.key() != w.secretOf(two) || !slices.Contains(root.Roster().DiscoveryOld, w.secretOf(one)) {
		t.Error("of two with one number, the first in the order of records counts")
	}
	bob.wantUncovered(true)
	three := bob.rotate()
	w.sync(root, bob)
	root.wantUncovered(false)
	if root.key() != w.secretOf(three) {
		t.Error("the new key does not count")
	}
}

// Two admins change the key for one reason at the same time: one of the keys counts, and that is all
// (spec/21-roster.md#discovery).
func TestTwoKeysAfterOneRemoval(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol", "dave")
	bob := nodes[0]
	root.makeAdmin("bob", someRights)
	root.revoke("carol", Removal{})
	w.sync(root, bob)
	late := bob.rotate()
	w.later(-time.Hour)
	root.rotate()
	w.sync(root, bob)
	root.wantUncovered(false)
	if root.key() != w.secretOf(late) {
		t.Error("the earlier one counts")
	}
}

// An admin that is put out knows the key that it made. In peace that key counts until there is another one; one of a stolen
// key falls at once (spec/21-roster.md#discovery, spec/21-roster.md#adopt).
func TestKeyOfAnAdminPutOut(t *testing.T) {
	for _, tt := range []struct {
		name   string
		how    Removal
		leaves bool
		kept   bool
		due    bool
	}{
		{"in peace", Removal{}, false, true, true},
		{"as an admin only", Removal{Scope: wire.ScopeAdmin}, false, true, false},
		{"by itself", Removal{}, true, true, true},
		{"with a stolen key", Removal{Compromised: true}, false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, root := newWorld(t)
			nodes := root.welcomes("bob", "carol")
			bob := nodes[0]
			root.makeAdmin("bob", someRights)
			w.sync(root, bob)
			root.revoke("carol", Removal{})
			old := w.secretOf(root.rotate())
			root.welcomes("eve")
			w.sync(root, bob)
			bob.revoke("eve", Removal{})
			bobs := w.secretOf(bob.rotate())
			w.sync(root, bob)
			root.wantUncovered(false)

			by := root
			if tt.leaves {
				by = bob
			}
			by.revoke("bob", tt.how)
			w.sync(root, bob)
			if (root.key() == bobs) != tt.kept || (root.key() == old) == tt.kept {
				t.Error("another key counts")
			}
			root.wantUncovered(tt.due)
			if tt.due {
				root.rotate()
				root.wantUncovered(false)
			}
		})
	}
}

// One that leaves cannot let its own key follow its leaving (spec/21-roster.md#discovery).
func TestKeyMadeByOneWhoIsOut(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	bob.revoke("bob", Removal{})
	leaving := bob.last(wire.KindRevocation)
	own := bob.sealed(wire.KindRendezvous, &wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{9}, After: []wire.RecordPrefix{leaving.ID.Prefix()}, Time: w.now.Unix()})
	bob.take(own)
	bob.take(bob.sealed(wire.KindAdopt, &wire.Adopt{Subject: bob.id.NodeID(), Keep: []wire.RecordPrefix{own.ID.Prefix()}, Time: w.now.Unix()}))
	w.sync(root, bob)
	root.wantUncovered(true)
	next := root.rotate()
	root.wantUncovered(false)
	if root.key() != w.secretOf(next) {
		t.Error("the key of the one who left counts")
	}
}

// A key that was put out cannot push the discovery key aside (spec/21-roster.md#discovery).
func TestRevokedKeyDoesNotChangeTheKey(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob", "carol")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	root.revoke("bob", Removal{})
	want := w.secretOf(root.rotate())
	bob.revoke("carol", Removal{})
	bob.rotate() // on its own node it works
	cur := root.last(wire.KindRendezvous).ID.Prefix()
	bob.AddAll(root.Records())
	bob.take(bob.sealed(wire.KindRendezvous, &wire.Rendezvous{Seq: 2, Secret: key.DiscoverySeed{9}, After: []wire.RecordPrefix{cur}, Time: w.now.Unix()}))
	w.sync(root, bob)
	if root.key() != want {
		t.Error("the key of a revoked admin counts")
	}
}

// Nobody can number a record so that none can follow it, nor follow what is nothing of that kind (spec/20-records.md#rendezvous).
func TestRendezvousOutOfTurn(t *testing.T) {
	w, root := newWorld(t)
	bob, carol := root.welcomes("bob", "carol")[0], who("carol")
	_, err := bob.NewRendezvous(bob.id, w.now)
	wantErr(t, err, ErrNoRight)
	if err == nil || !strings.Contains(err.Error(), "bob may not change the discovery key; ask root") {
		t.Error(err)
	}
	root.revoke("carol", Removal{})
	out := root.last(wire.KindRevocation).ID.Prefix()
	first := root.rotate().ID.Prefix()
	member := root.kinds[wire.KindMember][1].rec.ID.Prefix()
	for _, tt := range []struct {
		name  string
		seq   uint64
		after []wire.RecordPrefix
		want  error
	}{
		{"first, far ahead", 2, []wire.RecordPrefix{out}, ErrPenned},
		{"the last there is", math.MaxUint64, []wire.RecordPrefix{out, first}, ErrPenned},
		{"third after first", 3, []wire.RecordPrefix{first}, ErrPenned},
		{"after a member record", 1, []wire.RecordPrefix{member}, ErrPenned},
		{"after what nobody knows", 2, []wire.RecordPrefix{first, {1}}, ErrPenned},
		{"after nothing", 1, nil, ErrInvalid},
		{"second", 2, []wire.RecordPrefix{first}, nil},
		{"another first", 1, []wire.RecordPrefix{out, first}, nil},
	} {
		slices.SortFunc(tt.after, comparePrefix)
		b := &wire.Rendezvous{Seq: tt.seq, Secret: key.DiscoverySeed{9}, After: tt.after, Time: w.now.Unix()}
		_, err := root.Add(root.sealed(wire.KindRendezvous, b).Raw)
		if wantErr(t, err, tt.want); t.Failed() {
			t.Fatal(tt.name)
		}
	}
	foreign, err := wire.SealRecord(w.network, wire.KindRendezvous, &wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{9}, After: []wire.RecordPrefix{out}, Time: 1}, carol)
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.Add(foreign.Raw)
	wantErr(t, err, ErrPenned)
}

// More are put out than one record can name: a few make up for all of them, and each fits (spec/20-records.md#size).
func TestKeyAfterManyRemovals(t *testing.T) {
	w, root := newWorld(t)
	const people = 3*maxAfter - 2
	for i := range people {
		id := who(fmt.Sprint(i))
		root.take(root.sealed(wire.KindMember, &wire.Member{Key: id.Public(), Name: fmt.Sprint("m", i), Time: w.now.Unix()}))
		root.take(root.sealed(wire.KindRevocation, &wire.Revocation{Subject: id.NodeID(), Scope: wire.ScopeAll, Time: w.now.Unix()}))
	}
	for i := range 3 {
		root.wantUncovered(true)
		if r := root.rotate(); len(r.Raw) > wire.MaxRecord {
			t.Errorf("record %d has %d bytes", i, len(r.Raw))
		}
	}
	root.wantUncovered(false)
	full := &wire.Rendezvous{Seq: math.MaxUint64, Secret: key.DiscoverySeed{9}, After: make([]wire.RecordPrefix, maxAfter), Time: maxTime}
	if _, err := wire.SealRecord(w.network, wire.KindRendezvous, full, root.id); err != nil {
		t.Error(err)
	}
}

// Who never had the key, or may keep it, is no reason for a new one (spec/21-roster.md#discovery).
func TestRemovalsThatNeedNoKey(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who("carol").Public(), Name: "carol"}))
	w.sync(root, bob)
	root.must(root.IssueDevice(root.id, w.now, NewDevice{WG: wgOf("phone"), Name: "phone", Gateways: []key.NodeID{root.id.NodeID()}}))
	recs, err := root.Revoke(root.id, w.now, Removal{Subject: key.DeviceID(wgOf("phone"))})
	if err != nil {
		t.Fatal(err)
	}
	root.take(recs...)
	root.wantUncovered(false)
	root.revoke("bob", Removal{Scope: wire.ScopeAdmin})
	root.wantUncovered(false)
	root.wantMembers("root", "bob", "carol")
}

// The key of an admin was in wrong hands: all whom the thief let in fall with it, and do not get the new discovery key from
// those who have not heard all of it (spec/21-roster.md#discovery).
func TestKeyAfterAFall(t *testing.T) {
	for _, scope := range []wire.Scope{wire.ScopeAll, wire.ScopeAdmin} {
		w, root := newWorld(t)
		nodes := root.welcomes("bob", "carol")
		bob, carol := nodes[0], nodes[1]
		root.makeAdmin("bob", someRights)
		code := root.invite("code", InviteTerms{})
		w.sync(root, bob, carol)
		bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who("sybil").Public(), Name: "sybil"}))
		bob.join("friend", code)
		w.sync(root, bob, carol)
		root.revoke("bob", Removal{Scope: scope, Compromised: true})
		removal, adopt := root.last(wire.KindRevocation), root.last(wire.KindAdopt)
		root.wantUncovered(true)
		next := root.rotate()
		root.wantUncovered(false)

		carol.take(removal) // who falls with bob, it does not say
		if _, ok := carol.Roster().ByName("sybil"); !ok {
			t.Fatal("the sybil has fallen")
		}
		_, err := carol.Add(next.Raw)
		wantErr(t, err, ErrPenned)
		carol.take(adopt)
		if _, ok := carol.Roster().ByName("sybil"); ok || carol.key() != w.secretOf(next) {
			t.Error("the sybil is a member, or the key is not there")
		}
		w.sync(root, carol)
	}
}

// An admin is put out in peace, and nobody has heard yet that it let someone in before: that one falls later, and the key
// changes once more (spec/21-roster.md#discovery).
func TestKeyAfterALateFall(t *testing.T) {
	w, root := newWorld(t)
	nodes := root.welcomes("bob", "carol")
	bob := nodes[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who("known").Public(), Name: "known"}))
	w.sync(root, bob)
	bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who("late").Public(), Name: "late"}))
	root.revoke("bob", Removal{})
	root.rotate()
	root.wantUncovered(false)
	w.sync(root, bob)
	root.wantMembers("root", "carol", "known")
	root.wantUncovered(true) // late may have the key from a node that knew the removal, but not what was adopted
	root.rotate()
	root.wantUncovered(false)
}

// A grant proves memberships and nothing else: the key comes with the first session (spec/21-roster.md#chain).
func TestChainHasNoKey(t *testing.T) {
	w, root := newWorld(t)
	root.welcomes("bob", "carol")
	root.revoke("bob", Removal{})
	root.rotate()
	for _, raw := range root.Chain(root.id.NodeID(), who("carol").NodeID(), who("bob").NodeID()) {
		if r, err := wire.ParseRecord(w.network, raw); err != nil || r.Kind == wire.KindRendezvous {
			t.Errorf("kind %d, %v", r.Kind, err)
		}
	}
}

// However often the key was changed, one record of each signer is enough to keep it (spec/21-roster.md#discovery).
func TestOnlyTheNewestKeyIsAdopted(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	for i := range 2 * adoptChunk {
		id := who(fmt.Sprint(i))
		bob.take(bob.sealed(wire.KindRevocation, &wire.Revocation{Subject: id.NodeID(), Scope: wire.ScopeAll, Time: w.now.Unix()}))
		bob.rotate()
	}
	w.sync(root, bob)
	want := root.key()
	recs, err := root.Revoke(root.id, w.now, Removal{Subject: bob.id.NodeID()})
	if err != nil || len(recs) != 2 {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	for _, r := range slices.Backward(recs) { // the key is the same at any moment
		root.take(r)
		if root.key() != want {
			t.Error("the key fell")
		}
	}
}
