package path

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// link is one address of the far side as the lab plays it.
type link struct {
	rtt  time.Duration
	mtu  int // of inner packets; 0: any
	down bool
	lie  bool // answers with a wrong id
	drop int  // loses each n-th ping
	sent int
	last int // size of the last ping
}

// event is something that happens in the lab at a time.
type event struct {
	at time.Time
	do func()
}

// lab is one engine, one peer with several addresses, and virtual time.
type lab struct {
	*testing.T
	e       *Engine
	peer    *Peer
	id      key.NodeID
	now     time.Time
	links   map[wire.Way]*link
	events  []event
	effects []Effect // all but pings
	largest int      // ping so far
}

// counter is a reader of bytes that never repeat, so that tests are the same each time.
type counter struct{ n uint64 }

func (c *counter) Read(b []byte) (int, error) {
	c.n++
	binary.BigEndian.PutUint64(b, c.n*0x9e3779b97f4a7c15)
	return 8, nil
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// way is a direct way, "via ab" a route through the relays a and b, and "" none.
func way(s string) wire.Way {
	if s == "" {
		return wire.Way{}
	}
	relays, ok := strings.CutPrefix(s, "via ")
	if !ok {
		return wire.Direct(ap(s))
	}
	var ids []key.ShortID
	for _, r := range []byte(relays) {
		ids = append(ids, key.ShortID{r})
	}
	r, _ := wire.NewRoute(ids...)
	return wire.Via(r)
}

func newLab(t *testing.T, stock bool) *lab { return newLabWith(t, Config{}, stock) }

func newLabWith(t *testing.T, cfg Config, stock bool) *lab {
	cfg.Rand = &counter{}
	l := &lab{T: t, e: New(cfg, nil), id: key.NodeID{1}, now: time.Unix(1e9, 0), links: map[wire.Way]*link{}}
	l.peer = l.e.AddPeer(l.id, stock)
	return l
}

// link adds an address or a route and returns it for changes.
func (l *lab) link(addr string, rtt time.Duration) *link {
	k := &link{rtt: rtt}
	l.links[way(addr)] = k
	return k
}

// candidates names addresses to the engine.
func (l *lab) candidates(src Source, addrs ...string) {
	var list []netip.AddrPort
	for _, a := range addrs {
		list = append(list, ap(a))
	}
	l.e.SetCandidates(l.now, l.id, src, list)
	l.settle()
}

func (l *lab) up(from string) { l.e.SessionUp(l.now, l.id, way(from)); l.settle() }

// settle carries out effects until there are none.
func (l *lab) settle() {
	for {
		effects := l.e.Effects()
		if len(effects) == 0 {
			return
		}
		for _, f := range effects {
			g, ok := f.(SendPing)
			if !ok {
				l.effects = append(l.effects, f)
				continue
			}
			l.ping(g)
		}
	}
}

func (l *lab) ping(g SendPing) {
	k := l.links[g.To]
	if k == nil {
		k = &link{down: true}
		l.links[g.To] = k
	}
	k.sent++
	k.last, l.largest = g.Ping.Size, max(l.largest, g.Ping.Size)
	if k.down || k.mtu > 0 && g.Ping.Size > k.mtu || k.drop > 0 && k.sent%k.drop == 0 {
		return
	}
	m := wire.Pong{ID: g.Ping.ID, Observed: ap("203.0.113.9:7")}
	if k.lie {
		m.ID++
	}
	if g.To.IsRelayed() {
		m.Observed = netip.AddrPort{}
	}
	l.at(l.now.Add(k.rtt), func() { l.e.HandlePong(l.now, g.ID, g.To, m) })
}

func (l *lab) at(t time.Time, do func()) {
	l.events = append(l.events, event{t, do})
	sort.SliceStable(l.events, func(i, j int) bool { return l.events[i].at.Before(l.events[j].at) })
}

// run lets d pass.
func (l *lab) run(d time.Duration) {
	l.Helper()
	end := l.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 1e6 {
			l.Fatal("the engine does not come to rest")
		}
		next := l.e.Tick(l.now)
		l.settle()
		if n := l.e.Tick(l.now); !n.IsZero() && (next.IsZero() || n.Before(next)) {
			next = n
		}
		l.settle()
		if len(l.events) > 0 && (next.IsZero() || l.events[0].at.Before(next)) {
			next = l.events[0].at
		}
		if next.IsZero() || next.After(end) {
			l.now = end
			return
		}
		if next.After(l.now) {
			l.now = next
		}
		for len(l.events) > 0 && !l.events[0].at.After(l.now) {
			do := l.events[0].do
			l.events = l.events[1:]
			do()
			l.settle()
		}
	}
}

