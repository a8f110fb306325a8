package discover

import (
	"crypto/ed25519"
	"net/netip"

	"github.com/warren-vpn/warren/internal/key"
)

// Effect is one thing that the owner must carry out: one of the types below.
type Effect interface{ effect() }

// Get asks for the item of Public (BEP 44, mutable, no salt). The owner answers with [Engine.HandleItem], whatever comes of it.
type Get struct {
	Target Target
	Public ed25519.PublicKey
}

// Put asks to store an item (BEP 44, mutable, no salt). The owner answers with [Engine.HandleStored], or with
// [Engine.HandleNewer] where another has written meanwhile.
type Put struct {
	Target  Target
	Private ed25519.PrivateKey // secret: never to be logged
	Seq     int64
	CAS     int64  // the sequence number that is replaced; 0: none was there, no cas is sent
	Value   []byte // ValueSize raw bytes, the owner's
}

// Meet asks who announced Infohash in the DHT (BEP 5) and, with Announce, announces this node there as well, in clear. The owner
// answers with [Engine.HandleMet].
type Meet struct {
	Infohash Target
	Announce bool
}

// SendBeacon asks to send Data as one datagram with a TTL of 1. To is a multicast group, then it goes out on every
// interface with multicast, or who asked, then on Interface. It goes from a socket that is not shared with another process,
// for the answer comes to where the question came from (spec/70-discover.md#beacons).
type SendBeacon struct {
	To        netip.AddrPort
	Interface string
	Data      []byte
}

// Listen names all multicast groups to hear, on every interface; it replaces the last one. What comes to them, and to the
// sockets that beacons are sent from, goes to [Engine.HandleBeacon].
type Listen struct{ Groups []netip.AddrPort }

// Source says where something was found.
type Source uint8

// The sources.
const (
	LAN Source = iota + 1
	DHT
	Peers // of an infohash
)

// String names s in one word.
func (s Source) String() string {
	switch s {
	case LAN:
		return "lan"
	case DHT:
		return "dht"
	case Peers:
		return "peers"
	}
	return "unknown"
}

// Found gives addresses which a holder of the key states: hints, best first. An address comes 3 times in 10 min at most.
// Of the source Peers, ID is zero: somebody is there, who may be anybody. Else, for a member, ID is a member's, unless Kind is KindNewcomer: then somebody with a code waits there, behind a NAT, for
// datagrams of ours that let its own in. For a newcomer, ID is that of an introducer.
type Found struct {
	ID     key.ShortID
	Addrs  []netip.AddrPort // zones are set where they are needed
	Kind   Kind
	Source Source
}

func (Get) effect()        {}
func (Put) effect()        {}
func (Meet) effect()       {}
func (SendBeacon) effect() {}
func (Listen) effect()     {}
func (Found) effect()      {}
