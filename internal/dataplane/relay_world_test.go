package dataplane

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// burrow is a network of a few nodes, of which some are neighbours and all have sessions with all.
type burrow struct {
	t     testing.TB
	nodes []*hub
}

// hub is one of its nodes. Its engines' peers are in the order of the nodes; its own place is nil.
type hub struct {
	id     key.NodeID
	addr   netip.AddrPort
	inner  netip.Addr
	plane  *Plane
	wire   *wireTap
	host   *hostTap
	net    *Network
	engine *wireguard.Engine
	paths  *path.Engine
	peers  []*Peer
	ids    map[key.ShortID]*Peer
	events chan Event
	index  map[uint32]Entry
	recv   *receiver
	send   *sender
}

var relayAll = &RelayPolicy{}

// newBurrow makes n nodes. links are pairs of neighbours; all nodes relay.
func newBurrow(t testing.TB, n int, links ...[2]int) *burrow {
	t.Helper()
	testTime = time.Now()
	w := &burrow{t: t}
	var keys []key.WGPrivate
	for i := range n {
		keys = append(keys, key.NewWGPrivate())
		h := &hub{id: key.NodeID{0: byte(i + 1), 7: byte(i + 1)}, wire: &wireTap{}, host: &hostTap{}, events: make(chan Event, 256), index: map[uint32]Entry{},
			paths: path.New(path.Config{}, nil), ids: map[key.ShortID]*Peer{}}
		h.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 1000)
		h.inner = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		h.plane = New(h.wire, h.events, testTime)
		h.net = h.plane.NewNetwork(h.host, true)
		h.recv, h.send = newReceiver(h.plane, h.plane.socket, newLine(), true), newSender(h.plane, nil, 0)
		var err error
		h.engine, err = wireguard.New(wireguard.Config{Private: keys[i], Epoch: testTime, NewIndex: func() uint32 { nextIdx++; return nextIdx }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, h)
	}
	for i, h := range w.nodes {
		var routes route.Builder[*Peer]
		for j, o := range w.nodes {
			var p *Peer
			if i != j {
				p = h.net.NewPeer(o.id.Short(), h.engine.AddPeer(keys[j].Public(), [32]byte{}), h.paths.AddPeer(o.id, false), nil)
				h.ids[p.ID] = p
				routes.Add(netip.PrefixFrom(o.inner, 32), p)
			}
			h.peers = append(h.peers, p)
		}
		h.net.SetRoutes(routes.Build())
		h.net.SetHops(h.id.Short(), h.ids, relayAll)
	}
	for i := range w.nodes {
		for j := range i {
			w.session(i, j)
		}
	}
	for _, l := range links {
		w.link(l[0], l[1])
	}
	for _, h := range w.nodes {
		h.drain()
	}
	return w
}

// session makes a session between two nodes, off the wire.
func (w *burrow) session(i, j int) {
	a, b := w.nodes[i], w.nodes[j]
	a.engine.Initiate(testTime, a.peers[j].Session)
	for a.peers[j].Session.Sending() == nil || b.peers[i].Session.Sending() == nil {
		for range 2 {
			for _, f := range a.engine.Effects() {
				switch f := f.(type) {
				case wireguard.SendHandshake:
					if err := b.engine.Handle(testTime, a.addr, f.Data, false); err != nil {
						w.t.Fatal(err)
					}
				case wireguard.KeypairAdded:
					a.index[f.Keypair.LocalIndex()] = Entry{f.Keypair, a.ids[a.shortOf(f.Keypair.Peer())]}
					a.plane.SetIndex(maps.Clone(a.index))
				case wireguard.SendKeepalive:
					k := f.Peer.Sending()
					msg := make([]byte, 32)
					if _, err := k.Seal(testTime.UnixNano(), msg, 0, 0); err != nil {
						w.t.Fatal(err)
					}
					b.arrive(packet.Datagrams{Data: msg, Segment: 32, Addr: a.addr})
					b.confirm()
				}
			}
			a, b, i, j = b, a, j, i
		}
	}
}

func (h *hub) shortOf(p *wireguard.Peer) key.ShortID {
	for id, q := range h.ids {
		if q.Session == p {
			return id
		}
	}
	panic("no such peer")
}

