//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// MapProtocol is a way to ask a router for a port.
type MapProtocol string

// The protocols.
const (
	MapPCP    MapProtocol = "PCP"
	MapNATPMP MapProtocol = "NAT-PMP"
	MapUPnP   MapProtocol = "UPnP"
)

// StartMiniUPnPd has the site's router map ports for its hosts, by miniupnpd, which many routers run. Of the protocols, those
// before the named one in the order of the list above are not heard. Without the program it skips the test.
func (s *Site) StartMiniUPnPd(p MapProtocol) {
	t, r := s.net.t, s.Router
	t.Helper()
	binary, err := exec.LookPath("miniupnpd")
	if err != nil {
		if binary = "/usr/sbin/miniupnpd"; exec.Command("test", "-x", binary).Run() != nil {
			t.Skip("network namespaces: need the command miniupnpd (Debian package miniupnpd-nftables)")
		}
	}
	const control = 5351 // of PCP and NAT-PMP
	deaf := map[MapProtocol]string{MapPCP: "", MapNATPMP: fmt.Sprintf("udp dport %d @th,64,8 2 drop", control), MapUPnP: fmt.Sprintf("udp dport %d drop", control)}
	r.NFT(fmt.Sprintf("table ip deaf {\n chain hear {\n  type filter hook input priority 0\n  %s\n }\n}\n", deaf[p]) +
		"table inet igd {\n chain igd {\n }\n chain igdpre {\n }\n chain igdpost {\n }\n" +
		" chain through {\n  type filter hook forward priority -1\n  jump igd\n }\n" +
		" chain before {\n  type nat hook prerouting priority -101\n  jump igdpre\n }\n" +
		" chain after {\n  type nat hook postrouting priority 99\n  jump igdpost\n }\n}\n")
	file := filepath.Join(r.dir, "miniupnpd.conf")
	config := "ext_ifname=eth0\nlistening_ip=eth1\nhttp_port=0\nenable_natpmp=yes\nenable_upnp=yes\nuuid=1b0e0c0a-0000-4000-8000-000000000001\n" +
		"upnp_table_name=igd\nupnp_nat_table_name=igd\nupnp_forward_chain=igd\nupnp_nat_chain=igdpre\nupnp_nat_postrouting_chain=igdpost\n" +
		fmt.Sprintf("allow 1024-65535 %s 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n", s.lan4.Masked())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start(binary, "-d", "-f", file, "-P", filepath.Join(r.dir, "miniupnpd.pid"))
	Eventually(t, 5e9, func() error {
		if out := r.Must("ss", "-lnu"); !strings.Contains(out, fmt.Sprintf(":%d ", control)) {
			return fmt.Errorf("miniupnpd does not listen:\n%s", out)
		}
		return nil
	})
}

// PassedOn lists the rules by which the router passes ports on; miniupnpd made them.
func (s *Site) PassedOn() (rules []string) {
	s.net.t.Helper()
	for line := range strings.Lines(s.Router.Must("nft", "list", "chain", "inet", "igd", "igdpre")) {
		if strings.Contains(line, "dnat") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules
}
