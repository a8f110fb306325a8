package portmap

import (
	"net/netip"
	"slices"
	"time"
)

// epoch is what a router said of its age, and when.
type epoch struct {
	seconds uint32
	at      time.Time
}

// lost reports whether a router that said e has lost its state, now that it says next (RFC 6887, 8.5).
func (e epoch) lost(next epoch) bool {
	if next.seconds+1 < e.seconds { // answers may overtake each other
		return true
	}
	ours := int64(next.at.Sub(e.at) / time.Second)
	theirs := int64(next.seconds) - int64(e.seconds)
	return ours+2 < theirs-theirs/16 || theirs+2 < ours-ours/16
}

// notOutside lists where no host on the internet is.
var notOutside = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// public reports whether a can be an address on the internet.
func public(a netip.Addr) bool {
	return a.Is4() && !slices.ContainsFunc(notOutside, func(p netip.Prefix) bool { return p.Contains(a) })
}
