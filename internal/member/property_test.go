package member

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// history is a random life of a network: some nodes, each with its own view, that do things, meet, and lie.
type history struct {
	t     *rapid.T
	w     *world
	nodes []*node
	codes []key.InviteSeed
	raws  [][]byte // all that anyone ever signed
	count int
}

func (h *history) pick() *node { return rapid.SampledFrom(h.nodes).Draw(h.t, "node") }

func (h *history) person() key.NodeID {
	n := rapid.IntRange(0, len(h.nodes)-1+h.count%3).Draw(h.t, "person")
	return who(fmt.Sprint("p", n)).NodeID()
}

// publish books what a node made; err means that it had no right, which is as good.
func (h *history) publish(n *node, err error, recs ...wire.Record) {
	if err != nil {
		return
	}
	for _, r := range recs {
		h.raws = append(h.raws, r.Raw)
		_, _ = n.Add(r.Raw)
	}
}

func (h *history) step() {
	n := h.pick()
	h.w.later(time.Duration(rapid.IntRange(-60, 120).Draw(h.t, "seconds")) * time.Second)
	rights := wire.Rights(rapid.Uint32Range(1, uint32(wire.AllRights)).Draw(h.t, "rights"))
	if rapid.Bool().Draw(h.t, "strong") {
		rights |= subRights
	}
	switch rapid.IntRange(0, 14).Draw(h.t, "act") {
	case 0, 1:
		h.invite(n)
	case 2, 3, 4:
		h.join(n)
	case 5:
		r, err := n.GrantAdmin(n.id, h.w.now, h.person(), rights)
		h.publish(n, err, r)
	case 6:
		h.revoke(n)
	case 7:
		other := h.pick()
		_, _ = other.AddAll(n.Records())
		_, _ = n.AddAll(other.Records())
	case 8:
		r, err := n.NodeInfo(n.id, h.w.now, wire.NodeInfo{WG: wgOf(fmt.Sprint(h.count % 5)), Name: fmt.Sprint("p", h.count%4)})
		h.publish(n, err, r)
	case 9:
		r, err := n.IssueDevice(n.id, h.w.now, NewDevice{WG: wgOf(fmt.Sprint("d", h.count%4)), Name: fmt.Sprint("p", h.count%4), Gateways: []key.NodeID{n.id.NodeID()}})
		h.publish(n, err, r)
	case 10:
		h.approveOrIssue(n)
	case 11:
		h.lie(n, rights)
	case 12:
		r, err := n.SetPolicy(n.id, h.w.now, h.policy())
		h.publish(n, err, r)
	case 13, 14:
		r, err := n.newRendezvous(n.id, h.w.now, h.secret())
		h.publish(n, err, r)
	}
	h.count++
}

func (h *history) invite(n *node) {
	seed := seedOf(fmt.Sprint(h.count))
	r, err := n.NewInvite(n.id, h.w.now, seed, InviteTerms{Uses: rapid.Uint32Range(1, 2).Draw(h.t, "uses"),
		NotAfter: h.w.now.Add(10 * time.Minute), Approve: rapid.IntRange(0, 3).Draw(h.t, "approve") == 0})
	h.publish(n, err, r)
	h.codes = append(h.codes, seed)
}

