package discover

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// spec/70-discover.md#readers
func TestTheIsolatedFindTheAnchorsThroughTheDHT(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	var members []*node
	for range 8 {
		members = append(members, w.node())
	}
	w.linked(k, 6, members...)
	w.run(10*time.Minute, nil)

	lost := w.node()
	lost.lan = false
	lost.do(func(now time.Time) {
		lost.e.SetKey(now, k)
		lost.e.SetLinks(now, 0, 8)
	})
	took := w.run(time.Minute, lost.foundBy(DHT))
	if took > 3*time.Second || len(lost.addrs(DHT)) == 0 {
		t.Fatalf("found %v after %v, want anchors within 3 s", lost.found, took)
	}
	w.run(2*time.Second, nil)
	for _, f := range lost.found {
		if f.Source == DHT && (f.Kind != KindAnchor || f.Addrs[0] != addrOf(int(f.ID[1]))) {
			t.Errorf("found %+v", f)
		}
	}
	if n := len(lost.addrs(DHT)); n < 4 {
		t.Errorf("found %d addresses in four slots, want at least 4", n)
	}
}

// spec/70-discover.md#publishers
func TestAHealthyNodeThatDoesNotPublishIsSilentInTheDHT(t *testing.T) {
	w := newWorld(t)
	var members []*node
	for range 60 {
		n := w.node()
		n.lan = false
		members = append(members, n)
	}
	w.linked(Keys{Current: testKey(1)}, 40, members...)
	for _, n := range members {
		n.do(func(now time.Time) { n.e.SetInvites(now, []Invite{{key.JoinKey{5}, now.Add(-time.Hour)}}) })
	}
	w.run(2*time.Hour, nil)
	writers, writes := 0, 0
	for i, n := range members {
		chosen := false
		for _, f := range append([]*family{n.e.current}, n.e.invites[0].family) {
			for s := range slots {
				chosen = chosen || n.e.publishes(f.day(w.now), s)
			}
		}
		switch {
		case n.gets+n.puts > 0 && (!chosen || i >= 40):
			t.Errorf("node %d publishes nothing and sent %d gets, %d puts", i, n.gets, n.puts)
		case n.puts > 0:
			writers++
			writes += n.puts
		}
	}
	if writers < 8 || writers > 20 {
		t.Errorf("%d publishers, want up to 4 of each slot", writers)
	}
	if perHour := float64(writes) / 2 / 20; perHour < 1.2 || perHour > 4 {
		t.Errorf("each slot's publisher wrote %.1f times an hour, want about 2", perHour)
	}
	for target, it := range w.dht {
		if w.now.Sub(it.at) > 40*time.Minute {
			t.Errorf("slot %x is %v old", target, w.now.Sub(it.at))
		}
	}
}

// spec/70-discover.md#derivations
func TestNothingLinksSlotsAndDays(t *testing.T) {
	w := newWorld(t)
	a, b := w.node(), w.node()
	w.linked(Keys{Current: testKey(1)}, 2, a, b)
	a.do(func(now time.Time) { a.e.SetInvites(now, []Invite{{key.JoinKey{5}, now}}) })
	w.run(72*time.Hour, nil)
	targets := slices.Collect(maps.Keys(w.dht))
	if len(targets) < 15 { // (4 slots + 1) of 3 days, at least
		t.Fatalf("%d targets in three days", len(targets))
	}
	seen := map[string]bool{}
	for _, it := range w.log {
		for i := 0; i+16 <= len(it.value); i += 16 { // no block of any two values, written for the same content, is equal
			block := string(it.value[i : i+16])
			if seen[block] {
				t.Fatal("two values have 16 bytes in common")
			}
			seen[block] = true
		}
		if bytes.Contains(it.value, a.id[:]) {
			t.Error("a short id stands in clear")
		}
	}
	public := map[string]bool{}
	for _, f := range []*family{a.e.current, a.e.invites[0].family} {
		for d := range int64(3) {
			for s := range slots {
				sl := f.slot(f.day(epoch)+d, s)
				if public[string(sl.public)] || public[string(sl.seal[:])] {
					t.Error("two slots share a key")
				}
				public[string(sl.public)], public[string(sl.seal[:])] = true, true
			}
		}
	}
}

