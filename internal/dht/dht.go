// Package dht reads and writes small signed items in the BitTorrent Mainline DHT (BEP 5, 42, 43, 44), on Warren's own UDP port.
//
//	          Get, Put, Peers, Announce                      datagrams that begin with 'd'
//	owner ------------------------------> Client <---------------------------------------- Deliver
//	                                        |
//	                lookup: whom to ask     |     KRPC and its queries: the library anacrolix/dht
//	                                        v
//	                    conn: transaction ids nobody can guess; in comes only what answers a query, written anew
//	                                        |
//	                                        +---------------------------------------------> Config.Send
//
// A Client is a visitor: it asks, and never answers (BEP 43). It sends nothing unless an operation runs, and has no goroutine
// then either. It knows nothing of networks, members and slots: what is stored, under which keys, and whether a value is true
// are the owner's (spec/70-discover.md).
//
// The library parses what strangers send with code that has crashed on it, so it sees no stranger's bytes: see conn and
// parseReply.
package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	alog "github.com/anacrolix/log"
	"golang.org/x/time/rate"

	library "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
)

// The limits. spec/71-dht.md#limits
const (
	queriesPerSecond = 16
	queriesBurst     = 16
	maxLookupQueries = 160 // of one operation; up to 40 more store
	maxOperations    = 8   // at once; others wait
	maxHosts         = 1 << 16
)

// Errors of operations.
var (
	// ErrNotFound reports that nodes answered, and none had the item.
	ErrNotFound = errors.New("no node of the DHT has it")
	// ErrUnreachable reports that no node of the DHT answered.
	ErrUnreachable = errors.New("no node of the DHT answers")
	// ErrRefused reports that nodes answered, and none would store the item.
	ErrRefused = errors.New("no node of the DHT stores it")
	// ErrOff reports that peers are not asked for: Config.Peers is false.
	ErrOff = errors.New("peers in the DHT are switched off")
	// ErrClosed reports that the Client is closed.
	ErrClosed = errors.New("DHT client is closed")
)

// Newer reports that an item with a valid signature is stored that the one to be put was not made from, or that is newer than it.
// Nothing was stored, or not everywhere.
type Newer struct {
	Seq   int64
	Value []byte // nil: nodes refused the put because of it, and it has to be read
}

// Error says so.
func (n *Newer) Error() string {
	if n.Value == nil {
		return "the DHT has a newer item"
	}
	return fmt.Sprintf("the DHT has a newer item, with sequence number %d", n.Seq)
}

// Config is what a Client needs. Send is required.
type Config struct {
	// Send sends a datagram from our port. It must not wait; b is the callee's.
	Send func(b []byte, to netip.AddrPort)
	// Bootstrap are hosts, "name:port" or "address:port", asked when too few known nodes answer. None: only Nodes are asked.
	Bootstrap []string
	// Nodes are those that Nodes returned before.
	Nodes []Node
	// Own are the addresses of this host. They choose the address families to ask in, and public ones the node id (BEP 42).
	// None: both families.
	Own []netip.Addr
	// Local allows nodes at any address: for tests and private DHTs. Otherwise only public ones are asked.
	Local bool
	// Peers allows Announce and Peers (BEP 5), which show addresses in clear.
	Peers bool
	// Resolve looks up a name of Bootstrap. nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log takes debug messages. nil: none.
	Log *slog.Logger
}

// DefaultBootstrap lists the public hosts that are asked first by who knows no node yet. Others are those of BitTorrent's users.
func DefaultBootstrap() []string {
	return []string{"router.bittorrent.com:6881", "dht.transmissionbt.com:6881", "dht.libtorrent.org:25401", "relay.pkarr.org:6881"}
}

// Stats says what a Client did since New, for people.
type Stats struct {
	Queries    uint64   // sent
	Replies    uint64   // answers to them, errors too
	Dropped    uint64   // datagrams that were none
	Hosts      int      // addresses asked, each once; counted up to 65,536
	Nodes      int      // known to have answered
	Bootstraps []string // entries of Config.Bootstrap that were found, to be asked
	Unresolved bool     // some were looked up in vain
	// Address4 and Address6 are our address as most nodes report it, from two prefixes at least; zero: too few do.
	Address4, Address6 netip.AddrPort
}

// Client asks the DHT. All its methods are safe for concurrent use.
type Client struct {
	cfg     Config
	log     *slog.Logger
	pace    *rate.Limiter
	room    chan struct{} // a token for each operation that runs
	root    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // operations
	visit   atomic.Pointer[visit]

	queries, replies, dropped atomic.Uint64

	mu         sync.Mutex
	closed     bool
	users      int // operations that use visit
	own        []netip.Addr
	known      known
	hosts      map[netip.Addr]struct{}
	bootstraps map[string]resolved
	seen       []Observation // the newest last
}

// visit is the time from the first operation to the end of the last one that overlaps: one library server, one node id.
type visit struct {
	server *library.Server
	conn   *conn
}

