package wireguard

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// spec/40-wireguard.md#rotation
func TestResponderWaitsForConfirmation(t *testing.T) {
	w, a, b := pair(t)
	w.pass = func(d *datagram) bool { return d.data[0] != typeTransport } // the confirming keepalive is lost
	a.Initiate(w.now, a.peer(b))
	w.settle()
	if a.peer(b).Sending() == nil {
		t.Fatal("the initiator cannot send")
	}
	if b.peer(a).Sending() != nil || b.ups != 0 {
		t.Fatal("the responder sends before the initiator has confirmed the session")
	}
	w.pass = nil
	a.send(b, "first")
	if b.peer(a).Sending() == nil || b.ups != 1 {
		t.Fatal("the responder does not send although the session is confirmed")
	}
	w.talk(a, b)
}

// spec/40-wireguard.md#rotation
func TestConfirmationFoundByTick(t *testing.T) {
	w, a, b := pair(t)
	var confirm []byte
	w.pass = func(d *datagram) bool {
		if d.data[0] == typeTransport {
			confirm = d.data
		}
		return d.data[0] != typeTransport
	}
	a.Initiate(w.now, a.peer(b))
	w.settle()
	k := b.table[binary.LittleEndian.Uint32(confirm[4:])]
	if _, _, err := k.Open(b.nanosNow(), confirm); err != nil {
		t.Fatal(err)
	}
	if n := b.peer(a).Received(b.nanosNow(), k, false, len(confirm)); n != NoticeConfirm {
		t.Fatalf("notice %b, want NoticeConfirm", n)
	}
	w.run(time.Second) // the notice got lost
	if b.peer(a).Sending() != k {
		t.Fatal("Tick did not find the confirmed keypair")
	}
}

// spec/40-wireguard.md#rotation
func TestPacketsOfThePreviousKeypairArrive(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	var late *datagram
	w.pass = func(d *datagram) bool { late = d; return false }
	a.send(b, "late")
	w.pass = nil
	w.run(6 * time.Second)
	w.connect(a, b)
	if a.rekeys != 1 || b.rekeys != 1 {
		t.Fatalf("rekeyed %d and %d times, want once", a.rekeys, b.rekeys)
	}
	w.deliver(late)
	w.expect(b, "late")
	w.run(6 * time.Second)
	w.connect(a, b)
	if err := b.receive(a.addr, late.data); err != ErrUnknown {
		t.Fatalf("two sessions later: %v, want ErrUnknown", err)
	}
	if len(a.table) != 2 || len(b.table) != 2 {
		t.Errorf("%d and %d keypairs, want 2: current and previous", len(a.table), len(b.table))
	}
	w.talk(a, b)
}

// spec/40-wireguard.md#simultaneous
func TestSimultaneousInitiation(t *testing.T) {
	for _, order := range []string{"both initiations cross", "both responses cross"} {
		t.Run(order, func(t *testing.T) {
			w, a, b := pair(t)
			var held []*datagram
			w.pass = func(d *datagram) bool {
				if d.data[0] == typeInitiation || d.data[0] == typeResponse && order == "both responses cross" {
					held = append(held, d)
					return false
				}
				return true
			}
			a.Initiate(w.now, a.peer(b))
			b.Initiate(w.now, b.peer(a))
			w.settle()
			for len(held) > 0 {
				d := held[0]
				held = held[1:]
				d.to.receive(d.addr, d.data)
				w.settle()
			}
			w.pass = nil
			w.talk(a, b)
			w.run(30 * time.Second)
			w.talk(a, b)
			if a.sentInit > 1 || b.sentInit > 1 {
				t.Errorf("%d and %d initiations, want one each", a.sentInit, b.sentInit)
			}
			before := a.sentInit + b.sentInit
			for range 40 { // while both send, one of them asks for the next session: spec/40-wireguard.md#rekey
				w.run(3 * time.Second)
				a.send(b, "on and on")
				b.send(a, "on and on")
				w.settle()
			}
			if n := a.sentInit + b.sentInit - before; n != 1 {
				t.Errorf("%d initiations after two minutes, want one", n)
			}
		})
	}
}

