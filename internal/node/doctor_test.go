package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
)

// behind adds a machine behind a NAT and starts a node on it.
func (w *world) behind(x *testnet.NAT, name, addr string) *machine {
	w.Helper()
	m := w.host(name)
	m.host.Move(x, address(addr))
	m.start()
	return m
}

// finds returns the doctor's findings of a name.
func (m *machine) finds(name string) (out []api.Finding) {
	m.w.Helper()
	d, err := m.node.Doctor(m.w.Context(), "")
	for _, f := range must(m.w, d, err).Findings {
		if f.Name == name {
			out = append(out, f)
		}
	}
	return out
}

// says fails the test unless one of the findings has the state and the words.
func says(t *testing.T, found []api.Finding, state string, words ...string) {
	t.Helper()
	if !said(found, state, words...) {
		t.Errorf("nothing is %s and says %q: %+v", state, words, found)
	}
}

func said(found []api.Finding, state string, words ...string) bool {
	return slices.ContainsFunc(found, func(f api.Finding) bool {
		return f.State == state && !slices.ContainsFunc(words, func(s string) bool { return !strings.Contains(f.Text+" -> "+f.Remedy, s) })
	})
}

// Two strict NATs: relayed while somebody relays, and why; when nobody can, exactly that, and the one thing that would fix it; and
// it does
// (spec/73-nat.md#pairs, spec/60-api.md#finding).
func TestDoctorOfTwoStrictNATs(t *testing.T) {
	story(t, lan, func(w *world) {
		p, q := w.machine("p"), w.host("q", address("198.51.100.9"))
		q.start()
		p.create("warren")
		code := p.invite(9)
		a := w.behind(w.net.NAT(testnet.SymmetricRandom, address("203.0.113.1")), "a", "192.168.1.2")
		router := w.net.NAT(testnet.SymmetricRandom, address("203.0.113.2"))
		b := w.behind(router, "b", "192.168.1.2")
		for _, m := range []*machine{q, a, b} {
			m.join(code)
		}
		w.agreed(4, 10*time.Second, p, q, a, b)
		const both = "both are behind NATs that give each destination another port: only a relay works; forwarding UDP port 48271 on one router would fix it"
		w.eventually("a knows why b is relayed", 2*time.Minute, func() bool {
			x := a.peer(b.self())
			return x.Path == api.PathRelayed && strings.Contains(x.Why, both)
		})
		says(t, a.finds("peer"), api.FindingWarn, "warren: b is reached through", both, "one of the two is enough")
		says(t, a.finds("ipv4"), api.FindingWarn, "another port, at random, and is seen as 203.0.113.1:", "forward UDP port 48271")
		says(t, a.finds("ipv6"), api.FindingInfo, "no IPv6")
		says(t, a.finds("udp"), api.FindingOK)
		says(t, a.finds("port"), api.FindingWarn, "no router has passed", "forward UDP port 48271")
		says(t, p.finds("ipv4"), api.FindingOK, "no NAT")
		says(t, p.finds("reach"), api.FindingOK, "without being called first")
		says(t, a.finds("clock"), api.FindingOK, "nothing that members have signed, and no clock")
		says(t, a.finds("dht"), api.FindingInfo)
		says(t, a.finds("dns"), api.FindingInfo, "not tried")
		says(t, a.finds("conflict"), api.FindingOK)

		const none = "no path can exist: this machine and it are both behind NATs that give each destination another port, and no third member that could relay is in reach"
		const fix = "one thing is enough: forward UDP port 48271 to this machine on its router, or UDP port 48271 to b on the router there; or any third member that both can reach; it is noticed within ten minutes, or when you run: warren ping b"
		w.eventually("a knows where a port forwarded to b would be", 2*time.Minute, func() bool {
			mem, err := a.node.Members(w.Context(), "")
			return slices.ContainsFunc(must(w, mem, err).Members, func(x api.Member) bool {
				return x.ID == b.self() && slices.Contains(x.Endpoints, netip.MustParseAddrPort("203.0.113.2:48271"))
			})
		})
		p.shutdown()
		q.shutdown()
		w.eventually("a says that no path can exist", 10*time.Minute, func() bool {
			return said(a.finds("peer"), api.FindingBad, "warren: b cannot be reached: "+none, fix)
		})
		if x := a.peer(b.self()); x.Path != api.PathNone || x.Why != none+"; "+fix {
			t.Errorf("status says of b: %s, %q", x.Path, x.Why)
		}
		if found := a.finds("peer"); said(found, api.FindingBad, "warren: p ") || !said(found, api.FindingWarn, "no member answers", "p, q") {
			t.Errorf("p and q are just off: %+v", found)
		}

		router.Map(48271, netip.MustParseAddrPort("192.168.1.2:48271"))
		w.eventually("the advice was followed, and helped", 11*time.Minute, func() bool {
			return a.peer(b.self()).Path == api.PathDirect && !said(a.finds("peer"), api.FindingBad)
		})
	})
}

// Who forwarded a port by hand, and asks whether it helped, need not wait. spec/73-nat.md#back-off
func TestAForwardedPortIsTriedWhenAsked(t *testing.T) {
	ask := map[string]func(m, o *machine) error{
		"ping": func(m, o *machine) error {
			_, err := m.node.Ping(m.w.Context(), api.PingRequest{Member: o.name})
			return err
		},
		"doctor": func(m, _ *machine) error {
			_, err := m.node.Doctor(m.w.Context(), "")
			return err
		},
	}
	for how, f := range ask {
		t.Run(how, func(t *testing.T) {
			story(t, lan, func(w *world) {
				p, q := w.machine("p"), w.host("q", address("198.51.100.9"))
				q.start()
				p.create("warren")
				code := p.invite(9)
				a := w.behind(w.net.NAT(testnet.SymmetricRandom, address("203.0.113.1")), "a", "192.168.1.2")
				router := w.net.NAT(testnet.SymmetricRandom, address("203.0.113.2"))
				b := w.behind(router, "b", "192.168.1.2")
				for _, m := range []*machine{q, a, b} {
					m.join(code)
				}
				w.agreed(4, 10*time.Second, p, q, a, b)
				stop := a.stream(b)
				w.eventually("a knows where a port forwarded to b would be", 2*time.Minute, func() bool {
					mem, err := a.node.Members(w.Context(), "")
					return slices.ContainsFunc(must(w, mem, err).Members, func(x api.Member) bool {
						return x.ID == b.self() && slices.Contains(x.Endpoints, netip.MustParseAddrPort("203.0.113.2:48271"))
					})
				})
				testnet.Wait(23 * time.Minute) // minutes before the next try
				router.Map(48271, netip.MustParseAddrPort("192.168.1.2:48271"))
				testnet.Wait(5 * time.Second)
				if a.peer(b.self()).Path != api.PathRelayed {
					t.Fatal("direct before anybody asked")
				}
				if err := f(a, b); err != nil {
					t.Error(err)
				}
				took := w.eventually("direct", 5*time.Second, func() bool { return a.peer(b.self()).Path == api.PathDirect })
				w.Logf("direct after %v", took)
				stop()
			})
		})
	}
}

// What the doctor says of easy NATs and of networks that are down, and nothing of what another network knows.
func TestDoctorOfAnEasyNAT(t *testing.T) {
	story(t, lan, func(w *world) {
		p, q := w.machine("p"), w.machine("q")
		p.create("warren")
		code := p.invite(9)
		q.join(code)
		a := w.behind(w.net.NAT(testnet.PortRestricted, address("203.0.113.1")), "a", "192.168.1.2")
		a.join(code)
		w.agreed(3, 10*time.Second, p, q, a)
		w.eventually("the NAT is known", 2*time.Minute, func() bool {
			return said(a.finds("ipv4"), api.FindingOK, "one port for all destinations", "203.0.113.1:")
		})
		if found := a.finds("peer"); len(found) > 0 {
			t.Errorf("peers: %+v", found)
		}
		if found := a.finds("mtu"); len(found) != 1 {
			t.Errorf("mtu: %+v", found)
		}
		if _, err := a.node.Doctor(w.Context(), "elsewhere"); api.CodeOf(err) != api.CodeNoSuchNetwork {
			t.Errorf("a network that is not there: %v", err)
		}
		if _, err := a.node.Down(w.Context(), api.NetworkRequest{}); err != nil {
			t.Fatal(err)
		}
		says(t, a.finds("network"), api.FindingInfo, "warren is down: put down by a user")
	})
}
