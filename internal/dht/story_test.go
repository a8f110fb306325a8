package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/testnet"
)

// in runs a story in a swarm of n nodes of IPv4.
func in(t *testing.T, n int, f func(t *testing.T, s *swarm)) {
	t.Helper()
	oneAtATime(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, n, false)
		defer s.close()
		f(t, s)
	})
}

// oneAtATime keeps goroutines from running in parallel during a test. The library waits with time.After(0); inside a bubble such
// timers run where they are made, all in one context of the race detector, which does not survive two at once (Go 1.26).
func oneAtATime(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// mustPut lets a writer store value and returns how it stores another in its place, and how a client gets it.
func mustPut(t *testing.T, s *swarm, seq int64, value string) (put func(seq, cas int64, value string) (int, error),
	get func(c *Client) (int64, string, error)) {
	t.Helper()
	t.Helper()
	priv, salt := newKey(t), []byte("salt")
	writer, _ := s.client("writer", Config{Bootstrap: s.router()}, "93.184.216.34")
	put = func(seq, cas int64, value string) (int, error) {
		ctx, cancel := within(time.Minute)
		defer cancel()
		return writer.Put(ctx, priv, salt, seq, cas, []byte(value))
	}
	if stored, err := put(seq, 0, value); err != nil || stored < 8 {
		t.Fatalf("stored on %d nodes, error %v, want 8 or more", stored, err)
	}
	return put, func(c *Client) (int64, string, error) {
		ctx, cancel := within(time.Minute)
		defer cancel()
		seq, got, err := c.Get(ctx, public25519(priv), salt)
		return seq, string(got), err
	}
}

// spec/71-dht.md#storing
// spec/71-dht.md#limits
func TestWhatOneStoresAnotherFinds(t *testing.T) {
	in(t, 60, func(t *testing.T, s *swarm) {
		began := time.Now()
		value := strings.Repeat("\x00secret", 128)
		_, get := mustPut(t, s, 7, value)
		t.Logf("put after %v with %d packets", time.Since(began), len(s.sent("93.184.216.34")))
		reader, _ := s.client("reader", Config{Bootstrap: s.router()}, "93.184.217.34")
		began = time.Now()
		seq, got, err := get(reader)
		if err != nil || seq != 7 || got != value {
			t.Fatalf("got %d, %d bytes, %v; want 7 and what was put", seq, len(got), err)
		}
		took, st := time.Since(began), reader.Stats()
		t.Logf("get after %v: %+v", took, st)
		if took > 5*time.Second {
			t.Errorf("a get in a DHT of 60 took %v, want 5 s at most", took)
		}
		if int(st.Queries) != len(s.sent("93.184.217.34")) || st.Queries > 200 || st.Replies == 0 || st.Hosts < 8 {
			t.Errorf("stats %+v do not fit the %d packets seen", st, len(s.sent("93.184.217.34")))
		}
		holders := 0
		for _, p := range s.sent("93.184.216.34") {
			if parseQuery(t, p.Data).method == "put" {
				holders++
			}
		}
		if holders < 8 || holders > 20 {
			t.Errorf("sent to %d nodes to store, want 8 to 20", holders)
		}
		for _, who := range []string{"93.184.216.34", "93.184.217.34"} {
			if n := busiest(s.sent(who), time.Second); n > 16+16 {
				t.Errorf("%s sent %d queries in a second, want 32 at most", who, n)
			}
		}
	})
}

// busiest is the largest number of packets in any time of length d.
func busiest(ps []testnet.Packet, d time.Duration) (most int) {
	for i := range ps {
		n := 0
		for _, p := range ps[i:] {
			if p.At.Sub(ps[i].At) < d {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// spec/71-dht.md#limits
func TestManyOperationsTogetherKeepThePace(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		c, _ := s.client("c", Config{Bootstrap: s.router()}, "93.184.216.34")
		done := make(chan error, 12)
		for range cap(done) {
			priv := newKey(t)
			go func() {
				ctx, cancel := within(5 * time.Minute)
				defer cancel()
				_, _, err := c.Get(ctx, public25519(priv), nil)
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; !errors.Is(err, ErrNotFound) {
				t.Errorf("error %v, want ErrNotFound", err)
			}
		}
		if n := busiest(s.sent("93.184.216.34"), time.Second); n > 16+16 {
			t.Errorf("%d queries in a second, want 32 at most", n)
		}
		if n := busiest(s.sent("93.184.216.34"), 5*time.Second); n > 5*16+16 {
			t.Errorf("%d queries in 5 s, want 96 at most", n)
		}
	})
}

// spec/71-dht.md#a-visitor
func TestAVisitorIsSilentUnlessItAsks(t *testing.T) {
	in(t, 30, func(t *testing.T, s *swarm) {
		c, _ := s.client("c", Config{Bootstrap: s.router()}, "93.184.216.34")
		ask := func() {
			ctx, cancel := within(time.Minute)
			defer cancel()
			if _, _, err := c.Get(ctx, public25519(newKey(t)), nil); !errors.Is(err, ErrNotFound) {
				t.Fatalf("error %v, want ErrNotFound", err)
			}
		}
		testnet.Wait(time.Hour)
		if n := len(s.sent("93.184.216.34")); n != 0 {
			t.Fatalf("sent %d packets before first use", n)
		}
		ask()
		first := s.sent("93.184.216.34")
		testnet.Wait(time.Hour)
		for range 3 { // strangers ask
			s.nodes[1].Ping(net.UDPAddrFromAddrPort(netip.MustParseAddrPort("93.184.216.34:4242")))
		}
		if n := len(s.sent("93.184.216.34")); n != len(first) {
			t.Fatalf("sent %d packets more while nothing was asked", n-len(first))
		}
		s.acquaint()
		ask()
		ids, ts := map[string]bool{}, map[string]bool{}
		for i, p := range s.sent("93.184.216.34") {
			if !strings.Contains(string(p.Data), "2:roi1e") {
				t.Errorf("a query does not say that we only ask: %q", p.Data)
			}
			if strings.Contains(string(p.Data), "9:info_hash") || strings.Contains(string(p.Data), "1:v") {
				t.Errorf("a query has what others do not send: %q", p.Data)
			}
			q := parseQuery(t, p.Data)
			if len(q.t) != 4 || ts[q.t] {
				t.Errorf("transaction id %q of packet %d: want 4 bytes, new ones", q.t, i)
			}
			ts[q.t] = true
			_, after, _ := strings.Cut(string(p.Data), "2:id20:")
			ids[after[:20]] = true
			if !library42([]byte(after[:20]), netip.MustParseAddr("93.184.216.34")) {
				t.Errorf("id %x is not made from our address", after[:20])
			}
		}
		if len(ids) != 2 {
			t.Errorf("used %d ids in two visits, want 2", len(ids))
		}
	})
}

// spec/71-dht.md#items
func TestTheNewestItemWins(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		put, get := mustPut(t, s, 100, "old")
		for i, h := range s.hosts { // some of them miss the second
			h.Unplug(i%4 == 1)
		}
		if stored, err := put(200, 100, "new"); err != nil || stored < 6 {
			t.Fatalf("stored on %d, error %v", stored, err)
		}
		for _, h := range s.hosts {
			h.Unplug(false)
		}
		reader, _ := s.client("reader", Config{Bootstrap: s.router()}, "93.184.217.34")
		if seq, got, err := get(reader); err != nil || seq != 200 || got != "new" {
			t.Fatalf("got %d %q, %v; want the newer one", seq, got, err)
		}
	})
}

// spec/71-dht.md#storing
func TestAnOlderItemDoesNotReplaceANewerOne(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		put, get := mustPut(t, s, 100, "first")
		if stored, err := put(200, 100, "second"); err != nil || stored < 8 {
			t.Fatalf("stored on %d, error %v", stored, err)
		}
		if stored, err := put(200, 100, "second"); err != nil || stored < 8 {
			t.Fatalf("again, to make it last: stored on %d, error %v", stored, err)
		}
		for _, tc := range []struct {
			name     string
			seq, cas int64
		}{
			{"made from the first", 300, 100}, {"made from nothing", 300, 0}, {"older", 150, -1}, {"as old but another", 200, -1},
		} {
			var newer *Newer
			stored, err := put(tc.seq, tc.cas, "third")
			if !errors.As(err, &newer) || stored != 0 || newer.Seq != 200 || string(newer.Value) != "second" {
				t.Errorf("%s: stored on %d, error %v; want the second item back", tc.name, stored, err)
			}
		}
		reader, _ := s.client("reader", Config{Bootstrap: s.router()}, "93.184.217.34")
		if seq, got, err := get(reader); err != nil || seq != 200 || got != "second" {
			t.Fatalf("got %d %q, %v", seq, got, err)
		}
		if _, err := put(400, -1, "fourth"); err != nil {
			t.Fatalf("put of a newer one whatever is there: %v", err)
		}
		if seq, got, err := get(reader); err != nil || seq != 400 || got != "fourth" {
			t.Fatalf("got %d %q, %v", seq, got, err)
		}
	})
}

