package udp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	// MaxFeet is the limit of open feet; more are refused.
	MaxFeet = 512

	footBuffer  = 2048 // bytes of one datagram
	footWaiting = 256  // datagrams of all feet that wait for ReadBatch; more are lost
)

// Feet is a set of more UDP sockets, each on a port of its own and for one remote address: behind a NAT that maps at random each is
// seen at a port of its own (spec/73-nat.md#birthday). To everything else a foot is an address ([wire.IsFoot]): what is written
// to that goes out by the socket, what comes by it is read as coming from there. Datagrams of others than the remote address are
// lost. All methods are safe for concurrent use, but ReadBatch belongs to one goroutine at a time.
type Feet struct {
	in   chan footprint
	done chan struct{} // closed by Close
	wg   sync.WaitGroup
	room sync.Pool // of *[footBuffer]byte

	mu     sync.Mutex // guards what follows
	closed bool
	feet   map[netip.AddrPort]*net.UDPConn
}

// footprint is one datagram that came.
type footprint struct {
	from netip.AddrPort
	data *[footBuffer]byte
	n    int
}

// NewFeet returns an empty set.
func NewFeet() *Feet {
	return &Feet{in: make(chan footprint, footWaiting), done: make(chan struct{}), feet: map[netip.AddrPort]*net.UDPConn{},
		room: sync.Pool{New: func() any { return new([footBuffer]byte) }}}
}

// Open opens count feet to the address to and returns the addresses that stand for them. When the system gives fewer sockets,
// these are returned with the error.
func (f *Feet) Open(to netip.AddrPort, count int) (addrs []netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range count {
		if f.closed || len(f.feet) == MaxFeet {
			return addrs, fmt.Errorf("open one more UDP socket: %w", errFeet)
		}
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return addrs, fmt.Errorf("open one more UDP socket: %w", err)
		}
		tuneFoot(c)
		var b [8]byte
		rand.Read(b[:]) //nolint:errcheck // documented never to fail
		at := netip.AddrPortFrom(wire.NewLabel(true, b), uint16(c.LocalAddr().(*net.UDPAddr).Port))
		f.feet[at] = c
		addrs = append(addrs, at)
		f.wg.Go(func() { f.read(at, c) }) // ends when Drop or Close closes the socket
	}
	return addrs, nil
}

var errFeet = errors.New("there are too many, or none are wanted any more")

// read hands on what comes by one foot until it is closed.
func (f *Feet) read(at netip.AddrPort, c io.Reader) {
	var p patience
	for {
		b := f.room.Get().(*[footBuffer]byte)
		n, err := c.Read(b[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.after(err)
		if err != nil || n == 0 || n == len(b) { // refused over there; or larger than all that we take
			f.room.Put(b)
			continue
		}
		select {
		case f.in <- footprint{at, b, n}:
		default:
			f.room.Put(b)
		}
	}
}

// Drop closes feet. Those that are not there are passed over.
func (f *Feet) Drop(addrs ...netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		if c := f.feet[a]; c != nil {
			c.Close()
			delete(f.feet, a)
		}
	}
}

// Remote returns the address with which a foot speaks, or the zero AddrPort if it is closed.
func (f *Feet) Remote(foot netip.AddrPort) netip.AddrPort {
	c := f.find(foot)
	if c == nil {
		return netip.AddrPort{}
	}
	a := c.RemoteAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Len counts the open feet.
func (f *Feet) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.feet)
}

func (f *Feet) find(foot netip.AddrPort) *net.UDPConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.feet[foot]
}

// Close closes all feet, and lets ReadBatch return net.ErrClosed. It is safe to call twice.
func (f *Feet) Close() error {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.done)
	}
	var errs []error
	for _, c := range f.feet {
		errs = append(errs, c.Close())
	}
	clear(f.feet)
	f.mu.Unlock()
	f.wg.Wait()
	return errors.Join(errs...)
}

// ReadBatch blocks until there is a datagram, then takes what is there at once, up to len(b), one in each. Each Data has a capacity
// of BufferSize and is set to what was read; Addr is the foot's address.
func (f *Feet) ReadBatch(b []packet.Datagrams) (n int, err error) {
	select {
	case p := <-f.in:
		f.take(&b[0], p)
	case <-f.done:
		return 0, net.ErrClosed
	}
	for n = 1; n < len(b); n++ {
		select {
		case p := <-f.in:
			f.take(&b[n], p)
		default:
			return n, nil
		}
	}
	return n, nil
}

func (f *Feet) take(d *packet.Datagrams, p footprint) {
	d.Data, d.Segment, d.Addr = append(d.Data[:0], p.data[:p.n]...), p.n, p.from
	f.room.Put(p.data)
}

// WriteBatch sends each of b by the foot whose address it has. The error is of the last one that could not be sent; those after it
// were still tried.
func (f *Feet) WriteBatch(b []packet.Datagrams) (err error) {
	for _, d := range b {
		c := f.find(d.Addr)
		if c == nil {
			err = fmt.Errorf("write to %v: %w", d.Addr, net.ErrClosed)
			continue
		}
		for rest := d.Data; len(rest) > 0; {
			n := min(d.Segment, len(rest))
			if _, e := c.Write(rest[:n]); e != nil {
				err = e
			}
			rest = rest[n:]
		}
	}
	return err
}

// Writer is a socket, as far as Over needs one.
type Writer interface {
	ReadBatch(b []packet.Datagrams) (int, error)
	WriteBatch(b []packet.Datagrams) error
}

// Over returns a socket that writes by feet what goes to their addresses, and everything else to socket. It reads socket alone:
// feet are read from the set itself, by another goroutine.
func (f *Feet) Over(socket Writer) Writer { return overFeet{socket, f} }

type overFeet struct {
	Writer
	feet *Feet
}

// WriteBatch implements Writer.
func (o overFeet) WriteBatch(b []packet.Datagrams) error {
	return packet.Split(b, wire.IsFoot, o.feet.WriteBatch, o.Writer.WriteBatch)
}
