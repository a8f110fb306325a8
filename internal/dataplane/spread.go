package dataplane

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
)

// Limits of packets for many (spec/55-broadcast.md#limits, spec/55-broadcast.md#delivery).
const (
	maxCopies      = 1024
	minCopy        = 512 // bytes as which each copy counts at least
	copiesPerSec   = 1 << 20
	copiesBurst    = 2 * time.Second
	maxManyWaiting = 8
	sureToPass     = 1280 // bytes that every path is good for
)

// awaken limits the sessions that packets for many ask for.
var awaken = perSecond(8, 32)

// Groups says to whom packets for many go (spec/55-broadcast.md#delivery). Nothing of it may be changed once it is published.
type Groups struct {
	// Off drops all packets for many, those of the host and those of peers.
	Off bool
	// Broadcast is the network's directed broadcast address; the zero Addr: none.
	Broadcast netip.Addr
	// All are the members that are there, without this node and without devices; those with a session first, for the first 1,024
	// count.
	All []*Peer
	// Listeners are for each group, by packet.GroupHash, the members that are there and list it. Those that list
	// packet.GroupAny get every group.
	Listeners map[uint32][]*Peer
	// Rate is the limit of copies in bytes a second, with two seconds' worth at once; 0 is 1 MiB.
	Rate int64
}

// many is what a network keeps for its packets for many.
type many struct {
	audience atomic.Pointer[audience]
	copies   bucket
	wakes    bucket
	turn     atomic.Uint32 // moves the order of members on, from packet to packet
}

// audience is Groups made ready for the workers.
type audience struct {
	broadcast uint32
	off       bool
	all, any  []*Peer
	listeners map[uint32][]*Peer // with those of any
	rate      int64
}

// SetGroups publishes to whom packets for many go. Before it is called, and with Off, all are dropped.
func (n *Network) SetGroups(g Groups) {
	a := &audience{broadcast: packet.BroadcastKey(g.Broadcast), off: g.Off, rate: g.Rate}
	if a.rate <= 0 {
		a.rate = copiesPerSec
	}
	if !g.Off {
		a.all, a.any = once(g.All), once(g.Listeners[packet.GroupAny])
		a.listeners = make(map[uint32][]*Peer, len(g.Listeners))
		for h, peers := range g.Listeners {
			a.listeners[h] = once(slices.Concat(peers, a.any))
		}
	}
	n.many.audience.Store(a)
}

// once returns peers without those that come again, and without those beyond the limit.
func once(peers []*Peer) []*Peer {
	seen := make(map[*Peer]bool, len(peers))
	out := make([]*Peer, 0, min(len(peers), maxCopies))
	for _, p := range peers {
		if len(out) < maxCopies && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// noAudience is that of a network whose control loop has not spoken yet.
var noAudience = &audience{off: true}

// hears returns who hears packets for many now.
func (m *many) hears() *audience {
	if a := m.audience.Load(); a != nil {
		return a
	}
	return noAudience
}

// reach says to how many p is addressed.
func (a *audience) reach(p []byte) packet.Reach { return packet.ReachOf(p, a.broadcast) }

// takes reports whether p may be taken from a peer (spec/55-broadcast.md#receiving).
func (a *audience) takes(p []byte) bool {
	reach := a.reach(p)
	return reach == packet.ReachOne || !a.off && reach != packet.ReachHost
}

// of returns to whom a packet for many goes.
func (a *audience) of(reach packet.Reach, dst netip.Addr) []*Peer {
	if reach == packet.ReachAll {
		return a.all
	}
	if peers, ok := a.listeners[packet.GroupHash(dst)]; ok {
		return peers
	}
	return a.any
}

// spread sends a frame of n's host that is for many: a copy to each who is to have it. What the host says of its own groups the
// control loop hears.
func (s *sender) spread(n *Network, a *audience, reach packet.Reach, f packet.Frame) {
	if a.off || reach == packet.ReachHost {
		if a.off || !s.overheard(n, f.Data) {
			s.plane.drop(DropBroadcast)
		}
		return
	}
	dst, _ := packet.Destination(f.Data)
	peers := a.of(reach, dst)
	if len(peers) == 0 {
		return
	}
	cost := int64(len(peers)*max(len(f.Data), minCopy)) * int64(time.Second) / a.rate
	if !n.many.copies.take(s.now, min(cost, int64(copiesBurst)), int64(copiesBurst)) {
		s.plane.drop(DropBroadcastLimit)
		return
	}
	if f.Offload.GSO == packet.GSONone && len(f.Data) > sureToPass {
		packet.AllowCut(f.Data, uint16(rand.Uint32()))
	}
	s.chatter = true
	first := int(n.many.turn.Add(1) % uint32(len(peers)))
	for i := range peers {
		s.sendTo(peers[(first+i)%len(peers)], f)
	}
	s.chatter = false
}

// overheard tells the control loop what n's host says of the groups that it listens to. It reports whether p says something.
func (s *sender) overheard(n *Network, p []byte) bool {
	said, ok := packet.ParseMembership(nil, p)
	if ok && len(said) > 0 {
		s.plane.post(Event{Kind: EventGroups, Network: n, Data: slices.Clone(p)})
	}
	return ok
}

// mayWait reports whether a packet for many of size bytes may wait for peer (spec/55-broadcast.md#delivery). ask is as in hold.
func (s *sender) mayWait(peer *Peer, size int, ask bool) bool {
	room, asked := peer.staged.roomFor(size)
	w := &peer.network.many.wakes
	return room && (asked || !ask || w.take(s.now, awaken.cost, awaken.burst))
}

// roomFor reports whether a packet for many may join what waits, and whether the control loop knows that something waits.
func (s *stage) roomFor(size int) (room, asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames) < maxManyWaiting && s.bytes+size <= maxStagedBytes, s.asked
}

// AskGroups asks the host which groups it listens to. It answers within a second, by EventGroups. Any goroutine may call it.
func (n *Network) AskGroups() {
	for _, v6 := range []bool{false, true} {
		var buf [packet.MaxQuery]byte
		n.write(packet.Offload{}, [][]byte{buf[:packet.MembershipQuery(buf[:], v6)]})
	}
}
