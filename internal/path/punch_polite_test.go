package path

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// pair is an engine with two peers that are reached by a relay, and no far side.
type pair struct {
	*testing.T
	e    *Engine
	ids  [2]key.NodeID
	now  time.Time
	sent []Effect
	far  wire.Way // answers besides
}

func newPair(t *testing.T, cfg Config, v4 wire.NAT) *pair {
	cfg.Rand = &counter{}
	p := &pair{T: t, e: New(cfg, nil), ids: [2]key.NodeID{{1}, {2}}, now: time.Unix(1e9, 0)}
	for _, id := range p.ids {
		p.e.AddPeer(id, false)
		p.e.SetRoutes(p.now, id, []wire.Route{way("via r").Route})
		p.e.SessionUp(p.now, id, way("via r"))
	}
	p.e.SetOwn(p.now, v4, wire.NAT{Class: wire.NATBlocked}, stated("203.0.113.1:1"))
	return p
}

func stated(addrs ...string) (list []wire.Candidate) {
	for _, a := range addrs {
		list = append(list, wire.Candidate{Kind: wire.CandidateExternal, Addr: ap(a)})
	}
	return list
}

// run lets d pass; what goes by the relay is answered.
func (p *pair) run(d time.Duration) {
	p.Helper()
	for end := p.now.Add(d); ; {
		for _, f := range p.e.Effects() {
			p.sent = append(p.sent, f)
			if g, ok := f.(SendPing); ok && (g.To.IsRelayed() || g.To == p.far) {
				p.e.HandlePong(p.now, g.ID, g.To, wire.Pong{ID: g.Ping.ID})
			}
		}
		next := p.e.Tick(p.now)
		if !next.IsZero() && next.Before(p.now.Add(-time.Second)) {
			p.Fatalf("wake-up %v ago", p.now.Sub(next))
		}
		if more := p.e.Tick(p.now); len(p.e.effects) == 0 && (more.IsZero() || more.After(end)) {
			p.now = end
			return
		} else if len(p.e.effects) == 0 && more.After(p.now) {
			p.now = more
		}
	}
}

// opens lets a peer open an attempt, and returns our answer.
func (p *pair) opens(i int, m wire.Candidates) (answer wire.Candidates, ok bool) {
	p.Helper()
	n := len(p.sent)
	p.e.HandleCandidates(p.now, p.ids[i], m)
	p.run(0)
	for _, f := range p.sent[n:] {
		if c, is := f.(SendCandidates); is && c.ID == p.ids[i] && c.Candidates.Answer {
			return c.Candidates, true
		}
	}
	return wire.Candidates{}, false
}

// pings counts the pings to addresses so far, and to how many.
func (p *pair) pings() (n int, addrs map[netip.AddrPort]int) {
	addrs = map[netip.AddrPort]int{}
	for _, f := range p.sent {
		if g, ok := f.(SendPing); ok && !g.To.IsRelayed() {
			n++
			addrs[g.To.Addr]++
		}
	}
	return n, addrs
}

// A port of a predictable NAT is told only just after observers were asked anew. spec/73-nat.md#prediction
func TestFreshPortsAreTold(t *testing.T) {
	p := newPair(t, Config{Freshens: true}, wire.NAT{Class: wire.NATPredictable, Step: 1})
	if _, ok := p.opens(0, wire.Candidates{Round: 7, List: stated("198.51.100.9:9")}); ok {
		t.Error("answered with an old port")
	}
	p.run(time.Second)
	if _, ok := p.opens(0, wire.Candidates{Round: 7, List: stated("198.51.100.9:9")}); !ok {
		t.Error("not answered with a fresh port")
	}
	freshened := 0
	for _, f := range p.sent {
		switch f := f.(type) {
		case Freshen:
			freshened++
		case SendCandidates:
			if freshened == 0 {
				t.Errorf("told without a fresh port: %+v", f.Candidates)
			}
		}
	}
	if freshened != 1 {
		t.Errorf("observers were asked %d times within a second", freshened)
	}
}