// Two machines behind NATs, no other member, no hint: the founder, and somebody with the code.
// spec/70-discover.md#waiting-to-be-found
func TestTwoNATsMeetInTheSlotOfTheInvite(t *testing.T) {
	w := newWorld(t)
	founder, guest := w.node(), w.node()
	founder.lan, guest.lan = false, false
	founder.do(func(now time.Time) {
		founder.e.SetKey(now, Keys{Current: testKey(1)})
		founder.e.SetLinks(now, 0, 0)
	})
	w.run(time.Hour, nil)
	if founder.gets+founder.puts+founder.said > 0 {
		t.Errorf("a founder alone, without an invite, sent %d gets, %d puts, %d beacons", founder.gets, founder.puts, founder.said)
	}
	invite := Invite{key.JoinKey{7}, w.now}
	founder.do(func(now time.Time) { founder.e.SetInvites(now, []Invite{invite}) })
	w.run(2*time.Second, nil) // the first answer of the DHT tells it the address
	founder.do(func(now time.Time) { founder.e.SetOwn(now, []netip.AddrPort{addrOf(1)}, KindOther) })
	w.run(30*time.Second, nil)

	met := map[*node]Found{}
	for _, n := range []*node{founder, guest} {
		n.onFind = func(f Found) { met[n] = f }
	}
	guest.do(func(now time.Time) { guest.e.SetJoin(now, invite.Key) })
	w.later(1600*time.Millisecond, func() {
		guest.do(func(now time.Time) { guest.e.SetOwn(now, []netip.AddrPort{addrOf(2)}, KindOther) })
	})
	took := w.run(time.Minute, func() bool { return len(met) == 2 })
	t.Logf("both know of each other after %v", took)
	if took > 9*time.Second {
		t.Errorf("it took %v, want less than 9 s", took)
	}
	if f := met[founder]; f.Kind != KindNewcomer || f.ID != guest.id || !slices.Equal(f.Addrs, []netip.AddrPort{addrOf(2)}) {
		t.Errorf("the founder found %+v", f)
	}
	if f := met[guest]; f.Kind != KindOther || f.ID != founder.id || !slices.Equal(f.Addrs, []netip.AddrPort{addrOf(1)}) {
		t.Errorf("the guest found %+v", f)
	}
	founder.gets = 0
	w.run(24*time.Hour, nil)
	if founder.gets > 500 {
		t.Errorf("an invite that nobody uses costs %d gets in a day", founder.gets)
	}
}

// The code is typed in the second in which it is made, whichever of the two is earlier by how little: both look, find nothing, and
// write. spec/70-discover.md#merging
func TestTwoNATsMeetThatWriteAtOnce(t *testing.T) {
	var all []time.Duration
	clashes := 0
	for i := range 40 {
		w := newWorld(t)
		w.start = epoch.Add(time.Duration(i) * time.Hour)
		w.now = w.start
		founder, guest := w.node(), w.node()
		founder.e.rand, guest.e.rand = rand.New(rand.NewPCG(uint64(i), 1)), rand.New(rand.NewPCG(uint64(i), 2))
		met := map[*node]bool{}
		for k, n := range []*node{founder, guest} {
			n.lan = false
			n.onFind = func(Found) { met[n] = true }
			w.later(1600*time.Millisecond, func() {
				n.do(func(now time.Time) { n.e.SetOwn(now, []netip.AddrPort{addrOf(k + 1)}, KindOther) })
			})
		}
		invite := Invite{key.JoinKey{7, byte(i)}, w.now}
		founder.do(func(now time.Time) {
			founder.e.SetKey(now, Keys{Current: testKey(1)})
			founder.e.SetLinks(now, 0, 0)
			founder.e.SetInvites(now, []Invite{invite})
		})
		w.run(time.Duration(i)*50*time.Millisecond, nil)
		guest.do(func(now time.Time) { guest.e.SetJoin(now, invite.Key) })
		took := w.run(time.Minute, func() bool { return len(met) == 2 })
		all = append(all, took)
		clashes += founder.clashes + guest.clashes
		if took > 9*time.Second {
			t.Errorf("with %d ms between: both knew of each other after %v, want 9 s at most", 50*i, took)
		}
	}
	slices.Sort(all)
	t.Logf("the median is %v, the longest %v, after %d clashes", all[len(all)/2], all[len(all)-1], clashes)
	if clashes == 0 {
		t.Error("nobody wrote at the same time: the test shows nothing")
	}
}

