package host

import (
	"net/netip"
	"slices"
	"testing"
)

func TestDefaultTunnels(t *testing.T) {
	route := func(iface, dst string) hostRoute { return hostRoute{iface: iface, dst: netip.MustParsePrefix(dst)} }
	got := defaultTunnels([]hostRoute{
		route("eth0", "0.0.0.0/0"), route("eth0", "192.168.1.0/24"), route("ppp0", "0.0.0.0/0"), route("", "0.0.0.0/0"),
		route("wg0", "::/0"), route("wg0", "0.0.0.0/0"), route("tun3", "10.8.0.0/24"), route("tap0", "128.0.0.0/1"), route("warren0", "::/0"),
		route("eth0", "fe80::/10"),
	}, func(i string) bool { return i == "warren0" }, func(i string) bool { return i != "eth0" && i != "tap0" })
	if want := []string{"tap0", "wg0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
