//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The rows about relays have four nodes of one network, with a wire for each pair that can talk, and no forwarding:
//
//	    r ------ s
//	   / \      /
//	  /   \    /
//	 /     \  /
//	a ----- b
//
// The traffic is from a to b. Silence on the wire a-b leaves the route over r; with silence on r-b, too, that over r and s is the
// only one. What is silent loses every packet on arrival, on both sides, so that no sender is told. The path must be
// seen to be the one wanted before and after each load, by both ends, and by the counters of the relays.

// Sides of the lane. sideA and sideB are its ends.
const (
	sideA = iota
	sideB
	sideR
	sideS
)

var (
	sideNames = []string{"a", "b", "r", "s"}
	wires     = [][2]int{{sideA, sideB}, {sideA, sideR}, {sideR, sideB}, {sideR, sideS}, {sideS, sideB}}

	// By the number of relays: wires that are silent, and those that a passes.
	silent = [][][2]int{{}, {{sideA, sideB}}, {{sideA, sideB}, {sideR, sideB}}}
	relays = [][]int{{}, {sideR}, {sideR, sideS}}

	// routeMTU is the least that a path carries once its size was found (spec/51-path.md#mtu): 1360 by one relay and 1352 by two, and
	// 1380 and 1340 with builds of another day.
	routeMTU = []int{fullMTU, 1360, 1340}
)

const (
	strayShare    = 0.01 // of the stream that may pass a relay that is not on the way
	numRelaySteps = 10   // of relaySteps
)

// relayEntry names the results over so many relays in the table.
func relayEntry(system string, hops int) string {
	name := []string{"direct", "1 relay", "2 relays"}[hops]
	if system != ours {
		name = system + " " + name
	}
	return name
}

// mesh is the four nodes, each by its side.
type mesh struct {
	lane  *lane
	nodes []node
}

// openMesh makes the lane and lets a, b and s join a network that r founded. What it returns must be closed, also after an
// error, unless it is nil.
func openMesh(ctx context.Context, dir, id, binary string) (*mesh, error) {
	l, err := namespaces(ctx, dir, id, sideNames...)
	if l == nil {
		return nil, err
	}
	m := &mesh{lane: l}
	if err != nil {
		return m, err
	}
	for side := range l.ns {
		if _, err := l.run(ctx, side, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"); err != nil { // only members relay here
			return m, err
		}
		m.nodes = append(m.nodes, node{l, side, binary})
	}
	for i, w := range wires {
		a, b := netip.AddrFrom4([4]byte{198, 18, byte(i), 1}), netip.AddrFrom4([4]byte{198, 18, byte(i), 2})
		if err := l.wire(ctx, end{w[0], toward(w[1]), a}, end{w[1], toward(w[0]), b}); err != nil {
			return m, err
		}
		if err := errors.Join(l.ownReceiver(ctx, w[0], toward(w[1])), l.ownReceiver(ctx, w[1], toward(w[0]))); err != nil {
			return m, err
		}
	}
	for _, n := range m.nodes {
		if err := n.up(ctx); err != nil {
			return m, err
		}
	}
	founder := m.nodes[sideR]
	if err := founder.do(ctx, nil, "create", "bench", "--as", sideNames[sideR]); err != nil {
		return m, err
	}
	var invite struct{ Code string }
	if err := founder.do(ctx, &invite, "invite", "--uses", "3"); err != nil {
		return m, err
	}
	for _, n := range m.nodes {
		if n.side == founder.side {
			continue
		}
		if err := n.do(ctx, nil, "join", invite.Code, "--as", sideNames[n.side]); err != nil {
			return m, err
		}
	}
	for side := range l.inner {
		s, err := m.nodes[side].network(ctx)
		if err != nil {
			return m, err
		}
		l.inner[side] = s.Self.Addresses[0]
	}
	return m, m.route(ctx, 0)
}

// toward names the device of the wire to a side.
func toward(side int) string { return "to-" + sideNames[side] }

// receiveApart says whether hosts receive by threads of their own, or whoever sends to them does it.
func (m *mesh) receiveApart(ctx context.Context, apart bool) (err error) {
	for _, w := range wires {
		err = errors.Join(err, m.lane.receiveApart(ctx, w[0], toward(w[1]), apart), m.lane.receiveApart(ctx, w[1], toward(w[0]), apart))
	}
	return err
}

