package api

import "net/netip"

// Values of [Network.State].
const (
	StateUp      = "up"      // the interface exists, the node is in touch or tries to be
	StateDown    = "down"    // put down by a user, or not able to come up: see Why
	StatePending = "pending" // joined by an approve-first code, waiting for an admin
)

// Values of [Peer.Path].
const (
	PathDirect  = "direct"  // datagrams go straight to Endpoint
	PathRelayed = "relayed" // datagrams go through the members in Via
	PathNone    = "none"    // no way to the peer is known: see Why
)

// Status is what the daemon is and does (spec/60-api.md#status).
type Status struct {
	Version  string       `json:"version"`   // of the daemon
	PID      int          `json:"pid"`       // its process id
	StateDir string       `json:"state_dir"` // absolute
	Port     uint16       `json:"port"`      // the one UDP port; 0 = not bound yet
	Uptime   int64        `json:"uptime_s"`  // whole seconds
	Warnings List[string] `json:"warnings"`  // what does not work fully and why, one sentence each
	Offloads List[string] `json:"offloads"`  // what the kernel was found able to do: see the spec

	// Drops counts packets that went no further, by reason, since the start; reasons without any are not listed.
	Drops map[string]uint64 `json:"drops"`

	Networks List[Network] `json:"networks"` // sorted by name
}

// Network is one network as this node sees it (spec/60-api.md#network).
type Network struct {
	Name      string       `json:"name"`
	ID        string       `json:"id"`        // 64 hexadecimal digits
	State     string       `json:"state"`     // StateUp, StateDown or StatePending
	Why       string       `json:"why"`       // one sentence when State is not StateUp, else ""
	Interface string       `json:"interface"` // name of the TUN device; "" when there is none
	MTU       int          `json:"mtu"`       // of the interface, bytes
	Pool      netip.Prefix `json:"pool"`      // IPv4
	Prefix6   netip.Prefix `json:"prefix6"`   // IPv6, /48
	Created   Time         `json:"created"`   // of the network
	Members   int          `json:"members"`   // in the roster, self and devices included
	Pending   int          `json:"pending"`   // newcomers that wait for approval
	Self      Self         `json:"self"`
	Relay     Relay        `json:"relay"`
	Peers     List[Peer]   `json:"peers"` // all other members, sorted by name
}

// Self is this node in a network (spec/60-api.md#self).
type Self struct {
	Name      string               `json:"name"`
	ID        string               `json:"id"`         // 64 hexadecimal digits
	Addresses List[netip.Addr]     `json:"addresses"`  // IPv4 first
	PublicKey string               `json:"public_key"` // WireGuard, base64
	Admin     bool                 `json:"admin"`      // Rights is not empty
	Rights    List[string]         `json:"rights"`
	Groups    List[string]         `json:"groups"`
	Endpoints List[netip.AddrPort] `json:"endpoints"` // where this node tells others to reach it
	Anchor    bool                 `json:"anchor"`    // others reach it from outside without help
}

// Peer is another member and how it is reached now (spec/60-api.md#peer).
type Peer struct {
	Name          string           `json:"name"`
	ID            string           `json:"id"`         // 64 hexadecimal digits
	Addresses     List[netip.Addr] `json:"addresses"`  // IPv4 first
	PublicKey     string           `json:"public_key"` // WireGuard, base64; "" while unknown
	Device        bool             `json:"device"`     // runs stock WireGuard
	Admin         bool             `json:"admin"`      // holds a right
	Groups        List[string]     `json:"groups"`
	Path          string           `json:"path"`           // PathDirect, PathRelayed or PathNone
	Why           string           `json:"why"`            // one sentence when there is something to say, else ""
	Via           List[string]     `json:"via"`            // names of the relays in order; empty unless relayed
	Endpoint      netip.AddrPort   `json:"endpoint"`       // "" when none
	RTT           Millis           `json:"rtt_ms"`         // smoothed; null while unknown
	Jitter        Millis           `json:"jitter_ms"`      // of the RTT; null while unknown
	Loss          Share            `json:"loss"`           // of the probes by this path; null while unknown
	Linked        bool             `json:"linked"`         // a link: the path is kept up on purpose, and others are relayed over it
	MTU           int              `json:"mtu"`            // of the path, inner bytes; 0 while unknown
	RxBytes       uint64           `json:"rx_bytes"`       // since the daemon started
	TxBytes       uint64           `json:"tx_bytes"`       // since the daemon started
	LastSeen      Time             `json:"last_seen"`      // last authenticated packet; null = not since the start
	LastHandshake Time             `json:"last_handshake"` // null = none since the start
	Version       string           `json:"version"`        // of its software; "" while unknown
}

