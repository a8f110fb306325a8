package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wire"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// tells sends control messages to a peer inside the session, as a member with changed software could.
func (m *machine) tells(o *machine, bodies ...[]byte) {
	m.w.Helper()
	id := o.self()
	m.inside(func(n *network) {
		for _, p := range n.mesh.peers {
			if p.id.String() != id {
				continue
			}
			for _, b := range bodies {
				n.mesh.send(p, wire.Way{}, b)
			}
		}
	})
}

// nodeID is the machine's id in its only network.
func (m *machine) nodeID() (id key.NodeID) {
	m.w.Helper()
	m.inside(func(n *network) { id = n.keys.Identity.NodeID() })
	return id
}

// A path error counts only from the relay that can know (spec/52-relay.md#path-error).
func TestAForgedPathErrorChangesNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d", "evil")
		w.cut(ms[0], ms[3])
		w.eventually("relayed", time.Minute, func() bool { return ms[0].peer(ms[3].self()).Path == api.PathRelayed })
		stop := ms[0].stream(ms[3])
		testnet.Wait(time.Minute) // both ends have settled for one of the relays
		before := ms[0].via(ms[3])
		for range 100 {
			for _, relay := range ms[1:3] {
				r, _ := wire.NewRoute(relay.nodeID().Short())
				ms[4].tells(ms[0], wire.PathError{Source: ms[0].nodeID().Short(), Destination: ms[3].nodeID().Short(), Route: r}.Append(nil))
				// Nor of a route that it made up, with a link at its end that others need.
				r, _ = wire.NewRoute(ms[4].nodeID().Short(), ms[1].nodeID().Short(), relay.nodeID().Short())
				ms[4].tells(ms[0], wire.PathError{Source: ms[0].nodeID().Short(), Destination: ms[3].nodeID().Short(), Route: r, Failed: 2}.Append(nil))
			}
			testnet.Wait(50 * time.Millisecond)
		}
		if _, lost, _ := stop(); lost > 0 || ms[0].via(ms[3]) != before {
			w.Errorf("a stranger to the route moved it from %s to %s; %d lost", before, ms[0].via(ms[3]), lost)
		}
		r, err := ms[0].node.Route(w.Context(), api.MemberRequest{Member: "d"})
		if must(w, r, err); len(r.Avoided) > 0 {
			w.Errorf("a stranger to the route had %v avoided", r.Avoided)
		}
	})
}

// drops counts what a node logs as dropped handshakes that came by relays.
type drops struct {
	slog.Handler
	n *atomic.Int64
}

func (d drops) Enabled(context.Context, slog.Level) bool { return true }
func (d drops) WithAttrs([]slog.Attr) slog.Handler       { return d }
func (d drops) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "relayed handshake message dropped" {
		d.n.Add(1)
	}
	return nil
}

// A member sends another handshakes by a relay, each of which costs Diffie-Hellman. spec/52-relay.md#limits
func TestAFloodOfRelayedHandshakesIsLimited(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.line("evil", "relay", "b")
		evil, relay, b := ms[0], ms[1], ms[2]
		w.eventually("relayed", time.Minute, func() bool { return evil.via(b) == "relay" })
		var n atomic.Int64
		b.log = drops{slog.DiscardHandler, &n}
		b.shutdown()
		testnet.Wait(time.Second)
		var initiation []byte
		evil.inside(func(n *network) { // it calls b in vain
			p := n.mesh.byShort[b.short(n)]
			n.mesh.want(time.Now(), p)
		})
		testnet.Wait(10 * time.Second)
		evil.inside(func(n *network) { initiation = slices.Clone(n.mesh.byShort[b.short(n)].initiation) })
		if len(initiation) == 0 {
			w.Fatal("evil does not call b")
		}
		b.start()
		w.eventually("in touch", time.Minute, func() bool { return relay.tries(b, 0) == nil })
		n.Store(0)
		evil.inside(func(n *network) {
			r, _ := wire.NewRoute(relay.short(n))
			for range 100 {
				n.n.plane.SendHandshake(n.mesh.byShort[b.short(n)].plane, wire.Via(r), initiation, nil)
			}
		})
		testnet.Wait(500 * time.Millisecond)
		if got := n.Load(); got == 0 || got > shakeBurst+shakeRate {
			w.Errorf("%d of 100 handshakes were read", got)
		}
	})
}