func (h *history) join(n *node) {
	if len(h.codes) == 0 {
		return
	}
	seed := rapid.SampledFrom(h.codes).Draw(h.t, "code")
	i := slices.IndexFunc(n.Roster().Invites, func(v Invite) bool { return v.Key == seed.Identity().Public() })
	if i < 0 {
		return
	}
	prefix, witness := n.Roster().Invites[i].ID.Prefix(), n.id.Public()
	fresh := h.w.node(fmt.Sprint("p", len(h.nodes)))
	draft, status := n.Draft(h.w.now, witness, prefix, fresh.id.Public(), fmt.Sprint("p", h.count%4))
	if rapid.IntRange(0, 3).Draw(h.t, "reckless") == 0 { // a witness that does not look at uses, names and revocations
		draft, _ = wire.MarshalCanonical(&wire.Member{Key: fresh.id.Public(), Name: "p1", Addr4: [4]byte{10, 9, 0, byte(h.count % 16)},
			Time: h.w.now.Unix(), Invite: &prefix, Witness: &witness})
	} else if status != wire.JoinOK {
		return
	}
	r, err := Finish(h.w.network, draft, signDraft(h.w.network, draft, seed, fresh.id), n.id)
	h.publish(n, err, r)
	_, _ = fresh.AddAll(n.Records())
	h.nodes = append(h.nodes, fresh)
}

func (h *history) revoke(n *node) {
	o := Removal{Subject: h.person(), Scope: wire.Scope(rapid.IntRange(1, 2).Draw(h.t, "scope")), Compromised: rapid.Bool().Draw(h.t, "compromised")}
	recs, err := n.Revoke(n.id, h.w.now, o)
	h.publish(n, err, recs...)
}

func (h *history) approveOrIssue(n *node) {
	if p := n.Roster().Pending; len(p) > 0 {
		r, err := n.Approve(n.id, h.w.now, p[0].ID)
		h.publish(n, err, r)
		return
	}
	fresh := h.w.node(fmt.Sprint("p", len(h.nodes)))
	r, err := n.IssueMember(n.id, h.w.now, NewMember{Key: fresh.id.Public(), Name: fmt.Sprint("p", h.count%4)})
	h.publish(n, err, r)
	_, _ = fresh.AddAll(n.Records())
	h.nodes = append(h.nodes, fresh)
}

// lie signs something without asking whether it has an effect.
func (h *history) lie(n *node, rights wire.Rights) {
	var kind wire.Kind
	var body any
	victim := h.pick()
	switch rapid.IntRange(0, 6).Draw(h.t, "lie") {
	case 0:
		kind, body = wire.KindAdmin, &wire.Admin{Subject: victim.id.Public(), Rights: rights, Time: h.w.now.Unix()}
	case 1:
		kind, body = wire.KindRevocation, &wire.Revocation{Subject: victim.id.NodeID(), Scope: wire.ScopeAll, Time: h.w.now.Unix(), Adopts: uint32(h.count % 2)}
	case 2:
		a := &wire.Adopt{Subject: victim.id.NodeID(), Time: h.w.now.Unix()}
		for _, e := range victim.order {
			if e.rec.Kind == wire.KindRevocation {
				a.Reject = append(a.Reject, e.rec.ID.Prefix())
			} else if len(a.Keep) < 8 {
				a.Keep = append(a.Keep, e.rec.ID.Prefix())
			}
		}
		kind, body = wire.KindAdopt, a
	case 3:
		kind, body = wire.KindMember, &wire.Member{Key: victim.id.Public(), Name: "p2", Addr4: [4]byte{10, 9, 0, 1}, Time: h.w.now.Unix()}
	case 4:
		kind, body = 77, []byte{byte(h.count), byte(h.count >> 8)}
	case 5:
		p := h.policy()
		p.Setting += wire.Setting(h.count % 2)
		p.Seq, p.Time = rapid.Uint64Range(0, 4).Draw(h.t, "seq"), h.w.now.Unix()
		kind, body = wire.KindPolicy, &p
	case 6:
		kind, body = wire.KindRendezvous, h.rendezvous()
	}
	r, err := wire.SealRecord(h.w.network, kind, body, n.id)
	h.publish(n, err, r)
}

func (h *history) secret() key.DiscoverySeed {
	return key.DiscoverySeed{1, byte(h.count >> 8), byte(h.count)}
}

