package report

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
)

// Why a member is relayed or not reached, and what would help: each advice fits what both sides are behind. spec/73-nat.md#pairs
func TestAdviceFitsTheNATs(t *testing.T) {
	candidate := func(at string) path.CandidateStatus {
		return path.CandidateStatus{Way: wire.Direct(netip.MustParseAddrPort(at))}
	}
	four, six := candidate("203.0.113.1:7"), candidate("[2001:db8::1]:7")
	proven := four
	proven.LastProven = time.Unix(1, 0)
	for _, test := range []struct {
		what     string
		mesh     Mesh
		theirs   wire.NATClass
		hopeless bool
		at       path.CandidateStatus
		why, fix string
	}{
		{"strict, both", Mesh{NAT: wire.NATRandom}, wire.NATRandom, true, four, "both are behind NATs", "forward UDP port 1 to this machine on its router, or UDP port 2 to ben on the router there: one of the two is enough"},
		{"strict, here of a provider", Mesh{NAT: wire.NATRandom, Carried: true}, wire.NATRandom, true, four, "forwarding its UDP port on its router would fix it", "forward UDP port 2 to ben on the router there: the provider's NAT here passes no port on"},
		{"no IPv4 here", Mesh{NAT: wire.NATBlocked, NoIPv4: true}, wire.NATIndependent, true, four, "this machine has no IPv4 address", "IPv4 for this machine, or IPv6 for ben"},
		{"no IPv4 there", Mesh{NAT: wire.NATIndependent}, wire.NATBlocked, true, six, "it has no IPv4 address", "IPv6 for this machine, or IPv4 for ben"},
		{"no UDP here", Mesh{NAT: wire.NATBlocked}, wire.NATIndependent, true, four, "UDP does not get out of the network of this machine", "let UDP out of the network of this machine"},
		{"no UDP there", Mesh{NAT: wire.NATIndependent}, wire.NATBlocked, true, four, "UDP does not get out of its network", "let UDP out of the network of ben"},
		{"open, both", Mesh{NAT: wire.NATOpen}, wire.NATOpen, false, four, "no answer at 203.0.113.1:7; 1 attempt failed", "firewall"},
		{"unknown here", Mesh{}, wire.NATUnknown, false, four, "no answer at", "one of the two is enough, if no firewall"},
	} {
		n := &Network{Name: "home", Mesh: &test.mesh, Roster: &member.Roster{Members: []member.Member{{Name: "ben", Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.168.1.2:2")}}}}}
		n.Mesh.Port = 1
		p := Peer{Name: "ben", Kept: true, Path: path.Status{Candidates: []path.CandidateStatus{test.at},
			Punch: path.PunchStatus{Told: true, V4: wire.NAT{Class: test.theirs}, Hopeless: test.hopeless, Failed: 1}}}
		if why := n.whyRelayed(p.Path); !strings.Contains(why, test.why) {
			t.Errorf("%s: why: %s; want %q", test.what, why, test.why)
		}
		if fix := n.remedy(p); !strings.Contains(fix, test.fix) {
			t.Errorf("%s: remedy: %s; want %q", test.what, fix, test.fix)
		}
	}

	n := &Network{Name: "home", Mesh: &Mesh{NAT: wire.NATRandom, Port: 1, Peers: map[key.NodeID]Peer{}}, Roster: &member.Roster{}}
	lost := Peer{Name: "ben", Kept: true}
	if why, fix := n.impossible(lost); !strings.Contains(why, "unless its NAT is better") || !strings.Contains(fix, "its port to ben") {
		t.Errorf("nothing is known of it: %q, %q", why, fix)
	}
	lost.Path.Candidates = []path.CandidateStatus{proven}
	if why, _ := n.impossible(lost); why != "" {
		t.Errorf("it was reached directly before: %q", why)
	}
	strict := Peer{Name: "ben", Kept: true, Path: path.Status{Punch: path.PunchStatus{Told: true, V4: wire.NAT{Class: wire.NATRandom}, Hopeless: true}}}
	n.Mesh.Peers[key.NodeID{1}] = Peer{Name: "ann", Talks: true}
	if why, _ := n.impossible(strict); !strings.Contains(why, "no member that is in reach has a link with it") {
		t.Errorf("with ann in reach: %q", why)
	}
	n.Mesh.NAT = wire.NATIndependent
	if why, _ := n.impossible(strict); why != "" {
		t.Errorf("behind a good NAT: %q", why)
	}
}
