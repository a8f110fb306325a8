package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/wire"
)

// testNow is what every clock in the scripts shows.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fakeDaemon is a daemon without a network behind it: it keeps what it was told in its state directory, as the real one
// does, and knows two other members, bob and phone, in every network. Codes tell it how a join ends: see joinWorlds.
type fakeDaemon struct {
	dir  string
	stop context.CancelFunc

	mu       sync.Mutex
	networks []api.Network
	pending  []api.Pending
	pings    int
	policy   api.List[api.PolicySetting]
}

// joinWorlds says, by the first byte of the network id in a code, what the join meets.
var joinWorlds = map[byte]*api.Error{
	1: api.Errorf(api.CodeCodeUsed, "the code was used already").Hintf("a code is for one machine: get a new one with `sudo warren invite`"),
	2: api.Errorf(api.CodeNoIntroducer, "no member of the network answered at 192.0.2.1:41641").Hintf("is the machine that gave the code running and reachable?"),
	3: api.Errorf(api.CodeCodeRevoked, "the admin who made the code has been put out").Hintf("ask another admin for a code"),
	4: api.Errorf(api.CodePoolConflict, "the network's addresses 192.168.1.0/24 overlap the local network on eth0").Hintf("found the network again with another range: warren create NAME --pool RANGE"),
}

func runFakeDaemon(ctx context.Context, o daemonOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := api.Dial(api.SocketPath(o.StateDir)).Status(ctx); err == nil {
		return api.Errorf(api.CodeAlreadyRunning, "another daemon uses %s", o.StateDir).Hintf("see: warren status")
	}
	if _, err := os.Stat(filepath.Join(o.StateDir, "port-taken")); err == nil {
		return api.Errorf(api.CodeAddressInUse, "UDP port 41641 is in use").Hintf("choose another in the configuration file")
	}
	if err := os.MkdirAll(o.StateDir, 0o711); err != nil {
		return err
	}
	d := &fakeDaemon{dir: o.StateDir, stop: cancel}
	if b, err := os.ReadFile(d.file()); err == nil {
		if err := json.Unmarshal(b, &d.networks); err != nil {
			return err
		}
	}
	l, err := api.Listen(o.StateDir)
	if err != nil {
		return err
	}
	ready()
	o.Log.Info("daemon runs", "networks", len(d.networks))
	return api.NewServer(d, api.DefaultGroup, o.Log).Run(ctx, l)
}

func (d *fakeDaemon) file() string { return filepath.Join(d.dir, "fake.json") }

func (d *fakeDaemon) save() error {
	b, err := json.Marshal(d.networks)
	if err != nil {
		return err
	}
	return os.WriteFile(d.file(), b, 0o600)
}

// network finds one as the Backend's contract says.
func (d *fakeDaemon) network(name string) (*api.Network, error) {
	switch {
	case len(d.networks) == 0:
		return nil, api.Errorf(api.CodeNoSuchNetwork, "this machine is in no network yet").Hintf("warren create or warren join")
	case name == "" && len(d.networks) > 1:
		return nil, api.Errorf(api.CodeAmbiguous, "this machine is in several networks").Hintf("choose one: --network NAME")
	case name == "":
		return &d.networks[0], nil
	}
	for i := range d.networks {
		if d.networks[i].Name == name {
			return &d.networks[i], nil
		}
	}
	return nil, api.Errorf(api.CodeNoSuchNetwork, "this machine is in no network %q", name).Hintf("see: warren status")
}

func hexID(b byte) string { return strings.Repeat(fmt.Sprintf("%02x", b), 32) }

func (d *fakeDaemon) newNetwork(name, self string) api.Network {
	n := len(d.networks)
	return api.Network{Name: name, ID: hexID(byte(n + 1)), State: api.StateUp, Interface: fmt.Sprintf("warren%d", n), MTU: 1420,
		Pool: netip.MustParsePrefix("100.64.0.0/10"), Prefix6: netip.MustParsePrefix("fd12:3456:789a::/48"), Created: api.At(testNow), Members: 3,
		Self: api.Self{Name: self, ID: hexID(0xaa), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.12.7"), netip.MustParseAddr("fd12:3456:789a::7")},
			Admin: true, Rights: wire.AllRights.Names()},
		Peers: api.List[api.Peer]{
			{Name: "bob", ID: hexID(0xbb), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.80.2")}, Path: api.PathDirect,
				Endpoint: netip.MustParseAddrPort("192.0.2.7:41641"), RTT: api.Millis(1234 * time.Microsecond), Jitter: millis(0.2), Loss: api.ShareOf(0.004), RxBytes: 3_500_000, TxBytes: 999,
				LastSeen: api.At(testNow.Add(-90 * time.Second))},
			{Name: "phone", ID: hexID(0xcc), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.9.9")}, Path: api.PathNone, Device: true,
				Why: "it has not connected since the start\x1b[31m"},
		}}
}

