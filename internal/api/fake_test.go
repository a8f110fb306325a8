package api

import (
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"time"
)

// fakeBackend records calls as "Name {request}" and answers with err or with what the test put there.
type fakeBackend struct {
	mu    sync.Mutex
	calls []string
	err   error
	steps []Progress
	block chan struct{} // Join waits for it, or for the end of the context, when not nil
}

func (f *fakeBackend) note(name string, request any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	f.calls = append(f.calls, name+" "+string(b))
	return f.err
}

func (f *fakeBackend) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}

func (f *fakeBackend) Status(context.Context) (Status, error) {
	return sampleStatus(), f.note("Status", nil)
}

func (f *fakeBackend) Create(_ context.Context, r CreateRequest) (CreateReply, error) {
	return CreateReply{Network: sampleNetwork(), Invite: sampleInvite()}, f.note("Create", r)
}

func (f *fakeBackend) Join(ctx context.Context, r JoinRequest, progress func(Progress)) (Network, error) {
	err := f.note("Join", r)
	for _, s := range f.steps {
		progress(s)
	}
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return Network{}, ctx.Err()
		}
	}
	return sampleNetwork(), err
}

func (f *fakeBackend) Up(_ context.Context, r NetworkRequest) (Status, error) {
	return sampleStatus(), f.note("Up", r)
}

func (f *fakeBackend) Down(_ context.Context, r NetworkRequest) (Status, error) {
	return sampleStatus(), f.note("Down", r)
}

func (f *fakeBackend) Leave(_ context.Context, r LeaveRequest) (LeaveReply, error) {
	return LeaveReply{Network: "home", ID: idHome, Told: 2}, f.note("Leave", r)
}

func (f *fakeBackend) Rename(_ context.Context, r RenameRequest) (Network, error) {
	return sampleNetwork(), f.note("Rename", r)
}

func (f *fakeBackend) Invite(_ context.Context, r InviteRequest) (InviteReply, error) {
	return sampleInvite(), f.note("Invite", r)
}

func (f *fakeBackend) Invites(_ context.Context, network string) (Invites, error) {
	return Invites{Network: "home", Invites: List[Invite]{{ID: idInvite, State: InviteOpen, Uses: 3, Used: 1, Created: At(then),
		Expires: At(then.Add(time.Hour)), Groups: List[string]{"guests"}, Approve: true, By: "alice"}}}, f.note("Invites", network)
}

func (f *fakeBackend) Members(_ context.Context, network string) (Members, error) {
	return Members{Network: "home", ID: idHome, Members: List[Member]{sampleMember(), {Name: "phone", Device: true}}}, f.note("Members", network)
}

func (f *fakeBackend) Pending(_ context.Context, network string) (PendingList, error) {
	return PendingList{Network: "home", Pending: List[Pending]{{Name: "dave", ID: idBob, Since: At(then), Invite: idInvite, Witness: "bob"}}},
		f.note("Pending", network)
}

func (f *fakeBackend) Approve(_ context.Context, r MemberRequest) (Member, error) {
	return sampleMember(), f.note("Approve", r)
}

func (f *fakeBackend) Revoke(_ context.Context, r RevokeRequest) (RevokeReply, error) {
	return RevokeReply{Network: "home", Name: "bob", ID: idBob, Also: List[string]{"phone"}, Told: 3}, f.note("Revoke", r)
}

func (f *fakeBackend) Admins(_ context.Context, network string) (Admins, error) {
	return Admins{Network: "home", Admins: List[Admin]{sampleAdmin()}}, f.note("Admins", network)
}

func (f *fakeBackend) AdminAdd(_ context.Context, r AdminRequest) (Admin, error) {
	return sampleAdmin(), f.note("AdminAdd", r)
}

func (f *fakeBackend) AdminRemove(_ context.Context, r AdminRemoveRequest) (RevokeReply, error) {
	return RevokeReply{Network: "home", Name: "bob", ID: idBob}, f.note("AdminRemove", r)
}