// Two store at the same time: the slower one is told of the other's item, whether it still finds nothing when it looks or not.
// spec/71-dht.md#storing
func TestTwoWhoStoreAtTheSameTime(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		priv := newKey(t)
		fast, _ := s.client("fast", Config{Bootstrap: s.router()}, "93.184.216.34")
		slow, far := s.client("slow", Config{Bootstrap: s.router()}, "93.184.217.34")
		for _, h := range s.hosts {
			s.net.SetLink(far, h, testnet.Link{Delay: 400 * time.Millisecond})
		}
		ctx, cancel := within(time.Minute)
		defer cancel()
		lost := make(chan error, 1)
		go func() { // ends with its Put; waited for below
			_, err := slow.Put(ctx, priv, nil, 100, 0, []byte("slow"))
			lost <- err
		}()
		if stored, err := fast.Put(ctx, priv, nil, 200, 0, []byte("fast")); err != nil || stored < 8 {
			t.Errorf("stored on %d, error %v", stored, err)
		}
		var newer *Newer
		if err := <-lost; !errors.As(err, &newer) {
			t.Errorf("the slow one got the error %v, want to be told of a newer item", err)
		}
		if seq, value, err := slow.Get(ctx, public25519(priv), nil); err != nil || seq != 200 || string(value) != "fast" {
			t.Errorf("got %d %q, %v", seq, value, err)
		}
	})
}