// spec/73-nat.md#ceiling
func TestOneAttemptIsSmall(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{Class: wire.NATPredictable, Step: 1})
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("198.51.100.%d:9000", 1+i))
	}
	m := wire.Candidates{Round: 5, V4: wire.NAT{Class: wire.NATPredictable, Step: 1}, List: stated(many...)}
	if got, err := wire.ParseControl(m.Append(nil)); err != nil {
		t.Fatal(err)
	} else if a, ok := p.opens(0, got.(wire.Candidates)); !ok || a.Round != 5 {
		t.Fatalf("answer %+v, %t", a, ok)
	}
	p.run(7 * time.Second)
	n, addrs := p.pings()
	if n > 18*(12+crossPorts) || n < 18*crossPorts {
		t.Errorf("%d pings in one attempt", n)
	}
	for a, sent := range addrs {
		if sent > 18 {
			t.Errorf("%d pings to %v", sent, a)
		}
	}
}

// A member that states a third party's address again and again makes us bother it no more than the ceiling says.
// spec/73-nat.md#ceiling, spec/51-path.md#politeness
func TestVictimOfAMember(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{Class: wire.NATIndependent})
	for i := range 6000 { // for ten minutes
		p.opens(i%2, wire.Candidates{Round: uint32(i), List: stated("198.51.100.1:53")})
		p.run(100 * time.Millisecond)
	}
	if n, _ := p.pings(); n > 2*14*18 {
		t.Errorf("%d pings in ten minutes to a victim of two members", n)
	}
}

// Many members at once meet the ceiling of the node. spec/73-nat.md#ceiling
func TestVictimOfManyMembers(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{Class: wire.NATIndependent})
	for i := range 100 {
		id := key.NodeID{9, byte(i)}
		p.e.AddPeer(id, false)
		p.e.SetRoutes(p.now, id, []wire.Route{way("via r").Route})
		p.e.SessionUp(p.now, id, way("via r"))
	}
	for i := range 600 {
		for j := range 100 {
			p.e.HandleCandidates(p.now, key.NodeID{9, byte(j)}, wire.Candidates{Round: uint32(i), List: stated("198.51.100.1:53")})
		}
		p.run(100 * time.Millisecond)
	}
	if n, _ := p.pings(); n > int(probeTokens+60*probeRate)+10 {
		t.Errorf("%d pings in a minute", n)
	}
}

// Only what the peer states is pinged, and never what can be no peer's address. spec/73-nat.md#bursts
func TestOnlyStatedAddresses(t *testing.T) {
	refuse := func(a netip.Addr) bool { return netip.MustParsePrefix("100.64.0.0/10").Contains(a) }
	p := newPair(t, Config{Refuse: refuse}, wire.NAT{Class: wire.NATIndependent})
	good := stated("198.51.100.1:9", "192.168.1.2:9")
	bad := stated("0.0.0.0:1", "224.0.0.1:5", "255.255.255.255:5", "100.64.0.9:5", "203.0.113.1:1", "[2001:db8::1]:5") // IPv6 is blocked here
	p.opens(0, wire.Candidates{List: append(bad, good...)})
	p.run(10 * time.Second)
	_, addrs := p.pings()
	for _, c := range good {
		if addrs[c.Addr] == 0 {
			t.Errorf("%v was not tried", c.Addr)
		}
		delete(addrs, c.Addr)
	}
	if len(addrs) != 0 {
		t.Errorf("tried besides: %v", addrs)
	}
	if n := addrs[ap("192.168.1.2:9")]; n > 6 {
		t.Errorf("%d pings to a private address of another place", n)
	}
}

// Nothing is begun with whom there is no relayed path to, or who does not answer. spec/73-nat.md#exchange
func TestWhenToOpen(t *testing.T) {
	opened := func(p *pair, id key.NodeID) (n int) {
		for _, f := range p.sent {
			if c, ok := f.(SendCandidates); ok && c.ID == id && !c.Candidates.Answer {
				n++
			}
		}
		return n
	}
	p := newPair(t, Config{}, wire.NAT{})
	p.e.SessionDown(p.now, p.ids[1])
	p.run(4 * time.Second)
	if a, b := opened(p, p.ids[0]), opened(p, p.ids[1]); a != punchAsks || b != 0 {
		t.Errorf("%d messages by a relayed path, %d without any; want 3 and 0", a, b)
	}
	p.run(3 * time.Second)
	if a := opened(p, p.ids[0]); a != punchAsks {
		t.Errorf("%d messages, want no more before 5 s have passed", a)
	}
	if _, ok := p.opens(1, wire.Candidates{Round: 1}); ok {
		t.Error("an answer without a session")
	}
	p.far = way(public)
	p.e.Received(p.now, p.ids[0], p.far)
	p.run(0)
	before := opened(p, p.ids[0])
	p.run(20 * time.Second)
	if a := opened(p, p.ids[0]); a != before {
		t.Errorf("%d messages although there is a direct way", a-before)
	}
}