// confirm gives the engine what the workers noticed.
func (h *hub) confirm() {
	for _, e := range h.drain() {
		if e.Kind == EventNotice {
			h.engine.Notice(testTime, e.Peer.Session, e.Notice)
		}
	}
}

// drain empties the events.
func (h *hub) drain() (out []Event) {
	for len(h.events) > 0 {
		e := <-h.events
		e.Taken()
		out = append(out, e)
	}
	return out
}

// link gives two nodes a direct path.
func (w *burrow) link(i, j int) {
	for range 2 {
		w.nodes[i].paths.SessionUp(testTime, w.nodes[j].id, wire.Direct(w.nodes[j].addr))
		i, j = j, i
	}
}

// cut takes the direct path and the session state of the path engine from node i to j.
func (w *burrow) cut(i, j int) {
	for range 2 {
		w.nodes[i].paths.SessionDown(testTime, w.nodes[j].id)
		i, j = j, i
	}
}

// route makes node i reach the last of the nodes named by the others, and back.
func (w *burrow) route(from int, over ...int) {
	to := over[len(over)-1]
	r := w.relays(over[:len(over)-1]...)
	w.nodes[from].paths.SessionUp(testTime, w.nodes[to].id, wire.Via(r))
	w.nodes[to].paths.SessionUp(testTime, w.nodes[from].id, wire.Via(r.Reverse()))
}

func (w *burrow) relays(over ...int) wire.Route {
	var ids []key.ShortID
	for _, i := range over {
		ids = append(ids, w.nodes[i].id.Short())
	}
	r, ok := wire.NewRoute(ids...)
	if !ok {
		w.t.Fatal("no route")
	}
	return r
}

// arrive lets h receive d, as a batch of its own.
func (h *hub) arrive(d packet.Datagrams) {
	r := h.recv
	r.now, r.index = testTime.UnixNano(), *h.plane.index.Load()
	r.train(d)
	r.flush()
	r.received()
}

// step carries all that node i has sent to whom it is addressed, and returns it.
func (w *burrow) step(i int) (sent []packet.Datagrams) {
	h := w.nodes[i]
	sent, h.wire.sent = h.wire.sent, nil
	for _, d := range sent {
		for _, o := range w.nodes {
			if o.addr == d.Addr {
				o.arrive(packet.Datagrams{Data: bytes.Clone(d.Data), Segment: d.Segment, Addr: h.addr})
			}
		}
	}
	return sent
}

// frame makes a TCP super-packet of n bytes from node i to j, cut at 1240.
func (w *burrow) frame(i, j, n int) packet.Frame {
	f := superPacket(n, 1240)
	copy(f.Data[12:], w.nodes[i].inner.AsSlice())
	copy(f.Data[16:], w.nodes[j].inner.AsSlice())
	return f
}

// transmit lets the host of node i send frames.
func (w *burrow) transmit(i int, frames ...packet.Frame) {
	h := w.nodes[i]
	h.send.now = testTime.UnixNano()
	for _, f := range frames {
		h.send.send(h.net, f)
	}
	h.send.flush()
}

// answer runs the path engine of h for so long; every ping is answered after the round trip of its way, and data flows.
func (h *hub) answer(long time.Duration, trip func(wire.Way) time.Duration) {
	var pongs []struct {
		at time.Time
		path.SendPing
	}
	for now := testTime; now.Before(testTime.Add(long)); now = now.Add(5 * time.Millisecond) {
		for _, p := range h.peers {
			if p != nil {
				h.paths.Active(now, h.nodeOf(p))
			}
		}
		h.paths.Tick(now)
		for _, e := range h.paths.Effects() {
			if e, ok := e.(path.SendPing); ok {
				pongs = append(pongs, struct {
					at time.Time
					path.SendPing
				}{now.Add(trip(e.To)), e})
			}
		}
		for i := 0; i < len(pongs); i++ {
			if g := pongs[i]; !now.Before(g.at) {
				h.paths.HandlePong(now, g.ID, g.To, wire.Pong{ID: g.Ping.ID})
				pongs = slices.Delete(pongs, i, i+1)
				i--
			}
		}
	}
}

// nodeOf returns the node id behind a peer of the burrow.
func (h *hub) nodeOf(p *Peer) key.NodeID { return key.NodeID{0: p.ID[0], 7: p.ID[7]} }
