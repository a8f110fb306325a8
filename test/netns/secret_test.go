//go:build linux

package netns

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// relayed is the first byte of a relayed datagram (spec/52-relay.md#frame).
const relayed = 5

// newRelay makes two hosts with one relay between them, and its two wires.
//
//	a ====== r ====== b
func newRelay(t *testing.T) (g *graph, a, r, b *lab.Node) {
	t.Helper()
	g = newGraph(t, "a=r", "r=b")
	g.found()
	lab.AllReach(t, meshLimit, g.nodes)
	a, r, b = g.nodes[0], g.nodes[1], g.nodes[2]
	lab.Eventually(t, newsLimit, func() error { return way(a, b, "relayed via r") })
	return g, a, r, b
}

// What a relay carries for others is nowhere in the clear: not on its wires, not in its memory.
func TestRelayCannotRead(t *testing.T) {
	t.Parallel()
	g, a, r, b := newRelay(t)
	secret := mark()
	inside := a.Capture(a.Network().Interface)
	var frames, relayedFrames, inClear atomic.Int64
	for _, s := range g.segments {
		for _, n := range s.nodes {
			s.wire.Watch(n.Host, func(frame []byte) bool {
				frames.Add(1)
				if udp := lab.FindUDP(frame); len(udp) > lab.UDPHeader && udp[lab.UDPHeader] == relayed {
					relayedFrames.Add(1)
				}
				if bytes.Contains(frame, []byte(secret[:24])) {
					inClear.Add(1)
				}
				return true
			})
		}
	}
	_, b6 := b.Addrs()
	there := a.StartTalk(b.Host, b.Addr4(), secret, lab.Pace{Size: 4 << 10, Every: 5 * time.Millisecond})
	back := b.StartMarkedStream(a.Host, a.Addr4(), secret)
	six := a.StartMarkedStream(b.Host, b6, secret)
	search := func() error { // that finds it where it is: in the memory of the ends
		for _, n := range []*lab.Node{a, b} {
			if found, size := n.MemoryHolds([]byte(secret)); !found {
				return fmt.Errorf("the secret is not in the %d bytes of memory of %s, which sends it", size, n.Name)
			}
		}
		return nil
	}
	lab.Eventually(t, newsLimit, search)
	for range 20 {
		lab.Always(t, 100*time.Millisecond, func() error { return nil })
		if found, _ := r.MemoryHolds([]byte(secret)); found {
			t.Fatal("the memory of the relay holds what it carries, in the clear")
		}
	}
	for name, f := range map[string]lab.Flow{"there": there.End(), "back": back.End(), "over IPv6": six.End()} {
		if f.Broken != "" || f.Count < 100 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	found, size := r.MemoryHolds([]byte(secret[:24]))
	t.Logf("%d frames, %d of them relayed; searched %d bytes of memory of the relay", frames.Load(), relayedFrames.Load(), size)
	if found || size < 1<<20 {
		t.Errorf("in %d bytes of memory of the relay: found is %v", size, found)
	}
	if n := inClear.Load(); n > 0 {
		t.Errorf("%d of %d frames hold the secret in the clear", n, frames.Load())
	}
	if n := inside.Count([]byte(secret)); relayedFrames.Load() < 1000 || n < 100 {
		t.Errorf("%d relayed frames seen, and %d packets with the secret at the tunnel of a", relayedFrames.Load(), n)
	}
}

// A relay, or who sits on its wire, changes one bit of every second datagram that it passes on: none of those arrives, all
// others do. Only the end can notice a change in the tail; the next hop notices one in the header.
func TestTamperedTailIsDropped(t *testing.T) {
	t.Parallel()
	g, a, r, b := newRelay(t)
	last := g.between("r", "b")
	text := string(bytes.Repeat([]byte("x"), 300)) // recognised by its size: pings are smaller, probes of the MTU larger
	for _, place := range []struct {
		name string
		at   func(size int) int
	}{
		{"the tag of the tail", func(size int) int { return size - 1 }},
		{"the middle of the tail", func(size int) int { return size / 2 }},
		{"the header", func(int) int { return 20 }},
		{"the tag of the header", func(int) int { return 50 }},
	} {
		var seen, flipped atomic.Int64
		last.wire.Watch(r.Host, func(frame []byte) bool {
			udp := lab.FindUDP(frame)
			if size := len(udp) - lab.UDPHeader; size > 380 && size < 480 && udp[lab.UDPHeader] == relayed && seen.Add(1)%2 == 0 {
				lab.FlipBit(udp, place.at(size))
				flipped.Add(1)
			}
			return true
		})
		before := b.Status().Drops["bad_auth"]
		s := a.StartMarkedStream(b.Host, b.Addr4(), text)
		lab.Eventually(t, 20*time.Second, func() error {
			if n := flipped.Load(); n < 40 {
				return fmt.Errorf("%s: %d datagrams of the stream were changed", place.name, n)
			}
			return nil
		})
		f := s.End()
		last.wire.Watch(r.Host, nil)
		lost, n := f.Sent-f.Count, int(flipped.Load())
		if f.Bad > 0 || lost < n-3 || lost > n+3 {
			t.Errorf("%s: %d flipped; of %d datagrams %d were lost and %d came changed", place.name, n, f.Sent, lost, f.Bad)
		}
		if drops := int(b.Status().Drops["bad_auth"] - before); drops < n-1 {
			t.Errorf("%s: b counts %d forged datagrams, want %d", place.name, drops, n)
		}
	}
	if err := a.Ping(b.Addr4()); err != nil {
		t.Error(err)
	}
}