// silence makes exactly these wires silent.
func (m *mesh) silence(ctx context.Context, these [][2]int) error {
	for side := range m.lane.ns {
		var devices []string
		for _, w := range these {
			if i := slices.Index(w[:], side); i >= 0 {
				devices = append(devices, toward(w[1-i]))
			}
		}
		if _, err := m.lane.run(ctx, side, "nft", silenceRules(devices)); err != nil {
			return err
		}
	}
	return nil
}

// silenceRules are the rules under which all packets that come by these devices vanish, and only those.
func silenceRules(devices []string) string {
	rules := []string{"add table inet silence", "delete table inet silence"}
	if len(devices) > 0 {
		rules = append(rules, "add table inet silence", "add chain inet silence in { type filter hook prerouting priority raw; }")
	}
	for _, d := range devices {
		rules = append(rules, "add rule inet silence in iifname "+d+" drop")
	}
	return strings.Join(rules, "; ")
}

// route makes a and b reach each other over so many relays, and waits until they do. When they settle for another way, it
// begins anew.
func (m *mesh) route(ctx context.Context, hops int) (err error) {
	for range starts {
		if err = m.reroute(ctx, hops); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// reroute begins from where all wires work and all know it, with ends that have forgotten what was before: how rarely an address
// that was dead for long is tried again, and that a route that works is kept when a shorter one comes back.
func (m *mesh) reroute(ctx context.Context, hops int) error {
	if err := m.silence(ctx, nil); err != nil {
		return err
	}
	for _, n := range m.nodes[:2] {
		if err := errors.Join(n.do(ctx, nil, "down"), n.do(ctx, nil, "up")); err != nil {
			return err
		}
	}
	if err := m.lane.eventually(ctx, func() error { return errors.Join(m.talk(ctx), m.path(ctx, 0), m.linked(ctx)) }); err != nil || hops == 0 {
		return err
	}
	if err := m.silence(ctx, silent[hops]); err != nil {
		return err
	}
	return m.lane.eventually(ctx, func() error { return errors.Join(m.talk(ctx), m.path(ctx, hops)) })
}

// talk sends a packet from end to end: who talks finds a way sooner.
func (m *mesh) talk(ctx context.Context) error {
	_, err := m.lane.run(ctx, sideA, "ping", "-n", "-q", "-c", "1", "-W", "1", m.lane.inner[sideB].String())
	return err
}

// linked fails while an end does not know of all wires.
func (m *mesh) linked(ctx context.Context) error {
	for _, n := range m.nodes[:2] {
		var view struct {
			Links []struct {
				A, B   string
				TwoWay bool `json:"two_way"`
			}
		}
		if err := n.do(ctx, &view, "map"); err != nil {
			return err
		}
		known := 0
		for _, l := range view.Links {
			if l.TwoWay {
				known++
			}
		}
		if known != len(wires) {
			return fmt.Errorf("%s knows of %d of %d links: %+v", sideNames[n.side], known, len(wires), view.Links)
		}
	}
	return nil
}

// path fails unless both ends reach each other over just the relays that they shall, with the MTU that such a route has.
func (m *mesh) path(ctx context.Context, hops int) error {
	want, via := "direct", []string{}
	for _, side := range relays[hops] {
		want, via = "relayed", append(via, sideNames[side])
	}
	for _, n := range m.nodes[:2] {
		other := sideNames[1-n.side]
		s, err := n.network(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, p := range s.Peers {
			if found = found || p.Name == other; p.Name == other && (p.Path != want || !slices.Equal(p.Via, via) || p.MTU < routeMTU[hops]) {
				return fmt.Errorf("the path to %s is %s via %v, MTU %d; want %s via %v, MTU %d at least", other, p.Path, p.Via, p.MTU, want, via, routeMTU[hops])
			}
		}
		if !found {
			return fmt.Errorf("%s does not know %s", sideNames[n.side], other)
		}
		var probe struct {
			Replies []struct {
				Path string
				Via  []string
			}
		}
		if err := n.do(ctx, &probe, "ping", other, "--count", "1"); err != nil {
			return err
		}
		if len(probe.Replies) != 1 || probe.Replies[0].Path != want || !slices.Equal(probe.Replies[0].Via, via) {
			return fmt.Errorf("the answer of %s came as %+v; want %s via %v", other, probe.Replies, want, via)
		}
		slices.Reverse(via)
	}
	return nil
}

// relaySteps measures with no relay, one and two, beginning with another of them in each round.
func relaySteps(w *world, round int) []step {
	m := w.mesh
	steps := []step{{entry: relayEntry(w.name, 1), apply: func(context.Context, time.Duration) (map[string]float64, error) {
		mb, err := memory(m.lane.daemons[sideR : sideR+1])
		return map[string]float64{"relay-rss-idle": mb}, err
	}}}
	for i := range relays {
		hops := (i + round) % len(relays)
		entry := relayEntry(w.name, hops)
		stream := func(apart bool) func(context.Context, time.Duration) (map[string]float64, error) {
			return func(ctx context.Context, t time.Duration) (map[string]float64, error) {
				return m.stream(ctx, hops, t, apart)
			}
		}
		steps = append(steps,
			step{entry, func(ctx context.Context) error { return m.route(ctx, hops) }, stream(false)},
			step{entry, nil, func(ctx context.Context, t time.Duration) (map[string]float64, error) { return m.ping(ctx, hops, t) }},
			step{entry, nil, stream(true)})
	}
	return steps
}

// stream measures a stream over so many relays, which route has seen to. apart: while hosts receive by threads of their own.
func (m *mesh) stream(ctx context.Context, hops int, t time.Duration, apart bool) (results map[string]float64, err error) {
	if apart {
		if err := m.receiveApart(ctx, true); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.receiveApart(ctx, false)) }()
	}
	if err := m.path(ctx, hops); err != nil {
		return nil, err
	}
	sides := relays[hops] // whose cost is asked for
	if hops == 0 {
		sides = []int{sideB}
	}
	var workers []*process
	for _, side := range sides {
		workers = append(workers, m.lane.daemons[side])
	}
	passed, err := m.passed(ctx)
	if err != nil {
		return nil, err
	}
	before, err := m.cost(sides)
	if err != nil {
		return nil, err
	}
	var gbits, gigabytes float64
	mb := peak(ctx, workers, func() { gbits, gigabytes, err = iperf(ctx, m.lane, t) })
	if err != nil {
		return nil, err
	}
	after, err := m.cost(sides)
	if err != nil {
		return nil, err
	}
	if err := m.check(ctx, hops, passed, gigabytes); err != nil {
		return nil, err
	}
	gigabytes *= float64(len(sides)) // each of them had all
	daemon, user := (after.daemon-before.daemon)/gigabytes, (after.user-before.user)/gigabytes
	if apart {
		threads := (after.threads - before.threads) / gigabytes
		if threads == 0 {
			return nil, errors.New("the threads of the kernel received nothing")
		}
		return map[string]float64{"relay-cpu-own": daemon + threads}, nil
	}
	return map[string]float64{"relay-tcp": gbits, "relay-cpu": daemon, "relay-cpu-user": user, "relay-rss": mb}, nil
}

// cost is CPU time in seconds.
type cost struct {
	daemon, user float64 // of daemons, and what of it was not in the kernel
	threads      float64 // of the threads that receive for the hosts on which they run
}

// cost tells what the daemons of these sides, and the threads that receive for them, have used.
func (m *mesh) cost(sides []int) (c cost, err error) {
	for _, side := range sides {
		daemon, user, err := cpu(m.lane.daemons[side : side+1])
		if err != nil {
			return c, err
		}
		threads, _, err := cpuOf(m.lane.threads[side])
		if err != nil {
			return c, err
		}
		c.daemon, c.user, c.threads = c.daemon+daemon, c.user+user, c.threads+threads
	}
	return c, nil
}

// ping measures pings in the same way.
func (m *mesh) ping(ctx context.Context, hops int, t time.Duration) (map[string]float64, error) {
	if err := m.path(ctx, hops); err != nil {
		return nil, err
	}
	times, err := ping(ctx, m.lane, min(t, 2*time.Second))
	if err != nil {
		return nil, err
	}
	return map[string]float64{"relay-ping": quantile(times, 0.5)}, m.path(ctx, hops)
}

// passed asks r and s how many bytes they have passed on.
func (m *mesh) passed(ctx context.Context) (bytes [4]uint64, err error) {
	for _, side := range []int{sideR, sideS} {
		s, err := m.nodes[side].network(ctx)
		if err != nil {
			return bytes, err
		}
		bytes[side] = s.Relay.Bytes
	}
	return bytes, nil
}

// check fails unless a stream of so many gigabytes went over just the relays that it should.
func (m *mesh) check(ctx context.Context, hops int, before [4]uint64, gigabytes float64) error {
	after, err := m.passed(ctx)
	if err != nil {
		return err
	}
	for _, side := range []int{sideR, sideS} {
		share := float64(after[side]-before[side]) / 1e9 / gigabytes
		if on := slices.Contains(relays[hops], side); on && share < 1 || !on && share > strayShare {
			return fmt.Errorf("%s passed on %.3f of the stream", sideNames[side], share)
		}
	}
	return m.path(ctx, hops)
}
