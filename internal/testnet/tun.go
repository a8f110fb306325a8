package testnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// tunQueue is how many packets wait in each direction before more are dropped, as with the queue of a real device.
const tunQueue = 512

// ErrTUNFull reports that the program under test does not read its tunnel device fast enough.
var ErrTUNFull = errors.New("the queue of the tunnel device is full")

// TUN is a tunnel device in memory, with a small host behind it that pings and answers pings. The program under test uses
// Read, Write, Name, MTU and Close; the test uses all the rest.
type TUN struct {
	name string
	mtu  int
	in   chan []byte // from the host to the program
	out  chan []byte // from the program to the host
	once sync.Once
	done chan struct{}

	mu      sync.Mutex
	addrs   []netip.Addr // that the host answers for
	waiting map[uint16]chan Inner
	lastID  uint16
	dropped int
}

// NewTUN makes a device; mtu is the limit of a packet in bytes. The host behind it answers echo requests to addrs, and UDP to
// their port 7 by sending the payload back; everything else waits for Receive.
func NewTUN(name string, mtu int, addrs ...netip.Addr) *TUN {
	return &TUN{name: name, mtu: mtu, in: make(chan []byte, tunQueue), out: make(chan []byte, tunQueue), done: make(chan struct{}),
		addrs: addrs, waiting: map[uint16]chan Inner{}}
}

// Name returns the device's name.
func (t *TUN) Name() string { return t.name }

// MTU returns the limit of a packet in bytes.
func (t *TUN) MTU() int { return t.mtu }

// SetAddrs replaces the addresses for which the host answers.
func (t *TUN) SetAddrs(addrs ...netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addrs = slices.Clone(addrs)
}

// Read waits for a packet from the host and copies it to b. After Close it returns os.ErrClosed.
func (t *TUN) Read(b []byte) (int, error) {
	select {
	case <-t.done:
		return 0, os.ErrClosed
	default:
	}
	select {
	case p := <-t.in:
		if len(p) > len(b) {
			return 0, fmt.Errorf("packet of %d bytes for a buffer of %d", len(p), len(b))
		}
		return copy(b, p), nil
	case <-t.done:
		return 0, os.ErrClosed
	}
}

// Write hands a copy of one IP packet to the host. It never waits: like a real device it drops what the host does not take.
// A packet that is not sound (lengths, checksums) is an error, so that no test passes on broken packets.
func (t *TUN) Write(p []byte) (int, error) {
	select {
	case <-t.done:
		return 0, os.ErrClosed
	default:
	}
	in, err := ReadInner(p)
	if err != nil {
		return 0, fmt.Errorf("write to %s: %w", t.name, err)
	}
	if !t.handle(in) {
		t.put(t.out, slices.Clone(p))
	}
	return len(p), nil
}

// handle does what the host's own stack does with a packet; false: nobody there wants it.
func (t *TUN) handle(in Inner) bool {
	t.mu.Lock()
	mine := slices.Contains(t.addrs, in.Dst.Addr())
	var waiter chan Inner
	if in.EchoReply() {
		waiter = t.waiting[in.ID]
	}
	t.mu.Unlock()
	switch {
	case waiter != nil:
		select {
		case waiter <- in:
		default: // a duplicate of the answer
		}
	case mine && in.Echo():
		t.put(t.in, EchoReply(in.Dst.Addr(), in.Src.Addr(), in.ID, in.Seq, in.Payload))
	case in.Proto == protoIGMP, in.Dst.Addr() == allNodes: // who listens to groups is asked: this host does not
	case mine && in.Proto == ProtoUDP && in.Dst.Port() == 7:
		t.put(t.in, UDP(in.Dst, in.Src, in.Payload))
	default:
		return false
	}
	return true
}

func (t *TUN) put(queue chan []byte, p []byte) bool {
	select {
	case queue <- p:
		return true
	default:
		t.mu.Lock()
		t.dropped++
		t.mu.Unlock()
		return false
	}
}

// Inject lets the host send one IP packet into the tunnel; it is copied. It never waits.
func (t *TUN) Inject(p []byte) error {
	if len(p) > t.mtu {
		return fmt.Errorf("packet of %d bytes on %s with an MTU of %d", len(p), t.name, t.mtu)
	}
	select {
	case <-t.done:
		return os.ErrClosed
	default:
	}
	if !t.put(t.in, slices.Clone(p)) {
		return ErrTUNFull
	}
	return nil
}

// Receive waits for the next packet that reached the host and that its own stack did not take.
func (t *TUN) Receive(ctx context.Context) ([]byte, error) {
	select {
	case p := <-t.out:
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("receive from %s: %w", t.name, context.Cause(ctx))
	case <-t.done:
		return nil, os.ErrClosed
	}
}

// Ping sends one echo request of size bytes of payload and waits for the answer; it returns the round-trip time. Several may
// run at once.
func (t *TUN) Ping(ctx context.Context, from, to netip.Addr, size int) (time.Duration, error) {
	answer := make(chan Inner, 1)
	t.mu.Lock()
	t.lastID++
	id := t.lastID
	t.waiting[id] = answer
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.waiting, id)
		t.mu.Unlock()
	}()
	payload := make([]byte, size)
	rand.Read(payload) //nolint:errcheck // documented never to fail
	start := time.Now()
	if err := t.Inject(EchoRequest(from, to, id, 1, payload)); err != nil {
		return 0, fmt.Errorf("ping %s: %w", to, err)
	}
	select {
	case in := <-answer:
		if in.Src.Addr() != to || in.Dst.Addr() != from || string(in.Payload) != string(payload) {
			return 0, fmt.Errorf("ping %s: the answer is from %s to %s with %d bytes", to, in.Src.Addr(), in.Dst.Addr(), len(in.Payload))
		}
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("ping %s: %w", to, context.Cause(ctx))
	case <-t.done:
		return 0, fmt.Errorf("ping %s: %w", to, os.ErrClosed)
	}
}

// Dropped returns how many packets were dropped at full queues, in both directions.
func (t *TUN) Dropped() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}

// Close ends the device and wakes all who wait. Calling it again does nothing.
func (t *TUN) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}
