package member

import (
	"slices"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Chain returns the records that show, to someone who knows nothing but the network's id, that nodes are members: their
// member records and node infos, the invites, admins and witnesses behind them, and the genesis first. An empty set accepts
// them in this order. Revocations are not among them.
func (s *Set) Chain(nodes ...key.NodeID) [][]byte {
	c := chain{set: s, eval: s.evaluate(), in: map[*entry]bool{}}
	if s.genesis == nil {
		return nil
	}
	c.add(s.genesis)
	for _, e := range s.kinds[wire.KindMember] {
		if slices.Contains(nodes, e.body.(*wire.Member).Key.NodeID()) {
			c.add(e)
		}
	}
	for c.next < len(c.list) {
		c.next++
		c.needs(c.list[c.next-1])
	}
	var out [][]byte
	for _, e := range s.order {
		if c.in[e] {
			out = append(out, e.rec.Raw)
		}
	}
	for _, e := range c.list {
		m, ok := e.body.(*wire.Member)
		if ok && slices.Contains(nodes, m.Key.NodeID()) && s.infos[m.Key] != nil && !c.in[s.infos[m.Key]] {
			c.in[s.infos[m.Key]] = true
			out = append(out, s.infos[m.Key].rec.Raw)
		}
	}
	return out
}

// chain collects entries; those before next have had their needs added.
type chain struct {
	set  *Set
	eval *evaluation
	in   map[*entry]bool
	list []*entry
	next int
}

func (c *chain) add(e *entry) {
	if e != nil && !c.in[e] {
		c.in[e] = true
		c.list = append(c.list, e)
	}
}

func (c *chain) needs(e *entry) {
	if m, ok := e.body.(*wire.Member); ok && m.Invite != nil {
		c.add(c.set.inviteOf(e, m))
		if a := c.eval.members[*m.Witness]; a != nil {
			c.add(a.rec)
		}
		return
	}
	if a := c.eval.admins[e.signerID]; a != nil {
		for _, g := range a.from {
			c.add(g.rec)
		}
	}
}
