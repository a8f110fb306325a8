package discover

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// spec/70-discover.md#what-a-storing-node-can-do
func TestAHostileStorerDoesNoHarm(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	a, b := w.node(), w.node()
	w.linked(k, 2, a, b)
	w.run(time.Hour, nil)
	first := map[Target]item{}
	for target, it := range w.dht {
		first[target] = it
	}
	garbage := make([]byte, ValueSize)
	seeded(77).Read(garbage)
	answers := []func(target Target, it item, ok bool) (item, bool){
		func(_ Target, it item, _ bool) (item, bool) { return item{seq: it.seq, value: garbage}, true },
		func(_ Target, it item, _ bool) (item, bool) { return item{seq: it.seq, value: []byte{}}, true },
		func(_ Target, it item, _ bool) (item, bool) { return item{seq: it.seq, value: garbage[:899]}, true },
		func(_ Target, it item, _ bool) (item, bool) { return item{seq: -5, value: garbage}, true },
		func(target Target, _ item, _ bool) (item, bool) { return first[target], true },
		func(Target, item, bool) (item, bool) { return item{}, false },
		func(_ Target, it item, _ bool) (item, bool) { // another slot's value
			for _, o := range w.dht {
				return item{seq: it.seq, value: o.value}, true
			}
			return it, true
		},
	}
	turn := 0
	w.lie = func(target Target, it item, ok bool) (item, bool) {
		turn++
		return answers[turn%len(answers)](target, it, ok)
	}
	gets, puts := a.gets+b.gets, a.puts+b.puts
	w.run(12*time.Hour, nil)
	if g, p := a.gets+b.gets-gets, a.puts+b.puts-puts; g > 600 || p > 600 {
		t.Errorf("%d gets, %d puts in 12 h among liars", g, p)
	}
	w.lie = nil
	w.run(time.Hour, nil)
	lost := w.node()
	lost.lan = false
	lost.do(func(now time.Time) {
		lost.e.SetKey(now, k)
		lost.e.SetLinks(now, 0, 2)
	})
	if w.run(10*time.Second, nil); len(lost.addrs(DHT)) < 2 {
		t.Errorf("when the liars are gone only %v is found", lost.found)
	}
	for _, f := range lost.found {
		if !slices.Contains([]netip.AddrPort{addrOf(1), addrOf(2)}, f.Addrs[0]) {
			t.Errorf("found %v, which nobody stated", f)
		}
	}
}

// A holder of the key takes the highest sequence number. spec/70-discover.md#merging
func TestASlotThatIsLockedIsLeftForThatDay(t *testing.T) {
	w := newWorld(t)
	a, b := w.node(), w.node()
	w.linked(Keys{Current: testKey(1)}, 2, a, b)
	w.run(10*time.Minute, nil)
	f := a.e.current
	s := f.slot(f.day(w.now), 2)
	w.dht[s.target] = item{seq: math.MaxInt64, value: s.encode([24]byte{1}, nil), at: w.now}
	near := f.slot(f.day(w.now), 1)
	w.dht[near.target] = item{seq: math.MaxInt64 - 9, value: near.encode([24]byte{1}, nil), at: w.now}
	w.run(6*time.Hour, nil)
	if w.dht[s.target].seq != math.MaxInt64 || a.gets+b.gets > 200 {
		t.Errorf("%d gets in 6 h", a.gets+b.gets)
	}
	if it := w.dht[near.target]; it.seq < 0 || it.seq <= math.MaxInt64-9 {
		t.Errorf("the sequence number went to %d", it.seq)
	}
	w.run(24*time.Hour, nil)
	if it, ok := w.dht[f.slot(f.day(w.now), 2).target]; !ok || w.now.Sub(it.at) > time.Hour {
		t.Error("the next day's slot is not written")
	}
}

