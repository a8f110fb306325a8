package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	bufferSize   = 65536
	receiveBatch = 32  // messages of one receive
	maxErrors    = 100 // receive errors in a row before giving up, after a few seconds
	pauseStep    = time.Millisecond
	pauseMost    = 50 * time.Millisecond
	maxRuns      = 64
	maxDatagram  = 2048
	yieldTime    = int64(8 * time.Millisecond)
)

// Run reads the socket until it is closed. It returns nil when the socket was closed.
func (p *Plane) Run() error {
	return p.share(func(l *line) error { return newReceiver(p, p.socket, l, p.workers == 1).run() })
}

// RunBeside reads what comes in by from, beside the socket, until from is closed; then it returns nil. Answers go by the socket,
// which knows the addresses of what came here. It reads from one goroutine.
func (p *Plane) RunBeside(from Source) error { return newReceiver(p, from, newLine(), true).run() }

// share runs the workers of one stream and waits for their end. The first error counts.
func (p *Plane) share(work func(*line) error) error {
	l := newLine()
	errs := make([]error, p.workers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = work(l) }) // ends when the socket or device is closed
	}
	wg.Wait()
	return errors.Join(errs...)
}

// receiver is the memory of one goroutine that reads datagrams.
type receiver struct {
	plane  *Plane
	from   Source
	line   *line
	ticket uint64
	eager  bool // write each run at once: nobody else waits for CPU work to be done first
	batch  []packet.Datagrams
	now    int64
	parted int64 // see yield
	index  map[uint32]Entry

	mask     *wire.Mask // of the datagram at hand; nil: it came plain
	lastMask int        // place of the last that was found
	front    [wire.MaskBlock]byte
	boxed    [wire.MaxMasked]byte

	// Messages since received was last called: those of peers, and the headers of relayed ones, of neighbours.
	last, hop run

	direct wire.Way // where the train at hand came from
	heard  *Peer    // direct was compared with the way by which it came last

	passage passage
	row     row
	trains  []packet.Datagrams // relayed datagrams that wait to be sent on, in the buffers they came in
	whole   []byte             // the buffer at hand
	segment int                // size of all datagrams in whole but for the last
	at      int                // place of the datagram at hand in whole
	joint   int                // place in whole at which a datagram can be coupled to the last of trains; -1 for none

	// What waits to be written to TUN devices: runs[:filled], each as one frame.
	runs   [maxRuns]bundle
	filled int

	// The last source that passed the cryptokey check, and of whom.
	source struct {
		addr  netip.Addr
		peer  *Peer
		table *route.Table[*Peer]
	}
}

// run is a row of messages under one keypair.
type run struct {
	Entry
	bytes   int
	data    bool // one was more than a keepalive
	carried int  // bytes of those that held packets, see Peer.Carried
}

// bundle is a row of packets for one network's host that may be written as one.
type bundle struct {
	packets packet.Joiner
	to      *Network
}

func newReceiver(p *Plane, from Source, l *line, eager bool) *receiver {
	r := &receiver{plane: p, from: from, line: l, eager: eager, batch: make([]packet.Datagrams, receiveBatch), joint: -1}
	r.trains = make([]packet.Datagrams, 0, maxTrains)
	for i := range r.batch {
		r.batch[i].Data = make([]byte, bufferSize)
	}
	return r
}

func (r *receiver) run() error {
	for failed := 0; failed < maxErrors; {
		r.line.take()
		n, err := r.from.ReadBatch(r.batch)
		r.ticket = r.line.give()
		if err == nil {
			failed = 0
			r.open(r.batch[:n])
		}
		r.line.done(r.ticket)
		r.yield()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			if failed++; failed == maxErrors {
				return fmt.Errorf("socket: %w", err)
			}
			time.Sleep(min(time.Duration(failed-1)*pauseStep, pauseMost)) // it may pass: the kernel has no memory, say
		}
	}
	return nil
}

