package discover

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// full lets n use the DHT in clear.
func (n *node) full() {
	n.do(func(now time.Time) { n.e.SetMode(now, Mode{DHT: true, Peers: true, LAN: true, Port: n.addr.Port()}) })
	n.lan = false
}

// The DHT refuses items: a founder and a newcomer behind NATs meet under the infohash of the invite, and those who lost each other
// under that of the network. Who was not asked to shows nothing in clear.
//
// spec/70-discover.md#peers
func TestTheyMeetWhereItemsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.down = true // of items
	founder, guest, shy := w.node(), w.node(), w.node()
	founder.full()
	guest.full()
	shy.lan = false
	invite := Invite{key.JoinKey{7}, w.now}
	met := map[*node]Found{}
	for i, n := range []*node{founder, guest, shy} {
		n.onFind = func(f Found) { met[n] = f }
		n.do(func(now time.Time) { n.e.SetOwn(now, []netip.AddrPort{addrOf(i + 1)}, KindOther) })
	}
	founder.do(func(now time.Time) {
		founder.e.SetKey(now, Keys{Current: testKey(1)})
		founder.e.SetLinks(now, 0, 0)
		founder.e.SetInvites(now, []Invite{invite})
	})
	for _, n := range []*node{guest, shy} {
		n.do(func(now time.Time) { n.e.SetJoin(now, invite.Key) })
	}
	took := w.run(time.Minute, func() bool { return len(met) == 2 })
	t.Logf("both know of each other after %v", took)
	if took > 30*time.Second {
		t.Errorf("it took %v, want less than 30 s", took)
	}
	if f := met[founder]; f.Kind != KindNewcomer || f.Source != Peers || !slices.Equal(f.Addrs, []netip.AddrPort{addrOf(2)}) {
		t.Errorf("the founder found %+v", f)
	}
	if f := met[guest]; f.Kind != KindOther || f.ID != (key.ShortID{}) || !slices.Equal(f.Addrs, []netip.AddrPort{addrOf(1)}) {
		t.Errorf("the guest found %+v", f)
	}
	w.run(10*time.Minute, nil)
	if shy.meets > 0 || len(met) > 2 {
		t.Errorf("one that was not asked to announced or looked %d times, found %+v", shy.meets, met[shy])
	}

	clear(met)
	for i, n := range []*node{founder, guest} {
		n.do(func(now time.Time) {
			n.e.SetJoin(now, key.JoinKey{})
			n.e.SetInvites(now, nil)
			n.e.SetKey(now, Keys{Current: testKey(1)})
			n.e.SetLinks(now, 1, 1)
		})
		w.run(time.Second, nil)
		n.do(func(now time.Time) {
			n.e.SetLinks(now, 0, 1)
			n.e.SetOwn(now, []netip.AddrPort{addrOf(20 + i)}, KindOther) // both moved
		})
	}
	took = w.run(5*time.Minute, func() bool { return len(met) == 2 })
	t.Logf("two that lost each other know of each other after %v", took)
	if took > 90*time.Second {
		t.Errorf("it took %v, want less than 90 s", took)
	}
}

// A day of a healthy network: its publishers announce now and then, the others are silent.
// spec/70-discover.md#peers
func TestPublishersAloneAnnounce(t *testing.T) {
	w := newWorld(t)
	var all []*node
	for range 12 {
		n := w.node()
		n.full()
		all = append(all, n)
	}
	w.linked(Keys{Current: testKey(1)}, 5, all...)
	w.run(24*time.Hour, nil)
	busy := 0
	for i, n := range all {
		if n.meets > 0 {
			busy++
		}
		if i >= 5 && n.meets > 0 || n.meets > 24*60/22+20 {
			t.Errorf("node %d announced or looked %d times", i, n.meets)
		}
	}
	if busy < 4 {
		t.Errorf("%d announce, want the publishers", busy)
	}
}

// A holder of the secret announces a victim's address under many ports: few of them are tried, and seldom.
// spec/70-discover.md#peers
func TestACrowdIsNotAimedAtAVictim(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	n.full()
	n.do(func(now time.Time) {
		n.e.SetKey(now, Keys{Current: testKey(1)})
		n.e.SetLinks(now, 0, 3)
	})
	for port := range 1000 {
		w.crowd = append(w.crowd, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), uint16(1000+port)))
	}
	w.run(10*time.Minute, nil)
	if got := len(n.addrs(Peers)); got == 0 || got > maxHostHint*hintTries {
		t.Errorf("the victim is tried %d times in 10 minutes", got)
	}
}
