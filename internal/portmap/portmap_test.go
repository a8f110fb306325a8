package portmap

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const ourPort = 51820

// world is a Mapper at work, and what it said.
type world struct {
	*testing.T
	m    *Mapper
	news chan Mapping
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	gateway netip.Addr
}

func newWorld(t *testing.T, r *router, change ...func(*times)) *world {
	t.Helper()
	w := &world{T: t, news: make(chan Mapping, 100), gateway: r.addr}
	w.m = New(Config{Port: ourPort, Gateway: func() (netip.Addr, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.gateway.IsValid() {
			return netip.Addr{}, errors.New("no default route")
		}
		return w.gateway, nil
	}})
	for _, f := range change {
		f(&w.m.times)
	}
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	w.done.Go(func() { w.m.Run(ctx, func(m Mapping) { w.news <- m }) }) // ends with ctx
	t.Cleanup(w.end)
	return w
}

// end ends Run and waits for it.
func (w *world) end() {
	w.stop()
	w.done.Wait()
}

// next waits for what Run says next.
func (w *world) next() Mapping {
	w.Helper()
	select {
	case m := <-w.news:
		return m
	case <-time.After(10 * time.Second):
		w.Fatalf("Run says nothing new; status %+v", w.m.Status())
	}
	return Mapping{}
}

// until waits until f is true.
func (w *world) until(what string, f func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !f(); <-tick.C {
		if time.Now().After(end) {
			w.Fatalf("never happened: %s; status %+v", what, w.m.Status())
		}
	}
}

// Each protocol alone, and all together: the port is mapped, by the best of them, once, and is not any more when Run has
// ended. spec/74-portmap.md#whom spec/74-portmap.md#lifetime spec/74-portmap.md#address
func TestMapped(t *testing.T) {
	tests := []struct {
		name   string
		router routerSettings
		want   Mapping
	}{
		{"PCP", routerSettings{pcp: true}, Mapping{Protocol: PCP, Public: true}},
		{"NAT-PMP", routerSettings{pmp: true}, Mapping{Protocol: NATPMP, Public: true}},
		{"UPnP", routerSettings{upnp: true}, Mapping{Protocol: UPnP, Public: true}},
		{"all three", routerSettings{pcp: true, pmp: true, upnp: true}, Mapping{Protocol: PCP, Public: true}},
		{"behind another NAT", routerSettings{pcp: true, external: netip.MustParseAddr("192.168.1.7")}, Mapping{Protocol: PCP}},
		{"behind the provider's NAT", routerSettings{pmp: true, external: netip.MustParseAddr("100.64.3.4")}, Mapping{Protocol: NATPMP}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, tt.router)
			w := newWorld(t, r)
			tt.want.External, tt.want.Gateway = netip.AddrPortFrom(r.external, ourPort), r.addr
			got := w.next()
			if left := time.Until(got.Expires); left < 7190*time.Second || left > 7200*time.Second {
				t.Errorf("the mapping expires in %s, want two hours", left)
			}
			if !got.same(tt.want) || w.m.Status().Mapping != got || w.m.Status().Err != nil {
				t.Errorf("got %+v, want %+v; status %+v", got, tt.want, w.m.Status())
			}
			if h := r.holds(); len(h) != 1 || h[ourPort].Port() != ourPort {
				t.Errorf("the router has mapped %v", h)
			}
			w.end()
			if h := r.holds(); len(h) != 0 || r.most != 1 {
				t.Errorf("at the end the router has mapped %v, and %d at once before", h, r.most)
			}
			if len(w.news) != 0 || w.m.Status().Mapping != (Mapping{}) {
				t.Errorf("at the end: %+v, status %+v", <-w.news, w.m.Status())
			}
		})
	}
}