// Somebody with the code stores something newer whenever we write: we do not race him.
// spec/70-discover.md#merging
func TestAnEternallyFasterWriterIsNotRaced(t *testing.T) {
	w := newWorld(t)
	founder := w.node()
	founder.lan = false
	founder.do(func(now time.Time) {
		founder.e.SetOwn(now, []netip.AddrPort{addrOf(1)}, KindOther)
		founder.e.SetKey(now, Keys{Current: testKey(1)})
		founder.e.SetLinks(now, 0, 0)
		founder.e.SetInvites(now, []Invite{{key.JoinKey{7}, w.now}})
	})
	w.lie = func(target Target, _ item, _ bool) (item, bool) {
		w.dht[target] = item{w.dht[target].seq + 1e10, make([]byte, ValueSize), w.now}
		return item{}, false
	}
	w.run(time.Hour, nil)
	t.Logf("%d puts, %d clashes", founder.puts, founder.clashes)
	if founder.puts > 40 {
		t.Errorf("%d puts in an hour, of which another was always faster", founder.puts)
	}
}

func TestANewcomerWithAReachableAnchorHidesFirst(t *testing.T) {
	w := newWorld(t)
	a, b, guest := w.node(), w.node(), w.node()
	guest.lan = false
	w.linked(Keys{Current: testKey(1)}, 1, a, b)
	invite := Invite{key.JoinKey{7}, w.now}
	a.do(func(now time.Time) { a.e.SetInvites(now, []Invite{invite}) })
	b.do(func(now time.Time) { b.e.SetInvites(now, []Invite{invite}) })
	w.run(5*time.Second, nil)
	guest.do(func(now time.Time) {
		guest.e.SetOwn(now, []netip.AddrPort{addrOf(3)}, KindOther)
		guest.e.SetJoin(now, invite.Key)
	})
	if took := w.run(time.Minute, guest.foundBy(DHT)); took > 2*time.Second {
		t.Errorf("found the anchor after %v", took)
	}
	w.run(3*time.Second, nil)
	if guest.puts > 0 {
		t.Error("a newcomer wrote itself down though an anchor can be asked")
	}
	if b.puts > 0 {
		t.Error("a node that is no anchor published, though there is one")
	}
	w.run(10*time.Second, nil)
	if guest.puts == 0 {
		t.Error("the anchor did not help, and the newcomer still hides")
	}
	gets := guest.gets
	guest.do(func(now time.Time) { guest.e.SetJoin(now, key.JoinKey{}) })
	if w.run(time.Hour, nil); guest.gets != gets || !guest.next.IsZero() {
		t.Error("the join has ended and the DHT is still asked")
	}
}

