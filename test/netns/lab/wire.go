//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Wire joins two hosts and no others. Unlike a Switch it is made of this process: each end is a TAP device, and what one host
// sends is carried to the other here, as slow, as late, as incomplete as the test wants, and under its eyes. Make it with
// [Lab.Wire]; its methods may be called at any time from any goroutine.
type Wire struct {
	A, B  *Port
	lanes [2]*lane // from A, from B
	ends  [2]*os.File
	runs  sync.WaitGroup
}

// Conditions is what a Wire does to frames in one direction. The zero value carries each at once.
type Conditions struct {
	Delay  time.Duration // that every frame takes
	Jitter time.Duration // up to so much more, evenly spread; frames keep their order
	Loss   float64       // part of the frames that vanish, 0 to 1
	Rate   int           // bits per second; 0: as fast as it goes
	Queue  time.Duration // what may wait for Rate, in time; 0: 100 ms; what comes on top is dropped
}

// Counts is what happened to frames in one direction.
type Counts struct {
	Passed int // carried over
	Lost   int // by Loss, by Cut, or by what the test watches with
	Full   int // dropped because the queue was full, or the other end did not take them
}

const (
	defaultQueue = 100 * time.Millisecond
	heldMost     = 16 << 20 // bytes on their way in one direction, in all
	frameMost    = 65536
)

// Wire joins two hosts by a new interface at each, without addresses.
func (l *Lab) Wire(a, b *Host) *Wire {
	l.t.Helper()
	w := &Wire{}
	for i, h := range []*Host{a, b} {
		p := &Port{Host: h, Dev: fmt.Sprintf("eth%d", h.n)}
		h.n++
		f, err := tap(h.ns, p.Dev)
		if err != nil {
			l.t.Fatal(err)
		}
		w.ends[i] = f
		h.IP("link", "set", p.Dev, "up", "txqueuelen", "2000")
		if i == 0 {
			w.A = p
		} else {
			w.B = p
		}
	}
	for i := range w.lanes {
		ln := &lane{in: w.ends[i], out: w.ends[1-i], wake: make(chan struct{}, 1), done: make(chan struct{}),
			random: rand.New(rand.NewPCG(uint64(i), 7))}
		w.lanes[i] = ln
		w.runs.Go(func() { // ends when close closes the devices
			defer close(ln.done)
			ln.read()
		})
		w.runs.Go(ln.deliver) // ends with the reader
	}
	l.onClose(w.close)
	return w
}

// close takes the wire away, with the interfaces at its ends.
func (w *Wire) close() {
	for _, f := range w.ends {
		f.Close()
	}
	w.runs.Wait()
}

// Set makes the conditions those of both directions, for frames that come from now on.
func (w *Wire) Set(c Conditions) {
	w.SetFrom(w.A.Host, c)
	w.SetFrom(w.B.Host, c)
}

// SetFrom makes the conditions those of the frames that h, which is at one end, sends from now on.
func (w *Wire) SetFrom(h *Host, c Conditions) {
	w.from(h).change(func(ln *lane) { ln.Conditions = c })
}

// Cut cuts the wire so that nobody notices: the interfaces stay up, and what is sent vanishes.
func (w *Wire) Cut() {
	for _, ln := range w.lanes {
		ln.change(func(ln *lane) { ln.cut = true })
	}
}

// Mend undoes Cut.
func (w *Wire) Mend() {
	for _, ln := range w.lanes {
		ln.change(func(ln *lane) { ln.cut = false })
	}
}

// Watch lets f see each Ethernet frame that h, which is at one end, sends. f may change it in its place, and has it dropped
// by returning false. It must be quick, must not keep the slice, and is called by one goroutine at a time. nil ends the watch;
// when Watch returns, the f of before is not called any more.
func (w *Wire) Watch(h *Host, f func(frame []byte) bool) {
	w.from(h).change(func(ln *lane) { ln.watch = f })
}

// Counts tells what happened so far to frames that h, which is at one end, sent.
func (w *Wire) Counts(h *Host) (c Counts) {
	w.from(h).change(func(ln *lane) { c = ln.Counts })
	return c
}

