package join

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// spec/30-join.md#replay: a copied step 1 gets one answer, at one address.
func TestReplayedStep1(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(1), addrA)
	hello := w.log[0].data
	w.wantJoined(h, time.Second)
	e := hosts[0].engine.(*Introducer)
	drafts := b.drafts
	e.Handle(w.now, netip.MustParseAddrPort("203.0.113.1:7"), hello)
	if got := e.Effects(); len(got) != 0 {
		t.Errorf("answered a replay from another address: %v", got)
	}
	e.Handle(w.now, h.addr, hello)
	got := e.Effects()
	if len(got) != 1 || !bytes.Equal(got[0].(Send).Data, w.log[1].data) || got[0].(Send).To != h.addr {
		t.Error("a repeated step 1 was not answered by the same bytes")
	}
	forged := bytes.Clone(hello)
	forged[100] ^= 1 // same ephemeral
	e.Handle(w.now, h.addr, forged)
	if got := e.Effects(); len(got) != 0 {
		t.Error("answered a forged copy")
	}
	if b.drafts != drafts {
		t.Error("a replay reached the owner")
	}
}

// spec/30-join.md#replay: repeating step 3 repeats step 4, the same bytes, but not without limit.
func TestReplayedStep3(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(1), addrA)
	w.wantJoined(h, time.Second)
	accept, grant := w.log[2].data, w.log[3].data
	e := hosts[0].engine.(*Introducer)
	e.Handle(w.now, netip.MustParseAddrPort("203.0.113.1:7"), accept)
	if len(e.Effects()) != 0 {
		t.Error("answered step 3 from another address")
	}
	answers := 0
	for i := range 2000 {
		e.Handle(w.now.Add(time.Duration(i)*10*time.Millisecond), h.addr, accept)
		for _, got := range e.Effects() {
			answers++
			if !bytes.Equal(got.(Send).Data, grant) {
				t.Fatal("another answer to the same step 3")
			}
		}
	}
	if answers != maxAnswers-1 {
		t.Errorf("%d more answers, want %d", answers, maxAnswers-1)
	}
	if b.admits != 1 {
		t.Errorf("admitted %d times", b.admits)
	}
}

// spec/30-join.md#bad-messages: changed copies of each datagram, ahead of the genuine one, change nothing.
func TestTamperedCopiesDoNoHarm(t *testing.T) {
	for step := byte(1); step <= 4; step++ {
		// Where: all of the frame, in strides, and all bytes of the header.
		for at := 0; at < wire.MaxJoin; at += 1 + at/4 {
			w := newWorld(t, 1)
			b, _, _ := home(t, w)
			w.wire = func(d datagram) [][]byte {
				if d.step() != step || at >= len(d.data) {
					return [][]byte{d.data}
				}
				bad := bytes.Clone(d.data)
				bad[at] ^= 0x40
				return [][]byte{bad, d.data}
			}
			h := b.joiner(w, 50, seed(1), addrA)
			w.wantJoined(h, 10*time.Second)
			if took := h.when.Sub(epoch); took != 4*w.delay {
				t.Errorf("step %d, byte %d: took %v", step, at, took)
			}
		}
	}
}

// spec/30-join.md#bad-messages: a good static key before a spoilt payload, and a low-order ephemeral before the genuine one:
// the cases that the Noise library does not roll back.
func TestHalfGoodMessages(t *testing.T) {
	for name, spoil := range map[byte]func([]byte){
		2: func(b []byte) { clear(b[8 : 8+32]) },
		3: func(b []byte) { b[len(b)-1] ^= 1 },
	} {
		w := newWorld(t, 1)
		b, _, _ := home(t, w)
		w.wire = func(d datagram) [][]byte {
			if d.step() != name {
				return [][]byte{d.data}
			}
			bad := bytes.Clone(d.data)
			spoil(bad)
			return [][]byte{bad, bad, d.data}
		}
		h := b.joiner(w, 50, seed(1), addrA)
		w.wantJoined(h, time.Second)
	}
}

