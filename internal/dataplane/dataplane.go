// Package dataplane moves packets between TUN devices and the socket.
//
// Each worker is one goroutine that takes a batch and runs it to completion: read, look up, seal or open, write. No packet
// passes from one goroutine to another, and nothing is allocated for one. Where there are CPUs enough, several workers share a
// socket or a TUN device: they read in turns, seal and open at the same time, and write in the order in which they read (line).
//
//	out: Tunnel.ReadFrames -> routes: inner destination -> Peer -> Segmenter -> Keypair.Seal into the train -> Socket.WriteBatch
//	in:  Socket.ReadBatch -> first byte -> index: Keypair -> Open in place -> cryptokey check -> Joiner -> Tunnel.WriteFrame
//	on:  Socket.ReadBatch -> first byte -> index: Keypair -> OpenHeader and SealHeader in place, once for a row -> Socket.WriteBatch
//
// The last line is a relay's: it changes the header of a relayed datagram where it lies and sends it on, whole trains at once;
// the tail is never looked at. Only with a limit on all that is relayed do datagrams wait in a fair queue (shaper).
//
// What the workers need they read from immutable snapshots that the control loop publishes ([Plane.SetIndex],
// [Network.SetRoutes], [Network.SetHops]) and from the atomics of wireguard.Peer and path.Peer. They write only send counters,
// replay windows, statistics, token buckets, and the queues of packets that wait for a session or for their turn. What is not
// theirs to decide they tell the control loop as an [Event]; when its queue is full the event is dropped and counted, never
// waited for.
//
// A worker that waits inside of a system call counts as running for the Go runtime: so that others run beside it, GOMAXPROCS is
// best one more than there are CPUs.
//
// [Plane.Run], [Plane.RunBeside] and [Network.Run] are the workers. The methods with "Send" in their name belong to the control loop, one
// goroutine; everything else is safe for concurrent use.
package dataplane

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// Socket is the UDP side: internal/udp, or a simulated one.
type Socket interface {
	Source
	WriteBatch(b []packet.Datagrams) error
}

// Source is where datagrams come from: a Socket, or internal/stream's streams. ReadBatch returns net.ErrClosed after the end.
type Source interface {
	ReadBatch(b []packet.Datagrams) (int, error)
}

// Tunnel is the TUN side: internal/tun, or a simulated one.
type Tunnel interface {
	ReadFrames(frames []packet.Frame) (int, error)
	WriteFrame(o packet.Offload, pieces [][]byte) error
}

// EventKind says what a worker tells the control loop.
type EventKind uint8

// The kinds of events.
const (
	EventDatagram  EventKind = iota // Data: a datagram by Way that is no transport message: handshake, join
	EventControl                    // Data: a control message (spec/50-control.md) of Peer, by Way
	EventWanted                     // packets for Peer wait for a session or a path
	EventNotice                     // Notice: what wireguard.Peer said of a batch
	EventMoved                      // authenticated packets of Peer now come by Way
	EventPathError                  // as a relay we could not pass on what Peer sent us: Header is what it had, Reason why
	EventNoHop                      // we have no session or direct path to the first relay of Way, by which we should send to Peer
	EventGroups                     // Data: a packet in which Network's host says which groups it listens to; for Listening.Hear
)

// Event is one thing that the control loop must deal with. Data belongs to the receiver, which calls [Event.Taken].
type Event struct {
	Kind EventKind
	Peer *Peer // nil for an EventDatagram that came directly; its source, as the relays say, for one that was relayed
	// Way is the way to answer: the address from which a message came directly, or the reverse of the route by which it came.
	Way     wire.Way
	Data    []byte
	Notice  wireguard.Notice
	Header  wire.RelayHeader
	Reason  wire.PathReason
	Network *Network // of EventGroups alone
	// Mask is under what an EventDatagram that came directly was masked: so must the answer be. nil: it was plain.
	Mask *wire.Mask
}

// Entry is what a receiver index stands for.
type Entry struct {
	Keypair *wireguard.Keypair
	Peer    *Peer
}

// Plane is the data plane of a process: one socket, several networks.
type Plane struct {
	socket  Socket
	events  chan<- Event
	epoch   time.Time
	workers int // that share the socket, or a TUN device
	index   atomic.Pointer[map[uint32]Entry]
	masks   atomic.Pointer[[]*wire.Mask]
	drops   [numDrops]atomic.Uint64
	came    atomic.Uint64
	ctl     *sender // the control loop's
}

// New makes a data plane that moves nothing yet. Events go to events, which the control loop drains. epoch is that of the
// wireguard engines' Config.
func New(socket Socket, events chan<- Event, epoch time.Time) *Plane {
	p := &Plane{socket: socket, events: events, epoch: epoch, workers: workersFor(cpus())}
	p.index.Store(&map[uint32]Entry{})
	p.masks.Store(&[]*wire.Mask{})
	p.ctl = newSender(p, nil, 0)
	return p
}

// now reads the workers' clock: once a batch.
func (p *Plane) now() int64 { return wireguard.Nanos(p.epoch, time.Now()) }

// SetIndex publishes the receiver indices of all live keypairs. The map must not be changed afterwards.
func (p *Plane) SetIndex(index map[uint32]Entry) { p.index.Store(&index) }

// post tells the control loop something; false when its queue is full.
func (p *Plane) post(e Event) bool {
	select {
	case p.events <- e:
		return true
	default:
		p.drop(DropEvents)
		return false
	}
}