// traffic lets d pass while data goes out, and data of the peer comes in by from.
func (l *lab) traffic(d time.Duration, from string) {
	l.Helper()
	for end := l.now.Add(d); l.now.Before(end); {
		l.received(from)
		l.active(min(time.Second, end.Sub(l.now)))
	}
}

// routes names relays to the engine.
func (l *lab) routes(routes ...string) {
	var list []wire.Route
	for _, r := range routes {
		list = append(list, way(r).Route)
	}
	l.e.SetRoutes(l.now, l.id, list)
	l.settle()
}

// reaches reports whether a packet to the peer, sent now, would arrive.
func (l *lab) reaches() bool {
	c := l.peer.Choice()
	for _, w := range []wire.Way{c.Way, c.Also} {
		if k := l.links[w]; k != nil && !k.down {
			return true
		}
	}
	return false
}

// gap lets time pass under traffic until packets arrive again, and returns how long that took.
func (l *lab) gap() time.Duration {
	l.Helper()
	start := l.now
	for !l.reaches() {
		if l.now.Sub(start) > time.Minute {
			l.Fatal("nothing arrives any more")
		}
		l.e.Active(l.now, l.id)
		l.run(10 * time.Millisecond)
	}
	return l.now.Sub(start)
}

// active lets d pass under traffic.
func (l *lab) active(d time.Duration) {
	l.Helper()
	for end := l.now.Add(d); l.now.Before(end); {
		l.e.Active(l.now, l.id)
		l.run(min(time.Second, end.Sub(l.now)))
	}
}

func (l *lab) wantBest(want string) {
	l.Helper()
	if got := l.peer.Choice().Way; got != way(want) {
		l.Fatalf("path is %v, want %q; %+v", got, want, l.e.Status(l.id))
	}
}

// count returns the number of effects of type E so far.
func count[E Effect](l *lab) (n int) {
	for _, f := range l.effects {
		if _, ok := f.(E); ok {
			n++
		}
	}
	return n
}

const (
	public  = "198.51.100.1:1000"
	public2 = "198.51.100.2:1000"
	public6 = "[2001:db8::1]:1000"
	private = "192.168.1.5:1000"
)

// spec/51-path.md#choice
func TestLowestRTTWins(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b string
		ra   time.Duration
		rb   time.Duration
		want string
	}{
		{"clearly faster", public, public2, 80 * time.Millisecond, 20 * time.Millisecond, public2},
		{"less than 5 ms faster", public, public2, 8 * time.Millisecond, 4 * time.Millisecond, public},
		{"less than 10 % faster", public, public2, 200 * time.Millisecond, 185 * time.Millisecond, public},
		{"LAN at similar RTT", public, private, 900 * time.Microsecond, 950 * time.Microsecond, private},
		{"LAN that is slow", public, private, 10 * time.Millisecond, 40 * time.Millisecond, public},
		{"IPv6 makes up for a little", public, public6, 100 * time.Millisecond, 95 * time.Millisecond, public6},
		{"IPv6 does not make up for much", public, public6, 100 * time.Millisecond, 110 * time.Millisecond, public},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, false)
			l.link(c.a, c.ra)
			l.link(c.b, c.rb)
			l.candidates(SourceInfo, c.a, c.b)
			l.up(c.a)
			l.active(20 * time.Second)
			l.wantBest(c.want)
		})
	}
}

