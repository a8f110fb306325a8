// Package tun opens the TUN device through which a network's packets reach the host and leave it.
//
// A Device moves frames ([packet.Frame]): on Linux, with a virtio header, one read or write moves a super-packet of up to
// 64 KiB whose segments are cut or joined by the data plane; elsewhere one packet a call. Reads belong to one goroutine at a
// time; writes may come from several and are serialised by the kernel. Close makes both return [os.ErrClosed].
//
// The package sets no addresses and no routes: package host does.
package tun

import (
	"fmt"

	"github.com/warren-vpn/warren/internal/packet"
)

// FrameSize is the room that a frame's Data needs for a read: the largest super-packet, rounded up.
const FrameSize = 65536

// NamePrefix starts the name of every interface that Warren makes: warren0, warren1, ...
const NamePrefix = "warren"

// Device is an open TUN device.
type Device interface {
	// ReadFrames blocks until there is a packet, then takes what is there at once, up to len(frames). Each Data has a
	// capacity of FrameSize and is set to what was read. It returns how many were filled.
	ReadFrames(frames []packet.Frame) (int, error)
	// WriteFrame gives the host one packet or super-packet whose bytes are the pieces in order.
	WriteFrame(o packet.Offload, pieces [][]byte) error
	// Name is the interface's name as the host knows it.
	Name() string
	// Offloads names what the kernel was found able to do, for people: "tso", "uso", "none".
	Offloads() []string
	// Close removes the device. It is safe to call twice.
	Close() error
}

// errOpen says what a person can do about a device that does not open.
func errOpen(name string, err error) error {
	return fmt.Errorf("open TUN device %s: %w (%s)", name, err, advice(err))
}
