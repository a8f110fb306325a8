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
	if len(hints) == 0 {
		return api.InviteReply{}, api.Errorf(api.CodeNetworkDown, "this machine has no address at which others could reach it").
			Hintf("connect it to a network, then try again")
	}
	if err := w.publish(now, rec); err != nil {
		return api.InviteReply{}, err
	}
	code := wire.Code{Network: [16]byte(w.id[:16]), Seed: seed, NotAfter: expires.Unix(), Approve: r.Approve, Hints: hints}
	return api.InviteReply{Network: w.name(), ID: rec.ID.String(), Code: code.Text(), Uses: r.Uses, Expires: api.At(expires), Groups: r.Groups, Approve: r.Approve}, nil
}

// hints lists where a newcomer may find a member: this node first, then two others that were reached last, then what else is
// known of this node. The code keeps as many as fit.
func (w *network) hints() []netip.AddrPort {
	own := w.endpoints()
	var others []netip.AddrPort
	if w.mesh != nil {
		for _, p := range w.mesh.freshest(2) {
			others = append(others, w.mesh.path.Status(p.id).Endpoint)
		}
	}
	var out []netip.AddrPort
	if len(own) > 0 {
		out = append(append(append(out, own[0]), others...), own[1:]...)
	} else {
		out = others
	}
	return out
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
		if st := m.path.Status(p.id); p.talks && !p.device && st.State == path.StateAlive {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int {
		return m.path.Status(b.id).LastProven.Compare(m.path.Status(a.id).LastProven)
	})
	return list[:min(k, len(list))]
}

// Invites implements api.Backend.
func (n *Node) Invites(ctx context.Context, ref string) (out api.Invites, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		now := time.Now()
		out.Network = w.name()
		for _, v := range slices.Backward(w.roster.Invites) {
			_, status := w.roster.CheckInvite(now, v.Locator)
			out.Invites = append(out.Invites, api.Invite{ID: v.ID.String(), State: inviteStates[status], Uses: int(v.Uses), Used: int(v.Uses - v.Left),
				Created: api.At(v.Created), Expires: api.At(v.NotAfter), Groups: v.Groups, Approve: v.Approve, By: w.nameOf(v.Issuer)})
		}
		return nil
	})
	return out, err
}

var inviteStates = map[wire.JoinStatus]string{wire.JoinOK: api.InviteOpen, wire.JoinUsed: api.InviteUsed,
	wire.JoinExpired: api.InviteExpired, wire.JoinRevoked: api.InviteRevoked}

// nameOf names a node for people.
func (w *network) nameOf(id key.NodeID) string {
	if m, ok := w.roster.ByID(id); ok {
		return m.Name
	}
	return id.Short().String()
}

func (w *network) namesOf(ids []key.NodeID) (out []string) {
	for _, id := range ids {
		out = append(out, w.nameOf(id))
	}
	return out
}

// Members implements api.Backend.
func (n *Node) Members(ctx context.Context, ref string) (out api.Members, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		out.Network, out.ID = w.name(), w.id.String()
		for _, m := range w.roster.Members {
			out.Members = append(out.Members, w.member(m))
		}
		return nil
	})
	return out, err
}

func (w *network) member(m member.Member) api.Member {
	out := api.Member{Name: m.Name, ID: m.ID.String(), Addresses: addresses(m), PublicKey: wgText(m.WG), Self: m.ID == w.keys.Identity.NodeID(),
		Device: m.Device, Gateways: w.namesOf(m.Gateways), Root: m.Root, Admin: m.Rights != 0, Rights: m.Rights.Names(), Groups: m.Groups,
		Endpoints: m.Endpoints, Version: m.Info.Version, Joined: api.At(m.Joined), Via: api.ViaAdmin, By: w.nameOf(m.Via.Admin)}
	switch {
	case m.Via.Admin == m.ID:
		out.Via, out.By = api.ViaGenesis, ""
	case m.Via.Invite != wire.RecordID{}:
		out.Via, out.By = api.ViaInvite, w.nameOf(m.Via.Witness)
	}
	return out
}

func addresses(m member.Member) (out []netip.Addr) {
	if m.Addr4.IsValid() {
		out = append(out, m.Addr4)
	}
	return append(out, m.Addr6)
}

func wgText(k key.WGPublic) string {
	if k.IsZero() {
		return ""
	}
	return k.String()
}

// Pending implements api.Backend.
func (n *Node) Pending(ctx context.Context, ref string) (out api.PendingList, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		out.Network = w.name()
		for _, p := range w.roster.Pending {
			out.Pending = append(out.Pending, api.Pending{Name: p.Name, ID: p.ID.String(), Since: api.At(p.Since),
				Invite: p.Via.Invite.String(), Witness: w.nameOf(p.Via.Witness)})
		}
		return nil
	})
	return out, err
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
	reply := api.RevokeReply{Network: w.name(), Name: w.nameOf(o.Subject), ID: o.Subject.String()}
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
	for _, m := range before.Members {
		if _, still := w.roster.ByID(m.ID); !still && m.ID != o.Subject {
			reply.Also = append(reply.Also, m.Name)
		}
	}
	return reply, nil
}

// Admins implements api.Backend.
func (n *Node) Admins(ctx context.Context, ref string) (out api.Admins, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		out.Network = w.name()
		for _, a := range w.roster.Admins {
			out.Admins = append(out.Admins, w.admin(a))
		}
		slices.SortFunc(out.Admins, func(a, b api.Admin) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return out, err
}

func (w *network) admin(a member.Admin) api.Admin {
	out := api.Admin{Name: w.nameOf(a.ID), ID: a.ID.String(), Self: a.ID == w.keys.Identity.NodeID(), Root: a.Root, Rights: a.Rights.Names(), Since: api.At(a.Since)}
	if !a.By.IsZero() {
		out.By = w.nameOf(a.By)
	}
	return out
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
		out = w.admin(w.roster.Admins[i])
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
		reply = api.DeviceReply{Network: w.name(), Name: d.Name, ID: d.ID.String(), Addresses: addresses(d), Gateway: self.Name,
			Config: deviceConfig(private, d, self, endpoints[0])}
		return nil
	})
	return reply, err
}

// deviceConfig writes a configuration in the form of wg-quick(8).
func deviceConfig(private key.WGPrivate, d, gateway member.Member, endpoint netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, served by %s\n[Interface]\nPrivateKey = %s\nAddress = %v/32, %v/128\nMTU = %d\n\n", d.Name, gateway.Name, private.Base64(), d.Addr4, d.Addr6, deviceMTU)
	fmt.Fprintf(&b, "[Peer]\nPublicKey = %v\nAllowedIPs = %v/32, %v/128\nEndpoint = %v\nPersistentKeepalive = 25\n", gateway.WG, gateway.Addr4, gateway.Addr6, endpoint)
	return b.String()
}

// deviceMTU is what any path carries: a stock device cannot take part in probing (spec/51-path.md).
const deviceMTU = 1280
