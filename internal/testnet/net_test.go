package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	addr1, addr2, addr3 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	addr6a, addr6b      = netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("2001:db8::b")
)

// world is two hosts with a socket each: what most tests need.
type world struct {
	*testing.T
	net    *Net
	a, b   *Host
	sa, sb *Socket
}

// inWorld runs f in a bubble; the bubble fails the test when anything is left running.
func inWorld(t *testing.T, link Link, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, net: New(1)}
		defer w.net.Close()
		w.a, w.b = w.net.Host("a", addr1, addr6a), w.net.Host("b", addr2, addr6b)
		w.net.SetLink(w.a, w.b, link)
		w.sa, w.sb = listen(t, w.a, 1000), listen(t, w.b, 2000)
		f(w)
	})
}

func listen(t *testing.T, h *Host, port uint16) *Socket {
	t.Helper()
	s, err := h.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// send sends count numbered datagrams of size bytes from a to b.
func (w *world) send(count, size int) {
	w.Helper()
	for i := range count {
		b := make([]byte, size)
		b[0], b[1] = byte(i>>8), byte(i)
		if err := w.sa.WriteTo(b, netip.AddrPortFrom(addr2, 2000)); err != nil {
			w.Fatal(err)
		}
	}
}

// arrived reads the numbers of all datagrams that wait at b.
func (w *world) arrived() (got []int) {
	w.Helper()
	synctest.Wait()
	buf := make([]byte, 2048)
	for len(w.sb.in) > 0 {
		if _, _, err := w.sb.ReadFrom(buf); err != nil {
			w.Fatal(err)
		}
		got = append(got, int(buf[0])<<8|int(buf[1]))
	}
	return got
}

func TestDelayAndSource(t *testing.T) {
	inWorld(t, Link{Delay: 30 * time.Millisecond}, func(w *world) {
		for _, c := range []struct{ to, from netip.Addr }{{addr2, addr1}, {addr6b, addr6a}} {
			start := time.Now()
			if err := w.sa.WriteTo([]byte("hello"), netip.AddrPortFrom(c.to, 2000)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, from, err := w.sb.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "hello" || from != netip.AddrPortFrom(c.from, 1000) {
				t.Fatalf("got %q from %s (%v)", buf[:n], from, err)
			}
			if d := time.Since(start); d != 30*time.Millisecond {
				t.Errorf("took %s, want exactly 30ms", d)
			}
		}
	})
}

func TestLinkFates(t *testing.T) {
	const count = 1000
	cases := []struct {
		name     string
		link     Link
		size     int
		min, max int // datagrams that arrive
		ordered  bool
		fate     Fate
	}{
		{"perfect", Link{}, 100, count, count, true, Delivered},
		{"half lost", Link{Loss: 0.5}, 100, 420, 580, true, Lost},
		{"all lost", Link{Loss: 1}, 100, 0, 0, true, Lost},
		{"every tenth twice", Link{Delay: time.Second, Duplicate: 0.02}, 100, count + 5, count + 24, false, Delivered},
		{"jitter keeps the order", Link{Delay: time.Second, Jitter: time.Second}, 100, count, count, true, Delivered},
		{"reordered", Link{Delay: time.Second, Jitter: time.Second, Reorder: 0.1}, 100, count, count, false, Delivered},
		{"just fits", Link{MTU: 128}, 100, count, count, true, Delivered},
		{"one byte too big", Link{MTU: 127}, 100, 0, 0, true, TooBig},
		{"a slow link with a short queue", Link{Rate: 128 * 8 * 100, Queue: time.Second}, 100, 100, 102, true, QueueFull},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, c.link, func(w *world) {
				w.send(count, c.size)
				Wait(10 * time.Second)
				got := w.arrived()
				if len(got) < c.min || len(got) > c.max {
					t.Errorf("%d datagrams arrived, want %d to %d", len(got), c.min, c.max)
				}
				if slices.IsSorted(got) != c.ordered {
					t.Errorf("in order: %t, want %t", !c.ordered, c.ordered)
				}
				if len(got) != count && w.net.Count(c.fate) == 0 {
					t.Errorf("none was %q", c.fate)
				}
			})
		})
	}
}

func TestSlowLinkTakesItsTime(t *testing.T) {
	inWorld(t, Link{Rate: 8000, Queue: time.Hour}, func(w *world) { // 1000 bytes a second
		start := time.Now()
		w.send(10, 1000-28)
		for range 10 {
			if _, _, err := w.sb.ReadFrom(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("10,000 bytes took %s, want 10s", d)
		}
	})
}

func TestSameSeedSameFates(t *testing.T) {
	run := func() (got []int) {
		inWorld(t, Link{Delay: time.Second, Jitter: time.Second, Loss: 0.2, Duplicate: 0.1, Reorder: 0.3}, func(w *world) {
			w.send(300, 10)
			Wait(time.Minute)
			got = w.arrived()
		})
		return got
	}
	if first, second := run(), run(); !slices.Equal(first, second) || len(first) == 0 {
		t.Errorf("two runs differ:\n%v\n%v", first, second)
	}
}

func TestPartitionAndHeal(t *testing.T) {
	inWorld(t, Link{Delay: time.Second}, func(w *world) {
		c := w.net.Host("c", addr3)
		sc := listen(t, c, 2000)
		w.send(1, 10)
		w.net.Partition([]*Host{w.a, c}, []*Host{w.b}) // while it is under way
		Wait(2 * time.Second)
		if got := w.arrived(); len(got) != 0 {
			t.Errorf("%d datagrams crossed the border", len(got))
		}
		if err := w.sa.WriteTo([]byte("within"), netip.AddrPortFrom(addr3, 2000)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := sc.ReadFrom(make([]byte, 10)); n != 6 || err != nil {
			t.Errorf("within the group: %d bytes, %v", n, err)
		}
		w.net.Heal()
		w.send(1, 10)
		Wait(2 * time.Second)
		if got := w.arrived(); len(got) != 1 {
			t.Errorf("%d datagrams after the border fell, want 1", len(got))
		}
	})
}

func TestRoaming(t *testing.T) {
	inWorld(t, Link{Delay: time.Second}, func(w *world) {
		changed := w.b.Changed()
		w.send(1, 10)
		w.b.SetAddrs(addr3)
		select {
		case <-changed:
		default:
			t.Error("the host was not told of its new address")
		}
		Wait(2 * time.Second)
		if w.net.Count(Unreachable) != 1 {
			t.Errorf("what was sent to the old address did not become unreachable")
		}
		if err := w.sb.WriteTo([]byte("moved"), netip.AddrPortFrom(addr1, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := w.sa.ReadFrom(make([]byte, 10)); err != nil || from != netip.AddrPortFrom(addr3, 2000) {
			t.Errorf("from %s (%v), want the new address and the same port", from, err)
		}
		if err := w.sb.WriteTo([]byte("?"), netip.AddrPortFrom(addr6a, 1000)); !errors.Is(err, ErrNoAddress) {
			t.Errorf("sending IPv6 without an IPv6 address: %v", err)
		}
		w.b.Unplug(true)
		if err := w.sa.WriteTo([]byte("gone"), netip.AddrPortFrom(addr3, 2000)); err != nil {
			t.Fatal(err)
		}
		Wait(2 * time.Second)
		if w.net.Count(Unreachable) != 2 {
			t.Errorf("what was sent to an unplugged host did not become unreachable")
		}
	})
}

func TestSockets(t *testing.T) {
	inWorld(t, Link{}, func(w *world) {
		if _, err := w.a.Listen(1000); !errors.Is(err, ErrPortInUse) {
			t.Errorf("a second socket on the port: %v", err)
		}
		if s := listen(t, w.a, 0); s.Port() < firstDynamicPort {
			t.Errorf("port %d for any", s.Port())
		}
		if err := w.sa.WriteTo([]byte("?"), netip.AddrPortFrom(addr2, 9)); err != nil {
			t.Errorf("sending to a closed port: %v", err)
		}
		Wait(time.Millisecond)
		if w.net.Count(PortClosed) != 1 {
			t.Errorf("the port was not found closed")
		}
		var wg sync.WaitGroup
		wg.Go(func() { // ends when the socket is closed
			if _, _, err := w.sb.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("reading from a closed socket: %v", err)
			}
		})
		synctest.Wait()
		w.sb.Close()
		wg.Wait()
		if err := w.sb.WriteTo([]byte("?"), netip.AddrPortFrom(addr1, 1000)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("writing to a closed socket: %v", err)
		}
		again := listen(t, w.b, 2000)
		w.net.Close()
		w.net.Close()
		if _, _, err := again.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading after the end of the net: %v", err)
		}
		if _, err := w.a.Listen(5); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listening after the end of the net: %v", err)
		}
	})
}

func TestTapSeesEveryFate(t *testing.T) {
	inWorld(t, Link{Delay: time.Second}, func(w *world) {
		seen := make(chan Packet, 2)
		w.net.Tap(func(p Packet) { seen <- p })
		w.send(1, 10)
		p := <-seen
		if p.Fate != Delivered || len(p.Data) != 10 || p.From != netip.AddrPortFrom(addr1, 1000) || p.To != netip.AddrPortFrom(addr2, 2000) {
			t.Errorf("saw %+v", p)
		}
		w.send(1, 10)
		w.net.Close()
		if p := <-seen; p.Fate != NetClosed {
			t.Errorf("what was under way at the end was %q", p.Fate)
		}
	})
}

// A thousand hosts must be cheap enough for the scenarios that will have so many.
func TestManyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(7)
		defer n.Close()
		n.SetDefault(Link{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond})
		const hosts = 1000
		sockets := make([]*Socket, hosts)
		for i := range hosts {
			sockets[i] = listen(t, n.Host(fmt.Sprint("h", i), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), 1)
		}
		var wg sync.WaitGroup
		for i, s := range sockets {
			wg.Go(func() { // ends when its two datagrams came
				for _, j := range []int{(i + 1) % hosts, (i + 500) % hosts} {
					if err := s.WriteTo([]byte("hi"), netip.AddrPortFrom(sockets[j].LocalAddrs()[0], 1)); err != nil {
						t.Error(err)
					}
				}
				for range 2 {
					if _, _, err := s.ReadFrom(make([]byte, 10)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}
