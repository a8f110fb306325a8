package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

// watcher is somebody on the way, who sees all datagrams.
type watcher struct {
	mu    sync.Mutex // guards what follows
	began time.Time
	plain []string    // what it recognised
	seen  [][]byte    // all since clear, up to a limit
	sizes map[int]int // how many had each
}

func (w *world) watch() *watcher {
	v := &watcher{}
	v.clear()
	w.net.Tap(func(p testnet.Packet) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if wire.IsPlain(p.Data) {
			v.plain = append(v.plain, fmt.Sprintf("%.1fs: %v to %v: %d bytes, %x", time.Since(v.began).Seconds(), p.From, p.To, len(p.Data), p.Data[:min(len(p.Data), 8)]))
		}
		if len(v.seen) < 10000 {
			v.seen = append(v.seen, slices.Clone(p.Data))
		}
		v.sizes[len(p.Data)]++
	})
	return v
}

func (v *watcher) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.began, v.plain, v.seen, v.sizes = time.Now(), nil, nil, map[int]int{}
}

// count returns how many datagrams were seen, and of how many sizes.
func (v *watcher) count() (seen, sizes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen), len(v.sizes)
}

// recognised lists what could be told by its first bytes.
func (v *watcher) recognised() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.plain)
}

// opened counts the datagrams since clear that somebody with the secret can unmask.
func (v *watcher) opened(secret [32]byte) (count int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := wire.NewMask(secret[:])
	var front [wire.MaskBlock]byte
	for _, b := range v.seen {
		if m.Front(&front, b) || m.ParseBox(make([]byte, wire.MaxMasked), b) != nil {
			count++
		}
	}
	return count
}

func (m *machine) policy(setting, value string) {
	m.w.Helper()
	if _, err := m.node.SetPolicy(m.w.Context(), api.PolicyRequest{Setting: setting, Value: value}); err != nil {
		m.w.Fatal(err)
	}
}

func (m *machine) discoveryKey() (k [32]byte) {
	m.inside(func(n *network) { k = n.roster.Discovery })
	return k
}

// Who watches a network that masks from its beginning recognises nothing: no join, no handshake, no packet, no relay's work. Who was
// put out recognises nothing any more before long.
//
// spec/75-mask.md#sending, spec/75-mask.md#joining, spec/75-mask.md#mask-key, spec/75-mask.md#receiving
func TestMaskedFromTheFirstByte(t *testing.T) {
	story(t, lan, func(w *world) {
		v := w.watch()
		ms := []*machine{w.machine("a"), w.machine("b"), w.machine("c"), w.machine("d")}
		ms[0].create("home")
		ms[0].policy("mask", "on")
		for _, m := range ms[1:] {
			m.join(ms[0].invite(1))
		}
		w.agreed(4, 20*time.Second, ms...)
		w.allPairs(ms...)
		w.cut(ms[0], ms[2])
		w.eventually("c is reached over another", 30*time.Second, func() bool { return ms[0].via(ms[2]) != "direct" && ms[0].via(ms[2]) != "none" })
		w.allPairs(ms...)
		testnet.Wait(150 * time.Second) // the sessions are new that began under the key of a code
		if list := v.recognised(); len(list) > 0 {
			w.Errorf("%d datagrams are recognised, as %v", len(list), list[:min(len(list), 10)])
		}
		if _, sizes := v.count(); sizes < 40 {
			w.Errorf("all datagrams have %d sizes", sizes)
		}
		v.clear()
		testnet.Wait(150 * time.Second) // rekeys, pings, keepalives
		w.allPairs(ms...)
		if list := v.recognised(); len(list) > 0 {
			w.Errorf("%d datagrams are recognised, as %v", len(list), list[:min(len(list), 10)])
		}
		seen, _ := v.count()
		old := ms[0].discoveryKey()
		if n := v.opened(old); n < seen*3/4 {
			w.Errorf("a member recognises %d of %d", n, seen)
		}
		ms[0].revoke("d")
		w.eventually("another key counts", time.Minute, func() bool {
			return ms[0].discoveryKey() != old && ms[0].discoveryKey() == ms[1].discoveryKey() && ms[0].discoveryKey() == ms[2].discoveryKey()
		})
		ms[3].shutdown()
		w.machines = slices.DeleteFunc(w.machines, func(m *machine) bool { return m == ms[3] })
		testnet.Wait(4 * time.Minute)
		v.clear()
		testnet.Wait(3 * time.Minute)
		w.allPairs(ms[:3]...)
		if seen, _ := v.count(); v.opened(old) > 0 || seen == 0 {
			w.Errorf("who was put out recognises %d of %d", v.opened(old), seen)
		}
		if list := v.recognised(); len(list) > 0 {
			w.Errorf("%d datagrams are recognised, as %v", len(list), list[:min(len(list), 10)])
		}
	})
}