// The port that we would like outside belongs to somebody else.
func TestPortTaken(t *testing.T) {
	for _, s := range []routerSettings{{pcp: true}, {pmp: true}, {upnp: true}} {
		s.taken = map[uint16]bool{ourPort: true, ourPort + 1: true}
		t.Run(strings.Join(speaks(s), ","), func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, s)
			w := newWorld(t, r)
			got := w.next()
			if p := got.External.Port(); p == 0 || p == ourPort || len(r.holds()) != 1 || r.holds()[p].Port() != ourPort {
				t.Errorf("got %+v; the router has mapped %v", got, r.holds())
			}
			w.m.Recheck()
			w.until("a renewal", func() (yes bool) { r.locked(func() { yes = r.grants == 2 }); return yes })
			if len(r.holds()) != 1 || len(w.news) != 0 {
				t.Errorf("after the renewal the router has mapped %v; news: %d", r.holds(), len(w.news))
			}
		})
	}
}

func speaks(s routerSettings) (names []string) {
	for name, yes := range map[string]bool{PCP: s.pcp, NATPMP: s.pmp, UPnP: s.upnp} {
		if yes {
			names = append(names, name)
		}
	}
	return names
}

// A router that grants mappings for ever only: it has ours until Run ends.
func TestForEver(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{upnp: true, permanent: true})
	w := newWorld(t, r)
	if got := w.next(); !got.Expires.IsZero() || got.Protocol != UPnP {
		t.Errorf("got %+v", got)
	}
	w.end()
	if h := r.holds(); len(h) != 0 {
		t.Errorf("at the end the router has mapped %v", h)
	}
}

// Renewed after half of what the router grants, again and again; nobody hears of it. spec/74-portmap.md#lifetime
func TestRenewed(t *testing.T) {
	for _, s := range []routerSettings{{pcp: true}, {pmp: true}} {
		s.lifetime = 2 * time.Second
		t.Run(strings.Join(speaks(s), ","), func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, s)
			w := newWorld(t, r, func(x *times) { x.soonest = 10 * time.Millisecond })
			first := w.next()
			start := time.Now()
			w.until("two renewals", func() (yes bool) { r.locked(func() { yes = r.grants == 3 }); return yes })
			if took := time.Since(start); took < 1900*time.Millisecond || took > 2900*time.Millisecond {
				t.Errorf("two renewals of a mapping for 2 s took %s, want 2 s", took)
			}
			w.until("a later end", func() bool { return w.m.Status().Mapping.Expires.After(first.Expires) })
			if len(w.news) != 0 || len(r.holds()) != 1 {
				t.Errorf("news %d, mapped %v", len(w.news), r.holds())
			}
		})
	}
}

// The router falls silent: the mapping counts until it expires, then not. It comes back: mapped again. spec/74-portmap.md#lifetime
func TestLostAndFound(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{pcp: true, lifetime: 3 * time.Second})
	w := newWorld(t, r, func(x *times) {
		x.soonest, x.retry, x.datagrams = 10*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond
	})
	first := w.next()
	r.locked(func() { r.pcp = false })
	if lost := w.next(); lost != (Mapping{}) || time.Now().Before(first.Expires) {
		t.Errorf("%s before the end: %+v", time.Until(first.Expires), lost)
	}
	if s := w.m.Status(); s.Err == nil || !s.Gateway.IsValid() {
		t.Errorf("status %+v", s)
	}
	r.locked(func() { r.pcp = true })
	if again := w.next(); !again.same(first) {
		t.Errorf("got %+v, want %+v", again, first)
	}
}

// A router restarts and says so: it is asked again at once. Others who say so, and what is no restart, change nothing.
// spec/74-portmap.md#lifetime
func TestRouterRestarts(t *testing.T) {
	for _, s := range []routerSettings{{pcp: true}, {pmp: true}} {
		t.Run(strings.Join(speaks(s), ","), func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, s)
			liar := newRouter(t, s)
			w := newWorld(t, r)
			w.next()
			liar.reboot()
			r.locked(func() { r.control.WriteToUDPAddrPort(r.announcement(), announced) }) //nolint:errcheck // what does not arrive shows
			r.reboot()
			w.until("the mapping is back", func() bool { return len(r.holds()) == 1 })
			r.reboot() // within 10 s of the first: ignored
			w.end()
			if r.grants != 2 || len(w.news) != 0 {
				t.Errorf("%d grants, want the first and one after the restart; news %d", r.grants, len(w.news))
			}
		})
	}
}

