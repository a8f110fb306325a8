//go:build linux

package netns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// steady is the longest silence that others may notice while one member crashes or restarts.
const steady = time.Second

// Each node in turn stops politely and starts again. All reach all afterwards, by the same addresses.
func TestRestartOfEachNode(t *testing.T) {
	l := newMesh(t, 3)
	for i, n := range l.nodes {
		addr := n.Addr4()
		stream := l.nodes[(i+1)%3].StartStream(l.nodes[(i+2)%3].Host, l.nodes[(i+2)%3].Addr4())
		n.Stop()
		n.Up()
		lab.AllReach(t, healLimit, l.nodes)
		if n.Addr4() != addr {
			t.Errorf("%s had the address %s, now %s", n.Name, addr, n.Addr4())
		}
		if flow := stream.End(); flow.Longest() > steady {
			t.Errorf("the others were silent for %s while %s restarted", flow.Longest(), n.Name)
		}
	}
}

// Each node in turn is killed under traffic, with no chance to say goodbye or to write anything. A TCP transfer that it takes
// part in goes on when it is back; the others do not notice.
func TestKillOfEachNodeUnderTraffic(t *testing.T) {
	l := newMesh(t, 3)
	for i, n := range l.nodes {
		other, third := l.nodes[(i+1)%3], l.nodes[(i+2)%3]
		addr := n.Addr4()
		file := n.StartSend(other.Host, other.Addr4(), 4<<20, 8<<20) // four seconds and some
		stream := other.StartStream(third.Host, third.Addr4())
		lab.Always(t, time.Second, func() error { return third.Ping(addr) })
		n.Kill()
		n.Up()
		took := lab.Eventually(t, healLimit, func() error { return third.Ping(addr) })
		t.Logf("%s answers again %s after its restart", n.Name, took.Round(time.Millisecond))
		lab.AllReach(t, healLimit, l.nodes)
		file.Wait(time.Minute)
		if flow := stream.End(); flow.Longest() > steady {
			t.Errorf("the others were silent for %s while %s crashed", flow.Longest(), n.Name)
		}
	}
}

// A member that was away while others came and went learns all of it on its return.
func TestAwayMemberCatchesUp(t *testing.T) {
	l := newMesh(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	c.Stop()
	d := l.add()
	d.Do("join", a.Invite())
	a.Do("revoke", "b")
	lab.Eventually(t, newsLimit, func() error { return knows(d, "a", "c") })
	b.Stop()
	c.Up()
	lab.Eventually(t, healLimit, func() error { return knows(c, "a", "d") })
	lab.AllReach(t, healLimit, []*lab.Node{a, c, d})
}

// The whole network goes dark and comes back.
func TestRestartOfAllNodes(t *testing.T) {
	l := newMesh(t, 3)
	for _, n := range l.nodes {
		n.Kill()
	}
	for _, n := range l.nodes {
		n.Up()
	}
	lab.AllReach(t, healLimit, l.nodes)
}

// A second daemon on the same state refuses to start and names the first.
func TestSecondDaemonRefuses(t *testing.T) {
	l := newMesh(t, 2)
	a := l.nodes[0]
	r := a.Warren("daemon")
	if r.Code == 0 || !strings.Contains(r.Err, fmt.Sprint(a.Status().PID)) {
		t.Errorf("a second daemon: %s\nwant a refusal that names process %d", r, a.Status().PID)
	}
	lab.AllReach(t, joinLimit, l.nodes)
}
