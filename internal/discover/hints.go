package discover

import (
	"net/netip"
	"time"
)

const (
	hintTries   = 3 // of one address in hintWindow
	hintGap     = 10 * time.Second
	hintWindow  = 10 * time.Minute
	maxHints    = 1024
	maxHostHint = 16 // addresses of one host in hintWindow
)

// hints limits how often an address is told to the owner, so that whoever holds the key cannot make many nodes call a
// victim (spec/70-discover.md#hints). Addresses beyond the table's size are refused until others are 10 min old.
type hints struct {
	addrs map[netip.AddrPort]*hint
	hosts map[netip.Prefix]int
	swept time.Time
}

type hint struct {
	since, last time.Time
	n           int
}

func (h *hints) forget() {
	h.addrs, h.hosts = map[netip.AddrPort]*hint{}, map[netip.Prefix]int{}
}

// allow reports whether an address may be told once more.
func (h *hints) allow(now time.Time, a netip.AddrPort) bool {
	t := h.addrs[a]
	if t == nil || now.Sub(t.since) >= hintWindow {
		if t != nil {
			h.drop(a)
		}
		if h.full(a) && now.Sub(h.swept) >= time.Second {
			h.sweep(now)
		}
		if h.full(a) {
			return false
		}
		t = &hint{since: now}
		h.addrs[a] = t
		h.hosts[host(a)]++
	}
	if t.n >= hintTries || t.n > 0 && now.Sub(t.last) < hintGap {
		return false
	}
	t.last = now
	t.n++
	return true
}

func (h *hints) full(a netip.AddrPort) bool {
	return len(h.addrs) >= maxHints || h.hosts[host(a)] >= maxHostHint
}

// sweep forgets what is old.
func (h *hints) sweep(now time.Time) {
	h.swept = now
	for a, t := range h.addrs {
		if now.Sub(t.since) >= hintWindow {
			h.drop(a)
		}
	}
}

func (h *hints) drop(a netip.AddrPort) {
	delete(h.addrs, a)
	if p := host(a); h.hosts[p] > 1 {
		h.hosts[p]--
	} else {
		delete(h.hosts, p)
	}
}

// host is the IPv4 address, or the /64 of IPv6, as which one machine or site counts.
func host(a netip.AddrPort) netip.Prefix {
	bits := 32
	if a.Addr().Is6() {
		bits = 64
	}
	p, _ := a.Addr().WithZone("").Prefix(bits)
	return p
}
