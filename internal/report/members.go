package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/wire"
)

// Invites lists the invites of a network, the newest first.
func Invites(now time.Time, network string, r *member.Roster) api.Invites {
	out := api.Invites{Network: network}
	states := map[wire.JoinStatus]string{wire.JoinOK: api.InviteOpen, wire.JoinUsed: api.InviteUsed,
		wire.JoinExpired: api.InviteExpired, wire.JoinRevoked: api.InviteRevoked}
	for _, v := range slices.Backward(r.Invites) {
		_, status := r.CheckInvite(now, v.Locator)
		out.Invites = append(out.Invites, api.Invite{ID: v.ID.String(), State: states[status], Uses: int(v.Uses), Used: int(v.Uses - v.Left),
			Created: api.At(v.Created), Expires: api.At(v.NotAfter), Groups: v.Groups, Approve: v.Approve, By: NameOf(r, v.Issuer)})
	}
	return out
}

// Members lists all members and devices, to the node self.
func Members(network string, id key.NetworkID, self key.NodeID, r *member.Roster) api.Members {
	out := api.Members{Network: network, ID: id.String()}
	for _, m := range r.Members {
		out.Members = append(out.Members, Member(r, self, m))
	}
	return out
}

// Member says what r knows of a member, to the node self.
func Member(r *member.Roster, self key.NodeID, m member.Member) api.Member {
	out := api.Member{Name: m.Name, ID: m.ID.String(), Addresses: Addresses(m), PublicKey: wgText(m.WG), Self: m.ID == self,
		Device: m.Device, Gateways: namesOf(r, m.Gateways), Root: m.Root, Admin: m.Rights != 0, Rights: m.Rights.Names(), Groups: m.Groups,
		Endpoints: m.Endpoints, Version: m.Info.Version, Joined: api.At(m.Joined), Via: api.ViaAdmin, By: NameOf(r, m.Via.Admin)}
	switch {
	case m.Via.Admin == m.ID:
		out.Via, out.By = api.ViaGenesis, ""
	case m.Via.Invite != wire.RecordID{}:
		out.Via, out.By = api.ViaInvite, NameOf(r, m.Via.Witness)
	}
	return out
}

// Pending lists who waits for approval.
func Pending(network string, r *member.Roster) api.PendingList {
	out := api.PendingList{Network: network}
	for _, p := range r.Pending {
		out.Pending = append(out.Pending, api.Pending{Name: p.Name, ID: p.ID.String(), Since: api.At(p.Since),
			Invite: p.Via.Invite.String(), Witness: NameOf(r, p.Via.Witness)})
	}
	return out
}

// Admins lists the admins by name, to the node self.
func Admins(network string, self key.NodeID, r *member.Roster) api.Admins {
	out := api.Admins{Network: network}
	for _, a := range r.Admins {
		out.Admins = append(out.Admins, Admin(r, self, a))
	}
	slices.SortFunc(out.Admins, func(a, b api.Admin) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Admin says what r knows of an admin, to the node self.
func Admin(r *member.Roster, self key.NodeID, a member.Admin) api.Admin {
	out := api.Admin{Name: NameOf(r, a.ID), ID: a.ID.String(), Self: a.ID == self, Root: a.Root, Rights: a.Rights.Names(), Since: api.At(a.Since)}
	if !a.By.IsZero() {
		out.By = NameOf(r, a.By)
	}
	return out
}

// Policy lists what admins have settled.
func Policy(network string, r *member.Roster) api.Policy {
	out := api.Policy{Network: network}
	for _, l := range r.Policy.Lines() {
		s := api.PolicySetting{Name: l.Name, Value: l.Value}
		if l.By != (key.NodeID{}) {
			s.By, s.Since = NameOf(r, l.By), api.At(l.Since)
		}
		out.Settings = append(out.Settings, s)
	}
	return out
}

// DeviceMTU is what any path carries: a stock device cannot take part in probing (spec/51-path.md).
const DeviceMTU = 1280

// DeviceConfig writes the configuration of a device in the form of wg-quick(8), private key included.
func DeviceConfig(private key.WGPrivate, d, gateway member.Member, endpoint netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, served by %s\n[Interface]\nPrivateKey = %s\nAddress = %v/32, %v/128\nMTU = %d\n\n", d.Name, gateway.Name, private.Base64(), d.Addr4, d.Addr6, DeviceMTU)
	fmt.Fprintf(&b, "[Peer]\nPublicKey = %v\nAllowedIPs = %v/32, %v/128\nEndpoint = %v\nPersistentKeepalive = 25\n", gateway.WG, gateway.Addr4, gateway.Addr6, endpoint)
	return b.String()
}
