package route

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	randv2 "math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// maxMembers is the limit of members that the engine knows; more are passed over.
const maxMembers = 16384

// Config holds what an Engine needs from outside.
type Config struct {
	// Self is this node.
	Self key.ShortID
	// Epoch is greater than that of any earlier run of this node, such as the time of its start in Unix seconds.
	Epoch uint32
	// Leaf says that this node carries no transit.
	Leaf bool
	// Rand gives chance. Nil means crypto/rand. If it fails, choices are less random, and that is all.
	Rand io.Reader
}

// Member is what the engine must know of a member.
type Member struct {
	ID        key.NodeID
	Reachable bool         // it states endpoints, so that it may be called
	Endpoints []netip.Addr // where it is, for links to different places; may be nil
	NoTransit bool         // the network's policy does not let it relay
}

// Engine chooses this node's links, holds the map of all links, and finds routes on it. It is not safe for concurrent use:
// the control loop of package node owns it. After every call the owner takes [Engine.Effects] and arms its timer with
// [Engine.Tick].
type Engine struct {
	self    *node // the start of all routes; no member
	log     *slog.Logger
	rand    *randv2.Rand
	now     time.Time // of the last call that told it
	members map[key.ShortID]*node
	order   []*node // members by id: the same input gives the same output
	effects []Effect

	reach reach

	neighbours []*neighbour
	plan       plan
	own        own

	graph      graph
	spfAt      time.Time // of the next look at the whole map; zero: nothing changed, or nobody asks
	spfLast    time.Time
	chooseAt   time.Time // some choice is to be looked at again
	watched    []*node
	trails     []trail // used again by each choice
	goals      []int32 // and by each search
	ponders    int     // since ponderedAt
	ponderedAt time.Time

	alarm    alarm
	excluded map[edgeID]time.Time // until when
	blamed   []*node
	expireAt time.Time // nothing expires before
}

// node is a member, or this node itself.
type node struct {
	id        key.NodeID
	short     key.ShortID
	reachable bool
	noTransit bool
	places    []netip.Prefix // of its endpoints

	state wire.LinkState
	known bool // there is a link state
	heard time.Time

	index  int32  // in the graph; -1: not there
	drawn  uint32 // the drawing in which its edges were last looked at
	swept  uint32 // the sweep that reached it
	dirty  bool   // see Engine.touch
	watch  *watch
	blame  *blame
	proved time.Time // last answer through it as a relay
	shut   int       // exclusions that name it
	checks allowance // of links for its word

	neighbour *neighbour // nil: no session, and none is wanted
	rtt       time.Duration
	rttAt     time.Time // zero: never measured
	failures  int       // calls without a session, in a row
	retry     time.Time // not called before
}

// New returns an engine without members. A nil log discards.
func New(cfg Config, log *slog.Logger) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{self: &node{short: cfg.Self, known: true}, log: log.With("part", "route"), members: map[key.ShortID]*node{},
		excluded: map[edgeID]time.Time{}}
	var seed [32]byte
	if _, err := io.ReadFull(cfg.Rand, seed[:]); err != nil {
		e.log.Warn("no randomness: links are chosen predictably", "err", err)
	}
	e.rand = randv2.New(randv2.NewChaCha8(seed))
	e.graph.old, e.graph.all = true, true
	e.own.version.Epoch = cfg.Epoch
	if cfg.Leaf {
		e.own.flags = wire.StateLeaf
	}
	return e
}

// SetMembers says who belongs to the network and can carry links and relay; this node itself may be among them and is
// passed over. What is known of those who are not there any more is forgotten: no route leads through them when this
// returns.
func (e *Engine) SetMembers(now time.Time, members []Member) {
	e.now = now
	seen := make(map[key.ShortID]bool, len(members))
	removed, added := false, false
	for _, m := range members {
		short := m.ID.Short()
		n := e.members[short]
		switch {
		case short == e.self.short:
			e.self.id = m.ID
			continue
		case n != nil && n.id != m.ID, seen[short]: // two of one short id: the first counts
			continue
		case n == nil && len(e.members) >= maxMembers:
			continue
		case n == nil:
			n = &node{id: m.ID, short: short, index: -1}
			e.members[short] = n
			added = true
		}
		seen[short] = true
		if n.noTransit != m.NoTransit {
			n.noTransit = m.NoTransit
			e.touch(n)
			removed = removed || m.NoTransit
			e.stale(now, soon)
		}
		n.reachable = m.Reachable
		n.setPlaces(m.Endpoints)
	}
	for short, n := range e.members {
		if !seen[short] {
			e.remove(now, n)
			removed = true
		}
	}
	if !removed && !added {
		return
	}
	e.graph.forget()
	e.order = e.order[:0]
	for _, n := range e.members {
		e.order = append(e.order, n)
	}
	slices.SortFunc(e.order, func(a, b *node) int { return bytes.Compare(a.id[:], b.id[:]) })
	e.plan.look(e, now)
	e.stale(now, soon)
	switch {
	case removed && len(e.watched) > 0:
		e.runSPF(now)
	case removed:
		e.graph.old, e.spfAt = true, time.Time{}
	}
}

// setPlaces keeps the networks of the addresses, at most 8: /16 of IPv4, /32 of IPv6.
func (n *node) setPlaces(addrs []netip.Addr) {
	n.places = n.places[:0]
	for _, a := range addrs {
		bits := 16
		if a = a.Unmap(); a.Is6() {
			bits = 32
		}
		if p, err := a.Prefix(bits); err == nil && len(n.places) < 8 && !slices.Contains(n.places, p) {
			n.places = append(n.places, p)
		}
	}
}

func (e *Engine) remove(now time.Time, n *node) {
	if nb := n.neighbour; nb != nil {
		e.end(now, nb)
	}
	if n.known && len(n.state.Groups) > 0 {
		e.effect(GroupsChanged{})
	}
	e.drop(n)
	delete(e.members, n.short)
}

// drop forgets what routes hold of n.
func (e *Engine) drop(n *node) {
	e.watched = slices.DeleteFunc(e.watched, func(w *node) bool { return w == n })
	e.blamed = slices.DeleteFunc(e.blamed, func(w *node) bool { return w == n })
	n.watch, n.blame = nil, nil
}

func (e *Engine) member(id key.NodeID) *node {
	if n := e.members[id.Short()]; n != nil && n.id == id {
		return n
	}
	return nil
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	e.now = now
	e.tickLinks(now)
	e.tickMap(now)
	e.tickAlarm(now)
	if reached(e.spfAt, now) {
		e.runSPF(now)
	} else if reached(e.chooseAt, now) {
		e.chooseAll(now)
	}
	e.tickOwn(now)
	for _, t := range []time.Time{e.plan.lookAt, e.plan.roundAt, e.plan.wishAt, e.own.at, e.own.refreshAt, e.spfAt, e.chooseAt, e.expireAt, e.alarm.due} {
		next = earlier(next, t)
	}
	return next
}

// Effects returns what the owner must do now, in order, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

func (e *Engine) effect(f Effect) { e.effects = append(e.effects, f) }

// jitter returns d, give or take up to part of it.
func (e *Engine) jitter(d, part time.Duration) time.Duration {
	return d - part + time.Duration(e.rand.Int64N(int64(2*part)+1))
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// reached reports whether the time t, of which zero means never, has come.
func reached(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }
