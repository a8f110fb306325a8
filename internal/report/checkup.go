package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	clockSlack    = time.Minute      // between clocks of members
	clockJump     = 5 * time.Second  // of the clock against the time that passed
	mtuSettled    = 30 * time.Second // after which sizes were tried
	maxPeersShown = 20               // of findings about peers of one network
)

// Checkup is what the doctor knows. Findings makes words of it.
type Checkup struct {
	Now, Built time.Time     // Built: zero is not known
	Jump       time.Duration // what the clock went further than time did, since the start
	Port       uint16
	V4, V6     Family
	Mapping    Mapping
	MappingOff bool

	DHTOff, HasDHT   bool // DHTOff: by the config file
	DHT              DHT
	Found, Unfound   []string // names of the DHT's first hosts
	LANOff, LANWorks bool

	Pools    []Pool
	Overlaps []Overlap
	Tunnels  []string // of others, which take all traffic
	Drops    map[string]uint64
	Warnings []string

	names                    []string // of the networks
	direct, streams, relayed int      // members that answer, by how: UDP, TCP, over members
	anchor                   bool
	callers                  []string // reached us unasked
	newest                   time.Time
	newestBy                 string   // who signed it
	newestOwn                bool     // it was this node
	said                     int      // members who showed their clock in a handshake
	fast, slow               []string // those of them whose clock was ahead, and behind
	signers                  int      // other members who have signed something
	ahead                    []string // those of them who did so at a time that is yet to come here
	narrow, thin             []narrow // thin: mtu is not known
	networks                 []api.Finding
	peers                    []api.Finding
	relays                   []api.Finding
}

type (
	// Family is how this machine stands in one address family.
	Family struct {
		NAT     wire.NAT
		Local   []netip.Addr
		Outside []netip.AddrPort // as others see it
	}
	// Mapping is what the router said.
	Mapping struct {
		Asked    bool
		Gateway  netip.Addr
		External netip.AddrPort // zero: none
		Protocol string
		Public   bool
		Why      string // there is none; "" if that is not known yet
		Spoken   bool   // the router speaks a protocol by which it could pass a port on
	}
	// DHT is how it went with the DHT.
	DHT struct {
		Queries, Replies   uint64
		Hosts, Nodes       int            // addresses asked; known to have answered
		Unresolved         bool           // its first hosts were needed, and no resolver found one
		Address4, Address6 netip.AddrPort // this machine as nodes report it; zero: too few do
	}
	// Pool is where a network's inner IPv4 addresses come from.
	Pool struct {
		Network string
		Prefix  netip.Prefix
	}
	// Overlap is a Pool that hides What, or is hidden by it.
	Overlap struct {
		Pool
		What string
	}
	narrow struct {
		network, peer string
		mtu           int
	}
)

// Family returns the part of the family of a.
func (c *Checkup) Family(a netip.Addr) *Family {
	if a.Is4() {
		return &c.V4
	}
	return &c.V6
}

// answered reports whether somebody outside has answered.
func (f *Family) answered() bool {
	return f.NAT.Class != wire.NATUnknown && f.NAT.Class != wire.NATBlocked
}

// public returns an address of the internet that this machine has itself; zero if it has none.
func (f *Family) public() (none netip.Addr) {
	for _, a := range f.Local {
		if a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a) {
			return a
		}
	}
	return none
}

// shared is where providers take addresses from for customers behind their own NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// Carried reports whether a machine with these addresses has one of a provider's NAT, and none of any other IPv4 network.
func Carried(local []netip.Addr) bool {
	return slices.ContainsFunc(local, shared.Contains) && !slices.ContainsFunc(local, func(a netip.Addr) bool { return a.Is4() && !shared.Contains(a) })
}

// offline reports whether this machine has no address at all.
func (c *Checkup) offline() bool { return len(c.V4.Local)+len(c.V6.Local) == 0 }

