package member

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

func TestFind(t *testing.T) {
	_, root := newWorld(t)
	root.welcomes("bob", "carol")
	bob, _ := root.Roster().ByName("bob")
	for _, text := range []string{"bob", " BOB\n", bob.Addr4.String(), bob.Addr6.String(), bob.ID.String(), bob.ID.String()[:8]} {
		if m, err := root.Roster().Find(text); err != nil || m.ID != bob.ID {
			t.Errorf("%q: %v, %v", text, m.Name, err)
		}
	}
	for _, text := range []string{"", "b", "dave", "10.0.0.1", bob.ID.String()[:3]} {
		_, err := root.Roster().Find(text)
		wantErr(t, err, ErrUnknownMember)
	}
	two := []Pending{{ID: key.NodeID{0xab, 0xcd, 1}, Name: "x"}, {ID: key.NodeID{0xab, 0xcd, 2}, Name: "x"}}
	r := &Roster{Pending: two}
	_, err := r.FindPending("abcd")
	wantErr(t, err, ErrAmbiguous)
	_, err = r.FindPending("x")
	wantErr(t, err, ErrAmbiguous)
	if p, err := r.FindPending("abcd02"); err != nil || p.ID != two[1].ID {
		t.Errorf("%v, %v", p.ID, err)
	}
}

// A stranger that knows the network's id alone can check a chain (spec/21-roster.md#chain).
func TestChain(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob", "unrelated", "also")[0]
	root.makeAdmin("bob", wire.RightInvite)
	w.sync(root, bob)
	code := bob.invite("code", InviteTerms{})
	bob.must(bob.NodeInfo(bob.id, w.now, wire.NodeInfo{WG: wgOf("bob")}))
	carol := bob.join("carol", code)

	raws := bob.Chain(carol.id.NodeID(), bob.id.NodeID())
	s := NewSet(w.network)
	for i, raw := range raws {
		if _, err := s.Add(raw); err != nil {
			t.Fatalf("record %d of %d: %v", i, len(raws), err)
		}
	}
	r := s.Roster()
	b, ok1 := r.ByName("bob")
	_, ok2 := r.ByName("carol")
	if !ok1 || !ok2 || b.WG != wgOf("bob") {
		t.Errorf("members %v, WireGuard key %v", r.Members, b.WG)
	}
	if _, ok := r.ByName("unrelated"); ok || len(raws) > 8 {
		t.Errorf("%d records with what does not belong", len(raws))
	}
	if NewSet(w.network).Chain(b.ID) != nil {
		t.Error("a chain without genesis")
	}
}

// What a stranger shows is taken if it proves that one is a member, and only what members have made (spec/30-join.md#proof).
func TestShown(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob", "mallory")[0]
	mallory := w.node("mallory")
	w.sync(root, bob, mallory)
	old := w.node("old") // a member that was away since
	w.sync(root, old)
	code := root.invite("code", InviteTerms{})
	w.sync(root, bob, mallory)
	carol := bob.join("carol", code)
	carol.must(carol.NodeInfo(carol.id, w.now, wire.NodeInfo{WG: wgOf("carol")}))
	w.sync(bob, carol)

	chain := carol.Chain(carol.id.NodeID())
	for i := range chain { // the last first: each waits for one before it
		if _, err := old.AddShown(chain[len(chain)-1-i]); err == nil && i == 0 {
			t.Error("a node info was taken before its member")
		}
	}
	if len(old.pen) > 0 {
		t.Errorf("%d records of a stranger wait", len(old.pen))
	}
	for _, raw := range chain {
		if _, err := old.AddShown(raw); err != nil && !errors.Is(err, ErrKnown) {
			t.Errorf("not taken: %v", err)
		}
	}
	if m, ok := old.Roster().ByName("carol"); !ok || m.WG != wgOf("carol") {
		t.Error("carol is not known by what she showed")
	}

	// Mallory was put out. What it signs since, as itself or as a witness, is nothing to those who know.
	root.revoke("mallory", Removal{})
	w.sync(root, old)
	before := old.Len()
	dave := mallory.join("dave", code)
	mallory.must(mallory.NodeInfo(mallory.id, w.now, wire.NodeInfo{Seq: 1 << 40, WG: wgOf("mallory")}))
	for _, raw := range slices.Concat(mallory.Chain(mallory.id.NodeID()), dave.Chain(dave.id.NodeID()), mallory.Records()) {
		old.AddShown(raw) //nolint:errcheck // that most are refused is what is wanted
	}
	if old.Len() != before {
		t.Errorf("%d records were taken of one who was put out", old.Len()-before)
	}
}

