package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// heard is a datagram that Beacons delivered.
type heard struct {
	from  netip.AddrPort
	iface string
	data  []byte
}

// newBeacons opens Beacons whose datagrams come out of the channel.
func newBeacons(t *testing.T, skip func(string) bool) (*Beacons, chan heard) {
	t.Helper()
	ch := make(chan heard, 100)
	b, err := NewBeacons(skip, func(from netip.AddrPort, iface string, data []byte) {
		select {
		case ch <- heard{from, iface, data}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, ch
}

func nobody(string) bool { return false }

// await returns the next datagram with the data, within a time.
func await(ch chan heard, data string, within time.Duration) (heard, bool) {
	limit := time.After(within)
	for {
		select {
		case h := <-ch:
			if string(h.data) == data {
				return h, true
			}
		case <-limit:
			return heard{}, false
		}
	}
}

// somewhere skips the test on a machine without an interface that has multicast.
func somewhere(t *testing.T, b *Beacons) {
	t.Helper()
	if len(b.interfaces()) == 0 {
		t.Skip("no interface with multicast is up")
	}
}

var testGroups = []netip.AddrPort{netip.MustParseAddrPort("239.195.7.9:17391"), netip.MustParseAddrPort("[ff12::7:9:8123:4567]:17391")}

// spec/70-discover.md#beacons
func TestBeaconsAreHeardAndAnswered(t *testing.T) {
	for _, g := range testGroups {
		t.Run(g.Addr().String(), func(t *testing.T) {
			a, atA := newBeacons(t, nobody)
			b, atB := newBeacons(t, nobody)
			somewhere(t, a)
			if err := b.Listen([]netip.AddrPort{g}); err != nil {
				t.Skipf("this machine cannot hear the group: %v", err)
			}
			if err := a.Send(g, "", []byte("question")); err != nil {
				t.Skipf("this machine cannot send to the group: %v", err)
			}
			h, ok := await(atB, "question", 2*time.Second)
			if !ok {
				t.Fatal("the beacon was not heard")
			}
			if h.iface == "" || h.from.Port() == 0 || h.from.Addr().Is4In6() {
				t.Errorf("heard %+v", h)
			}
			if err := b.Send(h.from, h.iface, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			back, ok := await(atA, "answer", 2*time.Second)
			if !ok {
				t.Fatal("the answer did not come")
			}
			if back.iface == "" && !h.from.Addr().IsLoopback() {
				t.Errorf("answered from %+v", back)
			}
			if err := b.Listen(nil); err != nil {
				t.Fatal(err)
			}
			a.Send(g, "", []byte("after")) //nolint:errcheck // it went before
			if _, ok := await(atB, "after", 200*time.Millisecond); ok {
				t.Error("a group that was left is heard")
			}
		})
	}
}

// Two processes of one machine hear the same group; one of them may hear it again.
func TestTwoHearOneGroup(t *testing.T) {
	g := testGroups[0]
	a, _ := newBeacons(t, nobody)
	somewhere(t, a)
	var all []chan heard
	for range 2 {
		b, ch := newBeacons(t, nobody)
		for range 2 {
			if err := b.Listen(testGroups[:1]); err != nil {
				t.Skipf("this machine cannot hear the group: %v", err)
			}
		}
		all = append(all, ch)
	}
	if err := a.Send(g, "", []byte("to both")); err != nil {
		t.Skipf("this machine cannot send to the group: %v", err)
	}
	for i, ch := range all {
		if _, ok := await(ch, "to both", 2*time.Second); !ok {
			t.Errorf("number %d did not hear it", i)
		}
	}
}

func TestSkippedInterfacesAreLeftAlone(t *testing.T) {
	g := testGroups[0]
	all := func(string) bool { return true }
	a, _ := newBeacons(t, nobody)
	somewhere(t, a)
	b, atB := newBeacons(t, all)
	if err := b.Listen(testGroups); err != nil {
		t.Errorf("listen on no interface: %v", err)
	}
	if err := b.Send(g, "", []byte("from nowhere")); err != nil {
		t.Errorf("send on no interface: %v", err)
	}
	a.Send(g, "", []byte("to nobody")) //nolint:errcheck // nobody is to hear it
	if h, ok := await(atB, "to nobody", 200*time.Millisecond); ok {
		t.Errorf("heard %+v on an interface that is to be left alone", h)
	}
}

// Long datagrams are cut, empty ones are delivered, and what is delivered stays as it is.
func TestBeaconsOfAllSizes(t *testing.T) {
	b, ch := newBeacons(t, nobody)
	port := b.own[0].conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	c, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got [][]byte
	sizes := []int{64, 0, maxBeacon, maxBeacon + 1, 9000, 1}
	for i, size := range sizes {
		if _, err := c.Write(bytes.Repeat([]byte{byte(i + 1)}, size)); err != nil {
			t.Fatal(err)
		}
		select {
		case h := <-ch:
			got = append(got, h.data)
		case <-time.After(2 * time.Second):
			t.Fatalf("%d bytes are not delivered", size)
		}
	}
	for i, size := range sizes {
		if want := bytes.Repeat([]byte{byte(i + 1)}, min(size, maxBeacon)); !slices.Equal(got[i], want) {
			t.Errorf("of %d bytes, %d came: %.8x", size, len(got[i]), got[i])
		}
	}
}

func TestBeaconsClosed(t *testing.T) {
	b, _ := newBeacons(t, nobody)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(testGroups); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
	if err := b.Send(netip.MustParseAddrPort("127.0.0.1:9"), "", []byte("x")); err == nil {
		t.Error("Send after Close does not fail")
	}
}
