package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
)

func TestASingleUseCodeUsedTwiceInAPartitionAdmitsOne(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d")
		code := ms[0].invite(1)
		testnet.Wait(time.Second) // the others learn of the invite
		x, y := w.machine("x"), w.machine("y")
		w.net.Partition(hosts(ms[0], x), hosts(ms[1], ms[2], ms[3], y))
		x.join(code)
		testnet.Wait(3 * time.Second)
		y.join(code)
		w.agreed(5, 2*time.Second, ms[0], x)
		w.agreed(5, 2*time.Second, ms[1], ms[2], ms[3], y)
		testnet.Wait(2 * time.Minute)
		w.net.Heal()
		w.agreed(5, 2*time.Minute, ms...)
		names := ms[0].names()
		if slices.Contains(names, "x") == slices.Contains(names, "y") {
			w.Fatalf("one of x and y must be in, the members are %v", names)
		}
		winner, loser := x, y
		if slices.Contains(names, "y") {
			winner, loser = y, x
		}
		w.agreed(5, 2*time.Minute, append(ms, winner)...)
		w.eventually("in touch", 2*time.Minute, func() bool { return w.linked(append(ms, winner)...) })
		w.allPairs(append(ms, winner)...)
		w.Logf("%s is in; %s: %s %q", winner.name, loser.name, loser.network("").State, loser.network("").Why)
		if n := loser.network(""); n.State != api.StateDown || n.Why == "" {
			w.Errorf("%s is not a member and does not say so: %s %q", loser.name, n.State, n.Why)
		}
	})
}

func TestANewcomerWhoseOnlyWitnessVanishesIsStillAMember(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		code := ms[0].invite(1)
		testnet.Wait(time.Second)
		n := w.machine("new")
		for _, m := range ms[1:] {
			w.net.SetLink(n.host, m.host, testnet.Link{Loss: 1})
		}
		n.join(code)
		ms[0].host.Unplug(true)
		for _, m := range ms[1:] {
			if slices.Contains(m.names(), "new") {
				w.Fatal("the witness has told the others")
			}
			w.net.SetLink(n.host, m.host, lan)
		}
		rest := []*machine{ms[1], ms[2], n}
		w.Logf("known to the others after %v", w.agreed(4, time.Minute, rest...))
		w.eventually("in touch", 30*time.Second, func() bool { return n.tries(ms[1], 0) == nil && n.tries(ms[2], 1) == nil })
		w.allPairs(rest...)
		ms[0].host.Unplug(false)
		w.Logf("all agree %v after the return of the witness", w.agreed(4, 2*time.Minute, append(ms, n)...))
		w.eventually("in touch", 2*time.Minute, func() bool { return w.linked(append(ms, n)...) })
		w.allPairs(append(ms, n)...)
	})
}

// Who let a newcomer in may be gone before it told it of the others. spec/30-join.md#grant
func TestANewcomerDoesNotDependOnWhoLetItIn(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		a, b, c := ms[0], ms[1], ms[2]
		if _, err := a.node.AdminAdd(w.Context(), api.AdminRequest{Member: "b", Rights: []string{"invite"}}); err != nil {
			w.Fatal(err)
		}
		w.eventually("b may invite", time.Second, func() bool { return b.network("").Self.Admin })
		n := w.machine("new")
		for _, m := range []*machine{a, c} {
			w.net.SetLink(n.host, m.host, testnet.Link{Loss: 1})
		}
		n.join(b.invite(1))
		w.cut(n, b)
		for _, m := range []*machine{a, c} {
			w.net.SetLink(n.host, m.host, lan)
		}
		w.agreed(4, 3*time.Second, a, b, c, n)
		w.eventually("in touch", 3*time.Second, func() bool { return n.tries(a, 0) == nil && n.tries(c, 1) == nil })
		w.allPairs(a, b, c, n)
	})
}

// Two members of whom one never heard of the other, when all in between are gone, and both have restarted. spec/30-join.md#proof
func TestTwoWhoNeverMetFindEachOther(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		a, b := ms[0], ms[1]
		code := a.invite(1)
		testnet.Wait(time.Second)
		a.shutdown()
		c := w.machine("c")
		c.join(code)
		w.agreed(3, 3*time.Second, b, c)
		testnet.Wait(time.Minute)
		b.kill()
		c.restart()
		a.start()
		w.Logf("they know each other after %v", w.agreed(3, 10*time.Second, a, c))
		w.eventually("in touch", 5*time.Second, func() bool { return a.tries(c, 0) == nil && c.tries(a, 1) == nil })
		w.allPairs(a, c)
	})
}

