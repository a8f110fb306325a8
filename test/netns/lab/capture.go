//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// within calls f on a thread that is in the network namespace. What f opens stays there, whoever uses it later.
func within(namespace string, f func() error) (err error) {
	var wg sync.WaitGroup
	wg.Go(func() { // ends with f
		runtime.LockOSThread() // and never unlocks: the thread ends with us, nobody gets it in this state
		if os.Getpid() == unix.Gettid() {
			// The first thread cannot end, and would leave the whole process to be seen in the namespace. While we hold it,
			// the next try gets another one.
			err = within(namespace, f)
			runtime.UnlockOSThread()
			return
		}
		var ns *os.File
		if ns, err = os.Open(filepath.Join(netnsAt, namespace)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	})
	wg.Wait()
	return err
}

// Capture collects what passes an interface. Make it with [Host.Capture]; the end of the lab ends it.
type Capture struct {
	socket *os.File
	run    sync.WaitGroup

	mu   sync.Mutex
	data [][]byte
	size int
	err  error
}

const captureMost = 64 << 20 // bytes of one Capture; what comes on top makes it fail

// Capture begins to collect what passes an interface of the host, in both directions: Ethernet frames at a port, IP packets
// at a tunnel. The kernel may show several packets that it keeps together as one.
func (h *Host) Capture(dev string) *Capture {
	l := h.lab
	l.t.Helper()
	c := &Capture{}
	err := within(h.ns, func() error {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		index, err := indexOf(fd, dev)
		if err == nil {
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
				unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
		}
		if err != nil {
			unix.Close(fd) //nolint:errcheck // nothing was written
			return err
		}
		c.socket = os.NewFile(uintptr(fd), "capture "+dev)
		return nil
	})
	if err != nil {
		l.t.Fatalf("capture at %s of %s: %v", dev, h.Name, err)
	}
	c.run.Go(c.read) // ends when End closes the socket
	l.onClose(func() { c.End() })
	return c
}

// indexOf asks for the index of an interface of the namespace that the socket is in.
func indexOf(socket int, dev string) (int, error) {
	ifr, err := unix.NewIfreq(dev)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("interface %s: %w", dev, err)
	}
	return int(ifr.Uint32()), nil
}

func (c *Capture) read() {
	buf := make([]byte, frameMost)
	for {
		n, err := c.socket.Read(buf)
		if errors.Is(err, os.ErrClosed) || c.keep(buf[:n], err) != nil {
			return
		}
	}
}

// keep stores what a read gave. An error ends the collecting.
func (c *Capture) keep(b []byte, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, unix.ENETDOWN): // the interface is down; it may come back
	case err != nil:
		c.err = err
	case c.size+len(b) > captureMost:
		c.err = fmt.Errorf("more than %d bytes", captureMost)
	default:
		c.data, c.size = append(c.data, bytes.Clone(b)), c.size+len(b)
	}
	return c.err
}

// Count counts the packets so far that hold the mark.
func (c *Capture) Count(mark []byte) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.data {
		if bytes.Contains(p, mark) {
			n++
		}
	}
	return n
}

// End ends the collecting and returns all, in order. An error says that not all is there.
func (c *Capture) End() ([][]byte, error) {
	c.socket.Close()
	c.run.Wait()
	return c.data, c.err
}

// UDPHeader is the length in bytes of what is before the payload in what [FindUDP] returns.
const UDPHeader = 8

// FindUDP returns the UDP datagram in an Ethernet frame, with its header: a part of frame. nil: there is none, or a fragment.
func FindUDP(frame []byte) []byte {
	const ethernet, ip4, ip6 = 14, 20, 40
	if len(frame) < ethernet {
		return nil
	}
	ip := frame[ethernet:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_IP && len(ip) >= ip4 && ip[0] == 0x45 && ip[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(ip[6:])&0x3fff == 0:
		ip = ip[ip4:]
	case kind == unix.ETH_P_IPV6 && len(ip) >= ip6 && ip[6] == unix.IPPROTO_UDP:
		ip = ip[ip6:]
	default:
		return nil
	}
	if len(ip) < UDPHeader {
		return nil
	}
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if size < UDPHeader || size > len(ip) {
		return nil
	}
	return ip[:size]
}

// FlipBit flips the lowest bit of byte i of the payload of a datagram that [FindUDP] found, and mends its checksum: only who
// knows the payload can notice.
func FlipBit(udp []byte, i int) {
	i += UDPHeader
	change := uint32(udp[i]^1) - uint32(udp[i]) // 1 or -1
	if i%2 == 0 {
		change <<= 8
	}
	udp[i] ^= 1
	sum := uint32(binary.BigEndian.Uint16(udp[6:]))
	if sum == 0 {
		return // there is none
	}
	sum = 0xffff*2 + ^sum&0xffff + change // ones' complement: a multiple of 0xffff changes nothing
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum = ^sum & 0xffff; sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], uint16(sum))
}
