package dht

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	transactionSize = 4               // bytes
	answerWithin    = 2 * time.Second // then a query has failed
	forgetAfter     = 4 * time.Second // then its answer is a stranger's
	queueLength     = 64
)

// conn is the library's socket: it lets out queries under transaction ids that nobody can guess, and lets in what answers
// one of them, written anew. Whatever else arrives never reaches the library.
// spec/71-dht.md#what-is-let-in
type conn struct {
	send     func(b []byte, to netip.AddrPort)
	observed func(o Observation)

	in   chan datagram
	once sync.Once
	done chan struct{}

	mu    sync.Mutex
	asked map[netip.AddrPort][]question // what waits for an answer
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// question is one query on its way.
type question struct {
	t    string // as sent
	was  string // as the library knows it
	sent time.Time
}

func newConn(send func([]byte, netip.AddrPort), observed func(Observation)) *conn {
	return &conn{send: send, observed: observed, in: make(chan datagram, queueLength), done: make(chan struct{}),
		asked: map[netip.AddrPort][]question{}}
}

// deliver judges a datagram and says whether it was taken. It does not wait; b stays the caller's. It is safe for concurrent use.
func (c *conn) deliver(b []byte, from netip.AddrPort) bool {
	if !c.waitsFor(from) {
		return false
	}
	r, ok := parseReply(b)
	if !ok {
		return false
	}
	was, ok := c.answered(from, string(r.t))
	if !ok {
		return false
	}
	if r.seen.Port() != 0 && r.seen.Addr().Is4() == from.Addr().Is4() && !r.seen.Addr().IsUnspecified() {
		c.observed(Observation{By: from, Seen: r.seen, At: time.Now()})
	}
	select {
	case c.in <- datagram{r.append(nil, was), from}:
		return true
	default:
		return false
	}
}

func (c *conn) waitsFor(from netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked[from]) > 0
}

// answered takes away the query that was sent to from under t. A query is answered once.
func (c *conn) answered(from netip.AddrPort, t string) (was string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.asked[from] {
		if q.t == t {
			c.drop(from, i)
			return q.was, time.Since(q.sent) < forgetAfter
		}
	}
	return "", false
}

func (c *conn) drop(to netip.AddrPort, i int) {
	left := append(c.asked[to][:i], c.asked[to][i+1:]...)
	if len(left) == 0 {
		delete(c.asked, to)
		return
	}
	c.asked[to] = left
}

// forget takes away what was asked too long ago to be answered still.
func (c *conn) forget(now time.Time) {
	for to, qs := range c.asked {
		for i := len(qs) - 1; i >= 0; i-- {
			if now.Sub(qs[i].sent) >= forgetAfter {
				c.drop(to, i)
			}
		}
	}
}

// ReadFrom gives the library the next answer. After Close it returns net.ErrClosed.
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo sends a query of the library.
func (c *conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send a DHT query to %s: no UDP address", addr)
	}
	to := unmap(ua.AddrPort())
	var t [transactionSize]byte
	rand.Read(t[:])
	out, was, ok := withTransaction(b, t[:])
	if !ok {
		return 0, fmt.Errorf("send a DHT query to %s: it has no transaction id", to)
	}
	now := time.Now()
	c.mu.Lock()
	c.forget(now)
	c.asked[to] = append(c.asked[to], question{string(t[:]), was, now})
	c.mu.Unlock()
	c.send(out, to)
	return len(b), nil
}

// Close ends ReadFrom.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// LocalAddr is for the library's messages only.
func (c *conn) LocalAddr() net.Addr { return &net.UDPAddr{} }

// SetDeadline does nothing: the library does not use it.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