// spec/40-wireguard.md#rekey
func TestRekeyOnSend(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	for range 119 {
		w.run(time.Second)
		a.send(b, "x")
		b.send(a, "x")
	}
	if a.sentInit != 1 {
		t.Fatalf("a new handshake after 119 s")
	}
	w.run(time.Second)
	b.send(a, "x")
	if b.sentInit != 0 {
		t.Fatal("the responder rekeys")
	}
	a.send(b, "x")
	if a.sentInit != 2 || a.rekeys != 1 || b.rekeys != 1 {
		t.Fatalf("after 120 s: %d initiations, rekeyed %d and %d", a.sentInit, a.rekeys, b.rekeys)
	}
	if a.down+b.down != 0 {
		t.Error("SessionDown during a rekey")
	}
	w.talk(a, b)
}

// spec/40-wireguard.md#rekey
func TestRekeyOnReceive(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(164 * time.Second)
	b.send(a, "x")
	if a.sentInit != 1 {
		t.Fatal("the receiver rekeys before 165 s")
	}
	w.run(time.Second)
	b.send(a, "x")
	if a.sentInit != 2 {
		t.Fatal("no new handshake although data comes in on a session of 165 s")
	}
}

// spec/40-wireguard.md#limits
// spec/40-wireguard.md#erasure
// spec/40-wireguard.md#constants
func TestRejectAfter180s(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	ka, kb := a.peer(b).Sending(), b.peer(a).Sending()
	early := make([]byte, 64)
	if _, err := ka.Seal(a.nanosNow(), early, 16, 0); err != nil {
		t.Fatal(err)
	}
	w.run(179 * time.Second)
	if a.peer(b).Sending() != ka || a.down != 0 {
		t.Fatal("an idle session ends before 180 s")
	}
	w.now = w.now.Add(time.Second) // no Tick: the workers must see it themselves
	if _, err := ka.Seal(a.nanosNow(), make([]byte, 64), 16, 0); err != ErrExpired {
		t.Errorf("sealed after 180 s: %v", err)
	}
	if _, _, err := kb.Open(b.nanosNow(), early[:48]); err != ErrExpired {
		t.Errorf("opened after 180 s: %v", err)
	}
	w.run(0)
	for _, n := range w.nodes {
		if n.down != 1 || len(n.table) != 0 || len(n.pairs) != 0 {
			t.Errorf("%s: SessionDown %d times, %d keypairs left", n.name, n.down, len(n.table))
		}
		if next := n.Tick(w.now); !next.IsZero() {
			t.Errorf("%s: waits for something", n.name)
		}
	}
	b.send(a, "again") // now the responder of before must initiate
	w.expect(a, "again")
}

// spec/40-wireguard.md#limits
func TestExpiredKeypairOfAResponderIsReplaced(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.now = w.now.Add(181 * time.Second)
	b.send(a, "hello") // Seal fails before Tick has seen the expiry
	w.expect(a, "hello")
}

// spec/40-wireguard.md#limits
func TestMessageLimits(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	p, k := b.peer(a), b.peer(a).Sending() // a responder: age alone would not rekey
	k.counter.Store(RekeyAfterMessages)
	w.run(10 * time.Second)
	b.send(a, "x")
	if b.sentInit != 1 || b.rekeys != 1 {
		t.Fatal("no new session after 2^60 messages")
	}
	if p.Sending() == k {
		t.Fatal("still sends on the used-up keypair")
	}
	k = p.Sending()
	k.counter.Store(RejectAfterMessages - 1)
	if _, err := k.Seal(b.nanosNow(), make([]byte, 32), 0, 0); err != nil {
		t.Fatalf("the last message: %v", err)
	}
	for range 3 << 13 {
		if _, err := k.Seal(b.nanosNow(), make([]byte, 32), 0, 0); err != ErrExpired {
			t.Fatalf("beyond the last message: %v", err)
		}
	}
	if c := k.counter.Load(); c != RejectAfterMessages {
		t.Fatalf("refused messages moved the counter to %d", c)
	}
}

