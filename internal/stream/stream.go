// Package stream carries datagrams over TCP where UDP does not get through: inside TLS on port 443, inside a WebSocket, through
// HTTP and SOCKS5 proxies (spec/72-streams.md).
//
// A [Set] holds the open streams. To everything else each of them is an address ([IsStream]): what is written to that address
// leaves by the stream, what comes by it is read as coming from there. So [Set] is one more socket beside UDP, with the same two
// methods, and streams need no words of their own in what chooses paths.
//
//	Dialer --dial--> TCP [proxy] TLS [WebSocket] proof --+
//	                                                     +--> stream: queue -> frames -> conn -> chunks --> Set.ReadBatch
//	Serve: accept -> TLS -> proof, or an ordinary web  --+      ^ Set.WriteBatch
//	                        server for everybody else
//
// Who is at the other end is not decided here: a stream only shows that the two ends know the same [Key]. Peers are
// authenticated by their WireGuard session inside; until its owner says so ([Set.Prove]) a stream lives for 5 s.
//
// The queue of a stream drops what it cannot send soon. Two congestion controls on top of each other get along only if the lower
// one loses packets instead of keeping them.
package stream

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

// The limits of a Set (spec/72-streams.md#limits).
const (
	// MaxStreams is the limit of streams of a Set; one more is refused.
	MaxStreams  = 128
	maxUnproven = 32
	maxDialing  = 16
	maxKeys     = 64

	proveWithin = 5 * time.Second
	dialWithin  = 10 * time.Second
	idleAfter   = 10 * time.Minute // without a byte from the other end

	incoming = 64 // chunks that wait for ReadBatch; after that TCP holds the senders back
)

// ErrGone is returned by writes to a stream that has ended.
var ErrGone = errors.New("the stream has ended")

// errFull and errUnproven are reasons in events and errors.
var (
	errFull     = errors.New("too many streams")
	errUnproven = errors.New("no session came up by it in time")
	errDropped  = errors.New("closed by this node")
)

// streamPort is the port in every stream's address; it says nothing.
const streamPort = 443

// IsStream reports whether a stands for a stream: see wire.IsStream.
func IsStream(a netip.Addr) bool { return wire.IsStream(a) }

// newAddress makes a stream's address. It cannot be guessed, so no peer can name a stream that is not its own.
func newAddress() netip.AddrPort {
	var b [8]byte
	rand.Read(b[:])
	return netip.AddrPortFrom(wire.NewLabel(false, b), streamPort)
}

// EventKind says what happened to a stream.
type EventKind uint8

// The kinds of events.
const (
	EventUp     EventKind = iota // a stream is open; Prove must follow within 5 s
	EventDown                    // a stream has ended; Err says why
	EventFailed                  // Connect did not get one; Err says why
)

// Event tells the owner of a Set about one stream.
type Event struct {
	Kind    EventKind
	Addr    netip.AddrPort // of the stream; not of EventFailed
	Target  Target         // that was dialed; zero for a stream that came in
	Inbound bool
	Err     error // of EventDown and EventFailed
}

// Info describes a stream to people.
type Info struct {
	Addr     netip.AddrPort
	Remote   string // address of the other end of the TCP connection: peer, reverse proxy or upstream proxy
	Target   Target // that was dialed; zero for a stream that came in
	Kind     string // "tls", "wss" or "ws"
	Inbound  bool
	Proven   bool
	Since    time.Time
	Sent     uint64 // datagrams given to TCP
	Received uint64 // datagrams
	Dropped  uint64 // datagrams that were not given to TCP
}

// Config is what a Set needs.
type Config struct {
	// Event is called for every event, from several goroutines, Up before Down for each stream. It must not block nor call the Set.
	// nil: nobody wants to know.
	Event func(Event)
	Log   *slog.Logger // nil: none

	proveWithin time.Duration // tests; 0: the constant
}

