package member

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Roster returns the effective membership. It is computed only when the set has changed since the last call.
func (s *Set) Roster() *Roster {
	if s.roster == nil {
		s.roster = s.build()
	}
	return s.roster
}

func (s *Set) build() *Roster {
	r := &Roster{Network: s.network, Prefix6: Prefix6(s.network), Policy: defaultPolicy(), byName: map[string]int{}, byID: map[key.NodeID]int{},
		byWG: map[key.WGPublic]int{}, byAddr: map[netip.Addr]int{}, invites: map[key.Locator][]int{},
		revoked: map[key.NodeID]int{}, pending: map[key.NodeID]int{}, lapsed: map[key.NodeID]bool{}}
	if s.genesis == nil {
		return r
	}
	v := s.evaluate()
	g := s.genesis.body.(*wire.Genesis)
	r.Name, r.Created = g.Name, unix(g.Created)
	r.Pool, _ = parsePool(g.Pool4) // validated when the record was accepted
	v.listAdmins(r)
	claims := v.claims()
	settleKeys(claims)
	settleAddresses(newPool(s.network, r.Pool), claims)
	settleNames(claims)
	for _, c := range claims {
		r.Members = append(r.Members, c.Member)
	}
	slices.SortFunc(r.Members, byName)
	r.index()
	for i := range r.Members {
		r.Members[i].Gateways = slices.DeleteFunc(r.Members[i].Gateways, func(id key.NodeID) bool {
			m, ok := r.ByID(id)
			return !ok || m.Device
		})
	}
	v.listRevoked(r)
	v.listPending(r)
	v.listLapsed(r)
	v.listInvites(r)
	v.listPolicy(r)
	v.listDiscovery(r)
	return r
}

// claim is a member with what it claims; settle* turn claims into what it gets.
type claim struct {
	Member
	rec    *entry
	chosen bool // the name is of its own choice
	addr4  netip.Addr
}

// claims lists all members and devices that are not put out, earliest admission first.
func (v *evaluation) claims() []*claim {
	var out []*claim
	for public, a := range v.members {
		id := public.NodeID()
		if v.out(id, wire.ScopeAll) {
			continue
		}
		m := a.rec.body.(*wire.Member)
		c := &claim{rec: a.rec, addr4: netip.AddrFrom4(m.Addr4), Member: Member{ID: id, Public: public, Name: m.Name,
			Groups: m.Groups, Rights: v.rights(id), Root: v.roots[id] && v.rights(id) != 0, Via: a.via()}}
		if e := v.set.infos[public]; e != nil {
			c.inform(e.body.(*wire.NodeInfo))
		}
		out = append(out, c)
	}
	for id, a := range v.devices {
		if v.out(id, wire.ScopeAll) {
			continue
		}
		d := a.rec.body.(*wire.Device)
		out = append(out, &claim{rec: a.rec, addr4: netip.AddrFrom4(d.Addr4), Member: Member{ID: id, Device: true, Name: d.Name,
			WG: d.WG, Gateways: slices.Clone(d.Gateways), Via: a.via()}})
	}
	for _, c := range out {
		c.Addr6 = Address6(v.set.network, c.ID)
		c.Joined = unix(c.rec.time)
		c.Record = c.rec.rec.ID
	}
	slices.SortFunc(out, func(a, b *claim) int { return byTime(a.rec, b.rec) })
	return out
}

// inform takes over what a node says of itself.
func (c *claim) inform(n *wire.NodeInfo) {
	c.Info, c.WG = *n, n.WG
	for _, e := range n.Endpoints {
		if ap, err := wire.ParseEndpoint(e); err == nil {
			c.Endpoints = append(c.Endpoints, ap)
		}
	}
	if n.Name != "" && n.Name != c.Name {
		c.Name, c.chosen = n.Name, true
	}
}

func (a *admission) via() Via {
	if a.invite == nil {
		return Via{Admin: a.rec.signerID}
	}
	return Via{Admin: a.invite.signerID, Invite: a.invite.rec.ID, Witness: a.rec.signerID}
}

// settleKeys lets one keep a WireGuard key that several state: devices, for which an admin signed, before members.
func settleKeys(claims []*claim) {
	taken := map[key.WGPublic]bool{}
	for _, devices := range []bool{true, false} {
		for _, c := range claims {
			if c.Device == devices && taken[c.WG] {
				c.WG = key.WGPublic{}
			} else if c.Device == devices && !c.WG.IsZero() {
				taken[c.WG] = true
			}
		}
	}
}

// settleAddresses gives out IPv4 addresses: the earliest admission keeps what its record says, the others take the next
// free candidate (spec/21-roster.md#addresses).
func settleAddresses(p pool, claims []*claim) {
	taken := map[netip.Addr]bool{}
	var lost []*claim
	for _, c := range claims {
		if p.usable(c.addr4) && !taken[c.addr4] {
			c.Addr4 = c.addr4
			taken[c.Addr4] = true
		} else {
			lost = append(lost, c)
		}
	}
	for _, c := range lost {
		if a, ok := p.free(c.ID, taken); ok {
			c.Addr4 = a
			taken[a] = true
		}
	}
}

