package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

const (
	bufferSize   = 65536
	receiveBatch = 32  // messages of one receive
	maxErrors    = 100 // receive errors in a row before giving up
	maxRuns      = 64
	maxDatagram  = 2048
)

// Run reads the socket until it is closed. It returns nil when the socket was closed.
func (p *Plane) Run() error {
	return p.share(func(l *line) error { return newReceiver(p, l, p.workers == 1).run() })
}

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

// receiver is the memory of one goroutine that reads the socket.
type receiver struct {
	plane  *Plane
	line   *line
	ticket uint64
	eager  bool // write each run at once: nobody else waits for CPU work to be done first
	batch  []packet.Datagrams
	now    int64
	index  map[uint32]Entry

	// The run of packets under one keypair since received was last called.
	last  Entry
	bytes int
	data  bool

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

// bundle is a row of packets for one network's host that may be written as one.
type bundle struct {
	packets packet.Joiner
	to      *Network
}

func newReceiver(p *Plane, l *line, eager bool) *receiver {
	r := &receiver{plane: p, line: l, eager: eager, batch: make([]packet.Datagrams, receiveBatch)}
	for i := range r.batch {
		r.batch[i].Data = make([]byte, bufferSize)
	}
	return r
}

func (r *receiver) run() error {
	for failed := 0; failed < maxErrors; {
		r.line.take()
		n, err := r.plane.socket.ReadBatch(r.batch)
		r.ticket = r.line.give()
		if err == nil {
			failed = 0
			r.open(r.batch[:n])
		}
		r.line.done(r.ticket)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			if failed++; failed == maxErrors {
				return fmt.Errorf("socket: %w", err)
			}
		}
	}
	return nil
}

// open deals with all that one receive has brought.
func (r *receiver) open(batch []packet.Datagrams) {
	r.now = r.plane.now()
	r.index = *r.plane.index.Load()
	for _, d := range batch {
		r.train(d)
	}
	r.flush()
	r.received()
}

// train deals with each datagram of d.
func (r *receiver) train(d packet.Datagrams) {
	for rest := d.Data; len(rest) > 0; {
		n := min(d.Segment, len(rest))
		r.datagram(rest[:n:n], d.Addr)
		rest = rest[n:]
	}
}

// datagram tells by the first byte what came (spec/50-control.md#demultiplexing).
func (r *receiver) datagram(b []byte, from netip.AddrPort) {
	switch b[0] {
	case wire.TypeTransport:
		r.transport(b, from)
	case wire.TypeInitiation, wire.TypeResponse, wire.TypeCookieReply, wire.TypeJoin:
		if len(b) <= maxDatagram {
			r.plane.post(Event{Kind: EventDatagram, From: from, Data: slices.Clone(b)})
		}
	default:
		r.plane.drop(DropUnknown)
	}
}

func (r *receiver) transport(b []byte, from netip.AddrPort) {
	if len(b) < overhead {
		r.plane.drop(DropMalformed)
		return
	}
	e := r.last
	if i := binary.LittleEndian.Uint32(b[4:]); e.Keypair == nil || e.Keypair.LocalIndex() != i {
		var ok bool
		if e, ok = r.index[i]; !ok {
			r.plane.drop(DropStale)
			return
		}
	}
	plain, marks, err := e.Keypair.Open(r.now, b)
	if err != nil {
		r.plane.drop(dropOf(err))
		return
	}
	if e != r.last {
		r.received()
		r.last = e
	}
	r.bytes += len(b)
	if last := e.Peer.from.Load(); last == nil || *last != from {
		r.moved(e.Peer, from)
	}
	switch {
	case len(plain) == 0: // keepalive
	case wire.IsControl(plain):
		r.received() // what the session says of it comes first: it may be what confirms the session
		r.plane.post(Event{Kind: EventControl, Peer: e.Peer, From: from, Data: slices.Clone(plain)})
	default:
		r.data = true
		r.inner(e.Peer, plain, marks&wireguard.MarkPartial != 0)
	}
}

// moved tells the control loop that peer speaks from another address.
func (r *receiver) moved(peer *Peer, from netip.AddrPort) {
	if r.plane.post(Event{Kind: EventMoved, Peer: peer, From: from}) {
		f := from // only now, so that it stays off the heap otherwise
		peer.from.Store(&f)
	}
}

func dropOf(err error) Drop {
	switch {
	case errors.Is(err, wireguard.ErrReplay):
		return DropReplay
	case errors.Is(err, wireguard.ErrExpired):
		return DropExpired
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
		r.flush()
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

// flush writes what waits to its TUN devices, in its turn.
func (r *receiver) flush() {
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

// received counts the packets of the last run and passes on what their session says of them.
func (r *receiver) received() {
	if e := r.last; e.Keypair != nil {
		if notice := e.Peer.Session.Received(r.now, e.Keypair, r.data, r.bytes); notice != 0 {
			r.plane.post(Event{Kind: EventNotice, Peer: e.Peer, Notice: notice})
		}
	}
	r.last, r.bytes, r.data = Entry{}, 0, false
}

// write gives the host a packet. What it does not take is lost, as on a wire.
func (n *Network) write(o packet.Offload, pieces [][]byte) {
	if err := n.tunnel.WriteFrame(o, pieces); err != nil && !errors.Is(err, os.ErrClosed) {
		n.plane.drop(DropTunnel)
	}
}
