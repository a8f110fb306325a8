//go:build linux

package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// b changes its addresses, as a laptop does that leaves one network for another, under a TCP transfer and a stream in each
// direction. The connection lives on.
func TestRoaming(t *testing.T) {
	l := newMesh(t, 3)
	a, b := l.nodes[0], l.nodes[1]
	file := b.StartSend(a.Host, a.Addr4(), 10<<20, 16<<20) // five seconds
	out, in := b.StartStream(a.Host, a.Addr4()), a.StartStream(b.Host, b.Addr4())
	lab.Always(t, time.Second, func() error { return a.Ping(b.Addr4()) })

	port := l.ports[1]
	port.Del("192.0.2.2/24")
	port.Del("2001:db8::2/64")
	port.Add("192.0.2.77/24")
	port.Add("2001:db8::77/64")

	lab.AllReach(t, healLimit, l.nodes)
	file.Wait(time.Minute)
	for name, s := range map[string]*lab.Stream{"b to a": out, "a to b": in} {
		if flow := s.End(); flow.Longest() > 5*time.Second {
			t.Errorf("the stream from %s was silent for %s, want at most 5s", name, flow.Longest())
		} else {
			t.Logf("the stream from %s was silent for %s", name, flow.Longest().Round(time.Millisecond))
		}
	}
	lab.Eventually(t, newsLimit, func() error {
		if e := a.Network().Peer("b").Endpoint; !strings.HasPrefix(e, "192.0.2.77:") && !strings.HasPrefix(e, "[2001:db8::77]:") {
			return fmt.Errorf("a reaches b at %s, want its new address", e)
		}
		return nil
	})
}

// The plug of b is out for a while. Nothing needs to be done when it is back.
func TestPlugOut(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	l.ports[1].Down()
	lab.Eventually(t, 5*time.Second, func() error {
		if a.Ping(b.Addr4()) == nil {
			return errors.New("a reaches b, whose plug is out")
		}
		return nil
	})
	l.ports[1].Up()
	l.ports[1].Add("2001:db8::2/64")
	lab.AllReach(t, healLimit, l.nodes)
}
