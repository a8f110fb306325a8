package dataplane

import (
	"net/netip"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// road is a way made ready for one frame: the address to which its datagrams go, and for a relayed way the first relay and the
// header that stands before each message (spec/52-relay.md#sending).
type road struct {
	to     netip.AddrPort
	hop    *Peer              // the first relay; nil: straight to the peer
	key    *wireguard.Keypair // hop's
	mask   *wire.Mask         // of what leaves; nil: none
	head   int                // bytes before the message: frame, header and tag; 0 without a relay
	header [wire.MaxRelayHeader]byte
	sealed int // header bytes sent under key

	// The seal at hand: front[:head] is for share messages, of which given have it.
	front        [wire.RelayOverhead + wire.MaxRelayHeader]byte
	given, share int
	count        int // messages of the frame at hand that are still to come, as far as is known
}

// resolve makes w the way to peer. It reports false when there is no session or direct path to the first relay, or no way at all:
// a hop is never relayed itself (spec/52-relay.md#forwarding).
func (w *road) resolve(peer *Peer, way *wire.Way) bool {
	w.to, w.hop, w.head, w.count, w.given, w.share = way.Addr, nil, 0, 1, 0, 0
	if !way.IsRelayed() {
		w.mask = peer.maskTo(w.to)
		return way.Addr.IsValid()
	}
	t := peer.network.hops.Load()
	hop := t.peers[way.Route.At(0)]
	if hop == nil {
		return false
	}
	w.key, w.to = hop.Session.Sending(), hop.Path.Choice().Direct
	if w.key == nil || !w.to.IsValid() {
		return false
	}
	w.mask = hop.maskTo(w.to)
	h := wire.NewRelayHeader(t.self, way.Route, peer.ID)
	w.hop, w.head, w.sealed = hop, wire.RelayOverhead+h.Put(w.header[:]), 0
	return true
}

// cover writes the header before the message at buf[head:]: under one seal for all messages of a frame, unless a mask has to hide
// that they belong together (spec/52-relay.md#shared-seals). It reports false when the hop's keypair may send no more.
func (w *road) cover(now int64, buf []byte) bool {
	if w.given == w.share {
		share := min(max(w.count, 1), wireguard.MaxShare)
		if w.mask != nil {
			share = 1
		}
		n := copy(w.front[wireguard.HeaderLen:], w.header[:w.head-wire.RelayOverhead])
		if _, err := w.key.SealHeader(now, w.front[:w.head], n, share); err != nil {
			return false
		}
		w.given, w.share = 0, share
	}
	wireguard.ShareSeal(buf, w.front[:w.head], w.given)
	w.given++
	w.count--
	w.sealed += w.head
	return true
}

// roads makes ready the ways that f takes to peer: s.road, and s.also.road when copies go a second way too. It reports whether
// there is one; if not, f waits.
func (s *sender) roads(peer *Peer, c *path.Choice, f packet.Frame) (also *sender, ok bool) {
	way := &c.Way
	if c.Spread != nil {
		way = &c.Spread[int(packet.Flow(f.Data)%uint32(len(c.Spread)))]
	}
	if c.Also.IsValid() {
		also = s.second()
		if !also.road.resolve(peer, &c.Also) {
			also = nil
		}
	}
	if s.road.resolve(peer, way) {
		return also, true
	}
	s.noHop(peer, way)
	if way != &c.Way && s.road.resolve(peer, &c.Way) {
		return also, true
	}
	if also != nil && s.road.resolve(peer, &c.Also) {
		return nil, true
	}
	s.hold(peer, f, false)
	return nil, false
}

// noHop tells the control loop that way cannot be used now, which will choose another.
func (s *sender) noHop(peer *Peer, way *wire.Way) {
	if way.IsRelayed() && peer.failed.take(s.now, failures.cost, failures.burst) {
		s.plane.post(Event{Kind: EventNoHop, Peer: peer, Way: *way})
	}
}

// second returns the sender of copies: its trains stand apart, so that copies do not break those of s. What it gathers leaves
// when s flushes.
func (s *sender) second() *sender {
	if s.also == nil {
		s.also = newSender(s.plane, s.line, 0)
	}
	s.also.now, s.also.ticket = s.now, s.ticket
	return s.also
}

// repeat adds a copy of a sealed message to the trains of s.
func (s *sender) repeat(msg []byte) {
	w := &s.road
	buf := s.room(w.head + len(msg))
	copy(buf[w.head:], msg)
	if w.hop == nil || w.cover(s.now, buf) {
		s.commit(w.head + len(msg))
	}
}

// roadUsed counts the headers that were sealed for the first relay of s.road. carried says that what they lead holds packets of
// the hosts.
func (s *sender) roadUsed(carried bool) {
	if w := &s.road; w.hop != nil && w.sealed > 0 {
		s.sent(w.hop, w.key, true, w.sealed)
		if carried {
			w.hop.carried.Add(uint64(w.sealed))
		}
		w.sealed = 0
	}
}
