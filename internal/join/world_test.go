package join

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var epoch = time.Unix(1_800_000_000, 0)

// world carries datagrams between engines in virtual time.
type world struct {
	t      testing.TB
	now    time.Time
	rng    *rand.Rand
	hosts  map[netip.AddrPort]*host
	queue  []datagram
	log    []datagram // all that was sent
	delay  time.Duration
	jitter time.Duration
	loss   float64
	dup    float64
	// wire sees each datagram before it travels, and says what travels instead.
	wire  func(d datagram) [][]byte
	index uint32
}

type datagram struct {
	from, to netip.AddrPort
	at       time.Time // of arrival; in log: of sending
	data     []byte
}

func (d datagram) step() byte { return d.data[1] }

// engine is what Joiner and Introducer have in common.
type engine interface {
	Handle(now time.Time, from netip.AddrPort, msg []byte)
	Tick(now time.Time) time.Time
	Effects() []Effect
	Owns(msg []byte) bool
}

type host struct {
	addr netip.AddrPort
	engine
	dead bool
	got  []Effect // but Send
	when time.Time
}

func newWorld(t testing.TB, seed uint64) *world {
	return &world{t: t, now: epoch, rng: rand.New(rand.NewPCG(seed, 1)), hosts: map[netip.AddrPort]*host{}, delay: 20 * time.Millisecond}
}

func (w *world) newIndex() uint32 { w.index++; return w.index * 0x01000193 }

func (w *world) add(addr string, e engine) *host {
	h := &host{addr: netip.MustParseAddrPort(addr), engine: e}
	w.hosts[h.addr] = h
	return h
}

func (w *world) drain(h *host) {
	for _, e := range h.Effects() {
		s, ok := e.(Send)
		if !ok {
			h.got, h.when = append(h.got, e), w.now
			continue
		}
		w.send(datagram{from: h.addr, to: s.To, data: s.Data})
	}
}

func (w *world) send(d datagram) {
	w.log = append(w.log, datagram{from: d.from, to: d.to, at: w.now, data: d.data})
	if len(d.data) > wire.MaxJoin {
		w.t.Fatalf("datagram of %d bytes", len(d.data))
	}
	travel := [][]byte{d.data}
	if w.wire != nil {
		travel = w.wire(d)
	}
	for _, data := range travel {
		copies := 1
		if w.rng.Float64() < w.dup {
			copies = 2
		}
		for range copies {
			if w.rng.Float64() >= w.loss {
				late := time.Duration(w.rng.Int64N(int64(w.jitter) + 1))
				w.queue = append(w.queue, datagram{d.from, d.to, w.now.Add(w.delay + late), data})
			}
		}
	}
}

// run lets time pass until the condition holds or the time is over; it reports whether the condition held.
func (w *world) run(d time.Duration, until func() bool) bool {
	end := w.now.Add(d)
	for {
		next := end
		for _, h := range w.sorted() {
			if h.dead {
				continue
			}
			t := h.Tick(w.now)
			w.drain(h)
			if !t.IsZero() && t.Before(next) {
				if !t.After(w.now) {
					w.t.Fatalf("%v wants a tick at %v, which is not after now", h.addr, t)
				}
				next = t
			}
		}
		if until() {
			return true
		}
		if !w.now.Before(end) {
			return false
		}
		slices.SortStableFunc(w.queue, func(a, b datagram) int { return a.at.Compare(b.at) })
		if len(w.queue) > 0 && !w.queue[0].at.After(next) {
			d := w.queue[0]
			w.queue, w.now = w.queue[1:], d.at
			if h := w.hosts[d.to]; h != nil && !h.dead && h.Owns(d.data) {
				h.Handle(w.now, d.from, d.data)
				w.drain(h)
			}
			continue
		}
		w.now = next
	}
}

func (w *world) sorted() []*host {
	var all []*host
	for _, h := range w.hosts {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *host) int { return a.addr.Compare(b.addr) })
	return all
}