func (w *Wire) from(h *Host) *lane {
	switch h {
	case w.A.Host:
		return w.lanes[0]
	case w.B.Host:
		return w.lanes[1]
	}
	panic(fmt.Sprintf("BUG: host %s is not at the wire between %s and %s", h.Name, w.A.Host.Name, w.B.Host.Name))
}

// lane is one direction of a Wire.
type lane struct {
	in, out *os.File
	wake    chan struct{} // tells deliver of a first frame in queue
	done    chan struct{} // closed when nothing comes any more

	mu sync.Mutex // also while a frame is written: so frames keep their order
	Conditions
	Counts
	cut    bool
	watch  func([]byte) bool
	random *rand.Rand
	free   time.Time // when all that came so far has been sent at Rate
	last   time.Time // when the last frame of queue is due
	queue  []held    // in the order they came and are due
	bytes  int       // in queue
}

// held is a frame on its way.
type held struct {
	due   time.Time
	frame []byte
}

func (ln *lane) change(f func(*lane)) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	f(ln)
}

// read takes what the host sends until the device is closed.
func (ln *lane) read() {
	buf := make([]byte, frameMost)
	for {
		n, err := ln.in.Read(buf)
		if err != nil {
			return
		}
		ln.take(time.Now(), buf[:n])
	}
}

// take decides on one frame.
func (ln *lane) take(now time.Time, frame []byte) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.watch != nil && !ln.watch(frame) || ln.cut || ln.Loss > 0 && ln.random.Float64() < ln.Loss {
		ln.Lost++
		return
	}
	due := now
	if ln.Rate > 0 {
		wait, most := max(0, ln.free.Sub(now)), ln.Queue
		if most == 0 {
			most = defaultQueue
		}
		if wait > most {
			ln.Full++
			return
		}
		ln.free = now.Add(wait + time.Duration(len(frame))*8*time.Second/time.Duration(ln.Rate))
		due = ln.free
	}
	due = due.Add(ln.Delay)
	if ln.Jitter > 0 {
		due = due.Add(time.Duration(ln.random.Int64N(int64(ln.Jitter))))
	}
	switch {
	case len(ln.queue) == 0 && !due.After(now):
		ln.write(frame)
	case ln.bytes+len(frame) > heldMost:
		ln.Full++
	default:
		if due.Before(ln.last) {
			due = ln.last
		}
		ln.last = due
		ln.queue = append(ln.queue, held{due, append([]byte(nil), frame...)})
		ln.bytes += len(frame)
		if len(ln.queue) == 1 {
			select {
			case ln.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (ln *lane) write(frame []byte) {
	if _, err := ln.out.Write(frame); err != nil { // the device is down, or closed
		ln.Full++
		return
	}
	ln.Passed++
}

// deliver carries what had to wait to the other end, each frame when it is due.
func (ln *lane) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(ln.flush(time.Now()))
		select {
		case <-ln.wake:
		case <-timer.C:
		case <-ln.done:
			return
		}
	}
}

// flush writes what is due and returns the time until the next frame is.
func (ln *lane) flush(now time.Time) time.Duration {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	n := 0
	for ; n < len(ln.queue) && !ln.queue[n].due.After(now); n++ {
		ln.write(ln.queue[n].frame)
		ln.bytes -= len(ln.queue[n].frame)
		ln.queue[n].frame = nil
	}
	if ln.queue = ln.queue[n:]; len(ln.queue) == 0 {
		ln.queue = nil
		return time.Hour
	}
	return ln.queue[0].due.Sub(now)
}

// tap makes a TAP device in a namespace. It lives until the file is closed, at the latest with this process.
func tap(namespace, name string) (f *os.File, err error) {
	err = within(namespace, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			unix.Close(fd) //nolint:errcheck // nothing was written
			return err
		}
		f = os.NewFile(uintptr(fd), "tap "+name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make the device %s in %s: %w", name, namespace, err)
	}
	return f, nil
}
