package udp

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A link-local address comes with the name of its interface, and is sent to by that name; of all others nothing is asked, and of
// names and numbers that do not exist little is kept.
func TestZonesOfLinkLocalAddresses(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skipf("this machine has no interface lo: %v", err)
	}
	var z zones
	var raw unix.RawSockaddrInet6
	for text, number := range map[string]int{"[fe80::1%lo]:7": lo.Index, "[fe80::1]:7": 0, "[2001:db8::1]:7": 0, "192.0.2.1:7": 0} {
		at := netip.MustParseAddrPort(text)
		if writeAddr(&raw, at, true, &z); raw.Scope_id != uint32(number) {
			t.Errorf("%s goes out by interface %d, want %d", text, raw.Scope_id, number)
		}
		if got := readAddr(&raw, &z); got != at {
			t.Errorf("%s is read as %v", text, got)
		}
	}
	for text, number := range map[string]uint32{"2001:db8::1": uint32(lo.Index), "169.254.1.1": uint32(lo.Index), "fe80::1": 1 << 30} {
		if a := netip.MustParseAddr(text); z.with(a, number) != a {
			t.Errorf("%s by interface %d is %v", text, number, z.with(a, number))
		}
	}
	for i := range 10 * maxZones {
		z.number(netip.MustParseAddr(fmt.Sprintf("fe80::1%%none%d", i)))
		z.with(netip.MustParseAddr("fe80::1"), uint32(1<<20+i))
	}
	if len(z.numbers) > maxZones || len(z.names) > maxZones {
		t.Errorf("%d names and %d numbers are kept", len(z.numbers), len(z.names))
	}
	if z.number(netip.MustParseAddr("fe80::1%lo")) != uint32(lo.Index) {
		t.Error("after many that do not exist, lo is not found")
	}
}