// After a crash, which removed nothing, the router takes us for who we were; a stranger's mapping it would not touch.
func TestAfterCrash(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{pcp: true})
	obtain := func(seed string) error {
		m := New(Config{Port: ourPort, Seed: []byte(seed)})
		_, err := m.services(r.addr)[0].obtain(t.Context(), netip.AddrPort{})
		return err
	}
	for _, tt := range []struct {
		seed    string
		allowed bool
	}{{"us", true}, {"us", true}, {"them", false}} {
		if err := obtain(tt.seed); (err == nil) != tt.allowed {
			t.Errorf("a mapping for %s: %v", tt.seed, err)
		}
	}
}

// The host moves to another network, to none, and back.
func TestAnotherRouter(t *testing.T) {
	t.Parallel()
	first, second := newRouter(t, routerSettings{pmp: true}), newRouter(t, routerSettings{upnp: true, external: netip.MustParseAddr("203.0.113.9")})
	w := newWorld(t, first)
	w.next()
	move := func(to netip.Addr) Mapping {
		w.mu.Lock()
		w.gateway = to
		w.mu.Unlock()
		w.m.Recheck()
		return w.next()
	}
	if got := move(second.addr); got.Gateway != second.addr || got.Protocol != UPnP || len(first.holds()) != 0 || len(second.holds()) != 1 {
		t.Errorf("got %+v; the first router has %v, the second %v", got, first.holds(), second.holds())
	}
	if got := move(netip.Addr{}); got != (Mapping{}) || len(second.holds()) != 0 || w.m.Status().Err == nil {
		t.Errorf("got %+v; the second router has %v; status %+v", got, second.holds(), w.m.Status())
	}
	if got := move(first.addr); got.Gateway != first.addr || len(first.holds()) != 1 {
		t.Errorf("got %+v; the first router has %v", got, first.holds())
	}
}

// Nobody answers: few datagrams, and an answer for people. spec/74-portmap.md#traffic
func TestSilence(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{})
	w := newWorld(t, r)
	w.until("an answer", func() bool { return w.m.Status().Err != nil })
	r.locked(func() {
		if want := map[string]int{PCP: 3, NATPMP: 3, UPnP: 4}; !maps.Equal(r.asked, want) { // and twice to the group
			t.Errorf("asked %v times, want %v", r.asked, want)
		}
	})
	s := w.m.Status()
	if len(s.Answers) != 3 || s.Mapping != (Mapping{}) || len(w.news) != 0 {
		t.Errorf("status %+v", s)
	}
	for _, a := range s.Answers {
		if !errors.Is(a.Err, errSilent) {
			t.Errorf("%s: %v", a.Protocol, a.Err)
		}
	}
}

// A router that speaks all and allows nothing: each is tried, each says so.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{pcp: true, pmp: true, upnp: true, mapsNothing: true})
	w := newWorld(t, r)
	w.until("three answers", func() bool { return w.m.Status().Err != nil })
	for _, a := range w.m.Status().Answers {
		if a.Err == nil || errors.Is(a.Err, errSilent) {
			t.Errorf("%s: %v", a.Protocol, a.Err)
		}
	}
	if len(r.holds()) != 0 || len(w.news) != 0 {
		t.Errorf("mapped %v, news %d", r.holds(), len(w.news))
	}
}

// A router whose datagrams are cut, forged or doubled among good ones.
func TestGarbledAnswers(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{pcp: true, garble: func(a []byte) [][]byte {
		wrong := append([]byte(nil), a...)
		if len(wrong) > 30 {
			wrong[30] ^= 1 // the nonce
		}
		return [][]byte{{}, {2}, a[:len(a)-1], make([]byte, 1500), wrong, a, a}
	}})
	w := newWorld(t, r)
	got := w.next()
	if got.Protocol != PCP || got.External.Addr() != r.external {
		t.Errorf("got %+v; status %+v", got, w.m.Status())
	}
}