// New returns a Client that does nothing yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, log: cfg.Log, pace: rate.NewLimiter(queriesPerSecond, queriesBurst), room: make(chan struct{}, maxOperations),
		known: known{cfg.Local, map[netip.AddrPort]*knownNode{}}, hosts: map[netip.Addr]struct{}{}, bootstraps: map[string]resolved{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.cfg.Resolve == nil {
		c.cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	c.root, c.stop = context.WithCancel(context.Background())
	c.SetOwn(cfg.Own)
	for _, n := range cfg.Nodes {
		if n.Addr = unmap(n.Addr); c.mayAsk(n.Addr) {
			c.known.good(time.Time{}, n)
		}
	}
	return c
}

// SetOwn replaces Config.Own, for operations that begin from now on.
func (c *Client) SetOwn(own []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = nil
	for _, a := range own {
		c.own = append(c.own, a.Unmap())
	}
}

// Deliver takes a datagram that came to our port and begins with 'd'. It does not wait, and b stays the caller's.
func (c *Client) Deliver(b []byte, from netip.AddrPort) {
	v := c.visit.Load()
	if v == nil || !v.conn.deliver(b, unmap(from)) {
		c.dropped.Add(1)
		return
	}
	c.replies.Add(1)
}

// Close ends all operations, which return ErrClosed, and waits for them.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
}

// Nodes lists up to 200 nodes to save, those that answered last first.
func (c *Client) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known.newest()
}

// Observations lists what nodes said about our address, up to 64 and the newest last. Each is from another prefix.
func (c *Client) Observations() []Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// Stats says what happened so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Queries: c.queries.Load(), Replies: c.replies.Load(), Dropped: c.dropped.Load(), Hosts: len(c.hosts),
		Nodes: len(c.known.nodes)}
	for _, entry := range slices.Sorted(maps.Keys(c.bootstraps)) {
		if len(c.bootstraps[entry].addrs) > 0 {
			s.Bootstraps = append(s.Bootstraps, entry)
		} else {
			s.Unresolved = true
		}
	}
	votes := map[netip.AddrPort]int{}
	for _, o := range c.seen {
		votes[o.Seen]++
	}
	for _, o := range c.seen {
		best := &s.Address4
		if o.Seen.Addr().Is6() {
			best = &s.Address6
		}
		if votes[o.Seen] >= 2 && votes[o.Seen] >= votes[*best] {
			*best = o.Seen
		}
	}
	return s
}

func (c *Client) observe(o Observation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group(o.By)
	c.seen = slices.DeleteFunc(c.seen, func(have Observation) bool { return c.group(have.By) == g })
	if len(c.seen) >= maxObservations {
		c.seen = c.seen[1:]
	}
	c.seen = append(c.seen, o)
}

// group tells apart those who may be different people: by prefix. In a local DHT every node is one.
func (c *Client) group(a netip.AddrPort) netip.AddrPort {
	if c.cfg.Local {
		return a
	}
	return netip.AddrPortFrom(prefix(a.Addr()).Addr(), 0)
}

// mayAsk says whether a node that others told us of may be sent queries.
// spec/71-dht.md#whom-to-ask
func (c *Client) mayAsk(a netip.AddrPort) bool {
	return c.reachable(a) && (c.cfg.Local || a.Port() >= 1024)
}

// reachable says whether a may be somebody's address at all.
func (c *Client) reachable(a netip.AddrPort) bool {
	if c.cfg.Local {
		return a.Addr().IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
	}
	return a.Port() != 0 && public(a.Addr())
}

// families says in which address families to ask: IPv4, IPv6.
func (c *Client) families() (use [2]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.own {
		use[family(a)] = use[family(a)] || a.Is4() || c.cfg.Local || public(a)
	}
	if use == [2]bool{} {
		return [2]bool{true, true}
	}
	return use
}

// begin starts an operation: it waits until there is room, and opens a visit if none is open. The caller calls end.
func (c *Client) begin(ctx context.Context) (_ context.Context, v *visit, end func(), err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, nil, nil, ErrClosed
	}
	c.running.Add(1)
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(c.root, cancel)
	release := func() { unhook(); cancel(); c.running.Done() }
	select {
	case c.room <- struct{}{}:
	case <-ctx.Done():
		release()
		return nil, nil, nil, c.cause(ctx)
	}
	if v, err = c.open(); err != nil {
		<-c.room
		release()
		return nil, nil, nil, err
	}
	return ctx, v, func() { c.leave(); <-c.room; release() }, nil
}

// cause is why ctx ended.
func (c *Client) cause(ctx context.Context) error {
	if c.root.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
}

func (c *Client) open() (*visit, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users++; c.users > 1 {
		return c.visit.Load(), nil
	}
	id := krpc.RandomNodeID()
	for _, a := range c.own {
		if public(a) {
			library.SecureNodeId(&id, a.AsSlice())
			break
		}
	}
	quiet := alog.Default.WithFilterLevel(alog.Critical)
	quiet.Handlers = nil
	v := &visit{conn: newConn(c.cfg.Send, c.observe)}
	server, err := library.NewServer(&library.ServerConfig{
		NodeId: id, Conn: v.conn, Passive: true, NoSecurity: true, Logger: quiet,
		SendLimiter:      rate.NewLimiter(rate.Inf, 0), // pace is ours, over all visits
		QueryResendDelay: func() time.Duration { return answerWithin },
	})
	if err != nil {
		c.users--
		return nil, fmt.Errorf("start the DHT library: %w", err)
	}
	v.server = server
	c.visit.Store(v)
	return v, nil
}

func (c *Client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 {
		c.visit.Swap(nil).server.Close()
	}
}
