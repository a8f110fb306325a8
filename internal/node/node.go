// Package node makes a running node of the parts: it builds them, owns their lifetimes, and runs the one control loop.
//
// A [Node] serves several networks over one UDP port. The control loop, one goroutine, owns every engine of every network and
// all state below; it takes three kinds of input, one at a time: events of the data plane's workers, calls of the API, and
// time. After each it carries out the effects that the engines ask for, carrying one engine's output to the next one's
// input. Nothing in it waits but for the disk, when records are made safe before they are passed on.
//
//	            API calls      time
//	                 \          |
//	workers --> events --> [control loop] --> engines --> effects --> [control loop] --> snapshots --> workers
//
// [New] opens the state directory and the socket and starts nothing; [Node.Run] returns when all it started is gone. A Node
// implements api.Backend; those methods may be called from any goroutine while Run runs.
package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/dht"
	"github.com/warren-vpn/warren/internal/host"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/nat"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/portmap"
	"github.com/warren-vpn/warren/internal/state"
	"github.com/warren-vpn/warren/internal/tun"
	"github.com/warren-vpn/warren/internal/udp"
)

const (
	// DefaultPort is tried first when neither the config nor an earlier run says which port to use.
	DefaultPort = 48271

	eventQueue   = 1024
	eventsAtOnce = 64 // taken before the engines' effects are carried out
	underLoad    = eventQueue / 8
	loadHold     = time.Second // under load lasts at least this long (protocol of WireGuard, section 5.3)
	idleTick     = time.Minute
)

// Options is what a Node is made of.
type Options struct {
	StateDir string
	Config   config.Config
	Version  string
	Log      *slog.Logger // nil: silent
	Platform Platform     // the zero Platform is this machine's: see [System]
}

// Node is one running node. See the package comment for who may call what.
type Node struct {
	opt     Options
	log     *slog.Logger
	sys     Platform
	dir     *state.Dir
	socket  Socket
	plane   *dataplane.Plane
	streams *streams  // nil: there is no TCP
	feet    *udp.Feet // nil: ports are not searched
	events  chan dataplane.Event
	calls   chan func()
	done    chan struct{} // closed when Run no longer takes calls
	halt    context.CancelFunc
	started time.Time
	wg      sync.WaitGroup  // workers of the data plane, watchers, questions to the DHT
	ctx     context.Context // of Run
	dht     *dht.Client     // nil: not used
	beacons Beacons         // nil: not used
	mapper  *portmap.Mapper // nil: not used

	// What follows belongs to the control loop.
	networks map[key.NetworkID]*network
	joins    map[*joining]struct{}
	finders  map[*finder]struct{}
	nat      *nat.Engine
	dhtSeen  time.Time // the newest observation of the DHT that nat knows
	masks    masks
	hard     path.Turn                  // of hard attempts, of all networks
	index    map[uint32]dataplane.Entry // live keypairs; published when dirty
	dirty    bool
	local    []netip.Addr // where this host can be reached
	loaded   time.Time    // when the event queue was last long
	rest     rest
	metered  bool // the system says that this machine pays for what it sends
	warnings map[string]string
}

// New opens the state directory and the socket. The error says what a user can do.
func New(opt Options) (*Node, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Platform.Listen == nil {
		opt.Platform = System()
	}
	opt.Version = opt.Version[:min(len(opt.Version), member.MaxVersion)] // of a build from a checkout it is longer
	n := &Node{
		opt: opt, log: opt.Log.With("part", "node"), sys: opt.Platform, started: time.Now(),
		events: make(chan dataplane.Event, eventQueue), calls: make(chan func()), done: make(chan struct{}),
		networks: map[key.NetworkID]*network{}, joins: map[*joining]struct{}{}, finders: map[*finder]struct{}{}, index: map[uint32]dataplane.Entry{},
		warnings: map[string]string{},
	}
	n.nat = nat.New(nat.Config{Refuse: n.inside}, n.log)
	var err error
	if n.dir, err = state.Open(opt.StateDir); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		return nil, errors.Join(err, n.dir.Close())
	}
	for i, limit := range host.Limits() {
		n.log.Warn("not everything works on this system", "limit", limit)
		n.warnings[fmt.Sprintf("host%d", i)] = limit
	}
	n.streams = n.newStreams()
	n.newFeet()
	n.plane = dataplane.New(n.over(), n.events, n.started)
	if err := n.load(); err != nil {
		return nil, errors.Join(err, n.socket.Close(), n.dir.Close())
	}
	return n, nil
}

