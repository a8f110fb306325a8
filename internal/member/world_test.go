package member

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// start is when the networks of these tests are founded.
var start = time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)

// who makes the identity of a person; the same name gives the same one.
func who(name string) key.Identity {
	sum := sha256.Sum256([]byte("person " + name))
	id, err := key.IdentityFromSeed(sum[:])
	if err != nil {
		panic(err)
	}
	return id
}

func wgOf(name string) key.WGPublic { return sha256.Sum256([]byte("wg " + name)) }

func seedOf(name string) key.InviteSeed {
	sum := sha256.Sum256([]byte("invite " + name))
	return key.InviteSeed(sum[:16])
}

// world is one network in a test, told as a story. Every node has its own set; sync lets nodes meet.
type world struct {
	t       testing.TB
	now     time.Time
	network key.NetworkID
	genesis []wire.Record
}

// node is one person's node.
type node struct {
	w    *world
	name string
	id   key.Identity
	*Set
}

func newWorld(t testing.TB) (*world, *node) { return newWorldIn(t, "100.64.0.0/10") }

func newWorldIn(t testing.TB, pool string) (*world, *node) {
	t.Helper()
	w := &world{t: t, now: start}
	var err error
	w.network, w.genesis, err = Genesis(who("root"), start, Founding{Network: "home", Node: "root", Pool: netip.MustParsePrefix(pool), Nonce: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	root := w.node("root")
	root.take(w.genesis...)
	return w, root
}

func (w *world) node(name string) *node {
	return &node{w: w, name: name, id: who(name), Set: NewSet(w.network)}
}

func (w *world) later(d time.Duration) { w.now = w.now.Add(d) }

// sync lets nodes exchange all they have.
func (w *world) sync(nodes ...*node) {
	w.t.Helper()
	for range 2 {
		for _, a := range nodes {
			for _, b := range nodes {
				if _, bad := b.AddAll(a.Records()); bad > 0 {
					w.t.Fatalf("%s rejects %d records of %s", b.name, bad, a.name)
				}
			}
		}
	}
	for _, n := range nodes[1:] {
		if !reflect.DeepEqual(n.Roster(), nodes[0].Roster()) {
			w.t.Fatalf("rosters of %s and %s differ", nodes[0].name, n.name)
		}
	}
}

// take adds records that must be accepted.
func (n *node) take(recs ...wire.Record) {
	n.w.t.Helper()
	for _, r := range recs {
		if _, err := n.Add(r.Raw); err != nil {
			n.w.t.Fatalf("%s does not accept a record of kind %d: %v", n.name, r.Kind, err)
		}
	}
}

func (n *node) must(r wire.Record, err error) wire.Record {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatalf("%s: %v", n.name, err)
	}
	n.take(r)
	return r
}

// invite makes an invite and returns its secret.
func (n *node) invite(name string, t InviteTerms) key.InviteSeed {
	n.w.t.Helper()
	if t.Uses == 0 {
		t.Uses = 1
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = n.w.now.Add(24 * time.Hour)
	}
	n.must(n.NewInvite(n.id, n.w.now, seedOf(name), t))
	return seedOf(name)
}

// tryJoin lets a newcomer join before the eyes of n.
func (n *node) tryJoin(name string, seed key.InviteSeed) (wire.Record, wire.JoinStatus) {
	n.w.t.Helper()
	inv, status := n.Roster().CheckInvite(n.w.now, seed.JoinKey().Locator())
	if status != wire.JoinOK {
		return wire.Record{}, status
	}
	draft, status := n.Draft(n.w.now, n.id.Public(), inv.ID.Prefix(), who(name).Public(), name)
	if status != wire.JoinOK {
		return wire.Record{}, status
	}
	rec, err := Finish(n.w.network, draft, signDraft(n.w.network, draft, seed, who(name)), n.id)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.take(rec)
	return rec, n.Roster().Standing(who(name).NodeID())
}

func signDraft(network key.NetworkID, draft []byte, seed key.InviteSeed, newcomer key.Identity) [2]wire.Sig {
	input := wire.SignedInput(wire.KindMember, network, draft)
	inv := seed.Identity()
	return [2]wire.Sig{{Signer: inv.Public(), Signature: inv.Sign(input)}, {Signer: newcomer.Public(), Signature: newcomer.Sign(input)}}
}

// join lets a newcomer join and returns its node with all that n knows.
func (n *node) join(name string, seed key.InviteSeed) *node {
	n.w.t.Helper()
	if _, status := n.tryJoin(name, seed); status != wire.JoinOK && status != wire.JoinPending {
		n.w.t.Fatalf("%s cannot join: %v", name, status)
	}
	m := n.w.node(name)
	if _, bad := m.AddAll(n.Records()); bad > 0 {
		n.w.t.Fatalf("%s rejects %d records", name, bad)
	}
	return m
}

// welcome invites and lets join in one go.
func (n *node) welcomes(names ...string) []*node {
	n.w.t.Helper()
	var out []*node
	for _, name := range names {
		n.w.later(time.Second)
		out = append(out, n.join(name, n.invite("for "+name, InviteTerms{})))
	}
	for _, m := range out {
		m.AddAll(n.Records())
	}
	return out
}

func (n *node) makeAdmin(name string, r wire.Rights) {
	n.w.t.Helper()
	n.w.later(time.Second)
	n.must(n.GrantAdmin(n.id, n.w.now, who(name).NodeID(), r))
}

func (n *node) revoke(name string, o Removal) {
	n.w.t.Helper()
	n.w.later(time.Second)
	o.Subject = who(name).NodeID()
	recs, err := n.Revoke(n.id, n.w.now, o)
	if err != nil {
		n.w.t.Fatalf("%s revokes %s: %v", n.name, name, err)
	}
	n.take(recs...)
}

// names lists the members that n sees.
func (n *node) names() []string {
	var out []string
	for _, m := range n.Roster().Members {
		out = append(out, m.Name)
	}
	return out
}

func (n *node) wantMembers(want ...string) {
	n.w.t.Helper()
	slices.Sort(want)
	if got := n.names(); !slices.Equal(got, want) {
		n.w.t.Errorf("%s sees the members %v, want %v", n.name, got, want)
	}
}

func (n *node) wantRights(name string, want wire.Rights) {
	n.w.t.Helper()
	if got := n.Roster().Rights(who(name).NodeID()); got != want {
		n.w.t.Errorf("%s sees that %s has the rights %q, want %q", n.name, name, got, want)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}
