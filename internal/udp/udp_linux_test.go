package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

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

func TestPortTaken(t *testing.T) {
	a, _, _ := pair(t)
	if _, err := Listen(a.Port()); !errors.Is(err, ErrPortTaken) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseEndsAReader(t *testing.T) {
	a, _, _ := pair(t)
	done := make(chan error)
	go func() {
		_, err := a.ReadBatch(buffers(1))
		done <- err
	}()
	a.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
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