// A session that came up by one address is usable at once, before any ping is answered.
func TestPathFromTheFirstMoment(t *testing.T) {
	l := newLab(t, false)
	l.wantBest("")
	l.link(public, 30*time.Millisecond)
	l.up(public)
	l.wantBest(public)
	if got := l.peer.Choice().MTU; got != 1280 {
		t.Errorf("MTU before any probe is %d, want 1280", got)
	}
	l.run(time.Second)
	s := l.e.Status(l.id)
	if s.RTT != 30*time.Millisecond || s.State != StateAlive || s.Way != way(public) || s.LastProven.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// spec/51-path.md#choice
func TestFlappingIsDamped(t *testing.T) {
	l := newLab(t, false)
	a, b := l.link(public, 20*time.Millisecond), l.link(public2, 80*time.Millisecond)
	l.candidates(SourceInfo, public, public2)
	l.up(public)
	for i := range 120 { // one is better now, and then the other, for 10 minutes each 5 s
		if i%2 == 0 {
			a.rtt, b.rtt = 20*time.Millisecond, 80*time.Millisecond
		} else {
			a.rtt, b.rtt = 80*time.Millisecond, 20*time.Millisecond
		}
		l.active(5 * time.Second)
	}
	if n := count[Changed](l) - 1; n > 8 {
		t.Errorf("the path changed %d times in 10 minutes", n)
	}
}

// spec/51-path.md#states
func TestDeadPathGivesWay(t *testing.T) {
	l := newLab(t, false)
	lan := l.link(private, time.Millisecond)
	l.link(public, 30*time.Millisecond)
	l.candidates(SourceInfo, private, public)
	l.up(public)
	l.active(20 * time.Second)
	l.wantBest(private)
	lan.down = true
	l.active(2 * time.Second) // heartbeat, then three misses
	l.wantBest(public)
	if count[Dead](l) != 0 {
		t.Error("Dead, although a path is left")
	}
	lan.down = false
	l.active(60 * time.Second)
	l.wantBest(private)
}

// spec/51-path.md#states
func TestAllDeadAsksForHandshake(t *testing.T) {
	l := newLab(t, false)
	a, b := l.link(public, 30*time.Millisecond), l.link(public2, 40*time.Millisecond)
	l.candidates(SourceInfo, public, public2)
	l.up(public)
	l.active(10 * time.Second)
	a.down, b.down = true, true
	l.active(8 * time.Second)
	l.wantBest("")
	if n := count[Dead](l); n != 1 {
		t.Fatalf("%d Dead effects, want 1", n)
	}
	if got := l.e.Targets(l.now, l.id); len(got) != 2 {
		t.Errorf("handshake targets %v, want both addresses", got)
	}
	a.down = false // the outage ends, and the old session is still good
	l.active(15 * time.Second)
	l.wantBest(public)
}

// spec/51-path.md#timers
func TestSessionDownStopsPings(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(10 * time.Second)
	l.e.SessionDown(l.now, l.id)
	l.wantBest("")
	before := k.sent
	l.run(time.Hour)
	if k.sent != before {
		t.Errorf("%d pings without a session", k.sent-before)
	}
	l.up(public)
	l.run(time.Second)
	l.wantBest(public)
}

// spec/51-path.md#timers
func TestHeartbeats(t *testing.T) {
	l := newLab(t, false)
	k := l.link(public, 30*time.Millisecond)
	l.up(public)
	l.run(50 * time.Second)
	k.sent = 0
	l.run(250 * time.Second)
	if k.sent != 10 {
		t.Errorf("%d pings in 250 s of idleness, want 10", k.sent)
	}
	k.sent = 0
	l.active(30 * time.Second)
	if k.sent < 28 || k.sent > 30+3 { // the checks of the path MTU come on top
		t.Errorf("%d pings in 30 s of traffic, want one a second", k.sent)
	}
	l.run(10 * time.Second)
	k.sent = 0
	l.run(30 * time.Second)
	if k.sent < 9 || k.sent > 10+2 {
		t.Errorf("%d pings in the 30 s after, want one each 3 s", k.sent)
	}
}

func TestEmptyEngineRests(t *testing.T) {
	e := New(Config{}, nil)
	id := key.NodeID{9}
	now := time.Unix(1e9, 0)
	e.Received(now, id, way(public))
	e.HandlePong(now, id, way(public), wire.Pong{})
	e.Active(now, id)
	e.SessionDown(now, id)
	e.RemovePeer(id)
	if !e.Tick(now).IsZero() || e.Effects() != nil || e.Targets(now, id) != nil || e.Status(id).State != StateUnknown {
		t.Error("an engine without peers has something to do")
	}
}

func TestRemovedPeerHasNoPath(t *testing.T) {
	l := newLab(t, false)
	l.link(public, time.Millisecond)
	l.up(public)
	l.run(time.Second)
	l.e.RemovePeer(l.id)
	l.wantBest("")
	if next := l.e.Tick(l.now); !next.IsZero() {
		t.Error("a removed peer still has a timer")
	}
}

func TestNoRandomnessCostsPingsOnly(t *testing.T) {
	l := newLab(t, false)
	l.e.cfg.Rand = io.LimitReader(&counter{}, 0)
	l.link(public, time.Millisecond)
	l.up(public)
	l.run(10 * time.Second)
	l.wantBest(public)
}

func TestReadingAllocatesNothing(t *testing.T) {
	l := newLab(t, false)
	l.up(public)
	if n := testing.AllocsPerRun(100, func() { l.peer.Choice() }); n != 0 {
		t.Errorf("Choice allocates %v times", n)
	}
}

func BenchmarkChoice(b *testing.B) {
	e := New(Config{}, nil)
	p := e.AddPeer(key.NodeID{1}, false)
	e.SessionUp(time.Unix(1e9, 0), key.NodeID{1}, way(public))
	b.ReportAllocs()
	for b.Loop() {
		if !p.Choice().Way.IsValid() {
			b.Fatal("no path")
		}
	}
}

func BenchmarkTick(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e, now := New(Config{}, nil), time.Unix(1e9, 0)
			for i := range n {
				id := key.NodeID{byte(i), byte(i >> 8)}
				e.AddPeer(id, false)
				e.SessionUp(now, id, way(public))
			}
			e.Effects()
			b.ReportAllocs()
			for b.Loop() {
				e.Tick(now)
			}
		})
	}
}