// spec/30-join.md#bad-messages: a step 1 with a low-order ephemeral, from one who knows the join key, is dropped.
func TestLowOrderStep1(t *testing.T) {
	w := newWorld(t, 1)
	b, inv, hosts := home(t, w)
	e := hosts[0].engine.(*Introducer)
	low := lowOrderHello(t, inv)
	from := netip.MustParseAddrPort("192.0.2.50:51820")
	e.Handle(w.now, from, low)
	if len(e.Effects()) != 0 || len(e.entries.order) != 0 {
		t.Error("a low-order ephemeral was answered")
	}
	if b.drafts != 1 {
		t.Error("the low-order step 1 was not authentic: the test tests nothing")
	}
	w.wantJoined(b.joiner(w, 50, seed(1), addrA), time.Second)
}

// lowOrderHello is an authentic step 1 whose ephemeral key is zero: everything in Noise message 1 is symmetric.
func lowOrderHello(t testing.TB, inv *invite) []byte {
	hello := wire.JoinStep1{Sender: 7, Locator: inv.JoinKey.Locator()}
	hs, err := newHandshake(true, wgKey(50), inv.JoinKey, hello, nil)
	if err != nil {
		t.Fatal(err)
	}
	hs.cfg.CipherSuite = lowSuite{suite}
	if err := hs.rebuild(); err != nil {
		t.Fatal(err)
	}
	payload, err := wire.JoinHello{Key: identity(50).Public(), Name: "low", Version: 1}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if hello.Noise, err = hs.write(payload); err != nil {
		t.Fatal(err)
	}
	return hello.Append(nil)
}

// spec/30-join.md#offer and spec/30-join.md#grant: lies are found out, and an honest introducer is asked instead.
func TestHostileIntroducers(t *testing.T) {
	other := newBurrow(t)
	other.id[0] ^= 1
	stranger := identity(77)
	lies := map[string]func(b *burrow, cfg *IntroducerConfig){
		"another network": func(_ *burrow, cfg *IntroducerConfig) { cfg.Network[3] ^= 1 },
		"another's draft": redraft(func(m *wire.Member) { m.Key = stranger.Public() }),
		"another witness": redraft(func(m *wire.Member) { p := stranger.Public(); m.Witness = &p }),
		"no invite":       redraft(func(m *wire.Member) { m.Invite = nil }),
		"another invite":  redraft(func(m *wire.Member) { m.Invite = &wire.RecordPrefix{1} }),
		"another name":    redraft(func(m *wire.Member) { m.Name = "admin" }),
		"draft is junk": func(_ *burrow, cfg *IntroducerConfig) {
			cfg.Draft = func(time.Time, Invite, key.Public, string) ([]byte, wire.JoinStatus) {
				return []byte("junk"), wire.JoinOK
			}
		},
		"no genesis":      regrant(func(r [][]byte) [][]byte { return r[1:] }),
		"another genesis": regrant(func(r [][]byte) [][]byte { return append([][]byte{foreignGenesis(t)}, r[1:]...) }),
		"no invite record": regrant(func(r [][]byte) [][]byte {
			return append(r[:1:1], r[2:]...)
		}),
		"no node info": regrant(func(r [][]byte) [][]byte { return append(r[:3:3], r[4:]...) }),
		"no member":    regrant(func(r [][]byte) [][]byte { return r[:4] }),
		"no records":   regrant(func([][]byte) [][]byte { return nil }),
		"junk record":  regrant(func(r [][]byte) [][]byte { return append(r, []byte("junk")) }),
		"another WireGuard key": func(_ *burrow, cfg *IntroducerConfig) {
			cfg.WG = wgKey(78)
		},
		"draft spoilt by signature": regrant(func(r [][]byte) [][]byte {
			bad := bytes.Clone(r[4])
			bad[len(bad)-1] ^= 1
			return append(r[:4:4], bad)
		}),
	}
	for name, lie := range lies {
		for _, helped := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/helped=", helped), func(t *testing.T) {
				w := newWorld(t, 1)
				b, _, hosts := home(t, w)
				_, cfg := b.introducer(w, 10)
				lie(b, cfg)
				hosts[0].engine = NewIntroducer(*cfg, nil)
				hints := []string{addrA}
				if !helped {
					w.wantFailed(b.joiner(w, 50, seed(1), hints...), time.Minute, Mismatch)
					return
				}
				w.wire = func(d datagram) [][]byte { // the liar is faster
					if w.now.Sub(epoch) < 100*time.Millisecond && d.to == hosts[1].addr {
						return nil
					}
					return [][]byte{d.data}
				}
				got := w.wantJoined(b.joiner(w, 50, seed(1), append(hints, addrB)...), time.Minute)
				if got.Introducer.Identity != identity(11).Public() {
					t.Error("joined through the liar")
				}
			})
		}
	}
}

