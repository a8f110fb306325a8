package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/udp"
	"github.com/warren-vpn/warren/internal/wire"
)

// world is an internet with machines on which real nodes run, in virtual time.
type world struct {
	*testing.T
	net      *testnet.Net
	machines []*machine
}

// machine is a host, its disk, and the node that runs on it now.
type machine struct {
	w    *world
	name string
	host *testnet.Host
	dir  string // of the state
	log  slog.Handler
	deaf bool // the node is not told of changes of addresses

	battery atomic.Bool  // it runs on one
	metered chan bool    // what the system says of its line
	slept   atomic.Int64 // ns by which its clock stands behind the time

	node *Node // nil while none runs
	sock *socket
	stop context.CancelFunc
	ran  chan error

	mu     sync.Mutex // guards what follows
	tuns   map[string]*testnet.TUN
	routes map[string][]netip.Prefix
}

// story runs f in a bubble with an internet whose links all have the delay and loss of l. All nodes must end well.
func story(t *testing.T, l testnet.Link, f func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, net: testnet.New(1)}
		w.net.SetDefault(l)
		defer w.net.Close()
		defer func() {
			for _, m := range w.machines {
				m.shutdown()
			}
		}()
		f(w)
	})
}

var lan = testnet.Link{Delay: 5 * time.Millisecond}

// machine adds a host with an IPv4 and an IPv6 address and starts a node on it.
func (w *world) machine(name string) *machine {
	w.Helper()
	i := len(w.machines) + 1
	m := w.host(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
	m.start()
	return m
}

// host adds a machine on which nothing runs.
func (w *world) host(name string, addrs ...netip.Addr) *machine {
	m := &machine{w: w, name: name, host: w.net.Host(name, addrs...), dir: filepath.Join(w.TempDir(), name), log: slog.DiscardHandler, metered: make(chan bool),
		tuns: map[string]*testnet.TUN{}, routes: map[string][]netip.Prefix{}}
	if os.Getenv("WARREN_TEST_LOG") != "" {
		m.log = slog.NewTextHandler(w.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}).WithAttrs([]slog.Attr{slog.String("on", name)})
	}
	w.machines = append(w.machines, m)
	return m
}