// A member has a relay drop what nobody could pass on: it is not overloaded for that, so the others do not go round it.
// spec/52-relay.md#load
func TestAskingForTheImpossibleMakesNobodyOverloaded(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("evil", "b", "c")
		relay, gone := ms[1], ms[2].nodeID()
		ms[2].kill()
		r, _ := wire.NewRoute(relay.nodeID().Short())
		w.eventually("the relay drops what is for c", 5*time.Minute, func() bool {
			ms[0].inside(func(n *network) {
				for range 10 {
					n.n.plane.SendHandshake(n.mesh.peers[gone].plane, wire.Via(r), append([]byte{1}, make([]byte, wireguard.InitiationLen-1)...), nil)
				}
			})
			testnet.Wait(time.Second)
			return relay.network("").Relay.Dropped > 10
		})
		testnet.Wait(3 * time.Second)
		if s := relay.network("").Relay; s.Overloaded {
			w.Errorf("overloaded: %+v", s)
		}
	})
}

// A link state counts only with its node's signature, and only the newest (spec/53-map.md#link-state, spec/53-map.md#version).
func TestForgedAndOldLinkStatesChangeNothing(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "evil")
		w.cut(ms[0], ms[2])
		w.eventually("relayed", time.Minute, func() bool { return ms[0].via(ms[2]) == "b" || ms[0].via(ms[2]) == "evil" })
		var old []byte
		victim := ms[1].nodeID().Short()
		ms[3].inside(func(n *network) { old = slices.Clone(n.mesh.states.Raw(victim)) })
		w.cut(ms[1], ms[3]) // a newer one of b's comes
		testnet.Wait(time.Minute)
		var before, after wire.Version
		ms[0].inside(func(n *network) { before = n.mesh.states.Version(victim) })
		for i := range 2000 { // in b's name, signed by evil; and what b once said
			var id key.Identity
			var of key.NetworkID
			ms[3].inside(func(n *network) { id, of = n.keys.Identity, n.id })
			forged := wire.SealLinkState(of, id, wire.LinkState{Version: wire.Version{Epoch: before.Epoch + 9, Seq: uint32(i)}})
			copy(forged[4:], victim[:])
			ms[3].tells(ms[0], wire.States{Raw: [][]byte{forged, old}}.Append(nil))
			if i%100 == 0 {
				testnet.Wait(10 * time.Millisecond)
			}
		}
		testnet.Wait(5 * time.Second)
		ms[0].inside(func(n *network) { after = n.mesh.states.Version(victim) })
		if after != before {
			w.Errorf("what b says of its links went from %v to %v", before, after)
		}
		ms[0].reaches(ms[1])
		ms[0].reaches(ms[2])
	})
}

// A member that says it has links with everybody draws no traffic: the others do not say so (spec/54-routes.md#map).
func TestALinkThatOneEndClaimsIsNone(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "evil")
		a, b, c, evil := ms[0], ms[1], ms[2], ms[3]
		w.cut(a, c)
		w.cut(evil, c)
		w.eventually("relayed", time.Minute, func() bool { return a.via(c) == "b" })
		target := c.nodeID().Short()
		for i := range 60 {
			evil.inside(func(n *network) {
				v := n.mesh.states.Version(n.keys.Identity.NodeID().Short())
				links := []wire.Link{{To: target}, {To: a.short(n)}, {To: b.short(n)}}
				raw := wire.SealLinkState(n.id, n.keys.Identity, wire.LinkState{Version: wire.Version{Epoch: v.Epoch, Seq: v.Seq + 1000 + uint32(i)}, Links: links})
				for _, p := range n.mesh.peers {
					n.mesh.send(p, wire.Way{}, wire.States{Raw: [][]byte{raw}}.Append(nil))
				}
			})
			testnet.Wait(time.Second)
			if got := a.via(c); got != "b" {
				w.Fatalf("c is reached %s", got)
			}
		}
	})
}

