package report

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/wire"
)

// Each finding of spec/60-api.md#finding, from what is known to the words.
func TestCheckupWords(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	at := netip.MustParseAddrPort
	four := Family{NAT: wire.NAT{Class: wire.NATIndependent}, Local: []netip.Addr{netip.MustParseAddr("192.168.1.2")}}
	own := Family{Local: []netip.Addr{netip.MustParseAddr("203.0.113.9")}}
	carrier := Family{NAT: wire.NAT{Class: wire.NATRandom}, Local: []netip.Addr{netip.MustParseAddr("100.64.7.7")}}
	class := func(c wire.NATClass, step int8) Family {
		return Family{NAT: wire.NAT{Class: c, Step: step}, Local: four.Local, Outside: []netip.AddrPort{at("203.0.113.1:7")}}
	}
	for _, test := range []struct {
		what, name, state string
		c                 Checkup
		words             []string
	}{
		{"blocked", "udp", api.FindingBad, Checkup{V4: class(wire.NATBlocked, 0), V6: Family{NAT: wire.NAT{Class: wire.NATBlocked}}}, []string{"none answered", "from port 48271"}},
		{"offline", "udp", api.FindingBad, Checkup{}, []string{"offline"}},
		{"at home", "udp", api.FindingOK, Checkup{V4: class(0, 0), direct: 1}, []string{"1 member answers"}},
		{"TCP", "udp", api.FindingWarn, Checkup{V4: class(wire.NATBlocked, 0), streams: 2}, []string{"nothing comes back by UDP: 2 members are reached by TCP", "from port 48271"}},
		{"blocked, no IPv6", "udp", api.FindingBad, Checkup{V4: class(wire.NATBlocked, 0)}, []string{"none answered", "tls_port = 443"}},
		{"new", "udp", api.FindingInfo, Checkup{V4: class(0, 0)}, []string{"not known"}},
		{"predictable", "ipv4", api.FindingInfo, Checkup{V4: class(wire.NATPredictable, 2)}, []string{"2 further each time", "seen as 203.0.113.1:7"}},
		{"blocked", "ipv4", api.FindingWarn, Checkup{V4: class(wire.NATBlocked, 0)}, []string{"over IPv4"}},
		{"own address", "ipv4", api.FindingInfo, Checkup{V4: own}, []string{"has the address 203.0.113.9, which is of the internet"}},
		{"carrier", "ipv4", api.FindingWarn, Checkup{V4: carrier}, []string{"behind the NAT of a provider", "at random", "ask the provider"}},
		{"mapped", "ipv4", api.FindingOK, Checkup{V4: class(wire.NATOpen, 0), Mapping: Mapping{External: at("203.0.113.1:7"), Public: true}}, []string{"router passes the port on"}},
		{"mapped", "port", api.FindingOK, Checkup{Mapping: Mapping{External: at("203.0.113.1:7"), Public: true, Gateway: netip.MustParseAddr("192.168.1.1"), Protocol: "PCP"}},
			[]string{"the router 192.168.1.1 passes 203.0.113.1:7 on to this machine (PCP)"}},
		{"provider's NAT", "port", api.FindingInfo, Checkup{Mapping: Mapping{External: at("100.64.0.1:7")}}, []string{"another NAT", "ask the provider"}},
		{"hostile", "port", api.FindingInfo, Checkup{Mapping: Mapping{Asked: true, Gateway: netip.MustParseAddr("192.168.1.1"), Why: "PCP: no\nUPnP: \x1b[2Jgo \u202eaway\a"}}, []string{"on: PCP: no; UPnP: [2Jgo away"}},
		{"refused", "port", api.FindingWarn, Checkup{V4: class(wire.NATRandom, 0), Mapping: Mapping{Asked: true, Gateway: netip.MustParseAddr("192.168.1.1"), Why: "PCP: no answer"}}, []string{"does not pass the port on: PCP: no answer", "switch UPnP", "by hand"}},
		{"refused by one who could", "port", api.FindingInfo, Checkup{V4: four, Mapping: Mapping{Asked: true, Gateway: netip.MustParseAddr("192.168.1.1"), Why: "UPnP: the router has no address outside", Spoken: true}},
			[]string{"refuses", "another router stands behind it"}},
		{"own address", "port", api.FindingOK, Checkup{V4: own, Mapping: Mapping{Asked: true, Gateway: netip.MustParseAddr("203.0.113.254"), Why: "PCP: no answer"}}, []string{"public address itself"}},
		{"carrier", "port", api.FindingWarn, Checkup{V4: carrier}, []string{"NAT of a provider", "ask the provider"}},
		{"off", "port", api.FindingInfo, Checkup{MappingOff: true}, []string{"port_mapping is false"}},
		{"many", "reach", api.FindingOK, Checkup{callers: []string{"a", "b", "c", "d", "e", "f", "g"}, direct: 7}, []string{"7 members have reached", "e and 2 more", "7 directly"}},
		{"none", "reach", api.FindingInfo, Checkup{direct: 1, streams: 2, relayed: 3}, []string{"1 directly, 2 by TCP, 3 through others; none of them has reached"}},
		{"one", "reach", api.FindingOK, Checkup{callers: []string{"ann"}}, []string{"1 member has reached"}},
		{"old", "clock", api.FindingBad, Checkup{Built: now.Add(time.Hour)}, []string{"before this program was written", "timedatectl"}},
		{"behind itself", "clock", api.FindingBad, Checkup{newest: now.Add(time.Hour), newestOwn: true}, []string{"this machine has signed something at 2026-12-01 13:00:00 UTC"}},
		{"behind another", "clock", api.FindingWarn, Checkup{newest: now.Add(time.Hour), newestBy: "ann"}, []string{"that of another is", "here and on ann"}},
		{"behind several", "clock", api.FindingBad, Checkup{newest: now.Add(time.Hour), newestBy: "ann", ahead: []string{"ann", "ben"}, signers: 3}, []string{"it is behind", "2 of the 3 others have signed something later", "ann, ben", "timedatectl"}},
		{"behind a few", "clock", api.FindingWarn, Checkup{newest: now.Add(time.Hour), newestBy: "ann", ahead: []string{"ann", "ben"}, signers: 4}, []string{"that of another is", "here and on ann"}},
		{"ahead of most", "clock", api.FindingBad, Checkup{newest: now, signers: 3, said: 3, slow: []string{"ann", "ben"}}, []string{"it is ahead", "2 of the 3 members that called show less: ann, ben", "timedatectl"}},
		{"behind most", "clock", api.FindingBad, Checkup{newest: now, signers: 3, said: 3, fast: []string{"ann", "ben"}}, []string{"it is behind", "show more: ann, ben"}},
		{"unlike one", "clock", api.FindingWarn, Checkup{newest: now, signers: 3, said: 3, fast: []string{"ann"}}, []string{"that of another is", "here and on ann"}},
		{"good", "clock", api.FindingOK, Checkup{newest: now, signers: 1}, []string{"nothing that members have signed"}},
		{"alone", "clock", api.FindingOK, Checkup{newest: now}, []string{"nobody else has signed"}},
		{"set back", "clock", api.FindingWarn, Checkup{Jump: -time.Minute}, []string{"set back by 1m0s", "timedatectl"}},
		{"slept", "clock", api.FindingInfo, Checkup{Jump: time.Hour}, []string{"1h0m0s further", "slept"}},
		{"no names", "dns", api.FindingWarn, Checkup{V4: four, HasDHT: true, Unfound: []string{"x.example"}}, []string{"finds none", "x.example"}},
		{"offline", "dns", api.FindingInfo, Checkup{HasDHT: true, Unfound: []string{"x.example"}}, []string{"offline"}},
		{"some names", "dns", api.FindingOK, Checkup{HasDHT: true, Found: []string{"y"}, Unfound: []string{"x.example"}}, []string{"1 of the 2", "but not x.example"}},
		{"off", "dht", api.FindingInfo, Checkup{DHTOff: true}, []string{"off in the config"}},
		{"idle", "dht", api.FindingInfo, Checkup{HasDHT: true}, []string{"not needed so far"}},
		{"offline", "dht", api.FindingInfo, Checkup{HasDHT: true, DHT: DHT{Unresolved: true}}, []string{"offline"}},
		{"names are not found", "dht", api.FindingWarn, Checkup{V4: four, HasDHT: true, DHT: DHT{Unresolved: true}}, []string{"found by its name"}},
		{"deaf to one", "dht", api.FindingWarn, Checkup{HasDHT: true, DHT: DHT{Queries: 1, Hosts: 1}}, []string{"1 host was asked"}},
		{"deaf", "dht", api.FindingWarn, Checkup{HasDHT: true, DHT: DHT{Queries: 9, Hosts: 4}}, []string{"4 hosts were asked in vain"}},
		{"works", "dht", api.FindingOK, Checkup{HasDHT: true, DHT: DHT{Queries: 9, Hosts: 4, Replies: 5, Address4: at("203.0.113.1:7")}}, []string{"seen there as 203.0.113.1:7"}},
		{"off", "lan", api.FindingInfo, Checkup{LANOff: true}, []string{"off"}},
		{"broken", "lan", api.FindingWarn, Checkup{}, []string{"not searched"}},
		{"works", "lan", api.FindingOK, Checkup{LANWorks: true, V4: four}, nil},
		{"offline", "lan", api.FindingInfo, Checkup{LANWorks: true}, []string{"on no local network"}},
		{"overlap", "conflict", api.FindingWarn, Checkup{Overlaps: []Overlap{{Pool{"home", netip.MustParsePrefix("10.0.0.0/8")}, "10.1.0.0/16 on eth0"}}}, []string{"home: its range 10.0.0.0/8 overlaps 10.1.0.0/16 on eth0"}},
		{"vpn", "vpn", api.FindingWarn, Checkup{Tunnels: []string{"wg0"}}, []string{"(wg0)"}},
		{"narrow", "mtu", api.FindingInfo, Checkup{narrow: []narrow{{"home", "ann", 1280}}}, []string{"1 path carries", "ann in home 1280"}},
		{"thin", "mtu", api.FindingWarn, Checkup{thin: []narrow{{"home", "ann", 0}}}, []string{"1 path carries small packets and loses those of 1280", "ann in home", "1360 bytes"}},
		{"none", "network", api.FindingInfo, Checkup{}, []string{"in no network", "warren create"}},
		{"drops", "drops", api.FindingWarn, Checkup{Drops: map[string]uint64{"socket_overflow": 5000, "no_route": 9}}, []string{"5000 times (socket_overflow)", "rmem_max"}},
		{"no drops", "drops", api.FindingOK, Checkup{Drops: map[string]uint64{"no_route": 9}}, nil},
		{"warning with a remedy", "warning", api.FindingWarn, Checkup{Warnings: []string{"the port is taken\nchoose another"}}, []string{"the port is taken -> choose another"}},
		{"warning", "warning", api.FindingWarn, Checkup{Warnings: []string{"IPv6 is off"}}, []string{"IPv6 is off"}},
	} {
		t.Run(test.name+" "+test.what, func(t *testing.T) {
			c := test.c
			c.Now, c.Port = now, 48271
			found := slices.DeleteFunc(c.Findings(), func(f api.Finding) bool { return f.Name != test.name })
			if !slices.ContainsFunc(found, func(f api.Finding) bool {
				return f.State == test.state && !slices.ContainsFunc(test.words, func(s string) bool { return !strings.Contains(f.Text+" -> "+f.Remedy, s) })
			}) {
				t.Errorf("nothing is %s and says %q: %+v", test.state, test.words, found)
			}
		})
	}
}

// Who signs a time is who is held to it: a join is signed by the member that let the newcomer in.
func TestWhoSignedWhat(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	self, ann := key.NodeID{1}, key.NodeID{2}
	roster := &member.Roster{Members: []member.Member{
		{ID: ann, Name: "ann", Joined: now.Add(-time.Hour), Via: member.Via{Admin: ann}},
		{ID: self, Name: "me", Joined: now.Add(time.Hour), Via: member.Via{Invite: wire.RecordID{1}, Witness: ann}, Info: wire.NodeInfo{Time: now.Unix()}},
	}}
	c := Checkup{Now: now}
	c.Examine(&Network{Now: now, Name: "home", Self: self, Roster: roster})
	if c.newestBy != "ann" || c.newestOwn || c.signers != 1 || len(c.ahead) != 1 {
		t.Errorf("the newest is by %s (own: %v), %d signers, ahead %v", c.newestBy, c.newestOwn, c.signers, c.ahead)
	}
}
