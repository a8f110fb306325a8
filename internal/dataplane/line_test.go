package dataplane

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/warren-vpn/warren/internal/packet"
)

// feed is a socket and a TUN device that give what they were filled with, one a read, then say that they are closed; and keep
// what they are given.
type feed struct {
	mu     sync.Mutex
	trains []packet.Datagrams
	frames []packet.Frame
	host   []packet.Frame
	sent   []packet.Datagrams
}

func (f *feed) ReadBatch(b []packet.Datagrams) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.trains) == 0 {
		return 0, net.ErrClosed
	}
	t := f.trains[0]
	f.trains = f.trains[1:]
	b[0] = packet.Datagrams{Data: b[0].Data[:copy(b[0].Data[:cap(b[0].Data)], t.Data)], Segment: t.Segment, Addr: addrs[0]}
	return 1, nil
}

func (f *feed) ReadFrames(frames []packet.Frame) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.frames) == 0 {
		return 0, os.ErrClosed
	}
	g := f.frames[0]
	f.frames = f.frames[1:]
	frames[0] = packet.Frame{Offload: g.Offload, Data: append(frames[0].Data[:0], g.Data...)}
	return 1, nil
}

func (f *feed) WriteFrame(o packet.Offload, pieces [][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host = append(f.host, packet.Frame{Offload: o, Data: bytes.Join(pieces, nil)})
	return nil
}

func (f *feed) WriteBatch(b []packet.Datagrams) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range b {
		f.sent = append(f.sent, packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment})
	}
	return nil
}

// Four workers a stream, of very unequal batches, through both ends: what comes out is what went in, in its order.
func TestManyWorkersKeepTheOrder(t *testing.T) {
	a, b := newPair(t, false)
	const count = 400
	out, in := &feed{}, &feed{}
	for i := range count {
		f := superPacket(1+i*i%30000, 1240)
		binary.BigEndian.PutUint32(f.Data[24:], uint32(i)<<16) // no two frames follow one another in sequence
		out.frames = append(out.frames, f)
	}
	a.plane.workers, b.plane.workers = 4, 4
	a.plane.socket, a.net.tunnel = out, out
	b.plane.socket, b.net.tunnel = in, in
	want := out.frames
	if err := a.net.Run(); err != nil {
		t.Fatal(err)
	}
	in.trains = out.sent
	if err := b.plane.Run(); err != nil {
		t.Fatal(err)
	}
	last := -1
	for i, f := range in.host {
		n := int(seq(f.Data))
		if n < last {
			t.Fatalf("frame %d of %d has number %d, after %d", i, len(in.host), n, last)
		}
		last = n
	}
	if total(in.host) != total(want) || len(b.plane.Drops()) != 0 {
		t.Fatalf("%d payload bytes of %d, drops %v", total(in.host), total(want), b.plane.Drops())
	}
}

func seq(p []byte) uint32 { return binary.BigEndian.Uint32(p[24:]) }

func total(frames []packet.Frame) (n int) {
	for _, f := range frames {
		n += len(f.Data) - 40
	}
	return n
}
