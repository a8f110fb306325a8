//go:build linux

package netns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/test/netns/lab"
)

// Two members of a network that masks: one joins by a code, from behind a NAT, they ping each other, and TCP runs. Who sees all that passes
// between them recognises none of it: no datagram begins as WireGuard's or Warren's do, at no place are many bytes alike, and
// handshakes have another size each time.
//
// spec/75-mask.md#block, spec/75-mask.md#box, spec/75-mask.md#joining
func TestMasked(t *testing.T) {
	t.Parallel()
	net := lab.New(t).Internet()
	hub := net.Public("hub").NewNode()
	configure(t, hub)
	desk := net.Site("office", lab.SitePort).Add("desk").NewNode()
	configure(t, desk)
	for _, n := range []*lab.Node{hub, desk} {
		n.IP("link", "set", "eth0", "gso_max_segs", "1") // so that what is captured is what a wire carries
	}
	hub.Up()
	hub.Do("create", "home")
	hub.Do("policy", "mask", "on")
	seen := desk.Capture("eth0")
	desk.Up()
	desk.Do("join", hub.Invite())
	lab.AllReach(t, 20*time.Second, []*lab.Node{hub, desk})
	for _, p := range [][2]*lab.Node{{hub, desk}, {desk, hub}} {
		if got := p[0].Send(p[1].Host, p[1].Addr4(), 8<<20, time.Minute); got.Bytes != 8<<20 {
			t.Errorf("%s to %s: %+v", p[0].Name, p[1].Name, got)
		}
	}
	port := uint16(desk.Status().Port)
	frames, err := seen.End()
	if err != nil {
		t.Fatal(err)
	}
	datagrams := unrecognised(t, frames, port)

	firsts := map[int]int{}
	for range 4 {
		desk.Stop()
		seen := desk.Capture("eth0")
		desk.Up()
		lab.AllReach(t, 20*time.Second, []*lab.Node{hub, desk})
		frames, err := seen.End()
		if err != nil {
			t.Fatal(err)
		}
		list := unrecognised(t, frames, port)
		firsts[len(list[0])]++
	}
	if len(firsts) < 2 {
		t.Errorf("the first datagram of each start has %v bytes", firsts)
	}
	t.Logf("%d datagrams; the first of each start has %v bytes", len(datagrams), firsts)
}

// unrecognised returns what went from or to a UDP port, and checks that nothing in it stands out.
func unrecognised(t *testing.T, frames [][]byte, port uint16) (out [][]byte) {
	t.Helper()
	const places = 32
	var counts [places][256]int
	for _, f := range frames {
		d := lab.FindUDP(f)
		if d == nil || binary.BigEndian.Uint16(d) != port && binary.BigEndian.Uint16(d[2:]) != port {
			continue
		}
		d = d[lab.UDPHeader:]
		if len(d) > wire.MaxMasked+200 {
			t.Fatalf("%d bytes: not as on a wire", len(d))
		}
		if wire.IsPlain(d) {
			t.Errorf("%d bytes are recognised: %x", len(d), d[:min(len(d), 16)])
		}
		for i, b := range d[:min(len(d), places)] {
			counts[i][b]++
		}
		out = append(out, bytes.Clone(d))
	}
	if len(out) == 0 {
		t.Fatal("nothing was seen")
	}
	for i := range counts {
		for b, n := range counts[i] {
			if limit := len(out)/128 + 12; n > limit {
				t.Errorf("%d of %d datagrams have %s at place %d", n, len(out), fmt.Sprintf("%02x", b), i)
			}
		}
	}
	return out
}
