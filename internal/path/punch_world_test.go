package path

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/nat"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// burrow is one of two nodes in a simulated internet: its engines, and sockets behind NATs.
type burrow struct {
	w        *burrows
	host     *testnet.Host
	socks    []*testnet.Socket // the first is the node's one; the others are feet
	feetTo   netip.AddrPort
	e        *Engine
	nat      *nat.Engine
	peer     *Peer
	other    key.NodeID
	pings    int // to addresses, all in all
	perAddr  map[netip.AddrPort]int
	done     []FeetDone
	searched time.Time // Feet was asked for
	messages int       // Candidates that came
}

// burrows is two nodes that reach each other by a relay, four observers, and virtual time.
type burrows struct {
	*testing.T
	net   *testnet.Net
	n     [2]*burrow
	inbox chan func()
	lossy float64 // share of messages by the relay that are lost
	rand  *rand.Rand
}

const (
	relayDelay  = 40 * time.Millisecond
	directDelay = 20 * time.Millisecond
)

// place is where a node is: it makes the host and says its addresses.
type place func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr)

func home(kind testnet.NATKind) place {
	return func(n *testnet.Net, name string, i int) (*testnet.Host, []netip.Addr) {
		x := n.NAT(kind, netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + 10*i)}))
		a := netip.AddrFrom4([4]byte{192, 168, byte(i), 2})
		if kind == testnet.Firewall {
			a = netip.AddrFrom4([4]byte{203, 0, 113, byte(2 + 10*i)})
		}
		return x.Host(name, a), []netip.Addr{a}
	}
}

// inBurrows runs f in a bubble with two nodes that have a session by a relay and know their own NATs.
func inBurrows(t *testing.T, a, b place, cfg Config, f func(w *burrows)) {
	t.Helper()
	inBurrowsSeenBy(t, 4, a, b, cfg, f)
}

// inBurrowsSeenBy is inBurrows with so many observers.
func inBurrowsSeenBy(t *testing.T, count int, a, b place, cfg Config, f func(w *burrows)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &burrows{T: t, net: testnet.New(9), inbox: make(chan func(), 1<<16), rand: rand.New(rand.NewPCG(1, 2))}
		defer w.net.Close()
		w.net.SetDefault(testnet.Link{Delay: directDelay})
		var observers []netip.AddrPort
		for i := range count {
			h := w.net.Host(fmt.Sprint("o", i), netip.AddrFrom4([4]byte{198, byte(51 + i), 100, 1}))
			s, err := h.Listen(1)
			if err != nil {
				t.Fatal(err)
			}
			observers = append(observers, netip.AddrPortFrom(h.Addrs()[0], 1))
			w.serve(s, func(from netip.AddrPort, data []byte) {
				w.check(s.WriteTo(wire.Pong{ID: 7, Observed: from}.Append([]byte{9}), from))
			})
		}
		for i, where := range []place{a, b} {
			n := &burrow{w: w, other: key.NodeID{byte(2 - i)}, perAddr: map[netip.AddrPort]int{}}
			var addrs []netip.Addr
			n.host, addrs = where(w.net, fmt.Sprint("n", i), i)
			own := cfg
			own.Rand = &counter{n: 1e6*uint64(i) + 1000}
			n.e, n.nat = New(own, nil), nat.New(nat.Config{}, nil)
			n.peer = n.e.AddPeer(n.other, false)
			w.n[i] = n
			n.listen()
			n.nat.SetLocal(time.Now(), ports(addrs, n.socks[0].Port()))
			for _, o := range observers {
				n.nat.Tried(time.Now(), o)
				w.check(n.socks[0].WriteTo([]byte{9}, o))
			}
		}
		w.run(time.Second)
		for _, n := range w.n {
			n.e.SetRoutes(time.Now(), n.other, []wire.Route{way("via r").Route})
			n.e.SessionUp(time.Now(), n.other, way("via r"))
		}
		f(w)
	})
}

func ports(addrs []netip.Addr, port uint16) (out []netip.AddrPort) {
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out
}

