package discover

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	lonelyBeacon   = 30 * time.Second // how often while nobody is linked
	healthyBeacon  = 5 * time.Minute
	beaconRate     = 200 // read a second
	answerRate     = 20  // sent a second
	answerGap      = time.Second
	maxReplays     = 256
	maxAsked       = 8   // own questions remembered
	maxAnswered    = 256 // askers remembered
	crowd          = 16  // neighbours of whom each answers
	maxHeard       = 1024
	heardFor       = 10 * time.Minute
	questionsBurst = 3
)

// lan is what the engine knows of the local network.
type lan struct {
	at       time.Time // of the next beacon; zero: none planned
	burst    int       // questions of the present burst sent
	groups   []netip.AddrPort
	replays  ring // authentic beacons seen
	asked    ring // our questions
	answered map[netip.Addr]time.Time
	heard    map[key.ShortID]time.Time
	reads    bucket
	answers  bucket
}

func (l *lan) init() {
	l.replays.limit, l.asked.limit = maxReplays, maxAsked
	l.answered, l.heard = map[netip.Addr]time.Time{}, map[key.ShortID]time.Time{}
	l.reads, l.answers = bucket{rate: beaconRate, tokens: 2 * beaconRate}, bucket{rate: answerRate, tokens: 2 * answerRate}
}

// restart asks now, after 1 s and after 3 s.
func (l *lan) restart(now time.Time) { l.at, l.burst = now, 0 }

// speaks returns by which secret this node speaks up on the LAN, or nil.
func (e *Engine) speaks() *family {
	switch {
	case !e.mode.LAN || e.mode.Port == 0:
	case e.newcomer():
		return e.join
	case e.members > 0:
		return e.current
	}
	return nil
}

// planLAN says which groups to hear: ours, that of who missed the last rotation, and those of newcomers.
func (e *Engine) planLAN() {
	var groups []netip.AddrPort
	if e.mode.LAN && e.mode.Port != 0 {
		for _, k := range e.ears() {
			if k == e.join {
				continue // answers come to where we ask from
			}
			groups = append(groups, k.groups[:]...)
		}
	}
	if !slices.Equal(groups, e.lan.groups) {
		e.lan.groups = groups
		e.effect(Listen{Groups: slices.Clone(groups)})
	}
}

// ears lists the secrets by which this node hears beacons.
func (e *Engine) ears() (out []*family) {
	for _, f := range []*family{e.current, e.previous} {
		if f != nil {
			out = append(out, f)
		}
	}
	if e.newcomer() {
		return append(out, e.join)
	}
	for _, in := range e.invites {
		if e.current != nil && !in.made.Before(e.keys.Since) {
			out = append(out, in.family)
		}
	}
	return out
}

func (e *Engine) tickLAN(now time.Time) time.Time {
	f := e.speaks()
	if f == nil {
		return time.Time{}
	}
	l := &e.lan
	if reached(l.at, now) || l.at.IsZero() {
		b := beacon{kind: question, port: e.mode.Port, id: e.cfg.Self}
		if l.burst >= questionsBurst && e.links > 0 {
			b.kind = statement
		}
		for _, g := range f.groups {
			e.say(f, b, g, "")
		}
		l.burst = min(l.burst+1, questionsBurst)
		switch {
		case l.burst < questionsBurst:
			l.at = now.Add(time.Duration(l.burst) * time.Second)
		case e.links == 0:
			l.at = now.Add(e.jitter(lonelyBeacon, 5*time.Second))
		default:
			l.at = now.Add(e.jitter(healthyBeacon, time.Minute))
		}
	}
	return l.at
}

func (e *Engine) say(f *family, b beacon, to netip.AddrPort, iface string) {
	nonce, ok := e.nonce()
	if !ok {
		return
	}
	if b.kind == question {
		e.lan.asked.add(token(nonce[:]))
	}
	e.effect(SendBeacon{To: to, Interface: iface, Data: b.encode(f.beacon, nonce)})
}

// HandleBeacon takes a datagram that came to a group of Listen or to a socket of SendBeacon, on the interface named. It is not
// kept. What is not for us costs a look and no word.
func (e *Engine) HandleBeacon(now time.Time, from netip.AddrPort, iface string, data []byte) {
	addr := from.Addr().Unmap()
	if !e.mode.LAN || e.mode.Port == 0 || len(data) != BeaconSize || from.Port() == 0 || addr.IsUnspecified() || addr.IsMulticast() || !e.lan.reads.take(now) {
		return
	}
	for _, f := range e.ears() {
		b, err := openBeacon(f.beacon, data)
		if err != nil {
			continue
		}
		t := token(data)
		if b.id != e.cfg.Self && !e.lan.replays.has(t) {
			e.lan.replays.add(t)
			if addr.IsLinkLocalUnicast() && addr.Is6() && addr.Zone() == "" {
				addr = addr.WithZone(iface)
			}
			e.hear(now, f, b, t, netip.AddrPortFrom(addr, from.Port()), iface)
		}
		return
	}
}

// hear acts on an authentic beacon (spec/70-discover.md#beacons).
func (e *Engine) hear(now time.Time, f *family, b beacon, t token, from netip.AddrPort, iface string) {
	member := f == e.current || f == e.previous
	switch {
	case b.kind == answer && !e.lan.asked.has(b.echo):
		return
	case member || f == e.join && b.kind == answer:
		at := netip.AddrPortFrom(from.Addr(), b.port)
		if e.hints.allow(now, at) {
			e.effect(Found{ID: b.id, Addrs: []netip.AddrPort{at}, Kind: KindOther, Source: LAN})
		}
	}
	if f == e.current && (len(e.lan.heard) < maxHeard || !e.lan.heard[b.id].IsZero()) {
		e.lan.heard[b.id] = now
	}
	if b.kind == question && f != e.previous && f != e.join && e.answers(now, from.Addr()) {
		e.say(f, beacon{kind: answer, port: e.mode.Port, id: e.cfg.Self, echo: t}, from, iface)
	}
}

// answers reports whether a question is to be answered: each asker once a second, and in a crowd by some of us.
func (e *Engine) answers(now time.Time, to netip.Addr) bool {
	l := &e.lan
	for id, at := range l.heard {
		if now.Sub(at) >= heardFor {
			delete(l.heard, id)
		}
	}
	for a, at := range l.answered {
		if now.Sub(at) >= answerGap {
			delete(l.answered, a)
		}
	}
	if _, ok := l.answered[to]; ok || len(l.answered) >= maxAnswered {
		return false
	}
	if n := len(l.heard); n > crowd && e.rand.IntN(n) >= crowd || !l.answers.take(now) {
		return false
	}
	l.answered[to] = now
	return true
}

// ring is a set of the last tokens.
type ring struct {
	limit, next int
	tokens      []token
}

func (r *ring) has(t token) bool { return slices.Contains(r.tokens, t) }

func (r *ring) add(t token) {
	if len(r.tokens) < r.limit {
		r.tokens = append(r.tokens, t)
		return
	}
	r.tokens[r.next] = t
	r.next = (r.next + 1) % r.limit
}

// bucket is a token bucket that holds what comes in 2 s.
type bucket struct {
	rate, tokens float64
	at           time.Time
}

func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 && !b.at.IsZero() {
		b.tokens = min(2*b.rate, b.tokens+d.Seconds()*b.rate)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
