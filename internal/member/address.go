package member

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/warren-vpn/warren/internal/key"
)

// hashTries is the number of candidates that are hashed before the pool is searched in order.
const hashTries = 64

// Prefix6 returns the IPv6 prefix of a network, a /48 out of fd00::/8 (spec/10-identity.md#ipv6).
func Prefix6(network key.NetworkID) netip.Prefix {
	sum := labelled("warren ula v1", network[:])
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], sum[:5])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// Address6 returns the IPv6 address of a member or device: anyone can verify it (spec/10-identity.md#ipv6).
func Address6(network key.NetworkID, id key.NodeID) netip.Addr {
	a := Prefix6(network).Addr().As16()
	sum := labelled("warren iid v1", network[:], id[:])
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

func labelled(label string, parts ...[]byte) [32]byte {
	b := []byte(label)
	for _, p := range parts {
		b = append(b, p...)
	}
	return sha256.Sum256(b)
}

// pool hands out the IPv4 addresses of one network. Its first and last address are nobody's.
type pool struct {
	network key.NetworkID
	prefix  netip.Prefix
	base    uint32
	hosts   uint32 // usable addresses: base+1 to base+hosts
}

func newPool(network key.NetworkID, prefix netip.Prefix) pool {
	b := prefix.Addr().As4()
	return pool{network: network, prefix: prefix, base: binary.BigEndian.Uint32(b[:]), hosts: 1<<(32-prefix.Bits()) - 2}
}

func (p pool) at(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, p.base+1+n)))
}

// usable reports whether a is an address that a member can have.
func (p pool) usable(a netip.Addr) bool {
	return p.prefix.Contains(a) && a != p.prefix.Addr() && a != p.at(p.hosts)
}

// candidate returns the i-th address that id tries for (spec/10-identity.md#ipv4).
func (p pool) candidate(id key.NodeID, i uint32) netip.Addr { return p.at(p.offset(id, i)) }

func (p pool) offset(id key.NodeID, i uint32) uint32 {
	sum := labelled("warren ipv4 v1", p.network[:], id[:], binary.BigEndian.AppendUint32(nil, i))
	return uint32(binary.BigEndian.Uint64(sum[:8]) % uint64(p.hosts))
}

// free returns the first candidate of id that is not taken: hashed ones, then those after the last of them in order. All
// keys of taken are usable addresses. ok is false when the pool is full.
func (p pool) free(id key.NodeID, taken map[netip.Addr]bool) (a netip.Addr, ok bool) {
	if uint64(len(taken)) >= uint64(p.hosts) {
		return netip.Addr{}, false
	}
	for i := range uint32(hashTries) {
		if a = p.candidate(id, i); !taken[a] {
			return a, true
		}
	}
	for n := p.offset(id, hashTries-1); ; n = (n + 1) % p.hosts {
		if a = p.at(n); !taken[a] {
			return a, true
		}
	}
}

// encodePool turns a pool into its form in a genesis record: 4 address bytes and the prefix length.
func encodePool(p netip.Prefix) ([]byte, error) {
	if !p.Addr().Is4() {
		return nil, fmt.Errorf("pool %v: IPv4 is wanted: %w", p, ErrBadValue)
	}
	b := append(p.Addr().AsSlice(), byte(p.Bits()))
	if _, err := parsePool(b); err != nil {
		return nil, err
	}
	return b, nil
}

// parsePool reads the pool of a genesis record: /8 to /30, no bits set after the prefix, addresses that hosts can have.
func parsePool(b []byte) (netip.Prefix, error) {
	if len(b) != 5 || b[4] < 8 || b[4] > 30 {
		return netip.Prefix{}, fmt.Errorf("pool: a prefix from /8 to /30 is wanted: %w", ErrBadValue)
	}
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), int(b[4]))
	switch a := p.Addr(); {
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("pool %v: the prefix is %v: %w", p, p.Masked(), ErrBadValue)
	case b[0] == 0 || b[0] >= 224 || a.IsLoopback() || a.IsLinkLocalUnicast():
		return netip.Prefix{}, fmt.Errorf("pool %v: not for hosts: %w", p, ErrBadValue)
	}
	return p, nil
}