// It may also have talked to it for a while, and to nobody else. spec/30-join.md#alone
func TestANewcomerWhoseWitnessVanishesLaterIsStillAMember(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		a, b, c := ms[0], ms[1], ms[2]
		code := a.invite(1)
		testnet.Wait(time.Second)
		n := w.machine("new")
		w.net.Partition(hosts(a, n), hosts(b, c))
		n.join(code)
		w.agreed(4, time.Second, a, n)
		w.allPairs(a, n)
		testnet.Wait(time.Minute)
		a.kill()
		w.net.Heal()
		w.Logf("known to the others after %v", w.agreed(4, 30*time.Second, b, c, n))
		w.eventually("in touch", 30*time.Second, func() bool { return n.tries(b, 0) == nil && n.tries(c, 1) == nil })
		w.allPairs(b, c, n)
	})
}

// joinPending joins by an approve-first code and returns once it waits for approval.
func (m *machine) joinPending(code string) {
	m.w.Helper()
	ctx, cancel := context.WithCancel(m.w.Context())
	pending := make(chan struct{})
	_, err := m.node.Join(ctx, api.JoinRequest{Code: code, Name: m.name}, func(p api.Progress) {
		if p.Stage == api.StagePending {
			close(pending)
			cancel() // the caller goes away
		}
	})
	select {
	case <-pending:
	default:
		m.w.Fatalf("%s: join: %v", m.name, err)
	}
}

func TestANewcomerKnowsEverybodyAtOnce(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
		ms := w.found("a", "b", "c", "d", "e", "f")
		n := w.machine("new")
		n.join(ms[0].invite(1))
		took := w.agreed(7, time.Second, append(ms, n)...)
		w.Logf("all agree %v after the join", took)
		if took = w.eventually("in touch", 3*time.Second, func() bool { return w.linked(append(ms, n)...) }); took > 2500*time.Millisecond {
			w.Errorf("in touch with all only %v later", took)
		}
		w.allPairs(append(ms, n)...)
	})
}

func TestANewcomerWaitsForApprovalOverARestart(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		a, b := ms[0], ms[1]
		r, err := a.node.Invite(w.Context(), api.InviteRequest{Uses: 2, Expires: 86400, Approve: true})
		code := must(w, r, err).Code
		n, never := w.machine("new"), w.machine("never")
		n.joinPending(code)
		never.joinPending(code)
		for _, m := range []*machine{n, never} {
			if m == n {
				n.restart()
			}
			if s := m.network(""); s.State != api.StatePending || s.Interface != "" || s.Members != 0 || len(s.Peers) != 0 {
				w.Errorf("%s, which waits: %+v", m.name, s)
			}
		}
		w.eventually("both admins' lists have both", 5*time.Second, func() bool {
			p, err := b.node.Pending(w.Context(), "")
			return err == nil && len(p.Pending) == 2
		})
		testnet.Wait(10 * time.Minute)
		if got := a.names(); !slices.Equal(got, []string{"a", "b"}) {
			w.Errorf("members are %v before any approval", got)
		}
		if _, err := a.node.Approve(w.Context(), api.MemberRequest{Member: "new"}); err != nil {
			w.Fatal(err)
		}
		w.Logf("up %v after the approval", w.eventually("new is up", 10*time.Second, func() bool { return n.network("").State == api.StateUp }))
		w.agreed(3, 5*time.Second, a, b, n)
		w.allPairs(a, b, n)
		if s := never.network(""); s.State != api.StatePending || s.Interface != "" || len(s.Peers) != 0 {
			w.Errorf("never, which still waits: %+v", s)
		}
		for _, m := range []*machine{a, b, n} {
			if p := m.peer(never.network("").Self.ID); p.ID != "" {
				w.Errorf("%s has a peer that was never approved: %+v", m.name, p)
			}
		}
		if _, err := never.node.Leave(w.Context(), api.LeaveRequest{}); err != nil {
			w.Error(err)
		}
	})
}

