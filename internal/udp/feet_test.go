package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

// Feet speak with one address each, from ports of their own, and nobody else is heard. spec/73-nat.md#birthday
func TestFeet(t *testing.T) {
	a, stranger, to := pair(t)
	main, _, _ := pair(t)
	f := NewFeet()
	t.Cleanup(func() { f.Close() })
	far, strange := netip.AddrPortFrom(to.Addr(), a.Port()), to
	feet, err := f.Open(far, 3)
	if err != nil || len(feet) != 3 || f.Remote(feet[0]) != far {
		t.Fatalf("open: %v, %v", feet, err)
	}
	both := f.Over(main)
	ports := map[uint16]netip.AddrPort{}
	for i, foot := range feet {
		if !wire.IsFoot(foot.Addr()) || wire.IsStream(foot.Addr()) {
			t.Errorf("%v stands for no foot", foot)
		}
		if err := both.WriteBatch([]packet.Datagrams{{Data: []byte{1, byte(i), 2}, Segment: 2, Addr: foot}, {Data: []byte{9}, Segment: 1, Addr: strange}}); err != nil {
			t.Fatal(err)
		}
		got, from := readAll(t, a, 2)
		if string(got[0]) != string([]byte{1, byte(i)}) || string(got[1]) != "\x02" || ports[from.Port()].IsValid() || from.Port() == main.Port() {
			t.Errorf("%x came from %v", got, from)
		}
		ports[from.Port()] = foot
		if got, from := readAll(t, stranger, 1); len(got) != 1 || from.Port() != main.Port() {
			t.Errorf("what is for no foot came from %v", from)
		}
	}
	b := buffers(4)
	for port, foot := range ports {
		at := netip.AddrPortFrom(far.Addr(), port)
		if err := errors.Join(stranger.WriteBatch([]packet.Datagrams{{Data: []byte("strange"), Segment: 7, Addr: at}}),
			a.WriteBatch([]packet.Datagrams{{Data: []byte("friend"), Segment: 6, Addr: at}})); err != nil {
			t.Fatal(err)
		}
		n, err := f.ReadBatch(b)
		if err != nil || n != 1 || string(b[0].Data) != "friend" || b[0].Addr != foot {
			t.Errorf("%d: %q from %v: %v", n, b[0].Data, b[0].Addr, err)
		}
	}
	f.Drop(feet[0], feet[1], netip.AddrPort{})
	if err := both.WriteBatch([]packet.Datagrams{{Data: []byte{1}, Segment: 1, Addr: feet[0]}}); !errors.Is(err, net.ErrClosed) || f.Len() != 1 {
		t.Errorf("a closed foot of %d: %v", f.Len(), err)
	}
}

// A host has so many feet and no more, and none are left at the end.
func TestFeetAreBounded(t *testing.T) {
	_, _, to := pair(t)
	f := NewFeet()
	feet, err := f.Open(to, MaxFeet+1)
	if err == nil || len(feet) > MaxFeet {
		t.Errorf("%d feet: %v", len(feet), err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadBatch(buffers(1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
	if feet, err := f.Open(to, 1); err == nil || len(feet) > 0 || f.Len() != 0 {
		t.Errorf("opened after the end: %v", feet)
	}
}

// broken is a socket that fails whenever it is read, until it is closed.
type broken struct{ reads, most int }

func (b *broken) Read([]byte) (int, error) {
	if b.reads++; b.reads == b.most {
		return 0, net.ErrClosed
	}
	return 0, errors.New("it is broken")
}

// A socket that fails for ever costs next to nothing, and one that fails once delays nothing.
func TestABrokenSocketIsReadSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeet()
		begun := time.Now()
		f.read(netip.AddrPort{}, &broken{most: 600})
		if took := time.Since(begun); took < 50*time.Second {
			t.Errorf("a foot that fails is read 600 times within %v", took)
		}
		begun = time.Now()
		f.read(netip.AddrPort{}, &broken{most: 2})
		if took := time.Since(begun); took > 0 {
			t.Errorf("after one error it is not read for %v", took)
		}
	})
}