func (f *fakeBackend) DeviceAdd(_ context.Context, r DeviceRequest) (DeviceReply, error) {
	return DeviceReply{Network: "home", Name: "phone", ID: idBob, Addresses: List[netip.Addr]{netip.MustParseAddr("100.64.9.9")},
		Gateway: "alice", Config: "[Interface]\n"}, f.note("DeviceAdd", r)
}

func (f *fakeBackend) Ping(_ context.Context, r PingRequest) (PingReply, error) {
	return PingReply{Network: "home", Name: "bob", Address: netip.MustParseAddr("100.64.80.2"), Path: PathDirect,
		Endpoint: netip.MustParseAddrPort("192.0.2.7:41641"), RTT: Millis(1234 * time.Microsecond)}, f.note("Ping", r)
}

func (f *fakeBackend) Route(_ context.Context, r MemberRequest) (RouteReply, error) {
	return sampleRoute(), f.note("Route", r)
}

func (f *fakeBackend) Map(_ context.Context, network string) (MapReply, error) {
	return MapReply{Network: "home", ID: idHome, Self: "alice", Nodes: List[MapNode]{
		{Name: "alice", ID: idHome, Self: true, Known: true, Anchor: true},
		{Name: "bob", ID: idBob, Address: netip.MustParseAddr("100.64.80.2"), Known: true, Leaf: true, Overloaded: true, Path: PathDirect, RTT: Millis(1500 * time.Microsecond)},
		{Name: "dora", Path: PathRelayed, Via: List[string]{"bob"}},
		{Name: "phone", Device: true, Gateways: List[string]{"alice"}, Path: PathNone},
	}, Links: List[MapLink]{
		{A: "alice", B: "bob", Cost: Millis(11500 * time.Microsecond), RTT: Millis(1500 * time.Microsecond), Loss: ShareOf(0), TwoWay: true},
		{A: "bob", B: "dora"},
	}}, f.note("Map", network)
}

func (f *fakeBackend) Doctor(_ context.Context, network string) (Doctor, error) {
	return Doctor{PID: 42, Findings: List[Finding]{
		{Name: "udp", State: FindingOK, Text: "UDP gets out, and answers come back"},
		{Name: "ipv4", State: FindingWarn, Text: "behind a NAT that gives each destination another port", Remedy: "forward UDP port 41641 to this machine on its router"},
	}, Hosts: List[Host]{{Host: "dht.example:6881", Asked: true}, {Host: "router.example:6881"}}}, f.note("Doctor", network)
}

func (f *fakeBackend) Policy(_ context.Context, network string) (Policy, error) {
	return Policy{Network: "home", Settings: List[PolicySetting]{{Name: "broadcast", Value: "off", By: "alice", Since: At(then)},
		{Name: "relays", Value: "all"}}}, f.note("Policy", network)
}

func (f *fakeBackend) SetPolicy(_ context.Context, r PolicyRequest) (Policy, error) {
	return Policy{Network: "home", Settings: List[PolicySetting]{{Name: "relays", Value: "group:staff", By: "alice", Since: At(then)}}}, f.note("SetPolicy", r)
}

func (f *fakeBackend) Stop(context.Context) error { return f.note("Stop", nil) }

var then = time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)

const (
	idHome   = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	idBob    = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0"
	idInvite = "1111111111111111111111111111111111111111111111111111111111111111"
	wgBob    = "Ym9iYm9iYm9iYm9iYm9iYm9iYm9iYm9iYm9iYm9iYm8="
)

func sampleStatus() Status {
	return Status{Version: "0.1.0", PID: 42, StateDir: "/var/lib/warren", Port: 41641, Uptime: 3600,
		Warnings: List[string]{"UDP offload is not available on this kernel"}, Offloads: List[string]{"udp-mmsg", "tun-tso"},
		Drops: map[string]uint64{"no_route": 3}, Networks: List[Network]{sampleNetwork()}}
}

