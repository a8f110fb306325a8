// Package dataplane moves packets between TUN devices and the socket.
//
// Each worker is one goroutine that takes a batch and runs it to completion: read, look up, seal or open, write. No packet
// passes from one goroutine to another, and nothing is allocated for one. Where there are CPUs enough, several workers share a
// socket or a TUN device: they read in turns, seal and open at the same time, and write in the order in which they read (line).
//
//	out: Tunnel.ReadFrames -> routes: inner destination -> Peer -> Segmenter -> Keypair.Seal into the train -> Socket.WriteBatch
//	in:  Socket.ReadBatch -> first byte -> index: Keypair -> Open in place -> cryptokey check -> Joiner -> Tunnel.WriteFrame
//
// What the workers need they read from immutable snapshots that the control loop publishes ([Plane.SetIndex],
// [Network.SetRoutes]) and from the atomics of wireguard.Peer and path.Peer. They write only send counters, replay windows,
// statistics, and the queue of packets that wait for a session. What is not theirs to decide they tell the control loop
// as an [Event]; when its queue is full the event is dropped and counted, never waited for.
//
// [Plane.Run] and [Network.Run] are the workers. The methods with "Send" in their name belong to the control loop, one
// goroutine; everything else is safe for concurrent use.
package dataplane

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// Socket is the UDP side: internal/udp, or a simulated one.
type Socket interface {
	ReadBatch(b []packet.Datagrams) (int, error)
	WriteBatch(b []packet.Datagrams) error
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
	EventDatagram EventKind = iota // Data: a datagram from From that is no transport message: handshake, join
	EventControl                   // Data: a control message (spec/50-control.md) of Peer, from From
	EventWanted                    // packets for Peer wait for a session or a path
	EventNotice                    // Notice: what wireguard.Peer said of a batch
	EventMoved                     // authenticated packets of Peer now come from From
)

// Event is one thing that the control loop must deal with. Data belongs to the receiver.
type Event struct {
	Kind   EventKind
	Peer   *Peer // nil for EventDatagram
	From   netip.AddrPort
	Data   []byte
	Notice wireguard.Notice
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
	drops   [numDrops]atomic.Uint64
	ctl     *sender // the control loop's
}

// New makes a data plane that moves nothing yet. Events go to events, which the control loop drains. epoch is that of the
// wireguard engines' Config.
func New(socket Socket, events chan<- Event, epoch time.Time) *Plane {
	p := &Plane{socket: socket, events: events, epoch: epoch, workers: workersFor(runtime.GOMAXPROCS(0))}
	p.index.Store(&map[uint32]Entry{})
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

// Network is one network's part: its TUN device and its routes.
type Network struct {
	plane  *Plane
	tunnel Tunnel
	uso    bool // the tunnel takes super-packets of UDP datagrams
	routes atomic.Pointer[route.Table[*Peer]]
}

// NewNetwork adds a network whose packets enter and leave by tunnel; uso says that it takes super-packets of UDP datagrams.
// Nothing is routed before SetRoutes.
func (p *Plane) NewNetwork(tunnel Tunnel, uso bool) *Network {
	return &Network{plane: p, tunnel: tunnel, uso: uso}
}

// SetRoutes publishes which peer each inner address belongs to, for sending and for checking sources. nil routes nothing.
func (n *Network) SetRoutes(t *route.Table[*Peer]) { n.routes.Store(t) }

// Peer is one peer of one network, as the workers see it.
type Peer struct {
	Session *wireguard.Peer
	Path    *path.Peer
	Owner   any // the control loop's own; never touched here

	network *Network
	from    atomic.Pointer[netip.AddrPort] // where its last authenticated packet came from
	staged  stage
}

// NewPeer makes a peer of n.
func (n *Network) NewPeer(session *wireguard.Peer, p *path.Peer, owner any) *Peer {
	return &Peer{Session: session, Path: p, Owner: owner, network: n}
}

// Drop is a reason for which a packet went no further.
type Drop uint8

// The reasons.
const (
	DropMalformed Drop = iota // not a packet, or an offload header that does not fit
	DropUnknown               // no such message type
	DropNoRoute               // inner destination is nobody's
	DropStale                 // no session stands under the receiver index
	DropAuth                  // authentication failed
	DropReplay                // counter seen before or too old
	DropExpired               // keypair past its life
	DropSource                // inner source is not the peer's
	DropTooBig                // does not fit the path; the sender was told
	DropStage                 // too many packets wait for a session, or in vain
	DropTunnel                // the host did not take it
	DropSocket                // the socket did not take it
	DropEvents                // the control loop is busy
	numDrops
)

var dropNames = [numDrops]string{"malformed", "unknown_type", "no_route", "no_session", "bad_auth", "replayed", "expired",
	"bad_source", "too_big", "stage_full", "tunnel_write", "socket_write", "control_busy"}

// String names the reason as status shows it.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return fmt.Sprintf("drop(%d)", uint8(d))
}

func (p *Plane) drop(d Drop) { p.drops[d].Add(1) }

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