// Set holds the streams of a node. All methods are safe for concurrent use, but ReadBatch belongs to one goroutine at a time.
type Set struct {
	cfg  Config
	keys atomic.Pointer[[]Key]
	in   chan *chunk
	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	used   nonces // tokens of WebSockets
	guests guests // connections of which nobody knows yet what they want

	mu      sync.Mutex
	closed  bool
	dialing int
	closers map[net.Listener]struct{}
	streams map[netip.AddrPort]*stream

	// Of the reader.
	current *chunk
	rest    []byte // of current, not yet read
}

// New makes an empty Set. It starts nothing.
func New(cfg Config) *Set {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.proveWithin == 0 {
		cfg.proveWithin = proveWithin
	}
	s := &Set{cfg: cfg, in: make(chan *chunk, incoming), done: make(chan struct{}), closers: map[net.Listener]struct{}{},
		streams: map[netip.AddrPort]*stream{}}
	s.keys.Store(&[]Key{})
	return s
}

// SetKeys says which keys a stream that comes in may show knowledge of: of every network, of those before the last revocation, of
// open invites. The first 64 count. Streams that are open stay.
func (s *Set) SetKeys(keys []Key) {
	k := slices.Clone(keys[:min(len(keys), maxKeys)])
	s.keys.Store(&k)
}

// Dial opens a stream to t by d and returns its address. EventUp comes before it returns.
func (s *Set) Dial(ctx context.Context, d *Dialer, t Target) (netip.AddrPort, error) {
	if err := s.startDial(); err != nil {
		return netip.AddrPort{}, err
	}
	defer s.endDial()
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	s.wg.Go(func() { // ends with Dial
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	})
	c, err := d.dial(ctx, t)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return s.add(c, Info{Target: t, Kind: t.Scheme})
}

// Connect is Dial in a goroutine of the Set's own: it returns at once, and EventUp or EventFailed follows.
func (s *Set) Connect(d *Dialer, t Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Go(func() { // ends after dialWithin, or when the Set is closed
		if _, err := s.Dial(context.Background(), d, t); err != nil {
			s.cfg.Event(Event{Kind: EventFailed, Target: t, Err: err})
		}
	})
}

func (s *Set) startDial() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.dialing >= maxDialing:
		return fmt.Errorf("dial: %w", errFull)
	}
	s.dialing++
	s.wg.Add(1)
	return nil
}

func (s *Set) endDial() {
	s.mu.Lock()
	s.dialing--
	s.mu.Unlock()
	s.wg.Done()
}

// add makes a stream of c, whose other end has shown that it knows a key. It takes c, and closes it when it fails.
func (s *Set) add(c carrier, info Info) (netip.AddrPort, error) {
	info.Addr, info.Since, info.Remote = newAddress(), time.Now(), c.raw.RemoteAddr().String()
	st := newStream(s, c, info)
	err := s.enter(st)
	if err != nil {
		c.close()
		return netip.AddrPort{}, err
	}
	s.cfg.Event(Event{Kind: EventUp, Addr: info.Addr, Target: info.Target, Inbound: info.Inbound})
	close(st.ready)
	return info.Addr, nil
}

// enter puts st into the table and starts it.
func (s *Set) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	unproven := 0
	for _, o := range s.streams {
		if !o.proven.Load() {
			unproven++
		}
	}
	switch {
	case s.closed:
		return net.ErrClosed
	case len(s.streams) >= MaxStreams || unproven >= maxUnproven:
		return errFull
	}
	s.streams[st.info.Addr] = st
	st.timer = time.AfterFunc(s.cfg.proveWithin, st.expire)
	s.wg.Go(st.read)  // both end
	s.wg.Go(st.write) // when st.end is called
	return nil
}

func (s *Set) find(addr netip.AddrPort) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[addr]
}

// Prove says that a session with a member came up by the stream at addr: it may stay.
func (s *Set) Prove(addr netip.AddrPort) {
	if st := s.find(addr); st != nil && st.proven.CompareAndSwap(false, true) {
		st.timer.Stop()
	}
}

