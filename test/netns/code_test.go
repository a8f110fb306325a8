//go:build linux

package netns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Exit codes of the command line (warren help exit-codes).
const (
	exitBadCode     = 7
	exitUnreachable = 8
)

// refused checks that a join by the code fails with the exit code, names the cause, says what to do, and leaves no network.
func refused(t *testing.T, n *lab.Node, code string, exit int, cause ...string) {
	t.Helper()
	r := n.Warren("join", code)
	named := slices.ContainsFunc(cause, func(word string) bool { return strings.Contains(strings.ToLower(r.Err), word) })
	if r.Code != exit || !named || !strings.Contains(r.Err, "hint:") {
		t.Errorf("%s$ warren join %.12s...: %s\nwant exit code %d, one of %q and a hint", n.Name, code, r, exit, cause)
	}
	if s := n.Status(); len(s.Networks) != 0 {
		t.Errorf("the refused join left %+v on %s", s.Networks, n.Name)
	}
}

// invites lists the states of the invites that n knows, newest first.
func invites(n *lab.Node) (states []string) {
	var reply struct{ Invites []struct{ State string } }
	n.JSON(&reply, "invite", "list")
	for _, i := range reply.Invites {
		states = append(states, i.State)
	}
	return states
}

// Wrong, mistyped, used, expired and revoked codes, each with its own answer; then a right one.
func TestCodesThatDoNotOpen(t *testing.T) {
	l := newLAN(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	a.Do("create", "home")

	refused(t, b, "hello", exitBadCode, "code")
	good := a.Invite()
	mistyped := []byte(good)
	mistyped[len(mistyped)/2] ^= 1 // another letter, or one that no code has
	refused(t, b, string(mistyped), exitBadCode, "code")
	refused(t, b, good[:len(good)-4], exitBadCode, "code")

	short := a.Invite("--expires", "1s")
	lab.Eventually(t, 5*time.Second, func() error {
		if states := invites(a); !slices.Contains(states, "expired") {
			return fmt.Errorf("a has the invites %v, want one expired", states)
		}
		return nil
	})
	refused(t, b, short, exitBadCode, "expired")

	b.Do("join", good)
	refused(t, c, good, exitBadCode, "used")

	double := a.Invite("--uses", "2")
	c.Do("join", double)
	lab.AllReach(t, joinLimit, l.nodes)
	d := l.add()
	d.Do("join", double)
	lab.AllReach(t, joinLimit, l.nodes)
	e := l.add()
	refused(t, e, double, exitBadCode, "used")
}

// Nobody who could let b in is there: the join says so within its time and leaves nothing.
func TestJoinWithNobodyThere(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	a.Do("create", "home")
	code := a.Invite()
	a.Stop()
	refused(t, b, code, exitUnreachable, "no member", "nobody", "reach")
	a.Up()
	b.Do("join", code)
	lab.AllReach(t, joinLimit, l.nodes)
}

// The only admin is away: any member that the code's hints name lets c in.
func TestJoinWhileTheAdminIsAway(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	code := a.Invite()
	lab.Eventually(t, newsLimit, func() error { // b must have heard of the invite to witness it
		if states := invites(b); len(states) != len(invites(a)) { // one of them open from the beginning: that of create
			return fmt.Errorf("b knows the invites %v of %v", states, invites(a))
		}
		return nil
	})
	a.Stop()
	c := l.add()
	c.Do("join", code)
	lab.AllReach(t, joinLimit, []*lab.Node{b, c})
	a.Up()
	lab.AllReach(t, healLimit, l.nodes)
}

// The admin has never heard of c, and who let c in is gone when it comes back.
func TestTwoWhoNeverMet(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	code := a.Invite()
	lab.Eventually(t, newsLimit, func() error {
		if len(invites(b)) != len(invites(a)) {
			return fmt.Errorf("b knows the invites %v of %v", invites(b), invites(a))
		}
		return nil
	})
	a.Stop()
	c := l.add()
	c.Do("join", code)
	lab.AllReach(t, joinLimit, []*lab.Node{b, c})
	b.Kill()
	c.Kill()
	c.Up()
	a.Up()
	lab.AllReach(t, healLimit, []*lab.Node{a, c})
}

// By an approve-first code b waits until a says yes; until then it reaches nobody.
func TestApprove(t *testing.T) {
	l := newLAN(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	a.Do("create", "home")
	join := b.Start("env", "WARREN_STATE="+b.State, lab.Binary(t, "cmd/warren"), "join", a.Invite("--approve"))
	lab.Eventually(t, newsLimit, func() error {
		if a.Network().Pending != 1 {
			return fmt.Errorf("a has %d newcomers that wait, want 1", a.Network().Pending)
		}
		return nil
	})
	if b.Ping(a.Addr4()) == nil {
		t.Error("b reaches a before anyone approved")
	}
	a.Do("approve", "b")
	lab.Eventually(t, newsLimit, func() error {
		if s := b.Status(); len(s.Networks) != 1 || s.Networks[0].State != "up" {
			return fmt.Errorf("b has %+v", s.Networks)
		}
		return nil
	})
	lab.AllReach(t, joinLimit, l.nodes)
	if join.Running() {
		join.Wait(newsLimit)
	}
}
