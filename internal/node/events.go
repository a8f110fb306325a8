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
	e.Taken()
	switch e.Kind {
	case dataplane.EventDatagram:
		n.datagram(now, e)
		return
	case dataplane.EventGroups:
		for _, w := range n.networks {
			if w.mesh != nil && w.mesh.plane == e.Network {
				w.mesh.heard(now, e.Data)
			}
		}
		return
	}
	p, m := n.peerOf(e.Peer)
	if p == nil {
		return // removed while the event waited
	}
	n.prove(e.Way)
	switch e.Kind {
	case dataplane.EventControl:
		m.control(now, p, e.Way, e.Data)
	case dataplane.EventWanted:
		m.pathChanged(now, p) // a session may have come while the event waited
		m.want(now, p)
	case dataplane.EventNotice:
		m.wg.Notice(now, p.session, e.Notice)
	case dataplane.EventMoved:
		m.heardBy(now, p, e.Way)
	case dataplane.EventPathError:
		m.send(p, wire.Way{}, e.Header.Failure(e.Reason).Append(nil))
	case dataplane.EventNoHop:
		m.noHop(now, p, e.Way)
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
func (n *Node) datagram(now time.Time, e dataplane.Event) {
	from, b := e.Way.Addr, e.Data
	load := now.Sub(n.loaded) < loadHold
	switch {
	case e.Way.IsRelayed():
		if p, m := n.peerOf(e.Peer); p != nil {
			m.relayedHandshake(now, p, e, load)
		}
		return
	case !wire.IsLabel(from.Addr()) && n.nat.HandleServer(now, from, b):
		return
	case b[0] == wire.TypeDHT:
		if n.dht != nil && !wire.IsLabel(from.Addr()) {
			n.dht.Deliver(b, from)
		}
		return
	case b[0] == wire.TypeJoin:
		n.joinMessage(now, from, e)
		return
	}
	for _, w := range n.networks {
		if w.mesh != nil && w.mesh.wg.Owns(b) {
			err := w.mesh.wg.Handle(now, from, b, load)
			w.mesh.answerMasked(now, e.Mask)
			if err != nil {
				w.log.Debug("handshake message dropped", "from", from, "err", err)
			}
			return
		}
	}
}

// answerMasked sends the answers to what was just handled, under the mask that it came under.
func (m *mesh) answerMasked(now time.Time, mask *wire.Mask) {
	m.handling, m.came = true, mask
	m.effects(now)
	m.handling, m.came = false, nil
}

func (n *Node) joinMessage(now time.Time, from netip.AddrPort, e dataplane.Event) {
	b := e.Data
	for j := range n.joins {
		if j.engine.Owns(b) {
			j.engine.Handle(now, from, b)
			return
		}
	}
	for _, w := range n.networks {
		if w.mesh != nil && w.mesh.intro.Owns(b) {
			w.mesh.intro.Handle(now, from, b)
			w.mesh.answerMasked(now, e.Mask)
			return
		}
	}
}

// control deals with a control message of p, which came inside its session.
func (m *mesh) control(now time.Time, p *peer, from wire.Way, b []byte) {
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
			if !p.rated {
				m.tendLink(now, p, m.path.Status(p.id))
			}
		}
	case wire.Records, wire.Sync:
		m.guest(now, p)
		if err := m.gossip.Handle(now, p.id, msg.(gossip.Message)); err != nil {
			m.log.Debug("gossip message dropped", "peer", p.name, "err", err)
		}
	case wire.States, wire.Digest:
		if err := m.states.Handle(now, p.id, msg.(gossip.Message)); err != nil {
			m.log.Debug("link states dropped", "peer", p.name, "err", err)
		}
	case wire.LinkWish:
		m.routing.HandleWish(now, p.id, msg)
	case wire.Candidates:
		m.heardBy(now, p, from)
		m.path.HandleCandidates(now, p.id, msg)
	case wire.PathError:
		m.pathError(now, p, msg)
	case wire.Bye:
		m.path.SessionDown(now, p.id)
		m.pathChanged(now, p)
		p.backoff = firstRetry
		p.retry = now.Add(firstRetry)
	}
}