// A network all of whose members are behind NATs loses one: it waits in a slot, and the publishers look.
// spec/70-discover.md#waiting-to-be-found
func TestTheIsolatedAreFoundInANetworkWithoutAnchors(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	a, b, lost := w.node(), w.node(), w.node()
	lost.lan = false
	w.linked(k, 0, a, b)
	w.run(10*time.Minute, nil)
	lost.do(func(now time.Time) {
		lost.e.SetKey(now, k)
		lost.e.SetLinks(now, 0, 2)
		lost.e.SetOwn(now, []netip.AddrPort{addrOf(9)}, KindOther)
	})
	took := w.run(time.Hour, func() bool {
		return slices.Contains(a.addrs(DHT), addrOf(9)) || slices.Contains(b.addrs(DHT), addrOf(9))
	})
	if took > 8*time.Minute {
		t.Errorf("found after %v", took)
	}
	gets := a.gets + b.gets
	if w.run(24*time.Hour, nil); !slices.Contains(a.addrs(DHT), addrOf(9)) || !slices.Contains(b.addrs(DHT), addrOf(9)) {
		t.Error("one of the two publishers never saw who waits")
	}
	if n := a.gets + b.gets - gets; n > 900 {
		t.Errorf("looking for who waits costs the two %d gets a day", n)
	}
	if !slices.Contains(lost.addrs(DHT), addrOf(1)) || !slices.Contains(lost.addrs(DHT), addrOf(2)) {
		t.Errorf("it found %v", lost.found)
	}
}

// spec/70-discover.md#discovery-key
func TestARemovedMemberFindsNobodyAfterTheRotation(t *testing.T) {
	w := newWorld(t)
	before := Keys{Current: testKey(1)}
	old := Invite{key.JoinKey{7}, w.now}
	var members []*node
	for range 5 {
		members = append(members, w.node())
	}
	w.linked(before, 2, members...)
	for _, n := range members {
		n.do(func(now time.Time) { n.e.SetInvites(now, []Invite{old}) })
	}
	w.run(time.Hour, nil)
	for _, n := range members {
		n.do(func(now time.Time) {
			n.e.SetKey(now, Keys{Current: testKey(2), Previous: testKey(1), Since: now})
		})
	}
	w.run(3*time.Hour, nil) // entries of before are too old now to name a live address
	removed, with := w.node(), w.node()
	removed.do(func(now time.Time) {
		removed.e.SetKey(now, before)
		removed.e.SetLinks(now, 0, 5)
		removed.e.SetOwn(now, []netip.AddrPort{addrOf(66)}, KindOther)
	})
	with.do(func(now time.Time) { with.e.SetJoin(now, old.Key) })
	stale := len(w.log)
	w.run(24*time.Hour, nil)
	if n := removed.addrs(LAN); len(n) > 0 {
		t.Errorf("beacons led the removed node to %v", n)
	}
	if n := with.addrs(LAN); len(n) > 0 {
		t.Errorf("beacons led the holder of an old code to %v", n)
	}
	mine := newFamily(testKey(1), false)
	lives := newFamily(old.Key, true)
	for _, n := range members {
		for _, f := range []*family{mine, lives} {
			for d := f.day(epoch) + 1; d <= f.day(w.now); d++ {
				for s := range slots {
					if n.keys[f.slot(d, s).target] {
						t.Error("a member publishes under a key that the removed node has")
					}
				}
			}
		}
	}
	if len(w.log) == stale {
		t.Error("nobody publishes under the new key")
	}
}

// The same for one that was away: it asks under the old key and is found by those who look there.
func TestWhoMissedTheRotationIsCalled(t *testing.T) {
	for _, onLAN := range []bool{true, false} {
		w := newWorld(t)
		a, b, away := w.node(), w.node(), w.node()
		away.lan = onLAN
		w.linked(Keys{Current: testKey(2), Previous: testKey(1), Since: w.now}, 2, a, b)
		w.run(10*time.Minute, nil)
		away.do(func(now time.Time) {
			away.e.SetKey(now, Keys{Current: testKey(1)})
			away.e.SetLinks(now, 0, 2)
			away.e.SetOwn(now, []netip.AddrPort{addrOf(9)}, KindOther)
		})
		limit, source, want := 45*time.Minute, DHT, addrOf(9)
		if onLAN {
			limit, source, want = time.Second, LAN, away.addr
		}
		if took := w.run(limit, func() bool {
			return slices.Contains(a.addrs(source), want) || slices.Contains(b.addrs(source), want)
		}); took >= limit {
			t.Errorf("lan %v: not found in %v", onLAN, took)
		}
		if len(away.found) > 0 {
			t.Errorf("lan %v: members answered under the old key: %v", onLAN, away.found)
		}
	}
}

