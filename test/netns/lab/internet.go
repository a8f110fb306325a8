//go:build linux

package lab

import (
	"fmt"
	"net/netip"
)

// Internet is a lab with a router in the middle, and a network of its own at each of that router's ports: 20.n.0.0/16 and
// 2a01:n::/32, real addresses in the eyes of all programs. What is for nobody vanishes.
type Internet struct {
	*Lab
	core  *Host
	n     int
	addrs map[*Host][2]netip.Addr
}

// Internet adds one to the lab. Make one only.
func (l *Lab) Internet() *Internet {
	l.t.Helper()
	i := &Internet{Lab: l, core: l.Router("internet"), addrs: map[*Host][2]netip.Addr{}}
	i.core.IP("route", "add", "blackhole", "default")
	i.core.IP("-6", "route", "add", "blackhole", "default")
	return i
}

// attach connects a host to the next port, with the first address there of the families that it is to have.
func (i *Internet) attach(h *Host, has4, has6 bool) *Port {
	i.t.Helper()
	i.n++
	here, there := h.connect(i.core)
	v4, v6 := netip.AddrFrom4([4]byte{20, byte(i.n), 0, 1}), netip.MustParseAddr(fmt.Sprintf("2a01:%x::1", i.n))
	for _, f := range []struct {
		has  bool
		addr netip.Addr
		bits int
	}{{has4, v4, 16}, {has6, v6, 64}} {
		if f.has {
			there.Add(prefix(f.addr.Next(), f.bits))
			here.Add(prefix(f.addr, f.bits))
			h.IP("route", "add", "default", "via", f.addr.Next().String())
		}
	}
	i.addrs[h] = [2]netip.Addr{v4, v6}
	return here
}

func prefix(a netip.Addr, bits int) string { return netip.PrefixFrom(a, bits).String() }

// Public adds a host with public addresses, IPv4 and IPv6.
func (i *Internet) Public(name string) *Host {
	i.t.Helper()
	h := i.Host(name)
	i.attach(h, true, true)
	return h
}

// Addrs returns the addresses of a host that Public added.
func (i *Internet) Addrs(h *Host) (v4, v6 netip.Addr) { return i.addrs[h][0], i.addrs[h][1] }

// SiteKind is how the hosts of a site are connected to the Internet.
type SiteKind string

// The kinds. Where nothing else is said there is no IPv6.
const (
	SiteOpen        SiteKind = "open"                  // public addresses of both families, no router
	SiteFullCone    SiteKind = "full cone"             // behind a router of that kind, as the next four
	SiteAddress     SiteKind = "address-restricted"    //
	SitePort        SiteKind = "port-restricted"       //
	SitePredictable SiteKind = "symmetric predictable" //
	SiteRandom      SiteKind = "symmetric random"      //
	SiteDouble      SiteKind = "double NAT"            // two port-restricted ones, one behind the other
	SiteCarrier     SiteKind = "carrier NAT"           // a port-restricted one behind that of a provider, which is address-restricted
	SiteFirewall6   SiteKind = "IPv6 only"             // a public address behind a stateful firewall, no IPv4
	SiteDual        SiteKind = "dual stack"            // SitePort and SiteFirewall6 at once
	SiteNoUDP       SiteKind = "no UDP"                // behind a port-restricted router that lets no UDP out
	SiteTCP443      SiteKind = "only TCP 443"          // nothing else gets out
	SiteProxy       SiteKind = "only a proxy"          // nothing gets out but by an HTTP proxy, to port 443
)

// SiteKinds lists all kinds.
func SiteKinds() []SiteKind {
	return []SiteKind{SiteOpen, SiteFullCone, SiteAddress, SitePort, SitePredictable, SiteRandom, SiteDouble, SiteCarrier, SiteFirewall6, SiteDual,
		SiteNoUDP, SiteTCP443, SiteProxy}
}

