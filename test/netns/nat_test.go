//go:build linux

package netns

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/natmatrix"
	"github.com/warren-vpn/warren/test/netns/lab"
)

// The NATs of the lab are what they are called, in the eyes of a program that asks two servers.
//
//	h --- [site: routers] --- [internet] --- s1, s2
func TestLabNATs(t *testing.T) {
	type want struct {
		kind                 string // over IPv4
		tcp, tcp443, proxied bool
		kind6                string // over IPv6; "": the same
	}
	const (
		none = "no UDP"
		wall = "port-restricted" // what a stateful firewall looks like
	)
	wants := map[lab.SiteKind]want{
		lab.SiteOpen:        {"full cone", true, true, false, "full cone"}, // no NAT is the best one
		lab.SiteFullCone:    {"full cone", true, true, false, none},
		lab.SiteAddress:     {"address-restricted", true, true, false, none},
		lab.SitePort:        {"port-restricted", true, true, false, none},
		lab.SitePredictable: {"symmetric predictable", true, true, false, none},
		lab.SiteRandom:      {"symmetric random", true, true, false, none},
		lab.SiteDouble:      {"port-restricted", true, true, false, none},
		lab.SiteCarrier:     {"port-restricted", true, true, false, none},
		lab.SiteFirewall6:   {none, false, false, false, wall},
		lab.SiteDual:        {"port-restricted", true, true, false, wall},
		lab.SiteNoUDP:       {none, true, true, false, none},
		lab.SiteTCP443:      {none, false, true, false, none},
		lab.SiteProxy:       {none, false, false, true, none},
	}
	for _, kind := range lab.SiteKinds() {
		t.Run(strings.ReplaceAll(string(kind), " ", "-"), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			net := l.Internet()
			var servers [][2]netip.Addr
			for _, name := range []string{"s1", "s2"} {
				h := net.Public(name)
				h.StartReflector()
				v4, v6 := net.Addrs(h)
				servers = append(servers, [2]netip.Addr{v4, v6})
			}
			site := net.Site("x", kind)
			h := site.Add("h")
			w := wants[kind]
			for family, wantKind := range []string{w.kind, w.kind6} {
				s := h.Look(servers[0][family], servers[1][family], site.Proxy)
				t.Logf("%s: %+v", s.Kind(), s)
				if s.Kind() != wantKind {
					t.Errorf("%s is %q, want %q: %+v", kind, s.Kind(), wantKind, s)
				}
				if family == 0 && (s.TCP != w.tcp || s.TCP443 != w.tcp443 || s.Proxied != w.proxied) {
					t.Errorf("TCP passes: %v, to port 443: %v, by a proxy: %v; want %+v", s.TCP, s.TCP443, s.Proxied, w)
				}
				for _, a := range s.Mapped {
					if family == 0 && site.Outside.IsValid() && a.Addr() != site.Outside {
						t.Errorf("seen as %s, want the address %s", a, site.Outside)
					}
				}
			}
		})
	}
}

// Two hosts that send to each other at once get through their NATs where both are cones, and where one is open to all.
func TestLabPunching(t *testing.T) {
	for _, tt := range []struct {
		a, b lab.SiteKind
		met  bool
	}{
		{lab.SitePort, lab.SitePort, true}, {lab.SiteAddress, lab.SitePort, true}, {lab.SiteDouble, lab.SiteCarrier, true},
		{lab.SiteRandom, lab.SiteFullCone, true}, {lab.SiteRandom, lab.SiteAddress, true}, {lab.SiteRandom, lab.SitePort, false},
		{lab.SitePort, lab.SiteNoUDP, false},
	} {
		t.Run(strings.ReplaceAll(string(tt.a+"-"+tt.b), " ", "-"), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			net := l.Internet()
			sa, sb := net.Site("x", tt.a), net.Site("y", tt.b)
			a, b := sa.Add("a"), sb.Add("b")
			// Cones keep the port; what a symmetric one makes of it nobody can know.
			pa := a.StartPunch(4001, netip.AddrPortFrom(sb.Outside, 4002), 2*time.Second)
			pb := b.StartPunch(4002, netip.AddrPortFrom(sa.Outside, 4001), 2*time.Second)
			fromB, fromA := pa.Heard(), pb.Heard()
			if (fromA.IsValid() && fromB.IsValid()) != tt.met {
				t.Errorf("a hears %v, b hears %v; want a meeting: %v", fromB, fromA, tt.met)
			}
		})
	}
}

// Two servers of STUN show what one member cannot: that both NATs take the next port each time. spec/73-nat.md#servers
//
//	a --- [predictable] --- [internet] --- [predictable] --- b
//	                        x, s1, s2
func TestPredictableNATsWithServers(t *testing.T) {
	t.Parallel()
	c := natmatrix.Pair(lab.SitePredictable, lab.SitePredictable)
	c.Servers = 2
	if o := natmatrix.Run(t, c, 1); o.Result != natmatrix.Direct {
		t.Error(o)
	} else {
		t.Log(o)
	}
}

// A search among many ports finds the way between a NAT with random ports and a port-restricted one, when both members allow it and
// the relay has carried enough; the socket that found it stays the way. spec/73-nat.md#birthday
//
//	a --- [port-restricted] --- [internet] --- [random] --- b
//	                            x, s1, s2
func TestPortSearch(t *testing.T) {
	if os.Getenv("WARREN_LONG") == "" {
		t.Skip("takes a minute: set WARREN_LONG=1")
	}
	t.Parallel()
	c := natmatrix.Pair(lab.SitePort, lab.SiteRandom)
	c.Servers, c.Config, c.Limit, c.Load = 2, "port_search = true\n", 90*time.Second, 6<<20
	if o := natmatrix.Run(t, c, 1); o.Result != natmatrix.Direct {
		t.Error(o)
	} else {
		t.Log(o)
	}
}

// Two hosts that are behind one NAT and do not reach each other directly do so by the outside, if the NAT turns packets around.
func TestLabHairpin(t *testing.T) {
	for _, kind := range []lab.NATKind{lab.FullCone, lab.AddressRestricted, lab.PortRestricted} {
		for _, hairpin := range []bool{true, false} {
			name := strings.ReplaceAll(kind.String(), " ", "-")
			if !hairpin {
				name += "-without"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				net := l.Internet()
				isp := net.Carrier("isp", lab.NAT{Kind: kind, Hairpin: hairpin})
				a, b := isp.Subscriber("x").Add("a"), isp.Subscriber("y").Add("b")
				pa := a.StartPunch(4001, netip.AddrPortFrom(isp.Outside, 4002), 2*time.Second)
				pb := b.StartPunch(4002, netip.AddrPortFrom(isp.Outside, 4001), 2*time.Second)
				fromB, fromA := pa.Heard(), pb.Heard()
				if met := fromA == netip.AddrPortFrom(isp.Outside, 4001) && fromB == netip.AddrPortFrom(isp.Outside, 4002); met != hairpin {
					t.Errorf("a hears %v, b hears %v; want a meeting: %v", fromB, fromA, hairpin)
				}
			})
		}
	}
}