// start runs a node on the machine's state directory.
func (m *machine) start() {
	m.w.Helper()
	n, err := New(Options{StateDir: m.dir, Config: config.Defaults(), Version: "0.0.0-20261129124857-d26ffa5eb22e-of-a-checkout", Log: slog.New(m.log), Platform: m.platform()})
	if err != nil {
		m.w.Fatalf("%s: %v", m.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.stop, m.ran = n, cancel, make(chan error, 1)
	go func() { m.ran <- n.Run(ctx) }() // ends with shutdown or kill
	synctest.Wait()
}

// shutdown ends the node in good order.
func (m *machine) shutdown() {
	if m.node == nil {
		return
	}
	m.stop()
	if err := <-m.ran; err != nil {
		m.w.Errorf("%s: %v", m.name, err)
	}
	m.node = nil
}

// kill ends the node as a crash does: what is on the disk at this moment is all that is left, and nobody is told.
func (m *machine) kill() {
	m.w.Helper()
	m.dir = m.snapshot()
	m.sock.mute.Store(true)
	m.shutdown()
}

// snapshot copies the state directory as it is now.
func (m *machine) snapshot() string {
	m.w.Helper()
	dir := filepath.Join(m.w.TempDir(), m.name)
	if err := os.CopyFS(dir, os.DirFS(m.dir)); err != nil {
		m.w.Fatal(err)
	}
	for _, p := range []string{".", "networks"} {
		if err := os.Chmod(filepath.Join(dir, p), 0o700); err != nil {
			m.w.Fatal(err)
		}
	}
	return dir
}

func (m *machine) restart() {
	m.w.Helper()
	m.shutdown()
	m.start()
}

// platform is what the node has instead of an operating system.
func (m *machine) platform() Platform {
	return Platform{
		Listen:     m.listen,
		OpenTunnel: m.openTunnel,
		Configure: func(iface string, addrs []netip.Prefix, _ int) error {
			var own []netip.Addr
			for _, p := range addrs {
				own = append(own, p.Addr())
			}
			m.tun(iface).SetAddrs(own...)
			return nil
		},
		SyncRoutes: func(iface string, want []netip.Prefix) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.routes[iface] = slices.Clone(want)
			return nil
		},
		LocalAddrs: func(func(string) bool) ([]netip.Addr, error) { return m.host.Addrs(), nil },
		OnBattery:  m.battery.Load,
		WatchMetered: func(ctx context.Context, changed func(bool)) {
			for {
				select {
				case metered := <-m.metered:
					changed(metered)
				case <-ctx.Done():
					return
				}
			}
		},
		Uptime: func() time.Duration { return time.Duration(time.Now().UnixNano() + m.slept.Load()) },

		SetBroadcast: func(string, netip.Addr) error { return nil },
		Conflict:     func(netip.Prefix, func(string) bool) (string, bool, error) { return "", false, nil },
		Watch: func(ctx context.Context, _ func(string) bool, changed func()) error {
			for {
				c := m.host.Changed()
				select {
				case <-c:
					if !m.deaf {
						changed()
					}
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
}

func (m *machine) listen(port uint16) (Socket, error) {
	s, err := m.host.Listen(port)
	if errors.Is(err, testnet.ErrPortInUse) {
		return nil, fmt.Errorf("%w: %w", udp.ErrPortTaken, err)
	}
	if err != nil {
		return nil, err
	}
	m.sock = &socket{Socket: s}
	return m.sock, nil
}

func (m *machine) openTunnel(name string) (Tunnel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; name == ""; i++ {
		if next := fmt.Sprintf("warren%d", i); m.tuns[next] == nil {
			name = next
		}
	}
	if m.tuns[name] != nil {
		return nil, fmt.Errorf("%s is there already", name)
	}
	m.tuns[name] = testnet.NewTUN(name, config.MaxMTU)
	return &tunnel{TUN: m.tuns[name], m: m}, nil
}

// tun returns the machine's interface of that name; nil when there is none.
func (m *machine) tun(name string) *testnet.TUN {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tuns[name]
}

const narrowMost = 300

// socket is a testnet.Socket that moves batches.
type socket struct {
	*testnet.Socket
	mute    atomic.Bool // its process is dead: nothing leaves any more
	swallow atomic.Bool // relayed datagrams vanish
	narrow  atomic.Bool // those above narrowMost bytes
	drowned atomic.Bool // as many find no room as are read
	lost    atomic.Uint64
	broken  atomic.Bool // reads fail
}

var errBroken = errors.New("cannot allocate memory")

func (s *socket) Offloads() []string { return []string{"none"} }
func (s *socket) Overflow() uint64   { return s.lost.Load() }

func (s *socket) ReadBatch(b []packet.Datagrams) (int, error) {
	n, from, err := s.ReadFrom(b[0].Data[:cap(b[0].Data)])
	if s.broken.Load() {
		return 0, errBroken
	}
	if err != nil {
		return 0, err
	}
	if n > 0 && b[0].Data[:n][0] == wire.TypeRelay && (s.swallow.Load() || s.narrow.Load() && n > narrowMost) {
		return 0, nil
	}
	if s.drowned.Load() {
		s.lost.Add(1)
	}
	b[0] = packet.Datagrams{Data: b[0].Data[:n], Segment: n, Addr: from}
	return 1, nil
}

func (s *socket) WriteBatch(b []packet.Datagrams) (err error) {
	for _, d := range b {
		for c := range slices.Chunk(d.Data, d.Segment) {
			if s.mute.Load() {
				return net.ErrClosed
			}
			if e := s.WriteTo(c, d.Addr); e != nil {
				err = e
			}
		}
	}
	return err
}

// tunnel is a testnet.TUN that moves frames.
type tunnel struct {
	*testnet.TUN
	m      *machine
	closed atomic.Bool // by the node
}

var errRemoved = errors.New("file descriptor in bad state")

func (t *tunnel) Offloads() []string { return []string{"none"} }

func (t *tunnel) ReadFrames(frames []packet.Frame) (int, error) {
	b := frames[0].Data[:cap(frames[0].Data)]
	n, err := t.Read(b)
	if err != nil && !t.closed.Load() {
		return 0, errRemoved
	}
	if err != nil {
		return 0, err
	}
	frames[0] = packet.Frame{Data: b[:n]}
	return 1, nil
}

// WriteFrame cuts super-packets as a kernel would.
func (t *tunnel) WriteFrame(o packet.Offload, pieces [][]byte) error {
	var s packet.Segmenter
	if err := s.Reset(packet.Frame{Offload: o, Data: slices.Concat(pieces...)}); err != nil {
		return err
	}
	buf := make([]byte, s.MaxLen())
	for n := s.Next(buf); n > 0; n = s.Next(buf) {
		if _, err := t.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (t *tunnel) Close() error {
	t.closed.Store(true)
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.tuns[t.Name()] == t.TUN {
		delete(t.m.tuns, t.Name())
	}
	return t.TUN.Close()
}

// must returns v and fails the test on an error.
func must[T any](w *world, v T, err error) T {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// create founds a network and returns its first code.
func (m *machine) create(network string) string {
	m.w.Helper()
	r, err := m.node.Create(m.w.Context(), api.CreateRequest{Name: network, NodeName: m.name})
	return must(m.w, r, err).Invite.Code
}

// invite makes a code for a day.
func (m *machine) invite(uses int) string {
	m.w.Helper()
	r, err := m.node.Invite(m.w.Context(), api.InviteRequest{Uses: uses, Expires: 86400})
	return must(m.w, r, err).Code
}

// join enters a network under the machine's name and returns how long it took.
func (m *machine) join(code string) time.Duration {
	m.w.Helper()
	start := time.Now()
	_, err := m.node.Join(m.w.Context(), api.JoinRequest{Code: code, Name: m.name}, func(api.Progress) {})
	if err != nil {
		m.w.Fatalf("%s: join: %v", m.name, err)
	}
	return time.Since(start)
}

// network returns how the machine sees a network; "" is its only one.
func (m *machine) network(name string) api.Network {
	m.w.Helper()
	st, err := m.node.Status(m.w.Context())
	must(m.w, st, err)
	for _, n := range st.Networks {
		if n.Name == name || name == "" && len(st.Networks) == 1 {
			return n
		}
	}
	m.w.Fatalf("%s is not in the network %q", m.name, name)
	return api.Network{}
}

// roster lists the members as the machine knows them: what must be the same everywhere.
func (m *machine) roster() map[string]string {
	m.w.Helper()
	r, err := m.node.Members(m.w.Context(), "")
	out := map[string]string{}
	for _, x := range must(m.w, r, err).Members {
		out[x.ID] = fmt.Sprint(x.Name, x.Addresses, x.PublicKey, x.Rights, x.Groups, x.Endpoints, x.Joined, x.Via, x.By, x.Gateways)
	}
	return out
}

// names lists the names in the roster.
func (m *machine) names() []string {
	m.w.Helper()
	r, err := m.node.Members(m.w.Context(), "")
	var out []string
	for _, x := range must(m.w, r, err).Members {
		out = append(out, x.Name)
	}
	return out
}

// self is the machine's id in its only network.
func (m *machine) self() string { return m.network("").Self.ID }

// addrs are the machine's addresses in its only network.
func (m *machine) addrs() []netip.Addr { return m.network("").Self.Addresses }

// ping sends an echo request through the tunnels, to the first or second address of the other, and waits for its answer.
func (m *machine) ping(o *machine, family int, within time.Duration) (time.Duration, error) {
	return m.pingNet("", o, family, within)
}

func (m *machine) pingNet(network string, o *machine, family int, within time.Duration) (time.Duration, error) {
	m.w.Helper()
	mine, theirs := m.network(network), o.network(network)
	t := m.tun(mine.Interface)
	if t == nil {
		return 0, errors.New(m.name + " has no interface")
	}
	ctx, cancel := context.WithTimeout(m.w.Context(), within)
	defer cancel()
	return t.Ping(ctx, mine.Self.Addresses[family], theirs.Self.Addresses[family], 32)
}

// reaches fails the test when none of five pings to o is answered, over IPv4 and over IPv6.
func (m *machine) reaches(o *machine) {
	m.w.Helper()
	for f := range 2 {
		if err := m.tries(o, f); err != nil {
			m.w.Errorf("%s -> %s, family %d: %v", m.name, o.name, f, err)
		}
	}
}

func (m *machine) tries(o *machine, family int) (err error) {
	m.w.Helper()
	for range 5 {
		if _, err = m.ping(o, family, time.Second); err == nil {
			return nil
		}
	}
	return err
}

// silent fails the test when a ping to the address is answered.
func (m *machine) silent(from, to netip.Addr) {
	m.w.Helper()
	t := m.tun(m.network("").Interface)
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.w.Context(), 3*time.Second)
	defer cancel()
	if _, err := t.Ping(ctx, from, to, 32); err == nil {
		m.w.Errorf("%s reaches %v, which it must not", m.name, to)
	}
}

// allPairs lets every machine ping every other over both families, all at once.
func (w *world) allPairs(ms ...*machine) {
	w.Helper()
	var wg sync.WaitGroup // ends with the pings
	for _, a := range ms {
		for _, b := range ms {
			if a != b {
				wg.Go(func() { a.reaches(b) })
			}
		}
	}
	wg.Wait()
}

// agree reports whether all machines have the same roster of n members.
func (w *world) agree(n int, ms ...*machine) bool {
	w.Helper()
	first := ms[0].roster()
	for _, m := range ms {
		if r := m.roster(); len(r) != n || !maps.Equal(r, first) {
			return false
		}
	}
	return true
}

// eventually waits until f holds and returns how long that took; the test fails when it takes longer than within.
func (w *world) eventually(what string, within time.Duration, f func() bool) time.Duration {
	w.Helper()
	const step = 10 * time.Millisecond
	for start := time.Now(); ; testnet.Wait(step) {
		if took := time.Since(start); f() {
			return took
		} else if took > within {
			w.Fatalf("not within %v: %s", within, what)
		}
	}
}

// agreed waits until all machines have the same roster of n members.
func (w *world) agreed(n int, within time.Duration, ms ...*machine) time.Duration {
	w.Helper()
	const step = 50 * time.Millisecond
	for start := time.Now(); ; testnet.Wait(step) {
		if took := time.Since(start); w.agree(n, ms...) {
			return took
		} else if took > within {
			for _, m := range ms {
				w.Logf("%s knows %v", m.name, m.names())
			}
			w.Fatalf("no agreement on %d members within %v", n, within)
		}
	}
}

// found makes machines of one network, joined one after the other through the first.
func (w *world) found(names ...string) []*machine {
	w.Helper()
	root := w.machine(names[0])
	root.create("warren")
	code := root.invite(100)
	ms := []*machine{root}
	for _, name := range names[1:] {
		m := w.machine(name)
		m.join(code)
		ms = append(ms, m)
	}
	w.agreed(len(names), 10*time.Second, ms...)
	w.eventually("everybody is in touch", 20*time.Second, func() bool { return w.linked(ms...) })
	return ms
}

// linked reports whether each machine has a path to each other; a direct one where the network is so small that all link.
func (w *world) linked(ms ...*machine) bool {
	for _, m := range ms {
		n := 0
		for _, p := range m.network("").Peers {
			if p.Path == api.PathDirect || len(ms) > 12 && p.Path == api.PathRelayed {
				n++
			}
		}
		if n < len(ms)-1 {
			return false
		}
	}
	return true
}

// peer is how m sees o.
func (m *machine) peer(id string) api.Peer {
	m.w.Helper()
	for _, p := range m.network("").Peers {
		if p.ID == id {
			return p
		}
	}
	return api.Peer{}
}

// inside runs f in the node's control loop.
func (m *machine) inside(f func(w *network)) {
	m.w.Helper()
	err := m.node.with(m.w.Context(), "", func(w *network) error { f(w); return nil })
	if err != nil {
		m.w.Fatal(err)
	}
}

func hosts(ms ...*machine) (out []*testnet.Host) {
	for _, m := range ms {
		out = append(out, m.host)
	}
	return out
}

func address(s string) netip.Addr { return netip.MustParseAddr(s) }
