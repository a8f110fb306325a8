// Package nat finds out how this node looks from outside: what its NATs make of its addresses, for each address family, and
// by which addresses others may reach it.
//
// It knows nothing but what others say and what comes back at all (spec/73-nat.md#classes):
//
//	Observe: who sees us as what --+   (members, nodes of the DHT, servers of STUN)
//	SetLocal: interfaces ----------+--> class of each family, confirmed addresses, candidates for punching --> Changed
//	SetMapped: ports of the router-+
//	Tried, Heard: what comes back -+
//
// One observer may lie: an address is confirmed by two who are far apart, and a class by more than contradict it. What counts
// is where an observer is, not who it says to be.
//
// An Engine is not safe for concurrent use: the control loop of package node owns it. It does no I/O. After every call the
// owner arms its timer with [Engine.Tick] and takes [Engine.Effects].
package nat

import (
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Limits and timers (spec/73-nat.md#observations, spec/73-nat.md#classes).
const (
	maxObservers = 32 // of one family
	maxLocal     = 16
	maxMapped    = 4
	maxTried     = 8

	observationLife = 10 * time.Minute
	askedLife       = 20 * time.Second // a NAT keeps the mapping for longer
	classLife       = time.Hour        // without what it was found by
	settleFor       = 200 * time.Millisecond
	blockedAfter    = 10 * time.Second
	blockedTries    = 3 // different addresses that do not answer
	heardLately     = time.Minute
)

// Config holds what an Engine needs from outside. The zero Config is usable.
type Config struct {
	// Refuse reports addresses that are never ours from outside, such as those inside the network itself. Nil refuses none.
	Refuse func(netip.Addr) bool
	// Rand gives the ids of questions to servers. Nil means crypto/rand.
	Rand io.Reader
}

// Engine holds what is known of this node's NATs.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	local   []netip.AddrPort // nil: not told yet
	mapped  []netip.AddrPort
	v4, v6  family
	servers []*server // in the owner's order
	roundAt time.Time // some were asked last
	dirty   time.Time // when to tell what changed; zero: nothing did
	told    Changed
	effects []Effect
}

// family is what is known of one address family.
type family struct {
	seen  []observation // in the order in which the mappings were made, as far as we know
	asked []asked       // oldest first
	tried []netip.Addr  // without an answer
	since time.Time     // of the first of them
	heard time.Time     // anything
	class wire.NAT
	found time.Time // class was last supported by observations then
}

// observation is one observer's word.
type observation struct {
	by, saw netip.AddrPort
	first   time.Time // the mapping was made, or seen, first
	at      time.Time // it was seen last
	sure    bool      // first is when we sent to by
}

// asked is a destination that we sent to of late.
type asked struct {
	to    netip.AddrPort
	first time.Time // without a pause since
	last  time.Time
}

// Effect is one thing that the owner must carry out: [Changed] or [AskServer].
type Effect interface{ effect() }

// Changed says how this node looks from outside now. The slices are the receiver's own.
type Changed struct {
	V4, V6 wire.NAT
	// Addresses are confirmed ones made by NATs and mappings, mapped ones first: worth publishing beside those of the
	// interfaces, of which none are here.
	Addresses []netip.AddrPort
	// ByHand are the outer addresses of symmetric NATs with the port of our socket: nobody sees us there, but the owner of the router
	// may have had it pass that port on (spec/73-nat.md#by-hand).
	ByHand []netip.AddrPort
	// Candidates are what a peer is told when a direct way to it is wanted, the most promising first, wire.MaxCandidates at
	// most: among them what only one observer saw.
	Candidates []wire.Candidate
}

func (Changed) effect() {}

// New returns an engine that knows nothing. A nil log discards.
func New(cfg Config, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.Rand = randomOr(cfg.Rand)
	return &Engine{cfg: cfg, log: log.With("part", "nat")}
}

// SetLocal replaces the addresses of the host's interfaces, each with the port of our socket.
func (e *Engine) SetLocal(now time.Time, addrs []netip.AddrPort) {
	local := make([]netip.AddrPort, 0, min(len(addrs), maxLocal))
	for _, a := range addrs {
		a = unmap(a)
		if ip := a.Addr(); len(local) < maxLocal && ip.IsValid() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() && a.Port() != 0 {
			local = append(local, a)
		}
	}
	if e.local == nil || !slices.Equal(local, e.local) {
		e.local = local
		e.look(now)
	}
}

// SetMapped replaces the outer addresses that the router passes on to our socket, as it says; none when there is no such
// agreement any more. Each counts once an observer sees us at its IP address (spec/73-nat.md#confirmed).
func (e *Engine) SetMapped(now time.Time, addrs []netip.AddrPort) {
	var mapped []netip.AddrPort
	for _, a := range addrs {
		if a = unmap(a); len(mapped) < maxMapped && e.outside(a) {
			mapped = append(mapped, a)
		}
	}
	if !slices.Equal(mapped, e.mapped) {
		e.mapped = mapped
		e.look(now)
	}
}

// Observe says that who was asked at the address by saw our datagrams come from saw. Observers that are not on the internet,
// and what can be no address there, are left out.
func (e *Engine) Observe(now time.Time, by, saw netip.AddrPort) {
	by, saw = unmap(by), unmap(saw)
	if by.Addr().Is4() != saw.Addr().Is4() || reserved(by.Addr()) || !e.outside(saw) && !slices.Contains(e.local, saw) {
		return
	}
	f := e.family(by.Addr())
	f.hear(now)
	i := slices.IndexFunc(f.seen, func(o observation) bool { return o.by == by })
	switch {
	case i >= 0 && f.seen[i].saw == saw:
		f.seen[i].at = now
		return
	case i >= 0:
		old := f.seen[i].saw // this mapping is gone, for everybody
		f.seen = slices.DeleteFunc(f.seen, func(o observation) bool { return o.saw == old })
	case len(f.seen) == maxObservers:
		oldest := 0
		for i, o := range f.seen {
			if o.at.Before(f.seen[oldest].at) {
				oldest = i
			}
		}
		f.seen = slices.Delete(f.seen, oldest, oldest+1)
	}
	o := observation{by: by, saw: saw, first: now, at: now}
	if i := slices.IndexFunc(f.asked, func(q asked) bool { return q.to == by && now.Sub(q.last) <= askedLife }); i >= 0 {
		o.first, o.sure = f.asked[i].first, true
	}
	at := len(f.seen)
	for at > 0 && f.seen[at-1].first.After(o.first) {
		at--
	}
	f.seen = slices.Insert(f.seen, at, o)
	e.look(now)
}

// Tried says that a datagram which asks for an answer leaves for to. Addresses that are not on the internet do not count. The
// order of these calls is that in which a NAT opens ports.
func (e *Engine) Tried(now time.Time, to netip.AddrPort) {
	to = unmap(to)
	ip := to.Addr()
	if !ip.IsValid() || reserved(ip) {
		return
	}
	f := e.family(ip)
	f.ask(now, to)
	if now.Sub(f.heard) < heardLately || slices.Contains(f.tried, ip) || len(f.tried) == maxTried {
		return
	}
	if len(f.tried) == 0 {
		f.since = now
	}
	f.tried = append(f.tried, ip)
	e.look(now)
}

// ask notes that we send to to, in the order of the first times.
func (f *family) ask(now time.Time, to netip.AddrPort) {
	f.asked = slices.DeleteFunc(f.asked, func(q asked) bool { return now.Sub(q.last) > askedLife })
	if i := slices.IndexFunc(f.asked, func(q asked) bool { return q.to == to }); i >= 0 {
		f.asked[i].last = now
		return
	}
	n := len(f.asked)
	if n == maxObservers {
		return
	}
	first := now
	if n > 0 && !f.asked[n-1].first.Before(first) {
		first = f.asked[n-1].first.Add(1) // in one moment, but later
	}
	f.asked = append(f.asked, asked{to, first, now})
}

// Heard says that something of the network, authenticated or an answer, came from from. The owner calls it when a session
// comes up and about once a second while packets come; more often is allowed.
func (e *Engine) Heard(now time.Time, from netip.AddrPort) {
	ip := from.Addr().Unmap()
	if reserved(ip) {
		return
	}
	f := e.family(ip)
	f.hear(now)
	if f.class.Class == wire.NATBlocked {
		e.look(now)
	}
}

func (f *family) hear(now time.Time) {
	f.heard, f.tried = now, nil
}

// NetworkChanged forgets what was observed: the host has other addresses, or is somewhere else. The owner calls SetLocal too.
func (e *Engine) NetworkChanged(now time.Time) {
	e.v4, e.v6 = family{}, family{}
	e.roundAt = time.Time{}
	e.Freshen(now)
	e.look(now)
}

func (e *Engine) family(a netip.Addr) *family {
	if a.Is4() {
		return &e.v4
	}
	return &e.v6
}

// look plans a new judgement: what comes in quick succession is told once.
func (e *Engine) look(now time.Time) {
	if e.dirty.IsZero() {
		e.dirty = now.Add(settleFor)
	}
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	for _, f := range []*family{&e.v4, &e.v6} {
		n := len(f.seen)
		f.seen = slices.DeleteFunc(f.seen, func(o observation) bool { return now.Sub(o.at) >= observationLife })
		if len(f.seen) < n {
			e.look(now)
		}
		if at := f.blockedAt(); !at.IsZero() && !at.After(now) && f.class.Class != wire.NATBlocked {
			e.look(now)
		}
		if f.class.Class != wire.NATUnknown && !f.found.IsZero() && now.Sub(f.found) >= classLife {
			e.look(now)
		}
	}
	if !e.dirty.IsZero() && !e.dirty.After(now) {
		e.dirty = time.Time{}
		e.judge(now)
	}
	next = earlier(e.dirty, e.tickServers(now))
	for _, f := range []*family{&e.v4, &e.v6} {
		for _, o := range f.seen {
			next = earlier(next, o.at.Add(observationLife))
		}
		if !e.dirty.IsZero() {
			continue // the judgement comes first
		}
		if f.class.Class != wire.NATBlocked {
			next = earlier(next, f.blockedAt())
		}
		if f.class.Class != wire.NATUnknown && !f.found.IsZero() {
			next = earlier(next, f.found.Add(classLife))
		}
	}
	return next
}

// Effects returns what the owner must do now, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

// Status returns what was last said by [Changed], for people. The slices are shared and must not be changed.
func (e *Engine) Status() Changed { return e.told }

// judge finds classes and addresses anew, and says so when they differ.
func (e *Engine) judge(now time.Time) {
	e.v4.class = e.classOf(now, &e.v4, true)
	e.v6.class = e.classOf(now, &e.v6, false)
	next := Changed{V4: e.v4.class, V6: e.v6.class, Addresses: e.confirmed(), ByHand: e.byHand()}
	next.Candidates = e.candidates(next.Addresses, next.ByHand)
	if next.V4 == e.told.V4 && next.V6 == e.told.V6 && slices.Equal(next.Addresses, e.told.Addresses) &&
		slices.Equal(next.ByHand, e.told.ByHand) && slices.Equal(next.Candidates, e.told.Candidates) {
		return
	}
	if next.V4 != e.told.V4 || next.V6 != e.told.V6 {
		e.log.Info("NAT", "ipv4", next.V4.Class, "ipv6", next.V6.Class, "step", next.V4.Step)
	}
	e.told = next
	next.Addresses, next.ByHand, next.Candidates = slices.Clone(next.Addresses), slices.Clone(next.ByHand), slices.Clone(next.Candidates)
	e.effects = append(e.effects, next)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
