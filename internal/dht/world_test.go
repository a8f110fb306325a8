package dht

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"golang.org/x/time/rate"

	library "github.com/anacrolix/dht/v2"
	peerstore "github.com/anacrolix/dht/v2/peer-store"
	alog "github.com/anacrolix/log"

	"github.com/warren-vpn/warren/internal/testnet"
)

// swarm is a DHT of the library's own nodes, on simulated hosts all over the address space.
type swarm struct {
	t     *testing.T
	net   *testnet.Net
	hosts []*testnet.Host
	nodes []*library.Server
	addrs []netip.AddrPort
	wg    sync.WaitGroup

	mu      sync.Mutex
	packets []testnet.Packet // of clients
	watched map[netip.Addr]bool
}

// packetConn is a simulated socket as the library wants it.
type packetConn struct{ *testnet.Socket }

func (p packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := p.Socket.ReadFrom(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

func (p packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	return len(b), p.Socket.WriteTo(b, to.(*net.UDPAddr).AddrPort())
}

func (p packetConn) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.LocalAddrs()[0], p.Port()))
}
func (packetConn) SetDeadline(time.Time) error      { return nil }
func (packetConn) SetReadDeadline(time.Time) error  { return nil }
func (packetConn) SetWriteDeadline(time.Time) error { return nil }

// peers stores who announced; the library's own store mixes up addresses.
type peers struct {
	mu    sync.Mutex
	found map[peerstore.InfoHash][]krpc.NodeAddr
}

func (p *peers) AddPeer(h peerstore.InfoHash, a krpc.NodeAddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found[h] = append(p.found[h], a)
}

func (p *peers) GetPeers(h peerstore.InfoHash) []krpc.NodeAddr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found[h]
}