// After the approval, the newcomer asks again and needs the record that it signed (spec/21-roster.md#chain).
func TestChainOfApproved(t *testing.T) {
	w, root := newWorld(t)
	code := root.invite("careful", InviteTerms{Approve: true})
	joined, status := root.tryJoin("bob", code)
	if status != wire.JoinPending {
		t.Fatal(status)
	}
	root.must(root.Approve(root.id, w.now, who("bob").NodeID()))
	payload, status := root.Draft(w.now, root.id.Public(), root.Roster().Invites[0].ID.Prefix(), who("bob").Public(), "bob")
	if status != wire.JoinKnown || string(payload) != string(joined.Payload) {
		t.Errorf("status %v", status)
	}
	found := slices.ContainsFunc(root.Chain(who("bob").NodeID()), func(raw []byte) bool { return string(raw) == string(joined.Raw) })
	if !found {
		t.Error("the join is not in the chain")
	}
}

func TestEmptyRoster(t *testing.T) {
	r := NewSet(key.NetworkID{1}).Roster()
	if _, ok := r.ByName("x"); ok || len(r.Members) != 0 || r.Standing(key.NodeID{}) != wire.JoinDenied {
		t.Error("somebody is in an empty roster")
	}
	if _, s := r.CheckInvite(start, key.Locator{}); s != wire.JoinDenied {
		t.Errorf("status %v", s)
	}
}

// Names that several claim are told apart, and no name is too long (spec/21-roster.md#names).
func TestDistinctNames(t *testing.T) {
	id := who("x").NodeID()
	long := strings.Repeat("a", 63)
	taken := map[string]bool{}
	for range 20 {
		for _, name := range []string{"laptop", long} {
			s := distinctName(name, id, taken)
			if taken[s] || !ValidName(s) {
				t.Fatalf("name %q", s)
			}
			taken[s] = true
		}
	}
}

// spec/10-identity.md#ipv4
func TestPool(t *testing.T) {
	small := newPool(key.NetworkID{1}, netip.MustParsePrefix("192.168.7.8/30"))
	id := who("x").NodeID()
	taken := map[netip.Addr]bool{}
	for range 2 {
		a, ok := small.free(id, taken)
		if !ok || !small.usable(a) || taken[a] {
			t.Fatalf("address %v", a)
		}
		taken[a] = true
	}
	if _, ok := small.free(id, taken); ok {
		t.Error("a third address in a /30")
	}
	for s, want := range map[string]bool{"192.168.7.8": false, "192.168.7.9": true, "192.168.7.10": true, "192.168.7.11": false, "192.168.7.12": false} {
		if got := small.usable(netip.MustParseAddr(s)); got != want {
			t.Errorf("usable(%s) = %t", s, got)
		}
	}
	full := newPool(key.NetworkID{1}, netip.MustParsePrefix("10.1.0.0/22")) // hashing alone would miss the last ones
	taken = map[netip.Addr]bool{}
	for i := range 1022 {
		a, ok := full.free(who(fmt.Sprint(i)).NodeID(), taken)
		if !ok || !full.usable(a) || taken[a] {
			t.Fatalf("address %d: %v", i, a)
		}
		taken[a] = true
	}
}