// The policy is switched on and off while all talk, over relays too: nothing is lost, and soon nothing can be recognised; afterwards it
// can again.
//
// spec/75-mask.md#sending, spec/75-mask.md#receiving
func TestMaskingIsSwitched(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("a", "b", "c")
		w.eventually("a finds its way to c", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" })
		w.allPairs(ms...)
		v := w.watch()
		stop := ms[0].stream(ms[2])
		ms[0].policy("mask", "on")
		testnet.Wait(20 * time.Second)
		v.clear()
		testnet.Wait(4 * time.Minute)
		if list := v.recognised(); len(list) > 0 {
			w.Errorf("%d datagrams are recognised, as %v", len(list), list[:min(len(list), 10)])
		}
		ms[0].policy("mask", "off")
		testnet.Wait(20 * time.Second)
		v.clear()
		testnet.Wait(time.Minute)
		seen, _ := v.count()
		if list := v.recognised(); len(list) < seen {
			w.Errorf("%d of %d datagrams are plain", len(list), seen)
		}
		if gap, lost, _ := stop(); gap > 500*time.Millisecond || lost > 0 {
			w.Errorf("%d lost, a gap of %v", lost, gap)
		}
	})
}

// Who was away when the key changed, and a newcomer whose invite is older than two changes, are masked and get on.
//
// spec/75-mask.md#sending, spec/75-mask.md#joining
func TestMaskOfWhoWasAway(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "x", "y")
		code := ms[0].invite(1)
		if c, err := wire.ParseCode(code); err != nil || c.Mask {
			w.Errorf("the code says that the network masks: %v", err)
		}
		ms[0].policy("mask", "on")
		code = ms[0].invite(1)
		if c, err := wire.ParseCode(code); err != nil || !c.Mask {
			w.Errorf("the code does not say that the network masks: %v", err)
		}
		w.agreed(5, 20*time.Second, ms...)
		away := ms[2]
		away.shutdown()
		v := w.watch()
		for _, name := range []string{"x", "y"} {
			if name == "y" { // one change alone for who was away
				away.start()
				w.eventually("c is back", 40*time.Second, func() bool {
					return away.peer(ms[0].self()).Path == "direct" && away.peer(ms[1].self()).Path == "direct"
				})
				w.allPairs(ms[0], ms[1], away)
			}
			old := ms[0].discoveryKey()
			ms[0].revoke(name)
			w.eventually("another key counts", time.Minute, func() bool { return ms[0].discoveryKey() != old && ms[0].discoveryKey() == ms[1].discoveryKey() })
		}
		for _, m := range ms[3:] {
			m.shutdown()
		}
		w.machines = ms[:3:3]
		testnet.Wait(4 * time.Minute)
		v.clear()
		n := w.host("new", netip.MustParseAddr("198.51.100.77"))
		n.start()
		n.join(code)
		w.agreed(4, 20*time.Second, append(ms[:3:3], n)...)
		w.allPairs(append(ms[:3:3], n)...)
		if list := v.recognised(); len(list) > 0 {
			w.Errorf("%d datagrams are recognised, as %v", len(list), list[:min(len(list), 10)])
		}
	})
}

// noBeacons is a local network on which nobody is.
type noBeacons struct{}

func (noBeacons) Listen([]netip.AddrPort) error             { return nil }
func (noBeacons) Send(netip.AddrPort, string, []byte) error { return nil }
func (noBeacons) Close() error                              { return nil }

// Who joins a network that masks asks the DHT from another port than that by which it talks to members, and no server of STUN.
//
// spec/75-mask.md#the-dht-beside-it
func TestTheDHTIsAskedApart(t *testing.T) {
	for _, masks := range []bool{true, false} {
		t.Run(fmt.Sprintf("masks %v", masks), func(t *testing.T) {
			story(t, lan, func(w *world) {
				var mu sync.Mutex // guards asked
				asked, stun := 0, 0
				w.net.Tap(func(p testnet.Packet) {
					mu.Lock()
					defer mu.Unlock()
					if p.To.Port() == 3478 {
						stun++
					}
					if p.To.Port() != 6881 {
						return
					}
					if asked++; (p.From.Port() == DefaultPort) == masks || p.Data[0] != wire.TypeDHT {
						t.Errorf("%d bytes from %v: %x", len(p.Data), p.From, p.Data[:min(len(p.Data), 20)])
					}
				})
				m := w.host("new", address("192.0.2.7"))
				p, cfg := m.platform(), config.Defaults()
				cfg.Daemon.DHTBootstrap, cfg.Daemon.STUN = "192.0.2.200:6881", "192.0.2.201:3478"
				p.OpenBeacons = func(func(string) bool, func(netip.AddrPort, string, []byte)) (Beacons, error) {
					return noBeacons{}, nil
				}
				m.startOn(p, cfg)
				code := wire.Code{Network: [16]byte{1}, Seed: key.NewInviteSeed(), NotAfter: time.Now().Add(time.Hour).Unix(), Mask: masks}
				testnet.Wait(time.Minute) // of what it did before nothing is said
				mu.Lock()
				stun = 0
				mu.Unlock()
				ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
				defer cancel()
				if _, err := m.node.Join(ctx, api.JoinRequest{Code: code.Text(), Name: "new"}, func(api.Progress) {}); err == nil {
					w.Error("there is nobody to join")
				}
				mu.Lock()
				defer mu.Unlock()
				if asked == 0 || masks && stun > 0 {
					w.Errorf("the DHT was asked %d times, STUN %d times", asked, stun)
				}
			})
		})
	}
}
