package wireguard

import (
	"net/netip"
	"testing"
	"time"
)

// spec/40-wireguard.md#cookies
func TestCookieUnderLoad(t *testing.T) {
	w, a, b := pair(t)
	b.load = true
	a.send(b, "first")
	if len(b.errs) != 1 || b.errs[0] != ErrCookie || b.peer(a).Sending() != nil {
		t.Fatalf("a responder under load said %v, want ErrCookie", b.errs)
	}
	if len(a.errs) != 1 || a.errs[0] != nil {
		t.Fatalf("the initiator did not take the cookie: %v", a.errs)
	}
	w.run(6 * time.Second)
	w.expect(b, "first")
}

// spec/40-wireguard.md#cookies
func TestInitiatorUnderLoad(t *testing.T) {
	w, a, b := pair(t)
	a.load = true
	a.send(b, "first") // bob's response is answered with a cookie
	if a.peer(b).Sending() != nil {
		t.Fatal("an initiator under load took a response without mac2")
	}
	w.run(6 * time.Second)
	w.expect(b, "first")
}

// spec/40-wireguard.md#cookies
func TestCookieIsBoundToTheSource(t *testing.T) {
	for _, from := range []string{"192.0.2.99:51820", "192.0.2.1:51821", "[2001:db8::1]:51820"} {
		w, a, b := pair(t)
		b.load = true
		a.send(b, "first")
		a.addr = netip.MustParseAddrPort(from)
		w.run(6 * time.Second)
		if b.peer(a).Sending() != nil {
			t.Fatalf("the cookie also serves at %s", from)
		}
		a.send(b, "second") // the new address got a cookie of its own
		w.run(6 * time.Second)
		w.expect(b, "first", "second")
	}
}

// spec/40-wireguard.md#cookies
func TestCookieAges(t *testing.T) {
	w, a, b := pair(t)
	b.load = true
	a.send(b, "first")
	mac2 := func() bool {
		msg := make([]byte, InitiationLen)
		p := a.peer(b)
		p.jar.sign(a.nanosNow(), msg)
		_, _, m := macParts(msg)
		return mac(m) != mac{} && b.gate.validMAC2(b.nanosNow(), a.addr, msg)
	}
	w.now = w.now.Add(114 * time.Second)
	if !mac2() {
		t.Error("the cookie does not serve for 114 s")
	}
	w.now = w.now.Add(time.Second)
	if mac2() {
		t.Error("the cookie is sent after 115 s")
	}
	msg := make([]byte, InitiationLen)
	_, _, m2 := macParts(msg)
	c := b.gate.cookie(a.addr)
	m := macOf(c[:], msg[:len(msg)-macLen])
	copy(m2, m[:])
	if !b.gate.validMAC2(b.nanosNow(), a.addr, msg) {
		t.Error("the cookie is refused before 120 s")
	}
	w.now = w.now.Add(5 * time.Second)
	if b.gate.validMAC2(b.nanosNow(), a.addr, msg) {
		t.Error("the cookie is accepted after 120 s")
	}
}

// spec/40-wireguard.md#cookies
func TestForgedCookieReplies(t *testing.T) {
	w, a, b := pair(t)
	b.load = true
	reply := w.capture(typeCookieReply)
	a.send(b, "first")
	good := *reply
	for i := 8; i < CookieReplyLen; i += 5 {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if err := a.Handle(w.now, b.addr, bad, false); err != ErrAuth {
			t.Errorf("byte %d changed: %v, want ErrAuth", i, err)
		}
	}
	if err := a.Handle(w.now, b.addr, good, false); err != nil {
		t.Fatalf("genuine cookie reply: %v", err)
	}
	if err := a.Handle(w.now, b.addr, good, false); err == nil {
		t.Error("one cookie reply was taken twice")
	}
}

// spec/40-wireguard.md#rate
func TestRateUnderLoad(t *testing.T) {
	ns := start.UnixNano()
	for _, c := range []struct {
		name, one, other string
		shared           bool
	}{
		{"one IPv4 address", "192.0.2.1", "192.0.2.1", true},
		{"the same address mapped", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", false},
		{"two addresses of one /64", "2001:db8::1", "2001:db8::2", true},
		{"two /64", "2001:db8::1", "2001:db8:0:1::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l limiter
			one, other := netip.MustParseAddr(c.one), netip.MustParseAddr(c.other)
			for i := range 5 {
				if !l.allow(ns, one) {
					t.Fatalf("message %d of the burst refused", i)
				}
			}
			if l.allow(ns, one) {
				t.Fatal("burst of 6")
			}
			if l.allow(ns, other) == c.shared {
				t.Fatalf("shared budget: want %v", c.shared)
			}
			ok := 0
			for i := range 1000 {
				if l.allow(ns+int64(i)*int64(time.Millisecond), one) {
					ok++
				}
			}
			if ok < 19 || ok > 20 {
				t.Errorf("%d a second, want 20", ok)
			}
		})
	}
}

// spec/40-wireguard.md#rate
func TestRateTableIsCapped(t *testing.T) {
	var l limiter
	ns := start.UnixNano()
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range maxBuckets {
		if !l.allow(ns, addr) {
			t.Fatalf("source %d refused", i)
		}
		addr = addr.Next()
	}
	if l.allow(ns, addr) || len(l.buckets) != maxBuckets {
		t.Fatalf("%d sources known, cap %d", len(l.buckets), maxBuckets)
	}
	if !l.allow(ns+int64(time.Second), addr) || len(l.buckets) != 1 {
		t.Fatalf("idle sources were not dropped: %d", len(l.buckets))
	}
}

// spec/40-wireguard.md#rate
func TestRateIsAppliedUnderLoad(t *testing.T) {
	w, a, b := pair(t)
	b.load = true
	a.send(b, "first")
	var last error
	for range 10 {
		w.now = w.now.Add(FloodInterval)
		if err := a.sendInitiation(w.now, a.nanosNow(), a.peer(b)); err != nil {
			t.Fatal(err)
		}
		w.settle()
		last = b.errs[len(b.errs)-1]
	}
	if last != ErrLimited {
		t.Fatalf("10 initiations in 200 ms: %v, want ErrLimited", last)
	}
}
