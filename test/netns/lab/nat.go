//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// NATKind says how a NAT maps UDP and whom it lets in (in the words of RFC 4787: mapping, then filtering).
//
// The kernel's own NAT gives each connection, that is each pair of addresses and ports, a port of its own: by itself it knows
// no cones. It keeps the source port where that is free, though, so that all connections of one inside port share one outside
// port as long as no two hosts of a test use the same; and it takes back in what answers, by address and port. That is
// PortRestricted. What may come in beside it is what two sets say, into which each datagram that leaves is noted.
type NATKind int

// The kinds.
const (
	// FullCone maps one inside port to one outside port; whoever sends there gets in.
	FullCone NATKind = iota
	// AddressRestricted is FullCone for those to whose address that port has sent.
	AddressRestricted
	// PortRestricted is FullCone for those to whose address and port that port has sent.
	PortRestricted
	// SymmetricRandom draws a new outside port for each destination: masquerade fully-random.
	SymmetricRandom
	// SymmetricPredictable takes the next outside port for each destination, whoever asks: a counter of nftables (numgen inc)
	// chooses from a map of predictablePorts ports, from predictableFirst on. It starts again at the first when it is through.
	SymmetricPredictable
)

// String names the kind.
func (k NATKind) String() string {
	return [...]string{"full cone", "address-restricted", "port-restricted", "symmetric random", "symmetric predictable"}[k]
}

// Ports of SymmetricPredictable.
const (
	predictableFirst = 30000
	predictablePorts = 4000
)

// Passage says what a router lets out.
type Passage int

// The passages. What answers comes back in all of them.
const (
	Everything  Passage = iota
	NoUDP               // all but UDP
	OnlyTCP443          // TCP to port 443, and nothing else
	OnlyByProxy         // nothing: the router runs an HTTP and SOCKS5 proxy at [ProxyPort]
)

// ProxyPort is where the router of OnlyByProxy has its proxy. It connects to port 443 of anybody, and does nothing else.
const ProxyPort = 3128

// NAT is what a router does.
type NAT struct {
	Kind    NATKind
	Hairpin bool // two inside reach each other by their outside addresses, as far as Kind lets them; not of the symmetric kinds
	Passage Passage
}

// Translate makes the router a NAT between two ports, which have one IPv4 address each. From outside nothing of it is reached but by
// ping.
func (h *Host) Translate(n NAT, outside *Port, public netip.Addr, inside *Port, lan netip.Prefix) {
	h.lab.t.Helper()
	h.NFT(n.rules(outside.Dev, inside.Dev, public, lan.Masked()))
	if n.Passage == OnlyByProxy {
		h.startServer("lab:proxy", netip.AddrPortFrom(lan.Addr(), ProxyPort).String())
	}
}

func (n NAT) symmetric() bool { return n.Kind == SymmetricRandom || n.Kind == SymmetricPredictable }

// rules writes the nftables rules.
//
//	note   every datagram from inside, before any translation: which port is whose, and where it sent to
//	pre    what comes to our address and is no answer: translated to whose port it is, if the kind lets it in
//	post   what goes out, and what turns back inside, gets our address
//	in     all else to our address: dropped without a word, or a connection of our own would be in the way of theirs
//	pass   what may go through
func (n NAT) rules(out, in string, public netip.Addr, lan netip.Prefix) string {
	var pre, post, pass []string
	if !n.symmetric() {
		allowed, turned := "", ""
		switch n.Kind {
		case AddressRestricted:
			allowed, turned = "ip saddr . udp dport @addresses", "ip daddr . udp dport @addresses"
		case PortRestricted:
			// From outside, most of those are answers, which the kernel knows without us.
			allowed, turned = "ip saddr . udp sport . udp dport @ports", "ip daddr . udp sport . udp dport @ports"
		}
		pre = append(pre, fmt.Sprintf("iifname %q ip daddr %s meta l4proto udp %s dnat ip to udp dport map @owners", out, public, allowed))
		if n.Hairpin {
			pre = append(pre, fmt.Sprintf("iifname %q ip daddr %s meta l4proto udp %s dnat ip to udp dport map @owners", in, public, turned))
			post = append(post, fmt.Sprintf("oifname %q ip saddr %s ct status dnat snat to %s", in, lan, public))
		}
	}
	switch n.Kind {
	case SymmetricRandom:
		post = append(post, fmt.Sprintf("oifname %q meta l4proto udp masquerade fully-random", out))
	case SymmetricPredictable:
		ports := make([]string, predictablePorts)
		for i := range ports {
			ports[i] = fmt.Sprintf("%d : %d", i, predictableFirst+i)
		}
		post = append(post, fmt.Sprintf("oifname %q meta l4proto udp snat ip to %s : numgen inc mod %d map { %s }", out, public, predictablePorts, strings.Join(ports, ", ")))
	}
	post = append(post, fmt.Sprintf("oifname %q masquerade", out))
	letIn := "ct status dnat drop"
	switch n.Passage {
	case Everything:
		letIn = "ct status dnat accept"
	case NoUDP:
		pass = append(pass, "meta l4proto udp drop")
	case OnlyTCP443:
		pass = append(pass, "tcp dport 443 accept", "drop")
	case OnlyByProxy:
		pass = append(pass, "drop")
	}
	chain := func(name, hook string, rules []string) string {
		return fmt.Sprintf(" chain %s {\n  type %s;\n  %s\n }\n", name, hook, strings.Join(rules, "\n  "))
	}
	return "table ip nat {\n" +
		" map owners { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 65535; }\n" +
		" set addresses { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 65535; }\n" +
		" set ports { type ipv4_addr . inet_service . inet_service; flags dynamic,timeout; timeout 2m; size 65535; }\n" +
		chain("note", "filter hook prerouting priority mangle", []string{
			fmt.Sprintf("iifname %q update @owners { udp sport : ip saddr . udp sport }", in),
			fmt.Sprintf("iifname %q update @addresses { ip daddr . udp sport }", in),
			fmt.Sprintf("iifname %q update @ports { ip daddr . udp dport . udp sport }", in),
		}) +
		chain("pre", "nat hook prerouting priority dstnat", pre) +
		chain("post", "nat hook postrouting priority srcnat", post) +
		chain("in", "filter hook input priority filter", []string{
			"ct state established,related accept",
			fmt.Sprintf("ip daddr %s meta l4proto { udp, tcp } drop", public),
		}) +
		chain("pass", "filter hook forward priority filter", append([]string{
			"ct state established,related accept",
			letIn,
			fmt.Sprintf("iifname %q drop", out),
		}, pass...)) +
		"}\n"
}

// forget is the role "lab:forget": the NAT of this namespace forgets all connections.
func forget([]string) error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }

// Firewall6 lets IPv6 through the router from inside, with what answers, and nothing else from outside.
func (h *Host) Firewall6(outside *Port) {
	h.lab.t.Helper()
	h.NFT(fmt.Sprintf("table ip6 wall {\n chain pass {\n  type filter hook forward priority filter;\n  ct state established,related accept\n  iifname %q drop\n }\n}\n", outside.Dev))
}