// postFrom tells the control loop what came from an address, by nobody knows whom. Strangers take no more than three quarters of the
// queue: while it is long, there is still room for what members say inside their sessions.
func (p *Plane) postFrom(e Event) {
	if len(p.events) >= cap(p.events)-cap(p.events)/4 {
		p.drop(DropEvents)
		return
	}
	p.post(e)
}

// postControl tells the control loop what peer said in its session. What one peer says takes no more than half of the queue.
func (p *Plane) postControl(peer *Peer, way wire.Way, plain []byte) {
	if int(peer.waiting.Add(1)) > cap(p.events)/2 {
		peer.waiting.Add(-1)
		p.drop(DropEvents)
		return
	}
	if !p.post(Event{Kind: EventControl, Peer: peer, Way: way, Data: slices.Clone(plain)}) {
		peer.waiting.Add(-1)
	}
}

// Taken says that the control loop has taken e out of its queue, which it must say once of each: so there is room for the next of the
// same peer.
func (e *Event) Taken() {
	if e.Kind == EventControl {
		e.Peer.waiting.Add(-1)
	}
}

// Network is one network's part: its TUN device and its routes.
type Network struct {
	plane   *Plane
	tunnel  Tunnel
	uso     bool // the tunnel takes super-packets of UDP datagrams
	routes  atomic.Pointer[route.Table[*Peer]]
	hops    atomic.Pointer[hops]
	shaper  shaper
	many    many
	relayed counters
}

// NewNetwork adds a network whose packets enter and leave by tunnel; uso says that it takes super-packets of UDP datagrams.
// Nothing is routed before SetRoutes.
func (p *Plane) NewNetwork(tunnel Tunnel, uso bool) *Network {
	n := &Network{plane: p, tunnel: tunnel, uso: uso}
	n.hops.Store(&hops{})
	n.shaper.wake = make(chan struct{}, 1)
	return n
}

// SetRoutes publishes which peer each inner address belongs to, for sending and for checking sources. nil routes nothing.
func (n *Network) SetRoutes(t *route.Table[*Peer]) { n.routes.Store(t) }

// Peer is one peer of one network, as the workers see it.
type Peer struct {
	ID      key.ShortID
	Session *wireguard.Peer
	Path    *path.Peer
	Owner   any // the control loop's own; never touched here

	network *Network
	mask    atomic.Pointer[wire.Mask] // see SetMask
	from    atomic.Pointer[wire.Way]  // by which its last authenticated packet came
	moved   bucket                    // of EventMoved
	failed  bucket                    // of EventPathError and EventNoHop
	lane    atomic.Pointer[lane]      // what it sends us to pass on; nil until it does
	relayed counters                  // what was relayed of which it is the source, by what the one before says
	carried atomic.Uint64             // see Carried
	waiting atomic.Int32              // EventControl in the queue
	staged  stage
}

// Carried counts the bytes of messages to and from the peer that hold packets of the hosts, roughly: what tells use from idleness.
// Any goroutine may call it.
func (p *Peer) Carried() uint64 { return p.carried.Load() }

// NewPeer makes a peer of n. id is the short id of its node id: by it relayed datagrams name it.
func (n *Network) NewPeer(id key.ShortID, session *wireguard.Peer, p *path.Peer, owner any) *Peer {
	return &Peer{ID: id, Session: session, Path: p, Owner: owner, network: n}
}

// From returns the way by which authenticated packets of the peer came last, or the zero Way. When they come by several ways in
// turn it is one of them. Any goroutine may call it.
func (p *Peer) From() wire.Way {
	if w := p.from.Load(); w != nil {
		return *w
	}
	return wire.Way{}
}

// Drop is a reason for which a packet went no further.
type Drop uint8

// The reasons.
const (
	DropMalformed      Drop = iota // not a packet, or an offload header that does not fit
	DropUnknown                    // no such message type
	DropNoRoute                    // inner destination is nobody's
	DropStale                      // no session stands under the receiver index
	DropAuth                       // authentication failed
	DropReplay                     // counter seen before or too old
	DropExpired                    // keypair past its life
	DropSource                     // inner source is not the peer's
	DropTooBig                     // does not fit the path; the sender was told
	DropStage                      // too many packets wait for a session, or in vain
	DropTunnel                     // the host did not take it
	DropSocket                     // the socket did not take it
	DropEvents                     // the control loop is busy
	DropRelayRefused               // relayed datagram that is not for us to read or to pass on
	DropRelayNoHop                 // no session or direct path to the next hop
	DropRelayLimit                 // its source or neighbour is over its rate
	DropRelayQueue                 // relayed datagrams wait already as long as they may
	DropBroadcast                  // for many, but switched off or not to leave its link
	DropBroadcastLimit             // its copies would be too many
	numDrops
)

var dropNames = [numDrops]string{"malformed", "unknown_type", "no_route", "no_session", "bad_auth", "replayed", "expired",
	"bad_source", "too_big", "stage_full", "tunnel_write", "socket_write", "control_busy", "relay_refused", "relay_no_hop",
	"relay_limit", "relay_queue", "broadcast_refused", "broadcast_limit"}

// String names the reason as status shows it.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return fmt.Sprintf("drop(%d)", uint8(d))
}

func (p *Plane) drop(d Drop) { p.drops[d].Add(1) }

// Received returns how many messages came by the socket, and by what is read beside it. A train that came whole is one.
func (p *Plane) Received() uint64 { return p.came.Load() }

// Drops returns how many packets each reason has cost, by name, without the zeros.
func (p *Plane) Drops() map[string]uint64 {
	out := map[string]uint64{}
	for d := range numDrops {
		if n := p.drops[d].Load(); n > 0 {
			out[d.String()] = n
		}
	}
	return out
}
