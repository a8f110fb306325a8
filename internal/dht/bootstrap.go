package dht

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// resolved are the addresses of a bootstrap host.
type resolved struct {
	addrs []netip.AddrPort
	at    time.Time
}

// resolveBootstrap looks up the bootstrap hosts, all at once. Names that do not resolve are left out.
func (c *Client) resolveBootstrap(ctx context.Context) (out []netip.AddrPort) {
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	found := make([][]netip.AddrPort, len(c.cfg.Bootstrap))
	var wg sync.WaitGroup
	for i, entry := range c.cfg.Bootstrap {
		wg.Go(func() { // ends with ctx; waited for below
			found[i] = c.resolve(ctx, entry)
		})
	}
	wg.Wait()
	for _, addrs := range found {
		out = append(out, addrs...)
	}
	return out
}

// resolve looks up one entry, or remembers it. An address needs no look-up.
func (c *Client) resolve(ctx context.Context, entry string) (out []netip.AddrPort) {
	c.mu.Lock()
	have, ok := c.bootstraps[entry]
	c.mu.Unlock()
	if ok && len(have.addrs) > 0 && time.Since(have.at) < resolveAgain {
		return have.addrs
	}
	if ap, err := netip.ParseAddrPort(entry); err == nil {
		out = []netip.AddrPort{unmap(ap)}
	} else if host, port, err := net.SplitHostPort(entry); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil
		}
		addrs, err := c.cfg.Resolve(ctx, host)
		if err != nil {
			c.log.Debug("cannot look up a bootstrap host of the DHT", "host", host, "err", err)
		}
		for _, a := range addrs[:min(len(addrs), maxPerHostname)] {
			if ap := netip.AddrPortFrom(a.Unmap(), uint16(n)); c.cfg.Local || public(ap.Addr()) {
				out = append(out, ap)
			}
		}
	}
	c.mu.Lock()
	c.bootstraps[entry] = resolved{out, time.Now()}
	c.mu.Unlock()
	return out
}
