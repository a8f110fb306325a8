//go:build linux

package netns

import (
	"bytes"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// cable is two hosts at the ends of a Wire.
//
//	a 192.0.2.1, 2001:db8::1 ====== 192.0.2.2, 2001:db8::2 b
type cable struct {
	*lab.Wire
	a, b *lab.Host
	to   []netip.Addr // of b: IPv4, IPv6
}

func newCable(t *testing.T) cable {
	t.Helper()
	l := lab.New(t)
	c := cable{a: l.Host("a"), b: l.Host("b"), to: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}}
	c.Wire = l.Wire(c.a, c.b)
	c.A.Add("192.0.2.1/24")
	c.A.Add("2001:db8::1/64")
	c.B.Add("192.0.2.2/24")
	c.B.Add("2001:db8::2/64")
	return c
}

// A Wire carries everything at first; then it is as slow, late and lossy as it was told to be.
func TestLabWire(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	for _, to := range c.to {
		lab.Eventually(t, 5*time.Second, func() error { return c.a.Ping(to) })
		got := c.a.Send(c.b, to, 64<<20, 30*time.Second)
		t.Logf("64 MiB to %s at %.0f Mbit/s", to, got.Rate())
	}

	c.Set(lab.Conditions{Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond})
	out := c.a.Must("ping", "-n", "-c", "10", "-i", "0.05", c.to[0].String())
	if min := pingMin(t, out); min < 60 || min > 80 {
		t.Errorf("the fastest ping over 30 to 40 ms each way took %.1f ms", min)
	}
	c.Set(lab.Conditions{Rate: 16e6, Delay: 5 * time.Millisecond, Queue: 20 * time.Millisecond})
	if rate := c.a.Send(c.b, c.to[1], 2<<20, 30*time.Second).Rate(); rate < 4 || rate > 16 { // one lost retransmission halves it
		t.Errorf("TCP over 16 Mbit/s went at %.1f Mbit/s", rate)
	}
	if c.Counts(c.a).Full == 0 {
		t.Error("the queue of a was never full")
	}

	c.Set(lab.Conditions{})
	c.SetFrom(c.a, lab.Conditions{Loss: 0.3})
	before, s := c.Counts(c.a).Lost, c.a.StartStream(c.b, c.to[0])
	lab.Always(t, time.Second, func() error { return nil })
	f := s.End()
	if lost := 1 - float64(f.Count)/float64(f.Sent); lost < 0.15 || lost > 0.45 || c.Counts(c.a).Lost == before {
		t.Errorf("of %d datagrams %d arrived over a wire that loses 0.3", f.Sent, f.Count)
	}
}

// pingMin reads the smallest time, in ms, from what ping printed.
func pingMin(t *testing.T, out string) float64 {
	t.Helper()
	_, rest, _ := strings.Cut(out, "mdev = ")
	v, _, _ := strings.Cut(rest, "/")
	min, err := time.ParseDuration(v + "ms")
	if err != nil {
		t.Fatalf("ping printed %q", out)
	}
	return float64(min) / float64(time.Millisecond)
}

// A TCP connection lives through a cut of one second, which its Flow shows; a bit that is flipped where only the payload is
// hurt reaches the program, as it does when a checksum was mended by who flipped it.
func TestLabWireCutAndTamper(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	lab.Eventually(t, 5*time.Second, func() error { return c.a.Ping(c.to[0]) })
	talk := c.a.StartTalk(c.b, c.to[0], "mark", lab.Pace{})
	lab.Always(t, time.Second, func() error { return c.a.Ping(c.to[1]) })
	c.Cut()
	lab.Always(t, time.Second, func() error { return nil })
	c.Mend()
	lab.Eventually(t, 5*time.Second, func() error { return c.a.Ping(c.to[0]) })
	f := talk.End()
	if f.Broken != "" || f.Count < 50 || f.Longest() < time.Second || f.Longest() > 4*time.Second {
		t.Errorf("after a cut of 1s: %d records, gaps %v, %s", f.Count, f.Gaps, f.Broken)
	}
	t.Logf("the connection was silent for %s", f.Longest())

	for _, to := range c.to {
		var flipped atomic.Int64
		c.Watch(c.a, func(frame []byte) bool {
			if udp := lab.FindUDP(frame); bytes.Contains(udp, []byte("mark")) {
				lab.FlipBit(udp, len(udp)-lab.UDPHeader-1-int(flipped.Add(1)%2))
			}
			return true
		})
		s := c.a.StartMarkedStream(c.b, to, "mark")
		lab.Eventually(t, 5*time.Second, func() error { return c.b.Ping(netip.MustParseAddr("192.0.2.1")) })
		lab.Always(t, 500*time.Millisecond, func() error { return nil })
		if f := s.End(); f.Bad < 20 || f.Count != 0 {
			t.Errorf("%d datagrams of %d that were tampered with arrived so, and %d whole", f.Bad, flipped.Load(), f.Count)
		}
	}
	c.Watch(c.a, nil)
}

// The wire in an end's hands: what talks over it has the mark in its memory and in a capture, and not what does not.
func TestLabCapture(t *testing.T) {
	t.Parallel()
	c := newCable(t)
	dump := c.b.Capture("eth0")
	const mark = "a carrot in the burrow"
	s := c.a.StartMarkedStream(c.b, c.to[0], mark)
	lab.Eventually(t, 5*time.Second, func() error { return c.a.Ping(c.to[0]) })
	lab.Always(t, 300*time.Millisecond, func() error { return nil })
	f := s.End()
	if n := dump.Count([]byte(mark)); f.Count < 10 || n < f.Count {
		t.Errorf("%d datagrams with the mark arrived, the capture holds %d", f.Count, n)
	}
	if n := dump.Count([]byte("a carrot in the larder")); n != 0 {
		t.Errorf("the capture holds %d packets with what nobody sent", n)
	}
	if _, err := dump.End(); err != nil {
		t.Error(err)
	}
}

// One Ethernet segment: who listens hears a broadcast, a multicast of its group, and each once.
func TestLabGroups(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	wire := l.Switch("lan")
	hosts := map[string]*lab.Host{}
	for i, name := range []string{"a", "b", "c"} {
		hosts[name] = l.Host(name)
		n := string(rune('1' + i))
		hosts[name].Plug(wire, "192.0.2."+n+"/24", "2001:db8::"+n+"/64")
	}
	for _, g := range []struct{ from, to, join string }{
		{"192.0.2.1", "192.0.2.255:27015", ""},
		{"192.0.2.1", "255.255.255.255:27015", ""},
		{"192.0.2.1", "224.0.0.251:5353", "224.0.0.251"},
		{"2001:db8::1", "[ff02::fb]:5353", "ff02::fb"},
	} {
		to, groups := netip.MustParseAddrPort(g.to), []netip.Addr{}
		if g.join != "" {
			groups = append(groups, netip.MustParseAddr(g.join))
		}
		b := hosts["b"].StartAnswerer("eth0", to.Port(), groups...)
		c := hosts["c"].StartAnswerer("eth0", to.Port(), groups...)
		names := hosts["a"].Call("eth0", netip.MustParseAddr(g.from), to, "who is there", 300*time.Millisecond)
		if strings.Join(names, " ") != "b c" || b.Heard()["who is there"] != 1 || c.Heard()["who is there"] != 1 {
			t.Errorf("%s: %v answered, b heard %v, c heard %v", g.to, names, b.Heard(), c.Heard())
		}
		b.Stop()
		c.Stop()
	}
}