// CreateRequest founds a network.
type CreateRequest struct {
	Name     string       `json:"name"`      // of the network
	NodeName string       `json:"node_name"` // of this member
	Pool     netip.Prefix `json:"pool"`      // zero = the default
}

// CreateReply is the new network and a first code.
type CreateReply struct {
	Network Network     `json:"network"`
	Invite  InviteReply `json:"invite"` // single use, 24 h; zero when no code can be made now
}

// JoinRequest enters a network.
type JoinRequest struct {
	Code string `json:"code"` // secret
	Name string `json:"name"` // wanted name of this member; the roster may give another
}

// Stages of a join, in order; see [Progress].
const (
	StageContact = "contact" // looking for a member by the code's hints
	StagePending = "pending" // accepted, an admin must approve; from here the daemon goes on without the caller
	StageSync    = "sync"    // fetching the roster
	StageUp      = "up"      // configuring the interface
)

// Progress is one step of a join.
type Progress struct {
	Stage string `json:"stage"` // a Stage constant
	Text  string `json:"text"`  // one sentence for people
}

// InviteRequest asks for a code.
type InviteRequest struct {
	Network string       `json:"network"`   // name or id prefix; "" = the only one
	Uses    int          `json:"uses"`      // how many may join, from 1
	Expires int64        `json:"expires_s"` // seconds from now, from 1
	Groups  List[string] `json:"groups"`    // that the newcomers belong to
	Approve bool         `json:"approve"`   // an admin must approve each
}

// InviteReply is a new code.
type InviteReply struct {
	Network string       `json:"network"` // its name
	ID      string       `json:"id"`      // of the invite, 64 hexadecimal digits
	Code    string       `json:"code"`    // secret: who has it can join
	Uses    int          `json:"uses"`
	Expires Time         `json:"expires"`
	Groups  List[string] `json:"groups"`
	Approve bool         `json:"approve"`
}

// Values of [Invite.State].
const (
	InviteOpen    = "open"    // can be used
	InviteUsed    = "used"    // all uses are gone
	InviteExpired = "expired" // its time is over
	InviteRevoked = "revoked" // who issued it lost the right
)

// Invites lists the invites of a network.
type Invites struct {
	Network string       `json:"network"`
	Invites List[Invite] `json:"invites"` // newest first
}

// Invite is what the roster holds of an invite: not its code.
type Invite struct {
	ID      string       `json:"id"`
	State   string       `json:"state"`
	Uses    int          `json:"uses"`
	Used    int          `json:"used"`
	Created Time         `json:"created"`
	Expires Time         `json:"expires"`
	Groups  List[string] `json:"groups"`
	Approve bool         `json:"approve"`
	By      string       `json:"by"` // name of the issuer
}

// NetworkRequest names a network, or all.
type NetworkRequest struct {
	Network string `json:"network"` // name or id prefix; "" = all
}

// LeaveRequest leaves a network for ever.
type LeaveRequest struct {
	Network string `json:"network"` // name or id prefix; "" = the only one
	Force   bool   `json:"force"`   // even when it leaves others without an admin
}

// LeaveReply says what was left.
type LeaveReply struct {
	Network string `json:"network"` // its name
	ID      string `json:"id"`
	Told    int    `json:"told"` // members that acknowledged or were sent the news; 0 = nobody was in reach
}

// Values of [Member.Via].
const (
	ViaGenesis = "genesis" // a founder
	ViaAdmin   = "admin"   // admitted or approved by an admin
	ViaInvite  = "invite"  // joined by a code
)

// Members lists the effective roster.
type Members struct {
	Network string       `json:"network"`
	ID      string       `json:"id"`
	Members List[Member] `json:"members"` // sorted by name, self and devices included
}

// Member is one entry of the roster (spec/60-api.md#member).
type Member struct {
	Name      string               `json:"name"`
	ID        string               `json:"id"`
	Addresses List[netip.Addr]     `json:"addresses"`
	PublicKey string               `json:"public_key"` // WireGuard, base64; "" while unknown
	Self      bool                 `json:"self"`
	Device    bool                 `json:"device"`
	Gateways  List[string]         `json:"gateways"` // names of the members that serve the device
	Root      bool                 `json:"root"`
	Admin     bool                 `json:"admin"` // Rights is not empty
	Rights    List[string]         `json:"rights"`
	Groups    List[string]         `json:"groups"`
	Endpoints List[netip.AddrPort] `json:"endpoints"` // as it states
	Version   string               `json:"version"`
	Joined    Time                 `json:"joined"`
	Via       string               `json:"via"` // a Via constant
	By        string               `json:"by"`  // name of the admin, or of the witness of the join; "" for a founder
}