// listen binds the port that the config names, or the one of last time, or the default, or any.
func (n *Node) listen() (err error) {
	if p := n.opt.Config.Daemon.Port; p != 0 {
		if n.socket, err = n.sys.Listen(p); errors.Is(err, udp.ErrPortTaken) {
			return fmt.Errorf("%w; stop the program that uses it, or choose another daemon.port in the config file", err)
		}
		return err
	}
	saved, err := n.dir.Daemon()
	if err != nil {
		n.log.Warn("daemon settings unreadable, going on without", "err", err)
	}
	tries := []uint16{saved.Port, DefaultPort, 0}
	if saved.Port == 0 {
		tries = tries[1:]
	}
	for _, p := range tries {
		if n.socket, err = n.sys.Listen(p); err == nil {
			break
		}
		if !errors.Is(err, udp.ErrPortTaken) {
			return err
		}
	}
	if err == nil && n.socket.Port() != saved.Port {
		saved.Port = n.socket.Port()
		err = n.dir.SaveDaemon(saved)
	}
	return err
}

// ErrPortTaken is in the chain of New's errors when another program uses the port that the config names.
var ErrPortTaken = udp.ErrPortTaken

// LockedError is New's error when another daemon uses the state directory.
type LockedError = state.LockedError

// Close releases what New opened, of a Node that is not going to Run.
func (n *Node) Close() error {
	err := n.socket.Close()
	for _, w := range n.networks {
		err = errors.Join(err, w.close())
	}
	return errors.Join(err, n.dir.Close())
}

// load reads the networks of the state directory. One that cannot be read is left alone and shown as a warning.
func (n *Node) load() error {
	ids, err := n.dir.Networks()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := n.loadNetwork(id); err != nil {
			n.log.Error("network cannot be loaded", "network", id, "err", err)
			n.warnings[id.String()] = fmt.Sprintf("network %.8s… cannot be loaded: %v", id, err)
		}
	}
	return nil
}

// Run runs the node until ctx ends or Stop is called. It brings up every network that is meant to be up. It must be called
// once, and closes the state directory and the socket before it returns. The error says why it ended unasked, or what could not
// be closed.
func (n *Node) Run(ctx context.Context) error {
	ctx, n.halt = context.WithCancel(ctx)
	defer n.halt()
	n.ctx = ctx
	n.newDHT()
	n.newBeacons()
	n.mapPort()
	n.runStreams()
	n.runFeet()
	var failed error
	n.wg.Go(func() { // ends when shutdown closes the socket
		if err := n.plane.Run(); err != nil {
			n.log.Error("receiving stopped", "err", err)
			failed = fmt.Errorf("nothing can be received any more: %w", err)
			n.halt()
		}
	})
	n.wg.Go(func() { // ends with ctx
		err := n.sys.Watch(ctx, n.ours, func() { n.call(ctx, n.hostChanged) })
		if err != nil && ctx.Err() == nil {
			n.log.Warn("changes of the host's network are not seen", "err", err)
		}
	})
	if n.sys.WatchMetered != nil {
		n.wg.Go(func() { // ends with ctx
			n.sys.WatchMetered(ctx, func(metered bool) {
				_ = n.call(ctx, func() { n.metered = metered }) // an error: the node stops
			})
		})
	}
	n.hostChanged()
	for _, w := range n.networks {
		w.start(time.Now())
	}
	n.loop(ctx)
	err := n.shutdown() // waits for all that may have failed
	return errors.Join(failed, err)
}