// count returns how many datagrams of a step an address sent.
func (w *world) count(h *host, step byte) int {
	n := 0
	for _, d := range w.log {
		if d.from == h.addr && d.step() == step {
			n++
		}
	}
	return n
}

// burrow is a network as its members see it, all at once: it answers the callbacks as package member would.
type burrow struct {
	t       testing.TB
	id      key.NetworkID
	root    key.Identity
	genesis []byte
	invites map[key.Locator]*invite
	members map[key.Public][]byte // payload by key
	raw     map[key.Public][]byte // record by key
	drafts  int
	admits  int
	extra   int // records more in each grant, to make it long
}

type invite struct {
	Invite
	record  []byte
	status  wire.JoinStatus // JoinOK: open
	uses    int
	approve bool
	allowed bool
}

func newBurrow(t testing.TB) *burrow {
	b := &burrow{t: t, root: identity(1), invites: map[key.Locator]*invite{}, members: map[key.Public][]byte{}, raw: map[key.Public][]byte{}}
	r := b.seal(wire.KindGenesis, wire.Genesis{Name: "home", Roots: []key.Public{b.root.Public()}, Threshold: 1,
		Pool4: []byte{100, 64, 0, 0, 10}, Created: epoch.Unix()}, b.root)
	b.id, b.genesis = key.NetworkID(r.ID), r.Raw
	return b
}

