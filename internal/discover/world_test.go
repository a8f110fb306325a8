package discover

import (
	"crypto/ed25519"
	"crypto/sha1"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// item is what the DHT of the world holds under a target.
type item struct {
	seq   int64
	value []byte
	at    time.Time
}

// event is something that happens later.
type event struct {
	at  time.Time
	run func()
}

// world is a DHT and a local network in virtual time, and the engines that use them.
type world struct {
	*testing.T
	now    time.Time
	start  time.Time
	nodes  []*node
	events []event
	dht    map[Target]item
	rng    *rand.Rand

	down bool                                               // the DHT is
	lie  func(target Target, it item, ok bool) (item, bool) // a hostile storer's answer
	log  []item                                             // all that was ever stored

	peers map[Target][]netip.AddrPort // announced in clear
	crowd []netip.AddrPort            // announced everywhere
}

// node is one engine with an owner that does as it is told.
type node struct {
	w       *world
	e       *Engine
	id      key.ShortID
	addr    netip.AddrPort // on the LAN: the port is that of Mode
	skew    time.Duration  // of its clock
	lan     bool           // connected
	next    time.Time
	gets    int
	puts    int
	meets   int
	clashes int             // puts that another was faster than
	keys    map[Target]bool // written
	said    int             // beacons sent
	answers int             // of them by unicast
	groups  []netip.AddrPort
	found   []Found
	times   []time.Time // of found
	onFind  func(Found)
}

var epoch = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	return &world{T: t, now: epoch, start: epoch, dht: map[Target]item{}, peers: map[Target][]netip.AddrPort{}, rng: rand.New(rand.NewPCG(1, 2))}
}

// chance is randomness that a test can repeat.
type chance struct{ *rand.ChaCha8 }

func seeded(n int) chance { return chance{rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 9})} }

func shortID(n int) key.ShortID { return key.ShortID{byte(n >> 8), byte(n), 7} }

func addrOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(100 + n>>8), byte(n)}), uint16(4000+n))
}

// node adds an engine with the DHT and the LAN switched on.
func (w *world) node() *node { return w.nodeWith(0) }

// nodeWith adds one whose clock is wrong.
func (w *world) nodeWith(skew time.Duration) *node {
	i := len(w.nodes) + 1
	n := &node{w: w, id: shortID(i), lan: true, skew: skew, keys: map[Target]bool{},
		addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 51820)}
	n.e = New(Config{Self: n.id, Rand: seeded(i)})
	w.nodes = append(w.nodes, n)
	n.do(func(now time.Time) { n.e.SetMode(now, Mode{DHT: true, LAN: true, Port: n.addr.Port()}) })
	return n
}

func (n *node) time() time.Time { return n.w.now.Add(n.skew) }

// do calls an engine and carries out what it wants.
func (n *node) do(f func(now time.Time)) {
	f(n.time())
	n.settle()
}

func (n *node) settle() {
	now := n.time()
	n.next = n.e.Tick(now)
	for _, e := range n.e.Effects() {
		n.carryOut(e)
	}
	if again := n.e.Effects(); len(again) > 0 {
		n.w.Errorf("effects without a call: %v", again)
	}
	if !n.next.IsZero() && !n.next.After(now) {
		n.w.Fatalf("asked to be called at %v, now is %v", n.next, now)
	}
	if !n.next.IsZero() {
		n.next = n.next.Add(-n.skew)
	}
}

func (n *node) carryOut(e Effect) {
	w := n.w
	switch e := e.(type) {
	case Get:
		n.gets++
		if sha1.Sum(e.Public) != e.Target {
			w.Error("the target is not the hash of the key")
		}
		w.later(500*time.Millisecond, func() {
			it, ok := w.dht[e.Target]
			if w.lie != nil {
				it, ok = w.lie(e.Target, it, ok)
			}
			n.do(func(now time.Time) {
				switch {
				case w.down:
					n.e.HandleItem(now, e.Target, 0, nil, errors.New("no node of the DHT answers"))
				case ok:
					n.e.HandleItem(now, e.Target, it.seq, it.value, nil)
				default:
					n.e.HandleItem(now, e.Target, 0, nil, nil)
				}
			})
		})
	case Put:
		n.puts++
		n.keys[e.Target] = true
		w.later(500*time.Millisecond, func() { w.store(n, e) })
	case Meet:
		n.meets++
		w.later(500*time.Millisecond, func() {
			found, stored := append(slices.Clone(w.crowd), w.peers[e.Infohash]...), 0
			if e.Announce && len(n.e.own) > 0 {
				w.peers[e.Infohash] = append(w.peers[e.Infohash], n.e.own[0])
				stored = 8
			}
			n.do(func(now time.Time) { n.e.HandleMet(now, e.Infohash, found, stored) })
		})
	case SendBeacon:
		n.said++
		if !e.To.Addr().IsMulticast() {
			n.answers++
		}
		w.later(time.Millisecond, func() { w.beacon(n, e) })
	case Listen:
		n.groups = e.Groups
	case Found:
		n.found = append(n.found, e)
		n.times = append(n.times, w.now)
		if n.onFind != nil {
			n.onFind(e)
		}
	}
}

func (w *world) store(n *node, p Put) {
	if len(p.Value) != ValueSize {
		w.Errorf("a value of %d bytes", len(p.Value))
	}
	if sha1.Sum(p.Private.Public().(ed25519.PublicKey)) != p.Target {
		w.Error("the private key is not the target's")
	}
	old, ok := w.dht[p.Target]
	switch {
	case w.down:
		n.do(func(now time.Time) { n.e.HandleStored(now, p.Target, 0, errors.New("no node of the DHT answers")) })
	case ok && (p.Seq <= old.seq || p.CAS != 0 && p.CAS != old.seq):
		n.clashes++
		n.do(func(now time.Time) {
			if n.clashes%2 == 0 { // it saw the item before it stored, or was refused
				n.e.HandleNewer(now, p.Target, old.seq, old.value)
			} else {
				n.e.HandleNewer(now, p.Target, 0, nil)
			}
		})
	default:
		it := item{p.Seq, p.Value, w.now}
		w.dht[p.Target] = it
		w.log = append(w.log, it)
		n.do(func(now time.Time) { n.e.HandleStored(now, p.Target, 12, nil) })
	}
}

// beacon carries a beacon: by multicast to who listens, by unicast to whose address it is.
func (w *world) beacon(from *node, b SendBeacon) {
	for _, n := range w.nodes {
		if n == from || !n.lan || !from.lan || !slices.Contains(n.groups, b.To) && b.To.Addr() != n.addr.Addr() {
			continue
		}
		source := netip.AddrPortFrom(from.addr.Addr(), 40000) // the socket of beacons is another
		n.do(func(now time.Time) { n.e.HandleBeacon(now, source, "eth0", b.Data) })
	}
}

func (w *world) later(d time.Duration, run func()) {
	w.events = append(w.events, event{w.now.Add(d), run})
}

// run lets time pass until done says so or d is over; it returns how long it took.
func (w *world) run(d time.Duration, done func() bool) time.Duration {
	begin := w.now
	end := begin.Add(d)
	for done == nil || !done() {
		at, run := end, func() {}
		for _, n := range w.nodes {
			if !n.next.IsZero() && n.next.Before(at) {
				at, run = n.next, n.settle
			}
		}
		i := -1
		for k, ev := range w.events {
			if ev.at.Before(at) {
				at, i = ev.at, k
			}
		}
		if i >= 0 {
			run = w.events[i].run
			w.events = slices.Delete(w.events, i, i+1)
		}
		w.now = at
		if !at.Before(end) {
			return d
		}
		run()
	}
	return w.now.Sub(begin)
}

// linked makes nodes a healthy network: each has links and sees the same map.
func (w *world) linked(k Keys, anchors int, nodes ...*node) {
	var alive []Node
	for i, n := range nodes {
		alive = append(alive, Node{ID: n.id, Anchor: i < anchors, Addrs: []netip.AddrPort{addrOf(int(n.id[1]))}})
	}
	for i, n := range nodes {
		kind := KindOther
		if i < anchors {
			kind = KindAnchor
		}
		n.do(func(now time.Time) {
			n.e.SetKey(now, k)
			n.e.SetLinks(now, 3, len(nodes)-1)
			n.e.SetOwn(now, []netip.AddrPort{addrOf(int(n.id[1]))}, kind)
			n.e.SetMap(now, alive)
		})
	}
}

// addrs lists all addresses that n found from a source.
func (n *node) addrs(s Source) (out []netip.AddrPort) {
	for _, f := range n.found {
		if f.Source == s {
			out = append(out, f.Addrs...)
		}
	}
	return out
}

func (n *node) foundBy(s Source) func() bool { return func() bool { return len(n.addrs(s)) > 0 } }

func testKey(b byte) Key { return Key{b, 1, 2, 3} }