func (d *fakeDaemon) Status(context.Context) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status(), nil
}

func (d *fakeDaemon) status() api.Status {
	return api.Status{Version: "0.0.1", PID: 42, StateDir: d.dir, Port: 41641, Uptime: 3725, Networks: slices.Clone(d.networks)}
}

func (d *fakeDaemon) Create(_ context.Context, r api.CreateRequest) (api.CreateReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.network(r.Name); err == nil {
		return api.CreateReply{}, api.Errorf(api.CodeNameTaken, "this machine is in a network %q already", r.Name).Hintf("choose another name, or see: warren status")
	}
	if r.Pool == netip.MustParsePrefix("192.168.1.0/24") {
		return api.CreateReply{}, api.Errorf(api.CodePoolConflict, "the pool %v overlaps the local network on eth0", r.Pool).Hintf("choose another with --pool")
	}
	n := d.newNetwork(r.Name, r.NodeName)
	n.Members, n.Peers = 1, nil
	if r.Name == "village" {
		n.Peers, n.Relay = villagePeers()
	}
	d.networks = append(d.networks, n)
	if r.Name == "island" { // where nobody could reach this machine
		return api.CreateReply{Network: n}, d.save()
	}
	return api.CreateReply{Network: n, Invite: invitation(r.Name, 1, 24*time.Hour)}, d.save()
}

func invitation(network string, uses int, holds time.Duration) api.InviteReply {
	end := testNow.Add(holds)
	return api.InviteReply{Network: network, ID: hexID(0x11), Code: testCode(0, end, false), Uses: uses, Expires: api.At(end)}
}

