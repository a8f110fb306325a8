package main

import (
	"context"

	"github.com/warren-vpn/warren/internal/api"
)

// Doctor finds a strict NAT, and in the village a member that cannot be reached.
func (d *fakeDaemon) Doctor(_ context.Context, network string) (api.Doctor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if network != "" {
		if _, err := d.network(network); err != nil {
			return api.Doctor{}, err
		}
	}
	out := api.Doctor{PID: 42, Findings: api.List[api.Finding]{{Name: "udp", State: api.FindingOK, Text: "UDP gets out, and answers come back"}}}
	for _, n := range d.networks {
		if n.Name == "village" {
			out.Findings = append(out.Findings,
				api.Finding{Name: "ipv4", State: api.FindingWarn, Text: "behind a NAT that gives each destination another port",
					Remedy: "forward UDP port 41641 to this machine on its router"},
				api.Finding{Name: "peer", State: api.FindingBad, Text: "village: finn\x1b[31m cannot be reached: no path can exist",
					Remedy: "one thing is enough: forward UDP port 41641 to this machine on its router; or any third member that both can reach"})
			out.Hosts = api.List[api.Host]{{Host: "dht.example:6881", Asked: true}, {Host: "router.example:6881"}}
		}
	}
	return out, nil
}
