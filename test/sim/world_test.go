// Package sim runs a whole network in one process, in virtual time: the engines that ship (route, gossip, path), joined as
// internal/node joins them, over package testnet. Only the WireGuard session is a simple one: it comes up one round trip after a
// call and says who is who, without cryptography. Link states and records are really signed; that a signature is good is found
// out once for all nodes together.
//
//	driver (a test) --> world: start, kill, partition, revoke, wait
//	                      |
//	                    node: path, routing, states, records  <-- one lock each
//	                      |        ^
//	                    session    | relayed datagrams, path errors
//	                      |        |
//	                    testnet: delay by distance, loss, hosts behind NAT
//
// docs/SCALE.md says what it measures and how to repeat it.
package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	port       = 4000
	cities     = 8 // places where nodes are; far from each other
	oneIn      = 4 // nodes is behind a NAT that lets nobody in
	leafOneIn  = 10
	lossShare  = 0.005
	clockTick  = 5 * time.Millisecond // nodes wake at whole ticks, and delays are whole ticks, so that more happens at one moment
	underlay   = 60                   // bytes of IPv4, UDP and WireGuard around each control message
	shakeBytes = 148 + 92 + 32 + 3*28
)

// shape says what kind of network a world is.
type shape struct {
	nodes   int
	records bool // nodes hold and compare the records of all members
	perfect bool // no datagram is lost
	intern  bool // nodes share the bytes of link states: less memory than in truth
}

// world is one network.
type world struct {
	testing.TB
	shape
	net     *testnet.Net
	network key.NetworkID
	root    key.Identity
	begun   time.Time
	rand    *rand.Rand
	nodes   []*node
	byID    map[key.NodeID]*node
	byShort map[key.ShortID]*node
	byAddr  map[netip.Addr]*node
	members []route.Member
	base    []wire.Record // that all hold from the beginning
	city    [cities][2]float64
	loss    float64

	mu       sync.Mutex // guards what follows
	judged   map[[32]byte]*judgement
	genuine  map[wire.RecordID]wire.Record
	distance map[[2]int]bool // pairs whose link is set
	islands  []int           // by node, while partitioned
	faults   int

	verified   atomic.Int64 // signatures
	originated atomic.Int64 // link states
	learned    atomic.Int64 // by all nodes
	refused    atomic.Int64 // for their signature
	checks     atomic.Int64 // of invariants
}

// judgement is what is known of the bytes of a link state.
type judgement struct {
	good  bool
	raw   []byte
	state wire.LinkState
}

// story runs f with a network in a bubble; its nodes do not run yet.
func story(t *testing.T, s shape, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer w.net.Close()
		defer func() {
			for _, n := range w.nodes {
				n.kill()
			}
			synctest.Wait()
		}()
		f(w)
	})
}

func newWorld(t testing.TB, s shape) *world {
	w := &world{TB: t, shape: s, net: testnet.New(uint64(s.nodes)), begun: time.Now(), rand: rand.New(rand.NewPCG(4, uint64(s.nodes))),
		byID: map[key.NodeID]*node{}, byShort: map[key.ShortID]*node{}, byAddr: map[netip.Addr]*node{},
		judged: map[[32]byte]*judgement{}, genuine: map[wire.RecordID]wire.Record{}, distance: map[[2]int]bool{}}
	if !s.perfect {
		w.loss = lossShare
	}
	for i := range w.city {
		w.city[i] = [2]float64{w.rand.Float64() * 70, w.rand.Float64() * 70}
	}
	w.root = identity(-1)
	w.found()
	for i := range s.nodes {
		w.addNode(i)
	}
	return w
}

// identity makes that of node i.
func identity(i int) key.Identity {
	seed := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("warren sim"), uint32(i)))
	id, err := key.IdentityFromSeed(seed[:])
	if err != nil {
		panic(err)
	}
	return id
}

func (w *world) must(r wire.Record, err error) wire.Record {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	w.genuine[r.ID] = r
	return r
}

// found makes the network's first record.
func (w *world) found() {
	genesis := w.must(wire.SealRecord(key.NetworkID{}, wire.KindGenesis, &wire.Genesis{Name: "sim", Roots: []key.Public{w.root.Public()},
		Threshold: 1, Pool4: []byte{100, 64, 0, 0, 10}, Created: w.begun.Unix()}, w.root))
	w.network = key.NetworkID(genesis.ID)
	w.base = append(w.base, genesis)
}

