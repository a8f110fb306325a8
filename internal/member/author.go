package member

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Founding says what [Genesis] founds.
type Founding struct {
	Network string       // name of the network
	Node    string       // name of its first member
	Pool    netip.Prefix // IPv4, /8 to /30
	Nonce   [32]byte     // random
}

// Genesis founds a network with one root, which becomes its first member. The records are the genesis and the member
// record; the network's id is that of the first.
func Genesis(root key.Identity, now time.Time, f Founding) (key.NetworkID, []wire.Record, error) {
	pool4, err := encodePool(f.Pool)
	if err != nil {
		return key.NetworkID{}, nil, err
	}
	g := &wire.Genesis{Name: f.Network, Nonce: f.Nonce, Roots: []key.Public{root.Public()}, Threshold: 1, Pool4: pool4, Created: now.Unix()}
	genesis, err := seal(key.NetworkID{}, wire.KindGenesis, g, root)
	if err != nil {
		return key.NetworkID{}, nil, err
	}
	network := key.NetworkID(genesis.ID)
	m := &wire.Member{Key: root.Public(), Name: f.Node, Time: now.Unix(),
		Addr4: newPool(network, f.Pool).candidate(root.NodeID(), 0).As4()}
	member, err := seal(network, wire.KindMember, m, root)
	if err != nil {
		return key.NetworkID{}, nil, err
	}
	return network, []wire.Record{genesis, member}, nil
}

// seal checks and signs a record.
func seal(network key.NetworkID, kind wire.Kind, body any, by key.Identity) (wire.Record, error) {
	if err := validate(body); err != nil {
		return wire.Record{}, fmt.Errorf("%w: %w", ErrBadValue, err)
	}
	rec, err := wire.SealRecord(network, kind, body, by)
	if err != nil {
		return wire.Record{}, fmt.Errorf("%w: %w", ErrBadValue, err)
	}
	return rec, nil
}

// need says ErrNoRight when by may not do something now, with the names of those who may.
func (s *Set) need(by key.Identity, right wire.Rights, what string) error {
	r := s.Roster()
	id := by.NodeID()
	if r.Rights(id).Has(right) {
		return nil
	}
	var who []string
	for _, a := range r.Admins {
		if a.Rights.Has(right) {
			who = append(who, r.nameOf(a.ID))
		}
	}
	if len(who) == 0 {
		return fmt.Errorf("%w: %s may not %s, and nobody else may", ErrNoRight, r.nameOf(id), what)
	}
	return fmt.Errorf("%w: %s may not %s; ask %s", ErrNoRight, r.nameOf(id), what, strings.Join(who, " or "))
}

// InviteTerms are what an invite offers.
type InviteTerms struct {
	Uses     uint32
	NotAfter time.Time
	Groups   []string // in any order
	Approve  bool     // an admin must approve each newcomer
}

// NewInvite makes the record of the invite whose secret is seed.
func (s *Set) NewInvite(by key.Identity, now time.Time, seed key.InviteSeed, t InviteTerms) (wire.Record, error) {
	if err := s.need(by, wire.RightInvite, "invite"); err != nil {
		return wire.Record{}, err
	}
	return seal(s.network, wire.KindInvite, &wire.Invite{Key: seed.Identity().Public(), JoinKey: seed.JoinKey(), Uses: t.Uses,
		NotAfter: t.NotAfter.Unix(), Groups: sortedGroups(t.Groups), Approve: t.Approve, Time: now.Unix()}, by)
}

func sortedGroups(groups []string) []string {
	if len(groups) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(groups)))
}

// Draft says whether newcomer may join by an invite with witness, a member, as the witness, and as what. With JoinOK,
// payload is that of a new member record, to be signed by the invite key, the newcomer and the witness (see [Finish]). With
// JoinKnown, it is that of the record by which newcomer joined through the invite before. Otherwise it is nil. The name gets
// -2, -3, ... when it is taken; an empty one means any.
func (s *Set) Draft(now time.Time, witness key.Public, invite wire.RecordPrefix, newcomer key.Public, name string) (payload []byte, status wire.JoinStatus) {
	r := s.Roster()
	id := newcomer.NodeID()
	if r.IsRevoked(id) {
		return nil, wire.JoinRevoked
	}
	if e := s.joinOf(newcomer, invite); e != nil {
		if st := r.Standing(id); st != wire.JoinOK && st != wire.JoinPending {
			return nil, st
		}
		return e.rec.Payload, wire.JoinKnown
	}
	if name == "" {
		name = "node"
	}
	i := slices.IndexFunc(r.Invites, func(v Invite) bool { return v.ID.Prefix() == invite })
	w, ok := r.ByID(witness.NodeID())
	if i < 0 || !ok || w.Device || w.ID == id || !ValidName(name) {
		return nil, wire.JoinDenied
	}
	v := &r.Invites[i]
	at := max(now.Unix(), v.Created.Unix(), w.Joined.Unix()+1) // clocks differ; a witness comes before those it witnesses
	if st := v.status(unix(at)); st != wire.JoinOK {
		return nil, st
	}
	addr, ok := s.freeAddress(id)
	if !ok {
		return nil, wire.JoinFull
	}
	payload, err := wire.MarshalCanonical(&wire.Member{Key: newcomer, Name: r.freeName(name, id), Addr4: addr.As4(), Time: at,
		Groups: v.Groups, Invite: &invite, Witness: &witness})
	if err != nil {
		return nil, wire.JoinDenied
	}
	return payload, wire.JoinOK
}

