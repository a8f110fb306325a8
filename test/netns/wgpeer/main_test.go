//go:build linux

package main

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	c, err := parse(strings.NewReader(`
# a phone
[Interface]
PrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
Address = 100.64.9.9/32, fd12::9/128
MTU = 1280

[Peer]
PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI= # home
AllowedIPs = 100.64.0.7, fd12::7/128
Endpoint = 192.0.2.1:48271
PersistentKeepalive = 25
`))
	if err != nil {
		t.Fatal(err)
	}
	want := "private_key=" + strings.Repeat("01", 32) + "\npublic_key=" + strings.Repeat("02", 32) +
		"\nallowed_ip=100.64.0.7/32\nallowed_ip=fd12::7/128\nendpoint=192.0.2.1:48271\npersistent_keepalive_interval=25\n"
	if got := c.uapi.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if len(c.addresses) != 2 || len(c.routes) != 2 || c.mtu != 1280 {
		t.Errorf("addresses %v, routes %v, MTU %d", c.addresses, c.routes, c.mtu)
	}
	for _, bad := range []string{"[Peer]\nFoo = 1\n", "[Interface]\nAddress = x\n", "[Interface]\nPrivateKey\n"} {
		if _, err := parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