// spec/40-wireguard.md#retry
func TestRetriesUntilAnswered(t *testing.T) {
	w, a, b := pair(t)
	lost := 0
	w.pass = func(d *datagram) bool {
		if d.data[0] == typeResponse && lost < 3 {
			lost++
			return false
		}
		return true
	}
	a.send(b, "patience")
	for i := 1; i <= 3; i++ {
		if a.sentInit != i {
			t.Fatalf("%d initiations, want %d", a.sentInit, i)
		}
		a.Initiate(w.now, a.peer(b)) // impatience changes nothing
		sent := w.now
		for a.sentInit == i {
			w.run(time.Millisecond)
		}
		if d := w.now.Sub(sent); d < RekeyTimeout || d > RekeyTimeout+MaxJitter+time.Millisecond {
			t.Fatalf("repeated after %v", d)
		}
	}
	w.expect(b, "patience")
	if len(a.waiting) != 0 || len(a.table) != 1 {
		t.Errorf("%d initiations and %d keypairs are left over", len(a.waiting), len(a.table))
	}
}

// spec/40-wireguard.md#retry
func TestGivesUpAfter90s(t *testing.T) {
	w, a, b := pair(t)
	w.pass = func(*datagram) bool { return false }
	a.send(b, "nobody hears")
	w.run(89 * time.Second)
	if a.down != 0 {
		t.Fatal("gave up early")
	}
	w.run(7 * time.Second)
	if a.down != 1 || a.staged != nil {
		t.Fatalf("SessionDown %d times after 96 s, want once", a.down)
	}
	if a.sentInit < 16 || a.sentInit > 18 {
		t.Errorf("%d initiations in 90 s", a.sentInit)
	}
	if len(a.waiting) != 0 || !a.Tick(w.now).IsZero() {
		t.Error("something is left of the handshake")
	}
	w.pass = nil
	a.send(b, "again")
	w.expect(b, "again")
}

// spec/40-wireguard.md#retry
func TestAWishTooEarlyIsDeferred(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(2 * time.Second)
	a.Initiate(w.now, a.peer(b))
	w.settle()
	if a.sentInit != 1 {
		t.Fatal("two initiations within 5 s")
	}
	w.run(3 * time.Second)
	if a.sentInit != 2 || a.rekeys != 1 {
		t.Fatal("the wish was forgotten")
	}
}

// spec/40-wireguard.md#keepalive
func TestKeepaliveAnswersData(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(time.Minute)
	a.keepalive, b.keepalive = 0, 0
	a.send(b, "are you there?")
	w.run(9900 * time.Millisecond)
	if a.keepalive != 0 {
		t.Fatal("keepalive before 10 s")
	}
	w.run(200 * time.Millisecond)
	if a.keepalive != 1 {
		t.Fatal("no keepalive 10 s after data that nothing answered")
	}
	w.run(time.Minute)
	if a.keepalive != 1 || b.keepalive != 0 || a.sentInit != 1 {
		t.Errorf("an idle session is not silent: %d and %d keepalives, %d initiations", a.keepalive, b.keepalive, a.sentInit)
	}
	a.send(b, "q")
	b.send(a, "r")
	w.run(9 * time.Second)
	if a.keepalive != 1 {
		t.Error("a keepalive although data answered")
	}
}

// spec/40-wireguard.md#unanswered
func TestUnansweredDataStartsAHandshake(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(30 * time.Second)
	b.RemovePeer(a.public) // as if bob had restarted
	b.AddPeer(a.public, [32]byte{})
	w.settle()
	for range 14 {
		a.send(b, "lost")
		w.run(time.Second)
	}
	if a.sentInit != 1 {
		t.Fatal("a new handshake before 15 s")
	}
	w.run(time.Second + MaxJitter)
	if a.sentInit != 2 || a.rekeys != 1 {
		t.Fatal("no new handshake after 15 s of unanswered data")
	}
	w.talk(a, b)
}