// natOf tells what the outermost router of a kind does with IPv4.
func natOf(kind SiteKind) NAT {
	switch kind {
	case SiteFullCone:
		return NAT{Kind: FullCone}
	case SiteAddress, SiteCarrier:
		return NAT{Kind: AddressRestricted}
	case SitePredictable:
		return NAT{Kind: SymmetricPredictable}
	case SiteRandom:
		return NAT{Kind: SymmetricRandom}
	case SiteNoUDP:
		return NAT{Kind: PortRestricted, Passage: NoUDP}
	case SiteTCP443:
		return NAT{Kind: PortRestricted, Passage: OnlyTCP443}
	case SiteProxy:
		return NAT{Kind: PortRestricted, Passage: OnlyByProxy}
	}
	return NAT{Kind: PortRestricted}
}

// Networks behind NATs. All homes use the same, as most do; the hosts have different numbers in it, though.
var (
	homeNet    = netip.MustParsePrefix("192.168.1.1/24")
	outerNet   = netip.MustParsePrefix("192.168.0.1/24") // of the outer router of SiteDouble
	carrierNet = netip.MustParsePrefix("100.64.0.1/16")
)

// Site is a place where hosts are connected in one way.
type Site struct {
	Kind    SiteKind
	Router  *Host      // the innermost; nil at SiteOpen
	Outside netip.Addr // the IPv4 address by which the internet knows its hosts; zero: each has its own, or there is none
	Proxy   string     // the URL of its proxy; "": there is none
	Socks   string     // the same, as SOCKS5
	net     *Internet
	lan     *Switch
	lan4    netip.Prefix // of the router; zero: there is no IPv4
	lan6    netip.Prefix // of the router; zero: there is no IPv6
	n       int          // number of the newest host
}

// Site adds a site without hosts.
func (i *Internet) Site(name string, kind SiteKind) *Site {
	i.t.Helper()
	if kind == SiteOpen {
		return &Site{Kind: kind, net: i}
	}
	switch kind {
	case SiteDouble:
		return i.behind(name+"-outer", natOf(kind), outerNet).home(name, kind)
	case SiteCarrier:
		return i.Carrier(name+"-isp", natOf(kind)).home(name, kind)
	case SiteFirewall6, SiteDual:
		return i.firewall6(name, kind)
	}
	s := i.behind(name, natOf(kind), homeNet)
	s.Kind = kind
	return s
}

// SiteBehind adds a site behind one router of any kind.
func (i *Internet) SiteBehind(name string, n NAT) *Site {
	i.t.Helper()
	return i.behind(name, n, homeNet)
}

// Carrier adds the network of a provider, with its NAT: its hosts are [Site.Subscriber]s.
func (i *Internet) Carrier(name string, n NAT) *Site {
	i.t.Helper()
	return i.behind(name, n, carrierNet)
}

// Subscriber adds a site behind a port-restricted router that is a host of this one.
func (s *Site) Subscriber(name string) *Site {
	s.net.t.Helper()
	return s.home(name, SiteCarrier)
}

// behind adds a router between the internet and a network.
func (i *Internet) behind(name string, n NAT, lan4 netip.Prefix) *Site {
	i.t.Helper()
	r := i.Router(name + "-r")
	out := i.attach(r, true, false)
	s := &Site{Kind: SitePort, Router: r, Outside: i.addrs[r][0], net: i, lan: i.Switch(name + "-lan"), lan4: lan4, n: 10 * i.n}
	in := r.Plug(s.lan, lan4.String())
	r.Translate(n, out, s.Outside, in, lan4)
	if n.Passage == OnlyByProxy {
		s.Proxy = fmt.Sprintf("http://%s", netip.AddrPortFrom(lan4.Addr(), ProxyPort))
		s.Socks = fmt.Sprintf("socks5://%s", netip.AddrPortFrom(lan4.Addr(), ProxyPort))
	}
	return s
}

