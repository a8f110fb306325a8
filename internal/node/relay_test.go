package node

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// cut lets nothing pass between two machines, in both directions.
func (w *world) cut(a, b *machine) { w.net.SetLink(a.host, b.host, testnet.Link{Loss: 1}) }

// line makes machines of which each reaches the next one only. They join while all reach all.
func (w *world) line(names ...string) []*machine {
	w.Helper()
	ms := w.found(names...)
	for i, a := range ms {
		for _, b := range ms[min(i+2, len(ms)):] {
			w.cut(a, b)
		}
	}
	return ms
}

// via names the relays by which m reaches o, with dots between; "direct" and "none" are as they say.
func (m *machine) via(o *machine) string {
	m.w.Helper()
	p := m.peer(o.self())
	if p.Path != api.PathRelayed {
		return p.Path
	}
	return strings.Join(p.Via, ".")
}

// stream sends a numbered packet each 20 ms from m to o until stopped, and tells the longest time in which none arrived, how
// many were lost, and how many came out of order.
func (m *machine) stream(o *machine) (stop func() (gap time.Duration, lost, reordered int)) {
	m.w.Helper()
	return m.streamOf(o, 8)
}

// streamOf is a stream whose packets carry so many bytes, 8 or more.
func (m *machine) streamOf(o *machine, size int) (stop func() (gap time.Duration, lost, reordered int)) {
	m.w.Helper()
	const every, grace = 20 * time.Millisecond, 100 * time.Millisecond
	src, dst := netip.AddrPortFrom(m.addrs()[0], 4000), netip.AddrPortFrom(o.addrs()[0], 4000)
	out, in := m.tun(m.network("").Interface), o.tun(o.network("").Interface)
	done := make(chan struct{})
	var wg sync.WaitGroup // ends with stop
	var sent atomic.Int64
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if out.Inject(testnet.UDP(src, dst, fmt.Appendf(nil, "%08d%*s", i, size-8, ""))) == nil {
				sent.Add(1)
			}
			testnet.Wait(every)
		}
	})
	var gap time.Duration
	var got, reordered int
	ctx := m.w.Context()
	wg.Go(func() {
		last, highest := time.Now(), -1
		for {
			p, err := in.Receive(ctx)
			if err != nil {
				return
			}
			inner, err := testnet.ReadInner(p)
			if err != nil || len(inner.Payload) != size && len(inner.Payload) != 8 {
				continue
			}
			if string(inner.Payload) == "the end!" {
				gap = max(gap, time.Since(last)-grace) // it may be all that came
				return
			}
			var n int
			fmt.Sscanf(string(inner.Payload[:8]), "%d", &n)
			got++
			gap = max(gap, time.Since(last))
			last = time.Now()
			if n < highest {
				reordered++
			}
			highest = max(highest, n)
		}
	})
	return func() (time.Duration, int, int) {
		close(done)
		for range 50 { // one at least arrives
			testnet.Wait(grace)
			out.Inject(testnet.UDP(src, dst, []byte("the end!"))) //nolint:errcheck // the next one may do
		}
		wg.Wait()
		return gap, int(sent.Load()) - got, reordered
	}
}

func TestALineOfFiveReachesEachOther(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c", "d", "e")
		took := w.eventually("a finds its way to e", time.Minute, func() bool { return ms[0].via(ms[4]) == "b.c.d" })
		w.Logf("the way over three relays stands after %v", took)
		w.allPairs(ms...)
		rtt, err := ms[0].ping(ms[4], 0, time.Second)
		if err != nil || rtt > 50*time.Millisecond {
			w.Errorf("a ping over four hops of 5 ms takes %v, %v", rtt, err)
		}
		if why := ms[0].peer(ms[4].self()).Why; !strings.Contains(why, "no direct path") {
			w.Errorf("status does not say why: %q", why)
		}
		reply, err := ms[0].node.Ping(w.Context(), api.PingRequest{Member: "e"})
		if err != nil || reply.Path != api.PathRelayed || !slices.Equal(reply.Via, []string{"b", "c", "d"}) {
			w.Errorf("ping says %+v, %v", reply, err)
		}
	})
}

func TestAPacketFindsItsWayWithoutASession(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		ms[0].restart()
		w.eventually("a is back", 10*time.Second, func() bool { return ms[0].via(ms[1]) == "direct" })
		w.eventually("a reaches c", 5*time.Second, func() bool { _, err := ms[0].ping(ms[2], 1, time.Second); return err == nil })
	})
}

func TestADirectPathTakesOver(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		stop := ms[0].stream(ms[2])
		testnet.Wait(5 * time.Second)
		w.net.SetLink(ms[0].host, ms[2].host, lan)
		ms[0].inside(func(n *network) { n.n.hostChanged() })
		took := w.eventually("direct again", 30*time.Second, func() bool { return ms[0].via(ms[2]) == "direct" })
		testnet.Wait(3 * time.Second)
		gap, lost, reordered := stop()
		w.Logf("direct after %v: gap %v, %d lost, %d out of order", took, gap, lost, reordered)
		if gap > 100*time.Millisecond || lost > 0 || reordered > 3 {
			w.Errorf("the change was noticed")
		}
	})
}

