package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	pingTimeout = time.Second
	maxPings    = 256 // of API calls under way in one network
)

// ping is one probe of the API under way. It belongs to the control loop.
type ping struct {
	peer  *peer
	sent  time.Time // zero: waits for a session
	reply chan api.PingReply
}

// Ping implements api.Backend.
func (n *Node) Ping(ctx context.Context, r api.PingRequest) (api.PingReply, error) {
	timeout := time.Duration(r.Timeout) * time.Millisecond
	if timeout == 0 {
		timeout = pingTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // documented never to fail
	id := binary.LittleEndian.Uint64(b[:])
	q := &ping{reply: make(chan api.PingReply, 1)}
	var m *mesh
	err := n.with(ctx, r.Network, func(w *network) error {
		p, err := w.pingable(r.Member)
		if err != nil {
			return err
		}
		m, q.peer = w.mesh, p
		m.pings[id] = q
		now := time.Now()
		m.asked(now, p)
		m.sendPing(now, id, q)
		return nil
	})
	if err != nil {
		return api.PingReply{}, err
	}
	select {
	case reply := <-q.reply:
		return reply, nil
	case <-ctx.Done():
		why := "no answer within " + timeout.String()
		forget := func() {
			delete(m.pings, id)
			if q.sent.IsZero() {
				why = "no way to it was found within " + timeout.String()
			}
		}
		if err := n.call(context.WithoutCancel(ctx), forget); err != nil {
			return api.PingReply{}, err
		}
		return api.PingReply{}, api.Errorf(api.CodeNoAnswer, "%s: %s", q.peer.name, why).Hintf("see why: warren status")
	case <-n.done:
		return api.PingReply{}, errStopping
	}
}

// asked looks for a direct way to p once more, because a person wants to know.
func (m *mesh) asked(now time.Time, p *peer) {
	if !p.device && !(p.talks && p.direct) {
		m.path.Retry(now, p.id)
	}
}

// pingable finds the peer that can be asked.
func (w *network) pingable(text string) (*peer, error) {
	m, err := w.roster.Find(text)
	switch {
	case err != nil:
		return nil, err
	case w.mesh == nil:
		return nil, api.Errorf(api.CodeNetworkDown, "the network %q is down", w.name()).Hintf("bring it up: warren up %s", w.name())
	case m.ID == w.keys.Identity.NodeID():
		return nil, api.Errorf(api.CodeBadRequest, "%s is this node itself", m.Name)
	case m.Device:
		return nil, api.Errorf(api.CodeNotSupported, "%s runs stock WireGuard, which does not answer probes", m.Name).Hintf("use: ping %v", m.Addr4)
	case len(w.mesh.pings) >= maxPings:
		return nil, api.Errorf(api.CodeBusy, "%d probes are under way", maxPings)
	}
	if p := w.mesh.peers[m.ID]; p != nil {
		return p, nil
	}
	return nil, api.Errorf(api.CodeNoAnswer, "%s has not said its WireGuard key yet", m.Name).Hintf("wait until it was in touch with some member")
}

// sendPing sends a probe, or asks for the session that it needs.
func (m *mesh) sendPing(now time.Time, id uint64, q *ping) {
	if m.send(q.peer, wire.Way{}, wire.Ping{ID: id}.Append(nil)) {
		q.sent = now
		return
	}
	m.want(now, q.peer)
}

// sendPings sends the probes that waited for p.
func (m *mesh) sendPings(now time.Time, p *peer) {
	for id, q := range m.pings {
		if q.peer == p && q.sent.IsZero() {
			m.sendPing(now, id, q)
		}
	}
}

// ponged takes the answer to a probe of the API, and reports whether it was one.
func (m *mesh) ponged(now time.Time, p *peer, from wire.Way, pong wire.Pong) bool {
	q := m.pings[pong.ID]
	if q == nil || q.peer != p {
		return false
	}
	delete(m.pings, pong.ID)
	mem, _ := m.w.roster.ByID(p.id)
	reply := api.PingReply{Network: m.w.name(), Name: p.name, Address: report.Addresses(mem)[0], Path: api.PathDirect, Endpoint: from.Addr,
		RTT: api.Millis(now.Sub(q.sent))}
	if from.IsRelayed() {
		reply.Path = api.PathRelayed
		for _, id := range from.Route.Relays() {
			name := id.String()
			if relay := m.byShort[id]; relay != nil {
				name = relay.name
			}
			reply.Via = append(reply.Via, name)
		}
	}
	q.reply <- reply
	return true
}
