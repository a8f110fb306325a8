package tun

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/warren-vpn/warren/internal/packet"
)

const (
	device  = "/dev/net/tun"
	maxIovs = 72 // virtio header and the pieces of one super-packet
	maxName = 16
	tooMany = 64 // warren0 ... warren63
	tunUSO4 = 0x20
	tunUSO6 = 0x40
	tunTSO  = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	minVnet = packet.OffloadSize
)

// linux is a TUN device with IFF_VNET_HDR: each read and write carries a virtio header.
type linux struct {
	file     *os.File
	closed   atomic.Bool
	conn     syscall.RawConn
	name     string
	offloads []string

	read  reader
	write writer
}

// reader is the state of ReadFrames, kept so that the closure that the poller calls is made once.
type reader struct {
	frames []packet.Frame
	n      int
	err    error
	header [packet.OffloadSize]byte
	iov    [2]unix.Iovec
	poll   func(fd uintptr) bool
}

// Open makes the interface name, or for an empty name the first free of warren0, warren1, ...
func Open(name string) (Device, error) {
	if name != "" {
		return open(name)
	}
	for i := range tooMany {
		d, err := open(fmt.Sprintf("%s%d", NamePrefix, i))
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
			return d, err
		}
	}
	return nil, errOpen(NamePrefix+"*", unix.EBUSY)
}

func advice(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "warren needs root"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return "the kernel has no TUN devices: load its module with: modprobe tun"
	case errors.Is(err, unix.EINVAL):
		return "an interface of that name is there and is no TUN device: give another name as interface in the config file"
	case errors.Is(err, unix.EBUSY):
		return "another process uses it: end that, or give another name as interface in the config file"
	}
	return "warren needs root, and the tun module of the kernel"
}

func open(name string) (Device, error) {
	if len(name) >= maxName {
		return nil, fmt.Errorf("interface name %q: longer than %d characters", name, maxName-1)
	}
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errOpen(name, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // the first error counts
		return nil, errOpen(name, err)
	}
	d := &linux{name: req.Name()}
	switch {
	case unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunTSO|tunUSO4|tunUSO6) == nil:
		d.offloads = []string{"tso", "uso"}
	case unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunTSO) == nil: // kernels before 6.2
		d.offloads = []string{"tso"}
	default:
		d.offloads = []string{"none"}
	}
	d.file = os.NewFile(uintptr(fd), device)
	if d.conn, err = d.file.SyscallConn(); err != nil {
		d.file.Close() //nolint:errcheck // the first error counts
		return nil, errOpen(name, err)
	}
	d.read.poll = d.read.fill
	d.write.poll = d.write.flush
	return d, nil
}

// Name implements Device.
func (d *linux) Name() string { return d.name }

// Offloads implements Device.
func (d *linux) Offloads() []string { return slices.Clone(d.offloads) }

// Close implements Device.
func (d *linux) Close() error {
	d.closed.Store(true)
	if err := d.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// ReadFrames implements Device.
func (d *linux) ReadFrames(frames []packet.Frame) (int, error) {
	r := &d.read
	for {
		r.frames, r.n, r.err = frames, 0, nil
		if err := d.conn.Read(r.poll); err != nil {
			return 0, d.cause(err)
		}
		if r.err != nil {
			return 0, fmt.Errorf("read %s: %w", d.name, d.cause(r.err))
		}
		if r.n > 0 {
			return r.n, nil
		}
	}
}

// fill reads until the frames are full or the queue is empty; false asks the poller to wait.
func (r *reader) fill(fd uintptr) bool {
	for r.n < len(r.frames) {
		f := &r.frames[r.n]
		buf := f.Data[:cap(f.Data)]
		r.iov[0].Base, r.iov[1].Base = &r.header[0], &buf[0]
		r.iov[0].SetLen(len(r.header))
		r.iov[1].SetLen(len(buf))
		got, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&r.iov[0])), 2)
		switch {
		case errno == unix.EAGAIN:
			return r.n > 0
		case errno == unix.EINTR:
			continue
		case errno != 0:
			if r.n == 0 {
				r.err = errno
			}
			return true
		case got <= minVnet:
			continue
		}
		o, err := packet.ParseOffload(r.header[:])
		if err != nil {
			continue // a kind of packet that we did not ask for
		}
		f.Offload, f.Data = o, buf[:got-minVnet]
		r.n++
	}
	return true
}

// writer is the state of WriteFrame, kept so that a write allocates nothing.
type writer struct {
	mu     sync.Mutex // guards what follows
	header [packet.OffloadSize]byte
	iov    [maxIovs]unix.Iovec
	n      int
	errno  syscall.Errno
	poll   func(fd uintptr) bool
}

// WriteFrame implements Device. A full queue of the host drops the packet, as a wire would.
func (d *linux) WriteFrame(o packet.Offload, pieces [][]byte) error {
	if len(pieces) == 0 || len(pieces) >= maxIovs {
		return fmt.Errorf("write %s: %d pieces", d.name, len(pieces))
	}
	w := &d.write
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Put(w.header[:])
	w.iov[0].Base = &w.header[0]
	w.iov[0].SetLen(len(w.header))
	w.n = 1
	for _, p := range pieces {
		if len(p) > 0 {
			w.iov[w.n].Base = &p[0]
			w.iov[w.n].SetLen(len(p))
			w.n++
		}
	}
	err := d.conn.Write(w.poll)
	clear(w.iov[:w.n]) // the pieces are the caller's again
	if err != nil {
		return d.cause(err)
	}
	if w.errno != 0 {
		return fmt.Errorf("write %s: %w", d.name, w.errno)
	}
	return nil
}

// flush writes the gathered pieces once; it never asks the poller to wait.
func (w *writer) flush(fd uintptr) bool {
	for {
		_, _, w.errno = unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(w.n))
		if w.errno != unix.EINTR {
			return true
		}
	}
}

// cause tells our own Close from a device that somebody else removed.
func (d *linux) cause(err error) error {
	if d.closed.Load() {
		return os.ErrClosed
	}
	if errors.Is(err, unix.EBADFD) {
		return errors.New("the interface was removed")
	}
	return err
}
