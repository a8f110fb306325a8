package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// chaos does anything to an engine with one peer, in any order.
type chaos struct {
	e    *Engine
	p    *Peer
	id   key.NodeID
	now  time.Time
	sent []SendPing
}

func drawAddr(t *rapid.T) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 30).Draw(t, "host"))}), 5)
}

func drawRoute(t *rapid.T) (r wire.Route) {
	var ids []key.ShortID
	for _, b := range rapid.SliceOfNDistinct(rapid.ByteRange(0, 5), 1, 3, rapid.ID).Draw(t, "relays") {
		ids = append(ids, key.ShortID{b})
	}
	r, _ = wire.NewRoute(ids...)
	return r
}

func drawWay(t *rapid.T) wire.Way {
	if rapid.IntRange(0, 2).Draw(t, "relayed") == 0 {
		return wire.Via(drawRoute(t))
	}
	return wire.Direct(drawAddr(t))
}

func drawNAT(t *rapid.T) (n wire.NAT) {
	if n.Class = wire.NATClass(rapid.IntRange(0, 5).Draw(t, "class")); n.Class == wire.NATPredictable {
		n.Step = int8(rapid.SampledFrom([]int{-128, -1, 1, 2, 127}).Draw(t, "step"))
	}
	return n
}

func drawCandidates(t *rapid.T) (list []wire.Candidate) {
	for _, a := range rapid.SliceOfN(rapid.Custom(drawAddr), 0, 5).Draw(t, "candidates") {
		a = netip.AddrPortFrom(a.Addr(), uint16(rapid.SampledFrom([]int{1, 1030, 65530}).Draw(t, "port")))
		list = append(list, wire.Candidate{Kind: wire.CandidateKind(rapid.IntRange(0, 2).Draw(t, "kind")), Addr: a})
	}
	return list
}

func (c *chaos) step(t *rapid.T) {
	e, id, now := c.e, c.id, c.now
	switch rapid.IntRange(0, 18).Draw(t, "what") {
	case 0:
		src := Source(rapid.IntRange(0, 4).Draw(t, "source"))
		e.SetCandidates(now, id, src, rapid.SliceOfN(rapid.Custom(drawAddr), 0, 12).Draw(t, "list"))
	case 1:
		e.SetRoutes(now, id, rapid.SliceOfN(rapid.Custom(drawRoute), 0, 6).Draw(t, "routes"))
	case 2, 3:
		e.SessionUp(now, id, drawWay(t))
	case 4:
		if rapid.IntRange(0, 5).Draw(t, "rare") == 0 {
			e.SessionDown(now, id)
		}
	case 5:
		e.Received(now, id, drawWay(t))
	case 6:
		e.Active(now, id)
	case 7:
		e.HandlePing(now, id, drawWay(t), wire.Ping{ID: 3})
	case 8:
		e.NetworkChanged(now)
	case 9:
		e.Targets(now, id)
	case 10:
		e.Failed(now, id, drawRoute(t))
	case 11:
		e.Keep(now, id, rapid.Bool().Draw(t, "keep"))
	case 12:
		e.SetOwn(now, drawNAT(t), drawNAT(t), drawCandidates(t))
	case 13, 14:
		round := uint32(rapid.IntRange(0, 3).Draw(t, "round"))
		if rapid.Bool().Draw(t, "ours") {
			round = e.awake(id).punch.round
		}
		e.HandleCandidates(now, id, wire.Candidates{Round: round, Answer: rapid.Bool().Draw(t, "answer"),
			Hard: rapid.Bool().Draw(t, "hard"), V4: drawNAT(t), List: drawCandidates(t)})
	case 15:
		e.AllowHard(now, id, rapid.IntRange(0, 3).Draw(t, "allow") > 0)
		e.SetFeet(now, id, rapid.SliceOfN(rapid.Custom(drawAddr), 0, 40).Draw(t, "feet"))
	default:
		if len(c.sent) > 0 {
			g := c.sent[rapid.IntRange(max(0, len(c.sent)-12), len(c.sent)-1).Draw(t, "ping")]
			e.HandlePong(now, id, g.To, wire.Pong{ID: g.Ping.ID, Observed: ap(public)})
		}
	}
}