// yield gives up the CPU now and then. Who waits inside of system calls never does so otherwise: the runtime would take it for one
// that works all the time, interrupt it after 10 ms and, because there was one to interrupt, look again every 20 us.
func (r *receiver) yield() {
	if r.now-r.parted > yieldTime {
		r.parted = r.now
		runtime.Gosched()
	}
}

// open deals with all that one receive has brought.
func (r *receiver) open(batch []packet.Datagrams) {
	r.now = r.plane.now()
	r.plane.came.Add(uint64(len(batch)))
	r.index = *r.plane.index.Load()
	for _, d := range batch {
		r.train(d)
	}
	r.flush()
	r.received()
}

// train deals with each datagram of d.
func (r *receiver) train(d packet.Datagrams) {
	r.direct, r.heard = wire.Direct(d.Addr), nil
	r.whole, r.segment, r.joint = d.Data, d.Segment, -1
	for r.at = 0; r.at < len(d.Data); r.at += d.Segment {
		r.datagram(r.hand())
	}
}

// hand returns the datagram at hand.
func (r *receiver) hand() []byte {
	end := min(r.at+r.segment, len(r.whole))
	return r.whole[r.at:end:end]
}

// datagram tells by the first byte what came (spec/50-control.md#demultiplexing).
func (r *receiver) datagram(b []byte) {
	r.mask = nil
	if !wire.IsPlain(b) {
		if b = r.unmask(b); b == nil {
			r.plane.drop(DropUnknown)
			return
		}
	}
	switch b[0] {
	case wire.TypeTransport:
		r.transport(b, nil)
	case wire.TypeRelay:
		r.relay(b)
	case wire.TypeInitiation, wire.TypeResponse, wire.TypeCookieReply, wire.TypeJoin, wire.TypeDHT:
		if len(b) <= maxDatagram {
			r.plane.postFrom(Event{Kind: EventDatagram, Way: r.direct, Data: slices.Clone(b), Mask: r.mask})
		}
	default:
		r.plane.drop(DropUnknown)
	}
}

// transport deals with a transport message: one that came directly, or the tail of what came by the relays of p.
func (r *receiver) transport(b []byte, p *passage) {
	if len(b) < overhead {
		r.plane.drop(DropMalformed)
		return
	}
	e, ok := r.entry(&r.last, b)
	if !ok {
		return
	}
	if p != nil && e.Peer != p.source {
		r.plane.drop(DropRelayRefused)
		return
	}
	plain, marks, err := e.Keypair.Open(r.now, b)
	if err != nil {
		r.plane.drop(dropOf(err))
		return
	}
	r.opened(&r.last, e, len(b), false)
	way := &r.direct
	if p == nil {
		r.arrived(e.Peer)
	} else if way = &p.way; !p.heard {
		r.compare(e.Peer, way)
		p.heard = true
	}
	switch {
	case len(plain) == 0: // keepalive
	case wire.IsControl(plain):
		r.end(&r.hop) // what the sessions say of it comes first: it may be what confirms them
		r.end(&r.last)
		r.plane.postControl(e.Peer, *way, plain)
	default:
		r.last.data = true
		r.last.carried += len(b)
		r.inner(e.Peer, plain, marks&wireguard.MarkPartial != 0)
	}
}

// entry finds the keypair of a message by its receiver index: most often it is that of the message before.
func (r *receiver) entry(u *run, b []byte) (e Entry, ok bool) {
	i := binary.LittleEndian.Uint32(b[4:])
	if u.Keypair != nil && u.Keypair.LocalIndex() == i {
		return u.Entry, true
	}
	if e, ok = r.index[i]; !ok {
		r.plane.drop(DropStale)
	}
	return e, ok
}

// opened adds an authentic message of n bytes to the run u, or begins a new one.
func (r *receiver) opened(u *run, e Entry, n int, data bool) {
	if e != u.Entry {
		r.end(u)
		u.Entry = e
	}
	u.bytes += n
	u.data = u.data || data
}

// arrived notes that peer spoke from where the train at hand came from.
func (r *receiver) arrived(peer *Peer) {
	if r.heard != peer {
		r.heard = peer
		r.compare(peer, &r.direct)
	}
}