// rendezvous is one that may follow anything that was ever signed, or nothing.
func (h *history) rendezvous() *wire.Rendezvous {
	b := &wire.Rendezvous{Seq: rapid.Uint64Range(0, 4).Draw(h.t, "seq"), Secret: h.secret(), Time: h.w.now.Unix()}
	for range rapid.IntRange(0, 3).Draw(h.t, "after") {
		r, err := wire.ParseRecord(h.w.network, rapid.SampledFrom(h.raws).Draw(h.t, "record"))
		if err != nil {
			h.t.Fatal(err)
		}
		b.After = append(b.After, r.ID.Prefix())
	}
	slices.SortFunc(b.After, comparePrefix)
	return b
}

// cover lets the founder hear all and change the discovery key until nobody who was put out may know it.
func (h *history) cover() {
	n := h.nodes[0]
	n.AddAll(h.raws)
	for i := 0; n.Roster().Uncovered && n.Roster().Rights(n.id.NodeID()) != 0; i++ {
		h.count++
		r, err := n.newRendezvous(n.id, h.w.now, h.secret())
		if err != nil || i > len(h.raws)/(maxAfter-1) {
			h.t.Fatalf("key %d does not cover all: %v", i, err)
		}
		h.publish(n, err, r)
	}
}

func (h *history) policy() wire.Policy {
	return rapid.SampledFrom([]wire.Policy{
		{Setting: wire.SettingBroadcast, Value: wire.PolicyNone}, {Setting: wire.SettingBroadcast, Value: wire.PolicyAll},
		{Setting: wire.SettingRelays, Value: wire.PolicyNone}, {Setting: wire.SettingRelays, Value: wire.PolicyAll},
		{Setting: wire.SettingRelays, Value: wire.PolicyGroups, Groups: []string{"servers"}},
	}).Draw(h.t, "policy")
}

func newHistory(t *rapid.T) *history {
	w := &world{now: start}
	var err error
	w.network, w.genesis, err = Genesis(who("p0"), start, Founding{Network: "home", Node: "p0", Pool: netip.MustParsePrefix("10.9.0.0/28")})
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, w: w, nodes: []*node{w.node("p0")}}
	h.publish(h.nodes[0], nil, w.genesis...)
	for _, name := range []string{"p1", "p2"} {
		n := w.node(name)
		r, err := h.nodes[0].IssueMember(who("p0"), w.now, NewMember{Key: n.id.Public(), Name: name})
		h.publish(h.nodes[0], err, r)
		r, err = h.nodes[0].GrantAdmin(who("p0"), w.now, n.id.NodeID(), subRights|wire.RightPolicy)
		h.publish(h.nodes[0], err, r)
		h.nodes = append(h.nodes, n)
	}
	for _, n := range h.nodes[1:] {
		_, _ = n.AddAll(h.nodes[0].Records())
	}
	return h
}

// The roster is a function of the set of records: order, repetition, and the way by which they came do not matter
// (spec/21-roster.md#function, spec/20-records.md#acceptance).
func TestRosterIsAFunctionOfTheSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			h.step()
		}
		if rapid.Bool().Draw(t, "cover") {
			h.cover()
			for range rapid.IntRange(0, 5).Draw(t, "more steps") {
				h.step()
			}
		}
		want := NewSet(h.w.network)
		want.AddAll(h.raws)
		checkRoster(t, want.Roster())
		checkPolicy(t, want)
		checkDiscovery(t, want)
		for _, n := range h.nodes {
			checkSecrecy(t, n.Set, want)
		}

		shuffled := NewSet(h.w.network) // any order, one by one, some twice
		order := rapid.Permutation(append(slices.Clone(h.raws), h.raws[:len(h.raws)/2]...)).Draw(t, "order")
		for _, raw := range order {
			_, _ = shuffled.Add(raw)
			if len(order)%7 == 0 { // looking in between changes nothing
				checkSecrecy(t, shuffled, want)
			}
		}
		same(t, "shuffled", shuffled, want)

		cut := rapid.IntRange(0, len(order)).Draw(t, "cut") // split and merge
		a, b := NewSet(h.w.network), NewSet(h.w.network)
		a.AddAll(order[:cut])
		b.AddAll(order[cut:])
		left, right := a.Records(), b.Records()
		a.AddAll(append(right, order[cut:]...))
		b.AddAll(append(left, order[:cut]...))
		same(t, "merged a", a, want)
		same(t, "merged b", b, want)

		loaded := NewSet(h.w.network) // stored and read again
		for _, raw := range want.Records() {
			if _, err := loaded.Add(raw); err != nil {
				t.Fatalf("stored record: %v", err)
			}
		}
		same(t, "loaded", loaded, want)

		before := want.Roster()
		for _, raw := range order {
			if _, err := want.Add(raw); err == nil {
				t.Fatal("a record is accepted twice")
			}
		}
		if want.Roster() != before {
			t.Fatal("adding known records changes the roster")
		}
	})
}