// short finds the machine's short id in another's network, from within that one's control loop.
func (m *machine) short(n *network) key.ShortID {
	mem, _ := n.roster.ByName(m.name)
	return mem.ID.Short()
}

// spec/50-control.md#peers-of-gossip
func TestMembersWithoutALinkGossipAsGuestsForAWhile(t *testing.T) {
	story(t, testnet.Link{}, func(w *world) {
		names := []string{"hub"}
		for i := range 19 {
			names = append(names, fmt.Sprintf("m%d", i))
		}
		ms := w.found(names...)
		hub := ms[0]
		const most = 3
		testnet.Wait(2 * guestFor) // those of the joins are gone
		hub.inside(func(n *network) { n.mesh.guests = most })
		for range 2 {
			for _, m := range ms[1:] { // all at once ask the hub, which has no links with most of them
				if _, err := m.ping(hub, 0, time.Second); err != nil {
					w.Fatal(err)
				}
				m.tells(hub, wire.Sync{Body: []byte{3, 0, 0, 0, 1}}.Append(nil))
			}
			testnet.Wait(time.Second)
		}
		guests := func() (n int) {
			hub.inside(func(x *network) {
				for _, p := range x.mesh.peers {
					if p.gossip && !p.link {
						n++
					}
				}
			})
			return n
		}
		if n := guests(); n == 0 || n > most {
			w.Errorf("the hub gossips with %d guests", n)
		}
		testnet.Wait(2 * guestFor)
		if n := guests(); n > 0 {
			w.Errorf("%d guests stay", n)
		}
	})
}

// A relay that passes pings, and all that is small, and drops data, is found by that (spec/51-path.md#thin-ways).
func TestARelayThatDropsLargePacketsIsFoundAndAvoided(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c", "d")
		w.cut(ms[0], ms[3])
		relays := map[string]*machine{"b": ms[1], "c": ms[2]}
		w.eventually("relayed", time.Minute, func() bool { return relays[ms[0].via(ms[3])] != nil })
		stop := ms[0].streamOf(ms[3], 1000)
		testnet.Wait(10 * time.Second)
		evil := relays[ms[0].via(ms[3])]
		evil.sock.narrow.Store(true)
		testnet.Wait(30 * time.Second)
		gap, lost, _ := stop()
		got := ms[0].via(ms[3])
		w.Logf("gap %v, %d lost, now %s instead of %s", gap, lost, got, evil.name)
		if gap > 9*time.Second || got == evil.name {
			w.Errorf("after a gap of %v packets go by %s; the hostile relay is %s", gap, got, evil.name)
		}
		r, err := ms[0].node.Route(w.Context(), api.MemberRequest{Member: "d"})
		if must(w, r, err); !slices.ContainsFunc(r.Avoided, func(a api.Avoided) bool { return a.Name == evil.name }) {
			w.Errorf("route does not show who is avoided: %+v", r.Avoided)
		}
	})
}

// A member that sends path errors without end has only some of them passed on. spec/52-relay.md#path-error
func TestEndlessPathErrorsAreNotPassedOn(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("source", "relay", "evil", "far")
		source, relay, evil := ms[0], ms[1], ms[2]
		heard := func() (bytes uint64) {
			id := relay.self()
			source.inside(func(n *network) {
				for _, p := range n.mesh.peers {
					if p.id.String() == id {
						bytes = p.session.RxBytes()
					}
				}
			})
			return bytes
		}
		r, _ := wire.NewRoute(relay.nodeID().Short(), evil.nodeID().Short())
		said := wire.PathError{Source: source.nodeID().Short(), Destination: ms[3].nodeID().Short(), Route: r, Failed: 1}.Append(nil)
		pass := func(n int) uint64 {
			testnet.Wait(10 * time.Second)
			before := heard()
			for range n {
				evil.tells(relay, said)
			}
			testnet.Wait(100 * time.Millisecond)
			return heard() - before
		}
		one, many := pass(1), pass(500)
		if one == 0 || many == 0 {
			w.Fatal("none is passed on")
		}
		if most := (errorBurst + 10) * (one + 100); many > most {
			w.Errorf("of 500 path errors %d bytes were passed on, of one %d", many, one)
		}
	})
}