// compare tells the control loop if peer speaks by another way than before. A peer that speaks by several ways in turn is not
// reported each time.
func (r *receiver) compare(peer *Peer, way *wire.Way) {
	if last := peer.from.Load(); last != nil && *last == *way || !peer.moved.take(r.now, moves.cost, moves.burst) {
		return
	}
	if r.plane.post(Event{Kind: EventMoved, Peer: peer, Way: *way}) {
		w := *way // only now, so that it stays off the heap otherwise
		peer.from.Store(&w)
	}
}

func dropOf(err error) Drop {
	switch {
	case errors.Is(err, wireguard.ErrReplay):
		return DropReplay
	case errors.Is(err, wireguard.ErrExpired):
		return DropExpired
	case errors.Is(err, wireguard.ErrMalformed):
		return DropMalformed
	}
	return DropAuth
}

// inner passes an IP packet of peer on to the host, if its source is peer's own. partial: its checksum is the host's to complete.
func (r *receiver) inner(peer *Peer, p []byte, partial bool) {
	p, ok := packet.Trim(p)
	if !ok {
		r.plane.drop(DropMalformed)
		return
	}
	source, _ := packet.Source(p)
	if !r.owns(peer, source) {
		r.plane.drop(DropSource)
		return
	}
	if a := peer.network.many.hears(); !a.takes(p) {
		r.plane.drop(DropBroadcast)
		return
	}
	if partial && !packet.PartialOK(p) {
		r.plane.drop(DropMalformed)
		return
	}
	packet.ClampMSS(p, peer.Path.MTU())
	if r.filled > 0 {
		if last := &r.runs[r.filled-1]; last.to == peer.network && last.packets.Add(p, partial) {
			return
		}
	}
	if r.filled == maxRuns || r.eager {
		r.flushInner()
	}
	next := &r.runs[r.filled]
	next.to, next.packets.UDP = peer.network, peer.network.uso
	next.packets.Add(p, partial)
	r.filled++
}

// owns is the cryptokey check (spec/40-wireguard.md#cryptokey-routing): is source routed to peer?
func (r *receiver) owns(peer *Peer, source netip.Addr) bool {
	table := peer.network.routes.Load()
	if s := &r.source; s.addr == source && s.peer == peer && s.table == table {
		return true
	}
	owner, ok := table.Lookup(source)
	if !ok || owner != peer {
		return false
	}
	r.source.addr, r.source.peer, r.source.table = source, peer, table
	return true
}

// flush writes all that waits, in its turn.
func (r *receiver) flush() {
	r.flushInner()
	r.flushRelayed()
}

// flushInner writes what waits to its TUN devices, in its turn.
func (r *receiver) flushInner() {
	if r.filled == 0 {
		return
	}
	r.line.await(r.ticket)
	for i := range r.runs[:r.filled] {
		pieces, o := r.runs[i].packets.Flush()
		r.runs[i].to.write(o, pieces)
	}
	r.filled = 0
}

// received counts the messages of the last runs and passes on what their sessions say of them.
func (r *receiver) received() {
	r.end(&r.hop)
	r.end(&r.last)
	r.passed()
	r.passage.by = Entry{} // snapshots may change
}

// end ends a run.
func (r *receiver) end(u *run) {
	if e := u.Entry; e.Keypair != nil {
		if u.carried > 0 {
			e.Peer.carried.Add(uint64(u.carried))
		}
		if notice := e.Peer.Session.Received(r.now, e.Keypair, u.data, u.bytes); notice != 0 {
			r.plane.post(Event{Kind: EventNotice, Peer: e.Peer, Notice: notice})
		}
	}
	*u = run{}
}

// write gives the host a packet. What it does not take is lost, as on a wire.
func (n *Network) write(o packet.Offload, pieces [][]byte) {
	if err := n.tunnel.WriteFrame(o, pieces); err != nil && !errors.Is(err, os.ErrClosed) {
		n.plane.drop(DropTunnel)
	}
}