// PendingList lists newcomers that wait for an admin.
type PendingList struct {
	Network string        `json:"network"`
	Pending List[Pending] `json:"pending"` // oldest first
}

// Pending is a newcomer that waits for an admin.
type Pending struct {
	Name    string `json:"name"` // that it asked for
	ID      string `json:"id"`
	Since   Time   `json:"since"`
	Invite  string `json:"invite"`  // id of the invite
	Witness string `json:"witness"` // name of the member that saw it
}

// RevokeRequest puts a member or device out.
type RevokeRequest struct {
	Network     string `json:"network"`     // name or id prefix; "" = the only one
	Member      string `json:"member"`      // name, address or id prefix
	Compromised bool   `json:"compromised"` // what it granted falls too
	Reason      string `json:"reason"`      // for the record, at most MaxReason bytes
}

// MaxReason is the limit of [RevokeRequest.Reason] in bytes.
const MaxReason = 200

// RevokeReply says who is out.
type RevokeReply struct {
	Network string       `json:"network"`
	Name    string       `json:"name"`
	ID      string       `json:"id"`
	Also    List[string] `json:"also"` // names of members and devices that fell with it
	Told    int          `json:"told"` // peers to which the news was sent at once
}

// MemberRequest names one member of one network.
type MemberRequest struct {
	Network string `json:"network"` // name or id prefix; "" = the only one
	Member  string `json:"member"`  // name, address or id prefix
}

// AdminRequest grants rights.
type AdminRequest struct {
	Network string       `json:"network"` // name or id prefix; "" = the only one
	Member  string       `json:"member"`  // name, address or id prefix
	Rights  List[string] `json:"rights"`  // of wire.Rights
}

// AdminRemoveRequest takes all rights from an admin; it stays a member.
type AdminRemoveRequest struct {
	Network     string `json:"network"`
	Member      string `json:"member"`
	Compromised bool   `json:"compromised"` // what it granted falls too
	Reason      string `json:"reason"`
}

// Admins lists the admins of a network.
type Admins struct {
	Network string      `json:"network"`
	Admins  List[Admin] `json:"admins"` // sorted by name
}

// Admin is a holder of rights.
type Admin struct {
	Name   string       `json:"name"`
	ID     string       `json:"id"`
	Self   bool         `json:"self"`
	Root   bool         `json:"root"`
	Rights List[string] `json:"rights"`
	By     string       `json:"by"`    // name of the granter; "" for a root
	Since  Time         `json:"since"` // of the grant, or the genesis
}

// RenameRequest gives this member another name.
type RenameRequest struct {
	Network string `json:"network"` // name or id prefix; "" = the only one
	Name    string `json:"name"`
}

// DeviceRequest makes a stock WireGuard client a member, served by this node.
type DeviceRequest struct {
	Network string `json:"network"` // name or id prefix; "" = the only one
	Name    string `json:"name"`
}

// DeviceReply is a device's configuration. It is given once: the daemon does not keep the private key.
type DeviceReply struct {
	Network   string           `json:"network"`
	Name      string           `json:"name"`
	ID        string           `json:"id"`
	Addresses List[netip.Addr] `json:"addresses"`
	Gateway   string           `json:"gateway"` // name of this node
	Config    string           `json:"config"`  // wg-quick text with the private key: secret
}

// PingRequest is one probe to a member.
type PingRequest struct {
	Network string `json:"network"`    // name or id prefix; "" = the only one
	Member  string `json:"member"`     // name, address or id prefix
	Timeout int64  `json:"timeout_ms"` // 1 to 10000; 0 = 1000
}

// PingReply is the answer to one probe.
type PingReply struct {
	Network  string         `json:"network"`
	Name     string         `json:"name"`
	Address  netip.Addr     `json:"address"`  // the member's first
	Path     string         `json:"path"`     // PathDirect or PathRelayed
	Via      List[string]   `json:"via"`      // names of the relays in order
	Endpoint netip.AddrPort `json:"endpoint"` // "" unless direct
	RTT      Millis         `json:"rtt_ms"`   // of this probe
}