// spec/20-records.md#fields
func TestValidate(t *testing.T) {
	name := "n"
	long := strings.Repeat("a", 64)
	good := []any{
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1},
		&wire.Admin{Rights: wire.RightInvite | 1<<30, Time: 1},
		&wire.Invite{Uses: 1, Time: 1, NotAfter: 1},
		&wire.Member{Name: name, Time: maxTime, Groups: []string{"a", "b"}},
		&wire.Revocation{Scope: wire.ScopeAdmin, Time: 1, Reason: "Diebstahl, München"},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Endpoints: [][]byte{{10, 0, 0, 1, 1, 1}}, Version: "v1.2.3", Streams: []string{"tls://a:443"}},
		&wire.Device{WG: wgOf("x"), Name: name, Gateways: []key.NodeID{{1}}, Time: 1},
		&wire.Adopt{Time: 1},
		&wire.Policy{Setting: wire.SettingBroadcast, Time: 1},
		&wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyGroups, Groups: []string{"a", "b"}, Time: 1},
		&wire.Policy{Setting: 999, Value: 1 << 40, Time: 1},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, After: []wire.RecordPrefix{{1}, {2}}, Time: 1},
	}
	for _, b := range good {
		if err := validate(b); err != nil {
			t.Errorf("%+v: %v", b, err)
		}
	}
	mapped := append(make([]byte, 10), 0xff, 0xff, 10, 0, 0, 1, 1, 1)
	bad := []any{
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 2, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1},
		&wire.Genesis{Name: name, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}, {1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 1, 8}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 31}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 7}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{127, 0, 0, 0, 8}, Created: 1},
		&wire.Genesis{Name: name, Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{224, 0, 0, 0, 8}, Created: 1},
		&wire.Genesis{Name: "Home", Roots: []key.Public{{1}}, Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}, Created: 1},
		&wire.Admin{Rights: 1 << 30, Time: 1},
		&wire.Admin{Rights: 1},
		&wire.Invite{Time: 1, NotAfter: 1},
		&wire.Invite{Uses: 1, Time: 2, NotAfter: 1},
		&wire.Member{Name: "-a", Time: 1},
		&wire.Member{Name: "a-", Time: 1},
		&wire.Member{Name: "", Time: 1},
		&wire.Member{Name: long, Time: 1},
		&wire.Member{Name: "a_b", Time: 1},
		&wire.Member{Name: name, Time: maxTime + 1},
		&wire.Member{Name: name, Time: -1},
		&wire.Member{Name: name, Time: 1, Groups: []string{"b", "a"}},
		&wire.Member{Name: name, Time: 1, Groups: []string{"a", "a"}},
		&wire.Member{Name: name, Time: 1, Groups: make([]string, 17)},
		&wire.Member{Name: name, Time: 1, Invite: new(wire.RecordPrefix)},
		&wire.Revocation{Scope: 3, Time: 1},
		&wire.Revocation{Scope: wire.ScopeAll, Time: 1, Reason: strings.Repeat("x", 201)},
		&wire.Revocation{Scope: wire.ScopeAll, Time: 1, Reason: "\x1b[2J"},
		&wire.NodeInfo{Time: 1},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Version: strings.Repeat("x", 33)},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Name: "No"},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Streams: make([]string, 5)},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Streams: []string{strings.Repeat("x", 256)}},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Streams: []string{"tls://a\n"}},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Endpoints: [][]byte{{10, 0, 0, 1, 0, 0}}},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Endpoints: [][]byte{{224, 0, 0, 1, 1, 1}}},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Endpoints: [][]byte{mapped}},
		&wire.NodeInfo{WG: wgOf("x"), Time: 1, Endpoints: slices.Repeat([][]byte{{10, 0, 0, 1, 1, 1}}, 17)},
		&wire.Device{Name: name, Gateways: []key.NodeID{{1}}, Time: 1},
		&wire.Device{WG: wgOf("x"), Name: name, Time: 1},
		&wire.Device{WG: wgOf("x"), Name: name, Time: 1, Gateways: []key.NodeID{{1}, {1}}},
		&wire.Device{WG: wgOf("x"), Name: name, Time: 1, Gateways: make([]key.NodeID, 9)},
		&wire.Policy{Value: 1, Time: 1},
		&wire.Policy{Setting: wire.SettingBroadcast},
		&wire.Policy{Setting: wire.SettingBroadcast, Value: wire.PolicyGroups, Groups: []string{"a"}, Time: 1},
		&wire.Policy{Setting: wire.SettingRelays, Value: 3, Time: 1},
		&wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyGroups, Time: 1},
		&wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyAll, Groups: []string{"a"}, Time: 1},
		&wire.Policy{Setting: 999, Groups: []string{"b", "a"}, Time: 1},
		&wire.Rendezvous{Secret: key.DiscoverySeed{1}, After: []wire.RecordPrefix{{1}}, Time: 1},
		&wire.Rendezvous{Seq: 1, After: []wire.RecordPrefix{{1}}, Time: 1},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, Time: 1},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, After: []wire.RecordPrefix{{1}}},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, After: []wire.RecordPrefix{{1}, {1}}, Time: 1},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, After: []wire.RecordPrefix{{2}, {1}}, Time: 1},
		&wire.Rendezvous{Seq: 1, Secret: key.DiscoverySeed{1}, After: manyPrefixes(maxAfter + 1), Time: 1},
	}
	for _, b := range bad {
		if validate(b) == nil {
			t.Errorf("%T %+v is let through", b, b)
		}
	}
}