func TestADeadDirectPathIsGoneRound(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		stop := ms[0].stream(ms[2])
		testnet.Wait(10 * time.Second)
		w.cut(ms[0], ms[2])
		testnet.Wait(15 * time.Second)
		gap, lost, _ := stop()
		w.Logf("gap %v, %d lost", gap, lost)
		if got := ms[0].via(ms[2]); gap > 4*time.Second || got != "b" {
			w.Errorf("c is reached %s", got)
		}
	})
}

func TestADeadRelayIsGoneRound(t *testing.T) {
	for name, f := range map[string]func(w *world, relay, dst *machine){
		"it crashes":                          func(_ *world, relay, _ *machine) { relay.kill() },
		"its link to the destination is dead": func(w *world, relay, dst *machine) { w.cut(relay, dst) },
		"it stops in good order":              func(_ *world, relay, _ *machine) { relay.shutdown() },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, lan, func(w *world) {
				ms := w.found("a", "b", "c", "d")
				w.cut(ms[0], ms[3])
				relay := ms[1]
				w.eventually("relayed", time.Minute, func() bool {
					v := ms[0].via(ms[3])
					if v == "c" {
						relay = ms[2]
					}
					return v == "b" || v == "c"
				})
				stop := ms[0].stream(ms[3])
				testnet.Wait(10 * time.Second)
				f(w, relay, ms[3])
				testnet.Wait(15 * time.Second)
				gap, lost, _ := stop()
				w.Logf("gap %v, %d lost, now %s", gap, lost, ms[0].via(ms[3]))
				if gap > 4*time.Second {
					w.Errorf("the gap is %v", gap)
				}
			})
		})
	}
}

// The relay changes from IPv4 to IPv6, where each datagram takes 20 bytes more of the 1,500 of a wire: what was sent in full size goes on as it is.
// spec/51-path.md#mtu
func TestARelayMayChangeToIPv6(t *testing.T) {
	story(t, testnet.Link{Delay: 5 * time.Millisecond, MTU: 1500}, func(w *world) {
		ms := w.line("a", "b", "c")
		a, b, c := ms[0], ms[1], ms[2]
		v4, v6 := b.host.Addrs()[0], b.host.Addrs()[1]
		by := func(m *machine) netip.Addr { return m.peer(b.self()).Endpoint.Addr() }
		b.host.SetAddrs(v4)
		w.eventually("the relay is reached by IPv4", time.Minute, func() bool { return a.via(c) == "b" && by(a) == v4 && by(c) == v4 })
		testnet.Wait(10 * time.Second) // the size is found
		size := a.peer(c.self()).MTU
		stop := a.streamOf(c, size-28)
		testnet.Wait(5 * time.Second)
		b.host.SetAddrs(v6)
		testnet.Wait(20 * time.Second)
		gap, lost, _ := stop()
		w.Logf("gap %v, %d lost, of %d bytes each", gap, lost, size)
		if gap > 4*time.Second || size != 1360 || by(a) != v6 {
			w.Errorf("a gap of %v, want 4 s at most; %d bytes passed, want 1360; a reaches the relay at %v", gap, size, by(a))
		}
	})
}

func TestARelayThatSwallowsIsFoundAndAvoided(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d")
		w.cut(ms[0], ms[3])
		evil := ms[1]
		w.eventually("relayed", time.Minute, func() bool {
			v := ms[0].via(ms[3])
			if v == "c" {
				evil = ms[2]
			}
			return v == "b" || v == "c"
		})
		stop := ms[0].stream(ms[3])
		testnet.Wait(10 * time.Second)
		evil.sock.swallow.Store(true) // relayed datagrams vanish in it, all else works
		testnet.Wait(20 * time.Second)
		gap, lost, _ := stop()
		got := ms[0].via(ms[3])
		w.Logf("gap %v, %d lost, now %s instead of %s", gap, lost, got, evil.name)
		if gap > 4*time.Second || got == evil.name {
			w.Errorf("the hostile relay is still in use")
		}
		r, err := ms[0].node.Route(w.Context(), api.MemberRequest{Member: "d"})
		if must(w, r, err); !slices.ContainsFunc(r.Avoided, func(a api.Avoided) bool { return a.Name == evil.name }) {
			w.Errorf("route does not show who is avoided: %+v", r.Avoided)
		}
	})
}

// Two who have never spoken, and whose best routes go through relays that swallow all: the handshake finds the third.
// spec/51-path.md#vain-routes
func TestAHandshakeFindsItsWayRoundRelaysThatSwallow(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d", "e", "f")
		a, f := ms[0], ms[5]
		f.shutdown()
		w.cut(a, f)
		for _, evil := range ms[1:4] {
			evil.sock.swallow.Store(true)
		}
		testnet.Wait(4 * time.Minute) // no session is left
		f.restart()
		took := w.eventually("an answer", 30*time.Second, func() bool { _, err := a.ping(f, 0, time.Second); return err == nil })
		w.Logf("an answer after %v, by %s", took, a.via(f))
		if got := a.via(f); got != "e" {
			w.Errorf("the way is %s, want e: the others swallow", got)
		}
	})
}

