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

const (
	addrA = "198.51.100.1:51820"
	addrB = "198.51.100.2:51820"
	addrC = "198.51.100.3:51820"
)

// home is one network with an open invite and introducers 10, 11, 12 at addresses A, B, C.
func home(t testing.TB, w *world) (*burrow, *invite, []*host) {
	b := newBurrow(t)
	inv := b.invite(seed(1), 1)
	var hosts []*host
	for i, a := range []string{addrA, addrB, addrC} {
		e, _ := b.introducer(w, byte(10+i))
		hosts = append(hosts, w.add(a, e))
	}
	return b, inv, hosts
}

// spec/30-join.md#course: two round trips, and the newcomer knows whom it talked to.
func TestJoinTakesTwoRoundTrips(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(1), addrA)
	got := w.wantJoined(h, 10*time.Second)
	if took := h.when.Sub(epoch); took != 4*w.delay {
		t.Errorf("took %v, want two round trips of %v", took, 2*w.delay)
	}
	if got.Network != b.id || !bytes.Equal(got.Records[0], b.genesis) {
		t.Error("wrong network")
	}
	want := Introduced{WG: wgKey(10).Public(), Identity: identity(10).Public(), Addr: hosts[0].addr}
	if got.Introducer != want {
		t.Errorf("introducer %v, want %v", got.Introducer, want)
	}
	info, err := wire.ParseRecord(b.id, got.Records[len(got.Records)-1])
	if err != nil || info.Kind != wire.KindNodeInfo || !info.SignedBy(identity(50).Public()) || !info.Verify(b.id) {
		t.Errorf("last record is not the own node info: %v", err)
	}
	if len(w.log) != 4 {
		t.Errorf("%d datagrams, want 4", len(w.log))
	}
	if n := w.hosts[h.addr].Tick(w.now); !n.IsZero() {
		t.Errorf("a joiner that is done wants a tick at %v", n)
	}
}

// spec/30-join.md#amplification: no answer before step 3 is larger than its question, and no frame exceeds the limit.
func TestStep2IsNeverLargerThanStep1(t *testing.T) {
	w := newWorld(t, 1)
	b, _, _ := home(t, w)
	w.wantJoined(b.joiner(w, 50, seed(1), addrA), 10*time.Second)
	if n := len(w.log[0].data); n != wire.MaxJoin {
		t.Errorf("step 1 has %d bytes, want %d", n, wire.MaxJoin)
	}
	o := wire.JoinOffer{Status: wire.JoinOK, Draft: make([]byte, wire.MaxJoin)}
	if _, err := o.Marshal(); err == nil {
		t.Error("an offer that makes step 2 larger than step 1 was encoded")
	}
}

// spec/30-join.md#timing: whatever is lost, repeated or overtaken, the join ends well.
func TestEveryLossPatternConverges(t *testing.T) {
	for _, loss := range []float64{0.1, 0.3, 0.5} {
		for seedN := range uint64(15) {
			w := newWorld(t, seedN)
			w.loss, w.dup, w.jitter = loss, 0.2, 80*time.Millisecond
			b, _, _ := home(t, w)
			b.extra = int(seedN) * 3
			h := b.joiner(w, 50, seed(1), addrA, addrB, addrC)
			w.run(2*time.Minute, h.done)
			if h.joined() {
				continue
			}
			if loss < 0.4 || h.reason() != Silent {
				t.Fatalf("loss %v seed %d: %v reason %v at %v", loss, seedN, h.got, h.reason(), w.now.Sub(epoch))
			}
		}
	}
}

// spec/30-join.md#timing: the loss of any one datagram, or of any two, costs time and nothing else.
func TestLossOfAnyTwoDatagrams(t *testing.T) {
	for i := range 12 {
		for k := range i + 1 {
			w := newWorld(t, 1)
			b, _, _ := home(t, w)
			b.extra = 15 // a grant in several parts
			n := 0
			w.wire = func(d datagram) [][]byte {
				n++
				if n-1 == i || n-1 == k {
					return nil
				}
				return [][]byte{d.data}
			}
			h := b.joiner(w, 50, seed(1), addrA)
			w.wantJoined(h, 10*time.Second)
			if len(b.members) != 1 {
				t.Fatalf("without %d and %d: %d members", i, k, len(b.members))
			}
		}
	}
}

