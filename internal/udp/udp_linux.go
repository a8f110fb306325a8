package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/warren-vpn/warren/internal/packet"
)

const batch = 64 // messages a system call

// linux is a UDP socket used through recvmmsg and sendmmsg, which wait by themselves. The poller of the runtime does not know it:
// every train that comes, and every one that has left, would wake it, also while who reads is at work anyway.
type linux struct {
	file   *os.File
	raw    syscall.RawConn // of file: keeps it open while a call is under way
	port   uint16
	v6     bool // the socket is AF_INET6: addresses go as mapped
	gro    bool
	noGSO  atomic.Bool
	read   ring // used by the one reader, as heard
	write  ring // guarded by writeMu, as spoken
	heard  zones
	spoken zones
	closed atomic.Bool

	writeMu sync.Mutex
}

func listen(port uint16) (Socket, error) {
	s, err := open(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port)})
	if err != nil && !errors.Is(err, unix.EADDRINUSE) { // a host without IPv6
		s, err = open(unix.AF_INET, &unix.SockaddrInet4{Port: int(port)})
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open makes a socket of the family at any local address. One of AF_INET6 is dual-stack.
func open(family int, at unix.Sockaddr) (*linux, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s := &linux{file: os.NewFile(uintptr(fd), "udp"), v6: family == unix.AF_INET6} // calls on it block
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.bind(fd, at)
	}
	if err != nil {
		s.file.Close() //nolint:errcheck // the first error counts
		return nil, err
	}
	s.setOptions(fd)
	s.read.init(unix.SYS_RECVMMSG, unix.MSG_WAITFORONE)
	s.write.init(unix.SYS_SENDMMSG, unix.MSG_NOSIGNAL)
	return s, nil
}

// bind gives the new socket its address.
func (s *linux) bind(fd int, at unix.Sockaddr) error {
	if s.v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fmt.Errorf("dual-stack socket: %w", err)
		}
	}
	if err := unix.Bind(fd, at); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	at, err := unix.Getsockname(fd)
	switch at := at.(type) {
	case *unix.SockaddrInet6:
		s.port = uint16(at.Port)
	case *unix.SockaddrInet4:
		s.port = uint16(at.Port)
	}
	return err
}

// setOptions asks for what makes the socket fast. Each is a wish: what is refused is done without.
func (s *linux) setOptions(fd int) {
	s.gro = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		s.noGSO.Store(true)
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
	} {
		unix.SetsockoptInt(fd, o.level, o.name, o.value) //nolint:errcheck // a wish
	}
}

// Port implements Socket.
func (s *linux) Port() uint16 { return s.port }

// Offloads implements Socket.
func (s *linux) Offloads() []string {
	out := []string{"mmsg"}
	if !s.noGSO.Load() {
		out = append(out, "gso")
	}
	if s.gro {
		out = append(out, "gro")
	}
	return out
}

// Overflow implements Socket.
func (s *linux) Overflow() (n uint64) {
	const drops = 8                  // SK_MEMINFO_DROPS of linux/sock_diag.h
	s.raw.Control(func(fd uintptr) { //nolint:errcheck // a closed socket has none
		var info [drops + 1]uint32
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			n = uint64(info[drops])
		}
	})
	return n
}

// Close implements Socket.
func (s *linux) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	err := s.raw.Control(func(fd uintptr) {
		unix.Shutdown(int(fd), unix.SHUT_RDWR) //nolint:errcheck // ENOTCONN, and yet it ends the calls that wait
	})
	return errors.Join(err, s.file.Close()) // the descriptor goes with the last of those calls
}

// mmsghdr is Linux's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// controlSize holds one control message with an int or a uint16.
const controlSize = 24

// place is a datagram in a batch: a train and the offset in its bytes.
type place struct{ train, offset int }

// ring is the memory that the kernel reads and fills in one call, made once.
type ring struct {
	msgs    [batch]mmsghdr
	iovs    [batch]unix.Iovec
	names   [batch]unix.RawSockaddrInet6
	control [batch][controlSize]byte
	from, n int              // messages to move: [from:n]
	at      [batch + 1]place // where in the caller's batch each message starts; last, where the next would
	singly  int              // the train of the caller's batch whose datagrams go one by one; -1: none
	done    int
	errno   syscall.Errno
	call    uintptr
	flags   uintptr
	move    func(fd uintptr) bool // as syscall.RawConn wants it
}

func (r *ring) init(call, flags uintptr) {
	r.call, r.flags, r.move = call, flags, r.syscall
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
	}
}

// syscall moves messages [from:n], one of them at least, and sets done or errno.
func (r *ring) syscall(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(r.call, fd, uintptr(unsafe.Pointer(&r.msgs[r.from])), uintptr(r.n-r.from), r.flags, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		r.done, r.errno = int(n), errno
		return true
	}
}

