//go:build !linux

package host

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// readAddrs lists the addresses of all interfaces. These systems do not tell us which are temporary.
func readAddrs() ([]hostAddr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []hostAddr
	for _, i := range interfaces {
		list, err := i.Addrs()
		if err != nil {
			continue // it went away
		}
		const flags = net.FlagUp | net.FlagRunning
		live := i.Flags&flags == flags && i.Flags&net.FlagLoopback == 0
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, hostAddr{iface: i.Name, prefix: p, index: i.Index, live: live})
			}
		}
	}
	return out, nil
}

// signs has no source here: the system is looked at every 10 seconds.
func signs(context.Context) (wake <-chan struct{}, poll time.Duration, wait func(), err error) {
	return nil, 10 * time.Second, func() {}, nil
}