// Nodes that have nothing when asked and something newer when told to store: another wrote in between.
// spec/71-dht.md#storing
func TestAnotherWritesBetweenReadingAndStoring(t *testing.T) {
	for _, tc := range []struct {
		refuse int
		newer  bool
	}{{0, false}, {5, false}, {7, true}, {12, true}} {
		in(t, 1, func(t *testing.T, s *swarm) {
			priv := newKey(t)
			where, list := target(public25519(priv), nil), []byte(nil)
			for i := range 12 {
				a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881)
				id := near(where, byte(i+1))
				s.play(fmt.Sprint("storer", i), a, func(b []byte, _ netip.AddrPort) [][]byte {
					q := parseQuery(t, b)
					if q.method == "put" && i < tc.refuse {
						return [][]byte{fmt.Appendf(nil, "d1:eli302e7:too olde1:t%d:%s1:y1:ee", len(q.t), q.t)}
					}
					return [][]byte{answerGet(q.t, fmt.Sprintf("2:id20:%s5:token1:x", id))}
				})
				list = append(list, compact(id, a)...)
			}
			writer, _ := s.client("writer", Config{Bootstrap: s.guide("47.0.0.1:6881", func([20]byte) []byte { return list })}, "93.184.216.34")
			ctx, cancel := within(time.Minute)
			defer cancel()
			var newer *Newer
			if stored, err := writer.Put(ctx, priv, nil, 7, 0, []byte("mine")); errors.As(err, &newer) != tc.newer || !tc.newer && (err != nil || stored == 0) {
				t.Errorf("%d of 12 refused: stored on %d, error %v", tc.refuse, stored, err)
			}
		})
	}
}

