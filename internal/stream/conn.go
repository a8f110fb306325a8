package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
)

const (
	writeWithin = 10 * time.Second // for one write; the other end takes nothing, so it is gone or hostile
	closeWithin = 500 * time.Millisecond
	// unsent is what the kernel may hold of a stream beyond what TCP has on its way, where it can be told.
	unsent = 16 << 10
)

// carrier is a connection that carries frames, and the TCP connection below it.
type carrier struct {
	net.Conn
	raw net.Conn
}

// close ends the connection in the orderly way if that goes without waiting long.
func (c carrier) close() {
	kill := time.AfterFunc(closeWithin, func() { c.raw.Close() })
	defer kill.Stop()
	c.Close()
}

// stream is one open stream. Its owner is the Set; the two goroutines are read and write.
type stream struct {
	set   *Set
	conn  carrier
	info  Info
	timer *time.Timer   // of proveWithin
	ready chan struct{} // closed when EventUp is out
	queue queue

	proven   atomic.Bool
	sent     atomic.Uint64
	received atomic.Uint64
	dropped  atomic.Uint64

	once sync.Once
	done chan struct{} // closed by end
	err  error         // why; set before done is closed
}

func newStream(s *Set, conn carrier, info Info) *stream {
	return &stream{set: s, conn: conn, info: info, ready: make(chan struct{}), done: make(chan struct{}),
		queue: queue{wake: make(chan struct{}, 1)}}
}

// end makes both goroutines end, for the reason err, and does not wait for them. Only the first call counts.
func (st *stream) end(err error) {
	st.once.Do(func() {
		st.err = err
		close(st.done)
		st.set.mu.Lock()
		st.timer.Stop()
		delete(st.set.streams, st.info.Addr)
		st.set.mu.Unlock()
		st.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // after done: both look at it between setting theirs and waiting
	})
}

// over reports whether end was called.
func (st *stream) over() bool {
	select {
	case <-st.done:
		return true
	default:
		return false
	}
}

// expire ends the stream if no session came up by it (spec/72-streams.md#proof).
func (st *stream) expire() {
	if !st.proven.Load() {
		st.end(errUnproven)
	}
}

func (st *stream) describe() Info {
	i := st.info
	i.Proven, i.Sent, i.Received, i.Dropped = st.proven.Load(), st.sent.Load(), st.received.Load(), st.dropped.Load()
	return i
}

// read moves frames from the connection to ReadBatch until the stream ends, and says so then.
func (st *stream) read() {
	st.end(st.pump())
	st.conn.close()
	<-st.ready
	st.set.cfg.Log.Debug("stream ended", "stream", st.info.Addr, "remote", st.info.Remote, "reason", st.err)
	st.set.cfg.Event(Event{Kind: EventDown, Addr: st.info.Addr, Target: st.info.Target, Inbound: st.info.Inbound, Err: st.err})
}

func (st *stream) pump() error {
	c, have := chunks.Get().(*chunk), 0
	for {
		st.conn.SetReadDeadline(time.Now().Add(idleAfter)) //nolint:errcheck // if it fails, so does the read
		if st.over() {
			return st.err
		}
		n, err := st.conn.Read(c.buf[have:])
		have += n
		whole, frames, bad := parseFrames(c.buf[:have])
		if whole > 0 {
			next := chunks.Get().(*chunk)
			copy(next.buf[:], c.buf[whole:have])
			c.from, c.whole = st.info.Addr, whole
			st.received.Add(uint64(frames))
			select {
			case st.set.in <- c:
			case <-st.done:
				return st.err
			}
			c, have = next, have-whole
		}
		if err = errors.Join(bad, err); err != nil {
			c.free()
			return readError(err)
		}
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the other end closed it")
	}
	return fmt.Errorf("read: %w", err)
}

// send queues the datagrams of d.
func (st *stream) send(d packet.Datagrams) {
	if n := st.queue.push(time.Now(), d.Data, d.Segment); n > 0 {
		st.dropped.Add(uint64(n))
	}
}

// write moves frames from the queue to the connection, at most a record at a time, until the stream ends.
func (st *stream) write() {
	out := make([]byte, 0, record)
	for {
		frames, sent, dropped := st.queue.take(time.Now(), out)
		st.dropped.Add(uint64(dropped))
		if sent == 0 {
			select {
			case <-st.queue.wake:
				continue
			case <-st.done:
				return
			}
		}
		st.conn.SetWriteDeadline(time.Now().Add(writeWithin)) //nolint:errcheck // if it fails, so does the write
		if st.over() {
			return
		}
		st.sent.Add(uint64(sent))
		if _, err := st.conn.Write(frames); err != nil {
			st.end(fmt.Errorf("write: %w", err))
			return
		}
	}
}
