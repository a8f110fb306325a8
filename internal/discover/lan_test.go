package discover

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// spec/70-discover.md#beacons
func TestMembersFindEachOtherOnTheLAN(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	var members []*node
	for range 5 {
		n := w.node()
		members = append(members, n)
		n.do(func(now time.Time) {
			n.e.SetMode(now, Mode{LAN: true, Port: 51820})
			n.e.SetKey(now, k)
			n.e.SetLinks(now, 0, 4)
		})
	}
	w.run(time.Second, nil)
	for _, n := range members {
		for _, m := range members {
			if n != m && !slices.Contains(n.addrs(LAN), m.addr) {
				t.Errorf("%v did not find %v in a second: %v", n.addr, m.addr, n.found)
			}
		}
	}
	w.linked(k, 0, members...)
	w.run(time.Minute, nil)
	said := members[0].said
	w.run(24*time.Hour, nil)
	if n := members[0].said - said; n > 2*24*15+10 || n < 2*24*10 {
		t.Errorf("a healthy node sent %d beacons in a day, want some 12 an hour to 2 groups", n)
	}
	if members[0].gets > 0 {
		t.Error("asked the DHT, which is off")
	}
}

// spec/70-discover.md#beacons
func TestANewcomerIsAnsweredOnTheLAN(t *testing.T) {
	w := newWorld(t)
	a, b, guest, stranger := w.node(), w.node(), w.node(), w.node()
	w.linked(Keys{Current: testKey(1)}, 0, a, b)
	invite := Invite{key.JoinKey{7}, w.now}
	a.do(func(now time.Time) { a.e.SetInvites(now, []Invite{invite}) })
	w.run(10*time.Second, nil)
	found := len(a.found)
	a.answers, b.answers = 0, 0
	guest.do(func(now time.Time) { guest.e.SetJoin(now, invite.Key) })
	stranger.do(func(now time.Time) { stranger.e.SetJoin(now, key.JoinKey{8}) })
	if took := w.run(time.Second, guest.foundBy(LAN)); took > 10*time.Millisecond {
		t.Errorf("found after %v", took)
	}
	w.run(time.Minute, nil)
	if f := guest.found[0]; f.ID != a.id || !slices.Equal(f.Addrs, []netip.AddrPort{a.addr}) {
		t.Errorf("found %+v", f)
	}
	if len(a.found) != found || a.answers > 10 || b.answers > 0 {
		t.Errorf("members: found %v, %d and %d answers", a.found, a.answers, b.answers)
	}
	if len(stranger.addrs(LAN)) > 0 || guest.gets == 0 {
		t.Errorf("a stranger found %v; the guest asked the DHT %d times", stranger.found, guest.gets)
	}
	if len(guest.groups) > 0 {
		t.Error("a newcomer listens, though answers come by unicast")
	}
}

