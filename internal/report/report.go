// Package report makes words of what a node knows: the types of package api from snapshots of engines, and the doctor's findings.
//
// Package node takes the snapshots, in its control loop; everything here is a plain function over them, keeps nothing and
// changes nothing, so that what users are told is tested without a node.
package report

import (
	"net/netip"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/route"
	"github.com/warren-vpn/warren/internal/wire"
)

// Network is how a node sees one of its networks at one moment.
type Network struct {
	Now       time.Time
	Name      string // by which commands call it
	ID        key.NetworkID
	Self      key.NodeID
	Key       key.WGPublic // this node's
	Roster    *member.Roster
	MTU       int    // as the config file says
	Up        bool   // it is meant to be
	Why       string // it is down although it is meant to be up
	Joining   bool   // it waits for an admin's approval
	Wanted    string // the name that was asked for in a join that waits
	Endpoints []netip.AddrPort
	Mesh      *Mesh // nil: it is down
}

// Mesh is what runs of a network that is up.
type Mesh struct {
	Interface  string
	MTU        int // of the interface
	Begun      time.Time
	Port       uint16        // UDP, of this node
	NAT        wire.NATClass // of this machine, IPv4
	NoIPv4     bool          // it has no such address
	Carried    bool          // all that it has are of a provider's NAT, which passes no port on
	Leaf       bool
	Anchor     bool
	Transit    config.Transit
	Metered    bool
	MeteredBy  config.Metered // MeteredAuto: the system says so
	Overloaded bool
	Relayed    Traffic
	Peers      map[key.NodeID]Peer
	// At says where a direct way leads, and how if it is a stream: "tls" or "wss".
	At func(wire.Way) (addr netip.AddrPort, kind string)
	// Whole finds a member by its short id; false if there is none.
	Whole func(key.ShortID) (key.NodeID, bool)
}

// Traffic counts what a node relayed for others.
type Traffic struct{ Packets, Bytes, Dropped uint64 }

// Peer is how it stands with one member, or with a device that is served here.
type Peer struct {
	Name                string
	Device              bool
	Kept                bool          // a session is kept up on purpose
	Link                bool          // both sides keep it: it is on the map
	Talks               bool          // there is a session and a path
	CalledUs            bool          // it reached this node before anything was sent to it
	Said                bool          // it made a handshake since this network is up
	Ahead               time.Duration // of this machine's clock, its clock was then
	RxBytes, TxBytes    uint64
	Received, Handshake int64 // last, Unix ns; 0: never
	Path                path.Status
	Routes              []route.RouteInfo // over relays, as the map says; only of one that does not talk
}

// NameOf names a node for people.
func NameOf(r *member.Roster, id key.NodeID) string {
	if m, ok := r.ByID(id); ok {
		return m.Name
	}
	return id.Short().String()
}

func namesOf(r *member.Roster, ids []key.NodeID) (out []string) {
	for _, id := range ids {
		out = append(out, NameOf(r, id))
	}
	return out
}

// Addresses lists the inner addresses of a member, IPv4 first if it has one.
func Addresses(m member.Member) (out []netip.Addr) {
	if m.Addr4.IsValid() {
		out = append(out, m.Addr4)
	}
	return append(out, m.Addr6)
}

// Places lists addresses for people.
func Places(aps []netip.AddrPort) string {
	var out []string
	for _, ap := range aps {
		out = append(out, ap.String())
	}
	return strings.Join(out, ", ")
}

func wgText(k key.WGPublic) string {
	if k.IsZero() {
		return ""
	}
	return k.String()
}

// moment turns Unix nanoseconds, 0 for never, into a time.
func moment(ns int64) api.Time {
	if ns == 0 {
		return api.Time{}
	}
	return api.At(time.Unix(0, ns))
}

// share is a loss that is known once a round trip is.
func share(loss float64, rtt time.Duration) api.Share {
	if rtt == 0 {
		return api.Share{}
	}
	return api.ShareOf(loss)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