// loop is the control loop.
func (n *Node) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(n.settle(time.Now())))
		select {
		case <-ctx.Done():
			return
		case f := <-n.calls:
			f()
		case <-timer.C:
		case <-n.woken():
		case e := <-n.events:
			now := time.Now()
			if len(n.events) >= underLoad {
				n.loaded = now
			}
			n.event(now, e)
			n.drain(now)
		}
	}
}

// drain takes more events without waiting.
func (n *Node) drain(now time.Time) {
	for range eventsAtOnce {
		select {
		case e := <-n.events:
			n.event(now, e)
		default:
			return
		}
	}
}

// settle lets every engine see the time and carries out what the engines ask for. It returns when to come again.
func (n *Node) settle(now time.Time) time.Time {
	n.noticeSleep(now)
	n.settleMasks(now)
	next := now.Add(idleTick)
	for f := range n.finders {
		next = earlier(next, f.settle(now))
	}
	for j := range n.joins {
		next = earlier(next, j.settle(now))
	}
	next = earlier(next, n.settleOutside(now))
	next = earlier(next, n.settleStreams(now))
	for _, w := range n.networks {
		next = earlier(next, w.settle(now))
	}
	next = earlier(next, n.masks.due)
	n.publishIndex()
	n.rest.due = later(now, next)
	return next
}

// publishIndex lets the workers see the keypairs that there are now.
func (n *Node) publishIndex() {
	if n.dirty {
		n.dirty = false
		n.plane.SetIndex(maps.Clone(n.index))
	}
}

// earlier returns the earlier of two times; the zero time means never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// newIndex draws a receiver index that no live keypair has.
func (n *Node) newIndex() uint32 {
	for {
		var b [4]byte
		rand.Read(b[:]) //nolint:errcheck // documented never to fail
		i := binary.LittleEndian.Uint32(b[:])
		if _, taken := n.index[i]; !taken {
			return i
		}
	}
}

// call runs f in the control loop and waits for its end. It fails when ctx ends first or the node stops.
func (n *Node) call(ctx context.Context, f func()) error {
	finished := make(chan struct{})
	select {
	case n.calls <- func() { defer close(finished); f() }:
		<-finished
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return errStopping
	}
}

var errStopping = api.Errorf(api.CodeStopping, "the daemon is stopping").Hintf("start it again with: warren up")

// hostChanged learns the host's addresses anew.
func (n *Node) hostChanged() {
	local, err := n.sys.LocalAddrs(n.ours)
	if err != nil {
		n.log.Warn("addresses of this host are unknown", "err", err)
		return
	}
	n.local = local
	now := time.Now()
	n.nat.NetworkChanged(now)
	n.setLocal(now)
	for f := range n.finders {
		f.engine.NetworkChanged(now)
	}
	n.hearGroups()
	if all, _ := n.nat.Servers(); all == 0 {
		n.findServers()
	}
	if n.mapper != nil {
		n.mapper.Recheck()
	}
	for _, w := range n.networks {
		w.hostChanged(now)
	}
}

// ours reports whether an interface is a tunnel of Warren's, whichever daemon's. It may be called from any goroutine.
func (n *Node) ours(iface string) bool {
	for _, own := range n.opt.Config.Networks {
		if own.Interface == iface && iface != "" {
			return true
		}
	}
	return strings.HasPrefix(iface, tun.NamePrefix)
}

// shutdown says goodbye and ends everything that Run started.
func (n *Node) shutdown() error {
	close(n.done)
	now := time.Now()
	n.saveDHT()
	if n.dht != nil {
		n.dht.Close()
	}
	if n.beacons != nil {
		if err := n.beacons.Close(); err != nil {
			n.log.Warn("beacons not closed", "err", err)
		}
	}
	for _, w := range n.networks {
		w.save(now)
		w.bye(now)
		w.deactivate(now)
	}
	err := errors.Join(n.closeStreams(), n.closeMasks(), n.socket.Close())
	if n.feet != nil {
		err = errors.Join(err, n.feet.Close())
	}
	n.wg.Wait()
	for _, w := range n.networks {
		err = errors.Join(err, w.close())
	}
	return errors.Join(err, n.dir.Close())
}