func same(t *rapid.T, what string, got, want *Set) {
	t.Helper()
	ids := func(s *Set) []wire.RecordID {
		var out []wire.RecordID
		for id := range s.byID {
			out = append(out, id)
		}
		slices.SortFunc(out, func(a, b wire.RecordID) int { return slices.Compare(a[:], b[:]) })
		return out
	}
	if !reflect.DeepEqual(ids(got), ids(want)) {
		t.Fatalf("%s: %d records, want %d", what, got.Len(), want.Len())
	}
	if !reflect.DeepEqual(got.Roster(), want.Roster()) {
		t.Fatalf("%s: roster is\n%+v\nwant\n%+v", what, got.Roster(), want.Roster())
	}
}

// checkPolicy checks that every setting is at its default or stated by a record that nothing with an effect comes after.
func checkPolicy(t *rapid.T, s *Set) {
	p, v := s.Roster().Policy, s.evaluate()
	want := defaultPolicy()
	for _, x := range p.Stated {
		e := s.byID[x.Record]
		b := e.body.(*wire.Policy)
		want.apply(b)
		if e.signerID != x.By || b.Setting != x.Setting || !s.granted[e.signer].Has(wire.RightPolicy) {
			t.Fatalf("policy %+v counts", b)
		}
	}
	want.Stated = p.Stated
	if !reflect.DeepEqual(p, want) {
		t.Fatalf("policy is %+v, want %+v", p, want)
	}
	for _, e := range s.kinds[wire.KindPolicy] {
		b := e.body.(*wire.Policy)
		i := slices.IndexFunc(p.Stated, func(x Stated) bool { return x.Setting == b.Setting })
		rem := v.removals[e.signerID]
		stands := rem == nil && v.admins[e.signerID] != nil && v.admins[e.signerID].rights.Has(wire.RightPolicy)
		if stands && b.Setting <= wire.SettingRelays && (i < 0 || b.Seq > s.byID[p.Stated[i].Record].body.(*wire.Policy).Seq) {
			t.Fatalf("policy %+v does not count: %+v", b, p.Stated)
		}
	}
}