// Of two that open at once, the smaller number counts; a repeated message is answered again; and what answers nothing does
// nothing. spec/73-nat.md#exchange
func TestBothOpen(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{})
	p.run(400 * time.Millisecond)
	u := &p.e.peers[p.ids[0]].punch
	if u.phase != punchAsking {
		t.Fatal("nothing was opened")
	}
	ours := u.round
	if _, ok := p.opens(0, wire.Candidates{Round: ours + 1}); ok || u.phase != punchAsking {
		t.Error("a greater number was answered")
	}
	if a, ok := p.opens(0, wire.Candidates{Round: ours - 1}); !ok || a.Round != ours-1 || u.phase != punchProbing || u.opener {
		t.Errorf("a smaller number: %+v, %t", a, ok)
	}
	if _, ok := p.opens(0, wire.Candidates{Round: ours - 1}); !ok {
		t.Error("the repeated message was not answered")
	}
	p.e.HandleCandidates(p.now, p.ids[0], wire.Candidates{Round: ours, Answer: true, List: stated(public)})
	p.run(time.Second)
	if n, _ := p.pings(); n != 0 {
		t.Error("an answer to what does not count was taken")
	}
}

// A pong proves what it was asked for, and nothing else. spec/51-path.md#ids
func TestPunchedByTheRightPongOnly(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{})
	p.opens(0, wire.Candidates{List: stated(public, public2)})
	p.run(time.Second)
	var g SendPing
	for _, f := range p.sent {
		if s, ok := f.(SendPing); ok && s.To == way(public) {
			g = s
		}
	}
	p.e.HandlePong(p.now, p.ids[0], way(public2), wire.Pong{ID: g.Ping.ID})
	p.e.HandlePong(p.now, p.ids[0], way(public), wire.Pong{ID: g.Ping.ID + 1})
	p.e.HandlePong(p.now, p.ids[1], way(public), wire.Pong{ID: g.Ping.ID})
	for _, id := range p.ids {
		if s := p.e.Status(id); s.Direct != nil {
			t.Fatalf("proven by another pong: %+v", s)
		}
	}
	p.e.HandlePong(p.now, p.ids[0], way(public), wire.Pong{ID: g.Ping.ID, Observed: ap("203.0.113.5:6")})
	if s := p.e.Status(p.ids[0]); s.Way != way(public) {
		t.Errorf("the right pong: %+v", s)
	}
	seen := slices.ContainsFunc(p.e.Effects(), func(f Effect) bool {
		return f == Effect(Observed{By: p.ids[0], At: ap(public), Addr: ap("203.0.113.5:6")})
	})
	if !seen {
		t.Error("what the peer observed was not reported")
	}
}

// spec/73-nat.md#birthday
func TestBirthdaySearch(t *testing.T) {
	cfg := Config{Feet: 256}
	inBurrows(t, home(testnet.SymmetricRandom), home(testnet.PortRestricted), cfg, func(w *burrows) {
		w.run(time.Minute)
		if !w.n[0].searched.IsZero() || w.n[1].pings > 18*5*5 {
			t.Fatal("a search although nobody allowed it")
		}
		w.n[0].e.AllowHard(time.Now(), w.n[0].other, true)
		w.run(time.Minute)
		if !w.n[0].searched.IsZero() || w.n[1].pings > 18*5*5 {
			t.Fatal("a search although only one allowed it")
		}
		w.n[1].e.AllowHard(time.Now(), w.n[1].other, true)
		before := w.n[1].pings
		took := w.run(3*time.Minute, w.direct)
		if !w.direct() {
			t.Fatalf("not direct after %v", took)
		}
		if n := w.n[1].pings - before; n > searchPorts+300 {
			t.Errorf("%d pings", n)
		}
		w.use(5 * time.Minute)
		if done := w.n[0].done; !w.direct() || len(done) != 1 || wire.Direct(done[0].Keep) != w.n[0].peer.Choice().Way {
			t.Errorf("direct: %t, sockets to be kept: %+v, the path is %v", w.direct(), done, w.n[0].peer.Choice().Way)
		}
	})
}