// spec/70-discover.md#readers
func TestReadersBackOffAndRest(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	w.down = true
	n.do(func(now time.Time) {
		n.e.SetKey(now, Keys{Current: testKey(1)})
		n.e.SetLinks(now, 0, 3)
	})
	if w.run(900*time.Millisecond, nil); n.gets > 0 {
		t.Error("asked the DHT before the LAN had a second")
	}
	if w.run(time.Minute, nil); n.gets < 12 || n.gets > 24 {
		t.Errorf("%d gets in the first minute, want 4 slots 3 to 6 times", n.gets)
	}
	n.gets = 0
	if w.run(24*time.Hour, nil); n.gets > 4*24*20+4*4*24*2 {
		t.Errorf("%d gets in a day", n.gets)
	}
	n.do(func(now time.Time) { n.e.SetLinks(now, 1, 3) })
	w.run(time.Minute, nil)
	n.do(func(now time.Time) { n.e.SetMap(now, []Node{{ID: shortID(90), Anchor: true}}) })
	n.gets = 0
	if w.run(3*time.Hour, nil); n.gets > 0 {
		t.Errorf("%d gets while there is a link", n.gets)
	}
	n.do(func(now time.Time) { n.e.SetLinks(now, 0, 3) })
	if w.run(29*time.Second, nil); n.gets > 0 {
		t.Error("asked as soon as the last link went")
	}
	if w.run(2*time.Second, nil); n.gets != 4 {
		t.Errorf("%d gets 30 s after the last link went, want 4", n.gets)
	}
	n.do(func(now time.Time) { n.e.SetMode(now, Mode{LAN: true, Port: 1}) })
	n.gets = 0
	if w.run(time.Hour, nil); n.gets > 0 {
		t.Error("asked the DHT though it is switched off")
	}
}

func TestTheDayChanges(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	a, b := w.node(), w.node()
	w.linked(k, 2, a, b)
	f := newFamily(k.Current, false)
	midnight := f.begin(f.day(w.now) + 1)
	w.run(midnight.Sub(w.now)-time.Second, nil)
	for _, s := range []time.Duration{-90 * time.Minute, -time.Hour, 0, time.Hour} { // clocks that are wrong
		lost := w.nodeWith(s)
		lost.lan = false
		lost.do(func(now time.Time) {
			lost.e.SetKey(now, k)
			lost.e.SetLinks(now, 0, 2)
		})
		if took := w.run(5*time.Second, lost.foundBy(DHT)); took > 2*time.Second {
			t.Errorf("a clock wrong by %v: found after %v", s, took)
		}
	}
	far := w.nodeWith(24 * time.Hour)
	far.lan = false
	far.do(func(now time.Time) {
		far.e.SetMode(now, Mode{DHT: true, ClockSuspect: true})
		far.e.SetKey(now, k)
		far.e.SetLinks(now, 0, 2)
	})
	if w.run(5*time.Second, nil); len(far.addrs(DHT)) == 0 {
		t.Error("a clock that is suspected and a day ahead: nothing found")
	}
}

