package discover

import (
	"crypto/rand"
	"io"
	randv2 "math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	maxInvites   = 16
	maxNodes     = 16384
	maxOwn       = 4 // addresses of one node in a slot
	startWait    = time.Second
	isolatedWait = 30 * time.Second
	begWait      = 15 * time.Second
	maxPlan      = 10 * time.Minute
)

// Config is what an Engine is made of.
type Config struct {
	Self key.ShortID // also of a newcomer, who has an identity already
	// Rand gives nonces and chance. Nil means crypto/rand. If it fails, nothing is sealed and so nothing is sent.
	Rand io.Reader
	// Public reports whether an address may stand in a slot. Nil: global unicast addresses that are not private.
	Public func(netip.Addr) bool
}

// Mode says what the engine may use. The zero Mode is silence.
type Mode struct {
	DHT, LAN     bool
	Peers        bool   // announce and look in clear too, with DHT (spec/70-discover.md#peers)
	Port         uint16 // our UDP port, stated in beacons; 0: no beacons yet
	ClockSuspect bool   // slots of the days before and after are read too
}

// Keys are the discovery keys of a network.
type Keys struct {
	Current Key
	// Previous is the key before: nothing is published under it, but who missed the rotation is looked for where it asks.
	// The owner takes it away when nobody can be missing any more. Zero: none.
	Previous Key
	Since    time.Time // when Current was made: earlier invites are known to who was removed, and not published. Zero: for ever
}

// Invite is an invite that is open.
type Invite struct {
	Key  key.JoinKey
	Made time.Time
}

// Node is a member that the map shows alive.
type Node struct {
	ID     key.ShortID
	Anchor bool             // proven reachable from outside
	Addrs  []netip.AddrPort // which it states itself, best first
}

// Engine is the rendezvous of one network, or of one newcomer.
type Engine struct {
	cfg     Config
	rand    *randv2.Rand
	effects []Effect

	mode              Mode
	keys              Keys
	current, previous *family
	join              *family // ours, of a newcomer
	invites           []*invite
	own               []netip.AddrPort
	ownKind           Kind
	ownAt             time.Time // when they changed
	nodes             []Node
	alive             map[key.ShortID]bool
	picks             map[pick][]Node // memory of publishers
	links, members    int

	begun    bool
	joinAt   time.Time // from when on a newcomer reads slots
	lonelyAt time.Time // from when on a node without links counts as isolated; zero: it has links
	dirty    bool      // plan anew
	planAt   time.Time
	reading  bool
	round    round
	jobs     []*job
	meetings []*meeting
	hints    hints
	lan      lan
}

// invite is an open invite with what follows from it.
type invite struct {
	*family
	made time.Time
}

// round is the rhythm of who reads.
type round struct {
	at   time.Time
	wait time.Duration
}

// New returns an engine that does nothing before it has a mode and a key.
func New(cfg Config) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Public == nil {
		cfg.Public = public
	}
	var seed [32]byte
	io.ReadFull(cfg.Rand, seed[:]) //nolint:errcheck // without it times are less random, and that is all
	e := &Engine{cfg: cfg, ownKind: KindOther, rand: randv2.New(randv2.NewChaCha8(seed))}
	e.hints.forget()
	e.lan.init()
	return e
}

// touch notes that something changed that the plan rests on.
func (e *Engine) touch(now time.Time) {
	e.dirty = true
	if !e.begun {
		e.begun, e.lonelyAt = true, now.Add(startWait)
	}
}

// SetMode says what may be used.
func (e *Engine) SetMode(now time.Time, m Mode) {
	if m == e.mode {
		return
	}
	if m.LAN && m.Port != 0 && (!e.mode.LAN || e.mode.Port != m.Port) {
		e.lan.restart(now)
	}
	e.mode = m
	e.touch(now)
}

// SetKey sets a member's discovery keys. What was published under others is not renewed, so it is gone after some hours.
func (e *Engine) SetKey(now time.Time, k Keys) {
	if k == e.keys {
		return
	}
	if k.Current != e.keys.Current {
		if e.current == nil { // else it is a rotation: the neighbours are known
			e.lan.restart(now)
		}
		e.current = familyOf(k.Current)
	}
	if k.Previous != e.keys.Previous {
		e.previous = familyOf(k.Previous)
	}
	e.keys = k
	e.touch(now)
}

func familyOf(k Key) *family {
	if k.IsZero() {
		return nil
	}
	return newFamily(k, false)
}

// SetJoin sets what a newcomer has, who has no discovery key yet. The zero key ends it.
func (e *Engine) SetJoin(now time.Time, k key.JoinKey) {
	switch {
	case k == key.JoinKey{}:
		e.join = nil
	case e.join == nil || e.join.root != k:
		e.join, e.joinAt = newFamily(k, true), now.Add(startWait)
		e.lan.restart(now)
	}
	e.touch(now)
}

