package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

func (m *machine) revoke(name string) api.RevokeReply {
	m.w.Helper()
	r, err := m.node.Revoke(m.w.Context(), api.RevokeRequest{Member: name})
	return must(m.w, r, err)
}

// outcast fails the test unless the machine says that it was put out.
func (m *machine) outcast() {
	m.w.Helper()
	if n := m.network(""); n.State != api.StateDown || !strings.Contains(n.Why, "put out") || n.Interface != "" {
		m.w.Errorf("%s is %s and says %q; it was put out", m.name, n.State, n.Why)
	}
}

func TestARevocationReachesAllInTwoSecondsAndTheRevokedKnows(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond, Loss: 0.05}, func(w *world) {
		ms := w.found("a", "b", "c", "d", "e", "f", "g", "thief")
		thief, rest := ms[7], ms[:7]
		theirs := thief.addrs()
		if r := ms[0].revoke("thief"); r.Told != 6 || r.Name != "thief" {
			w.Errorf("reply %+v", r)
		}
		took := w.agreed(7, 2*time.Second, rest...)
		w.Logf("all know after %v", took)
		w.eventually("the thief knows", 2*time.Second, func() bool { return thief.network("").State == api.StateDown })
		thief.outcast()
		for _, m := range rest {
			if slices.Contains(m.names(), "thief") {
				w.Errorf("%s still lists the thief", m.name)
			}
			m.silent(m.addrs()[0], theirs[0])
			m.silent(m.addrs()[1], theirs[1])
		}
		if _, err := thief.node.Up(w.Context(), api.NetworkRequest{}); err == nil {
			w.Error("the thief comes up again")
		}
		thief.restart()
		thief.outcast()
		w.allPairs(rest...)
	})
}

func TestARevokedNodeWithItsOldStateReachesNobody(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "thief")
		thief, rest := ms[3], ms[:3]
		old := thief.snapshot()
		w.net.Partition(hosts(rest...))
		ms[0].revoke("thief")
		w.agreed(3, 2*time.Second, rest...)
		w.net.Heal()

		// It has not heard of it, and its sessions are as good as they were.
		mine := thief.addrs()
		for _, m := range rest {
			thief.silent(mine[0], m.addrs()[0])
			thief.silent(mine[1], m.addrs()[1])
			if m.node.plane.Drops()["no_session"] == 0 {
				w.Errorf("%s dropped nothing of the thief's: %v", m.name, m.node.plane.Drops())
			}
		}
		thief.kill()
		thief.dir = old
		thief.start()
		testnet.Wait(3 * time.Minute)
		for _, m := range rest {
			thief.silent(mine[0], m.addrs()[0])
			if p := thief.peer(m.self()); p.Path != api.PathNone || p.LastHandshake != (api.Time{}) {
				w.Errorf("the thief has a session with %s", m.name)
			}
		}
		w.agreed(3, 0, rest...)
		w.allPairs(rest...)
	})
}

func TestAMemberThatWasAwayCatchesUp(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "gone", "away")
		a, b, c, gone, away := ms[0], ms[1], ms[2], ms[3], ms[4]
		d := w.machine("d")
		w.net.Partition(hosts(a, b, c, gone, d))
		d.join(a.invite(1))
		if _, err := b.node.Rename(w.Context(), api.RenameRequest{Name: "bee"}); err != nil {
			w.Fatal(err)
		}
		a.revoke("gone")
		c.host.SetAddrs(address("198.51.100.3"), address("2001:db8:3::3"))
		w.agreed(5, 5*time.Second, a, b, c, d)
		testnet.Wait(10 * time.Minute)
		if slices.Contains(away.names(), "d") {
			w.Fatal("the partition leaks")
		}
		w.net.Heal()
		w.Logf("caught up %v after the return", w.agreed(5, 70*time.Second, a, b, c, d, away))
		if want := []string{"a", "away", "bee", "c", "d"}; !slices.Equal(away.names(), want) {
			w.Errorf("away knows %v, want %v", away.names(), want)
		}
		w.Logf("and in touch with all %v later", w.eventually("in touch", time.Minute, func() bool { return w.linked(a, b, c, d, away) }))
		w.allPairs(a, b, c, d, away)
	})
}

// What an admin did last is not lost when it switches its machine off.
func TestWhatANodeSaidLastIsHeard(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		if _, err := ms[0].node.Rename(w.Context(), api.RenameRequest{Name: "boss"}); err != nil {
			w.Fatal(err)
		}
		ms[0].shutdown()
		w.eventually("b knows", time.Second, func() bool { return slices.Contains(ms[1].names(), "boss") })
	})
}

func TestWhoFallsWithACompromisedAdminKnows(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		if _, err := ms[0].node.AdminAdd(w.Context(), api.AdminRequest{Member: "b", Rights: []string{"invite"}}); err != nil {
			w.Fatal(err)
		}
		w.eventually("b may invite", time.Second, func() bool { return ms[1].network("").Self.Admin })
		d := w.machine("d")
		d.join(ms[1].invite(1))
		w.agreed(4, 5*time.Second, append(ms, d)...)
		w.eventually("in touch", 10*time.Second, func() bool { return w.linked(append(ms, d)...) })
		r, err := ms[0].node.Revoke(w.Context(), api.RevokeRequest{Member: "b", Compromised: true})
		if must(w, r, err); !slices.Equal(r.Also, []string{"d"}) {
			w.Errorf("the reply names %v", r.Also)
		}
		w.agreed(2, 2*time.Second, ms[0], ms[2])
		testnet.Wait(time.Second)
		ms[1].outcast()
		d.outcast()
	})
}

// A machine with many addresses of one family names the other, too: the newcomer may have that alone.
func TestACodeNamesBothFamilies(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		a := ms[0]
		addrs := a.host.Addrs()
		for i := range 4 {
			addrs = slices.Insert(addrs, 1, netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}))
		}
		a.host.SetAddrs(addrs...)
		testnet.Wait(time.Minute)
		code, err := wire.ParseCode(a.invite(1))
		must(w, code, err)
		for _, is4 := range []bool{true, false} {
			if !slices.ContainsFunc(code.Hints, func(h netip.AddrPort) bool { return slices.Contains(addrs, h.Addr()) && h.Addr().Is4() == is4 }) {
				w.Errorf("the code names %v; want addresses of both families of %v", code.Hints, addrs)
			}
		}
	})
}