// spec/70-discover.md#beacon
func TestBeaconsThatAreNotForUsGetNoWord(t *testing.T) {
	now := epoch
	e := New(Config{Self: shortID(1), Rand: seeded(1)})
	e.SetMode(now, Mode{LAN: true, Port: 51820})
	e.SetKey(now, Keys{Current: testKey(1)})
	e.SetLinks(now, 1, 3)
	e.Tick(now)
	e.Effects()
	k, other := e.current.beacon, newFamily(testKey(2), false).beacon
	from := netip.MustParseAddrPort("192.168.1.9:40000")
	nonce := [24]byte{1}
	good := beacon{kind: question, port: 7, id: shortID(2)}
	cases := map[string][]byte{
		"empty":          {},
		"short":          good.encode(k, nonce)[:63],
		"long":           append(good.encode(k, nonce), 0),
		"other key":      good.encode(other, nonce),
		"port 0":         beacon{kind: question, id: shortID(2)}.encode(k, nonce),
		"unknown kind":   beacon{kind: 3, port: 7, id: shortID(2)}.encode(k, nonce),
		"echo":           beacon{kind: question, port: 7, id: shortID(2), echo: token{1}}.encode(k, nonce),
		"our own":        beacon{kind: question, port: 7, id: shortID(1)}.encode(k, nonce),
		"answer unasked": beacon{kind: answer, port: 7, id: shortID(2), echo: token{1}}.encode(k, nonce),
	}
	for name, data := range cases {
		e.HandleBeacon(now, from, "eth0", data)
		if fx := e.Effects(); len(fx) > 0 {
			t.Errorf("%s: %v", name, fx)
		}
	}
	data := good.encode(k, [24]byte{2})
	e.HandleBeacon(now, from, "eth0", data)
	fx := e.Effects()
	if len(fx) != 2 || fx[0].(Found).Addrs[0].String() != "192.168.1.9:7" || fx[1].(SendBeacon).To != from || fx[1].(SendBeacon).Interface != "eth0" {
		t.Fatalf("a good question: %v", fx)
	}
	for range 3 {
		now = now.Add(time.Minute)
		e.HandleBeacon(now, from, "eth0", data)
		if fx := e.Effects(); len(fx) > 0 {
			t.Errorf("replayed: %v", fx)
		}
	}
	six := netip.MustParseAddrPort("[fe80::9]:40000")
	e.HandleBeacon(now, six, "eth7", beacon{kind: statement, port: 7, id: shortID(2)}.encode(k, [24]byte{3}))
	if fx := e.Effects(); len(fx) != 1 || fx[0].(Found).Addrs[0].String() != "[fe80::9%eth7]:7" {
		t.Errorf("link-local: %v", fx)
	}
}

// A flood from a member costs a bounded number of answers, and a crowd shares the work.
func TestFloodsAndCrowdsOnTheLAN(t *testing.T) {
	now := epoch
	e := New(Config{Self: shortID(1), Rand: seeded(1)})
	e.SetMode(now, Mode{LAN: true, Port: 51820})
	e.SetKey(now, Keys{Current: testKey(1)})
	e.SetLinks(now, 1, 3)
	e.Tick(now)
	e.Effects()
	flood := func(ids int) (answers, found int) {
		for i := range 10_000 {
			now = now.Add(time.Millisecond)
			var nonce [24]byte
			seeded(i + ids).Read(nonce[:])
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 40000)
			e.HandleBeacon(now, from, "eth0", beacon{kind: question, port: 7, id: shortID(1000 + i%ids)}.encode(e.current.beacon, nonce))
			for _, f := range e.Effects() {
				switch f.(type) {
				case SendBeacon:
					answers++
				case Found:
					found++
				}
			}
		}
		return answers, found
	}
	answers, found := flood(10)
	if answers > 2*answerRate+10*answerRate || answers == 0 || found > maxHints {
		t.Errorf("%d answers, %d found in 10 s of flood", answers, found)
	}
	if len(e.lan.answered) > maxAnswered || len(e.lan.heard) > maxHeard || len(e.lan.replays.tokens) > maxReplays {
		t.Error("tables grow")
	}
	if crowded, _ := flood(3000); crowded >= answers {
		t.Errorf("%d answers in a crowd, %d among few", crowded, answers)
	}
}

func TestTheNetworkChangesAndAllIsAskedAnew(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	w.down = true
	n.do(func(now time.Time) {
		n.e.SetKey(now, Keys{Current: testKey(1)})
		n.e.SetLinks(now, 0, 3)
	})
	w.run(3*time.Hour, nil)
	n.gets, n.said = 0, 0
	n.do(func(now time.Time) { n.e.NetworkChanged(now) })
	if w.run(4*time.Second, nil); n.said < 6 || n.gets < 4 {
		t.Errorf("%d beacons and %d gets in 4 s after a change", n.said, n.gets)
	}
	n.do(func(now time.Time) { n.e.SetMode(now, Mode{}) })
	if n.said = 0; len(n.groups) > 0 {
		t.Error("listens though the LAN is off")
	}
	if w.run(time.Hour, nil); n.said > 0 {
		t.Error("beacons though the LAN is off")
	}
}