func redraft(change func(*wire.Member)) func(*burrow, *IntroducerConfig) {
	return func(b *burrow, cfg *IntroducerConfig) {
		draft := cfg.Draft
		cfg.Draft = func(now time.Time, inv Invite, who key.Public, name string) ([]byte, wire.JoinStatus) {
			p, s := draft(now, inv, who, name)
			var m wire.Member
			if err := wire.UnmarshalCanonical(p, &m); err != nil {
				b.t.Fatal(err)
			}
			change(&m)
			p, err := wire.MarshalCanonical(m)
			if err != nil {
				b.t.Fatal(err)
			}
			return p, s
		}
		admit := cfg.Admit
		cfg.Admit = func(now time.Time, member, info []byte) ([][]byte, wire.JoinStatus) {
			r, _ := wire.ParseRecord(b.id, member)
			var m wire.Member
			if err := wire.UnmarshalCanonical(r.Payload, &m); err != nil || m.Invite == nil || *m.Invite == (wire.RecordPrefix{1}) {
				for _, inv := range b.invites { // as a liar would: all that is asked for, with the wrong prefix inside
					return [][]byte{b.genesis, inv.record, member}, wire.JoinOK
				}
			}
			return admit(now, member, info)
		}
	}
}

func regrant(change func([][]byte) [][]byte) func(*burrow, *IntroducerConfig) {
	return func(_ *burrow, cfg *IntroducerConfig) {
		admit := cfg.Admit
		cfg.Admit = func(now time.Time, member, info []byte) ([][]byte, wire.JoinStatus) {
			r, s := admit(now, member, info)
			return change(r), s
		}
	}
}

func foreignGenesis(t testing.TB) []byte {
	r, err := wire.SealRecord(key.NetworkID{}, wire.KindGenesis, wire.Genesis{Name: "evil", Roots: []key.Public{identity(66).Public()},
		Threshold: 1, Pool4: []byte{10, 0, 0, 0, 8}}, identity(66))
	if err != nil {
		t.Fatal(err)
	}
	return r.Raw
}

// One who knows the join key answers and never goes on: the honest one is taken, and alone it does not hold the newcomer for
// ever (spec/30-join.md#timing).
func TestStallingIntroducer(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	w.wire = func(d datagram) [][]byte {
		if d.from == hosts[0].addr && d.step() == 4 {
			return nil
		}
		return [][]byte{d.data}
	}
	h := b.joiner(w, 50, seed(1), addrA)
	w.wantFailed(h, time.Minute, Silent)
	h = b.joiner(w, 50, seed(1), addrA, addrB)
	if got := w.wantJoined(h, 5*time.Second); got.Introducer.Addr != hosts[1].addr {
		t.Errorf("joined through %v", got.Introducer.Addr)
	}
}

