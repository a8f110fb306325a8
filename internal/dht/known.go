package dht

import (
	"bytes"
	"net/netip"
	"slices"
	"time"
)

const (
	maxKnown       = 512 // nodes remembered, both families together
	maxKnownPrefix = 8   // of one prefix, where addresses must be public
	maxFailures    = 2   // in a row, then a node is forgotten
	maxSaved       = 200
)

// known are the nodes that answered before. It is not safe for concurrent use.
type known struct {
	local bool // any address is fine, so prefixes do not count
	nodes map[netip.AddrPort]*knownNode
}

type knownNode struct {
	Node
	last     time.Time // of the last answer; zero: saved by an earlier run
	failures int
}

// good notes an answer. When the table is full, the node that was silent for longest goes.
func (k *known) good(now time.Time, n Node) {
	if have := k.nodes[n.Addr]; have != nil {
		have.ID, have.last, have.failures = n.ID, now, 0
		return
	}
	if !k.local && k.crowded(n.Addr.Addr()) {
		return
	}
	if len(k.nodes) >= maxKnown {
		var oldest *knownNode
		for _, o := range k.nodes {
			if oldest == nil || o.last.Before(oldest.last) {
				oldest = o
			}
		}
		delete(k.nodes, oldest.Addr)
	}
	k.nodes[n.Addr] = &knownNode{Node: n, last: now}
}

func (k *known) crowded(a netip.Addr) bool {
	n, p := 0, prefix(a)
	for addr := range k.nodes {
		if p.Contains(addr.Addr()) {
			n++
		}
	}
	return n >= maxKnownPrefix
}

// failed notes that addr did not answer.
func (k *known) failed(addr netip.AddrPort) {
	if n := k.nodes[addr]; n != nil {
		if n.failures++; n.failures >= maxFailures {
			delete(k.nodes, addr)
		}
	}
}

// nearest lists up to n nodes of a family, those nearest to target first.
func (k *known) nearest(target [20]byte, fam, n int) (out []Node) {
	for _, o := range k.nodes {
		if family(o.Addr.Addr()) == fam {
			out = append(out, o.Node)
		}
	}
	slices.SortFunc(out, func(a, b Node) int {
		da, db := distance(a.ID, target), distance(b.ID, target)
		return bytes.Compare(da[:], db[:])
	})
	return out[:min(n, len(out))]
}

// newest lists the nodes worth saving, those that answered last first.
func (k *known) newest() (out []Node) {
	all := make([]*knownNode, 0, len(k.nodes))
	for _, o := range k.nodes {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *knownNode) int {
		if c := b.last.Compare(a.last); c != 0 {
			return c
		}
		return a.Addr.Compare(b.Addr)
	})
	for _, o := range all[:min(maxSaved, len(all))] {
		out = append(out, o.Node)
	}
	return out
}

func (c *Client) remember(n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.good(time.Now(), n)
}

func (c *Client) forget(silent []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range silent {
		c.known.failed(a)
	}
}