// checkDiscovery checks that the discovery key is that of a record that nothing with an effect comes after, and that all who
// were put out were so before it, or that a new one is due.
func checkDiscovery(t *rapid.T, s *Set) {
	r, v := s.Roster(), s.evaluate()
	if len(r.DiscoveryOld) > maxOld || slices.Contains(r.DiscoveryOld, r.Discovery) {
		t.Fatalf("%d old keys, or the new one is among them", len(r.DiscoveryOld))
	}
	counts := v.counting()
	if counts == nil && r.Discovery != firstKey(s) || counts != nil && counts.body.(*wire.Rendezvous).Secret.Key(s.network) != r.Discovery {
		t.Fatal("another key counts")
	}
	for _, e := range s.kinds[wire.KindRendezvous] {
		b := e.body.(*wire.Rendezvous)
		if !s.granted[e.signer].Has(wire.RightRevoke) || !s.follows(b) {
			t.Fatalf("rendezvous %+v is accepted", b)
		}
		a := v.admins[e.signerID]
		stands := v.removals[e.signerID] == nil && a != nil && a.rights.Has(wire.RightRevoke)
		if stands && (counts == nil || b.Seq > counts.body.(*wire.Rendezvous).Seq) {
			t.Fatalf("rendezvous %+v does not count", b)
		}
	}
	behind := map[wire.RecordPrefix]bool{}
	var collect func(e *entry)
	collect = func(e *entry) {
		if b, ok := e.body.(*wire.Rendezvous); ok && !behind[e.rec.ID.Prefix()] {
			for _, p := range b.After {
				collect(s.steps[p][0])
			}
		}
		behind[e.rec.ID.Prefix()] = true
	}
	if counts != nil {
		collect(counts)
	}
	for _, x := range r.Revoked {
		device := slices.ContainsFunc(s.kinds[wire.KindDevice], func(e *entry) bool { return key.DeviceID(e.body.(*wire.Device).WG) == x.ID })
		followed := slices.ContainsFunc(s.kinds[wire.KindRevocation], func(e *entry) bool {
			return e.body.(*wire.Revocation).Subject == x.ID && behind[e.rec.ID.Prefix()]
		})
		if x.Scope == wire.ScopeAll && !device && (!followed || x.ID == counts.signerID) && !r.Uncovered {
			t.Fatalf("%v was put out and may know the key", x.ID)
		}
	}
}

func firstKey(s *Set) key.DiscoveryKey {
	return key.DiscoverySeed(s.genesis.body.(*wire.Genesis).Nonce).Key(s.network)
}

// checkSecrecy checks that a node with a part of the records does not take one whom all of them put out for a member, and give
// it the discovery key that all of them have.
func checkSecrecy(t *rapid.T, part, all *Set) {
	r, v := all.Roster(), all.evaluate()
	if e := v.counting(); r.Uncovered || e == nil || !part.Has(e.rec.ID) {
		return
	}
	for _, m := range part.Roster().Members {
		if m.Device {
			continue
		}
		if r.IsRevoked(m.ID) {
			t.Fatalf("%v was put out and gets the key", m.ID)
		}
		if _, stays := r.ByID(m.ID); !stays && m.Via.Invite == (wire.RecordID{}) {
			t.Fatalf("%v fell with %v and gets the key", m.ID, m.Via.Admin)
		}
	}
}

// checkRoster checks what must be true of every roster.
func checkRoster(t *rapid.T, r *Roster) {
	names, addrs := map[string]bool{}, map[netip.Addr]bool{}
	root := who("p0").NodeID()
	for _, m := range r.Members {
		if names[m.Name] || !ValidName(m.Name) {
			t.Fatalf("name %q", m.Name)
		}
		names[m.Name] = true
		if m.Addr4.IsValid() && (addrs[m.Addr4] || !r.Pool.Contains(m.Addr4)) {
			t.Fatalf("%s has %v", m.Name, m.Addr4)
		}
		addrs[m.Addr4] = true
		if m.Addr6 != Address6(r.Network, m.ID) {
			t.Fatalf("%s has %v", m.Name, m.Addr6)
		}
		if r.IsRevoked(m.ID) {
			t.Fatalf("%s is revoked and a member", m.Name)
		}
		if m.Rights != r.Rights(m.ID) {
			t.Fatalf("%s has rights %v and %v", m.Name, m.Rights, r.Rights(m.ID))
		}
	}
	for _, x := range r.Revoked {
		if x.ID == root && x.By != root {
			t.Fatal("the founder was put out by another")
		}
	}
	for _, v := range r.Invites {
		if v.Left > v.Uses {
			t.Fatalf("invite with %d of %d uses left", v.Left, v.Uses)
		}
	}
}
