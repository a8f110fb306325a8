package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

// Masks are on the outside of everything: what came is plain before it is looked at, and what is sent is masked last, in the
// buffer that it lies in (spec/75-mask.md). What goes by a stream is not masked.

// MaxMasks is the limit of masks that are tried.
const MaxMasks = 16

// SetMasks publishes the masks under which datagrams are taken; the first MaxMasks count. Plain ones are always taken. The slice must
// not be changed afterwards.
func (p *Plane) SetMasks(masks []*wire.Mask) {
	masks = masks[:min(len(masks), MaxMasks)]
	p.masks.Store(&masks)
}

// SetMask says how all that is sent to the peer directly is masked, handshakes apart; nil: not at all. Any goroutine may call it.
func (p *Peer) SetMask(m *wire.Mask) { p.mask.Store(m) }

// maskTo returns how datagrams to the peer at an address are masked.
func (p *Peer) maskTo(to netip.AddrPort) *wire.Mask {
	m := p.mask.Load()
	if m != nil && wire.IsStream(to.Addr()) {
		return nil
	}
	return m
}

// unmask finds out what b is, which is not plain by its looks: it changes b and returns its beginning, which is plain then, or nil if it
// is nothing. r.mask says under which mask it was (spec/75-mask.md#receiving).
func (r *receiver) unmask(b []byte) []byte {
	masks := *r.plane.masks.Load()
	for i := range masks {
		j := (i + r.lastMask) % len(masks) // most often that of the one before
		if m := masks[j]; m.Front(&r.front, b) {
			if _, ok := r.index[binary.LittleEndian.Uint32(r.front[4:])]; ok {
				m.Uncover(b, &r.front)
				r.mask, r.lastMask = m, j
				return b
			}
		}
	}
	for _, m := range masks {
		if plain := m.ParseBox(r.boxed[:], b); len(plain) > 0 {
			r.mask = m
			return b[:copy(b, plain)]
		}
	}
	return nil
}

// commit masks the n bytes at the free end of the arena for the road, and adds them to its train.
func (s *sender) commit(n int) { s.add(n, s.road.to, s.road.mask) }

// add masks the n bytes at the free end of the arena and adds them to the last train, or begins a new one.
func (s *sender) add(n int, to netip.AddrPort, m *wire.Mask) {
	if m != nil && !m.Cover(s.arena[s.used:s.used+n]) {
		box := m.Box(s.arena[s.used : s.used+n])
		n = copy(s.room(len(box)), box)
	}
	s.couple(n, to)
}

// push masks a relayed datagram for its next hop and adds it to the last train, or begins a new one.
func (r *receiver) push(b []byte, to netip.AddrPort, m *wire.Mask) {
	if m == nil || m.Cover(b) {
		r.couple(b, to)
		return
	}
	if len(r.trains) == maxTrains {
		r.flushRelayed()
	}
	box := m.Box(b) // a handshake inside
	r.trains, r.joint = append(r.trains, packet.Datagrams{Data: box, Segment: len(box), Addr: to}), -1
}