// settleNames gives out names: granted ones before chosen ones, then the earliest admission. The others get a part of their
// id behind the name, as much as it takes (spec/21-roster.md#names).
func settleNames(claims []*claim) {
	taken := map[string]bool{}
	var lost []*claim
	for _, chosen := range []bool{false, true} {
		for _, c := range claims {
			switch {
			case c.chosen != chosen:
			case taken[c.Name]:
				lost = append(lost, c)
			default:
				taken[c.Name] = true
			}
		}
	}
	for _, c := range lost {
		c.Name = distinctName(c.Name, c.ID, taken)
		taken[c.Name] = true
	}
}

func distinctName(name string, id key.NodeID, taken map[string]bool) string {
	hex := id.String()
	for n := 4; n <= 32; n += 4 {
		if s := suffixed(name, hex[:n]); !taken[s] {
			return s
		}
	}
	for i := 2; ; i++ {
		if s := suffixed(hex[:32], fmt.Sprint(i)); !taken[s] {
			return s
		}
	}
}

// suffixed puts -suffix behind a name and cuts the name so that all fits.
func suffixed(name, suffix string) string {
	keep := min(len(name), maxName-1-len(suffix))
	return name[:keep] + "-" + suffix
}

func (r *Roster) index() {
	for i, m := range r.Members {
		r.byName[m.Name] = i
		r.byID[m.ID] = i
		if !m.WG.IsZero() {
			r.byWG[m.WG] = i
		}
		if m.Addr4.IsValid() {
			r.byAddr[m.Addr4] = i
		}
		r.byAddr[m.Addr6] = i
	}
}

func (v *evaluation) listAdmins(r *Roster) {
	for _, a := range v.ranks {
		rights := v.rights(a.id)
		if rights == 0 {
			continue
		}
		x := Admin{ID: a.id, Public: a.public, Rights: rights, Root: a.root, Since: r.Created}
		if a.parent != nil {
			x.By, x.Since = a.parent.id, unix(a.since())
		}
		r.Admins = append(r.Admins, x)
	}
}

func (v *evaluation) listPending(r *Roster) {
	var list []*admission
	for public, a := range v.pending {
		if !v.out(public.NodeID(), wire.ScopeAll) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *admission) int { return byTime(a.rec, b.rec) })
	for i, a := range list {
		m := a.rec.body.(*wire.Member)
		p := Pending{ID: m.Key.NodeID(), Public: m.Key, Name: m.Name, Addr4: netip.AddrFrom4(m.Addr4), Groups: m.Groups,
			Via: a.via(), Since: unix(m.Time), Record: a.rec.rec.ID}
		r.Pending = append(r.Pending, p)
		r.pending[p.ID] = i
	}
}

func (v *evaluation) listLapsed(r *Roster) {
	for _, e := range v.set.kinds[wire.KindMember] {
		if id := e.body.(*wire.Member).Key.NodeID(); r.Standing(id) == wire.JoinDenied {
			r.lapsed[id] = true
		}
	}
}

func (v *evaluation) listInvites(r *Roster) {
	for _, e := range v.set.sorted(wire.KindInvite) {
		a := v.admins[e.signerID]
		if a == nil || !a.rights.Has(wire.RightInvite) {
			continue
		}
		b := e.body.(*wire.Invite)
		loc := b.JoinKey.Locator()
		r.invites[loc] = append(r.invites[loc], len(r.Invites))
		r.Invites = append(r.Invites, Invite{ID: e.rec.ID, Key: b.Key, JoinKey: b.JoinKey, Locator: loc, Issuer: e.signerID,
			Uses: b.Uses, Left: b.Uses - uint32(len(v.used[e.rec.ID])), Created: unix(b.Time), NotAfter: unix(b.NotAfter),
			Groups: b.Groups, Approve: b.Approve, Revoked: !v.rights(e.signerID).Has(wire.RightInvite)})
	}
}

func (v *evaluation) listRevoked(r *Roster) {
	for id, rem := range v.removals {
		best := rem.cuts[0]
		for _, c := range rem.cuts[1:] {
			switch {
			case best.by == nil && c.by != nil, c.by != nil && best.by != nil && c.by.rank < best.by.rank:
				best = c
			case c.by == best.by && byTime(c.rec, best.rec) < 0:
				best = c
			}
		}
		x := Revoked{ID: id, Scope: wire.ScopeAdmin, By: best.rec.signerID, Time: unix(best.rec.time), Reason: best.body().Reason}
		if v.out(id, wire.ScopeAll) {
			x.Scope = wire.ScopeAll
		}
		r.Revoked = append(r.Revoked, x)
	}
	slices.SortFunc(r.Revoked, func(a, b Revoked) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for i, x := range r.Revoked {
		r.revoked[x.ID] = i
	}
}
