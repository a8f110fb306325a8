package main

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/api"
)

func millis(ms float64) api.Millis { return api.Millis(ms * float64(time.Millisecond)) }

// village is the network of the stories about routes, as alice sees it. Ben is next to her, carl behind ben, dora behind
// carl; erin is another way to dora, which swallowed packets; finn cannot be reached; gus has a path and no link.
func village() api.MapReply {
	return api.MapReply{Network: "village", ID: hexID(1), Self: "alice",
		Nodes: api.List[api.MapNode]{
			{Name: "alice", ID: hexID(0xaa), Self: true, Known: true, Anchor: true},
			{Name: "ben", ID: hexID(0xb1), Known: true, Path: api.PathDirect, RTT: millis(11.24)},
			{Name: "carl", ID: hexID(0xc1), Known: true, Overloaded: true, Path: api.PathRelayed, Via: api.List[string]{"ben"}, RTT: millis(24)},
			{Name: "dora", ID: hexID(0xd1), Known: true, Leaf: true, Path: api.PathRelayed, Via: api.List[string]{"ben", "carl"}, RTT: millis(42.3)},
			{Name: "erin", ID: hexID(0xe1), Known: true, Avoided: true, Path: api.PathDirect, RTT: millis(30)},
			{Name: "finn", ID: hexID(0xf1), Path: api.PathNone},
			{Name: "gus", ID: hexID(0x91), Path: api.PathDirect, RTT: millis(5)},
			{Name: "phone", ID: hexID(0xcc), Device: true, Gateways: api.List[string]{"ben"}, Path: api.PathNone},
		},
		Links: api.List[api.MapLink]{
			{A: "alice", B: "ben", Cost: millis(21.2), RTT: millis(11.24), Loss: api.ShareOf(0), TwoWay: true},
			{A: "alice", B: "erin", Cost: millis(52), RTT: millis(30), Loss: api.ShareOf(0.012), TwoWay: true},
			{A: "ben", B: "carl", Cost: millis(23), TwoWay: true},
			{A: "ben", B: "finn", Cost: millis(12)},
			{A: "carl", B: "dora", Cost: millis(28), TwoWay: true},
			{A: "carl", B: "erin", Cost: millis(60), TwoWay: true},
		}}
}

// villagePeers is part of the status there.
func villagePeers() (api.List[api.Peer], api.Relay) {
	return api.List[api.Peer]{
		{Name: "ben", ID: hexID(0xb1), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.2.2")}, Path: api.PathDirect, Linked: true,
			Endpoint: netip.MustParseAddrPort("192.0.2.22:41641"), RTT: millis(11.24), LastSeen: api.At(testNow)},
		{Name: "dora", ID: hexID(0xd1), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.4.4")}, Path: api.PathRelayed,
			Via: api.List[string]{"ben", "carl"}, Why: "no direct path: none of its addresses answers", RTT: millis(42.3), Jitter: millis(1.5),
			Loss: api.ShareOf(0), RxBytes: 5 << 20, TxBytes: 1 << 20, LastSeen: api.At(testNow)},
	}, api.Relay{Enabled: true, Overloaded: true, Why: "it passes on all that relay_rate allows", Packets: 9000, Bytes: 12 << 20}
}

// villageRoute is how alice reaches dora there.
func villageRoute() api.RouteReply {
	hop := func(name string, rtt, cost float64) api.Hop {
		return api.Hop{Name: name, RTT: millis(rtt), Cost: millis(cost)}
	}
	return api.RouteReply{Network: "village", Name: "dora", ID: hexID(0xd1), Address: netip.MustParseAddr("100.64.4.4"), Path: api.PathRelayed,
		Why: "no direct path: none of its addresses answers",
		Ways: api.List[api.Way]{
			{Path: api.PathRelayed, State: api.WayUsed, Hops: api.List[api.Hop]{hop("ben", 11.24, 21.2), hop("carl", 0, 23), hop("dora", 0, 28)},
				RTT: millis(42.3), Jitter: millis(1.5), Loss: api.ShareOf(0), MTU: 1320, Cost: millis(72.2)},
			{Path: api.PathRelayed, State: api.WayAlive, Hops: api.List[api.Hop]{hop("erin", 30, 52), hop("carl", 0, 60), hop("dora", 0, 28)},
				RTT: millis(78), Jitter: millis(4), Loss: api.ShareOf(0.025), Cost: millis(140)},
			{Path: api.PathDirect, State: api.WaySilent, Why: "asked 4 times", Endpoint: netip.MustParseAddrPort("192.0.2.44:41641"), Hops: api.List[api.Hop]{hop("dora", 0, 0)}},
		},
		Avoided: api.List[api.Avoided]{
			{Name: "erin", Why: "what was sent through it did not arrive", Until: api.At(testNow.Add(40 * time.Second))},
			{Name: "ben", To: "finn", Why: "ben says that finn does not answer", Until: api.At(testNow.Add(90 * time.Second))},
		}}
}

