package host

import (
	"net/netip"
	"testing"
)

func TestGatewayOfTheBestDefaultRoute(t *testing.T) {
	route := func(iface, dst, via string, metric int) hostRoute {
		r := hostRoute{iface: iface, dst: netip.MustParsePrefix(dst), metric: metric}
		if via != "" {
			r.via = netip.MustParseAddr(via)
		}
		return r
	}
	routes := []hostRoute{
		route("eth0", "192.168.1.0/24", "", 0), route("vpn0", "0.0.0.0/0", "", 0), route("vpn0", "0.0.0.0/1", "10.0.0.1", 0), route("eth0", "::/0", "fe80::1", 0),
		route("warren0", "0.0.0.0/0", "100.64.0.9", 1), route("wlan0", "0.0.0.0/0", "192.168.2.1", 600), route("eth0", "0.0.0.0/0", "192.168.1.1", 100),
	}
	if got, err := gateway(routes, ours); err != nil || got != netip.MustParseAddr("192.168.1.1") {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := gateway(routes[:5], ours); err == nil {
		t.Errorf("without a router: %s", got)
	}
	if got, err := gateway(routes, nil); err != nil || got != netip.MustParseAddr("100.64.0.9") {
		t.Errorf("nothing ignored: %s, %v", got, err)
	}
}
