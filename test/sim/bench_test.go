package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
)

// lone is one node with the map of a large network; the other nodes are only what it knows of them.
type lone struct {
	network key.NetworkID
	ids     []key.Identity
	members []route.Member
	links   []map[int]uint16
	raw     [][]byte
	states  []wire.LinkState
	now     time.Time
}

// newLone makes the map of n nodes, 9 links each on the average, by chance.
func newLone(n int) *lone {
	l := &lone{network: key.NetworkID{1}, now: time.Unix(1e9, 0), links: make([]map[int]uint16, n), raw: make([][]byte, n), states: make([]wire.LinkState, n)}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		id := identity(i)
		l.ids = append(l.ids, id)
		l.members = append(l.members, route.Member{ID: id.NodeID(), Reachable: true, Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(r.IntN(8)), byte(i >> 8), byte(i)})}})
		l.links[i] = map[int]uint16{}
	}
	for range n * 9 / 2 {
		if a, b := r.IntN(n), r.IntN(n); a != b && len(l.links[a]) < 12 && len(l.links[b]) < 12 {
			cost := uint16(110 + r.IntN(1500))
			l.links[a][b], l.links[b][a] = cost, cost
		}
	}
	for i := range n {
		l.state(i, 1)
	}
	return l
}

// state makes the link state of node i.
func (l *lone) state(i int, seq uint32) {
	st := wire.LinkState{Node: l.members[i].ID.Short(), Version: wire.Version{Epoch: 1, Seq: seq}}
	for o, cost := range l.links[i] {
		st.Links = append(st.Links, wire.Link{To: l.members[o].ID.Short(), Cost: cost})
	}
	l.raw[i] = wire.SealLinkState(l.network, l.ids[i], st)
	l.states[i], _ = wire.ParseLinkState(l.raw[i])
}

// engine returns the routing of node 0, which has all its links and the whole map.
func (l *lone) engine(tb testing.TB) *route.Engine {
	e := route.New(route.Config{Self: l.members[0].ID.Short(), Epoch: 2, Rand: rand.NewChaCha8([32]byte{})}, nil)
	e.SetMembers(l.now, l.members)
	up := 0
	for o := range l.links[0] {
		id := l.members[o].ID
		e.Up(l.now, id)
		e.Measured(l.now, id, 20*time.Millisecond, 0, 0)
		e.HandleWish(l.now, id, wire.LinkWish{Want: true})
	}
	for _, f := range e.Effects() {
		if _, ok := f.(route.LinkUp); ok {
			up++
		}
	}
	if up < len(l.links[0]) {
		tb.Fatalf("%d links of %d are up", up, len(l.links[0]))
	}
	for i := range l.states {
		st, _ := wire.ParseLinkState(l.raw[i]) // as of one's own
		e.Learn(l.now, st)
	}
	return e
}

var sizes = []int{1000, 5000, 10000}

// BenchmarkRoutes: the map has changed, and a route is asked for: all of it is searched.
func BenchmarkRoutes(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := newLone(n)
			e := l.engine(b)
			seq, found := uint32(1), 0
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				seq++
				at := 1 + i%(n-1)
				st := l.states[at]
				st.Version.Seq, st.Links = seq, slices.Clone(st.Links)
				if len(st.Links) > 0 {
					st.Links[0].Cost++
				}
				e.Learn(l.now, st)
				l.now = l.now.Add(10 * time.Second)
				dst := l.members[n-1-i%(n/2)].ID
				b.StartTimer()
				found += len(e.Routes(dst))
				b.StopTimer()
				e.Unwatch(dst)
				b.StartTimer()
			}
			if found == 0 {
				b.Error("no routes")
			}
		})
	}
}

// BenchmarkLearnMap: a node that comes in gets the whole map: read, verify, learn, keep each link state.
func BenchmarkLearnMap(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := newLone(n)
			for b.Loop() {
				e := route.New(route.Config{Self: l.members[0].ID.Short(), Epoch: 2}, nil)
				e.SetMembers(l.now, l.members)
				s := gossip.NewStates(gossip.StatesConfig{}, nil)
				peer := l.members[1].ID
				s.PeerUp(l.now, peer)
				for i := range l.raw {
					if i%6 == 5 {
						l.now = l.now.Add(20 * time.Millisecond)
					}
					if err := s.Handle(l.now, peer, wire.States{Raw: l.raw[i : i+1]}); err != nil {
						b.Fatal(err)
					}
					for _, f := range s.Effects() {
						if d, ok := f.(gossip.DeliverState); ok && wire.VerifyLinkState(l.network, l.ids[i].Public(), d.Raw) && e.Learn(l.now, d.State) {
							s.Set(l.now, d.Raw, d.State, peer)
						}
					}
				}
				if s.Len() < n-1 {
					b.Fatalf("%d of %d link states are held", s.Len(), n)
				}
			}
		})
	}
}

// BenchmarkMemory measures what one node keeps for each member of the network, by part.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := newLone(n)
			var records []wire.Record
			for i := range min(n, 1000) { // enough for a mean
				r, err := wire.SealRecord(l.network, wire.KindNodeInfo, &wire.NodeInfo{Seq: 1, WG: key.WGPublic(l.members[i].ID),
					Endpoints: [][]byte{{10, 0, 0, 1, 0, 1}}, Version: "sim", Time: 1}, l.ids[i])
				if err != nil {
					b.Fatal(err)
				}
				records = append(records, r)
			}
			var keep []any
			for b.Loop() {
				report := func(what string, count int, f func() any) {
					before := heap()
					keep = append(keep, f())
					b.ReportMetric(float64(heap()-before)/float64(count), what+"-B/member")
				}
				keep = nil
				report("routes", n, func() any { return l.engine(b) })
				report("searched", n, func() any { // what a search needs beside
					e := keep[0].(*route.Engine)
					e.Routes(l.members[n-1].ID)
					return nil
				})
				report("states", n, func() any {
					s := gossip.NewStates(gossip.StatesConfig{}, nil)
					for i := range 9 {
						s.PeerUp(l.now, l.members[i].ID)
					}
					for i := range l.raw {
						s.Set(l.now, slices.Clone(l.raw[i]), l.states[i], l.members[i%9].ID)
						s.Tick(l.now.Add(time.Duration(i) * time.Second))
						s.Effects()
					}
					return s
				})
				report("record", len(records), func() any {
					g := gossip.New(gossip.Config{Network: l.network}, nil)
					for _, r := range records {
						g.Add(l.now, r.ID, slices.Clone(r.Raw), key.NodeID{})
					}
					return g
				})
				report("path", n, func() any {
					p := path.New(path.Config{}, nil)
					for _, m := range l.members {
						p.AddPeer(m.ID, false)
						p.SetCandidates(l.now, m.ID, path.SourceInfo, []netip.AddrPort{netip.AddrPortFrom(m.Endpoints[0], port)})
					}
					return p
				})
				runtime.KeepAlive(keep)
			}
		})
	}
}