// SetInvites sets the invites that are open. The 16 newest count.
func (e *Engine) SetInvites(now time.Time, open []Invite) {
	open = slices.Clone(open)
	slices.SortStableFunc(open, func(a, b Invite) int { return b.Made.Compare(a.Made) })
	old := e.invites
	e.invites = nil
	for _, in := range open[:min(len(open), maxInvites)] {
		i := slices.IndexFunc(old, func(o *invite) bool { return o.root == in.Key })
		if i >= 0 {
			e.invites = append(e.invites, &invite{old[i].family, in.Made})
		} else {
			e.invites = append(e.invites, &invite{newFamily(in.Key, true), in.Made})
		}
	}
	e.touch(now)
}

// SetOwn sets the addresses at which this node is reached from outside, best first, 4 at most, and of what kind they are.
func (e *Engine) SetOwn(now time.Time, addrs []netip.AddrPort, kind Kind) {
	addrs = e.fit(addrs)
	if slices.Equal(addrs, e.own) && kind == e.ownKind {
		return
	}
	if kind != e.ownKind {
		e.picks = nil
	}
	e.own, e.ownKind, e.ownAt = addrs, min(kind, KindOther), now
	for _, j := range e.jobs {
		j.changed(now)
	}
	e.touch(now)
}

// fit copies the addresses that may stand in a slot, at most maxOwn.
func (e *Engine) fit(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
		if len(out) < maxOwn && a.Port() != 0 && e.cfg.Public(a.Addr()) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// SetMap sets who is alive by the map, with or without this node.
func (e *Engine) SetMap(now time.Time, nodes []Node) {
	e.nodes = slices.Clone(nodes[:min(len(nodes), maxNodes)])
	e.alive = make(map[key.ShortID]bool, len(nodes))
	for i, n := range e.nodes {
		e.nodes[i].Addrs = e.fit(n.Addrs)
		e.alive[n.ID] = true
	}
	e.picks = nil
	e.touch(now)
}

// SetLinks says how many members this node has a live direct or relayed session with, and how many other members, that are no
// devices, there are. Without any the network is not looked for: there is nobody to be found.
func (e *Engine) SetLinks(now time.Time, links, members int) {
	if links == e.links && members == e.members && e.begun {
		return
	}
	e.touch(now)
	switch {
	case links > 0:
		e.lonelyAt = time.Time{}
	case e.links > 0:
		e.lonelyAt = now.Add(isolatedWait)
		e.lan.at = earlier(e.lan.at, now.Add(startWait))
	}
	if members > 0 && e.members == 0 {
		e.lan.restart(now)
	}
	e.links, e.members = links, members
}

// NetworkChanged says that the host's interfaces or addresses changed: all is tried again soon.
func (e *Engine) NetworkChanged(now time.Time) {
	e.hints.forget()
	e.lan.restart(now)
	if e.reading {
		e.round = round{at: now.Add(startWait), wait: firstWait}
	}
	for _, j := range e.jobs {
		if j.tries > 0 && !j.writeAt.IsZero() {
			j.tries, j.writeAt = 0, earlier(j.writeAt, now.Add(startWait))
		}
	}
	e.touch(now)
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	if e.dirty || reached(e.planAt, now) {
		e.plan(now)
	}
	next = earlier(earlier(e.planAt, e.tickJobs(now)), e.tickMeetings(now))
	return earlier(next, e.tickLAN(now))
}

// Effects returns what the owner must do now, in order, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

func (e *Engine) effect(f Effect) { e.effects = append(e.effects, f) }

// newcomer reports whether this node has an invite and no network.
func (e *Engine) newcomer() bool { return e.join != nil && e.current == nil }

// isolated reports whether there are members and none is linked with us.
func (e *Engine) isolated(now time.Time) bool {
	return e.current != nil && e.members > 0 && e.links == 0 && reached(e.lonelyAt, now)
}

// nonce draws a nonce; without randomness nothing must be sealed.
func (e *Engine) nonce() (n [24]byte, ok bool) {
	_, err := io.ReadFull(e.cfg.Rand, n[:])
	return n, err == nil
}

// jitter returns d, give or take up to part of it.
func (e *Engine) jitter(d, part time.Duration) time.Duration {
	return d - part + time.Duration(e.rand.Int64N(int64(2*part)+1))
}

// within returns a time between nothing and d.
func (e *Engine) within(d time.Duration) time.Duration { return time.Duration(e.rand.Int64N(int64(d))) }

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reached reports whether the time t, of which zero means never, has come.
func reached(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }
