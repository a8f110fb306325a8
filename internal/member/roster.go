package member

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Roster is the effective membership of one network at one state of its set. It never changes. All slices and what they
// lead to are shared: read only.
type Roster struct {
	Network key.NetworkID
	Name    string       // "" while the genesis is unknown
	Pool    netip.Prefix // of IPv4 addresses
	Prefix6 netip.Prefix // of IPv6 addresses, /48
	Created time.Time

	Members []Member  // members and devices, by name
	Pending []Pending // newcomers that an admin must approve, oldest first
	Invites []Invite  // all that were ever good, oldest first
	Admins  []Admin   // highest rank first
	Revoked []Revoked // by node id
	Policy  Policy    // the defaults where nobody has stated otherwise

	// Discovery is the secret by which members find each other (spec/21-roster.md#discovery); zero while the genesis is unknown.
	Discovery      key.DiscoveryKey
	DiscoverySince time.Time // as stated by the record that Discovery follows from
	// DiscoveryOld are at most two keys that counted before, the newest first. They are for reading only, to find members that
	// were away when the key changed: those who were put out know them, so nothing may be published under them, and what is
	// found under them may be a lure to learn the reader's own address.
	DiscoveryOld []key.DiscoveryKey
	// Uncovered says that someone who was put out may know Discovery: an admin with the right to revoke must make a new one,
	// see [Set.NewRendezvous].
	Uncovered bool

	byName  map[string]int
	byID    map[key.NodeID]int
	byWG    map[key.WGPublic]int
	byAddr  map[netip.Addr]int
	invites map[key.Locator][]int
	revoked map[key.NodeID]int
	pending map[key.NodeID]int
	lapsed  map[key.NodeID]bool // named by a join that does not count
}

// Member is a member or, with Device set, a stock WireGuard client.
type Member struct {
	ID        key.NodeID
	Public    key.Public // zero for devices
	Name      string     // unique in the roster
	Addr4     netip.Addr // invalid when the pool is full
	Addr6     netip.Addr
	WG        key.WGPublic     // zero while no node info is known, or when another holds the key (see [Roster.ByWG])
	Endpoints []netip.AddrPort // as it states them: hints
	Groups    []string
	Rights    wire.Rights // what it may do as an admin; 0 for others
	Root      bool
	Device    bool
	Gateways  []key.NodeID // of a device: the members that serve it
	Via       Via
	Joined    time.Time // as stated by who admitted it
	Record    wire.RecordID
	Info      wire.NodeInfo // zero while none is known
}

// Via says who let a member in: an admin, or an admin's invite before the eyes of a witness.
type Via struct {
	Admin   key.NodeID
	Invite  wire.RecordID // zero without invite
	Witness key.NodeID    // zero without invite
}

// Pending is a newcomer by an approve-first invite.
type Pending struct {
	ID     key.NodeID
	Public key.Public
	Name   string // that it asked for
	Addr4  netip.Addr
	Groups []string
	Via    Via
	Since  time.Time
	Record wire.RecordID
}

// Invite is an invite that was good when it was made.
type Invite struct {
	ID       wire.RecordID
	Key      key.Public
	JoinKey  key.JoinKey
	Locator  key.Locator
	Issuer   key.NodeID
	Uses     uint32
	Left     uint32 // uses left
	Created  time.Time
	NotAfter time.Time
	Groups   []string
	Approve  bool
	Revoked  bool // its issuer may not invite any more
}

// Admin is a key with rights, a member's or not.
type Admin struct {
	ID     key.NodeID
	Public key.Public
	Rights wire.Rights
	Root   bool
	By     key.NodeID // who gave it its rank; zero for roots
	Since  time.Time  // of its first grant; of the genesis for roots
}

// Revoked is a key that was put out, whole or as an admin.
type Revoked struct {
	ID     key.NodeID
	Scope  wire.Scope
	By     key.NodeID // the highest in rank of those who did it, or the subject itself
	Time   time.Time
	Reason string
}

// ByID returns the member or device of a node id.
func (r *Roster) ByID(id key.NodeID) (Member, bool) { return at(r, r.byID, id) }

// ByWG returns the member or device that a WireGuard key belongs to. Of several that state one key, devices come before
// members and the earlier admission before the later; the others have none, and a node that finds itself without must
// change its key.
func (r *Roster) ByWG(k key.WGPublic) (Member, bool) { return at(r, r.byWG, k) }

// ByAddr returns the member or device that has an inner address.
func (r *Roster) ByAddr(a netip.Addr) (Member, bool) { return at(r, r.byAddr, a.Unmap()) }

// ByName returns the member or device of a name.
func (r *Roster) ByName(name string) (Member, bool) { return at(r, r.byName, name) }