// some lists up to five names, and says how many are left out.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// Findings makes words of all, in the order of spec/60-api.md#finding.
func (c *Checkup) Findings() (out []api.Finding) {
	if len(c.names) == 0 {
		out = append(out, api.Finding{Name: "network", State: api.FindingInfo, Text: "this machine is in no network, so nobody was asked how it looks from outside",
			Remedy: "sudo warren create NAME, or sudo warren join with a code"})
	}
	out = append(out, c.networks...)
	out = append(out, c.udp(), c.nat("ipv4", "IPv4", &c.V4), c.nat("ipv6", "IPv6", &c.V6), c.portFinding(), c.reach(), c.clock(), c.dns(), c.dhtFinding(), c.lan())
	out = append(out, c.conflicts()...)
	out = append(out, c.vpn())
	out = append(out, c.mtu()...)
	out = append(out, c.peers...)
	out = append(out, c.relays...)
	out = append(out, c.dropped()...)
	for _, w := range c.Warnings {
		text, remedy, _ := strings.Cut(w, "\n") // a joined error: what, and then what to do
		out = append(out, api.Finding{Name: "warning", State: api.FindingWarn, Text: text, Remedy: strings.ReplaceAll(remedy, "\n", "; ")})
	}
	return out
}

func (c *Checkup) udp() api.Finding {
	f := api.Finding{Name: "udp", State: api.FindingOK, Text: "UDP gets out, and answers come back"}
	blocked := func(x *Family) bool { return x.NAT.Class == wire.NATBlocked && len(x.Local) > 0 }
	switch {
	case c.V4.answered() || c.V6.answered() || c.DHT.Replies > 0:
	case c.direct > 0:
		f.Text = fmt.Sprintf("UDP gets out: %d %s by it; nobody outside has been asked by whom more could be told", c.direct, plural(c.direct, "member answers", "members answer"))
	case c.offline():
		f.State, f.Text, f.Remedy = api.FindingBad, "this machine has no address: it is offline", "connect it to a network"
	case c.streams > 0:
		f.State, f.Remedy = api.FindingWarn, c.letOut()
		f.Text = fmt.Sprintf("nothing comes back by UDP: %d %s by TCP instead, which is slower, and all others through them", c.streams,
			plural(c.streams, "member is reached", "members are reached"))
	case blocked(&c.V4) || blocked(&c.V6):
		f.State, f.Text = api.FindingBad, "nothing comes back by UDP: several addresses were asked, and none answered"
		f.Remedy = c.letOut() + "; where that may not be, have a member that everybody can reach take TCP: tls_port = 443 in its config file"
	default:
		f.State, f.Text = api.FindingInfo, "not known whether UDP gets out: nobody outside has answered yet, or was asked"
	}
	return f
}

func (c *Checkup) letOut() string {
	return fmt.Sprintf("let UDP out, from port %d to all ports, in the firewall of this machine and in that of its network", c.Port)
}

const askProvider = "ask the provider for a public IPv4 address, or for IPv6: no router here can pass a port on"

// nat says what stands between this machine and the internet in one family.
func (c *Checkup) nat(name, called string, x *Family) api.Finding {
	f := api.Finding{Name: name, State: api.FindingOK}
	seen := ""
	if len(x.Outside) > 0 {
		var each []netip.AddrPort // one that a router mapped may be what others see, too
		for _, a := range x.Outside {
			if !slices.Contains(each, a) {
				each = append(each, a)
			}
		}
		seen = ", and is seen as " + Places(each[:min(len(each), 3)])
	}
	behind := "behind a NAT"
	forward := fmt.Sprintf("forward UDP port %d to this machine on its router, or switch UPnP, NAT-PMP or PCP on there", c.Port)
	if Carried(x.Local) {
		behind, forward = "behind the NAT of a provider", askProvider
	}
	const twoHosts = "it takes two hosts outside, members or nodes of the DHT, that see this machine"
	switch {
	case len(x.Local) == 0 && name == "ipv6":
		f.State, f.Text = api.FindingInfo, "this machine has no IPv6 address: with IPv6, direct paths open where IPv4 has strict NATs in the way"
	case len(x.Local) == 0:
		f.State, f.Text = api.FindingInfo, "this machine has no IPv4 address"
	case x.NAT.Class == wire.NATOpen && name == "ipv4" && c.Mapping.External.IsValid():
		f.Text = "behind a NAT whose router passes the port on" + seen + ": members can reach this machine"
	case x.NAT.Class == wire.NATOpen:
		f.Text = "no NAT: others see this machine at its own address; a firewall may stand there all the same"
	case x.NAT.Class == wire.NATIndependent:
		f.Text = behind + " that keeps one port for all destinations" + seen + ": direct paths open with nearly everybody"
	case x.NAT.Class == wire.NATPredictable:
		f.State, f.Remedy = api.FindingInfo, forward
		f.Text = fmt.Sprintf("%s that gives each destination another port, %d further each time%s: direct paths open, except to those whose NAT is random", behind, x.NAT.Step, seen)
	case x.NAT.Class == wire.NATRandom:
		f.State, f.Remedy = api.FindingWarn, forward
		f.Text = behind + " that gives each destination another port, at random" + seen + ": direct paths open only with those who can be reached from everywhere; the others are relayed"
	case x.NAT.Class == wire.NATBlocked:
		f.State, f.Text, f.Remedy = api.FindingWarn, "nothing comes back by UDP over "+called, c.letOut()
	case x.public().IsValid():
		f.State, f.Text = api.FindingInfo, fmt.Sprintf("this machine has the address %v, which is of the internet; whether it is seen there is not known yet: %s", x.public(), twoHosts)
	case Carried(x.Local):
		f.State, f.Text = api.FindingInfo, behind+"; of what kind it is, is not known yet: "+twoHosts
	default:
		f.State, f.Text = api.FindingInfo, "not known yet what NAT there is: "+twoHosts
	}
	return f
}