// spec/70-discover.md#hints
func TestAnInsiderCannotAimNodesAtAVictim(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	n := w.node()
	n.lan = false
	f := newFamily(k.Current, false)
	victim := netip.MustParseAddr("203.0.113.9")
	w.lie = func(target Target, _ item, _ bool) (item, bool) {
		for i := range slots {
			s := f.slot(f.day(w.now), i)
			if s.target != target {
				continue
			}
			var es []entry
			for range maxEntries {
				es = append(es, entry{shortID(w.rng.IntN(60000)), KindAnchor, s.stamp(w.now), netip.AddrPortFrom(victim, uint16(1+w.rng.IntN(60000)))})
			}
			return item{seq: w.now.Unix(), value: s.encode([24]byte{byte(w.rng.Int())}, es)}, true
		}
		return item{}, false
	}
	n.do(func(now time.Time) {
		n.e.SetKey(now, k)
		n.e.SetLinks(now, 0, 9)
	})
	w.run(9*time.Minute, nil)
	if got := len(n.addrs(DHT)); got > maxHostHint*hintTries {
		t.Errorf("told %d addresses of one host in 9 min", got)
	}
	w.run(24*time.Hour, nil)
	if got := len(n.addrs(DHT)); got > 24*6*maxHostHint*hintTries || len(n.e.hints.addrs) > maxHints {
		t.Errorf("told %d addresses of one host in a day", got)
	}
	var h hints
	h.forget()
	for i := range 100_000 {
		h.allow(epoch, netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 1))
	}
	if len(h.addrs) != maxHints || len(h.hosts) > maxHints {
		t.Errorf("%d hints, %d hosts held", len(h.addrs), len(h.hosts))
	}
	h.allow(epoch.Add(hintWindow), netip.MustParseAddrPort("12.0.0.1:1"))
	if len(h.addrs) != 1 || len(h.hosts) != 1 {
		t.Errorf("%d hints, %d hosts held when all are old", len(h.addrs), len(h.hosts))
	}
}

// spec/70-discover.md#value
func TestOnlyAddressesThatMeanOneHostAreWrittenAndRead(t *testing.T) {
	bad := []string{"10.1.2.3:9", "127.0.0.1:9", "169.254.1.1:9", "100.64.3.4:9", "[fd00::1]:9", "[fe80::1]:9", "224.0.0.5:9", "255.255.255.255:9",
		"240.0.0.1:9", "[::1]:9", "[ff02::1]:9", "0.0.0.0:9"}
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	a, lost := w.node(), w.node()
	lost.lan = false
	w.linked(k, 1, a)
	a.do(func(now time.Time) {
		a.e.SetLinks(now, 1, 1)
		var own []netip.AddrPort
		for _, s := range bad {
			own = append(own, netip.MustParseAddrPort(s))
		}
		a.e.SetOwn(now, append(own, netip.MustParseAddrPort("[::ffff:198.51.100.1]:5"), netip.MustParseAddrPort("[2001:db8::7]:5")), KindAnchor)
	})
	w.run(10*time.Minute, nil)
	s := a.e.current.slot(a.e.current.day(w.now), 0)
	got, err := s.decode(w.dht[s.target].value)
	if err != nil || len(got) != 2 || got[0].addr.String() != "198.51.100.1:5" || got[1].addr.String() != "[2001:db8::7]:5" {
		t.Errorf("written: %v, %v", got, err)
	}
	var es []entry
	for i, b := range bad[:len(bad)-1] {
		es = append(es, entry{shortID(100 + i), KindAnchor, s.stamp(w.now), netip.MustParseAddrPort(b)})
	}
	es = append(es, entry{shortID(200), KindNewcomer, s.stamp(w.now), addrOf(77)}, entry{lost.id, KindAnchor, s.stamp(w.now), addrOf(78)})
	w.lie = func(Target, item, bool) (item, bool) {
		return item{w.now.Unix(), s.encode([24]byte{}, es), w.now}, true
	}
	lost.do(func(now time.Time) {
		lost.e.SetKey(now, k)
		lost.e.SetLinks(now, 0, 2)
	})
	if w.run(time.Minute, nil); len(lost.found) > 0 {
		t.Errorf("handed on %v", lost.found)
	}
}

// spec/70-discover.md#merging
func TestEntriesThatAreOldAreNotPassedOn(t *testing.T) {
	w := newWorld(t)
	a := w.node()
	w.linked(Keys{Current: testKey(1)}, 1, a)
	f := a.e.current
	w.run(f.begin(f.day(w.now)+1).Add(12*time.Hour).Sub(w.now), nil)
	a.do(func(now time.Time) { a.e.SetLinks(now, 1, 1) })
	s := f.slot(f.day(w.now), 0)
	st := s.stamp(w.now)
	for i, c := range []struct {
		stamp uint8
		want  bool
	}{{st, true}, {st - 5, true}, {st - 6, false}, {0, false}, {st + 1, true}, {st + 2, false}, {maxStamp, false}} {
		j := &job{slot: s, got: []entry{{shortID(50), KindOther, c.stamp, addrOf(50)}}}
		got := a.e.merge(w.now, j)
		if passed := len(got) == 2; passed != c.want || got[0].id != a.id {
			t.Errorf("case %d: stamp %d at %d: %v", i, c.stamp, st, got)
		}
	}
	var many []entry
	for i := range 100 {
		many = append(many, entry{shortID(1000 + i/10), KindAnchor, st, addrOf(300 + i)})
	}
	if got := a.e.merge(w.now, &job{slot: s, got: many}); len(got) != maxEntries || got[0].id != a.id {
		t.Errorf("%d entries, the first of %v", len(got), got[0].id)
	}
}

