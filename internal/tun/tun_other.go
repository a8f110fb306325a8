//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/warren-vpn/warren/internal/packet"
)

// headroom is the space that wireguard-go's devices want in front of a packet.
const headroom = 16

// plain wraps a device of wireguard-go, which moves one packet a call on these systems.
type plain struct {
	dev  wgtun.Device
	name string

	bufs  [][]byte
	sizes []int

	mu  sync.Mutex
	out []byte // guarded by mu
}

// Open makes the interface name; an empty name lets the system choose.
func Open(name string) (Device, error) {
	if name == "" {
		name = NamePrefix + "0"
		if runtime.GOOS == "darwin" || runtime.GOOS == "openbsd" {
			name = map[string]string{"darwin": "utun", "openbsd": "tun"}[runtime.GOOS]
		}
	}
	dev, err := wgtun.CreateTUN(name, 1420)
	if err != nil {
		return nil, errOpen(name, err)
	}
	real, err := dev.Name()
	if err != nil {
		dev.Close() //nolint:errcheck // the first error counts
		return nil, errOpen(name, err)
	}
	d := &plain{dev: dev, name: real, out: make([]byte, headroom+FrameSize)}
	for range dev.BatchSize() {
		d.bufs = append(d.bufs, make([]byte, headroom+FrameSize))
		d.sizes = append(d.sizes, 0)
	}
	return d, nil
}

// Name implements Device.
func (d *plain) Name() string { return d.name }

// Offloads implements Device.
func (d *plain) Offloads() []string { return []string{"none"} }

// Close implements Device.
func (d *plain) Close() error { return d.dev.Close() }

// ReadFrames implements Device.
func (d *plain) ReadFrames(frames []packet.Frame) (int, error) {
	for {
		k := min(len(d.bufs), len(frames))
		n, err := d.dev.Read(d.bufs[:k], d.sizes[:k], headroom)
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return 0, os.ErrClosed
			}
			return 0, fmt.Errorf("read %s: %w", d.name, err)
		}
		for i := range n {
			frames[i].Data = append(frames[i].Data[:0], d.bufs[i][headroom:headroom+d.sizes[i]]...)
			frames[i].Offload = packet.Offload{}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// WriteFrame implements Device. A super-packet is cut first.
func (d *plain) WriteFrame(o packet.Offload, pieces [][]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var whole []byte
	for _, p := range pieces {
		whole = append(whole, p...)
	}
	var s packet.Segmenter
	if err := s.Reset(packet.Frame{Offload: o, Data: whole}); err != nil {
		return fmt.Errorf("write %s: %w", d.name, err)
	}
	for n := s.Next(d.out[headroom:]); n > 0; n = s.Next(d.out[headroom:]) {
		if _, err := d.dev.Write([][]byte{d.out[:headroom+n]}, headroom); err != nil {
			return fmt.Errorf("write %s: %w", d.name, err)
		}
	}
	return nil
}

func advice(error) string {
	return "warren needs the rights of an administrator, and the system a TUN driver"
}