// spec/40-wireguard.md#roaming
func TestFromFollowsThePeer(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	a.addr = netip.MustParseAddrPort("[2001:db8::7]:7")
	w.run(6 * time.Second)
	a.send(b, "from elsewhere")
	if got := b.froms[len(b.froms)-1]; got != a.addr {
		t.Fatalf("data from %v", got)
	}
	a.Initiate(w.now, a.peer(b))
	w.settle()
	if b.lastFrom != a.addr {
		t.Fatalf("SessionUp from %v, want %v", b.lastFrom, a.addr)
	}
}

// spec/40-wireguard.md#initiation-replay
func TestReplayedInitiation(t *testing.T) {
	w, a, b := pair(t)
	var first []byte
	w.pass = func(d *datagram) bool {
		if d.data[0] == typeInitiation && first == nil {
			first = append([]byte(nil), d.data...)
		}
		return true
	}
	w.connect(a, b)
	w.run(time.Second)
	if err := b.Handle(w.now, a.addr, first, false); err != ErrReplay {
		t.Fatalf("replayed: %v, want ErrReplay", err)
	}
	if f := b.Effects(); len(f) != 0 {
		t.Fatalf("a replay caused %v", f)
	}
	w.talk(a, b)
}

// spec/40-wireguard.md#initiation-replay
func TestInitiationFlood(t *testing.T) {
	w, a, b := pair(t)
	var got [][]byte
	for i := range 3 {
		m := w.capture(typeInitiation)
		if err := a.sendInitiation(w.now.Add(time.Duration(i)*time.Second), a.nanosNow(), a.peer(b)); err != nil {
			t.Fatal(err)
		}
		w.settle()
		got = append(got, *m)
	}
	if err := b.Handle(w.now, a.addr, got[0], false); err != nil {
		t.Fatal(err)
	}
	if err := b.Handle(w.now.Add(19*time.Millisecond), a.addr, got[1], false); err != ErrFlood {
		t.Fatalf("19 ms later: %v, want ErrFlood", err)
	}
	if err := b.Handle(w.now.Add(20*time.Millisecond), a.addr, got[2], false); err != nil {
		t.Fatalf("20 ms later: %v", err)
	}
}

// spec/40-wireguard.md#timestamps
func TestClockJumpsBack(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	w.run(time.Second)
	a.skew = -time.Hour
	a.Initiate(a.time(), a.peer(b))
	w.settle()
	if a.sentInit != 2 || a.rekeys != 1 {
		t.Fatalf("%d initiations, %d accepted, after the clock went back an hour", a.sentInit-1, a.rekeys)
	}
	a.RemovePeer(b.public)
	a.AddPeer(b.public, [32]byte{})
	w.now = w.now.Add(time.Minute)
	w.connect(a, b)
	w.talk(a, b)
}

// spec/40-wireguard.md#timestamps
func TestTimestamps(t *testing.T) {
	var last timestamp
	at := start
	for i := range 1000 {
		s := stampAfter(last, at)
		if !s.after(last) || s[11] != 0 || s[10] != 0 || s[9] != 0 {
			t.Fatalf("label %d: %x after %x", i, s, last)
		}
		if nanos := binary.BigEndian.Uint32(s[8:]); nanos >= 1e9 {
			t.Fatalf("label %d: %d ns", i, nanos)
		}
		last = s
		if i%3 == 0 {
			at = at.Add(time.Millisecond)
		}
	}
	if got := stampOf(time.Unix(1, 0x3abcdef0)); got != (timestamp{0x40, 0, 0, 0, 0, 0, 0, 0x0b, 0x3a}) {
		t.Errorf("label %x", got)
	}
	if got := stampOf(start).time(); start.Sub(got) < 0 || start.Sub(got) > stampStep || !(timestamp{}).time().IsZero() {
		t.Errorf("the label of %v says %v", start, got)
	}
	w, a, b := pair(t)
	a.send(b, "hello")
	w.run(time.Second)
	if got := b.peer(a).Said(); !got.Equal(stampOf(start).time()) {
		t.Errorf("b has heard that a's clock shows %v", got)
	}
}

