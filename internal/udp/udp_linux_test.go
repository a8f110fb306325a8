package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/warren-vpn/warren/internal/packet"
)

func pair(t testing.TB) (a, b Socket, to netip.AddrPort) {
	t.Helper()
	a, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err = Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Port())
}

func buffers(n int) []packet.Datagrams {
	b := make([]packet.Datagrams, n)
	for i := range b {
		b[i].Data = make([]byte, BufferSize)
	}
	return b
}

// readAll reads until want datagrams have come and returns them in order.
func readAll(t testing.TB, s Socket, want int) (got [][]byte, from netip.AddrPort) {
	t.Helper()
	b := buffers(8)
	for len(got) < want {
		n, err := s.ReadBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b[:n] {
			from = d.Addr
			for rest := d.Data; len(rest) > 0; {
				k := min(d.Segment, len(rest))
				got = append(got, bytes.Clone(rest[:k]))
				rest = rest[k:]
			}
		}
	}
	return got, from
}

// train makes n datagrams of size bytes, the last of them short.
func train(n, size, last int, to netip.AddrPort) packet.Datagrams {
	var data []byte
	for i := range n - 1 {
		data = append(data, bytes.Repeat([]byte{byte(i)}, size)...)
	}
	return packet.Datagrams{Data: append(data, bytes.Repeat([]byte{0xEE}, last)...), Segment: size, Addr: to}
}

func TestTrainsArriveAsTheDatagramsTheyStandFor(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, gso := range []bool{true, false} {
			a, b, to := pair(t)
			if v6 {
				to = netip.AddrPortFrom(netip.MustParseAddr("::1"), to.Port())
			}
			if l, ok := a.(*linux); ok && !gso {
				l.noGSO.Store(true)
			}
			out := []packet.Datagrams{train(5, 1000, 7, to), train(1, 300, 300, to), train(40, 1400, 1400, to)}
			if err := a.WriteBatch(out); err != nil {
				t.Fatal(err)
			}
			got, from := readAll(t, b, 46)
			if len(got) != 46 || len(got[4]) != 7 || len(got[5]) != 300 || got[3][0] != 3 || len(got[45]) != 1400 {
				t.Fatalf("gso=%v v6=%v: %d datagrams", gso, v6, len(got))
			}
			if from.Port() != a.Port() || from.Addr().Is4In6() || from.Addr().Is4() == v6 {
				t.Fatalf("sender %v", from)
			}
		}
	}
}

func TestOneBadDatagramDoesNotStopTheOthers(t *testing.T) {
	a, b, to := pair(t)
	err := a.WriteBatch([]packet.Datagrams{train(1, 5, 5, to), train(1, 65530, 65530, to), train(1, 6, 6, to)})
	if err == nil {
		t.Fatal("sending more than UDP can carry went well")
	}
	if got, _ := readAll(t, b, 2); len(got[1]) != 6 {
		t.Fatalf("got %v", got)
	}
}

// A train that the kernel does not cut costs nobody else the offload: a member can make a relay send such a train.
func TestATrainTheKernelRefusesGoesSingly(t *testing.T) {
	a, b, to := pair(t)
	if err := a.WriteBatch([]packet.Datagrams{train(1, 5, 5, to), train(200, 300, 300, to), train(1, 6, 6, to)}); err != nil { // at most 128
		t.Fatal(err)
	}
	if got, _ := readAll(t, b, 202); len(got[201]) != 6 || len(got[100]) != 300 {
		t.Fatalf("got %d datagrams", len(got))
	}
	if a.(*linux).noGSO.Load() {
		t.Error("the offload is off for all")
	}
}

func TestOverflowIsCounted(t *testing.T) {
	a, b, to := pair(t)
	for range 1000 { // 56 MB: more than any buffer
		if err := a.WriteBatch([]packet.Datagrams{train(40, 1400, 1400, to)}); err != nil {
			t.Fatal(err)
		}
	}
	if b.Overflow() == 0 || a.Overflow() != 0 {
		t.Fatalf("dropped %d and %d", b.Overflow(), a.Overflow())
	}
}

// A host without IPv6.
func TestIPv4Alone(t *testing.T) {
	s, err := open(unix.AF_INET, &unix.SockaddrInet4{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, b, to := pair(t)
	if err := s.WriteBatch([]packet.Datagrams{train(3, 1000, 7, to)}); err != nil {
		t.Fatal(err)
	}
	if got, from := readAll(t, b, 3); len(got[2]) != 7 || from != netip.AddrPortFrom(to.Addr(), s.Port()) {
		t.Fatalf("%d bytes from %v, port %d", len(got[2]), from, s.Port())
	}
	if err := b.WriteBatch([]packet.Datagrams{train(1, 9, 9, netip.AddrPortFrom(to.Addr(), s.Port()))}); err != nil {
		t.Fatal(err)
	}
	if got, from := readAll(t, s, 1); len(got[0]) != 9 || from != to {
		t.Fatalf("%d bytes from %v", len(got[0]), from)
	}
}

func TestPortTaken(t *testing.T) {
	a, _, _ := pair(t)
	if _, err := Listen(a.Port()); !errors.Is(err, ErrPortTaken) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseEndsAReader(t *testing.T) {
	a, b, _ := pair(t)
	done := make(chan error)
	go func() {
		if _, err := a.ReadBatch(buffers(1)); err != nil {
			t.Error(err)
		}
		done <- nil
		_, err := a.ReadBatch(buffers(1)) // most often, Close comes while this waits
		done <- err
	}()
	if err := b.WriteBatch([]packet.Datagrams{train(1, 9, 9, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port()))}); err != nil {
		t.Fatal(err)
	}
	<-done
	for range 100 {
		runtime.Gosched()
	}
	a.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if err := a.WriteBatch([]packet.Datagrams{train(1, 9, 9, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Port()))}); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNoAllocations(t *testing.T) {
	a, b, to := pair(t)
	out, in := []packet.Datagrams{train(4, 1000, 1000, to)}, buffers(4)
	allocs := testing.AllocsPerRun(100, func() {
		if err := a.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 4000; {
			n, err := b.ReadBatch(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range in[:n] {
				got += len(d.Data)
			}
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations for a train sent and received", allocs)
	}
}

func BenchmarkTrain(b *testing.B) {
	s, r, to := pair(b)
	out, in := []packet.Datagrams{train(40, 1400, 1400, to)}, buffers(4)
	b.SetBytes(40 * 1400)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.WriteBatch(out); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < 40*1400; {
			n, err := r.ReadBatch(in)
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range in[:n] {
				got += len(d.Data)
			}
		}
	}
}
