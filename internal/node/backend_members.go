package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/wire"
)

// Rename implements api.Backend.
func (n *Node) Rename(ctx context.Context, r api.RenameRequest) (out api.Network, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		self, ok := w.self()
		if !ok {
			return errNoMember
		}
		now := time.Now()
		info := self.Info
		info.Name = r.Name
		if err := w.publishOwn(now, info); err != nil {
			return err
		}
		out = w.describe(now)
		return nil
	})
	return out, err
}

// Invite implements api.Backend.
func (n *Node) Invite(ctx context.Context, r api.InviteRequest) (reply api.InviteReply, err error) {
	err = n.with(ctx, r.Network, func(w *network) (err error) {
		reply, err = w.invite(time.Now(), r)
		return err
	})
	return reply, err
}

func (w *network) invite(now time.Time, r api.InviteRequest) (api.InviteReply, error) {
	seed := key.NewInviteSeed()
	expires := now.Add(time.Duration(r.Expires) * time.Second).Truncate(time.Second)
	rec, err := w.set.NewInvite(w.keys.Identity, now, seed, member.InviteTerms{Uses: uint32(r.Uses), NotAfter: expires, Groups: r.Groups, Approve: r.Approve})
	if err != nil {
		return api.InviteReply{}, err
	}
	hints := w.hints()
	targets := w.codeTargets(hints)
	if len(hints)+len(targets) == 0 && w.n.dht == nil && w.n.beacons == nil {
		return api.InviteReply{}, api.Errorf(api.CodeNetworkDown, "this machine has no address at which others could reach it").
			Hintf("connect it to a network, then try again")
	}
	if err := w.publish(now, rec); err != nil {
		return api.InviteReply{}, err
	}
	code := wire.Code{Network: [16]byte(w.id[:16]), Seed: seed, NotAfter: expires.Unix(), Approve: r.Approve, Mask: w.roster.Policy.Mask, Hints: hints, Targets: targets}
	return api.InviteReply{Network: w.name(), ID: rec.ID.String(), Code: code.Text(), Uses: r.Uses, Expires: api.At(expires), Groups: r.Groups, Approve: r.Approve}, nil
}

// hints lists where a newcomer may find a member: this node first, in each family that it has, then two others that were reached
// last, then what else is known of this node. The code keeps as many as fit.
func (w *network) hints() (out []netip.AddrPort) {
	own := slices.Clone(w.endpoints())
	if len(own) > 0 {
		is4 := own[0].Addr().Is4()
		out, own = append(out, own[0]), own[1:]
		if i := slices.IndexFunc(own, func(a netip.AddrPort) bool { return a.Addr().Is4() != is4 }); i >= 0 {
			out, own = append(out, own[i]), slices.Delete(own, i, i+1)
		}
	}
	if w.mesh != nil {
		for _, p := range w.mesh.freshest(2) {
			out = append(out, w.mesh.path.Status(p.id).Way.Addr)
		}
	}
	return append(out, own...)
}

// endpoints lists where this node may be reached, up or down.
func (w *network) endpoints() []netip.AddrPort {
	if w.mesh != nil {
		return w.mesh.endpoints()
	}
	return w.n.localEndpoints()
}

// freshest lists up to k members that a direct path leads to, the last proven first.
func (m *mesh) freshest(k int) []*peer {
	var list []*peer
	for _, p := range m.peers {
		if st := m.path.Status(p.id); p.direct && !p.device && st.State == path.StateAlive {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int {
		return m.path.Status(b.id).LastProven.Compare(m.path.Status(a.id).LastProven)
	})
	return list[:min(k, len(list))]
}

// Approve implements api.Backend.
func (n *Node) Approve(ctx context.Context, r api.MemberRequest) (out api.Member, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		p, err := w.findPending(r.Member)
		if err != nil {
			return err
		}
		now := time.Now()
		rec, err := w.set.Approve(w.keys.Identity, now, p.ID)
		if err != nil {
			return err
		}
		if err := w.publish(now, rec); err != nil {
			return err
		}
		m, _ := w.roster.ByID(p.ID)
		out = w.member(m)
		return nil
	})
	return out, err
}

func (w *network) findPending(text string) (member.Pending, error) {
	switch waiting := w.roster.Pending; {
	case len(waiting) == 0:
		return member.Pending{}, api.Errorf(api.CodeNoSuchPending, "nobody waits for approval in %q", w.name())
	case text == "" && len(waiting) == 1:
		return waiting[0], nil
	case text == "":
		var names []string
		for _, p := range waiting {
			names = append(names, p.Name)
		}
		return member.Pending{}, api.Errorf(api.CodeAmbiguous, "%d newcomers wait: %s", len(waiting), strings.Join(names, ", ")).Hintf("say whom: warren approve NAME")
	}
	p, err := w.roster.FindPending(text)
	if err != nil {
		return p, api.Errorf(api.CodeNoSuchPending, "%v", err).Hintf("see who waits: warren approve --list")
	}
	return p, nil
}

