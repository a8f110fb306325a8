package report

import (
	"fmt"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
)

// Status says how the node sees the network.
func (n *Network) Status() api.Network {
	r := n.Roster
	out := api.Network{Name: n.Name, ID: n.ID.String(), Pool: r.Pool, Prefix6: r.Prefix6, Created: api.At(r.Created),
		Members: len(r.Members), Pending: len(r.Pending), MTU: n.MTU}
	out.State, out.Why = n.state()
	if n.Mesh != nil && !n.Joining {
		out.Interface, out.Relay = n.Mesh.Interface, n.relay()
	}
	if self, ok := r.ByID(n.Self); ok {
		out.Self = api.Self{Name: self.Name, ID: self.ID.String(), Addresses: Addresses(self), PublicKey: wgText(n.Key),
			Admin: self.Rights != 0, Rights: self.Rights.Names(), Groups: self.Groups, Endpoints: self.Endpoints,
			Anchor: n.Mesh != nil && n.Mesh.Anchor}
	} else {
		out.Self = api.Self{Name: n.lostName(), ID: n.Self.String(), PublicKey: wgText(n.Key)}
	}
	for _, m := range r.Members {
		if m.ID != n.Self {
			out.Peers = append(out.Peers, n.peer(m))
		}
	}
	return out
}

// state says whether the network is up, and why it is not.
func (n *Network) state() (state, why string) {
	switch {
	case n.Joining:
		return api.StatePending, "an admin must approve this node: warren approve " + n.Wanted
	case n.Mesh != nil:
		return api.StateUp, n.Why
	case n.Why == "" && !n.Up:
		return api.StateDown, "put down by a user: warren up brings it up again"
	}
	return api.StateDown, n.Why
}

// lostName is what to call this node while it has no place in the roster.
func (n *Network) lostName() string {
	if n.Wanted != "" {
		return n.Wanted
	}
	return n.Self.Short().String()
}

// relay says what this node carries for others.
func (n *Network) relay() api.Relay {
	m := n.Mesh
	out := api.Relay{Enabled: !m.Leaf, Overloaded: m.Overloaded, Packets: m.Relayed.Packets, Bytes: m.Relayed.Bytes, Dropped: m.Relayed.Dropped}
	switch {
	case !n.Roster.MayRelay(n.Self):
		out.Why = "the network's policy does not let this member relay"
	case m.Leaf && m.Transit == config.TransitOff:
		out.Why = "transit is off in the config file"
	case m.Leaf && m.Metered && m.MeteredBy == config.MeteredYes:
		out.Why = "metered is \"yes\" in the config file"
	case m.Leaf && m.Metered:
		out.Why = "the line of this machine is metered, says NetworkManager"
	case m.Leaf:
		out.Why = "this machine runs on its battery"
	case out.Overloaded:
		out.Why = "it had to drop what others sent through it"
	}
	return out
}

// peer says how a member is reached.
func (n *Network) peer(m member.Member) api.Peer {
	out := api.Peer{Name: m.Name, ID: m.ID.String(), Addresses: Addresses(m), PublicKey: wgText(m.WG), Device: m.Device,
		Admin: m.Rights != 0, Groups: m.Groups, Path: api.PathNone, Version: m.Info.Version}
	if n.Mesh == nil {
		out.Why = "the network is down here"
		return out
	}
	p, ok := n.Mesh.Peers[m.ID]
	if !ok {
		switch {
		case m.WG.IsZero():
			out.Why = "it has not said its WireGuard key yet"
		case m.Device:
			out.Why = fmt.Sprintf("a device of %v, which alone serves it", namesOf(n.Roster, m.Gateways))
		}
		return out
	}
	out.Linked, out.RxBytes, out.TxBytes = p.Link, p.RxBytes, p.TxBytes
	out.LastSeen, out.LastHandshake = moment(p.Received), moment(p.Handshake)
	switch {
	case p.Talks:
		n.reached(p, &out)
	case p.Device:
		out.Why = "not heard from yet, or not lately"
	case !p.Kept && len(p.Routes) > 0:
		out.Path, out.Via = api.PathRelayed, n.along(p.Routes[0].Route)
		out.Why = "not in use: the first packet goes this way, while a direct path is looked for"
	case len(p.Path.Candidates) == 0 && len(m.Endpoints) == 0:
		out.Why = "no address of it is known, and no member has a link with it"
	case !p.Kept:
		out.Why = "not in use: a session is made when something is sent"
	default:
		out.Why = "none of its addresses answers: " + candidates(p.Path)
		if why, fix := n.impossible(p); why != "" {
			out.Why = why + "; " + fix
		}
	}
	return out
}

func candidates(st path.Status) string {
	if list := addressesTried(st); len(list) > 0 {
		return Places(list)
	}
	return "none tried yet"
}

const thinText = "packets of 1280 bytes do not pass by it, small ones do"

// reached says how a peer with a path is reached, and why over relays if it is.
func (n *Network) reached(p Peer, out *api.Peer) {
	st := p.Path
	at, kind := n.Mesh.At(st.Way)
	out.Path, out.Endpoint, out.RTT, out.MTU = api.PathDirect, at, api.Millis(st.RTT), st.MTU
	out.Jitter, out.Loss = api.Millis(st.Jitter), share(st.Loss, st.RTT)
	if !st.Way.IsRelayed() {
		if kind != "" {
			out.Why = "UDP gets no answer: by " + kind + " over TCP"
		}
		switch {
		case st.Thin:
			out.Why = thinText
		case st.Doubt:
			out.Why = "the path may have failed: another is being tried"
		}
		return
	}
	out.Path, out.Via = api.PathRelayed, n.along(st.Way.Route)
	if st.Detour {
		out.Why = "faster than the direct path"
		return
	}
	out.Why = "no direct path: " + n.whyRelayed(st)
}

// nameOfShort names a member for people by its short id.
func (n *Network) nameOfShort(id key.ShortID) string {
	if id == n.Self.Short() {
		return NameOf(n.Roster, n.Self)
	}
	if whole, ok := n.Mesh.Whole(id); ok {
		return NameOf(n.Roster, whole)
	}
	return id.String()
}

// along names the relays of a route.
func (n *Network) along(r wire.Route) (out []string) {
	for _, id := range r.Relays() {
		out = append(out, n.nameOfShort(id))
	}
	return out
}
