// Package udp is the one UDP socket on which Warren speaks: with other nodes, with stock WireGuard, with those who join.
//
// A Socket moves batches of [packet.Datagrams]: on Linux one system call moves many messages (sendmmsg, recvmmsg), and one
// message may be a train of up to 64 datagrams (UDP_SEGMENT, UDP_GRO). Where the kernel cannot, it falls back by itself: to
// plain messages for good when a train is refused, to one datagram a call on other systems.
//
// The socket is dual-stack where the host has IPv6; addresses are always unmapped, and link-local ones name their interface. Outgoing IPv4 datagrams carry DF: path
// MTU is found by probing (spec/51-path.md). Reads belong to one goroutine at a time; writes may come from several. Close makes
// both return net.ErrClosed. On Linux both wait inside of the system call, on a thread.
package udp

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
)

const (
	// BufferSize is the room that Datagrams.Data needs for a read.
	BufferSize = 65536
	// MaxTrain is the limit of bytes in one outgoing Datagrams: the largest UDP payload over IPv4.
	MaxTrain = 65507
	// MaxSegments is the limit of datagrams in one outgoing Datagrams: UDP_MAX_SEGMENTS of older kernels.
	MaxSegments = 64

	socketBuffer = 4 << 20 // bytes asked for in each direction; the kernel may give less
)

// ErrPortTaken reports that another process uses the port.
var ErrPortTaken = errors.New("port is in use")

// Socket is an open UDP socket.
type Socket interface {
	// ReadBatch blocks until there is a datagram, then takes what is there at once, up to len(b). Each Data has a capacity of
	// BufferSize and is set to what was read.
	ReadBatch(b []packet.Datagrams) (int, error)
	// WriteBatch sends all of b. A datagram that cannot be sent now (no route, no buffer space, too big) is lost as on a wire; the
	// error is of the last such one, and those after it were still tried.
	WriteBatch(b []packet.Datagrams) error
	// Port is the local port.
	Port() uint16
	// Offloads names what the kernel was found able to do, for people: "gso", "gro", "mmsg", "none".
	Offloads() []string
	// Overflow counts datagrams that the kernel dropped because nobody read them in time; 0 where it does not tell.
	Overflow() uint64
	// Close closes the socket. It is safe to call twice.
	Close() error
}

// patience keeps who reads a socket that fails again and again from doing nothing else. The zero patience is that of a new socket.
type patience struct{ pause time.Duration }

const (
	pauseFirst = time.Millisecond // after the second error in a row; then it doubles
	pauseMost  = 100 * time.Millisecond
)

// after waits, if this error is not the first in a row. Single errors are usual: an earlier datagram was refused over there.
func (p *patience) after(err error) {
	if err == nil {
		p.pause = 0
		return
	}
	time.Sleep(p.pause)
	p.pause = min(max(2*p.pause, pauseFirst), pauseMost)
}

// Listen opens the socket on port, 0 for any free one.
func Listen(port uint16) (Socket, error) {
	s, err := listen(port)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on UDP port %d: %w: %w", port, ErrPortTaken, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on UDP port %d: %w", port, err)
	}
	return s, nil
}
