package dht

import (
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Node is a node of the DHT that answered, to be saved and given to New the next time. As text it is "id@address:port".
type Node struct {
	ID   [20]byte       // its place in the DHT
	Addr netip.AddrPort // unmapped
}

var (
	_ encoding.TextMarshaler   = Node{}
	_ encoding.TextUnmarshaler = (*Node)(nil)
)

// MarshalText writes n as text.
func (n Node) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%x@%s", n.ID, n.Addr), nil
}

// UnmarshalText reads what MarshalText wrote.
func (n *Node) UnmarshalText(b []byte) error {
	id, addr, found := strings.Cut(string(b), "@")
	raw, err := hex.DecodeString(id)
	if !found || err != nil || len(raw) != len(n.ID) {
		return errors.New("read a DHT node: want 40 hexadecimal digits, @, address and port")
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("read a DHT node: %w", err)
	}
	*n = Node{[20]byte(raw), unmap(ap)}
	return nil
}

// Observation is what one node of the DHT says about our own address (BEP 42). It may lie.
type Observation struct {
	By   netip.AddrPort // who says so
	Seen netip.AddrPort // what it says our datagrams come from
	At   time.Time
}

// maxObservations is how many observations are kept, each of another prefix.
const maxObservations = 64

// special lists what IANA reserves of the address space that netip does not know as such.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
}

// public says whether a is an address of a single host on the internet.
func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && a.Zone() == "" &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// prefix is the block of addresses that a belongs to: hosts in one block may be one person's.
func prefix(a netip.Addr) netip.Prefix {
	bits := 16
	if a.Is6() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// site is the block of addresses that one subscriber has.
func site(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// family is 0 for IPv4, 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// distance is the distance of two places in the DHT; smaller is nearer.
func distance(a, b [20]byte) (d [20]byte) {
	for i := range d {
		d[i] = a[i] ^ b[i]
	}
	return d
}