// newNode starts a node of the library on a socket.
func newNode(t *testing.T, socket net.PacketConn) *library.Server {
	t.Helper()
	quiet := alog.Default.WithFilterLevel(alog.Critical)
	quiet.Handlers = nil
	id := krpc.RandomNodeID()
	library.SecureNodeId(&id, socket.LocalAddr().(*net.UDPAddr).IP)
	server, err := library.NewServer(&library.ServerConfig{
		Conn: socket, NodeId: id, NoSecurity: true, SendLimiter: rate.NewLimiter(rate.Inf, 0), Exp: 2 * time.Hour, Logger: quiet,
		PeerStore: &peers{found: map[peerstore.InfoHash][]krpc.NodeAddr{}},
		OnQuery: func(q *krpc.Msg, _ net.Addr) bool {
			if q.A != nil && q.A.InfoHash.IsZero() { // the library looks for nodes near info_hash only
				q.A.InfoHash = q.A.Target
			}
			return q.A != nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// newSwarm starts n nodes that know each other. Node i is at 45.i.7.1, and with six at 2a00:i::1 instead.
func newSwarm(t *testing.T, n int, six bool) *swarm {
	s := &swarm{t: t, net: testnet.New(1), watched: map[netip.Addr]bool{}}
	s.net.SetDefault(testnet.Link{Delay: 40 * time.Millisecond})
	s.net.Tap(func(p testnet.Packet) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watched[p.From.Addr()] || s.watched[p.To.Addr()] {
			s.packets = append(s.packets, p)
		}
	})
	for i := range n {
		a := netip.AddrFrom4([4]byte{45, byte(i), 7, 1})
		if six {
			a = netip.AddrFrom16([16]byte{0: 0x2a, 3: byte(i), 15: 1})
		}
		h := s.net.Host(fmt.Sprintf("node%d", i), a)
		socket, err := h.Listen(6881)
		if err != nil {
			t.Fatal(err)
		}
		s.hosts = append(s.hosts, h)
		s.addrs = append(s.addrs, netip.AddrPortFrom(a, 6881))
		s.nodes = append(s.nodes, newNode(t, packetConn{socket}))
	}
	s.acquaint()
	return s
}

// acquaint lets every node ping every other.
func (s *swarm) acquaint() {
	var wg sync.WaitGroup
	for i, node := range s.nodes {
		wg.Go(func() {
			for j := range s.addrs {
				if a := s.addrs[(i+j)%len(s.addrs)]; j > 0 {
					node.Ping(net.UDPAddrFromAddrPort(a))
				}
			}
		})
	}
	wg.Wait()
}

// close ends everything in the swarm.
func (s *swarm) close() {
	for _, n := range s.nodes {
		n.Close()
	}
	s.net.Close()
	s.wg.Wait()
}

// client adds a host with a Client on port 4242. The config's Send is set here.
func (s *swarm) client(name string, cfg Config, addrs ...string) (*Client, *testnet.Host) {
	s.t.Helper()
	var parsed []netip.Addr
	for _, a := range addrs {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	h := s.net.Host(name, parsed...)
	s.mu.Lock()
	for _, a := range parsed {
		s.watched[a] = true
	}
	s.mu.Unlock()
	socket, err := h.Listen(4242)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Send = func(b []byte, to netip.AddrPort) { _ = socket.WriteTo(b, to) }
	if cfg.Own == nil {
		cfg.Own = parsed
	}
	c := New(cfg)
	s.wg.Go(func() {
		b := make([]byte, 65536)
		for {
			n, from, err := socket.ReadFrom(b)
			if err != nil {
				return
			}
			if n > 0 && b[0] == 'd' {
				c.Deliver(b[:n], from)
			}
		}
	})
	return c, h
}

// play adds a host that answers each datagram by f: nil for none.
func (s *swarm) play(name string, a netip.AddrPort, f func(b []byte, from netip.AddrPort) [][]byte) *testnet.Host {
	s.t.Helper()
	h := s.net.Host(name, a.Addr())
	socket, err := h.Listen(a.Port())
	if err != nil {
		s.t.Fatal(err)
	}
	s.wg.Go(func() {
		b := make([]byte, 65536)
		for {
			n, from, err := socket.ReadFrom(b)
			if err != nil {
				return
			}
			for _, out := range f(b[:n], from) {
				_ = socket.WriteTo(out, from)
			}
		}
	})
	return h
}

// sent returns the packets that came from a so far, and forgets none.
func (s *swarm) sent(a string) (out []testnet.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packets {
		if p.From.Addr() == netip.MustParseAddr(a) {
			out = append(out, p)
		}
	}
	return out
}

// router is the entry by which clients find the swarm.
func (s *swarm) router() []string { return []string{s.addrs[0].String()} }

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return priv
}

func public25519(priv ed25519.PrivateKey) ed25519.PublicKey { return priv.Public().(ed25519.PublicKey) }

// asked is what a query holds that a played node needs.
type asked struct {
	t, method string
	target    [20]byte
}

// parseQuery reads a query of ours.
func parseQuery(t *testing.T, b []byte) (q asked) {
	t.Helper()
	s := scanner{b: b}
	if !s.dict(0, func(key, raw []byte) bool {
		switch string(key) {
		case "t":
			v, _ := text(raw)
			q.t = string(v)
		case "q":
			v, _ := text(raw)
			q.method = string(v)
		case "a":
			args := scanner{b: raw}
			args.dict(1, func(key, raw []byte) bool {
				if string(key) == "target" || string(key) == "info_hash" {
					v, _ := text(raw)
					copy(q.target[:], v)
				}
				return true
			})
		}
		return true
	}) {
		t.Errorf("we sent what is no dictionary: %q", b)
	}
	return q
}

// near returns an id that is the n-th nearest to target.
func near(target [20]byte, n byte) [20]byte {
	target[19] ^= n
	return target
}

// compact writes a node as it stands in a list.
func compact(id [20]byte, a netip.AddrPort) []byte {
	out := append(id[:], a.Addr().AsSlice()...)
	return append(out, byte(a.Port()>>8), byte(a.Port()))
}

// within is a context that ends after d of virtual time.
func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func sha(b ...[]byte) [20]byte {
	h := sha1.New()
	for _, x := range b {
		h.Write(x)
	}
	return [20]byte(h.Sum(nil))
}

// library42 says whether id is one that BEP 42 allows at a.
func library42(id []byte, a netip.Addr) bool {
	return library.NodeIdSecure([20]byte(id), a.AsSlice())
}