// Route knows dora in the village, and bob and phone elsewhere.
func (d *fakeDaemon) Route(_ context.Context, r api.MemberRequest) (api.RouteReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, err := d.network(r.Network); err == nil && n.Name == "village" && r.Member == "dora" {
		return villageRoute(), nil
	}
	n, p, err := d.peer(r.Network, r.Member)
	if err != nil {
		return api.RouteReply{}, err
	}
	out := api.RouteReply{Network: n.Name, Name: p.Name, ID: p.ID, Address: p.Addresses[0], Device: p.Device, Path: p.Path, Why: p.Why}
	if p.Path == api.PathDirect {
		out.Ways = api.List[api.Way]{{Path: p.Path, State: api.WayUsed, Endpoint: p.Endpoint, Hops: api.List[api.Hop]{{Name: p.Name, ID: p.ID, RTT: p.RTT}}, RTT: p.RTT}}
	}
	return out, nil
}

// Map has a link to bob, or the village.
func (d *fakeDaemon) Map(_ context.Context, network string) (api.MapReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	switch {
	case err != nil:
		return api.MapReply{}, err
	case n.State != api.StateUp:
		return api.MapReply{}, api.Errorf(api.CodeNetworkDown, "the network %q is down", n.Name).Hintf("bring it up: warren up %s", n.Name)
	case n.Name == "village":
		return village(), nil
	}
	out := api.MapReply{Network: n.Name, ID: n.ID, Self: n.Self.Name, Nodes: api.List[api.MapNode]{{Name: n.Self.Name, ID: n.Self.ID, Self: true, Known: true}}}
	for _, p := range n.Peers {
		node := api.MapNode{Name: p.Name, ID: p.ID, Address: p.Addresses[0], Device: p.Device, Path: p.Path, RTT: p.RTT}
		if p.Device {
			node.Gateways = api.List[string]{n.Self.Name}
		} else {
			out.Links = append(out.Links, api.MapLink{A: n.Self.Name, B: p.Name, Cost: p.RTT + millis(10), RTT: p.RTT, TwoWay: true})
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out, nil
}

// fakePolicy is that of every fake network.
var fakePolicy = api.List[api.PolicySetting]{{Name: "broadcast", Value: "on"}, {Name: "relays", Value: "all"}}

// Policy is the default until SetPolicy, for all networks.
func (d *fakeDaemon) Policy(_ context.Context, network string) (api.Policy, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	if err != nil {
		return api.Policy{}, err
	}
	if d.policy == nil {
		d.policy = slices.Clone(fakePolicy)
	}
	return api.Policy{Network: n.Name, Settings: slices.Clone(d.policy)}, nil
}

// SetPolicy takes any value but "maybe".
func (d *fakeDaemon) SetPolicy(ctx context.Context, r api.PolicyRequest) (api.Policy, error) {
	p, err := d.Policy(ctx, r.Network)
	if err != nil {
		return p, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.policy, func(s api.PolicySetting) bool { return s.Name == r.Setting })
	if i < 0 || r.Value == "maybe" {
		return p, api.Errorf(api.CodeBadRequest, "%q for %s is not a value", r.Value, r.Setting).Hintf("see: warren policy --help")
	}
	d.policy[i] = api.PolicySetting{Name: r.Setting, Value: r.Value, By: "alice", Since: api.At(testNow)}
	return api.Policy{Network: p.Network, Settings: slices.Clone(d.policy)}, nil
}