func sampleNetwork() Network {
	return Network{Name: "home", ID: idHome, State: StateUp, Interface: "warren0", MTU: 1420, Pool: netip.MustParsePrefix("100.64.0.0/10"),
		Prefix6: netip.MustParsePrefix("fd12:3456:789a::/48"), Created: At(then), Members: 2,
		Self: Self{Name: "alice", ID: idHome, Addresses: List[netip.Addr]{netip.MustParseAddr("100.64.12.7"), netip.MustParseAddr("fd12:3456:789a::7")},
			PublicKey: wgBob, Admin: true, Rights: List[string]{"invite", "issue"}, Endpoints: List[netip.AddrPort]{netip.MustParseAddrPort("[2001:db8::1]:41641")}, Anchor: true},
		Relay: Relay{Enabled: true, Packets: 9, Bytes: 9000, Dropped: 1},
		Peers: List[Peer]{
			{Name: "bob", ID: idBob, Addresses: List[netip.Addr]{netip.MustParseAddr("100.64.80.2")}, PublicKey: wgBob, Groups: List[string]{"staff"},
				Path: PathDirect, Endpoint: netip.MustParseAddrPort("192.0.2.7:41641"), RTT: Millis(1500 * time.Microsecond), Jitter: Millis(40 * time.Microsecond),
				Loss: ShareOf(0.0125), Linked: true, MTU: 1420, RxBytes: 10, TxBytes: 20,
				LastSeen: At(then.Add(1500 * time.Millisecond)), LastHandshake: At(then), Version: "0.1.0"},
			{Name: "carol", Path: PathNone, Why: "no address is known"},
		}}
}

func sampleRoute() RouteReply {
	return RouteReply{Network: "home", Name: "dora", ID: idBob, Address: netip.MustParseAddr("100.64.80.9"), Path: PathRelayed,
		Why: "no direct path: none of its addresses answers",
		Ways: List[Way]{
			{Path: PathRelayed, State: WayUsed, Hops: List[Hop]{
				{Name: "bob", ID: idBob, RTT: Millis(1500 * time.Microsecond), Cost: Millis(11500 * time.Microsecond)}, {Name: "dora", Cost: Millis(30 * time.Millisecond)}},
				RTT: Millis(21 * time.Millisecond), Jitter: Millis(time.Millisecond), Loss: ShareOf(0), MTU: 1320, Cost: Millis(41500 * time.Microsecond)},
			{Path: PathDirect, State: WaySilent, Why: "no answer for 3 min", Endpoint: netip.MustParseAddrPort("192.0.2.9:41641"), Hops: List[Hop]{{Name: "dora"}}, Loss: ShareOf(1)},
		},
		Avoided: List[Avoided]{{Name: "carol", ID: idBob, Why: "what was sent over it did not arrive", Until: At(then)}, {Name: "erin", To: "dora"}}}
}

func sampleInvite() InviteReply {
	return InviteReply{Network: "home", ID: idInvite, Code: "warren-code", Uses: 1, Expires: At(then.Add(24 * time.Hour))}
}

func sampleMember() Member {
	return Member{Name: "bob", ID: idBob, Addresses: List[netip.Addr]{netip.MustParseAddr("100.64.80.2")}, PublicKey: wgBob, Root: true, Admin: true,
		Rights: List[string]{"invite"}, Groups: List[string]{"staff"}, Endpoints: List[netip.AddrPort]{netip.MustParseAddrPort("192.0.2.7:41641")},
		Version: "0.1.0", Joined: At(then), Via: ViaInvite, By: "alice"}
}

func sampleAdmin() Admin {
	return Admin{Name: "bob", ID: idBob, Rights: List[string]{"invite", "revoke"}, By: "alice", Since: At(then)}
}
