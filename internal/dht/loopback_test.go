package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	library "github.com/anacrolix/dht/v2"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func udpAddr(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }

// TestRealSockets runs fifty nodes of the library on the loopback interface.
func TestRealSockets(t *testing.T) {
	var nodes []*library.Server
	var addrs []netip.AddrPort
	for i := range 50 {
		socket, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.%d.1:0", i+1))
		if err != nil {
			t.Skipf("needs the addresses 127.0.0.0/8 on loopback: %v", err)
		}
		nodes = append(nodes, newNode(t, socket))
		addrs = append(addrs, socket.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	var wg sync.WaitGroup
	for i, n := range nodes {
		defer n.Close()
		wg.Go(func() {
			for j := 1; j < len(addrs); j++ {
				n.Ping(udpAddr(addrs[(i+j)%len(addrs)]))
			}
		})
	}
	wg.Wait()
	visitor := func() *Client {
		socket, err := net.ListenUDP("udp4", udpAddr(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		c := New(Config{Local: true, Bootstrap: []string{addrs[0].String()}, Own: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
			Send: func(b []byte, to netip.AddrPort) { _, _ = socket.WriteToUDPAddrPort(b, to) }})
		var reading sync.WaitGroup
		reading.Go(func() {
			b := make([]byte, 65536)
			for {
				n, from, err := socket.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				c.Deliver(b[:n], from)
			}
		})
		t.Cleanup(func() { c.Close(); _ = socket.Close(); reading.Wait() })
		return c
	}
	priv := newKey(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	began := time.Now()
	stored, err := visitor().Put(ctx, priv, nil, 1, 0, []byte("hello"))
	if err != nil || stored < 8 {
		t.Fatalf("stored on %d, error %v", stored, err)
	}
	put := time.Since(began)
	reader := visitor()
	seq, value, err := reader.Get(ctx, public25519(priv), nil)
	if err != nil || seq != 1 || string(value) != "hello" {
		t.Fatalf("got %d %q, %v", seq, value, err)
	}
	t.Logf("put on %d nodes in %v, got in %v", stored, put, time.Since(began)-put)
	if _, _, err := reader.Get(ctx, public25519(newKey(t)), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if st := reader.Stats(); !st.Address4.IsValid() {
		t.Errorf("nobody told our address: %+v", st)
	}
}
