package report

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
)

// whyRelayed says why there is no direct path to a peer, and what would fix it, as far as that is known (spec/73-nat.md#pairs).
func (n *Network) whyRelayed(st path.Status) string {
	own, u := n.Mesh.NAT, st.Punch
	theirs := u.V4.Class
	fix, either := fmt.Sprintf("forwarding UDP port %d to this machine on its router would fix it", n.Mesh.Port), fmt.Sprintf("UDP port %d on one router", n.Mesh.Port)
	if n.Mesh.Carried {
		fix, either = "forwarding its UDP port to it on its router would fix it", "its UDP port on its router"
	}
	const strict = "a NAT that gives each destination another port"
	switch {
	case u.Told && u.Hopeless && n.Mesh.NoIPv4:
		return "this machine has no IPv4 address, and not both have IPv6"
	case u.Told && u.Hopeless && own == wire.NATBlocked:
		return "UDP does not get out of the network of this machine over IPv4, and not both have IPv6"
	case u.Told && u.Hopeless && theirs == wire.NATBlocked && onlyIPv6(st):
		return "it has no IPv4 address, and not both have IPv6"
	case u.Told && u.Hopeless && theirs == wire.NATBlocked:
		return "UDP does not get out of its network over IPv4, and not both have IPv6"
	case u.Told && u.Hopeless:
		return fmt.Sprintf("both are behind NATs that give each destination another port: only a relay works; forwarding %s would fix it", either)
	case u.Failed == 0 && u.Phase != "" || u.Phase == "searching":
		return "one is being looked for"
	case u.Failed == 0:
		return tried(st)
	}
	after := fmt.Sprintf("%d %s failed", u.Failed, plural(u.Failed, "attempt", "attempts"))
	if wait := u.Next.Sub(n.Now).Round(time.Second); u.Phase == "waiting" && wait > 0 {
		after += fmt.Sprintf(", the next is in %v", wait)
	}
	switch {
	case !u.Told:
		return "it does not answer when asked for its addresses; " + after
	case own.Symmetric() && theirs.Symmetric():
		return "both are behind NATs that give each destination another port; " + after + "; " + fix
	case own.Symmetric():
		return "this machine is behind " + strict + "; " + after + "; " + fix
	case theirs.Symmetric():
		return "it is behind " + strict + "; " + after + "; " + fix
	}
	return tried(st) + "; " + after
}

// addressesTried lists up to three addresses of a peer that are no relay's.
func addressesTried(st path.Status) (out []netip.AddrPort) {
	for _, c := range st.Candidates {
		if !c.Way.IsRelayed() && len(out) < 3 {
			out = append(out, c.Way.Addr)
		}
	}
	return out
}

// onlyIPv6 reports whether all addresses that are known of a peer are of IPv6.
func onlyIPv6(st path.Status) bool {
	some := false
	for _, c := range st.Candidates {
		if c.Way.IsRelayed() || c.Way.IsStream() {
			continue
		}
		if c.Way.Addr.Addr().Is4() {
			return false
		}
		some = true
	}
	return some
}

// tried says which addresses of a peer were tried in vain.
func tried(st path.Status) string {
	if list := addressesTried(st); len(list) > 0 {
		return "no answer at " + Places(list)
	}
	return "no address of it is known"
}

// impossible says why no path to p can be, and the one thing that would make one, as far as the NATs are known: both give each
// destination another port, or this one does and p says nothing; and nobody can relay. "" when a path may come.
func (n *Network) impossible(p Peer) (why, fix string) {
	theirs := p.Path.Punch
	was := slices.ContainsFunc(p.Path.Candidates, func(x path.CandidateStatus) bool { return !x.Way.IsRelayed() && !x.LastProven.IsZero() })
	if p.Talks || p.Device || !p.Kept || !n.Mesh.NAT.Symmetric() || len(p.Routes) > 0 {
		return "", ""
	}
	company := n.company()
	nobody := "no third member that could relay is in reach"
	if company {
		nobody = "no member that is in reach has a link with it"
	}
	switch {
	case theirs.Told && theirs.V4.Class.Symmetric() && theirs.Hopeless:
		why = "no path can exist: this machine and it are both behind NATs that give each destination another port, and " + nobody
	case theirs.Told || company || was || p.CalledUs:
		return "", ""
	default:
		why = "no path can exist unless its NAT is better than this one's: this machine is behind a NAT that gives each destination another port, and " + nobody
	}
	return why, fmt.Sprintf("one thing is enough: %s; or any third member that both can reach; it is noticed within ten minutes, or when you run: warren ping %s", n.forward(p), p.Name)
}

// forward says which port on which router would open a direct way to p.
func (n *Network) forward(p Peer) string {
	port := "its port"
	for _, mem := range n.Roster.Members {
		if mem.Name == p.Name && len(mem.Endpoints) > 0 { // its own addresses come first, with its own port
			port = fmt.Sprintf("UDP port %d", mem.Endpoints[0].Port())
		}
	}
	there := fmt.Sprintf("%s to %s on the router there", port, p.Name)
	if n.Mesh.Carried {
		return fmt.Sprintf("forward %s: the provider's NAT here passes no port on", there)
	}
	return fmt.Sprintf("forward UDP port %d to this machine on its router, or %s", n.Mesh.Port, there)
}

// company reports whether some member answers.
func (n *Network) company() bool {
	for _, p := range n.Mesh.Peers {
		if p.Talks && !p.Device {
			return true
		}
	}
	return false
}

// remedy says what would open a direct path to a peer that is relayed; "" when it is not known, or may still come by itself.
func (n *Network) remedy(p Peer) string {
	st, u := p.Path, p.Path.Punch
	switch {
	case !u.Told || !u.Hopeless && u.Failed == 0:
		return ""
	case u.Hopeless && n.Mesh.NoIPv4:
		return "IPv4 for this machine, or IPv6 for " + p.Name
	case u.Hopeless && u.V4.Class == wire.NATBlocked && onlyIPv6(st):
		return "IPv6 for this machine, or IPv4 for " + p.Name
	case n.Mesh.NAT == wire.NATBlocked:
		return "let UDP out of the network of this machine"
	case u.V4.Class == wire.NATBlocked:
		return "let UDP out of the network of " + p.Name
	}
	switch {
	case n.Mesh.NAT.Symmetric() || u.V4.Class.Symmetric():
	case n.Mesh.NAT == wire.NATOpen || u.V4.Class == wire.NATOpen:
		return fmt.Sprintf("see whether a firewall, here or at %s, keeps UDP from going both ways", p.Name)
	case n.Mesh.NAT == wire.NATUnknown && !n.Mesh.Carried:
		return n.forward(p) + ": one of the two is enough, if no firewall keeps UDP from going both ways"
	}
	if n.Mesh.Carried {
		return n.forward(p)
	}
	return n.forward(p) + ": one of the two is enough"
}