// spec/30-join.md#limits: authentic or not, from however many addresses, the tables stay within their limits.
func TestFloodKeepsTablesCapped(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	e := hosts[0].engine.(*Introducer)
	answers := 0
	now := w.now
	for i := range 1200 {
		now = now.Add(12 * time.Millisecond)
		j, err := NewJoiner(b.joinerConfig(w, 50, seed(1), addrA), nil)
		if err != nil {
			t.Fatal(err)
		}
		e.Handle(now, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 99), j.attempts[0].frame)
		answers += len(e.Effects())
		if len(e.entries.order) > maxEntries || len(e.entries.byIndex) > maxEntries || len(e.entries.byEphemeral) > maxEntries {
			t.Fatalf("%d half-open joins", len(e.entries.order))
		}
		if len(e.sources.buckets) > maxSources || len(e.sources.order) > maxSources {
			t.Fatalf("%d sources", len(e.sources.buckets))
		}
	}
	if limit := helloBurst + helloRate*16; answers > limit {
		t.Errorf("%d answers in 15 s, limit %d", answers, limit)
	}
	if len(e.entries.order) != maxEntries || len(e.sources.buckets) != maxSources {
		t.Errorf("tables have %d and %d entries: the flood was too small", len(e.entries.order), len(e.sources.buckets))
	}
	next := e.Tick(now)
	if next.IsZero() || e.Tick(now.Add(entryLife)) != (time.Time{}) || len(e.entries.byIndex) != 0 {
		t.Error("half-open joins do not expire")
	}
	w.now = now.Add(time.Minute)
	w.wantJoined(b.joiner(w, 51, seed(1), addrA), 5*time.Second)
}

// spec/30-join.md#limits: one source, or one IPv6 /64, has its own limit and does not spend that of others.
func TestSourceLimit(t *testing.T) {
	for _, prefix := range []string{"192.0.2.1", "2001:db8::%d"} {
		w := newWorld(t, 1)
		b, _, hosts := home(t, w)
		e := hosts[0].engine.(*Introducer)
		answers := 0
		for i := range 40 {
			j, err := NewJoiner(b.joinerConfig(w, 50, seed(1), addrA), nil)
			if err != nil {
				t.Fatal(err)
			}
			a := prefix
			if prefix[0] == '2' {
				a = fmt.Sprintf(prefix, i+1)
			}
			e.Handle(w.now, netip.AddrPortFrom(netip.MustParseAddr(a), uint16(i+1)), j.attempts[0].frame)
			answers += len(e.Effects())
		}
		if answers != sourceBurst {
			t.Errorf("%s: %d answers, want %d", prefix, answers, sourceBurst)
		}
		w.wantJoined(b.joiner(w, 51, seed(1), addrA), time.Second)
	}
}

// spec/30-join.md#accept: the node info must be the newcomer's own, with the key of the handshake.
func TestAcceptWithAnotherWireGuardKey(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	cfg := b.joinerConfig(w, 50, seed(1), addrA)
	j, err := NewJoiner(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	j.cfg.Info.WG = wgKey(3).Public()
	h := w.add("192.0.2.50:51820", j)
	j.Start(w.now)
	w.drain(h)
	w.wantFailed(h, time.Minute, Silent)
	if b.admits != 0 || w.count(hosts[0], 4) != 0 {
		t.Error("admitted with a WireGuard key that is not the handshake's")
	}
}

// spec/30-join.md#bad-messages: guesses at step 3 are counted, and cost no more after some.
func TestForgedStep3IsBounded(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(1), addrA)
	w.run(30*time.Millisecond, func() bool { return false })
	e := hosts[0].engine.(*Introducer)
	entry := e.entries.order[0]
	forged := wire.JoinStep3{Receiver: entry.index, Noise: make([]byte, 300)}.Append(nil)
	for range 100 {
		e.Handle(w.now, h.addr, forged)
	}
	if entry.faults != maxFaults || len(e.Effects()) != 0 {
		t.Errorf("%d faults counted", entry.faults)
	}
	w.wantJoined(h, 10*time.Second) // by another handshake
}