func (c *chaos) check(t *rapid.T) {
	q := c.e.peers[c.id]
	if q.work == nil { // not used yet
		if f := c.e.Effects(); len(f) > 0 {
			t.Fatalf("%+v for one who was never used", f)
		}
		return
	}
	for _, f := range c.e.Effects() {
		switch f := f.(type) {
		case SendPing:
			if q.stock || !q.up {
				t.Fatalf("ping %+v to a stock peer or without a session", f)
			}
			c.sent = append(c.sent, f)
		case Changed:
			if f.Old == f.New {
				t.Fatalf("change to the same: %+v", f)
			}
		}
	}
	direct, perWay := 0, map[*candidate]int{}
	for _, d := range q.cands {
		if !d.relayed() {
			direct++
		}
	}
	for _, g := range q.pings {
		if !g.late && g.size == 0 {
			perWay[g.to]++
		}
		if perWay[g.to] > 1 {
			t.Fatalf("two pings to %v at a time", g.to.way)
		}
	}
	if direct > maxCandidates || len(q.cands)-direct > maxRoutes+maxSeenRoutes+1 || q.inFlight() > maxInFlight || len(q.pings) > maxPings || len(q.blames) > maxBlames {
		t.Fatalf("%d addresses, %d ways, %d pings in flight, %d in all, %d blames", direct, len(q.cands), q.inFlight(), len(q.pings), len(q.blames))
	}
	u := &q.punch
	if len(u.aims) > maxAims || len(u.hard.feet) > maxFeet || u.phase != punchWaiting && (!q.up || q.stock) || u.hard.on && u.phase == punchWaiting ||
		u.hard.on != (c.e.cfg.Turn.holder == q) {
		t.Fatalf("punch %+v", u)
	}
	got := c.p.Choice()
	if q.current == nil {
		if got.Way.IsValid() || got.Also.IsValid() || got.Spread != nil || got.MTU != minMTU {
			t.Fatalf("workers see %+v without a path", got)
		}
		return
	}
	if !slices.Contains(q.cands, q.current) || got.Way != q.current.way || got.Also == got.Way {
		t.Fatalf("workers see %+v, the engine uses %+v", got, q.current)
	}
	if got.MTU < minMTU || got.MTU > q.current.size() || q.stock && (got.Also.IsValid() || got.MTU > minMTU) {
		t.Fatalf("workers see %+v, %d bytes pass", got, q.current.size())
	}
	if d := q.find(wire.Direct(got.Direct)); got.Direct.IsValid() && (d == nil || d != q.current && d.state != StateAlive) || !got.Direct.IsValid() && !q.current.relayed() {
		t.Fatalf("direct %v, the engine uses %+v", got.Direct, q.current)
	}
	if also := q.find(got.Also); got.Also.IsValid() && (also == nil || got.AlsoMax == 0 && also.size() < got.MTU || got.AlsoMax > also.size()) {
		t.Fatalf("copies %+v go by %+v", got, also)
	}
	if got.Spread != nil && (len(got.Spread) < 2 || len(got.Spread) > maxSpread || !slices.Contains(got.Spread, got.Way)) {
		t.Fatalf("spread %v, the path is %v", got.Spread, got.Way)
	}
	for _, w := range got.Spread {
		if d := q.find(w); d == nil || d.relayed() || d.state != StateAlive || d.size() < got.MTU {
			t.Fatalf("flows go by %+v", d)
		}
	}
}

// Whatever happens, in whatever order: the tables keep their limits, and what the workers see is the engine's choice.
// spec/51-path.md#politeness, spec/51-path.md#modes
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &chaos{id: key.NodeID{1}, now: time.Unix(1e9, 0)}
		c.e = New(Config{Rand: &counter{}, Mode: Mode(rapid.IntRange(0, 2).Draw(t, "mode")), NoDetours: rapid.Bool().Draw(t, "no detours"), Feet: 30}, nil)
		c.p = c.e.AddPeer(c.id, rapid.IntRange(0, 5).Draw(t, "stock") == 0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c.step(t)
			c.check(t)
			c.now = c.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			next := c.e.Tick(c.now)
			if !next.IsZero() && next.Before(c.now.Add(-time.Second)) {
				t.Fatalf("wake-up %v ago", c.now.Sub(next))
			}
			c.check(t)
		}
	})
}