func TestNodesVanish(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		put, get := mustPut(t, s, 1, "here")
		for i, h := range s.hosts {
			h.Unplug(i%2 == 1)
		}
		reader, _ := s.client("reader", Config{Bootstrap: s.router()}, "93.184.217.34")
		began := time.Now()
		if _, got, err := get(reader); err != nil || got != "here" {
			t.Fatalf("got %q, %v from what is left", got, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v with half of the nodes gone, want 10 s at most", took)
		}
		if stored, err := put(2, 1, "again"); err != nil || stored < 3 { // the living ones still tell of the dead
			t.Fatalf("stored on %d, error %v", stored, err)
		}
		if _, got, err := get(reader); err != nil || got != "again" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

// spec/71-dht.md#whom-to-ask
func TestSavedNodesNeedNoBootstrapHost(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		_, get := mustPut(t, s, 1, "here")
		before, _ := s.client("before", Config{Bootstrap: s.router()}, "93.184.217.34")
		if _, _, err := get(before); err != nil {
			t.Fatal(err)
		}
		var saved []Node
		for _, n := range before.Nodes() { // as the owner's disk would have it
			b, err := n.MarshalText()
			var back Node
			if err != nil || back.UnmarshalText(b) != nil || back != n {
				t.Fatalf("%q is not read as what was written: %v", b, err)
			}
			saved = append(saved, back)
		}
		if len(saved) < 8 {
			t.Fatalf("saved %d nodes", len(saved))
		}
		resolve := func(context.Context, string) ([]netip.Addr, error) {
			t.Error("looked up a name that is not needed")
			return nil, errors.New("no")
		}
		after, _ := s.client("after", Config{Nodes: saved, Bootstrap: []string{"router.example:6881"}, Resolve: resolve}, "93.184.218.34")
		if _, got, err := get(after); err != nil || got != "here" {
			t.Fatalf("got %q, %v", got, err)
		}
		if st := after.Stats(); len(st.Bootstraps) != 0 {
			t.Errorf("asked %v", st.Bootstraps)
		}
	})
}

func TestBootstrapHostsAreAskedWhenSavedNodesAreDead(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		_, get := mustPut(t, s, 1, "here")
		var dead []Node
		for i := range 30 {
			dead = append(dead, Node{sha([]byte{byte(i)}), netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881)})
		}
		resolve := func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "router.example" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{s.addrs[0].Addr(), netip.MustParseAddr("192.168.1.1")}, nil
		}
		c, _ := s.client("c", Config{Nodes: dead, Bootstrap: []string{"router.example:6881", "gone.example:6881", "nonsense"}, Resolve: resolve}, "93.184.217.34")
		began := time.Now()
		if _, got, err := get(c); err != nil || got != "here" {
			t.Fatalf("got %q, %v", got, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v, want 10 s at most", took)
		}
		if st := c.Stats(); !slices.Contains(st.Bootstraps, "router.example:6881") {
			t.Errorf("stats name %v as asked", st.Bootstraps)
		}
		for _, p := range s.sent("93.184.217.34") {
			if p.To.Addr().IsPrivate() {
				t.Errorf("sent to %v, which a name server said", p.To)
			}
		}
	})
}

func TestWhenWeAreCutOff(t *testing.T) {
	in(t, 30, func(t *testing.T, s *swarm) {
		_, get := mustPut(t, s, 1, "here")
		c, h := s.client("c", Config{Bootstrap: s.router()}, "93.184.217.34")
		if _, _, err := get(c); err != nil {
			t.Fatal(err)
		}
		known := len(c.Nodes())
		h.Unplug(true)
		for range 4 {
			began := time.Now()
			if _, _, err := get(c); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("error %v, want ErrUnreachable", err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v to say so", took)
			}
		}
		h.Unplug(false)
		if n := len(c.Nodes()); n != known {
			t.Errorf("of %d nodes %d are left, because we were offline", known, n)
		}
		if _, got, err := get(c); err != nil || got != "here" {
			t.Fatalf("back again: %q, %v", got, err)
		}
	})
}