func (c *Checkup) portFinding() api.Finding {
	f := api.Finding{Name: "port", State: api.FindingInfo}
	m := c.Mapping
	strict := c.V4.NAT.Class.Symmetric()
	forward := fmt.Sprintf("switch UPnP, NAT-PMP or PCP on in the router, or forward UDP port %d there by hand", c.Port)
	switch {
	case m.External.IsValid() && m.Public:
		f.State, f.Text = api.FindingOK, fmt.Sprintf("the router %v passes %v on to this machine (%s)", m.Gateway, m.External, m.Protocol)
	case m.External.IsValid():
		f.Text = fmt.Sprintf("the router %v passes %v on to this machine (%s), but that is no address of the internet: another NAT stands behind it, as of a provider", m.Gateway, m.External, m.Protocol)
		f.Remedy = "ask the provider for a public address, or for IPv6"
	case c.V4.NAT.Class == wire.NATOpen || c.V4.public().IsValid():
		f.State, f.Text = api.FindingOK, "no router needs to pass the port on: this machine has a public address itself"
	case Carried(c.V4.Local):
		f.Text, f.Remedy = "this machine is behind the NAT of a provider alone, and those pass no ports on", askProvider
	case c.MappingOff:
		f.Text = "the router is not asked to pass the port on: port_mapping is false in the config file"
	case m.Asked && !m.Gateway.IsValid():
		f.Text = "no IPv4 router is known that could pass the port on"
	case !m.Asked || m.Why == "":
		f.Text = "no router has passed the port on so far"
	case m.Spoken:
		f.Text = "the router was asked to pass the port on, and refuses: " + line(m.Why)
		f.Remedy = fmt.Sprintf("see in the router whether it may do so for this machine, or forward UDP port %d there by hand; has it no public address itself, another router stands behind it, which must forward too", c.Port)
	default:
		f.Text, f.Remedy = "the router does not pass the port on: "+line(m.Why), forward
	}
	if strict && f.State == api.FindingInfo {
		f.State = api.FindingWarn
		if f.Remedy == "" {
			f.Remedy = forward
		}
	}
	return f
}

// line is the words why in one line of letters: some of it is a router's, which may be anybody's.
func line(why string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ReplaceAll(why, "\n", "; "))
}

func (c *Checkup) reach() api.Finding {
	f := api.Finding{Name: "reach", State: api.FindingOK}
	var by []string
	for _, x := range []struct {
		n   int
		how string
	}{{c.direct, "directly"}, {c.streams, "by TCP"}, {c.relayed, "through others"}} {
		if x.n > 0 {
			by = append(by, fmt.Sprintf("%d %s", x.n, x.how))
		}
	}
	talk := "members in touch: " + strings.Join(by, ", ")
	switch {
	case len(c.callers) > 0:
		f.Text = fmt.Sprintf("%d %s this machine without being called first: %s", len(c.callers), plural(len(c.callers), "member has reached", "members have reached"), some(c.callers))
		if len(by) > 0 {
			f.Text += "; " + talk
		}
	case len(by) == 0:
		f.State, f.Text = api.FindingInfo, "not known who can reach this machine: no member is in touch"
	default:
		f.State, f.Text = api.FindingInfo, talk+"; none of them has reached this machine without being called first"
	}
	return f
}

