package node

import (
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/wire"
)

// event deals with what a worker of the data plane has seen.
func (n *Node) event(now time.Time, e dataplane.Event) {
	if e.Kind == dataplane.EventDatagram {
		n.datagram(now, e.From, e.Data)
		return
	}
	p, m := n.peerOf(e.Peer)
	if p == nil {
		return // removed while the event waited
	}
	switch e.Kind {
	case dataplane.EventControl:
		m.control(now, p, e.From, e.Data)
	case dataplane.EventWanted:
		m.pathChanged(now, p) // a session may have come while the event waited
		if !p.talks {
			m.wg.Initiate(now, p.session)
		}
	case dataplane.EventNotice:
		m.wg.Notice(now, p.session, e.Notice)
	case dataplane.EventMoved:
		m.path.Received(now, p.id, e.From)
	}
}

// peerOf finds the control loop's side of a peer; nil when it is no longer there.
func (n *Node) peerOf(dp *dataplane.Peer) (*peer, *mesh) {
	p := dp.Owner.(*peer)
	if m := p.mesh; m.peers[p.id] == p && m.w.mesh == m {
		return p, m
	}
	return nil, nil
}

// datagram gives a handshake or join message to the network that it is for. Nobody's is dropped in silence.
func (n *Node) datagram(now time.Time, from netip.AddrPort, b []byte) {
	if b[0] == wire.TypeJoin {
		n.joinMessage(now, from, b)
		return
	}
	load := now.Sub(n.loaded) < loadHold
	for _, w := range n.networks {
		if w.mesh != nil && w.mesh.wg.Owns(b) {
			if err := w.mesh.wg.Handle(now, from, b, load); err != nil {
				w.log.Debug("handshake message dropped", "from", from, "err", err)
			}
			return
		}
	}
}

func (n *Node) joinMessage(now time.Time, from netip.AddrPort, b []byte) {
	for j := range n.joins {
		if j.engine.Owns(b) {
			j.engine.Handle(now, from, b)
			return
		}
	}
	for _, w := range n.networks {
		if w.mesh != nil && w.mesh.intro.Owns(b) {
			w.mesh.intro.Handle(now, from, b)
			return
		}
	}
}

// control deals with a control message of p, which came inside its session.
func (m *mesh) control(now time.Time, p *peer, from netip.AddrPort, b []byte) {
	if p.device {
		return
	}
	msg, err := wire.ParseControl(b)
	if err != nil {
		m.log.Debug("control message dropped", "peer", p.name, "err", err)
		return
	}
	switch msg := msg.(type) {
	case wire.Ping:
		m.path.HandlePing(now, p.id, from, msg)
	case wire.Pong:
		if !m.ponged(now, p, from, msg) {
			m.path.HandlePong(now, p.id, from, msg)
		}
	case wire.Records, wire.Sync:
		if err := m.gossip.Handle(now, p.id, msg.(gossip.Message)); err != nil {
			m.log.Debug("gossip message dropped", "peer", p.name, "err", err)
		}
	case wire.Bye:
		m.path.SessionDown(now, p.id)
		m.pathChanged(now, p)
		p.backoff = firstRetry
		p.retry = now.Add(firstRetry)
	}
}
