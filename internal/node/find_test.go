package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/testnet"
)

// home adds a machine with one address behind a NAT of its own.
func (w *world) home(name string, kind testnet.NATKind) *machine {
	w.Helper()
	i := byte(len(w.machines) + 1)
	x := w.net.NAT(kind, netip.AddrFrom4([4]byte{81, i, 3, 4}))
	inside := netip.AddrFrom4([4]byte{192, 168, i, 2})
	if kind == testnet.Firewall {
		inside = netip.AddrFrom4([4]byte{82, i, 3, 4})
	}
	m := &machine{w: w, name: name, host: x.Host(name, inside), dir: filepath.Join(w.TempDir(), name), log: slog.DiscardHandler,
		tuns: map[string]*testnet.TUN{}, routes: map[string][]netip.Prefix{}}
	if os.Getenv("WARREN_TEST_LOG") != "" {
		m.log = slog.NewTextHandler(w.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}).WithAttrs([]slog.Attr{slog.String("on", name)})
	}
	w.machines = append(w.machines, m)
	m.start()
	return m
}

// Two members behind NATs, and one whom all reach: what they say to each other goes over that one at first, then straight, and
// nobody who talks notices the change.
//
// spec/73-nat.md
func TestNATsArePunched(t *testing.T) {
	for _, tc := range []struct {
		a, b   testnet.NATKind
		public int // members
		direct bool
	}{
		{testnet.FullCone, testnet.FullCone, 1, true},
		{testnet.PortRestricted, testnet.PortRestricted, 1, true},
		{testnet.Firewall, testnet.PortRestricted, 1, true},
		{testnet.AddressRestricted, testnet.SymmetricRandom, 1, true},
		{testnet.PortRestricted, testnet.PortRestricted, 3, true},
		{testnet.SymmetricRandom, testnet.SymmetricRandom, 3, false},
	} {
		t.Run(fmt.Sprintf("%s and %s, %d public", tc.a, tc.b, tc.public), func(t *testing.T) {
			story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
				code := ""
				for i := range tc.public {
					p := w.host(string(rune('p'+i)), netip.AddrFrom4([4]byte{80, byte(i), 2, 3}))
					p.start()
					if i > 0 {
						p.join(code)
						continue
					}
					p.create("warren")
					code = p.invite(10)
				}
				a, b := w.home("a", tc.a), w.home("b", tc.b)
				a.join(code)
				b.join(code)
				w.eventually("a reaches b", 20*time.Second, func() bool { _, err := a.ping(b, 0, time.Second); return err == nil })
				first := a.via(b)
				stop := a.stream(b)
				direct := func() bool { return a.via(b) == "direct" && b.via(a) == "direct" }
				start := time.Now()
				for !direct() && time.Since(start) < 2*time.Minute {
					testnet.Wait(100 * time.Millisecond)
				}
				took := time.Since(start)
				testnet.Wait(5 * time.Second)
				gap, lost, reordered := stop()
				w.Logf("%s at first, %s after %v; the longest gap %v, %d lost, %d out of order", first, a.via(b), took, gap, lost, reordered)
				if lost > 0 || gap > 250*time.Millisecond {
					w.Error("the change was noticed")
				}
				if direct() != tc.direct || !tc.direct && a.via(b) == "none" {
					w.Errorf("in the end %s", a.via(b))
				}
			})
		})
	}
}
