package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
)

// other is a second address of the last node.
var other = netip.MustParseAddrPort("198.51.100.9:1000")

// severalWays makes a burrow 0-1-2 with 0-2 too, in which node 0 reaches node 2 by its address, by another address of it, and by node 1.
func severalWays(t testing.TB, mode path.Mode) *burrow {
	w := newBurrow(t, 3, [2]int{0, 1}, [2]int{1, 2}, [2]int{0, 2})
	h, end := w.nodes[0], w.nodes[2]
	h.paths = path.New(path.Config{Mode: mode}, nil)
	h.peers[1].Path, h.peers[2].Path = h.paths.AddPeer(w.nodes[1].id, false), h.paths.AddPeer(end.id, false)
	for i := 1; i <= 2; i++ {
		h.paths.SessionUp(testTime, w.nodes[i].id, wire.Direct(w.nodes[i].addr))
	}
	h.paths.SetCandidates(testTime, end.id, path.SourceSaved, []netip.AddrPort{end.addr, other})
	h.paths.SetRoutes(testTime, end.id, []wire.Route{w.relays(1)})
	h.answer(20*time.Second, func(way wire.Way) time.Duration {
		if way.Addr == other {
			return 21 * time.Millisecond
		}
		return 20 * time.Millisecond
	})
	h.drain()
	return w
}

// byAddress counts the datagrams that h has sent, by where to, and forgets them.
func (h *hub) byAddress() map[netip.AddrPort]int {
	got := map[netip.AddrPort]int{}
	for _, d := range h.wire.sent {
		got[d.Addr] += (len(d.Data) + d.Segment - 1) / d.Segment
	}
	h.wire.sent = nil
	return got
}

// In doubt everything goes by a second way too, in trains of its own, and the host gets it once.
// spec/52-relay.md#sending
func TestInDoubtCopiesGoByASecondWay(t *testing.T) {
	w := severalWays(t, path.ModeBackup)
	h, end := w.nodes[0], w.nodes[2]
	h.paths.SetCandidates(testTime, end.id, path.SourceSaved, nil)
	lost := func(way wire.Way) time.Duration { // no ping to an address of node 2 is answered any more
		if way.IsRelayed() || way.Addr == w.nodes[1].addr {
			return 20 * time.Millisecond
		}
		return time.Hour
	}
	now := testTime.Add(20 * time.Second)
	var c *path.Choice
	for ; now.Before(testTime.Add(40 * time.Second)); now = now.Add(5 * time.Millisecond) {
		h.paths.Active(now, end.id)
		h.paths.Tick(now)
		for _, e := range h.paths.Effects() {
			if e, ok := e.(path.SendPing); ok && lost(e.To) < time.Second {
				h.paths.HandlePong(now, e.ID, e.To, wire.Pong{ID: e.Ping.ID})
			}
		}
		if c = h.peers[2].Path.Choice(); c.Also.IsRelayed() {
			break
		}
	}
	if !c.Also.IsRelayed() || c.AlsoMax > 0 && c.AlsoMax < 1280 {
		t.Fatalf("never in doubt: %+v", c)
	}
	f := w.frame(0, 2, 20000)
	w.transmit(0, f)
	if len(h.wire.sent) != 2 || h.wire.sent[1].Addr != w.nodes[1].addr || len(h.wire.sent[1].Data) <= len(f.Data) {
		t.Fatalf("%d trains", len(h.wire.sent))
	}
	for _, d := range h.wire.sent {
		if d.Addr == end.addr || d.Addr == other {
			end.arrive(packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment, Addr: h.addr})
		} else {
			w.nodes[1].arrive(packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment, Addr: h.addr})
		}
	}
	w.step(1)
	if len(end.host.got) != 1 || end.plane.Drops()["replayed"] != 17 {
		t.Fatalf("the host got %d; drops %v", len(end.host.got), end.plane.Drops())
	}
	// The copies alone are enough.
	h.wire.sent = nil
	w.transmit(0, f)
	h.wire.sent = h.wire.sent[1:]
	w.step(0)
	w.step(1)
	if len(end.host.got) != 2 {
		t.Fatalf("the copies do not arrive: drops %v", end.plane.Drops())
	}
}

func TestRedundantModeCopiesSmallPackets(t *testing.T) {
	w := severalWays(t, path.ModeRedundant)
	h := w.nodes[0]
	if c := h.peers[2].Path.Choice(); !c.Also.IsValid() || c.AlsoMax == 0 {
		t.Fatalf("choice %+v", c)
	}
	w.transmit(0, w.frame(0, 2, 100))
	if got := h.byAddress(); got[w.nodes[2].addr] != 1 || got[other] != 1 || len(got) != 2 {
		t.Errorf("a small packet: %v", got)
	}
	w.transmit(0, w.frame(0, 2, 1000))
	if got := h.byAddress(); len(got) != 1 {
		t.Errorf("a large packet: %v", got)
	}
}

// Flows are shared out over the ways, and each keeps to its way.
func TestBalanceSpreadsFlows(t *testing.T) {
	w := severalWays(t, path.ModeBalance)
	h := w.nodes[0]
	if c := h.peers[2].Path.Choice(); len(c.Spread) != 2 {
		t.Fatalf("choice %+v", c)
	}
	total := map[netip.AddrPort]int{}
	for flow := range 64 {
		f := w.frame(0, 2, 3000)
		binary.BigEndian.PutUint16(f.Data[20:], uint16(1000+flow))
		var way netip.AddrPort
		for range 3 {
			w.transmit(0, f)
			got := h.byAddress()
			if len(got) != 1 {
				t.Fatalf("flow %d goes %v", flow, got)
			}
			for a := range got {
				if way.IsValid() && a != way {
					t.Fatalf("flow %d went to %v and to %v", flow, way, a)
				}
				way = a
			}
		}
		total[way]++
	}
	if len(total) != 2 || total[other] < 16 || total[other] > 48 {
		t.Errorf("flows %v", total)
	}
}
