package node

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
)

// Somebody removes the interface of a network that is up: the network is down then, says why, and comes up when it is asked to.
// spec/60-api.md#network
func TestANetworkWhoseInterfaceIsRemovedIsDown(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		a, b := ms[0], ms[1]
		a.inside(func(w *network) { a.tun(w.mesh.tunnel.Name()).Close() })
		w.eventually("the network is down", time.Second, func() bool {
			n := a.network("")
			return n.State == api.StateDown && strings.Contains(n.Why, "warren up")
		})
		if n := len(a.tuns); n != 0 {
			t.Errorf("%d interfaces are left", n)
		}
		_, err := a.node.Up(w.Context(), api.NetworkRequest{})
		must(w, 0, err)
		w.eventually("in touch again", 10*time.Second, func() bool { return w.linked(a, b) })
		a.reaches(b)
	})
}

// A socket that fails at a few reads in a row is read again. One that fails for ever ends the node, and Run says why: what started
// the daemon is to start it anew.
func TestANodeWhoseSocketFails(t *testing.T) {
	story(t, lan, func(w *world) {
		m := w.machine("a")
		stranger, err := w.net.Host("stranger", address("203.0.113.1")).Listen(0)
		must(w, 0, err)
		fail := func(n int) {
			m.sock.broken.Store(true)
			for range n {
				must(w, 0, stranger.WriteTo([]byte{0}, netip.AddrPortFrom(m.host.Addrs()[0], DefaultPort)))
			}
			testnet.Wait(time.Minute)
			m.sock.broken.Store(false)
		}
		fail(50)
		_, err = m.node.Status(w.Context())
		must(w, 0, err)
		fail(50 * 100) // more than all workers together put up with
		if err := <-m.ran; !errors.Is(err, errBroken) || errors.Is(err, context.Canceled) {
			t.Errorf("the node ended with %v", err)
		}
		m.node = nil
	})
}
