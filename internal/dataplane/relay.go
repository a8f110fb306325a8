package dataplane

import (
	"bytes"
	"net/netip"
	"sync/atomic"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// Limits of what one neighbour can make us do (spec/52-relay.md#limits).
var (
	handshakes = perSecond(20, 40) // handshake messages of one source by one neighbour
	failures   = perSecond(10, 10) // path errors to one neighbour
	moves      = perSecond(10, 4)  // EventMoved of one peer
)

// transitAccounts is how many accounts a neighbour has for datagrams whose source it is not. Sources share them by their hash: so
// whatever sources a hostile neighbour makes up, no table grows, and it spends no other neighbour's allowance.
const transitAccounts = 16

// RelayPolicy says what a node passes on for others. It must not be changed once it was given away.
type RelayPolicy struct {
	Rate      int64 // bytes a second in all, of whole datagrams; what is more waits in a fair queue, briefly. 0 is no limit
	PerSource int64 // bytes a second of one source by one neighbour; what is more is dropped. 0 is no limit
}

// hops is what SetHops published.
type hops struct {
	self   key.ShortID
	peers  map[key.ShortID]*Peer
	policy *RelayPolicy
}

// SetHops publishes who may send, pass on and receive relayed datagrams: this node, as self, and peers by their short ids, all
// other members that understand such datagrams. A nil policy passes nothing on; what is for this node is received all the
// same. The map must not be changed afterwards.
func (n *Network) SetHops(self key.ShortID, peers map[key.ShortID]*Peer, policy *RelayPolicy) {
	n.hops.Store(&hops{self: self, peers: peers, policy: policy})
	n.shaper.rouse()
}

// RelayStats counts relayed datagrams that were passed on.
type RelayStats struct {
	Packets, Bytes uint64 // whole datagrams, without IP and UDP headers
	Dropped        uint64 // datagrams that were not passed on although they were well-formed
	Shed           uint64 // those of Dropped for which there was no room in the queue: more came than may leave; of a network only
	Waiting        int    // bytes in the queue now; of a network only
}

// RelayStats returns what this node has passed on in the network. Any goroutine may call it.
func (n *Network) RelayStats() RelayStats {
	s := n.relayed.read()
	s.Waiting = n.shaper.waiting()
	return s
}

// Relayed returns what this node has passed on of which the peer is the source, by what the neighbour said who sent it to us.
func (p *Peer) Relayed() RelayStats { return p.relayed.read() }

type counters struct{ packets, bytes, dropped, shed atomic.Uint64 }

func (c *counters) add(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

func (c *counters) read() RelayStats {
	return RelayStats{Packets: c.packets.Load(), Bytes: c.bytes.Load(), Dropped: c.dropped.Load(), Shed: c.shed.Load()}
}

// account is what one source may have relayed, by one neighbour, and what of it waits.
type account struct {
	bytes, handshakes bucket
	queue             queue // guarded by the shaper
}

// lane is all that one neighbour may have relayed.
type lane struct {
	own     account // of itself
	transit [transitAccounts]account
	queued  waiting // guarded by the shaper
}

// account returns the account of what neighbour p sends us of source.
func (p *Peer) account(source key.ShortID) (*lane, *account) {
	l := p.lane.Load()
	if l == nil {
		p.lane.CompareAndSwap(nil, new(lane))
		l = p.lane.Load()
	}
	if source == p.ID {
		return l, &l.own
	}
	return l, &l.transit[source[7]%transitAccounts]
}

// passage is what was decided on the header that came last. It holds for the same header by the same neighbour, to the end of
// the batch, so that the rows of datagrams of one flow cost one decision.
type passage struct {
	by   Entry
	n    int
	raw  [wire.MaxRelayHeader]byte // the header, as it came
	drop Drop                      // why datagrams with this header go no further
	fail bool                      // ... and reason is told to the neighbour
	bad  bool                      // drop counts; else the datagram is for us, or for next

	header  wire.RelayHeader
	reason  wire.PathReason
	source  *Peer
	account *account
	lane    *lane
	policy  *RelayPolicy

	final bool
	way   wire.Way // back to the source
	heard bool     // way was compared with the one by which source came last

	next           *Peer
	key            *wireguard.Keypair
	to             netip.AddrPort
	mask           *wire.Mask
	packets, bytes int // passed on and not counted yet
}

// row is the datagrams of the train at hand that bear one seal, from the one at hand on.
type row struct {
	head int // bytes of each before its tail
	left int // how many there are, with the one at hand

	// What they leave with: a seal of the next hop's session for share of them, of which given have it.
	front        []byte
	given, share int
}

// relay deals with a relayed datagram, and with those right behind it that bear the same seal (spec/52-relay.md#receiving).
func (r *receiver) relay(b []byte) {
	if len(b) < wire.RelayOverhead || len(b) < wire.RelayOverhead+int(b[1]) {
		r.plane.drop(DropMalformed)
		return
	}
	head := wire.RelayOverhead + int(b[1])
	e, ok := r.entry(&r.hop, b)
	if !ok {
		return
	}
	r.row = row{head: head, left: r.alike(b[:head])}
	header, seal, err := e.Keypair.OpenHeader(r.now, b)
	if err != nil { // none of them opens
		for range r.row.left {
			r.plane.drop(dropOf(err))
		}
		r.at += (r.row.left - 1) * r.segment
		return
	}
	if p := &r.passage; p.by != e || !bytes.Equal(header, p.raw[:p.n]) {
		r.judge(e, header)
	}
	for {
		if err := e.Keypair.Take(seal, b); err != nil {
			r.plane.drop(dropOf(err))
		} else {
			r.opened(&r.hop, e, head, true)
			r.arrived(e.Peer)
			r.relayed(b, b[head:])
		}
		if r.row.left--; r.row.left == 0 {
			return
		}
		r.at += r.segment
		b = r.hand()
	}
}

// alike returns how many datagrams of the train, from the one at hand on, begin with front but for their places.
func (r *receiver) alike(front []byte) int {
	n := 1
	for at := r.at + r.segment; n < wireguard.MaxShare && at+len(front) <= len(r.whole) && wireguard.SameSeal(front, r.whole[at:at+len(front)]); at += r.segment {
		n++
	}
	return n
}

// relayed deals with the datagram b, for whose header the passage was made, and its tail.
func (r *receiver) relayed(b, tail []byte) {
	p := &r.passage
	if isUse(tail) {
		r.hop.carried += r.row.head
	}
	switch {
	case p.bad:
		r.refuse(p.drop)
	case !wire.IsTail(tail):
		r.plane.drop(DropMalformed)
	case tail[0] != wire.TypeTransport && !p.account.handshakes.take(r.now, handshakes.cost, handshakes.burst):
		r.refuse(DropRelayLimit)
	case !p.final:
		r.pass(b)
	case tail[0] == wire.TypeTransport:
		r.transport(tail, p)
	default:
		r.plane.post(Event{Kind: EventDatagram, Peer: p.source, Way: p.way, Data: bytes.Clone(tail)})
	}
}

// isUse reports whether a relayed message is likely to hold a packet of the hosts: it is larger than the pings by which the ends
// watch their routes. Those must not count as use: the neighbours on the way would be watched for them, by more pings.
func isUse(tail []byte) bool {
	const most = wireguard.HeaderLen + 2*wireguard.PaddingMultiple + 16 // a pong, and the tag
	return len(tail) > most && tail[0] == wire.TypeTransport
}

// judge decides what to do with datagrams with this header, which by sealed.
func (r *receiver) judge(by Entry, header []byte) {
	r.passed()
	p, t := &r.passage, by.Peer.network.hops.Load()
	*p = passage{by: by, bad: true, policy: t.policy}
	p.n = copy(p.raw[:], header)
	var err error
	if p.header, err = wire.ParseRelayHeader(header); err != nil {
		p.n, p.by, p.drop = 0, Entry{}, DropMalformed // may be longer than raw
		return
	}
	h := &p.header
	p.drop, p.source = DropRelayRefused, t.peers[h.Source()]
	if t.peers[h.Previous()] != by.Peer || h.Receiver() != t.self {
		return // a lie, or a header that was meant for another: no answer
	}
	p.lane, p.account = by.Peer.account(h.Source())
	if h.Final() {
		p.final, p.bad = true, p.source == nil
		p.way = wire.Via(h.Route().Reverse())
		return
	}
	p.fail, p.reason = true, wire.ReasonRefused
	if t.policy == nil || p.source == nil || t.peers[h.Destination()] == nil {
		return
	}
	p.reason, p.drop = wire.ReasonUnreachable, DropRelayNoHop
	if p.next = t.peers[h.Next()]; p.next == nil {
		return
	}
	p.key, p.to = p.next.Session.Sending(), p.next.Path.Choice().Direct
	p.bad, p.mask = p.key == nil || !p.to.IsValid(), p.next.maskTo(p.to)
}

// refuse drops a datagram with the header of the passage, and tells who sent it to us if that helps the source.
func (r *receiver) refuse(d Drop) {
	p := &r.passage
	r.plane.drop(d)
	if p.source != nil && !p.final {
		p.source.relayed.dropped.Add(1)
		p.source.network.relayed.dropped.Add(1)
	}
	if by := p.by.Peer; p.bad && p.fail && by.failed.take(r.now, failures.cost, failures.burst) {
		r.plane.post(Event{Kind: EventPathError, Peer: by, Way: r.direct, Header: p.header, Reason: p.reason})
	}
}

// pass sends b on to the next hop (spec/52-relay.md#forwarding).
func (r *receiver) pass(b []byte) {
	p := &r.passage
	if rate := p.policy.PerSource; rate > 0 && !p.account.bytes.takeBytes(r.now, len(b), rate) {
		r.refuse(DropRelayLimit)
		return
	}
	if p.policy.Rate > 0 {
		p.advance(b)
		p.next.network.shaper.add(p, b)
		return
	}
	if !r.cover(b) {
		p.bad, p.drop = true, DropRelayNoHop
		r.refuse(DropRelayNoHop)
		return
	}
	p.packets++
	p.bytes += len(b)
	r.push(b, p.to, p.mask)
}

// advance writes the header for the next hop into b, in clear.
func (p *passage) advance(b []byte) {
	header := b[wireguard.HeaderLen:][:p.n]
	copy(header, p.raw[:p.n])
	wire.AdvanceRelayHeader(header)
}

// cover writes the sealed header for the next hop into b: one seal for all that is left of the row, unless a mask has to hide that
// they belong together (spec/52-relay.md#shared-seals). It reports false when the keypair may send no more.
func (r *receiver) cover(b []byte) bool {
	p, w := &r.passage, &r.row
	if w.given < w.share {
		wireguard.ShareSeal(b, w.front, w.given)
		w.given++
		return true
	}
	p.advance(b)
	share := w.left
	if p.mask != nil {
		share = 1
	}
	n, err := p.key.SealHeader(r.now, b, p.n, share)
	if err != nil {
		return false
	}
	w.front, w.given, w.share = b[:n], 1, share
	return true
}

// couple adds b, which lies in the buffer that it came in, to the last train, or begins a new one.
func (r *receiver) couple(b []byte, to netip.AddrPort) {
	if r.joint == r.at {
		t := &r.trains[len(r.trains)-1]
		if t.Addr == to && len(b) <= t.Segment && len(t.Data) < maxSegments*t.Segment && len(t.Data)+len(b) <= maxTrain {
			t.Data = t.Data[:len(t.Data)+len(b)]
			r.joint = after(r.at, b, t.Segment)
			return
		}
	}
	if len(r.trains) == maxTrains {
		r.flushRelayed()
	}
	r.trains = append(r.trains, packet.Datagrams{Data: r.whole[r.at : r.at+len(b)], Segment: len(b), Addr: to})
	r.joint = after(r.at, b, len(b))
}

// after returns where in the buffer a datagram must begin to be coupled behind b at place at: nowhere behind a short one.
func after(at int, b []byte, segment int) int {
	if len(b) < segment {
		return -1
	}
	return at + len(b)
}

// flushRelayed sends the trains of relayed datagrams, in their turn.
func (r *receiver) flushRelayed() {
	if len(r.trains) > 0 {
		r.line.await(r.ticket)
		r.plane.send(r.trains)
	}
	r.trains, r.joint = r.trains[:0], -1
}

// passed counts what was passed on by the decision that ends now.
func (r *receiver) passed() {
	p := &r.passage
	if p.packets > 0 {
		n := p.next.network
		n.relayed.add(p.packets, p.bytes)
		p.source.relayed.add(p.packets, p.bytes)
		sealed := p.packets * (wire.RelayOverhead + p.n)
		if notice := p.next.Session.Sent(r.now, p.key, true, sealed); notice != 0 {
			r.plane.post(Event{Kind: EventNotice, Peer: p.next, Notice: notice})
		}
	}
	p.packets, p.bytes = 0, 0
}