// spec/30-join.md#grant: an answer of the largest size arrives in parts.
func TestLongGrant(t *testing.T) {
	w := newWorld(t, 3)
	w.loss, w.jitter = 0.2, 50*time.Millisecond
	b, _, hosts := home(t, w)
	b.extra = 55
	got := w.wantJoined(b.joiner(w, 50, seed(1), addrA), 10*time.Second)
	if len(got.Records) != 61 {
		t.Errorf("%d records", len(got.Records))
	}
	if w.count(hosts[0], 4) < 9 {
		t.Errorf("only %d parts", w.count(hosts[0], 4))
	}
}

// spec/30-join.md#silence: who does not know the join key hears nothing and leaves nothing behind.
func TestWrongSeedMeetsSilence(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(2), addrA, addrB)
	w.wantFailed(h, time.Minute, Silent)
	if took := h.when.Sub(epoch); took != silentAfter {
		t.Errorf("gave up after %v, want %v", took, silentAfter)
	}
	if n := w.count(hosts[0], 2) + w.count(hosts[1], 2); n != 0 {
		t.Errorf("%d answers", n)
	}
	e := hosts[0].engine.(*Introducer)
	if len(e.entries.order) != 0 || len(e.sources.buckets) != 0 {
		t.Error("a message for an unknown locator left state behind")
	}
}