// joinOf finds the record by which p joined through an invite; nil if there is none. Of several, the one that counts.
func (s *Set) joinOf(p key.Public, invite wire.RecordPrefix) *entry {
	var best *entry
	for _, e := range s.kinds[wire.KindMember] {
		m := e.body.(*wire.Member)
		if m.Key == p && m.Invite != nil && *m.Invite == invite && (best == nil || byTime(e, best) < 0) {
			best = e
		}
	}
	return best
}

// Finish makes a member record of a draft that the invite key and the newcomer have signed, in either order: it adds the
// witness's signature. The error is wire.ErrMalformed when a signature is missing or wrong.
func Finish(network key.NetworkID, draft []byte, sigs [2]wire.Sig, witness key.Identity) (wire.Record, error) {
	own := wire.Sig{Signer: witness.Public(), Signature: witness.Sign(wire.SignedInput(wire.KindMember, network, draft))}
	rec, err := wire.EncodeRecord(network, wire.KindMember, draft, []wire.Sig{sigs[0], sigs[1], own})
	if err != nil {
		return wire.Record{}, err
	}
	if !rec.Verify(network) {
		return wire.Record{}, fmt.Errorf("member record with a bad signature: %w", wire.ErrMalformed)
	}
	return rec, nil
}

// freeAddress returns the IPv4 address that id is to claim: one that no member has and no pending newcomer hopes for.
func (s *Set) freeAddress(id key.NodeID) (netip.Addr, bool) {
	r := s.Roster()
	taken := map[netip.Addr]bool{}
	p := newPool(s.network, r.Pool)
	for _, m := range r.Members {
		if m.ID != id && m.Addr4.IsValid() {
			taken[m.Addr4] = true
		}
	}
	for _, m := range r.Pending {
		if m.ID != id && p.usable(m.Addr4) {
			taken[m.Addr4] = true
		}
	}
	return p.free(id, taken)
}

// nameTaken reports whether another than id has a name or asks for it.
func (r *Roster) nameTaken(name string, id key.NodeID) bool {
	if m, ok := r.ByName(name); ok && m.ID != id {
		return true
	}
	return slices.ContainsFunc(r.Pending, func(p Pending) bool { return p.Name == name && p.ID != id })
}

// freeName returns name, or name-2, name-3, ... when others have it.
func (r *Roster) freeName(name string, id key.NodeID) string {
	free := name
	for i := 2; r.nameTaken(free, id); i++ {
		free = suffixed(name, fmt.Sprint(i))
	}
	return free
}

// NewMember is who an admin lets in directly.
type NewMember struct {
	Key    key.Public
	Name   string
	Groups []string // in any order
}

// IssueMember lets someone in without an invite.
func (s *Set) IssueMember(by key.Identity, now time.Time, m NewMember) (wire.Record, error) {
	if err := s.need(by, wire.RightIssue, "admit members"); err != nil {
		return wire.Record{}, err
	}
	r := s.Roster()
	id := m.Key.NodeID()
	if _, ok := r.ByID(id); ok {
		return wire.Record{}, fmt.Errorf("%s %w", r.nameOf(id), ErrAlreadyMember)
	}
	if err := s.welcome(id, m.Name); err != nil {
		return wire.Record{}, err
	}
	addr, ok := s.freeAddress(id)
	if !ok {
		return wire.Record{}, fmt.Errorf("%w in %v", ErrPoolFull, r.Pool)
	}
	return seal(s.network, wire.KindMember, &wire.Member{Key: m.Key, Name: m.Name, Addr4: addr.As4(), Time: now.Unix(), Groups: sortedGroups(m.Groups)}, by)
}

// welcome checks that a key can be let in under a name.
func (s *Set) welcome(id key.NodeID, name string) error {
	r := s.Roster()
	switch {
	case r.IsRevoked(id):
		return fmt.Errorf("%v %w: its owner needs a new key", id.Short(), ErrRevoked)
	case !ValidName(name):
		return fmt.Errorf("the name %q is %w: use 1 to %d of a-z, 0-9 and -, with no - at either end", name, ErrBadValue, maxName)
	case r.nameTaken(name, id):
		return fmt.Errorf("%w: %s", ErrNameTaken, name)
	}
	return nil
}