func at[K comparable](r *Roster, index map[K]int, k K) (Member, bool) {
	i, ok := index[k]
	if !ok {
		return Member{}, false
	}
	return r.Members[i], true
}

// Rights returns what a key may do now, a member's or not.
func (r *Roster) Rights(id key.NodeID) wire.Rights {
	for _, a := range r.Admins {
		if a.ID == id {
			return a.Rights
		}
	}
	return 0
}

// IsRevoked reports whether the key was put out as a member or device. It can never be let in again.
func (r *Roster) IsRevoked(id key.NodeID) bool {
	i, ok := r.revoked[id]
	return ok && r.Revoked[i].Scope == wire.ScopeAll
}

// Standing says how a key stands, in the words of a join: JoinOK for a member, JoinPending, JoinRevoked, JoinUsed when its
// join came too late or does not count any more, and JoinDenied for a stranger.
func (r *Roster) Standing(id key.NodeID) wire.JoinStatus {
	if _, ok := r.byID[id]; ok {
		return wire.JoinOK
	}
	if _, ok := r.pending[id]; ok {
		return wire.JoinPending
	}
	switch {
	case r.IsRevoked(id):
		return wire.JoinRevoked
	case r.lapsed[id]:
		return wire.JoinUsed
	}
	return wire.JoinDenied
}

// CheckInvite says what a join message for locator is to be answered: JoinOK, JoinUsed, JoinExpired, JoinRevoked, or
// JoinDenied for an invite that is not known. Of several invites of one locator, the one that can be used counts.
func (r *Roster) CheckInvite(now time.Time, locator key.Locator) (Invite, wire.JoinStatus) {
	best, status := Invite{}, wire.JoinDenied
	for _, i := range r.invites[locator] {
		if s := r.Invites[i].status(now); status == wire.JoinDenied || s == wire.JoinOK && status != wire.JoinOK {
			best, status = r.Invites[i], s
		}
	}
	return best, status
}

func (v *Invite) status(now time.Time) wire.JoinStatus {
	switch {
	case v.Revoked:
		return wire.JoinRevoked
	case v.Left == 0:
		return wire.JoinUsed
	case now.After(v.NotAfter):
		return wire.JoinExpired
	}
	return wire.JoinOK
}

// minPrefix is the least number of characters of an id that Find takes for one.
const minPrefix = 4

// Find returns the member or device that a person means: by name, by inner address, or by the first characters of its id.
// The error is ErrUnknownMember or ErrAmbiguous.
func (r *Roster) Find(text string) (Member, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if m, ok := r.ByName(text); ok {
		return m, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		if m, ok := r.ByAddr(a); ok {
			return m, nil
		}
	}
	found, err := findPrefix(r.Members, text, func(m Member) (key.NodeID, string) { return m.ID, m.Name })
	if err != nil {
		return Member{}, err
	}
	return r.Members[found], nil
}

// FindPending returns the pending newcomer that a person means: by the name it asked for, or by the first characters of its
// id. The error is ErrUnknownMember or ErrAmbiguous.
func (r *Roster) FindPending(text string) (Pending, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	var named []int
	for i, p := range r.Pending {
		if p.Name == text {
			named = append(named, i)
		}
	}
	if len(named) > 1 {
		return Pending{}, fmt.Errorf("%w: %d newcomers ask for the name %s: use an id", ErrAmbiguous, len(named), text)
	}
	if len(named) == 1 {
		return r.Pending[named[0]], nil
	}
	found, err := findPrefix(r.Pending, text, func(p Pending) (key.NodeID, string) { return p.ID, p.Name })
	if err != nil {
		return Pending{}, err
	}
	return r.Pending[found], nil
}

func findPrefix[T any](list []T, text string, of func(T) (key.NodeID, string)) (int, error) {
	found := -1
	for i, x := range list {
		id, name := of(x)
		if len(text) < minPrefix || !strings.HasPrefix(id.String(), text) {
			continue
		}
		if found >= 0 {
			_, other := of(list[found])
			return 0, fmt.Errorf("%w: %q is the beginning of the ids of %s and %s", ErrAmbiguous, text, other, name)
		}
		found = i
	}
	if found < 0 {
		return 0, fmt.Errorf("%w: %q", ErrUnknownMember, text)
	}
	return found, nil
}

// nameOf names a key for people.
func (r *Roster) nameOf(id key.NodeID) string {
	if m, ok := r.ByID(id); ok {
		return m.Name
	}
	return id.Short().String()
}

func unix(t int64) time.Time { return time.Unix(t, 0).UTC() }

func byName(a, b Member) int { return cmp.Compare(a.Name, b.Name) }