// spec/30-join.md#silence: the right locator with another key is as silent.
func TestLocatorWithoutKeyMeetsSilence(t *testing.T) {
	w := newWorld(t, 1)
	b, inv, hosts := home(t, w)
	other := b.joinerConfig(w, 50, seed(2), addrA)
	j, err := NewJoiner(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	loc := inv.JoinKey.Locator()
	frame := bytes.Clone(j.attempts[0].frame)
	copy(frame[8:], loc[:])
	e := hosts[0].engine.(*Introducer)
	e.Handle(w.now, netip.MustParseAddrPort("192.0.2.9:1"), frame)
	if len(e.Effects()) != 0 || len(e.entries.order) != 0 || b.drafts != 0 {
		t.Error("an unauthentic step 1 had an effect")
	}
}

// A member knows every join key, but not the seed: it cannot sign with the invite key (spec/30-join.md#accept).
func TestJoinKeyAloneDoesNotAdmit(t *testing.T) {
	w := newWorld(t, 1)
	b, inv, hosts := home(t, w)
	inv.Key = identity(99).Public() // now the code's seed has the join key right and the invite key wrong
	h := b.joiner(w, 50, seed(1), addrA)
	w.wantFailed(h, time.Minute, Silent)
	if b.admits != 0 || w.count(hosts[0], 4) != 0 {
		t.Error("admitted without the invite key's signature")
	}
}

// spec/30-join.md#status
func TestRefusals(t *testing.T) {
	for status, want := range map[wire.JoinStatus]Reason{wire.JoinUsed: Used, wire.JoinExpired: Expired, wire.JoinRevoked: Revoked,
		wire.JoinDenied: Denied, wire.JoinFull: Full, wire.JoinTooOld: TooOld, 200: Denied} {
		w := newWorld(t, 1)
		b, inv, _ := home(t, w)
		inv.status = status
		h := b.joiner(w, 50, seed(1), addrA)
		w.wantFailed(h, time.Minute, want)
		if took := h.when.Sub(epoch); took != 2*w.delay {
			t.Errorf("%v: took %v", status, took)
		}
	}
}

// spec/30-join.md#status: a refusal that another introducer may not share leaves only the one out.
func TestFullIntroducerIsNotTheEnd(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	e, cfg := b.introducer(w, 10)
	cfg.Draft = func(time.Time, Invite, key.Public, string) ([]byte, wire.JoinStatus) { return nil, wire.JoinFull }
	*e = *NewIntroducer(*cfg, nil)
	hosts[0].engine = e
	hosts[1].dead = true
	h := b.joiner(w, 50, seed(1), addrA, addrB, addrC)
	if got := w.wantJoined(h, 10*time.Second); got.Introducer.Addr != hosts[2].addr {
		t.Errorf("joined through %v", got.Introducer.Addr)
	}
}

// spec/30-join.md#status: the second of two newcomers with a single-use code is told so, at the latest in the grant.
func TestTwoNewcomersOneUse(t *testing.T) {
	w := newWorld(t, 1)
	b, _, _ := home(t, w)
	h1, h2 := b.joiner(w, 50, seed(1), addrA), b.joiner(w, 51, seed(1), addrB)
	w.run(10*time.Second, func() bool { return h1.done() && h2.done() })
	if !h1.joined() || h2.reason() != Used {
		t.Errorf("first %v, second reason %v", h1.got, h2.reason())
	}
}

// spec/30-join.md#pending
func TestPendingThenApproved(t *testing.T) {
	w := newWorld(t, 1)
	b, inv, hosts := home(t, w)
	inv.approve = true
	h := b.joiner(w, 50, seed(1), addrA, addrB)
	if w.run(3*time.Minute, h.done) {
		t.Fatalf("ended before approval: %v", h.got)
	}
	if len(h.got) != 1 || h.got[0] != Effect(Pending{Network: b.id}) {
		t.Fatalf("got %v, want one Pending", h.got)
	}
	if n := w.count(h, 3); n < 30 || n > 37 {
		t.Errorf("asked %d times in 3 minutes, want every 5 s", n)
	}
	hosts[0].dead, hosts[1].dead = true, true // all introducers are away for a while: no reason to give up
	if w.run(time.Minute, h.done) {
		t.Fatalf("gave up while pending: %v", h.got)
	}
	hosts[0].dead = false
	inv.allowed = true
	w.wantJoined(h, 10*time.Second)
}

// spec/30-join.md#pending: a refusal ends the wait.
func TestPendingThenDenied(t *testing.T) {
	w := newWorld(t, 1)
	b, inv, _ := home(t, w)
	inv.approve = true
	h := b.joiner(w, 50, seed(1), addrA)
	w.run(time.Minute, h.done)
	clear(b.members)
	inv.status = wire.JoinRevoked
	w.wantFailed(h, 10*time.Second, Revoked)
}

// spec/30-join.md#timing: an introducer that dies between step 2 and step 4 is replaced in two seconds.
func TestAnotherIntroducerTakesOver(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	w.wire = func(d datagram) [][]byte {
		switch {
		case d.from == hosts[0].addr && d.step() == 2:
			hosts[0].dead = true // right after it answered
		case d.from == hosts[1].addr && d.step() == 2 && w.now.Sub(epoch) < 100*time.Millisecond:
			return nil // the other one's first answer is lost
		}
		return [][]byte{d.data}
	}
	h := b.joiner(w, 50, seed(1), addrA, addrB)
	got := w.wantJoined(h, 10*time.Second)
	if got.Introducer.Addr != hosts[1].addr {
		t.Errorf("joined through %v", got.Introducer.Addr)
	}
	if took := h.when.Sub(epoch); took > stallAfter+200*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// An introducer that restarts has forgotten the handshake: the newcomer starts anew with it (spec/30-join.md#timing).
func TestIntroducerRestarts(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	w.wire = func(d datagram) [][]byte {
		if d.step() == 2 && w.now.Sub(epoch) < time.Second {
			hosts[0].engine, _ = b.introducer(w, 10)
		}
		return [][]byte{d.data}
	}
	w.wantJoined(b.joiner(w, 50, seed(1), addrA), 10*time.Second)
}

// spec/30-join.md#known: the answer was lost, the use is spent, and the same identity asks again, even elsewhere.
func TestLostGrantIsFoundAgain(t *testing.T) {
	for _, second := range []string{addrA, addrB} {
		w := newWorld(t, 1)
		b, inv, _ := home(t, w)
		w.wire = func(d datagram) [][]byte {
			if d.step() == 4 {
				return nil
			}
			return [][]byte{d.data}
		}
		h := b.joiner(w, 50, seed(1), addrA)
		w.wantFailed(h, time.Minute, Silent)
		if inv.uses != 0 {
			t.Fatal("not admitted")
		}
		w.wire = nil
		h = b.joiner(w, 50, seed(1), second)
		w.wantJoined(h, 10*time.Second)
		if len(b.members) != 1 {
			t.Errorf("%d members", len(b.members))
		}
	}
}

// A newcomer that the owner tells to reject goes to the next introducer (spec/30-join.md#chain).
func TestReject(t *testing.T) {
	w := newWorld(t, 1)
	b, _, hosts := home(t, w)
	h := b.joiner(w, 50, seed(1), addrA, addrB)
	first := w.wantJoined(h, 10*time.Second).Introducer.Addr
	h.got = nil
	h.engine.(*Joiner).Reject(w.now)
	w.drain(h)
	if second := w.wantJoined(h, 10*time.Second).Introducer.Addr; first != hosts[0].addr || second != hosts[1].addr {
		t.Errorf("first %v, then %v", first, second)
	}
	h.got = nil
	h.engine.(*Joiner).Reject(w.now)
	w.drain(h)
	w.wantFailed(h, time.Second, Mismatch)
}

func TestNameFits(t *testing.T) {
	long := fmt.Sprintf("%063d", 0)
	for _, c := range []struct {
		got, wanted string
		want        bool
	}{
		{"bob", "bob", true}, {"bob-2", "bob", true}, {"bob-22", "bob", true}, {long[:61] + "-2", long, true},
		{"bob-", "bob", false}, {"bob-x", "bob", false}, {"bo-2", "bob", false}, {"alice", "bob", false}, {"-2", "bob", false}, {"", "bob", false},
	} {
		if nameFits(c.got, c.wanted) != c.want {
			t.Errorf("nameFits(%q, %q) = %t", c.got, c.wanted, !c.want)
		}
	}
}

func TestNewJoinerChecksItsConfig(t *testing.T) {
	w := newWorld(t, 1)
	b := newBurrow(t)
	good := b.joinerConfig(w, 50, seed(1), addrA)
	for name, spoil := range map[string]func(*JoinerConfig){
		"no hints":      func(c *JoinerConfig) { c.Hints = nil },
		"many hints":    func(c *JoinerConfig) { c.Hints = make([]netip.AddrPort, MaxHints+1) },
		"no identity":   func(c *JoinerConfig) { c.Identity = key.Identity{} },
		"no name":       func(c *JoinerConfig) { c.Name = "" },
		"other wg":      func(c *JoinerConfig) { c.WG = wgKey(3) },
		"long name":     func(c *JoinerConfig) { c.Name = fmt.Sprintf("%064d", 0) },
		"big node info": func(c *JoinerConfig) { c.Info.Version = fmt.Sprintf("%0900d", 0) },
	} {
		c := good
		spoil(&c)
		if _, err := NewJoiner(c, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Introducers that were found later are asked too (spec/30-join.md#timing).
func TestHintsThatComeLater(t *testing.T) {
	cfg := newBurrow(t).joinerConfig(newWorld(t, 1), 50, seed(1))
	cfg.Seek = true
	j, err := NewJoiner(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	j.Start(now)
	if out := j.Effects(); len(out) != 0 {
		t.Fatalf("without an address it sends %v", out)
	}
	now = now.Add(30 * time.Second)
	to := netip.MustParseAddrPort("192.0.2.9:1000")
	j.Hint(now, to)
	j.Hint(now, to)
	if out := j.Effects(); len(out) != 1 || out[0].(Send).To != to {
		t.Fatalf("to an address that was found it sends %v", out)
	}
	for i := range 20 { // the newest count
		now = now.Add(100 * time.Millisecond)
		j.Hint(now, netip.AddrPortFrom(to.Addr(), uint16(2000+i)))
	}
	if len(j.attempts) != MaxHints {
		t.Errorf("%d introducers are asked", len(j.attempts))
	}
	j.Tick(now.Add(seekFor))
	if out := j.Effects(); len(out) == 0 || out[len(out)-1] != (Failed{Reason: Silent}) {
		t.Errorf("it ends with %v", out)
	}
}
