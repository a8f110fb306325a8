package host

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Configure gives iface exactly the addresses addrs and the MTU mtu (bytes). It makes no routes: call [SyncRoutes]
// after it.
func Configure(iface string, addrs []netip.Prefix, mtu int) error {
	have, err := interfacePrefixes(iface)
	if err != nil {
		return fmt.Errorf("configure %s: %w", iface, err)
	}
	var commands []command
	for _, family := range []string{"ipv4", "ipv6"} {
		commands = append(commands, command{"set the MTU", netsh(family, "set", "subinterface", iface, "mtu="+strconv.Itoa(mtu), "store=active")})
	}
	for _, p := range difference(have, addrs) {
		commands = append(commands, command{"remove an address", netsh(family(p), "delete", "address", iface, p.Addr().String(), "store=active")})
	}
	for _, p := range difference(addrs, have) {
		argv := netsh("ipv6", "add", "address", iface, p.String(), "store=active")
		if p.Addr().Is4() {
			mask := net.IP(net.CIDRMask(p.Bits(), 32)).String()
			argv = netsh("ipv4", "add", "address", iface, p.Addr().String(), mask, "store=active")
		}
		commands = append(commands, command{"add an address", argv})
	}
	if err := runAll(commands); err != nil {
		return fmt.Errorf("configure %s: %w", iface, err)
	}
	return nil
}

func netsh(args ...string) []string { return append([]string{"netsh", "interface"}, args...) }

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// SyncRoutes makes the routes through iface that are set by hand, as netsh does, exactly want.
func SyncRoutes(iface string, want []netip.Prefix) error {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	var have []netip.Prefix
	err = eachRoute(func(r *windows.MibIpForwardRow2, dst netip.Prefix, _ netip.Addr) {
		if int(r.InterfaceIndex) == i.Index && r.Protocol == windows.MIB_IPPROTO_NETMGMT {
			have = append(have, dst)
		}
	})
	if err != nil {
		return fmt.Errorf("list the routes of %s: %w", iface, err)
	}
	want = masked(want)
	var commands []command
	for _, p := range difference(have, want) {
		commands = append(commands, command{"remove a route", netsh(family(p), "delete", "route", p.String(), iface, "store=active")})
	}
	for _, p := range difference(want, have) {
		commands = append(commands, command{"add a route", netsh(family(p), "add", "route", p.String(), iface, "store=active")})
	}
	if err := runAll(commands); err != nil {
		return fmt.Errorf("set the routes of %s: %w", iface, err)
	}
	return nil
}

// readRoutes lists the unicast routes, without those of single addresses of our own and of broadcasts.
func readRoutes() ([]hostRoute, error) {
	names := map[int]string{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		names[i.Index] = i.Name
	}
	var out []hostRoute
	err = eachRoute(func(r *windows.MibIpForwardRow2, dst netip.Prefix, via netip.Addr) {
		if r.Loopback == 0 && !dst.IsSingleIP() && !dst.Addr().IsLoopback() && !dst.Addr().IsLinkLocalUnicast() && !dst.Addr().IsMulticast() {
			out = append(out, hostRoute{iface: names[int(r.InterfaceIndex)], dst: dst, via: via, metric: int(r.Metric)})
		}
	})
	return out, err
}

// eachRoute calls f for all routes of the machine. The row is valid during the call alone.
func eachRoute(f func(r *windows.MibIpForwardRow2, dst netip.Prefix, via netip.Addr)) error {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_UNSPEC, &table); err != nil {
		return err
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	rows := table.Rows()
	for i := range rows {
		addr := sockAddr(rows[i].DestinationPrefix.Prefix)
		dst, err := addr.Prefix(int(rows[i].DestinationPrefix.PrefixLength))
		if err != nil {
			continue
		}
		via := sockAddr(rows[i].NextHop)
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		f(&rows[i], dst, via)
	}
	return nil
}

// sockAddr reads SOCKADDR_INET, whose words are in the machine's order but whose address bytes are as on the wire.
func sockAddr(s windows.RawSockaddrInet) netip.Addr {
	var b [24]byte
	for i, word := range s.Data {
		binary.NativeEndian.PutUint32(b[4*i:], word)
	}
	switch s.Family {
	case windows.AF_INET:
		return netip.AddrFrom4([4]byte(b[:4]))
	case windows.AF_INET6:
		return netip.AddrFrom16([16]byte(b[4:20])) // behind the flow label
	}
	return netip.Addr{}
}

// IsRoot reports whether this process runs with an administrator's elevated rights.
func IsRoot() bool { return windows.GetCurrentProcessToken().IsElevated() }