// Revoke implements api.Backend.
func (n *Node) Revoke(ctx context.Context, r api.RevokeRequest) (reply api.RevokeReply, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		id, err := w.findAnyone(r.Member)
		if err != nil {
			return err
		}
		if id == w.keys.Identity.NodeID() {
			return api.Errorf(api.CodeBadRequest, "that is this node itself").Hintf("to leave the network: warren leave")
		}
		reply, err = w.revoke(member.Removal{Subject: id, Scope: wire.ScopeAll, Reason: r.Reason, Compromised: r.Compromised})
		return err
	})
	return reply, err
}

// findAnyone finds a member or device, or else a newcomer that waits.
func (w *network) findAnyone(text string) (key.NodeID, error) {
	m, err := w.roster.Find(text)
	if err == nil {
		return m.ID, nil
	}
	if p, e := w.roster.FindPending(text); e == nil {
		return p.ID, nil
	}
	return key.NodeID{}, err
}

// revoke puts someone out and says who fell with it.
func (w *network) revoke(o member.Removal) (api.RevokeReply, error) {
	now := time.Now()
	before := w.roster
	records, err := w.set.Revoke(w.keys.Identity, now, o)
	if err != nil {
		return api.RevokeReply{}, err
	}
	reply := api.RevokeReply{Network: w.name(), Name: report.NameOf(w.roster, o.Subject), ID: o.Subject.String()}
	if w.mesh != nil {
		for _, p := range w.mesh.peers {
			if p.talks && !p.device && p.id != o.Subject {
				reply.Told++
			}
		}
	}
	if err := w.publish(now, records...); err != nil {
		return api.RevokeReply{}, err
	}
	w.renewDiscovery(now)
	for _, m := range before.Members {
		if _, still := w.roster.ByID(m.ID); !still && m.ID != o.Subject {
			reply.Also = append(reply.Also, m.Name)
		}
	}
	return reply, nil
}

// AdminAdd implements api.Backend.
func (n *Node) AdminAdd(ctx context.Context, r api.AdminRequest) (out api.Admin, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		m, err := w.roster.Find(r.Member)
		if err != nil {
			return err
		}
		var rights wire.Rights
		for _, name := range r.Rights {
			right, ok := wire.ParseRight(name)
			if !ok {
				return api.Errorf(api.CodeBadRequest, "there is no right %q", name).Hintf("rights are %s", wire.AllRights)
			}
			rights |= right
		}
		now := time.Now()
		rec, err := w.set.GrantAdmin(w.keys.Identity, now, m.ID, rights)
		if err != nil {
			return err
		}
		if err := w.publish(now, rec); err != nil {
			return err
		}
		i := slices.IndexFunc(w.roster.Admins, func(a member.Admin) bool { return a.ID == m.ID })
		if i < 0 {
			return fmt.Errorf("the grant to %s has no effect", m.Name)
		}
		out = report.Admin(w.roster, w.keys.Identity.NodeID(), w.roster.Admins[i])
		return nil
	})
	return out, err
}

// AdminRemove implements api.Backend.
func (n *Node) AdminRemove(ctx context.Context, r api.AdminRemoveRequest) (reply api.RevokeReply, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		m, err := w.roster.Find(r.Member)
		if err != nil {
			return err
		}
		reply, err = w.revoke(member.Removal{Subject: m.ID, Scope: wire.ScopeAdmin, Reason: r.Reason, Compromised: r.Compromised})
		return err
	})
	return reply, err
}

// DeviceAdd implements api.Backend.
func (n *Node) DeviceAdd(ctx context.Context, r api.DeviceRequest) (reply api.DeviceReply, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		self, ok := w.self()
		if !ok {
			return errNoMember
		}
		endpoints := w.endpoints()
		if len(endpoints) == 0 {
			return api.Errorf(api.CodeNetworkDown, "this machine has no address at which a device could reach it").Hintf("connect it to a network, then try again")
		}
		private := key.NewWGPrivate()
		now := time.Now()
		rec, err := w.set.IssueDevice(w.keys.Identity, now, member.NewDevice{WG: private.Public(), Name: r.Name, Gateways: []key.NodeID{self.ID}})
		if err != nil {
			return err
		}
		if err := w.publish(now, rec); err != nil {
			return err
		}
		d, ok := w.roster.ByWG(private.Public())
		if !ok {
			return fmt.Errorf("the device %s is not in the roster", r.Name)
		}
		reply = api.DeviceReply{Network: w.name(), Name: d.Name, ID: d.ID.String(), Addresses: report.Addresses(d), Gateway: self.Name,
			Config: report.DeviceConfig(private, d, self, endpoints[0])}
		return nil
	})
	return reply, err
}
