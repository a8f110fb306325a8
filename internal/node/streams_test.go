package node

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/stream"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// tcp is what carries TCP connections in a world, whatever becomes of UDP.
type tcp struct {
	mu        sync.Mutex // guards what follows
	listeners map[netip.AddrPort]*tcpListener
	dialed    []string
	closed    bool // nothing passes
}

// tcpConn is one end of a connection.
type tcpConn struct {
	net.Conn
	remote net.Addr
}

func (c tcpConn) RemoteAddr() net.Addr { return c.remote }

type tcpListener struct {
	tcp   *tcp
	conns chan net.Conn
	done  chan struct{}
	end   sync.Once
}

func (l *tcpListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *tcpListener) Close() error   { l.end.Do(func() { close(l.done) }); return nil }
func (l *tcpListener) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects the machine to an address.
func (t *tcp) dial(from *machine) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		to := netip.MustParseAddrPort(addr)
		t.mu.Lock()
		l, closed := t.listeners[to], t.closed
		t.dialed = append(t.dialed, addr)
		t.mu.Unlock()
		if l == nil || closed {
			return nil, net.ErrClosed
		}
		a, b := net.Pipe()
		here := netip.AddrPortFrom(from.host.Addrs()[0], 50000)
		select {
		case l.conns <- tcpConn{b, net.TCPAddrFromAddrPort(here)}:
			return tcpConn{a, net.TCPAddrFromAddrPort(to)}, nil
		case <-l.done:
		case <-ctx.Done():
		}
		return nil, net.ErrClosed
	}
}

// startTCP runs a node that has TCP, and takes streams at the port if it is not 0.
func (m *machine) startTCP(t *tcp, port uint16) {
	m.w.Helper()
	p, cfg := m.platform(), config.Defaults()
	cfg.Daemon.TLSPort, cfg.Daemon.Proxy = port, "none"
	p.DialTCP = t.dial(m)
	p.ListenTCP = func(port uint16) (net.Listener, error) {
		l := &tcpListener{tcp: t, conns: make(chan net.Conn), done: make(chan struct{})}
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, a := range m.host.Addrs() {
			t.listeners[netip.AddrPortFrom(a, port)] = l
		}
		return l, nil
	}
	m.startOn(p, cfg)
}

