package path

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// TestUnusedMembers: of a large network most members are never talked to. They cost little memory and no time, and are there
// when they are needed.
func TestUnusedMembers(t *testing.T) {
	const n, most = 10_000, 400
	now := time.Unix(1e9, 0)
	ids := make([]key.NodeID, n)
	list := make([]netip.AddrPort, 1)
	addr := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 51820)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	e := New(Config{}, nil)
	for i := range ids {
		binary.BigEndian.PutUint64(ids[i][:], uint64(i+1)*0x9e3779b97f4a7c15)
		e.AddPeer(ids[i], false)
		list[0] = addr(i)
		e.SetCandidates(now, ids[i], SourceInfo, list)
		e.Keep(now, ids[i], false)
	}
	if each := (heap() - before) / n; each > most {
		t.Errorf("a member that was never talked to takes %d bytes of memory, more than %d", each, most)
	}

	few := ids[:3]
	for i, id := range few {
		if s := e.Status(id); len(s.Candidates) != 1 || s.Candidates[0].Way != wire.Direct(addr(i)) || s.MTU != minMTU {
			t.Errorf("member %d, never talked to, is shown as %+v", i, s)
		}
		if ways := e.Targets(now, id); len(ways) != 1 || ways[0] != wire.Direct(addr(i)) {
			t.Errorf("member %d is called at %v", i, ways)
		}
		e.SessionUp(now, id, wire.Direct(addr(i)))
	}
	e.NetworkChanged(now)
	e.SetOwn(now, wire.NAT{}, wire.NAT{}, []wire.Candidate{{Addr: addr(1)}})
	e.RemoveRelay(now, ids[5].Short())
	e.StreamDown(now, addr(7))
	pings := map[key.NodeID]int{}
	for range 100 {
		for _, f := range e.Effects() {
			if f, ok := f.(SendPing); ok {
				pings[f.ID]++
			}
		}
		next := e.Tick(now)
		if next.IsZero() {
			break
		}
		now = next
	}
	for _, id := range few {
		if pings[id] == 0 {
			t.Errorf("a member with a session is not pinged")
		}
	}
	if len(pings) > len(few) {
		t.Errorf("%d members are pinged, and %d have sessions", len(pings), len(few))
	}
	if len(e.order) != len(few) {
		t.Errorf("each tick looks at %d members, and %d were ever talked to", len(e.order), len(few))
	}
}
