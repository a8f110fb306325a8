//go:build linux

package netns

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// d is revoked while it talks to b and c. Two seconds later nothing of it arrives, and no restart, no old code and no state
// that it kept brings it back; a new code does, as a new member.
func TestRevoke(t *testing.T) {
	l := newMesh(t, 4)
	a, b, c, d := l.nodes[0], l.nodes[1], l.nodes[2], l.nodes[3]
	streams := []*lab.Stream{d.StartStream(b.Host, b.Addr4()), d.StartStream(c.Host, c.Addr4())}
	lab.Always(t, time.Second, func() error { return d.Ping(b.Addr4()) })
	oldAddr := d.Addr4()

	start := time.Now()
	a.Do("revoke", "d")
	revoked := time.Now()
	for _, n := range []*lab.Node{a, b, c} {
		lab.Eventually(t, tellLimit, func() error {
			if n.Network().Peer("d") != nil {
				return fmt.Errorf("%s still has d", n.Name)
			}
			return nil
		})
	}
	lab.Always(t, tellLimit, func() error {
		if b.Ping(oldAddr) == nil && time.Since(revoked) > tellLimit {
			return fmt.Errorf("b still reaches d")
		}
		return nil
	})
	for i, s := range streams {
		flow := s.End()
		if flow.Count < 20 || flow.Last.After(start.Add(tellLimit)) {
			t.Errorf("stream %d from d: %d datagrams, the last %s after the command; want it cut within %s", i, flow.Count, flow.Last.Sub(start), tellLimit)
		}
	}

	d.Stop()
	d.Up()
	lab.Always(t, 3*time.Second, func() error {
		for _, n := range []*lab.Node{a, b, c} {
			if n.Network().Peer("d") != nil || d.Ping(n.Addr4()) == nil {
				return fmt.Errorf("d is back at %s after a restart", n.Name)
			}
		}
		return nil
	})
	lab.AllReach(t, newsLimit, []*lab.Node{a, b, c})

	d.Warren("leave", "--yes") // what is left of the old membership, if it still shows
	d.Do("join", a.Invite())
	lab.AllReach(t, joinLimit, l.nodes)
}

// A code that was used once, by a member that is revoked since, opens nothing.
func TestRevokedMemberCannotUseItsCodeAgain(t *testing.T) {
	l := newLAN(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	a.Do("create", "home")
	code := a.Invite()
	b.Do("join", code)
	lab.AllReach(t, joinLimit, l.nodes)
	a.Do("revoke", "b")
	b.Warren("leave", "--yes")
	refused(t, b, code, exitBadCode, "used")
}

// c leaves: it is gone from the rosters of the others, and nothing of the network is left on it.
func TestLeave(t *testing.T) {
	l := newMesh(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	addr := c.Addr4()
	c.Do("leave", "--yes")
	for _, n := range []*lab.Node{a, b} {
		other := map[string]string{"a": "b", "b": "a"}[n.Name]
		lab.Eventually(t, newsLimit, func() error { return knows(n, other) })
		if n.Ping(addr) == nil {
			t.Errorf("%s still reaches c", n.Name)
		}
	}
	if s := c.Status(); len(s.Networks) != 0 {
		t.Errorf("c still has %+v", s.Networks)
	}
	if slices.Contains(c.Interfaces(), "warren0") {
		t.Errorf("c still has the interfaces %v", c.Interfaces())
	}
	lab.AllReach(t, newsLimit, []*lab.Node{a, b})
}

// down takes the interface away and keeps the membership, over a restart, until up.
func TestDownAndUp(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	b.Do("down")
	for range 2 {
		if n := b.Network(); n.State != "down" || slices.Contains(b.Interfaces(), "warren0") {
			t.Errorf("after down: state %q, interfaces %v", n.State, b.Interfaces())
		}
		if a.Ping(b.Addr4()) == nil {
			t.Error("a reaches b, which is down")
		}
		b.Stop()
		b.Up()
	}
	b.Do("up")
	lab.AllReach(t, healLimit, l.nodes)
}
