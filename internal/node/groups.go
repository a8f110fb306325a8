package node

import (
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
)

// heard takes what this machine says of the multicast groups that it listens to.
func (m *mesh) heard(now time.Time, data []byte) {
	m.listening.Hear(now, data)
	m.routing.SetGroups(now, m.listening.Groups())
}

// tendGroups asks this machine now and then which groups it listens to, and forgets what it does not repeat.
func (m *mesh) tendGroups(now time.Time) {
	if !m.broadcasts() || now.Before(m.groupsAt) {
		return
	}
	next, ask := m.listening.Tick(now)
	m.groupsAt = next
	if ask {
		m.plane.AskGroups()
	}
	m.routing.SetGroups(now, m.listening.Groups())
}

// broadcasts reports whether packets for many pass at all: the network's policy and this machine's owner want it.
func (m *mesh) broadcasts() bool { return m.w.roster.Policy.Broadcast && m.own.Broadcast }

// syncGroups tells the workers which members want packets for many (spec/55-broadcast.md#delivery): those that are there, with a
// session or on the map.
func (m *mesh) syncGroups() {
	g := dataplane.Groups{Off: !m.broadcasts(), Broadcast: packet.Broadcast(m.w.roster.Pool), Listeners: map[uint32][]*dataplane.Peer{}}
	var far []*dataplane.Peer
	for _, p := range m.peers {
		switch {
		case p.device:
		case p.talks:
			g.All = append(g.All, p.plane)
		case m.states.Raw(p.id.Short()) != nil:
			far = append(far, p.plane)
		}
	}
	g.All = append(g.All, far...)
	there := func(id key.NodeID) bool { p := m.peers[id]; return p != nil && !p.device }
	for hash, ids := range m.routing.Groups() {
		for _, id := range ids {
			if there(id) {
				g.Listeners[hash] = append(g.Listeners[hash], m.peers[id].plane)
			}
		}
	}
	m.plane.SetGroups(g)
	if m.broadcast != g.Broadcast || m.wasOff != g.Off {
		want := g.Broadcast
		if g.Off {
			want = netip.Addr{}
		}
		if err := m.w.n.sys.SetBroadcast(m.tunnel.Name(), want); err != nil {
			m.log.Warn("broadcasts are not received", "interface", m.tunnel.Name(), "err", err)
		}
		m.broadcast, m.wasOff = g.Broadcast, g.Off
	}
}