func (c *Checkup) clock() api.Finding {
	f := api.Finding{Name: "clock", State: api.FindingOK, Text: "nothing that members have signed, and no clock of one that called, speaks against it"}
	if c.signers+c.said == 0 {
		f.Text = "nothing speaks against it, but nobody else has signed anything that could"
	}
	const remedy = "set the clock, and let it follow a time server (on Linux: timedatectl set-ntp true)"
	shown := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
	switch ahead := c.newest.Sub(c.Now); {
	case !c.Built.IsZero() && c.Now.Before(c.Built):
		f.State, f.Remedy = api.FindingBad, remedy
		f.Text = fmt.Sprintf("it is wrong: it shows %s, before this program was written", shown(c.Now))
	case ahead > clockSlack && c.newestOwn:
		f.State, f.Remedy = api.FindingBad, remedy
		f.Text = fmt.Sprintf("it is wrong, or was: it shows %s, and this machine has signed something at %s", shown(c.Now), shown(c.newest))
	case len(c.ahead) > 1 && 2*len(c.ahead) > c.signers:
		f.State, f.Remedy = api.FindingBad, remedy
		f.Text = fmt.Sprintf("it is behind: it shows %s, and %d of the %d others have signed something later, the last at %s: %s", shown(c.Now), len(c.ahead), c.signers, shown(c.newest), some(c.ahead))
	case ahead > clockSlack:
		f.State, f.Remedy = api.FindingWarn, remedy+", here and on "+c.newestBy
		f.Text = fmt.Sprintf("it is wrong, or that of another is: it shows %s, and %s has signed something at %s", shown(c.Now), c.newestBy, shown(c.newest))
	case len(c.slow) > 1 && 2*len(c.slow) > c.said:
		f.State, f.Remedy = api.FindingBad, remedy
		f.Text = fmt.Sprintf("it is ahead: it shows %s, and the clocks of %d of the %d members that called show less: %s", shown(c.Now), len(c.slow), c.said, some(c.slow))
	case len(c.fast) > 1 && 2*len(c.fast) > c.said:
		f.State, f.Remedy = api.FindingBad, remedy
		f.Text = fmt.Sprintf("it is behind: it shows %s, and the clocks of %d of the %d members that called show more: %s", shown(c.Now), len(c.fast), c.said, some(c.fast))
	case len(c.slow)+len(c.fast) > 0:
		others := some(append(slices.Clone(c.slow), c.fast...))
		f.State, f.Remedy = api.FindingWarn, remedy+", here and on "+others
		f.Text = fmt.Sprintf("it is wrong, or that of another is: it shows %s, and the clock of %s showed something else when it called", shown(c.Now), others)
	case c.Jump < -clockJump:
		f.State, f.Text = api.FindingWarn, fmt.Sprintf("it was set back by %v since the daemon started", (-c.Jump).Round(time.Second))
		f.Remedy = remedy
	case c.Jump > clockJump:
		f.State, f.Text = api.FindingInfo, fmt.Sprintf("it has gone %v further than the daemon has run: it was set, or the machine slept", c.Jump.Round(time.Second))
	}
	return f
}

func (c *Checkup) dns() api.Finding {
	f := api.Finding{Name: "dns", State: api.FindingOK}
	switch {
	case !c.HasDHT:
		f.State, f.Text = api.FindingInfo, "not tried: the DHT is off, so none of its hosts has to be found"
	case len(c.Found)+len(c.Unfound) == 0:
		f.Text = "not tried: no name is needed"
	case len(c.Found) == 0 && c.offline():
		f.State, f.Text = api.FindingInfo, "no name is found, for this machine is offline"
	case len(c.Found) == 0:
		f.State, f.Text = api.FindingWarn, "the resolver of this machine finds none of the hosts of the DHT: "+strings.Join(c.Unfound, ", ")
		f.Remedy = "see to the resolver (on Unix: /etc/resolv.conf); nodes of the DHT that are known from before are asked all the same"
	default:
		f.Text = fmt.Sprintf("the resolver of this machine finds %d of the %d names of the DHT's first hosts", len(c.Found), len(c.Found)+len(c.Unfound))
		if len(c.Unfound) > 0 {
			f.Text += ", but not " + strings.Join(c.Unfound, ", ")
		}
	}
	return f
}

