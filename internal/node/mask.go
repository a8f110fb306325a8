package node

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	maskNewcomer = 10 * time.Minute       // that a newcomer masks under its code, if it does not hear of the policy
	maskPlain    = 15 * time.Second       // that who greeted us plain is answered plain, if the policy is on
	maskReads    = 32                     // datagrams of one read of the DHT's own socket
	maskRest     = 100 * time.Millisecond // between reads of it that fail, at most
)

// masks is what this node knows of masking (spec/75-mask.md). It belongs to the control loop, but for what is atomic.
type masks struct {
	made map[[32]byte]*wire.Mask // by secret, of those that are taken now
	due  time.Time               // when to publish them anew
	hide bool                    // some network masks, or is joined that does: nothing known leaves our port

	apart  atomic.Bool // messages of the DHT go by dht alone
	dht    atomic.Pointer[Socket]
	failed bool // dht could not be opened
}

// settleMasks publishes under which masks datagrams are taken. They change with discovery keys and invites.
func (n *Node) settleMasks(now time.Time) {
	k := &n.masks
	if now.Before(k.due) {
		return
	}
	k.due = now.Add(keysEvery)
	old := k.made
	k.made = map[[32]byte]*wire.Mask{}
	list := make([]*wire.Mask, 0, dataplane.MaxMasks)
	add := func(secret [32]byte) {
		if k.made[secret] != nil || len(list) == dataplane.MaxMasks {
			return
		}
		m := old[secret]
		if m == nil {
			m = wire.NewMask(secret[:])
		}
		k.made[secret] = m
		list = append(list, m)
	}
	hide := false
	for j := range n.joins {
		if j.code.Mask {
			hide = true
			add(j.code.Seed.JoinKey())
		}
	}
	for _, w := range n.networks {
		if w.mesh != nil {
			w.forgetCode(now)
			hide = hide || w.masking()
			add(w.roster.Discovery)
			if w.maskCode != nil {
				add(w.maskCode.Seed.JoinKey())
			}
		}
	}
	var codes []member.Invite
	for _, w := range n.networks {
		if w.mesh == nil {
			continue
		}
		if len(w.roster.DiscoveryOld) > 0 {
			add(w.roster.DiscoveryOld[0])
		}
		codes = append(codes, w.codesInUse(now)...)
	}
	slices.SortFunc(codes, func(a, b member.Invite) int { return b.Created.Compare(a.Created) })
	for _, v := range codes {
		add(v.JoinKey)
	}
	n.plane.SetMasks(list)
	k.hide = hide
	n.hideDHT(hide)
}

// mask returns the mask of a secret, which settleMasks has made if others may use it.
func (n *Node) mask(secret [32]byte) *wire.Mask {
	if m := n.masks.made[secret]; m != nil {
		return m
	}
	return wire.NewMask(secret[:])
}

// masking reports whether what this network's members send to each other is masked.
func (w *network) masking() bool { return w.roster.Policy.Mask || w.maskCode != nil }

// forgetCode ends the time for which a newcomer masks under its code.
func (w *network) forgetCode(now time.Time) {
	if w.maskCode != nil && (w.roster.Policy.Mask || now.Sub(w.settings.Joined) > maskNewcomer) {
		w.maskCode = nil
	}
}

// ownMasks lists the masks under which this node sends of its own accord, the first one first; nil: none.
func (w *network) ownMasks() (list []*wire.Mask) {
	if !w.masking() {
		return nil
	}
	if w.maskCode != nil {
		list = append(list, w.n.mask(w.maskCode.Seed.JoinKey()))
	}
	list = append(list, w.n.mask(w.roster.Discovery))
	if len(w.roster.DiscoveryOld) > 0 {
		list = append(list, w.n.mask(w.roster.DiscoveryOld[0]))
	}
	return list
}

// shaken notes how the last handshake message of p came from an address, if that was no stream: so it is answered.
func (m *mesh) shaken(now time.Time, p *peer, from netip.AddrPort) {
	if wire.IsStream(from.Addr()) {
		return
	}
	p.mask, p.plainUntil = m.came, time.Time{}
	if m.came == nil {
		p.plainUntil = now.Add(maskPlain)
	}
	m.remask(now, p)
}

// remask says how what is sent to p is masked now.
func (m *mesh) remask(now time.Time, p *peer) {
	var mask *wire.Mask
	if p.reads && m.w.masking() && !now.Before(p.plainUntil) {
		if mask = p.mask; mask == nil {
			mask = m.w.ownMasks()[0]
		}
	}
	p.plane.SetMask(mask)
}

// remaskAll follows the policy.
func (m *mesh) remaskAll(now time.Time) {
	if on := m.w.masking(); on != m.masked {
		m.masked = on
		for _, p := range m.peers {
			p.mask, p.plainUntil = nil, time.Time{} // what they sent before says nothing any more
		}
	}
	for _, p := range m.peers {
		m.remask(now, p)
	}
	m.w.n.masks.due = now
}

// initiationMask returns how the next initiation to p is masked: under the newest key, and every second time under another, in case
// that p was away when the key changed.
func (m *mesh) initiationMask(p *peer) *wire.Mask {
	list := m.w.ownMasks()
	if len(list) == 0 || !p.reads {
		return nil
	}
	t := p.tries
	p.tries++
	if t%2 == 0 || len(list) == 1 {
		return list[0]
	}
	return list[1+t/2%(len(list)-1)]
}

// hideDHT lets messages of the DHT go by a port of their own, or by that of everything else (spec/75-mask.md#the-dht-beside-it).
func (n *Node) hideDHT(hide bool) {
	k := &n.masks
	if n.dht == nil {
		return
	}
	if k.apart.Store(hide); !hide || k.dht.Load() != nil || k.failed {
		return
	}
	s, err := n.sys.Listen(0)
	if err != nil {
		k.failed = true
		n.log.Warn("the DHT is not used: it needs a port of its own while a network masks", "err", err)
		n.warnings["mask"] = "the DHT is not used: " + err.Error()
		return
	}
	k.dht.Store(&s)
	n.wg.Go(func() { n.readDHT(s) }) // ends when shutdown closes s
}

// readDHT gives the DHT what comes to its own port.
func (n *Node) readDHT(s Socket) {
	batch := make([]packet.Datagrams, maskReads)
	for i := range batch {
		batch[i].Data = make([]byte, 1<<16)
	}
	for failed := 0; ; {
		count, err := s.ReadBatch(batch)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			if failed++; failed == 1 {
				n.log.Warn("the DHT is not heard on its own port", "err", err)
			}
			time.Sleep(min(time.Duration(failed-1)*time.Millisecond, maskRest))
			continue
		}
		failed = 0
		for _, d := range batch[:count] {
			for at := 0; at < len(d.Data); at += d.Segment {
				n.dht.Deliver(d.Data[at:min(at+d.Segment, len(d.Data))], d.Addr)
			}
		}
	}
}

// sendDHT sends a message of the DHT. What cannot be sent is lost as on a wire.
func (n *Node) sendDHT(b []byte, to netip.AddrPort) {
	s := n.socket
	if n.masks.apart.Load() {
		own := n.masks.dht.Load()
		if own == nil {
			return
		}
		s = *own
	}
	_ = s.WriteBatch([]packet.Datagrams{{Data: b, Segment: len(b), Addr: to}})
}

// closeMasks closes the DHT's own socket.
func (n *Node) closeMasks() error {
	if s := n.masks.dht.Load(); s != nil {
		return (*s).Close()
	}
	return nil
}