// The search is bounded, and comes once an hour. spec/73-nat.md#birthday, spec/73-nat.md#ceiling
func TestSearchIsBounded(t *testing.T) {
	p := newPair(t, Config{}, wire.NAT{Class: wire.NATIndependent})
	random := wire.Candidates{Hard: true, V4: wire.NAT{Class: wire.NATRandom}, List: stated("198.51.100.1:5000")}
	p.e.AllowHard(p.now, p.ids[0], true)
	searched := map[netip.AddrPort]int{}
	for hour := range 3 {
		p.sent = nil
		for i := range 30 {
			random.Round = uint32(1000*hour + i + 1)
			a, ok := p.opens(0, random)
			if ok && a.Hard != (i == 0) {
				t.Errorf("attempt %d: ready to search: %t", i, a.Hard)
			}
			if i == 0 {
				p.e.AllowHard(p.now, p.ids[1], true)
				if b, ok := p.opens(1, random); !ok || b.Hard {
					t.Error("two searches at a time")
				}
				p.e.AllowHard(p.now, p.ids[1], false)
			}
			p.run(2 * time.Minute)
		}
		_, addrs := p.pings()
		fresh := 0
		for a := range addrs {
			if searched[a] == 0 {
				fresh++
			}
			searched[a]++
			if a.Addr() != ap("198.51.100.1:1").Addr() || a.Port() < firstPort {
				t.Fatalf("searched at %v", a)
			}
		}
		if fresh < searchPorts || len(addrs) > searchPorts+1 {
			t.Errorf("hour %d: %d ports were tried, %d of them new; want %d", hour, len(addrs), fresh, searchPorts)
		}
		p.now = p.now.Add(5 * time.Minute)
		p.run(time.Second)
	}
}

// Engines of several networks share one turn. spec/73-nat.md#birthday
func TestTurn(t *testing.T) {
	var turn Turn
	a, b, now := new(peer), new(peer), time.Unix(1e9, 0)
	if first := turn.take(now, a); !first || turn.take(now, b) || !turn.take(now, a) {
		t.Error("who comes first has it")
	}
	turn.release(now, b, true)
	if turn.take(now, b) {
		t.Error("taken away by one who did not have it")
	}
	turn.release(now, a, true)
	if turn.take(now.Add(59*time.Second), b) || !turn.take(now.Add(61*time.Second), b) {
		t.Error("there is a minute between two")
	}
	if !turn.take(now.Add(2*time.Minute), a) {
		t.Error("who never gives it back keeps it")
	}
	turn.release(now.Add(2*time.Minute), a, false)
	if !turn.take(now.Add(2*time.Minute), b) {
		t.Error("a minute's rest after nothing was done")
	}
}

// A member that states an address which can be no peer's has nobody search there, nor open sockets to it: inside the network they
// would carry the tunnel that carries them. spec/73-nat.md#bursts, spec/73-nat.md#birthday
func TestNoSearchWhereNoPeerCanBe(t *testing.T) {
	inner := netip.MustParsePrefix("100.64.0.0/10")
	cfg := Config{Feet: 256, Refuse: inner.Contains}
	for _, test := range []struct{ own, theirs wire.NATClass }{{wire.NATIndependent, wire.NATRandom}, {wire.NATRandom, wire.NATIndependent}} {
		for _, bad := range []string{"100.64.0.9:5000", "224.0.0.1:5000", "255.255.255.255:5000"} {
			for _, kind := range []wire.CandidateKind{wire.CandidateExternal, wire.CandidateMapped} {
				p := newPair(t, cfg, wire.NAT{Class: test.own})
				p.e.AllowHard(p.now, p.ids[0], true)
				list := []wire.Candidate{{Kind: kind, Addr: ap(bad)}, {Kind: wire.CandidateExternal, Addr: ap("198.51.100.1:5000")}}
				if a, ok := p.opens(0, wire.Candidates{Round: 7, Hard: true, V4: wire.NAT{Class: test.theirs}, List: list}); !ok || !a.Hard {
					t.Fatalf("answer %+v", a)
				}
				searched := false
				p.run(time.Minute)
				for _, f := range p.sent {
					switch f := f.(type) {
					case Feet:
						searched = true
						if f.To.Addr() == ap(bad).Addr() {
							t.Errorf("sockets are opened to %v", f.To)
						}
					case SendPing:
						searched = searched || f.To.Addr.Addr() == ap("198.51.100.1:1").Addr() && f.To.Addr.Port() != 5000
						if f.To.Addr.Addr() == ap(bad).Addr() {
							t.Fatalf("pings to %v", f.To)
						}
					}
				}
				if !searched {
					t.Errorf("the good address behind %s is not searched", bad)
				}
			}
		}
	}
}
