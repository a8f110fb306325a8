//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// A phone with stock WireGuard is served by a. It reaches a and a reaches it, by IPv4 and IPv6; it is in the rosters; revoked
// it is cut off.
//
//	a .1    b .2    phone .9    192.0.2.0/24 on [lan]
func TestStockWireGuardDevice(t *testing.T) {
	l := newMesh(t, 2)
	a, b := l.nodes[0], l.nodes[1]
	var reply struct {
		Config    string
		Addresses []netip.Addr
	}
	a.JSON(&reply, "device", "add", "phone")

	phone := l.Host("phone")
	phone.Plug(l.wire, "192.0.2.9/24", "2001:db8::9/64")
	startPeer(t, phone, reply.Config)
	v4, v6 := a.Addrs()
	for _, to := range []netip.Addr{v4, v6} {
		lab.Eventually(t, 10*time.Second, func() error { return phone.Ping(to) })
	}
	for _, to := range reply.Addresses {
		lab.Eventually(t, 5*time.Second, func() error { return a.Ping(to) })
	}
	phone.Send(a.Host, v4, mediumFile, time.Minute)
	a.Send(phone, reply.Addresses[0], mediumFile, time.Minute)
	lab.Eventually(t, newsLimit, func() error { return knows(b, "a", "phone") })

	a.Do("revoke", "phone")
	lab.Eventually(t, tellLimit, func() error {
		if phone.Ping(v4) == nil {
			return fmt.Errorf("the phone still reaches a")
		}
		return nil
	})
	lab.Eventually(t, newsLimit, func() error { return knows(b, "a") })
}