func (b *burrow) seal(kind wire.Kind, payload any, signers ...key.Identity) wire.Record {
	b.t.Helper()
	r, err := wire.SealRecord(b.id, kind, payload, signers...)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func identity(n byte) key.Identity {
	var seed [32]byte
	seed[0], seed[31] = n, 0xA5
	id, err := key.IdentityFromSeed(seed[:])
	if err != nil {
		panic(err)
	}
	return id
}

func wgKey(n byte) key.WGPrivate {
	var k key.WGPrivate
	k[1], k[31] = n, 64
	return k
}

func seed(n byte) (s key.InviteSeed) {
	s[0] = n
	return s
}

func (b *burrow) invite(s key.InviteSeed, uses int) *invite {
	j, k := s.JoinKey(), s.Identity().Public()
	r := b.seal(wire.KindInvite, wire.Invite{Key: k, JoinKey: j, Uses: uint32(uses), NotAfter: epoch.Unix() + 86400, Time: epoch.Unix()}, b.root)
	inv := &invite{Invite: Invite{JoinKey: j, Key: k, Prefix: r.ID.Prefix()}, record: r.Raw, status: wire.JoinOK, uses: uses}
	b.invites[j.Locator()] = inv
	return inv
}

// introducer makes member n, with its callbacks.
func (b *burrow) introducer(w *world, n byte) (*Introducer, *IntroducerConfig) {
	id, wg := identity(n), wgKey(n)
	self := b.seal(wire.KindMember, wire.Member{Key: id.Public(), Name: fmt.Sprint("m", n), Addr4: [4]byte{100, 64, 0, n}, Time: epoch.Unix()}, b.root)
	info := b.seal(wire.KindNodeInfo, wire.NodeInfo{Seq: 1, WG: wg.Public(), Time: epoch.Unix()}, id)
	cfg := &IntroducerConfig{Network: b.id, Identity: id, WG: wg, NewIndex: w.newIndex}
	cfg.Invite = func(loc key.Locator) (Invite, bool) {
		inv, ok := b.invites[loc]
		if !ok {
			return Invite{}, false
		}
		return inv.Invite, true
	}
	cfg.Draft = func(now time.Time, i Invite, who key.Public, name string) ([]byte, wire.JoinStatus) {
		b.drafts++
		if p := b.members[who]; p != nil {
			return p, wire.JoinKnown
		}
		inv := b.invites[i.JoinKey.Locator()]
		if inv.status != wire.JoinOK {
			return nil, inv.status
		}
		if inv.uses == 0 {
			return nil, wire.JoinUsed
		}
		witness, prefix := id.Public(), i.Prefix
		p, err := wire.MarshalCanonical(wire.Member{Key: who, Name: name, Addr4: [4]byte{100, 64, 1, 1}, Time: now.Unix(), Invite: &prefix, Witness: &witness})
		if err != nil {
			b.t.Fatal(err)
		}
		return p, wire.JoinOK
	}
	cfg.Admit = func(_ time.Time, member, nodeInfo []byte) ([][]byte, wire.JoinStatus) {
		return b.admit(member, nodeInfo, self.Raw, info.Raw)
	}
	return NewIntroducer(*cfg, nil), cfg
}

func (b *burrow) admit(member, nodeInfo, self, info []byte) ([][]byte, wire.JoinStatus) {
	b.admits++
	r, err := wire.ParseRecord(b.id, member)
	if err != nil || !r.Verify(b.id) {
		b.t.Fatalf("admitted a bad record: %v", err)
	}
	n, err := wire.ParseRecord(b.id, nodeInfo)
	if err != nil || !n.Verify(b.id) {
		b.t.Fatalf("admitted a bad node info: %v", err)
	}
	var m wire.Member
	if err := wire.UnmarshalCanonical(r.Payload, &m); err != nil {
		b.t.Fatal(err)
	}
	var inv *invite
	for _, i := range b.invites {
		if i.Prefix == *m.Invite {
			inv = i
		}
	}
	if b.members[m.Key] == nil {
		if inv.uses == 0 {
			return nil, wire.JoinUsed
		}
		inv.uses--
		b.members[m.Key], b.raw[m.Key] = r.Payload, member
	}
	if inv.approve && !inv.allowed {
		return nil, wire.JoinPending
	}
	records := [][]byte{b.genesis, inv.record, self, info, b.raw[m.Key]}
	for i := range b.extra {
		records = append(records, b.seal(wire.KindAdmin, wire.Admin{Subject: m.Key, Rights: 1, Time: int64(i)}, b.root).Raw)
	}
	return records, wire.JoinOK
}

// joiner makes newcomer n with the code of an invite.
func (b *burrow) joiner(w *world, n byte, s key.InviteSeed, hints ...string) *host {
	b.t.Helper()
	cfg := b.joinerConfig(w, n, s, hints...)
	j, err := NewJoiner(cfg, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	h := w.add(fmt.Sprintf("192.0.2.%d:51820", n), j)
	j.Start(w.now)
	w.drain(h)
	return h
}

func (b *burrow) joinerConfig(w *world, n byte, s key.InviteSeed, hints ...string) JoinerConfig {
	cfg := JoinerConfig{Seed: s, Network: [16]byte(b.id[:16]), Identity: identity(n), WG: wgKey(n), Name: fmt.Sprint("new", n),
		Info: wire.NodeInfo{Seq: 1, WG: wgKey(n).Public(), Time: epoch.Unix()}, NewIndex: w.newIndex}
	for _, a := range hints {
		cfg.Hints = append(cfg.Hints, netip.MustParseAddrPort(a))
	}
	return cfg
}

func (h *host) joined() bool {
	if len(h.got) == 0 || h.failed() {
		return false
	}
	_, waits := h.got[len(h.got)-1].(Pending)
	return !waits
}

func (h *host) failed() bool { return h.reason() != 0 }

func (h *host) done() bool { return h.joined() || h.failed() }

func (h *host) reason() Reason {
	if len(h.got) == 0 {
		return 0
	}
	f, _ := h.got[len(h.got)-1].(Failed)
	return f.Reason
}

// wantFailed runs w until h fails and checks why.
func (w *world) wantFailed(h *host, d time.Duration, want Reason) {
	w.t.Helper()
	w.run(d, h.done)
	if h.reason() != want {
		w.t.Fatalf("got %v (reason %v), want reason %v", h.got, h.reason(), want)
	}
}

// wantJoined runs w until h has joined.
func (w *world) wantJoined(h *host, d time.Duration) Joined {
	w.t.Helper()
	w.run(d, h.done)
	if !h.joined() {
		w.t.Fatalf("not joined after %v: %v (reason %v)", w.now.Sub(epoch), h.got, h.reason())
	}
	return h.got[len(h.got)-1].(Joined)
}