// spec/52-relay.md#load
func TestARelayThatCannotReadAllIsGoneRound(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d")
		w.cut(ms[0], ms[3])
		relay, other := ms[1], ms[2]
		w.eventually("relayed", time.Minute, func() bool { return ms[0].peer(ms[3].self()).Path == api.PathRelayed })
		stop := ms[0].stream(ms[3])
		testnet.Wait(time.Minute)
		if ms[0].via(ms[3]) == other.name {
			relay, other = other, relay
		}
		overloaded := func() bool { return relay.network("").Relay.Overloaded }
		relay.sock.drowned.Store(true)
		w.eventually("the relay says so", 5*time.Second, overloaded)
		took := w.eventually("gone round", 2*time.Minute, func() bool { return ms[0].via(ms[3]) == other.name })
		relay.sock.drowned.Store(false)
		w.eventually("the relay has room again", time.Minute, func() bool { return !overloaded() })
		testnet.Wait(time.Minute)
		gap, lost, _ := stop()
		w.Logf("gone round after %v; gap %v, %d lost", took, gap, lost)
		if gap > 100*time.Millisecond || lost > 0 {
			w.Errorf("the moves cost %d packets and %v of silence", lost, gap)
		}
		if got := ms[0].via(ms[3]); got != other.name {
			w.Errorf("now %s, want %s for good", got, other.name)
		}
	})
}

func TestARelaySeesOnlySealedTails(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		marker := []byte("nobody but c may read this marker")
		var seen, tails atomic.Int64
		w.net.Tap(func(p testnet.Packet) {
			if bytes.Contains(p.Data, marker) {
				seen.Add(1)
			}
			if p.Data[0] == wire.TypeRelay {
				tails.Add(1)
			}
		})
		src, dst := netip.AddrPortFrom(ms[0].addrs()[0], 4000), netip.AddrPortFrom(ms[2].addrs()[0], 4000)
		out, in := ms[0].tun(ms[0].network("").Interface), ms[2].tun(ms[2].network("").Interface)
		must(w, 0, out.Inject(testnet.UDP(src, dst, marker)))
		p, err := in.Receive(w.Context())
		if err != nil || !bytes.Contains(p, marker) {
			w.Errorf("c did not get the packet: %v", err)
		}
		if seen.Load() > 0 || tails.Load() < 2 {
			w.Errorf("%d datagrams of %d relayed ones show the plaintext", seen.Load(), tails.Load())
		}
	})
}

func TestALeafRelaysNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d")
		w.cut(ms[0], ms[3])
		ms[1].battery.Store(true)
		w.eventually("b is a leaf", 3*time.Minute, func() bool { return ms[0].via(ms[3]) == "c" && !ms[1].network("").Relay.Enabled })
		ms[2].shutdown()
		testnet.Wait(time.Minute)
		if got := ms[0].via(ms[3]); got == "b" {
			w.Errorf("b is on its battery and relays")
		}
		if _, err := ms[0].ping(ms[3], 0, 2*time.Second); err == nil {
			w.Errorf("a reaches d, and only b could relay")
		}
	})
}

// The system says that the line of b costs money: b relays nothing and says why, until the line changes.
func TestAMeteredMachineRelaysNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		ms[1].metered <- true
		w.eventually("b is a leaf", time.Minute, func() bool { return ms[0].via(ms[2]) == api.PathNone })
		if r := ms[1].network("").Relay; r.Enabled || !strings.Contains(r.Why, "metered") {
			w.Errorf("b says of its relaying %+v", r)
		}
		says(t, ms[1].finds("relay"), api.FindingInfo, "nothing is relayed for others", "metered")
		ms[1].metered <- false
		w.eventually("b relays again", 2*time.Minute, func() bool { return ms[0].via(ms[2]) == "b" && len(ms[1].finds("relay")) == 0 })
	})
}

func TestARevokedMemberIsNoRelay(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		_, err := ms[0].node.Revoke(w.Context(), api.RevokeRequest{Member: "b"})
		must(w, 0, err)
		testnet.Wait(time.Second)
		if got := ms[0].via(ms[2]); got == "b" {
			w.Error("c is reached through b")
		}
		w.eventually("the addresses of before are given up", time.Minute, func() bool { return ms[0].via(ms[2]) == api.PathNone })
		ms[0].silent(ms[0].addrs()[0], ms[2].addrs()[0])
	})
}

func TestNoGossipIsNeededToAnswerANewcomerOverRelays(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		_, err := ms[0].node.AdminAdd(w.Context(), api.AdminRequest{Member: "c", Rights: []string{"invite"}})
		must(w, 0, err)
		w.eventually("c may invite", 10*time.Second, func() bool { return ms[2].network("").Self.Admin })
		d := w.machine("d")
		w.cut(d, ms[0])
		w.cut(d, ms[1])
		d.join(ms[2].invite(1))
		w.agreed(4, 20*time.Second, append(ms, d)...)
		w.eventually("d reaches a", 20*time.Second, func() bool { _, err := d.ping(ms[0], 0, time.Second); return err == nil })
	})
}