// Whatever a description says, nobody but the router is connected to. spec/74-portmap.md#whom
func TestDescriptionsThatLeadAway(t *testing.T) {
	victim, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	touched := make(chan struct{})
	var run sync.WaitGroup
	run.Go(func() { // ends with the listener
		if c, err := victim.Accept(); err == nil {
			c.Close()
			close(touched)
		}
	})
	away := "http://" + victim.Addr().String() + "/"
	for name, s := range map[string]routerSettings{
		"base":     {page: strings.Replace(rootPage, "<device>", "<URLBase>"+away+"</URLBase><device>", 1)},
		"control":  {page: strings.Replace(rootPage, "/control", away+"control", 1)},
		"redirect": {redirect: away},
		"endless":  {page: rootPage[:60] + strings.Repeat("<device><deviceType>x</deviceType></device>", 1<<18)},
		"nothing":  {page: "<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device></device></root>"},
		"deep":     {page: rootPage[:60] + strings.Repeat("<device><deviceList>", 3000)},
	} {
		t.Run(name, func(t *testing.T) {
			s.upnp = true
			r := newRouter(t, s)
			w := newWorld(t, r)
			w.until("an answer", func() bool { return w.m.Status().Err != nil })
		})
	}
	victim.Close()
	run.Wait()
	select {
	case <-touched:
		t.Error("a host that is not the router was connected to")
	default:
	}
}

// The end comes while the router is being asked: Run does not wait for answers that never come.
func TestEndWhileAsking(t *testing.T) {
	t.Parallel()
	r := newRouter(t, routerSettings{})
	w := newWorld(t, r)
	w.until("a question", func() (yes bool) { r.locked(func() { yes = len(r.asked) > 0 }); return yes })
	start := time.Now()
	w.end()
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("the end took %s", took)
	}
}

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "198.51.100.1": true, "100.63.0.1": true, "100.128.0.1": true, "172.32.0.1": true,
		"0.0.0.0": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "169.254.1.1": false, "172.16.0.1": false,
		"192.168.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("public(%s) = %v", text, got)
		}
	}
}

// spec/74-portmap.md#lifetime
func TestEpoch(t *testing.T) {
	at := time.Now()
	for _, tt := range []struct {
		before, now uint32
		passed      time.Duration
		lost        bool
	}{
		{1000, 1060, time.Minute, false}, {1000, 1058, time.Minute, false}, {1000, 1063, time.Minute, false},
		{1000, 0, time.Minute, true}, {1000, 999, 0, false}, {1000, 998, 0, true}, {0, 0, 0, false},
		{1000, 1000, time.Minute, true}, {1000, 5000, time.Minute, true}, {1<<32 - 1, 3, 10 * time.Second, true},
	} {
		if got := (epoch{tt.before, at}).lost(epoch{tt.now, at.Add(tt.passed)}); got != tt.lost {
			t.Errorf("epoch %d, %s later %d: lost %v", tt.before, tt.passed, tt.now, got)
		}
	}
}

func FuzzPCP(f *testing.F) {
	r := &router{routerSettings: routerSettings{external: netip.MustParseAddr("198.51.100.7")}, mapped: map[uint16]held{}, nonces: map[uint16][12]byte{}, started: time.Now()}
	from := netip.MustParseAddrPort("192.168.1.2:9")
	f.Add(r.answerPCP(appendPCPMap(appendPCP(nil, pcpMap, time.Hour, from.Addr()), [12]byte{}, ourPort, netip.AddrPort{}), from))
	f.Add(r.answerPCP(appendPCP(nil, pcpAnnounce, 0, from.Addr()), from))
	f.Add([]byte{0, 0x80, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, op := range []byte{pcpAnnounce, pcpMap} {
			a, err := parsePCP(b, op, [12]byte{}, ourPort)
			if err == nil && op == pcpMap && (!a.external.Addr().Is4() || len(b) < pcpMessage) {
				t.Errorf("%x gives %+v", b, a)
			}
		}
		parseAnnounce(b)
	})
}

func FuzzSearchAnswer(f *testing.F) {
	f.Add((&router{routerSettings: routerSettings{upnp: true}, webAt: netip.MustParseAddrPort("192.168.1.1:80"), asked: map[string]int{}}).answerSearch(
		[]byte("M-SEARCH * HTTP/1.1\r\nX: 1\r\nMAN: \"ssdp:discover\"\r\n"), netip.AddrPort{}))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLocation: https://x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if loc := location(b); loc != nil && (loc.Scheme != "http" || loc.Host == "") {
			t.Errorf("%q gives %s", b, loc)
		}
	})
}