// home adds a port-restricted router behind this site's, and the site behind it.
func (s *Site) home(name string, kind SiteKind) *Site {
	i := s.net
	i.t.Helper()
	r := i.Router(name + "-r")
	out := s.plug(r)
	h := &Site{Kind: kind, Router: r, Outside: s.Outside, net: i, lan: i.Switch(name + "-lan"), lan4: homeNet, n: s.n}
	in := r.Plug(h.lan, homeNet.String())
	r.Translate(NAT{Kind: PortRestricted}, out, s.host4(), in, homeNet)
	return h
}

// firewall6 adds a site with an IPv6 network behind a firewall, and for SiteDual with a NAT.
func (i *Internet) firewall6(name string, kind SiteKind) *Site {
	i.t.Helper()
	r := i.Router(name + "-r")
	out := i.attach(r, kind == SiteDual, true)
	lan6 := netip.MustParsePrefix(fmt.Sprintf("2a01:%x:0:1::1/64", i.n))
	s := &Site{Kind: kind, Router: r, net: i, lan: i.Switch(name + "-lan"), lan6: lan6, n: 10 * i.n}
	in := r.Plug(s.lan, lan6.String())
	if kind == SiteDual {
		s.lan4, s.Outside = homeNet, i.addrs[r][0]
		in.Add(homeNet.String())
		r.Translate(natOf(kind), out, s.Outside, in, homeNet)
	}
	r.Firewall6(out)
	i.core.IP("route", "add", lan6.Masked().String(), "via", i.addrs[r][1].String())
	return s
}

// host4 is the IPv4 address of the newest host.
func (s *Site) host4() netip.Addr {
	b := s.lan4.Addr().As4()
	b[3] = byte(s.n)
	return netip.AddrFrom4(b)
}

// plug connects one more host to the site's network.
func (s *Site) plug(h *Host) *Port {
	s.net.t.Helper()
	s.n++
	p := h.Plug(s.lan)
	if s.lan4.IsValid() {
		p.Add(prefix(s.host4(), s.lan4.Bits()))
		h.IP("route", "add", "default", "via", s.lan4.Addr().String())
	}
	if s.lan6.IsValid() {
		b := s.lan6.Addr().As16()
		b[15] = byte(s.n)
		p.Add(prefix(netip.AddrFrom16(b), s.lan6.Bits()))
		h.IP("route", "add", "default", "via", s.lan6.Addr().String())
	}
	return p
}

// Add adds a host to the site.
func (s *Site) Add(name string) *Host {
	s.net.t.Helper()
	if s.Kind == SiteOpen {
		return s.net.Public(name)
	}
	h := s.net.Host(name)
	s.plug(h)
	return h
}

// Enter connects a host that comes from elsewhere: its other plugs are out.
func (s *Site) Enter(h *Host) *Port {
	s.net.t.Helper()
	return s.plug(h)
}

// Rebind makes the site's NAT forget all mappings, as one that was restarted, and give the hosts' UDP ports between first and last from
// now on. Not of the symmetric kinds.
func (s *Site) Rebind(first, last int) {
	s.net.t.Helper()
	s.Router.NFT(fmt.Sprintf("insert rule ip nat post oifname \"eth0\" meta l4proto udp snat ip to %s:%d-%d fully-random\n", s.Outside, first, last) +
		"table ip old\ndelete table ip old\n" + // what comes to a port of before is nobody's
		fmt.Sprintf("table ip old {\n chain in {\n type filter hook prerouting priority raw;\n iifname \"eth0\" udp dport != %d-%d drop\n }\n}\n", first, last))
	s.Router.Must("/proc/self/exe", "lab:forget")
}

// Forward has the site's router pass a UDP port on to the newest host, as its owner sets by hand.
func (s *Site) Forward(port int) {
	s.net.t.Helper()
	s.Router.NFT(fmt.Sprintf("add rule ip nat pre iifname \"eth0\" ip daddr %s udp dport %d dnat ip to %s:%d\n", s.Outside, port, s.host4(), port))
}

// AddIsolated adds a host that does not reach the others of the site directly, as in networks for guests. Not at SiteOpen.
func (s *Site) AddIsolated(name string) *Host {
	s.net.t.Helper()
	h := s.net.Host(name)
	s.plug(h).Isolate()
	return h
}
