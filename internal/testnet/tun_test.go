package testnet

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire joins two tunnel devices as a VPN would: what one host sends, the other gets after delay. It ends when both are closed.
func wire(wg *sync.WaitGroup, a, b *TUN, delay time.Duration) {
	copyAll := func(from, to *TUN) {
		buf := make([]byte, 65536)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			Wait(delay)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	wg.Go(func() { copyAll(a, b) }) // ends with a
	wg.Go(func() { copyAll(b, a) }) // ends with b
}

func TestPingThroughTUN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		a, b := NewTUN("a", 1420), NewTUN("b", 1420, addr2, addr6b)
		wire(&wg, a, b, 20*time.Millisecond)
		for _, c := range []struct{ from, to netip.Addr }{{addr1, addr2}, {addr6a, addr6b}} {
			rtt, err := a.Ping(t.Context(), c.from, c.to, 56)
			if err != nil || rtt != 40*time.Millisecond {
				t.Errorf("ping %s: %s, %v; want 40ms", c.to, rtt, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Ping(ctx, addr1, addr3, 56); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping of an address that nobody has: %v", err)
		}
		if p, err := b.Receive(t.Context()); err != nil {
			t.Error(err)
		} else if in, err := ReadInner(p); err != nil || !in.Echo() || in.Dst.Addr() != addr3 {
			t.Errorf("b got %+v (%v), want the echo request for %s", in, err, addr3)
		}
		if err := a.Inject(UDP(netip.AddrPortFrom(addr1, 9), netip.AddrPortFrom(addr2, 7), []byte("echo"))); err != nil {
			t.Error(err)
		}
		if p, err := a.Receive(t.Context()); err != nil {
			t.Error(err)
		} else if in, err := ReadInner(p); err != nil || string(in.Payload) != "echo" || in.Dst.Port() != 9 {
			t.Errorf("a got %+v (%v), want the UDP echo", in, err)
		}
		a.Close()
		b.Close()
		b.Close()
		wg.Wait()
		if _, err := a.Ping(t.Context(), addr1, addr2, 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("ping on a closed device: %v", err)
		}
	})
}

func TestTUNLimits(t *testing.T) {
	d := NewTUN("d", 1280)
	defer d.Close()
	if err := d.Inject(make([]byte, 1281)); err == nil {
		t.Error("a packet above the MTU was taken")
	}
	for range tunQueue {
		if err := d.Inject(EchoRequest(addr1, addr2, 1, 1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Inject(EchoRequest(addr1, addr2, 1, 1, nil)); !errors.Is(err, ErrTUNFull) || d.Dropped() != 1 {
		t.Errorf("at a full queue: %v, %d dropped", err, d.Dropped())
	}
	if _, err := d.Read(make([]byte, 10)); err == nil {
		t.Error("a packet was cut off to fit a small buffer")
	}
}

func TestPacketsAreSound(t *testing.T) {
	payload := []byte("odd length!")
	for name, p := range map[string][]byte{
		"ping 4": EchoRequest(addr1, addr2, 1, 2, payload), "ping 6": EchoRequest(addr6a, addr6b, 1, 2, payload),
		"pong 4": EchoReply(addr1, addr2, 1, 2, payload), "pong 6": EchoReply(addr6a, addr6b, 1, 2, payload),
		"udp 4": UDP(netip.AddrPortFrom(addr1, 1), netip.AddrPortFrom(addr2, 2), payload),
		"udp 6": UDP(netip.AddrPortFrom(addr6a, 1), netip.AddrPortFrom(addr6b, 2), payload),
	} {
		in, err := ReadInner(p)
		if err != nil || !bytes.Equal(in.Payload, payload) {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
		for i := range p {
			if i == 1 || i == 8 || i == 6 || i == 7 || p[0]>>4 == 6 && i < 4 {
				continue // fields that no checksum covers in IPv6, or that make it a fragment
			}
			broken := bytes.Clone(p)
			broken[i] ^= 0x41
			if got, err := ReadInner(broken); err == nil && got.Proto == in.Proto {
				t.Errorf("%s: a flipped bit in byte %d was not noticed", name, i)
			}
		}
		if _, err := ReadInner(p[:len(p)-1]); err == nil {
			t.Errorf("%s: a missing byte was not noticed", name)
		}
	}
}

func FuzzReadInner(f *testing.F) {
	f.Add(EchoRequest(addr1, addr2, 1, 2, []byte("x")))
	f.Add(UDP(netip.AddrPortFrom(addr6a, 1), netip.AddrPortFrom(addr6b, 2), []byte("x")))
	f.Fuzz(func(t *testing.T, p []byte) {
		if in, err := ReadInner(p); err == nil && len(in.Payload) > len(p) {
			t.Errorf("%d bytes of payload in %d", len(in.Payload), len(p))
		}
	})
}
