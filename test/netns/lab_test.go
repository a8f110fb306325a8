//go:build linux

package netns

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// The lab itself:
//
//	a 192.0.2.1 --- [lan] --- 192.0.2.254 r 198.51.100.254 --- [wan] --- 198.51.100.2 b
//	  2001:db8:1::1             (NAT for IPv4)                             2001:db8:2::2
func TestLabHostsReachEachOther(t *testing.T) {
	l := lab.New(t)
	lan, wan := l.Switch("lan"), l.Switch("wan")
	a, b, r := l.Host("a"), l.Host("b"), l.Router("r")
	a.Plug(lan, "192.0.2.1/24", "2001:db8:1::1/64")
	port := b.Plug(wan, "198.51.100.2/24", "2001:db8:2::2/64")
	r.Plug(lan, "192.0.2.254/24", "2001:db8:1::ff/64")
	outside := r.Plug(wan, "198.51.100.254/24", "2001:db8:2::ff/64")
	a.IP("route", "add", "default", "via", "192.0.2.254")
	a.IP("route", "add", "default", "via", "2001:db8:1::ff")
	b.IP("route", "add", "default", "via", "2001:db8:2::ff") // and none for IPv4: b could not answer a without the NAT
	v4, v6 := netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")

	if err := a.Ping(v4); err == nil {
		t.Error("a reaches b although b has no way back")
	}
	r.Masquerade(outside, false)
	for _, to := range []netip.Addr{v4, v6} {
		lab.Eventually(t, 5*time.Second, func() error { return a.Ping(to) })
	}
	if got := strings.TrimSpace(a.Must("hostname")); got != "a" {
		t.Errorf("the host name of a is %q", got)
	}
	if got := a.Interfaces(); !slices.Equal(got, []string{"lo", "eth0"}) {
		t.Errorf("the interfaces of a are %v", got)
	}
	if got := a.Send(b, v4, 20<<20, 30*time.Second); got.Bytes != 20<<20 || got.Rate() <= 0 {
		t.Errorf("transfer: %+v", got)
	}

	s := a.StartStream(b, v4)
	slow := a.StartSend(b, v6, 1<<20, 8<<20) // one second
	slow.Wait(10 * time.Second)
	port.Down()
	lab.Eventually(t, 5*time.Second, func() error {
		if a.Ping(v4) == nil {
			return errors.New("a reaches b, whose plug is out")
		}
		return nil
	})
	port.Up()
	lab.Eventually(t, 5*time.Second, func() error { return a.Ping(v4) })
	lab.Always(t, 500*time.Millisecond, func() error { return a.Ping(v4) })
	flow := s.End()
	if flow.Count < 20 || flow.Sent <= flow.Count || flow.Longest() < 500*time.Millisecond {
		t.Errorf("the stream had %d of %d datagrams and a longest gap of %s; want a gap where the plug was out", flow.Count, flow.Sent, flow.Longest())
	}
}

// A test process that is killed leaves namespaces, processes and files; its reaper removes them.
func TestLabCleansUpAfterKill(t *testing.T) {
	l := lab.New(t)
	h := l.Host("h")
	if os.Getenv("WARREN_LAB_VICTIM") != "" {
		h.Start("sleep", "600")
		if err := os.WriteFile(os.Getenv("WARREN_LAB_VICTIM"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {} // until we are killed
	}
	flag := filepath.Join(t.TempDir(), "ready")
	victim := exec.Command("/proc/self/exe", "-test.run", "^TestLabCleansUpAfterKill$")
	victim.Env = append(os.Environ(), "WARREN_LAB_VICTIM="+flag)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 20*time.Second, func() error { _, err := os.Stat(flag); return err })
	if found := lab.Leftovers(victim.Process.Pid); len(found) < 3 {
		t.Fatalf("the victim has %v; want a namespace, a folder and processes", found)
	}
	victim.Process.Kill()
	victim.Wait() //nolint:errcheck // it was killed
	lab.Eventually(t, 10*time.Second, func() error {
		if found := lab.Leftovers(victim.Process.Pid); len(found) > 0 {
			return fmt.Errorf("left: %s", strings.Join(found, " "))
		}
		return nil
	})
}

// Two stock WireGuard peers reach each other: the program that plays devices works, and so does this kernel's TUN.
func TestLabStockPeers(t *testing.T) {
	l := lab.New(t)
	wire := l.Switch("lan")
	keys := []*ecdh.PrivateKey{newKey(t), newKey(t)}
	var hosts []*lab.Host
	for i, name := range []string{"a", "b"} {
		h := l.Host(name)
		h.Plug(wire, fmt.Sprintf("192.0.2.%d/24", i+1))
		other := 1 - i
		startPeer(t, h, fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = 51820\nAddress = 10.0.0.%d/24, fd00::%d/64\n"+
			"[Peer]\nPublicKey = %s\nEndpoint = 192.0.2.%d:51820\nAllowedIPs = 10.0.0.%d/32, fd00::%d/128\n",
			text(keys[i].Bytes()), i+1, i+1, text(keys[other].PublicKey().Bytes()), other+1, other+1, other+1))
		hosts = append(hosts, h)
	}
	for _, to := range []string{"10.0.0.2", "fd00::2"} {
		lab.Eventually(t, 10*time.Second, func() error { return hosts[0].Ping(netip.MustParseAddr(to)) })
	}
	got := hosts[0].Send(hosts[1], netip.MustParseAddr("10.0.0.2"), mediumFile, 30*time.Second)
	t.Logf("wireguard-go: 16 MiB at %.0f Mbit/s", got.Rate())
}

func newKey(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// startPeer runs a stock WireGuard peer on the host and waits until it is ready.
func startPeer(t *testing.T, h *lab.Host, config string) *lab.Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), h.Name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := h.Start("sh", "-c", fmt.Sprintf("exec %s wg0 < %s", lab.Binary(t, "test/netns/wgpeer"), file))
	lab.Eventually(t, 10*time.Second, func() error {
		if p.Out() == "" {
			return fmt.Errorf("wgpeer is not ready: %s", p.Log())
		}
		return nil
	})
	return p
}