// startOn runs a node with this platform and config.
func (m *machine) startOn(p Platform, cfg config.Config) {
	m.w.Helper()
	n, err := New(Options{StateDir: m.dir, Config: cfg, Version: "test", Log: slog.New(m.log), Platform: p})
	if err != nil {
		m.w.Fatalf("%s: %v", m.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.stop, m.ran = n, cancel, make(chan error, 1)
	go func() { m.ran <- n.Run(ctx) }() // ends with shutdown or kill
	synctest.Wait()
}

// hubAndDesk makes a network of a hub, which takes streams, and a desk from which only TCP gets out.
func hubAndDesk(w *world) (t *tcp, hub, desk *machine) {
	t = &tcp{listeners: map[netip.AddrPort]*tcpListener{}}
	hub = w.host("hub", address("192.0.2.1"), address("2001:db8::1"))
	desk = w.host("desk", address("192.0.2.2"), address("2001:db8::2"))
	w.net.SetLink(hub.host, desk.host, testnet.Link{Loss: 1})
	hub.startTCP(t, webPort)
	desk.startTCP(t, 0)
	hub.create("home")
	return t, hub, desk
}

// open lists the node's streams.
func (m *machine) open() []stream.Info { return m.node.streams.set.List() }

// way returns the direct way by which the machine reaches the other.
func (m *machine) way(o *machine) (w wire.Way) {
	id := o.self()
	m.inside(func(n *network) {
		for _, p := range n.mesh.peers {
			if p.id.String() == id {
				w = p.path.Choice().Way
			}
		}
	})
	return w
}

// spec/72-streams.md#when
func TestJoinAndLiveByStream(t *testing.T) {
	story(t, lan, func(w *world) {
		tc, hub, desk := hubAndDesk(w)
		if took := desk.join(hub.invite(1)); took > 8*time.Second {
			w.Errorf("the join took %v", took)
		}
		w.agreed(2, 20*time.Second, hub, desk)
		w.allPairs(hub, desk)
		if !desk.way(hub).IsStream() || !hub.way(desk).IsStream() {
			w.Errorf("ways %v and %v, want streams", desk.way(hub), hub.way(desk))
		}
		p := desk.peer(hub.self())
		if p.Endpoint.Port() != webPort || stream.IsStream(p.Endpoint.Addr()) || !strings.Contains(p.Why, "tls over TCP") {
			w.Errorf("shown: %v, %q", p.Endpoint, p.Why)
		}
		testnet.Wait(5 * time.Minute)
		w.allPairs(hub, desk)
		if list := desk.open(); len(list) != 1 || !list[0].Proven {
			w.Errorf("streams %+v, want one", list)
		}
		for _, m := range []*machine{hub, desk} { // nothing of it is kept or told
			m.inside(func(n *network) {
				for id, saved := range n.mesh.cache {
					if slices.ContainsFunc(saved, func(a netip.AddrPort) bool { return stream.IsStream(a.Addr()) }) {
						m.w.Errorf("%s saves a stream to %v: %v", m.name, id, saved)
					}
				}
				for _, mem := range n.roster.Members {
					if slices.ContainsFunc(mem.Endpoints, func(a netip.AddrPort) bool { return stream.IsStream(a.Addr()) }) {
						m.w.Errorf("%s states a stream: %v", mem.Name, mem.Endpoints)
					}
				}
			})
		}
		desk.shutdown() // and without a code, by what the hub states
		desk.startTCP(tc, 0)
		w.eventually("desk is back", 10*time.Second, func() bool { return desk.peer(hub.self()).Path == "direct" })
		w.allPairs(hub, desk)

		tc.mu.Lock()
		tc.closed = true
		tc.mu.Unlock()
		for _, i := range desk.open() {
			desk.node.streams.set.Drop(i.Addr)
		}
		w.eventually("the stream is missed", 10*time.Second, func() bool { return desk.peer(hub.self()).Path == "none" })
		tc.mu.Lock()
		tc.closed, tc.dialed = false, nil
		tc.mu.Unlock()
		w.eventually("desk has another stream", 40*time.Second, func() bool { return desk.peer(hub.self()).Path == "direct" })

		w.net.SetLink(hub.host, desk.host, lan)
		w.eventually("back to UDP", 90*time.Second, func() bool { return !desk.way(hub).IsStream() && desk.way(hub).IsValid() })
		w.eventually("the stream is closed", 2*time.Minute, func() bool { return len(desk.open())+len(hub.open()) == 0 })
		w.allPairs(hub, desk)
	})
}

// A code names another port than the usual one, by itself, and nothing else of it changes; who has no streams of its own passes on
// those of the members that it talks to. spec/72-streams.md#when, spec/31-code.md#layout
func TestAnotherPort(t *testing.T) {
	story(t, lan, func(w *world) {
		tc := &tcp{listeners: map[netip.AddrPort]*tcpListener{}}
		hub, desk, lap := w.host("hub", address("192.0.2.1")), w.host("desk", address("192.0.2.2")), w.host("lap", address("192.0.2.3"))
		for _, m := range []*machine{hub, desk} {
			w.net.SetLink(m.host, lap.host, testnet.Link{Loss: 1})
		}
		hub.startTCP(tc, 8443)
		desk.startTCP(tc, 0)
		lap.startTCP(tc, 0)
		targets := func(code string) []string {
			c, err := wire.ParseCode(code)
			if err != nil {
				w.Fatal(err)
			}
			return c.Targets
		}
		code := hub.create("home")
		want := []string{"tls://192.0.2.1:8443"}
		if got := targets(code); !slices.Equal(got, want) {
			w.Errorf("the code names %v, want %v", got, want)
		}
		desk.join(code)
		w.agreed(2, 20*time.Second, hub, desk)
		w.allPairs(hub, desk)
		if _, err := hub.node.AdminAdd(w.Context(), api.AdminRequest{Member: "desk", Rights: []string{"invite"}}); err != nil {
			w.Fatal(err)
		}
		w.agreed(2, 20*time.Second, hub, desk)
		code = desk.invite(1)
		if got := targets(code); !slices.Equal(got, want) {
			w.Errorf("the code of another names %v, want %v", got, want)
		}
		lap.join(code)
		w.agreed(3, 20*time.Second, hub, desk, lap)
		if !lap.way(hub).IsStream() {
			w.Errorf("lap reaches hub by %v", lap.way(hub))
		}
	})
}

// Where UDP works there are no streams; a machine that cannot listen says so.
// spec/72-streams.md#when
func TestNoStreamsWhereUDPWorks(t *testing.T) {
	story(t, lan, func(w *world) {
		tc, hub, desk := hubAndDesk(w)
		w.net.SetLink(hub.host, desk.host, lan)
		desk.join(hub.invite(1))
		w.agreed(2, 20*time.Second, hub, desk)
		testnet.Wait(10 * time.Minute)
		if len(tc.dialed) > 0 {
			w.Errorf("dialed: %v", tc.dialed)
		}
	})
}

// Nobody has a node connect to its own machine or into its networks, and a member that was put out finds a web server.
// spec/72-streams.md#when, spec/72-streams.md#key
func TestTargetsAndKeys(t *testing.T) {
	story(t, lan, func(w *world) {
		_, hub, desk := hubAndDesk(w)
		code := hub.invite(1)
		desk.join(code)
		w.agreed(2, 20*time.Second, hub, desk)
		own := desk.addrs()[0]
		for text, want := range map[string]bool{"tls://198.51.100.1:443": true, "wss://vpn.example/x": true, "tls://127.0.0.1:22": false,
			"tls://localhost:22": false, "tls://[::1]:22": false, "tls://[::ffff:127.0.0.1]:22": false, "tls://169.254.169.254:80": false,
			"tls://0.0.0.0:1": false, "tls://[100::1]:443": false, "tls://224.0.0.1:1": false, "tls://" + own.String() + ":443": false} {
			target, err := stream.ParseTarget(text)
			if err != nil {
				w.Fatal(err)
			}
			if got := mayDial(desk.node, target); got != want {
				w.Errorf("%s: %v, want %v", text, got, want)
			}
		}
		var refused func(netip.Addr) bool
		desk.inside(func(n *network) { refused = n.n.refused() })
		for text, want := range map[string]bool{"198.51.100.1": false, "192.168.1.1": false, "127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true,
			"169.254.169.254": true, "100::1": true, own.String(): true, "::ffff:" + own.String(): true, hub.addrs()[1].String(): true} {
			if got := refused(netip.MustParseAddr(text)); got != want {
				w.Errorf("a name that leads to %s is refused: %v, want %v", text, got, want)
			}
		}
		var keys []stream.Key
		desk.inside(func(n *network) { keys = memberKeys(n.roster) })
		try := func(k stream.Key) error {
			s := stream.New(stream.Config{})
			defer s.Close()
			_, err := s.Dial(w.Context(), &stream.Dialer{Key: k, Dial: desk.node.sys.DialTCP}, stream.At(netip.MustParseAddrPort("192.0.2.1:443")))
			return err
		}
		if err := try(keys[0]); err != nil {
			w.Errorf("a member is refused: %v", err)
		}
		parsed, err := wire.ParseCode(code)
		if err != nil {
			w.Fatal(err)
		}
		joinKey := parsed.Seed.JoinKey()
		if err := try(stream.NewKey(joinKey[:])); err != nil {
			w.Errorf("who has just joined is refused: %v", err)
		}
		testnet.Wait(newMember + 2*keysEvery)
		if err := try(stream.NewKey(joinKey[:])); err == nil {
			w.Error("a code that is used up opens a stream")
		}
		if err := try(stream.NewKey([]byte("some other secret"))); err == nil {
			w.Error("a stranger opens a stream")
		}
	})
}