func TestClashesOfNamesAndAddressesEndInAgreement(t *testing.T) {
	story(t, lan, func(w *world) {
		a, b := w.machine("a"), w.machine("b")
		_, err := a.node.Create(w.Context(), api.CreateRequest{Name: "tiny", NodeName: "a", Pool: netip.MustParsePrefix("10.86.0.0/28")})
		must(w, 0, err)
		b.join(a.invite(1))
		w.eventually("in touch", 10*time.Second, func() bool { return w.linked(a, b) })
		code := a.invite(20)
		testnet.Wait(time.Second)
		halves := [2][]*machine{{a}, {b}} // each lets in six, with the same names, of the twelve addresses that are left
		all := []*machine{a, b}
		for i := range 12 {
			m := w.machine(fmt.Sprintf("m%d", i))
			halves[i%2], all = append(halves[i%2], m), append(all, m)
		}
		w.net.Partition(hosts(halves[0]...), hosts(halves[1]...))
		for i, m := range all[2:] {
			m.name = fmt.Sprintf("twin%d", i/2)
			m.join(code)
		}
		clashes := 0
		for _, h := range halves {
			w.agreed(8, 10*time.Second, h...)
		}
		for _, m := range halves[0] {
			for _, o := range halves[1] {
				if m.addrs()[0] == o.addrs()[0] {
					clashes++
				}
			}
		}
		w.net.Heal()
		w.Logf("%d addresses clash; all agree %v after healing", clashes, w.agreed(14, 2*time.Minute, all...))
		names, addrs := map[string]bool{}, map[netip.Addr]bool{}
		for _, m := range all {
			self := m.network("").Self
			names[self.Name], addrs[self.Addresses[0]] = true, true
		}
		if len(names) != 14 || len(addrs) != 14 || !names["twin0"] {
			w.Errorf("%d names %v and %d addresses for 14 members", len(names), names, len(addrs))
		}
		w.eventually("in touch", 2*time.Minute, func() bool { return w.linked(all...) })
		w.allPairs(all...)
	})
}

func TestAFullPoolCostsTheLastOnesOnlyTheirIPv4(t *testing.T) {
	story(t, lan, func(w *world) {
		a, b := w.machine("a"), w.machine("b")
		_, err := a.node.Create(w.Context(), api.CreateRequest{Name: "tiny", NodeName: "a", Pool: netip.MustParsePrefix("10.86.0.0/29")})
		must(w, 0, err)
		b.join(a.invite(1))
		w.eventually("in touch", 10*time.Second, func() bool { return w.linked(a, b) })
		code := a.invite(20)
		testnet.Wait(time.Second)
		halves := [2][]*machine{{a}, {b}} // six addresses for eight
		all := []*machine{a, b}
		for i := range 6 {
			m := w.machine(fmt.Sprintf("m%d", i))
			halves[i%2], all = append(halves[i%2], m), append(all, m)
		}
		w.net.Partition(hosts(halves[0]...), hosts(halves[1]...))
		for _, m := range all[2:] {
			m.join(code)
		}
		w.net.Heal()
		w.agreed(8, 2*time.Minute, all...)
		w.eventually("in touch", 2*time.Minute, func() bool { return w.linked(all...) })
		without := 0
		for _, m := range all {
			if m.network("").Self.Addresses[0].Is6() {
				without++
				m.restart()
			}
		}
		if without != 2 {
			w.Errorf("%d of 8 members have no address out of six", without)
		}
		w.eventually("in touch again", time.Minute, func() bool { return w.linked(all...) })
		for _, m := range all {
			for _, o := range all {
				if m == o {
					continue
				}
				from, to := m.addrs(), o.addrs()
				if _, err := m.tun(m.network("").Interface).Ping(w.Context(), from[len(from)-1], to[len(to)-1], 32); err != nil {
					w.Errorf("%s -> %s: %v", m.name, o.name, err)
				}
			}
		}
		late := w.machine("late")
		_, err = late.node.Join(w.Context(), api.JoinRequest{Code: code, Name: "late"}, func(api.Progress) {})
		if err == nil {
			w.Error("a newcomer joins although the pool is full")
		}
		w.Logf("a newcomer is told: %v", err)
	})
}