func TestAChangeOfAddressIsPublishedAMinuteLater(t *testing.T) {
	w := newWorld(t)
	a, b := w.node(), w.node()
	w.linked(Keys{Current: testKey(1)}, 2, a, b)
	w.run(5*time.Minute, nil)
	puts := a.puts
	for range 5 { // it flaps
		for i := range 3 {
			a.do(func(now time.Time) { a.e.SetOwn(now, []netip.AddrPort{addrOf(20 + i)}, KindAnchor) })
		}
		if w.run(10*time.Second, nil); a.puts != puts {
			t.Fatal("published before the address had settled")
		}
	}
	if w.run(90*time.Second, nil); a.puts < puts+4 || a.puts > puts+8 {
		t.Errorf("%d puts for a change, want each of the 4 slots written once or twice", a.puts-puts)
	}
}

func TestPublishersMergeWithOthers(t *testing.T) {
	w := newWorld(t)
	k := Keys{Current: testKey(1)}
	var members []*node
	for range 4 {
		members = append(members, w.node())
	}
	w.linked(k, 4, members...)
	for _, n := range members { // nobody's map has addresses: each knows only its own
		n.do(func(now time.Time) {
			var ns []Node
			for _, m := range members {
				ns = append(ns, Node{ID: m.id, Anchor: true})
			}
			n.e.SetMap(now, ns)
		})
	}
	w.run(40*time.Minute, nil)
	f := members[0].e.current
	for i := range slots {
		s := f.slot(f.day(w.now), i)
		got, err := s.decode(w.dht[s.target].value)
		if err != nil || len(got) != 4 {
			t.Errorf("slot %d holds %v, %v: want the addresses of all 4", i, got, err)
		}
	}
	gone := members[3]
	gone.do(func(now time.Time) { gone.e.SetMode(now, Mode{}) })
	w.run(4*time.Hour, nil)
	s := f.slot(f.day(w.now), 0)
	if got, _ := s.decode(w.dht[s.target].value); len(got) != 3 {
		t.Errorf("4 h after it went the slot holds %v", got)
	}
}

// Who has members but no session still helps those with its codes, the new ones at once.
func TestInvitesOfTheIsolated(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	n.lan = false
	n.do(func(now time.Time) {
		n.e.SetKey(now, Keys{Current: testKey(1)})
		n.e.SetLinks(now, 2, 2)
		n.e.SetMap(now, []Node{{ID: shortID(90), Anchor: true}})
		n.e.SetOwn(now, []netip.AddrPort{addrOf(1)}, KindOther)
		n.e.SetInvites(now, []Invite{{key.JoinKey{7}, now}, {key.JoinKey{8}, now.Add(-3 * time.Hour)}})
	})
	slot := func(k key.JoinKey) Target { f := newFamily(k, true); return f.slot(f.day(w.now), joinSlot).target }
	if w.run(time.Minute, nil); n.puts > 0 {
		t.Error("published though there is an anchor")
	}
	n.do(func(now time.Time) { n.e.SetLinks(now, 0, 2) })
	if w.run(20*time.Second, nil); !n.keys[slot(key.JoinKey{7})] == (n.puts > 0) || n.keys[slot(key.JoinKey{8})] {
		t.Errorf("after 20 s: %d puts", n.puts)
	}
	if w.run(2*time.Minute, nil); !n.keys[slot(key.JoinKey{7})] || !n.keys[slot(key.JoinKey{8})] {
		t.Errorf("2 min after the last session the slots of the invites are not both written: %d puts", n.puts)
	}
	n.do(func(now time.Time) {
		n.e.SetLinks(now, 2, 2)
		var many []Invite
		for i := range 100 {
			many = append(many, Invite{key.JoinKey{9, byte(i)}, now.Add(-time.Duration(i) * time.Minute)})
		}
		n.e.SetInvites(now, many)
	})
	if len(n.e.invites) != maxInvites || n.e.invites[0].root != (key.JoinKey{9, 0}) || len(n.groups) != 2*(maxInvites+1) {
		t.Errorf("%d invites, %d groups", len(n.e.invites), len(n.groups))
	}
}