// spec/71-dht.md#limits
func TestCloseAndCancelEndAnOperationAtOnce(t *testing.T) {
	in(t, 10, func(t *testing.T, s *swarm) {
		for _, h := range s.hosts {
			h.Unplug(true)
		}
		c, _ := s.client("c", Config{Bootstrap: s.router()}, "93.184.217.34")
		began := time.Now()
		ctx, cancel := within(300 * time.Millisecond)
		defer cancel()
		if _, _, err := c.Get(ctx, public25519(newKey(t)), nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 301*time.Millisecond {
			t.Errorf("ended after %v with %v, want at 300 ms by the deadline", time.Since(began), err)
		}
		done := make(chan error)
		go func() {
			_, err := c.Put(context.Background(), newKey(t), nil, 1, 0, nil)
			done <- err
		}()
		testnet.Wait(500 * time.Millisecond)
		began = time.Now()
		go c.Close()
		if err := <-done; !errors.Is(err, ErrClosed) || time.Since(began) != 0 {
			t.Errorf("ended %v after Close with %v, want at once with ErrClosed", time.Since(began), err)
		}
		if _, _, err := c.Announce(context.Background(), [20]byte{}, 1); !errors.Is(err, ErrOff) {
			t.Errorf("error %v, want ErrOff", err)
		}
		if _, _, err := c.Get(context.Background(), public25519(newKey(t)), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
		c.Close()
	})
}

// spec/71-dht.md#our-address
func TestNodesTellOurAddress(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		_, get := mustPut(t, s, 1, "here")
		c, _ := s.client("c", Config{Bootstrap: s.router()}, "93.184.217.34")
		if _, _, err := get(c); err != nil {
			t.Fatal(err)
		}
		want := netip.MustParseAddrPort("93.184.217.34:4242")
		if st := c.Stats(); st.Address4 != want || st.Address6.IsValid() {
			t.Errorf("addresses %v and %v, want %v and none", st.Address4, st.Address6, want)
		}
		seen := map[netip.Prefix]bool{}
		for _, o := range c.Observations() {
			if o.Seen != want || seen[prefix(o.By.Addr())] {
				t.Errorf("%v says %v, want %v and one of each prefix", o.By, o.Seen, want)
			}
			seen[prefix(o.By.Addr())] = true
		}
		if len(seen) < 8 {
			t.Errorf("%d prefixes told our address", len(seen))
		}
	})
}

// spec/71-dht.md#peers
func TestPeers(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		hash := sha([]byte("key"))
		ctx, cancel := within(time.Minute)
		defer cancel()
		off, _ := s.client("off", Config{Bootstrap: s.router()}, "93.184.216.34")
		if _, err := off.Peers(ctx, hash); !errors.Is(err, ErrOff) {
			t.Errorf("error %v, want ErrOff", err)
		}
		if _, _, err := off.Announce(ctx, hash, 4242); !errors.Is(err, ErrOff) || len(s.sent("93.184.216.34")) != 0 {
			t.Errorf("error %v and %d packets, want ErrOff and none", err, len(s.sent("93.184.216.34")))
		}
		one, _ := s.client("one", Config{Bootstrap: s.router(), Peers: true}, "93.184.217.34")
		two, _ := s.client("two", Config{Bootstrap: s.router(), Peers: true}, "93.184.218.34")
		if _, err := two.Peers(ctx, hash); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		if stored, _, err := one.Announce(ctx, hash, 1); err != nil || stored < 8 {
			t.Fatalf("announced to %d, error %v", stored, err)
		}
		found, err := two.Peers(ctx, hash)
		if want := netip.MustParseAddrPort("93.184.217.34:4242"); err != nil || !slices.Equal(found, []netip.AddrPort{want}) {
			t.Errorf("found %v, error %v, want %v alone", found, err, want)
		}
	})
}

// spec/71-dht.md#looking-up
func TestIPv6IsItsOwnDHT(t *testing.T) {
	oneAtATime(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, 40, true)
		defer s.close()
		four := newSwarm(t, 0, false)
		defer four.close()
		for i := range 40 {
			h := s.net.Host("four"+string(rune('A'+i)), netip.AddrFrom4([4]byte{45, byte(i), 7, 1}))
			socket, err := h.Listen(6881)
			if err != nil {
				t.Fatal(err)
			}
			four.addrs = append(four.addrs, netip.AddrPortFrom(h.Addrs()[0], 6881))
			four.nodes = append(four.nodes, newNode(t, packetConn{socket}))
		}
		four.acquaint()
		both := []string{s.addrs[0].String(), four.addrs[0].String()}
		priv := newKey(t)
		writer, _ := s.client("writer", Config{Bootstrap: both}, "93.184.216.34", "2a01:4f8::1")
		ctx, cancel := within(time.Minute)
		defer cancel()
		if stored, err := writer.Put(ctx, priv, nil, 1, 0, []byte("x")); err != nil || stored < 24 {
			t.Fatalf("stored on %d, error %v, want some in both", stored, err)
		}
		for name, addrs := range map[string][]string{
			"only4": {"93.184.217.34", "fd00::2"}, "only6": {"2a01:4f8::2"}, "mixed": {"192.168.1.2", "2a01:4f8::3"},
		} {
			c, _ := s.client(name, Config{Bootstrap: both}, addrs...)
			if _, got, err := c.Get(ctx, public25519(priv), nil); err != nil || string(got) != "x" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})
}