func (w *burrows) check(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

// serve hands what comes to s to the loop.
func (w *burrows) serve(s *testnet.Socket, f func(from netip.AddrPort, data []byte)) {
	go func() { // ends when the net is closed
		for {
			b := make([]byte, 2048)
			n, from, err := s.ReadFrom(b)
			if err != nil {
				return
			}
			w.inbox <- func() { f(from, b[:n]) }
		}
	}()
}

// listen opens one more socket of n.
func (n *burrow) listen() {
	s, err := n.host.Listen(0)
	n.w.check(err)
	foot := len(n.socks)
	n.socks = append(n.socks, s)
	n.w.serve(s, func(from netip.AddrPort, data []byte) {
		if data[0] == 9 { // an observer
			m, _ := wire.ParseControl(data[1:])
			n.nat.Observe(time.Now(), from, m.(wire.Pong).Observed)
			return
		}
		if foot > 0 {
			if from != n.feetTo {
				return
			}
			from = footAddr(foot)
		}
		n.handle(wire.Direct(from), data[1:])
	})
}

// footAddr stands for one more socket.
func footAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("fd00::f007"), uint16(i))
}

func (n *burrow) handle(from wire.Way, data []byte) {
	m, err := wire.ParseControl(data)
	n.w.check(err)
	now := time.Now()
	switch m := m.(type) {
	case wire.Ping:
		n.e.HandlePing(now, n.other, from, m)
	case wire.Pong:
		n.e.HandlePong(now, n.other, from, m)
	case wire.Candidates:
		n.messages++
		n.e.Received(now, n.other, from)
		n.e.HandleCandidates(now, n.other, m)
	}
}

// send puts a message on its way: by the relay at once, or through the NATs.
func (n *burrow) send(to wire.Way, data []byte) {
	w := n.w
	if to.IsRelayed() {
		if w.rand.Float64() < w.lossy {
			return
		}
		far := w.n[0]
		if far == n {
			far = w.n[1]
		}
		time.AfterFunc(relayDelay, func() { w.inbox <- func() { far.handle(to, data) } })
		return
	}
	n.pings++
	n.perAddr[to.Addr]++
	s, addr := n.socks[0], to.Addr
	if foot := int(addr.Port()); addr == footAddr(foot) && foot < len(n.socks) {
		s, addr = n.socks[foot], n.feetTo
	}
	if err := s.WriteTo(append([]byte{1}, data...), addr); !errors.Is(err, testnet.ErrNoAddress) {
		w.check(err)
	}
}

// settle carries out effects until there are none.
func (n *burrow) settle() {
	for {
		for _, f := range n.nat.Effects() {
			c := f.(nat.Changed)
			n.e.SetOwn(time.Now(), c.V4, c.V6, c.Candidates)
		}
		effects := n.e.Effects()
		if len(effects) == 0 {
			return
		}
		for _, f := range effects {
			n.effect(f)
		}
	}
}

func (n *burrow) effect(f Effect) {
	switch f := f.(type) {
	case SendPing:
		n.send(f.To, f.Ping.Append(nil))
	case SendPong:
		n.send(f.To, f.Pong.Append(nil))
	case SendCandidates:
		n.send(n.peer.Choice().Way, f.Candidates.Append(nil))
	case Feet:
		n.feetTo, n.searched = f.To, time.Now()
		var addrs []netip.AddrPort
		for range f.Count {
			addrs = append(addrs, footAddr(len(n.socks)))
			n.listen()
		}
		n.e.SetFeet(time.Now(), n.other, addrs)
	case FeetDone:
		n.done = append(n.done, f)
	}
}

// run lets d pass, or until done says so, and returns how long that was.
func (w *burrows) run(d time.Duration, done ...func() bool) time.Duration {
	w.Helper()
	start := time.Now()
	for {
		var next time.Time
		for _, n := range w.n {
			if n == nil {
				continue
			}
			n.settle()
			next = earlier(earlier(next, n.e.Tick(time.Now())), n.nat.Tick(time.Now()))
			n.settle()
			next = earlier(earlier(next, n.e.Tick(time.Now())), n.nat.Tick(time.Now()))
		}
		took := time.Since(start)
		if took >= d || len(done) > 0 && done[0]() {
			return took
		}
		wait := d - took
		if !next.IsZero() {
			wait = min(wait, max(time.Until(next), time.Microsecond))
		}
		timer := time.NewTimer(wait)
		select {
		case f := <-w.inbox:
			timer.Stop()
			f()
		case <-timer.C:
		}
	}
}

// direct reports whether both use a direct way.
func (w *burrows) direct() bool {
	w.Helper()
	for _, n := range w.n {
		if !n.peer.Choice().Way.IsValid() {
			w.Error("there is no way at all for a moment")
		}
		if way := n.peer.Choice().Way; !way.IsValid() || way.IsRelayed() {
			return false
		}
	}
	return true
}

// use lets both sides count as active for d.
func (w *burrows) use(d time.Duration) {
	w.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, n := range w.n {
			n.e.Active(time.Now(), n.other)
		}
		w.run(min(5*time.Second, time.Until(end)))
	}
}