// spec/40-wireguard.md#low-order
func TestLowOrderEphemeral(t *testing.T) {
	w, a, b := pair(t)
	got := w.capture(typeResponse)
	a.send(b, "in spite of all")
	genuine := *got
	w.pass = nil
	for _, point := range [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)} {
		forged := append([]byte(nil), genuine...)
		copy(forged[responseNoise:], point)
		if err := a.Handle(w.now, b.addr, remac(a, forged), false); err != ErrAuth {
			t.Fatalf("low-order ephemeral: %v, want ErrAuth", err)
		}
	}
	forged := append([]byte(nil), genuine...)
	forged[responseNoise+40] ^= 1
	if err := a.Handle(w.now, b.addr, remac(a, forged), false); err != ErrAuth {
		t.Fatalf("wrong tag: %v, want ErrAuth", err)
	}
	if err := a.Handle(w.now, b.addr, genuine, false); err != nil {
		t.Fatalf("the genuine response then failed: %v", err)
	}
	w.settle()
	w.expect(b, "in spite of all")

	init := w.capture(typeInitiation)
	w.run(6 * time.Second)
	a.Initiate(w.now, a.peer(b))
	w.settle()
	bad := append([]byte(nil), *init...)
	copy(bad[initiationNoise:], make([]byte, 32))
	if err := b.Handle(w.now, a.addr, remac(b, bad), false); err != ErrAuth {
		t.Fatalf("low-order ephemeral in an initiation: %v, want ErrAuth", err)
	}
	if err := b.Handle(w.now, a.addr, *init, false); err != nil {
		t.Fatalf("the genuine initiation then failed: %v", err)
	}
}

// spec/40-wireguard.md#low-order
func TestPeerWithALowOrderKeyIsGivenUp(t *testing.T) {
	w := newWorld(t, "alice")
	a := w.nodes[0]
	p := a.AddPeer([32]byte{}, [32]byte{})
	a.Initiate(w.now, p)
	w.settle()
	if a.down != 1 || a.sentInit != 0 || !a.Tick(w.now).IsZero() {
		t.Fatalf("SessionDown %d times, %d initiations", a.down, a.sentInit)
	}
}

// Under loss and reordering sessions come up and stay, and what arrives is what was sent.
// spec/40-wireguard.md#retry
func TestLossyNetwork(t *testing.T) {
	w, a, b := pair(t)
	dice := &dice{seed: "loss"}
	var late *datagram
	w.pass = func(d *datagram) bool {
		var r [1]byte
		dice.Read(r[:])
		switch {
		case r[0] < 80:
			return false
		case r[0] < 100 && late == nil:
			late = d
			return false
		}
		if l := late; l != nil && r[0] > 200 {
			late = nil
			l.to.receive(l.addr, l.data)
		}
		return true
	}
	got := 0
	for i := range 1200 {
		a.send(b, "to b")
		if i%2 == 0 {
			b.send(a, "to a")
		}
		w.run(time.Second)
	}
	got = len(a.inbox) + len(b.inbox)
	if got < 900 {
		t.Errorf("%d of 1800 packets arrived at 35 %% loss", got)
	}
	if a.rekeys < 5 {
		t.Errorf("rekeyed %d times in 20 minutes", a.rekeys)
	}
	if len(a.pairs) > 3 || len(b.pairs) > 3 || len(a.pairs) != len(a.table) || len(b.pairs) != len(b.table) {
		t.Errorf("keypairs: %d/%d and %d/%d", len(a.pairs), len(a.table), len(b.pairs), len(b.table))
	}
}