func (c *Checkup) dhtFinding() api.Finding {
	f := api.Finding{Name: "dht", State: api.FindingOK}
	s := c.DHT
	switch {
	case c.DHTOff:
		f.State, f.Text = api.FindingInfo, "off in the config file: members are found by saved addresses, on the local networks and by what codes say"
	case !c.HasDHT:
		f.State, f.Text = api.FindingInfo, "not used on this machine"
	case s.Queries == 0 && s.Unresolved && c.offline():
		f.State, f.Text = api.FindingInfo, "not reached, for this machine is offline"
	case s.Queries == 0 && s.Unresolved:
		f.State, f.Text = api.FindingWarn, "not reached: none of its first hosts was found by its name, so nobody could be asked"
		f.Remedy = "see dns above"
	case s.Queries == 0:
		f.State, f.Text = api.FindingInfo, fmt.Sprintf("not needed so far, so nobody was asked; %d nodes are known from before", s.Nodes)
	case s.Replies == 0:
		f.State, f.Text = api.FindingWarn, fmt.Sprintf("no answer: %d %s asked in vain", s.Hosts, plural(s.Hosts, "host was", "hosts were"))
		f.Remedy = "let UDP out to all ports; where that may not be, name a host inside by dht_bootstrap in the config file, or set dht = false"
	default:
		f.Text = fmt.Sprintf("it answers: %d hosts were asked %d times and %d answers came", s.Hosts, s.Queries, s.Replies)
		for _, a := range []netip.AddrPort{s.Address4, s.Address6} {
			if a.IsValid() {
				f.Text += fmt.Sprintf("; this machine is seen there as %v", a)
			}
		}
	}
	return f
}

func (c *Checkup) lan() api.Finding {
	switch {
	case c.LANOff:
		return api.Finding{Name: "lan", State: api.FindingInfo, Text: "off in the config file: members on the local networks are not looked for"}
	case !c.LANWorks:
		return api.Finding{Name: "lan", State: api.FindingWarn, Text: "the local networks are not searched: beacons cannot be sent and heard here",
			Remedy: "the daemon's log says why"}
	case c.offline():
		return api.Finding{Name: "lan", State: api.FindingInfo, Text: "this machine is on no local network"}
	}
	return api.Finding{Name: "lan", State: api.FindingOK, Text: "beacons are heard on the local networks, and sent while members are looked for"}
}

func (c *Checkup) conflicts() (out []api.Finding) {
	for _, o := range c.Overlaps {
		out = append(out, api.Finding{Name: "conflict", State: api.FindingWarn,
			Text:   fmt.Sprintf("%s: its range %v overlaps %s: hosts of the one can hide those of the other", o.Network, o.Prefix, o.What),
			Remedy: "give the other another range, or found this network again with one that nobody here uses: warren create NAME --pool RANGE"})
	}
	if len(out) == 0 {
		out = append(out, api.Finding{Name: "conflict", State: api.FindingOK, Text: "no network of this machine overlaps Warren's"})
	}
	return out
}

func (c *Checkup) vpn() api.Finding {
	if len(c.Tunnels) == 0 {
		return api.Finding{Name: "vpn", State: api.FindingOK, Text: "no other tunnel takes all traffic"}
	}
	return api.Finding{Name: "vpn", State: api.FindingWarn,
		Text:   fmt.Sprintf("another VPN takes all traffic, perhaps Warren's too (%s): paths are longer and narrower, and the NAT is that VPN's", strings.Join(c.Tunnels, ", ")),
		Remedy: fmt.Sprintf("except this program, or UDP from port %d, from the other VPN (split tunnelling)", c.Port)}
}