// testCode makes a code for joinWorlds.
func testCode(world byte, end time.Time, approve bool) string {
	return wire.Code{Network: [16]byte{world}, NotAfter: end.Unix(), Approve: approve, Hints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")}}.Text()
}

func (d *fakeDaemon) Join(ctx context.Context, r api.JoinRequest, progress func(api.Progress)) (api.Network, error) {
	code, err := wire.ParseCode(r.Code)
	if err != nil {
		return api.Network{}, api.Errorf(api.CodeCodeInvalid, "%v", err)
	}
	progress(api.Progress{Stage: api.StageContact, Text: "Looking for the network at 192.0.2.1:41641."})
	if e := joinWorlds[code.Network[0]]; e != nil {
		return api.Network{}, e
	}
	if code.Approve {
		progress(api.Progress{Stage: api.StagePending, Text: "An admin must approve this machine: warren approve " + r.Name})
		<-ctx.Done()
		return api.Network{}, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.network("home"); err == nil {
		return api.Network{}, api.Errorf(api.CodeAlreadyMember, "this machine is a member of home already").Hintf("see: warren status")
	}
	self := r.Name
	if self == "bob" {
		self = "bob-7f3a"
	}
	n := d.newNetwork("home", self)
	d.networks = append(d.networks, n)
	return n, d.save()
}

func (d *fakeDaemon) Up(_ context.Context, r api.NetworkRequest) (api.Status, error) {
	return d.set(r, api.StateUp, "")
}

func (d *fakeDaemon) Down(_ context.Context, r api.NetworkRequest) (api.Status, error) {
	return d.set(r, api.StateDown, "put down by a user")
}

func (d *fakeDaemon) set(r api.NetworkRequest, state, why string) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Network != "" {
		if _, err := d.network(r.Network); err != nil {
			return api.Status{}, err
		}
	}
	for i := range d.networks {
		if n := &d.networks[i]; r.Network == "" || n.Name == r.Network {
			n.State, n.Why = state, why
		}
	}
	return d.status(), d.save()
}

func (d *fakeDaemon) Leave(_ context.Context, r api.LeaveRequest) (api.LeaveReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(r.Network)
	if err != nil {
		return api.LeaveReply{}, err
	}
	if len(n.Peers) > 0 && !r.Force {
		return api.LeaveReply{}, api.Errorf(api.CodeLastAdmin, "this machine is the last admin of %s", n.Name).Hintf("make another first with `sudo warren admin add MEMBER`, or use --force")
	}
	out := api.LeaveReply{Network: n.Name, ID: n.ID}
	d.networks = slices.DeleteFunc(d.networks, func(x api.Network) bool { return x.Name == out.Network })
	return out, d.save()
}

func (d *fakeDaemon) Rename(_ context.Context, r api.RenameRequest) (api.Network, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(r.Network)
	if err != nil {
		return api.Network{}, err
	}
	if r.Name == "bob" {
		return api.Network{}, api.Errorf(api.CodeNameTaken, "another member of home is named bob").Hintf("choose another name")
	}
	n.Self.Name = r.Name
	return *n, d.save()
}

func (d *fakeDaemon) Invite(_ context.Context, r api.InviteRequest) (api.InviteReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(r.Network)
	if err != nil {
		return api.InviteReply{}, err
	}
	out := invitation(n.Name, r.Uses, time.Duration(r.Expires)*time.Second)
	out.Groups, out.Approve = r.Groups, r.Approve
	if r.Approve {
		d.pending = append(d.pending, api.Pending{Name: "dave", ID: hexID(0xdd), Since: api.At(testNow.Add(-time.Minute)), Invite: out.ID, Witness: "bob"})
	}
	return out, nil
}

func (d *fakeDaemon) Invites(_ context.Context, network string) (api.Invites, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	if err != nil {
		return api.Invites{}, err
	}
	return api.Invites{Network: n.Name, Invites: api.List[api.Invite]{
		{ID: hexID(0x11), State: api.InviteOpen, Uses: 5, Used: 2, Created: api.At(testNow), Expires: api.At(testNow.Add(time.Hour)), Groups: api.List[string]{"guests"}, Approve: true, By: "alice"},
		{ID: hexID(0x12), State: api.InviteUsed, Uses: 1, Used: 1, Created: api.At(testNow), Expires: api.At(testNow.Add(time.Hour)), By: "alice"}}}, nil
}

func (d *fakeDaemon) Members(_ context.Context, network string) (api.Members, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	if err != nil {
		return api.Members{}, err
	}
	out := api.Members{Network: n.Name, ID: n.ID, Members: api.List[api.Member]{{Name: n.Self.Name, ID: n.Self.ID, Addresses: n.Self.Addresses, Self: true, Root: true, Admin: true,
		Rights: n.Self.Rights, Joined: n.Created, Via: api.ViaGenesis}}}
	for _, p := range n.Peers {
		m := api.Member{Name: p.Name, ID: p.ID, Addresses: p.Addresses, Device: p.Device, Joined: n.Created, Via: api.ViaInvite, By: n.Self.Name}
		if p.Device {
			m.Via, m.Gateways = api.ViaAdmin, api.List[string]{n.Self.Name}
		}
		out.Members = append(out.Members, m)
	}
	return out, nil
}

func (d *fakeDaemon) Pending(_ context.Context, network string) (api.PendingList, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	if err != nil {
		return api.PendingList{}, err
	}
	return api.PendingList{Network: n.Name, Pending: slices.Clone(d.pending)}, nil
}

func (d *fakeDaemon) Approve(_ context.Context, r api.MemberRequest) (api.Member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range d.pending {
		if p.Name == r.Member {
			d.pending = slices.Delete(d.pending, i, i+1)
			return api.Member{Name: p.Name, ID: p.ID, Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.3.3")}, Via: api.ViaAdmin}, nil
		}
	}
	return api.Member{}, api.Errorf(api.CodeNoSuchPending, "no newcomer %q waits for approval", r.Member).Hintf("see: warren approve")
}

// peer finds a member of a network by name.
func (d *fakeDaemon) peer(network, member string) (*api.Network, *api.Peer, error) {
	n, err := d.network(network)
	if err != nil {
		return nil, nil, err
	}
	for i := range n.Peers {
		if n.Peers[i].Name == member {
			return n, &n.Peers[i], nil
		}
	}
	return nil, nil, api.Errorf(api.CodeNoSuchMember, "the network %s has no member %q", n.Name, member).Hintf("see: warren members")
}

func (d *fakeDaemon) Revoke(_ context.Context, r api.RevokeRequest) (api.RevokeReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, p, err := d.peer(r.Network, r.Member)
	if err != nil {
		return api.RevokeReply{}, err
	}
	out := api.RevokeReply{Network: n.Name, Name: p.Name, ID: p.ID, Told: 1}
	if r.Compromised {
		out.Also = api.List[string]{"phone"}
	}
	n.Peers = slices.DeleteFunc(n.Peers, func(p api.Peer) bool { return p.Name == out.Name || slices.Contains(out.Also, p.Name) })
	return out, d.save()
}

func (d *fakeDaemon) Admins(_ context.Context, network string) (api.Admins, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(network)
	if err != nil {
		return api.Admins{}, err
	}
	out := api.Admins{Network: n.Name, Admins: api.List[api.Admin]{{Name: n.Self.Name, ID: n.Self.ID, Self: true, Root: true, Rights: n.Self.Rights, Since: n.Created}}}
	for _, p := range n.Peers {
		if p.Admin {
			out.Admins = append(out.Admins, api.Admin{Name: p.Name, ID: p.ID, Rights: api.List[string]{"invite"}, By: n.Self.Name, Since: n.Created})
		}
	}
	return out, nil
}

func (d *fakeDaemon) AdminAdd(_ context.Context, r api.AdminRequest) (api.Admin, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, p, err := d.peer(r.Network, r.Member)
	switch {
	case err != nil:
		return api.Admin{}, err
	case p.Device:
		return api.Admin{}, api.Errorf(api.CodeNoRight, "the device %s cannot be an admin", p.Name)
	}
	p.Admin = true
	return api.Admin{Name: p.Name, ID: p.ID, Rights: r.Rights, By: n.Self.Name, Since: api.At(testNow)}, d.save()
}

func (d *fakeDaemon) AdminRemove(_ context.Context, r api.AdminRemoveRequest) (api.RevokeReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, p, err := d.peer(r.Network, r.Member)
	if err != nil {
		return api.RevokeReply{}, err
	}
	p.Admin = false
	return api.RevokeReply{Network: n.Name, Name: p.Name, ID: p.ID}, d.save()
}

func (d *fakeDaemon) DeviceAdd(_ context.Context, r api.DeviceRequest) (api.DeviceReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.network(r.Network)
	if err != nil {
		return api.DeviceReply{}, err
	}
	if r.Name == "phone" {
		return api.DeviceReply{}, api.Errorf(api.CodeNameTaken, "another member of %s is named phone", n.Name).Hintf("choose another name")
	}
	return api.DeviceReply{Network: n.Name, Name: r.Name, ID: hexID(0xee), Addresses: api.List[netip.Addr]{netip.MustParseAddr("100.64.5.5")}, Gateway: n.Self.Name,
		Config: "[Interface]\nPrivateKey = c2VjcmV0\nAddress = 100.64.5.5/32\n\n[Peer]\nPublicKey = cHVibGlj\nEndpoint = 192.0.2.1:41641\nAllowedIPs = 100.64.0.0/10\n"}, nil
}

// Ping answers from bob by a relay first and directly then, and never from the phone.
func (d *fakeDaemon) Ping(_ context.Context, r api.PingRequest) (api.PingReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, p, err := d.peer(r.Network, r.Member)
	if err != nil {
		return api.PingReply{}, err
	}
	if p.Device {
		return api.PingReply{}, api.Errorf(api.CodeNoAnswer, "%s did not answer", p.Name).Hintf("it is a device: it answers ping(8) at most")
	}
	d.pings++
	out := api.PingReply{Network: n.Name, Name: p.Name, Address: p.Addresses[0], Path: api.PathDirect, Endpoint: p.Endpoint, RTT: p.RTT}
	if d.pings == 1 {
		out.Path, out.Via, out.Endpoint, out.RTT = api.PathRelayed, api.List[string]{"carol"}, netip.AddrPort{}, api.Millis(12*time.Millisecond)
	}
	return out, nil
}

func (d *fakeDaemon) Stop(context.Context) error {
	if d.stop == nil {
		return errors.New("no way to stop")
	}
	d.stop()
	return nil
}