func manyPrefixes(n int) (out []wire.RecordPrefix) {
	for i := range n {
		out = append(out, wire.RecordPrefix{byte(i)})
	}
	return out
}

// A big admin's removal still fits its records (spec/20-records.md#size).
func TestRevokeBigAdmin(t *testing.T) {
	w, root := newWorld(t)
	bob := root.welcomes("bob")[0]
	root.makeAdmin("bob", someRights)
	w.sync(root, bob)
	const members = 120
	for i := range members {
		bob.must(bob.IssueMember(bob.id, w.now, NewMember{Key: who(fmt.Sprint(i)).Public(), Name: fmt.Sprint("m", i)}))
	}
	w.sync(root, bob)
	recs, err := root.Revoke(root.id, w.now, Removal{Subject: bob.id.NodeID()})
	if err != nil || len(recs) != 1+(members+adoptChunk-1)/adoptChunk {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	for _, r := range recs {
		if len(r.Raw) > wire.MaxRecord {
			t.Errorf("%d bytes", len(r.Raw))
		}
	}
	slices.Reverse(recs)
	for _, r := range recs { // nobody falls at any moment
		root.take(r)
		if n := len(root.Roster().Members); n != members+1 {
			t.Errorf("%d members, want %d", n, members+1)
		}
	}
}

// A member's clock is fast; whom it witnesses is a member nevertheless (spec/21-roster.md#join).
func TestWitnessWithASlowClock(t *testing.T) {
	w, root := newWorld(t)
	code1, code2 := root.invite("one", InviteTerms{}), root.invite("two", InviteTerms{})
	w.later(time.Hour)
	bob := root.join("bob", code1)
	w.later(-50 * time.Minute)
	carol := bob.join("carol", code2)
	carol.wantMembers("root", "bob", "carol")
}

func benchSet(b *testing.B, members int) *Set {
	w, root := newWorld(b)
	for i := range members {
		id := who(fmt.Sprint(i))
		seed := seedOf(fmt.Sprint(i))
		inv, err := root.NewInvite(root.id, w.now, seed, InviteTerms{Uses: 1, NotAfter: w.now.Add(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		prefix, witness := inv.ID.Prefix(), root.id.Public()
		m, err := wire.SealRecord(w.network, wire.KindMember, &wire.Member{Key: id.Public(), Name: fmt.Sprint("m", i), Time: w.now.Unix() + int64(i)%3600,
			Addr4: newPool(w.network, netip.MustParsePrefix("100.64.0.0/10")).candidate(id.NodeID(), 0).As4(), Invite: &prefix, Witness: &witness}, seed.Identity(), id, root.id)
		if err != nil {
			b.Fatal(err)
		}
		info, err := wire.SealRecord(w.network, wire.KindNodeInfo, &wire.NodeInfo{Seq: 1, WG: wgOf(fmt.Sprint(i)), Time: 1, Endpoints: [][]byte{{10, 0, 0, 1, 1, 1}}}, id)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range []wire.Record{inv, m, info} {
			if _, err := root.Add(r.Raw); err != nil {
				b.Fatal(err)
			}
		}
		root.roster, root.eval = nil, nil
	}
	return root.Set
}

func BenchmarkRoster1000(b *testing.B) {
	s := benchSet(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		s.roster, s.eval = nil, nil
		if n := len(s.Roster().Members); n != 1001 {
			b.Fatal(n)
		}
	}
}

func BenchmarkAdd1000(b *testing.B) {
	raws := benchSet(b, 1000).Records()
	network := key.NetworkID(benchSet(b, 0).Network())
	b.ReportAllocs()
	for b.Loop() {
		s := NewSet(network)
		if _, rejected := s.AddAll(raws); rejected > 0 {
			b.Fatal(rejected)
		}
	}
}