func (c *Checkup) mtu() (out []api.Finding) {
	names := func(list []narrow, with bool) (who []string) {
		for _, x := range list {
			if text := fmt.Sprintf("%s in %s", x.peer, x.network); with {
				who = append(who, fmt.Sprintf("%s %d bytes", text, x.mtu))
			} else {
				who = append(who, text)
			}
		}
		return who
	}
	if n := len(c.thin); n > 0 {
		out = append(out, api.Finding{Name: "mtu", State: api.FindingWarn,
			Text:   fmt.Sprintf("%d %s those of 1280 bytes, which the network needs: %s", n, plural(n, "path carries small packets and loses", "paths carry small packets and lose"), some(names(c.thin, false))),
			Remedy: "packets of 1360 bytes must get through, with all that goes around them: raise the MTU of the network card, the line or the other tunnel that is smaller, here or there"})
	}
	if n := len(c.narrow); n > 0 {
		out = append(out, api.Finding{Name: "mtu", State: api.FindingInfo,
			Text: fmt.Sprintf("%d %s less than the interface, and packets are cut to fit, so nothing needs to be done: %s", n, plural(n, "path carries", "paths carry"), some(names(c.narrow, true)))})
	}
	if len(out) == 0 {
		out = append(out, api.Finding{Name: "mtu", State: api.FindingOK, Text: "no path is known to carry less than the interface"})
	}
	return out
}

// trouble is what drops mean, from how many on.
var trouble = []struct {
	reason        string
	least         uint64
	means, remedy string
}{
	{"socket_overflow", 100, "this machine did not read fast enough, and the kernel threw packets away", "let the kernel hold more: sysctl net.core.rmem_max=8388608, then start the daemon again"},
	{"control_busy", 10, "the daemon had more to do than it could", "see what else this machine does; the daemon's log may say more"},
	{"bad_auth", 100, "packets under our sessions were forged or damaged on the way", "if it goes on, look for a router or a firewall that changes packets"},
	{"bad_source", 10, "a member sends from addresses that are not its own", "it may try to pass on another network's traffic, which is not taken"},
	{"socket_write", 100, "the kernel would not send", "see the firewall of this machine: it may forbid UDP to some addresses"},
	{"tunnel_write", 100, "the kernel would not take what came for this machine", "see the firewall of this machine for the interface of the network"},
	{"relay_queue", 1000, "others send more through this machine than it can carry", "set relay_rate or transit in the config file"},
}

func (c *Checkup) dropped() (out []api.Finding) {
	for _, t := range trouble {
		if n := c.Drops[t.reason]; n >= t.least {
			out = append(out, api.Finding{Name: "drops", State: api.FindingWarn, Text: fmt.Sprintf("%s: %d times (%s)", t.means, n, t.reason), Remedy: t.remedy})
		}
	}
	if len(out) == 0 {
		out = append(out, api.Finding{Name: "drops", State: api.FindingOK, Text: "none that mean trouble"})
	}
	return out
}

// peer adds what is to be said of a member; of too many, nothing more.
func (c *Checkup) peer(network, name, state, text, remedy string) {
	if len(c.peers) < maxPeersShown {
		c.peers = append(c.peers, api.Finding{Name: "peer", State: state, Text: fmt.Sprintf("%s: %s %s", network, name, text), Remedy: remedy})
	}
}

// silent adds who does not answer.
func (c *Checkup) silent(network string, names []string, talking int) {
	if len(names) == 0 {
		return
	}
	f := api.Finding{Name: "peer", State: api.FindingInfo, Text: fmt.Sprintf("%s: no answer from %s: off, perhaps", network, some(names))}
	if talking == 0 {
		f.State, f.Text = api.FindingWarn, fmt.Sprintf("%s: no member answers; asked were: %s", network, some(names))
		switch {
		case c.offline():
			f.Remedy = "connect this machine to a network"
		case c.V4.NAT.Class == wire.NATBlocked && !c.V6.answered():
			f.Remedy = c.letOut() + "; where that may not be, have a member that everybody can reach take TCP: tls_port = 443 in its config file"
		case c.V4.NAT.Class == wire.NATOpen:
			f.Remedy = "see whether one of them is on, and whether UDP gets out there"
		default:
			f.Remedy = fmt.Sprintf("see whether one of them is on; if so, one thing is enough: forward UDP port %d to this machine on its router, or theirs on their router, or let any third member come that all can reach", c.Port)
		}
	}
	c.peers = append(c.peers, f)
}