// Approve lets a pending newcomer in, under the name and address that it has been offered if they are still free.
func (s *Set) Approve(by key.Identity, now time.Time, newcomer key.NodeID) (wire.Record, error) {
	if err := s.need(by, wire.RightIssue, "approve newcomers"); err != nil {
		return wire.Record{}, err
	}
	r := s.Roster()
	i, ok := r.pending[newcomer]
	if !ok {
		return wire.Record{}, fmt.Errorf("%w: %v does not wait for an approval", ErrUnknownMember, newcomer.Short())
	}
	p := r.Pending[i]
	addr := p.Addr4
	if _, taken := r.ByAddr(addr); taken || !newPool(s.network, r.Pool).usable(addr) {
		if addr, ok = s.freeAddress(p.ID); !ok {
			return wire.Record{}, fmt.Errorf("%w in %v", ErrPoolFull, r.Pool)
		}
	}
	return seal(s.network, wire.KindMember, &wire.Member{Key: p.Public, Name: r.freeName(p.Name, p.ID), Addr4: addr.As4(),
		Time: now.Unix(), Groups: p.Groups}, by)
}

// GrantAdmin gives rights to a member, on top of those that it has.
func (s *Set) GrantAdmin(by key.Identity, now time.Time, subject key.NodeID, rights wire.Rights) (wire.Record, error) {
	if err := s.need(by, wire.RightDelegate, "make admins"); err != nil {
		return wire.Record{}, err
	}
	r := s.Roster()
	m, ok := r.ByID(subject)
	if !ok || m.Device {
		return wire.Record{}, fmt.Errorf("%w: only a member can be an admin", ErrUnknownMember)
	}
	if err := s.need(by, rights&wire.AllRights, "give the rights "+rights.String()); err != nil {
		return wire.Record{}, err
	}
	v := s.evaluate()
	giver, taker := v.admins[by.NodeID()], v.admins[subject]
	switch {
	case v.out(subject, wire.ScopeAdmin):
		return wire.Record{}, fmt.Errorf("%s %w as an admin, for ever", m.Name, ErrRevoked)
	case taker != nil && taker.rank <= giver.rank:
		return wire.Record{}, fmt.Errorf("%w: %s ranks above you", ErrNoRight, m.Name)
	}
	return seal(s.network, wire.KindAdmin, &wire.Admin{Subject: m.Public, Rights: rights, Time: now.Unix()}, by)
}

// NodeInfo makes the record of what by's node says of itself. Seq and Time of info are set here. An empty Name goes back to
// the granted name: who has chosen one must state it each time.
func (s *Set) NodeInfo(by key.Identity, now time.Time, info wire.NodeInfo) (wire.Record, error) {
	r := s.Roster()
	m, ok := r.ByID(by.NodeID())
	switch {
	case !ok:
		return wire.Record{}, fmt.Errorf("%w: this node is not in the network", ErrUnknownMember)
	case info.Name != "" && !ValidName(info.Name):
		return wire.Record{}, fmt.Errorf("the name %q is %w: use 1 to %d of a-z, 0-9 and -, with no - at either end", info.Name, ErrBadValue, maxName)
	case info.Name != "" && info.Name != m.Info.Name && r.nameTaken(info.Name, m.ID):
		return wire.Record{}, fmt.Errorf("%w: %s", ErrNameTaken, info.Name)
	}
	info.Time = now.Unix()
	info.Seq = uint64(max(now.Unix(), 1)) // based on time, so that it survives a restored backup
	if old := s.infos[by.Public()]; old != nil {
		info.Seq = max(info.Seq, old.body.(*wire.NodeInfo).Seq+1)
	}
	return seal(s.network, wire.KindNodeInfo, &info, by)
}

// NewDevice is a stock WireGuard client to be let in.
type NewDevice struct {
	WG       key.WGPublic
	Name     string
	Gateways []key.NodeID // 1 to 8 members that serve it
}

// IssueDevice lets a stock WireGuard client in.
func (s *Set) IssueDevice(by key.Identity, now time.Time, d NewDevice) (wire.Record, error) {
	if err := s.need(by, wire.RightIssue, "admit devices"); err != nil {
		return wire.Record{}, err
	}
	r := s.Roster()
	id := key.DeviceID(d.WG)
	if m, ok := r.ByWG(d.WG); ok {
		return wire.Record{}, fmt.Errorf("the key of %s %w", m.Name, ErrAlreadyMember)
	}
	if err := s.welcome(id, d.Name); err != nil {
		return wire.Record{}, err
	}
	for _, g := range d.Gateways {
		if m, ok := r.ByID(g); !ok || m.Device {
			return wire.Record{}, fmt.Errorf("%w: a gateway must be a member with Warren on it", ErrUnknownMember)
		}
	}
	addr, ok := s.freeAddress(id)
	if !ok {
		return wire.Record{}, fmt.Errorf("%w in %v", ErrPoolFull, r.Pool)
	}
	return seal(s.network, wire.KindDevice, &wire.Device{WG: d.WG, Name: d.Name, Addr4: addr.As4(), Gateways: d.Gateways, Time: now.Unix()}, by)
}