// addNode makes node i, a member of which all know. Of 10 nodes one is a leaf, and of 4 one is behind NAT.
func (w *world) addNode(i int) *node {
	id := identity(i)
	city := w.rand.IntN(cities)
	addr := netip.AddrFrom4([4]byte{10, byte(city), byte(i >> 8), byte(i)})
	n := &node{w: w, n: i, identity: id, public: id.Public(), id: id.NodeID(), short: id.NodeID().Short(), addr: netip.AddrPortFrom(addr, port),
		x: w.city[city][0] + w.rand.Float64()*15, y: w.city[city][1] + w.rand.Float64()*15}
	n.flows = map[*node]*flow{}
	n.closed, n.leaf = i%oneIn == 3, i%leafOneIn == 9
	n.host = w.net.Host(fmt.Sprint(i), addr)
	w.nodes = append(w.nodes, n)
	w.byID[n.id], w.byShort[n.short], w.byAddr[addr] = n, n, n
	w.members = append(w.members, route.Member{ID: n.id, Reachable: true, Endpoints: []netip.Addr{addr}})
	if w.records {
		w.base = append(w.base, w.must(wire.SealRecord(w.network, wire.KindMember, &wire.Member{Key: id.Public(), Name: fmt.Sprint("n", i),
			Addr4: [4]byte{100, 64, byte(i >> 8), byte(i)}, Time: w.begun.Unix()}, w.root)),
			w.must(wire.SealRecord(w.network, wire.KindNodeInfo, &wire.NodeInfo{Seq: 1, WG: key.WGPublic(n.id),
				Endpoints: [][]byte{wire.AppendEndpoint(nil, n.addr)}, Caps: wire.CapRelay, Version: "sim", Time: w.begun.Unix()}, id)))
	}
	return n
}

// delay is how long a datagram takes between two nodes.
func (w *world) delay(a, b *node) time.Duration {
	ms := time.Duration(math.Hypot(a.x-b.x, a.y-b.y)) * time.Millisecond
	return (1 + ms/clockTick) * clockTick
}

// near sets the link between a and b before its first use: to set all would take more memory than the nodes.
func (w *world) near(a, b *node) {
	pair := [2]int{min(a.n, b.n), max(a.n, b.n)}
	w.mu.Lock()
	known := w.distance[pair]
	w.distance[pair] = true
	w.mu.Unlock()
	if !known {
		w.net.SetLink(a.host, b.host, testnet.Link{Delay: w.delay(a, b), Loss: w.loss, MTU: 1500})
	}
}

// open reports whether datagrams pass between a and b, or would if both spoke first.
func (w *world) open(a, b *node) bool {
	if a.closed && b.closed {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.islands == nil || w.islands[a.n] == w.islands[b.n]
}

// judge verifies a link state, once for all nodes.
func (w *world) judge(raw []byte, st wire.LinkState, pub key.Public) *judgement {
	h := sha256.Sum256(raw)
	w.mu.Lock()
	j := w.judged[h]
	w.mu.Unlock()
	if j != nil {
		return j
	}
	w.verified.Add(1)
	j = &judgement{good: wire.VerifyLinkState(w.network, pub, raw)}
	if w.intern {
		j.raw, j.state = raw, st
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judged[h] = j
	return j
}

// real returns a record of the network.
func (w *world) real(id wire.RecordID) (wire.Record, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.genuine[id]
	return r, ok
}

// wrong notes a broken rule. Only the first ones are shown.
func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	w.faults++
	shown := w.faults <= 10
	w.mu.Unlock()
	if shown {
		w.Errorf("after %v: %s", time.Since(w.begun), fmt.Sprintf(format, args...))
	} else {
		w.Fail()
	}
}

// living lists the nodes that run.
func (w *world) living() (out []*node) {
	for _, n := range w.nodes {
		if n.runs() {
			out = append(out, n)
		}
	}
	return out
}

// wait lets d go by; all nodes are at rest then.
func (w *world) wait(d time.Duration) {
	testnet.Wait(d)
	synctest.Wait()
}

// each starts or ends nodes at random moments within d.
func (w *world) each(nodes []*node, d time.Duration, do func(n *node)) {
	var done sync.WaitGroup
	for _, n := range nodes {
		at := time.Duration(w.rand.Int64N(int64(d)+1)) / clockTick * clockTick
		done.Go(func() { // ends by itself
			testnet.Wait(at)
			do(n)
		})
	}
	done.Wait()
}

// some picks the part share of nodes by chance, one at least.
func (w *world) some(nodes []*node, share float64) []*node {
	out := append([]*node(nil), nodes...)
	w.rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:max(1, int(share*float64(len(out))))]
}

// split cuts the network in two halves by chance; join ends that.
func (w *world) split() {
	islands := make([]int, len(w.nodes))
	var groups [2][]*testnet.Host
	for i, n := range w.nodes {
		islands[i] = w.rand.IntN(2)
		groups[islands[i]] = append(groups[islands[i]], n.host)
	}
	w.net.Partition(groups[0], groups[1])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.islands = islands
}

func (w *world) join() {
	w.net.Heal()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.islands = nil
}

// revoke puts n out: the record starts at the node by.
func (w *world) revoke(n, by *node) {
	w.Helper()
	w.mu.Lock()
	r := w.must(wire.SealRecord(w.network, wire.KindRevocation, &wire.Revocation{Subject: n.id, Scope: wire.ScopeAll, Time: time.Now().Unix()}, w.root))
	w.mu.Unlock()
	by.do(func(now time.Time) { by.accept(now, r, key.NodeID{}) })
}