func TestAnswersNobodyAskedForChangeNothing(t *testing.T) {
	e := New(Config{Self: shortID(1), Rand: seeded(1)})
	e.HandleItem(epoch, Target{1}, 1, []byte("x"), nil)
	e.HandleStored(epoch, Target{1}, 1, nil)
	e.HandleBeacon(epoch, addrOf(1), "eth0", make([]byte, BeaconSize))
	if next := e.Tick(epoch); !next.IsZero() || len(e.Effects()) > 0 {
		t.Error("an engine without mode and key acts")
	}
	e.SetMode(epoch, Mode{DHT: true})
	e.SetKey(epoch, Keys{Current: testKey(1)})
	e.SetLinks(epoch, 0, 1)
	now := epoch.Add(time.Second)
	e.Tick(now)
	get := e.Effects()[0].(Get)
	e.HandleItem(now, get.Target, 1, nil, errors.New("x"))
	e.HandleItem(now, get.Target, 9, []byte("twice"), nil)
	e.HandleStored(now, get.Target, 1, nil)
	if e.Tick(now); len(e.Effects()) > 0 {
		t.Error("a second answer has effects")
	}
}

// An owner that never answers, and one that has no randomness: nothing goes wild, nothing unsealed goes out.
func TestOwnersThatFail(t *testing.T) {
	e := New(Config{Self: shortID(1), Rand: seeded(1)})
	e.SetMode(epoch, Mode{DHT: true, LAN: true, Port: 5})
	e.SetKey(epoch, Keys{Current: testKey(1)})
	e.SetLinks(epoch, 0, 1)
	e.SetOwn(epoch, []netip.AddrPort{addrOf(1)}, KindOther)
	now, gets := epoch, 0
	for now.Before(epoch.Add(24 * time.Hour)) {
		next := e.Tick(now)
		for _, f := range e.Effects() {
			if _, ok := f.(Get); ok {
				gets++
			}
		}
		if !next.After(now) {
			t.Fatal("no rest")
		}
		now = next
	}
	if gets > 4*24*20 {
		t.Errorf("%d gets in a day that nobody answers", gets)
	}
	mute := New(Config{Self: shortID(1), Rand: noRand{}})
	mute.SetMode(epoch, Mode{DHT: true, LAN: true, Port: 5})
	mute.SetJoin(epoch, key.JoinKey{1})
	mute.SetOwn(epoch, []netip.AddrPort{addrOf(1)}, KindOther)
	for range 20 {
		now = now.Add(10 * time.Second)
		mute.Tick(now)
		for _, f := range mute.Effects() {
			switch f := f.(type) {
			case Put, SendBeacon:
				t.Fatalf("sent %T without randomness", f)
			case Get:
				mute.HandleItem(now, f.Target, 0, nil, nil)
			}
		}
	}
}

type noRand struct{}

func (noRand) Read([]byte) (int, error) { return 0, errors.New("no randomness") }

// The DHT is gone for a day, then it is back. spec/70-discover.md#publishers
func TestPublishersBearADHTThatIsDown(t *testing.T) {
	w := newWorld(t)
	a, b := w.node(), w.node()
	w.linked(Keys{Current: testKey(1)}, 0, a, b)
	a.do(func(now time.Time) { a.e.SetInvites(now, []Invite{{key.JoinKey{7}, now}}) })
	w.down = true
	w.run(24*time.Hour, nil)
	if a.gets+b.gets > 1500 || a.puts+b.puts > 0 {
		t.Errorf("%d gets, %d puts in a day without answers", a.gets+b.gets, a.puts+b.puts)
	}
	w.down = false
	w.run(40*time.Minute, nil)
	if len(w.dht) < 5 {
		t.Errorf("%d slots are written 40 min after it is back", len(w.dht))
	}
	w.down = true // between a get and its put
	a.do(func(now time.Time) { a.e.SetOwn(now, []netip.AddrPort{addrOf(40)}, KindOther) })
	w.run(2*time.Hour, nil)
	w.down = false
	w.run(40*time.Minute, nil)
	f := a.e.current
	s := f.slot(f.day(w.now), 0)
	got, err := s.decode(w.dht[s.target].value)
	if err != nil || !slices.ContainsFunc(got, func(o entry) bool { return o.addr == addrOf(40) }) {
		t.Errorf("the new address is not there: %v, %v", got, err)
	}
}
