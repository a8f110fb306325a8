package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/warren-vpn/warren/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // for what must happen; a test that waits so long fails

var ours, theirs = NewKey([]byte("the secret of one network......")), NewKey([]byte("the secret of another network..."))

// end is one node's Set.
type end struct {
	*Set
	t      testing.TB
	events chan Event
	got    chan packet.Datagrams // what ReadBatch gave
}

// node makes a Set that knows the keys, and reads it.
func node(t testing.TB, keys ...Key) *end {
	t.Helper()
	e := &end{t: t, events: make(chan Event, 1000), got: make(chan packet.Datagrams, 10000)}
	e.Set = New(Config{Event: func(ev Event) { e.events <- ev }, proveWithin: time.Hour})
	e.SetKeys(keys)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]packet.Datagrams, 4)
		for i := range b {
			b[i].Data = make([]byte, 65536)
		}
		for {
			n, err := e.ReadBatch(b)
			if err != nil {
				return
			}
			for _, d := range b[:n] {
				d.Data = bytes.Clone(d.Data)
				e.got <- d
			}
		}
	}()
	t.Cleanup(func() { e.Close(); <-done })
	return e
}

// certificate makes one for node.example, and a pool of roots that holds it.
func certificate(t testing.TB) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), *x509.CertPool) {
	return certificateFor(t, "node.example")
}

func certificateFor(t testing.TB, name string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), *x509.CertPool) {
	t.Helper()
	cert, private, err := SelfSigned(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	get, err := NewCertificate(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return get, roots
}

// listen opens a port on the loopback interface.
func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// serve has e listen, and returns its target of the kind given.
func (e *end) serve(kind string) Target {
	e.t.Helper()
	cfg := ServeConfig{}
	if kind != "ws" {
		cfg.Certificate, _ = certificate(e.t)
	}
	return Target{Scheme: kind, Host: e.serveAs(cfg)}
}

func (e *end) serveAs(cfg ServeConfig) (host string) {
	e.t.Helper()
	ln, done := listen(e.t), make(chan error, 1)
	go func() { done <- e.Serve(ln, cfg) }()
	e.t.Cleanup(func() {
		ln.Close()
		if err := <-done; err != nil {
			e.t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// await returns the next event, which must be of this kind.
func (e *end) await(kind EventKind) Event {
	e.t.Helper()
	select {
	case ev := <-e.events:
		if ev.Kind != kind {
			e.t.Fatalf("event %+v, want kind %d", ev, kind)
		}
		return ev
	case <-time.After(patience):
		e.t.Fatalf("no event of kind %d", kind)
	}
	panic("unreachable")
}

// dial opens a stream from e to t and returns its address at both ends.
func (e *end) dial(d *Dialer, to *end, t Target) (mine, its netip.AddrPort) {
	e.t.Helper()
	mine, err := e.Dial(context.Background(), d, t)
	if err != nil {
		e.t.Fatal(err)
	}
	if up := e.await(EventUp); up.Addr != mine || up.Target != t || up.Inbound {
		e.t.Fatalf("event %+v of the stream %v to %v", up, mine, t)
	}
	up := to.await(EventUp)
	if !up.Inbound || !IsStream(up.Addr.Addr()) || !IsStream(mine.Addr()) {
		e.t.Fatalf("event %+v at the server", up)
	}
	return mine, up.Addr
}

// receive waits for so many datagrams, all from one address.
func (e *end) receive(from netip.AddrPort, want int) (got [][]byte) {
	e.t.Helper()
	for late := time.After(patience); len(got) < want; {
		select {
		case d := <-e.got:
			if d.Addr != from {
				e.t.Fatalf("a datagram from %v, want %v", d.Addr, from)
			}
			got = slices.AppendSeq(got, slices.Chunk(d.Data, d.Segment))
		case <-late:
			e.t.Fatalf("%d datagrams came, want %d", len(got), want)
		}
	}
	return got
}

func (e *end) write(to netip.AddrPort, datagrams ...[]byte) {
	e.t.Helper()
	for _, d := range datagrams {
		if err := e.WriteBatch([]packet.Datagrams{{Data: d, Segment: len(d), Addr: to}}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// talk sends datagrams of many sizes both ways, and wants them all.
func talk(t testing.TB, a, b *end, atA, atB netip.AddrPort) {
	t.Helper()
	var sent [][]byte
	for i, size := range []int{1, 32, 148, 1452, 1452, 1452, 700, MaxDatagram, 2} {
		sent = append(sent, bytes.Repeat([]byte{byte(i + 1)}, size))
	}
	for _, way := range []struct {
		from, to   *end
		addr, seen netip.AddrPort
	}{{a, b, atA, atB}, {b, a, atB, atA}} {
		way.from.write(way.addr, sent...)
		for i, got := range way.to.receive(way.seen, len(sent)) {
			if !bytes.Equal(got, sent[i]) {
				t.Fatalf("datagram %d came as %d bytes, want %d", i, len(got), len(sent[i]))
			}
		}
	}
}
