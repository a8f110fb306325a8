package node

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// unmoved fails the test unless the machines have the roster that they had, and are alive.
func (w *world) unmoved(before map[string]string, ms ...*machine) {
	w.Helper()
	for _, m := range ms {
		if r := m.roster(); !maps.Equal(r, before) {
			w.Errorf("the roster of %s is %v, was %v", m.name, slices.Sorted(maps.Values(r)), slices.Sorted(maps.Values(before)))
		}
		m.inside(func(n *network) {
			if x := n.mesh; len(x.peers) != len(before)-1 || len(x.endpoints()) > maxEndpoints || len(x.pings) != 0 || len(n.n.index) > 3*len(x.peers) || n.set.Len() != x.gossip.Len() {
				w.Errorf("%s holds %d peers, %d keypairs, %d addresses, %d probes, %d and %d records", m.name, len(x.peers), len(n.n.index), len(x.endpoints()), len(x.pings), n.set.Len(), x.gossip.Len())
			}
		})
	}
	w.eventually("in touch", time.Minute, func() bool { return w.linked(ms...) })
	w.allPairs(ms...)
}

func TestAMemberThatSendsNonsenseChangesNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "evil")
		evil := ms[2]
		var replay [][]byte // what evil was sent
		var mu sync.Mutex
		w.net.Tap(func(p testnet.Packet) {
			mu.Lock()
			defer mu.Unlock()
			if len(replay) < 200 {
				replay = append(replay, slices.Clone(p.Data))
			}
		})
		testnet.Wait(time.Minute)
		before := ms[0].roster()
		rng := mrand.New(mrand.NewPCG(1, 2))
		stranger := key.NewIdentity()
		send := func(body []byte) {
			evil.inside(func(n *network) {
				for _, p := range n.mesh.peers {
					n.n.plane.SendControl(p.plane, wire.Way{}, body)
				}
			})
		}
		for i := range 500 {
			body := make([]byte, 1+rng.IntN(wire.MaxControl))
			rand.Read(body) //nolint:errcheck // documented never to fail
			body[0] = 0xC0 | byte(i%5/4)
			if len(body) > 4 && i%2 == 0 {
				body[1] = byte(i % 7)
				binary.BigEndian.PutUint16(body[2:], uint16(len(body)-4))
			}
			send(body)
			var records wire.Records
			evil.inside(func(n *network) {
				for _, forged := range []any{
					&wire.Member{Key: stranger.Public(), Name: fmt.Sprint("forged", i), Addr4: [4]byte{100, 64, 0, byte(i)}, Time: time.Now().Unix()},
				} {
					for _, by := range []key.Identity{stranger, n.keys.Identity} {
						r, err := wire.SealRecord(n.id, wire.KindMember, forged, by)
						records.Raw = append(records.Raw, must(w, r, err).Raw)
					}
				}
				r, err := wire.SealRecord(n.id, wire.KindRevocation, &wire.Revocation{Subject: n.roster.Members[0].ID, Scope: wire.ScopeAll, Time: time.Now().Unix()}, n.keys.Identity)
				records.Raw = append(records.Raw, must(w, r, err).Raw)
			})
			send(records.Append(nil))
			if i%50 == 0 {
				testnet.Wait(100 * time.Millisecond)
			}
		}
		sock, err := w.net.Host("replayer", address("198.51.100.66")).Listen(0)
		must(w, 0, err)
		mu.Lock()
		for _, b := range slices.Repeat(replay, 5) {
			for _, m := range ms {
				must(w, 0, sock.WriteTo(b, netip.AddrPortFrom(m.host.Addrs()[0], DefaultPort)))
			}
		}
		mu.Unlock()
		testnet.Wait(time.Minute)
		w.unmoved(before, ms...)
	})
}

func TestAMemberCannotFillTheDisksOfOthers(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "evil")
		for i := range 600 { // each a true record that replaces the one before
			ms[1].inside(func(n *network) {
				self, _ := n.self()
				info := self.Info
				info.Name = fmt.Sprint("evil", i)
				must(w, 0, n.publishOwn(time.Now(), info))
			})
			testnet.Wait(20 * time.Millisecond)
		}
		testnet.Wait(10 * time.Second)
		w.agreed(2, time.Minute, ms...)
		for _, m := range ms {
			logs, err := filepath.Glob(filepath.Join(m.dir, "networks", "*", "records.log"))
			if must(w, logs, err); len(logs) != 1 {
				w.Fatal(logs)
			}
			st, err := os.Stat(logs[0])
			w.Logf("%s keeps %d bytes", m.name, must(w, st, err).Size())
			if st.Size() > 100<<10 {
				w.Errorf("%s keeps %d bytes of a roster of two", m.name, st.Size())
			}
		}
	})
}

func TestStrangersThatFloodChangeNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		code, err := wire.ParseCode(ms[0].invite(5))
		must(w, 0, err)
		before := ms[0].roster()
		var wg []key.WGPublic
		for _, m := range ms {
			m.inside(func(n *network) { wg = append(wg, n.keys.WG.Public()) })
		}
		engine, err := wireguard.New(wireguard.Config{Private: key.NewWGPrivate()}, nil)
		must(w, 0, err)
		var socks []*testnet.Socket
		for i := range 20 {
			s, err := w.net.Host(fmt.Sprint("stranger", i), netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})).Listen(0)
			socks = append(socks, must(w, s, err))
		}
		lost := 0
		for round := range 20 {
			for i, s := range socks {
				for k, m := range ms {
					for _, b := range flood(w, engine, wg[k], code, round*len(socks)+i) {
						must(w, 0, s.WriteTo(b, netip.AddrPortFrom(m.host.Addrs()[0], DefaultPort)))
					}
				}
			}
			if _, err := ms[0].ping(ms[1], 0, 500*time.Millisecond); err != nil {
				lost++
			}
			testnet.Wait(50 * time.Millisecond)
		}
		w.Logf("%d of 20 pings lost during the flood; dropped %v", lost, ms[0].node.plane.Drops())
		if lost > 2 {
			w.Errorf("members do not reach each other while strangers flood: %d of 20 pings lost", lost)
		}
		testnet.Wait(time.Minute)
		w.unmoved(before, ms...)
		late := w.machine("late")
		took := late.join(code.Text())
		if w.Logf("a true newcomer joined in %v", took); took > 2*time.Second {
			w.Errorf("a true newcomer joins in %v", took)
		}
	})
}

// flood makes what a stranger that was told a code may send: handshakes by an unknown key, hellos, and nonsense of each kind.
func flood(w *world, e *wireguard.Engine, to key.WGPublic, code wire.Code, n int) (out [][]byte) {
	e.Initiate(time.Now(), e.AddPeer(to, [32]byte{}))
	for _, f := range e.Effects() {
		if f, ok := f.(wireguard.SendHandshake); ok {
			out = append(out, f.Data)
		}
	}
	e.RemovePeer(to)
	e.Effects()
	wg := key.NewWGPrivate()
	j, err := join.NewJoiner(join.JoinerConfig{Seed: code.Seed, Network: code.Network, Identity: key.NewIdentity(), WG: wg, Name: "x",
		Info: wire.NodeInfo{Seq: 1, WG: wg.Public(), Time: 1}, Hints: code.Hints, NewIndex: mrand.Uint32}, nil)
	must(w, 0, err)
	j.Start(time.Now())
	for _, f := range j.Effects() {
		out = append(out, f.(join.Send).Data)
	}
	for typ := range 8 {
		b := make([]byte, 1+mrand.IntN(1400))
		rand.Read(b) //nolint:errcheck // documented never to fail
		b[0] = byte(typ)
		if len(b) > 4 && n%2 == 0 {
			b[1], b[2], b[3] = byte(n%6), 0, 0
		}
		out = append(out, b)
	}
	return out
}

func TestANodeListensOnAndStaysCalmWithoutANetwork(t *testing.T) {
	story(t, lan, func(w *world) {
		m := w.machine("idle")
		sock, err := w.net.Host("stranger", address("203.0.113.1")).Listen(0)
		must(w, 0, err)
		for typ := range 256 {
			must(w, 0, sock.WriteTo([]byte{byte(typ), 0, 0, 0, 1, 2, 3, 4}, netip.AddrPortFrom(m.host.Addrs()[0], DefaultPort)))
		}
		testnet.Wait(time.Hour)
		st, err := m.node.Status(w.Context())
		if must(w, st, err); len(st.Networks) != 0 || st.Port != DefaultPort {
			w.Errorf("status %+v", st)
		}
		if _, err := m.node.Rename(w.Context(), api.RenameRequest{Name: "x"}); api.CodeOf(err) != api.CodeNoSuchNetwork {
			w.Errorf("rename without a network: %v", err)
		}
	})
}

// What one member says that our address is may be anybody's address: nobody else hears of it. spec/73-nat.md#confirmed
func TestOneObserverIsNotBelieved(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "evil", "c")
		victim, evil := netip.MustParseAddrPort("203.0.113.99:53"), ms[1].nodeID()
		ms[0].inside(func(n *network) {
			n.mesh.pathEffect(time.Now(), path.Observed{By: evil, At: netip.MustParseAddrPort("198.51.100.1:48271"), Addr: victim})
			n.n.settleOutside(time.Now())
		})
		testnet.Wait(time.Minute)
		ms[2].inside(func(n *network) {
			if m, _ := n.roster.ByName("a"); slices.Contains(m.Endpoints, victim) {
				w.Errorf("a publishes what one says: %v", m.Endpoints)
			}
		})
	})
}