// ReadBatch implements Socket.
func (s *linux) ReadBatch(b []packet.Datagrams) (int, error) {
	r := &s.read
	r.from, r.n = 0, min(len(b), batch)
	for i := range r.n {
		buf := b[i].Data[:cap(b[i].Data)]
		r.iovs[i].Base = &buf[0]
		r.iovs[i].SetLen(len(buf))
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.Control = &r.control[i][0]
		h.SetControllen(controlSize)
	}
	err := s.raw.Read(r.move)
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	if err != nil {
		return 0, err
	}
	if r.errno != 0 {
		return 0, fmt.Errorf("receive: %w", r.errno)
	}
	for i := range r.done {
		n := int(r.msgs[i].n)
		d := &b[i]
		d.Data, d.Segment = d.Data[:n], n
		d.Addr = readAddr(&r.names[i], &s.heard)
		if size := groSize(r.control[i][:r.msgs[i].hdr.Controllen]); size > 0 && size < n {
			d.Segment = size
		}
	}
	return r.done, nil
}

// groSize finds the UDP_GRO control message: an int, the size of the datagrams of a train.
func groSize(c []byte) int {
	if len(c) < unix.CmsgLen(4) {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	if h.Level != unix.SOL_UDP || h.Type != unix.UDP_GRO {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(c[unix.CmsgLen(0):])))
}

// WriteBatch implements Socket.
func (s *linux) WriteBatch(b []packet.Datagrams) (err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.write.singly = -1
	for p := (place{}); p.train < len(b); {
		s.fill(b, p)
		next, e := s.flush()
		if errors.Is(e, net.ErrClosed) {
			return e
		}
		if e != nil {
			err = e
		}
		p = next
	}
	return err
}

// fill makes messages of b from p on, as many as the ring takes: one a train, or one a datagram without GSO.
func (s *linux) fill(b []packet.Datagrams, p place) {
	r := &s.write
	noGSO := s.noGSO.Load()
	for r.from, r.n = 0, 0; r.n < batch && p.train < len(b); r.n++ {
		d := &b[p.train]
		data := d.Data[p.offset:]
		if (noGSO || p.train == r.singly) && len(data) > d.Segment {
			data = data[:d.Segment]
		}
		h := &r.msgs[r.n].hdr
		h.Namelen = writeAddr(&r.names[r.n], d.Addr, s.v6, &s.spoken)
		h.Control = nil
		h.SetControllen(0)
		if len(data) > d.Segment {
			putSegment(h, &r.control[r.n], d.Segment)
		}
		r.iovs[r.n].Base = &data[0]
		r.iovs[r.n].SetLen(len(data))
		r.at[r.n] = p
		if p.offset += len(data); p.offset == len(d.Data) {
			p = place{train: p.train + 1}
		}
	}
	r.at[r.n] = p
}

// flush sends the ring's messages. It returns where to go on, which is before a train that the kernel refuses to cut.
func (s *linux) flush() (next place, err error) {
	r := &s.write
	for r.from < r.n {
		e := s.raw.Write(r.move)
		if s.closed.Load() {
			return next, net.ErrClosed
		}
		if e != nil {
			return next, e
		}
		switch {
		case r.errno == 0:
			r.from += r.done
		case r.msgs[r.from].hdr.Control != nil && r.errno == unix.EIO:
			s.noGSO.Store(true) // the way out has no checksum offload
			return r.at[r.from], nil
		case r.msgs[r.from].hdr.Control != nil && r.errno == unix.EINVAL:
			r.singly = r.at[r.from].train // such as larger datagrams than the way out takes: this train's own fault
			return r.at[r.from], nil
		default:
			err = fmt.Errorf("send: %w", r.errno)
			r.from++
		}
	}
	return r.at[r.n], err
}

// putSegment makes the UDP_SEGMENT control message: a uint16, the size of the datagrams of a train.
func putSegment(h *unix.Msghdr, c *[controlSize]byte, size int) {
	cm := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	cm.Level, cm.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	cm.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(c[unix.CmsgLen(0):], uint16(size))
	h.Control = &c[0]
	h.SetControllen(unix.CmsgSpace(2))
}

// readAddr reads the sender's address, of either family.
func readAddr(name *unix.RawSockaddrInet6, z *zones) netip.AddrPort {
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), ntohs(v4.Port))
	}
	return netip.AddrPortFrom(z.with(netip.AddrFrom16(name.Addr).Unmap(), name.Scope_id), ntohs(name.Port))
}

// writeAddr writes the receiver's address in the socket's family and returns its size.
func writeAddr(name *unix.RawSockaddrInet6, ap netip.AddrPort, v6 bool, z *zones) uint32 {
	if !v6 {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(ap.Port())}
		if a := ap.Addr().Unmap(); a.Is4() {
			v4.Addr = a.As4()
		}
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(ap.Port()), Addr: ap.Addr().As16(), Scope_id: z.number(ap.Addr())}
	return unix.SizeofSockaddrInet6
}

// ntohs turns a port between network order as stored in memory and a number.
func ntohs(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}