// Drop ends the stream at addr, if there is one. EventDown follows.
func (s *Set) Drop(addr netip.AddrPort) {
	if st := s.find(addr); st != nil {
		st.end(errDropped)
	}
}

// List describes the open streams, the oldest first.
func (s *Set) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Info, 0, len(s.streams))
	for _, st := range s.streams {
		out = append(out, st.describe())
	}
	slices.SortFunc(out, func(a, b Info) int { return a.Since.Compare(b.Since) })
	return out
}

// Close ends all streams and listeners, and returns when everything that the Set started is gone. ReadBatch then returns
// net.ErrClosed. It is safe to call twice.
func (s *Set) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for ln := range s.closers {
		ln.Close()
	}
	open := make([]*stream, 0, len(s.streams))
	for _, st := range s.streams {
		open = append(open, st)
	}
	s.mu.Unlock()
	for _, st := range open {
		st.end(net.ErrClosed)
	}
	s.wg.Wait()
	return nil
}

// ReadBatch blocks until there is a datagram, then takes what is there at once, up to len(b). Each Data has a capacity of at
// least 65536 bytes and is set to what was read: datagrams of one stream and, but for the last, of one size. Addr is the stream's
// address. It returns net.ErrClosed after Close.
func (s *Set) ReadBatch(b []packet.Datagrams) (n int, err error) {
	if s.current == nil {
		select {
		case s.current = <-s.in:
			s.rest = s.current.frames()
		case <-s.done:
			return 0, net.ErrClosed
		}
	}
	for n < len(b) {
		b[n].Addr = s.current.from
		s.rest = readTrain(&b[n], s.rest)
		n++
		if len(s.rest) > 0 {
			continue
		}
		s.current.free()
		s.current = nil
		select {
		case s.current = <-s.in:
			s.rest = s.current.frames()
		default:
			return n, nil
		}
	}
	return n, nil
}

// readTrain moves datagrams from the front of frames into d, as many as make a train, and returns what is left. frames is whole
// frames, at least one.
func readTrain(d *packet.Datagrams, frames []byte) []byte {
	d.Data, d.Segment = d.Data[:0], 0
	for len(frames) > 0 {
		size := int(binary.BigEndian.Uint16(frames))
		if len(d.Data) > 0 && (size > d.Segment || len(d.Data)+size > cap(d.Data)) {
			return frames
		}
		if d.Segment == 0 {
			d.Segment = size
		}
		d.Data = append(d.Data, frames[frameHeader:frameHeader+size]...)
		frames = frames[frameHeader+size:]
		if size < d.Segment {
			return frames
		}
	}
	return frames
}

// WriteBatch sends each of b by the stream whose address it has. It never waits: what the stream cannot take soon is dropped and
// counted there. The error is of the last one whose stream is gone; those after it were still sent.
func (s *Set) WriteBatch(b []packet.Datagrams) (err error) {
	for _, d := range b {
		if st := s.find(d.Addr); st != nil {
			st.send(d)
		} else {
			err = fmt.Errorf("write to %v: %w", d.Addr, ErrGone)
		}
	}
	return err
}

// Socket is a UDP socket, as far as Over needs one.
type Socket interface {
	ReadBatch(b []packet.Datagrams) (int, error)
	WriteBatch(b []packet.Datagrams) error
}

// Over returns a Socket that writes to streams what goes to their addresses, and everything else to socket. It reads socket
// alone: streams are read from the Set itself, by another goroutine.
func (s *Set) Over(socket Socket) Socket { return over{socket, s} }

type over struct {
	Socket
	set *Set
}

// WriteBatch implements Socket.
func (o over) WriteBatch(b []packet.Datagrams) error {
	return packet.Split(b, IsStream, o.set.WriteBatch, o.Socket.WriteBatch)
}
