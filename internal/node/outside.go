package node

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/discover"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/nat"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/portmap"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	rotateFirst = 3 * time.Second // before a node with the right makes a new discovery key; the others leave it the time
	rotateNext  = 10 * time.Second
	maxGuess    = 4 // members for whom an address that may be anybody's is tried
)

// settleOutside lets the NAT engine see the time and draws the consequences of what it found.
func (n *Node) settleOutside(now time.Time) (next time.Time) {
	next = n.nat.Tick(now)
	for _, e := range n.nat.Effects() {
		switch c := e.(type) {
		case nat.AskServer:
			if !n.masks.hide {
				n.plane.SendRaw(c.To, c.Data, nil)
			}
		case nat.Changed:
			n.log.Debug("seen from outside", "v4", c.V4.Class, "v6", c.V6.Class, "addresses", c.Addresses, "candidates", len(c.Candidates))
			for _, w := range n.networks {
				if w.mesh != nil {
					w.mesh.path.SetOwn(now, c.V4, c.V6, c.Candidates)
					w.mesh.infoSoon(now)
				}
			}
			for j := range n.joins {
				j.tellOwn(now)
			}
		}
	}
	return next
}

// findServers looks the hosts of STUN up, if the owner of this machine named some, and has them asked.
func (n *Node) findServers() {
	hosts := strings.Fields(n.opt.Config.Daemon.STUN)
	if len(hosts) == 0 {
		return
	}
	n.wg.Go(func() { // ends with ctx, or when the resolver gives up
		var addrs []netip.AddrPort
		for _, h := range hosts {
			found, err := resolve(n.ctx, h)
			if err != nil && n.ctx.Err() == nil {
				n.log.Warn("server of STUN not found", "host", h, "err", err)
			}
			addrs = append(addrs, found...)
		}
		_ = n.call(n.ctx, func() { n.nat.SetServers(time.Now(), addrs) }) // an error: the node stops
	})
}

// resolve finds the addresses of host:port, one of each family.
func resolve(ctx context.Context, hostPort string) (out []netip.AddrPort, err error) {
	host, text, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	for _, network := range []string{"ip4", "ip6"} {
		found, e := net.DefaultResolver.LookupNetIP(ctx, network, host)
		if len(found) > 0 {
			out = append(out, netip.AddrPortFrom(found[0].Unmap(), uint16(port)))
		} else {
			err = e
		}
	}
	if len(out) > 0 {
		err = nil
	}
	return out, err
}

// setLocal tells the NAT engine the addresses of the interfaces.
func (n *Node) setLocal(now time.Time) {
	var own []netip.AddrPort
	for _, a := range n.local {
		own = append(own, netip.AddrPortFrom(a, n.socket.Port()))
	}
	n.nat.SetLocal(now, own)
	if n.dht != nil {
		n.dht.SetOwn(n.local)
	}
}

// outer lists the addresses at which this node may be reached from outside, best first, and of what kind they are.
func (n *Node) outer() (addrs []netip.AddrPort, kind discover.Kind) {
	st := n.nat.Status()
	kind = discover.KindOther
	for _, c := range st.Candidates {
		if c.Kind == wire.CandidateMapped {
			kind = discover.KindMapped
		}
	}
	addrs = append(addrs, st.Addresses...)
	for _, a := range n.local {
		if a.IsGlobalUnicast() && !a.IsPrivate() {
			addrs = append(addrs, netip.AddrPortFrom(a, n.socket.Port()))
		}
	}
	for _, c := range st.Candidates { // what one observer saw, as a last resort
		if c.Kind == wire.CandidateExternal && len(addrs) == 0 {
			addrs = append(addrs, c.Addr)
		}
	}
	return append(addrs, st.ByHand...), kind
}

// newFinder begins to look for the members of the network.
func (m *mesh) newFinder(now time.Time) {
	m.finder = m.w.n.newFinder(discover.Config{Self: m.self.Short()}, m.found)
	m.syncFinder(now)
}

// syncFinder tells the finder what the roster says.
func (m *mesh) syncFinder(now time.Time) {
	if m.finder == nil {
		return
	}
	r := m.w.roster
	keys := discover.Keys{Current: discover.Key(r.Discovery)}
	if len(r.DiscoveryOld) > 0 {
		keys.Previous, keys.Since = discover.Key(r.DiscoveryOld[0]), r.DiscoverySince
	}
	m.finder.engine.SetKey(now, keys)
	var open []discover.Invite
	for _, v := range r.Invites {
		if !v.Revoked && v.Left > 0 && now.Before(v.NotAfter) {
			open = append(open, discover.Invite{Key: v.JoinKey, Made: v.Created})
		}
	}
	m.finder.engine.SetInvites(now, open)
	if s := m.w.n.streams; s != nil {
		s.keysAt = now
	}
}

// codesInUse lists the invites by which somebody may join, or has just joined and may have to ask again.
func (w *network) codesInUse(now time.Time) (list []member.Invite) {
	r := w.roster
	for _, v := range r.Invites {
		using := func(m member.Member) bool { return m.Via.Invite == v.ID && now.Sub(m.Joined) < newMember } // its answer may be lost
		waiting := func(p member.Pending) bool { return p.Via.Invite == v.ID }
		if !v.Revoked && now.Before(v.NotAfter) && (v.Left > 0 || slices.ContainsFunc(r.Members, using) || slices.ContainsFunc(r.Pending, waiting)) {
			list = append(list, v)
		}
	}
	return list
}

// tendFinder tells the finder who is there, about once a second.
func (m *mesh) tendFinder(now time.Time) {
	if m.finder == nil {
		return
	}
	links, members := 0, 0
	for _, p := range m.peers {
		if p.device {
			continue
		}
		members++
		if p.talks {
			links++
		}
	}
	e := m.finder.engine
	e.SetLinks(now, links, members)
	addrs, kind := m.w.n.outer()
	if m.anchor {
		kind = discover.KindAnchor
	}
	e.SetOwn(now, addrs, kind)
	if now.Before(m.mapAt) {
		return
	}
	m.mapAt = now.Add(30 * time.Second)
	var nodes []discover.Node
	for _, nd := range m.routing.Map().Nodes {
		if mem, ok := m.w.roster.ByID(nd.ID); ok && nd.Known && (nd.Reached || nd.ID == m.self) {
			nodes = append(nodes, discover.Node{ID: nd.ID.Short(), Anchor: nd.Anchor, Addrs: mem.Endpoints})
		}
	}
	e.SetMap(now, nodes)
}

// found tries an address that the finder found.
func (m *mesh) found(now time.Time, f discover.Found) {
	if f.Kind == discover.KindNewcomer { // behind a NAT, which lets in who was sent something
		for _, to := range f.Addrs {
			if list := m.w.ownMasks(); len(list) > 0 {
				m.w.n.plane.SendRaw(to, nil, list[0])
			} else {
				m.w.n.plane.SendRaw(to, []byte{0}, nil)
			}
		}
		return
	}
	if f.ID == (key.ShortID{}) {
		m.guess(now, f.Addrs)
		return
	}
	p := m.byShort[f.ID]
	if p == nil || p.talks && p.direct {
		return
	}
	m.path.SetCandidates(now, p.id, path.SourceHint, f.Addrs)
	m.call(now, p)
}

// guess tries addresses at which some member may be, for a few of those whom this node does not reach, by chance.
func (m *mesh) guess(now time.Time, addrs []netip.AddrPort) {
	left := maxGuess
	for _, p := range m.peers { // in any order
		if left == 0 {
			return
		}
		if !p.device && !p.talks {
			left--
			m.path.SetCandidates(now, p.id, path.SourceHint, addrs)
			m.call(now, p)
		}
	}
}

// rotate makes a new discovery key when somebody was put out who knows the old one. Of several that may, the one that comes first
// by chance does it (spec/21-roster.md#discovery).
func (m *mesh) rotate(now time.Time) {
	w := m.w
	if !w.roster.Uncovered || !w.roster.Rights(m.self).Has(wire.RightRevoke) {
		m.rotateAt = time.Time{}
		return
	}
	if m.rotateAt.IsZero() {
		m.rotateAt = now.Add(rotateFirst + time.Duration(m.self[0])*rotateNext/256)
	}
	if now.Before(m.rotateAt) {
		return
	}
	m.rotateAt = now.Add(time.Minute)
	w.renewDiscovery(now)
}

// renewDiscovery makes a new discovery key if one is due and this node may.
func (w *network) renewDiscovery(now time.Time) {
	for w.roster.Uncovered && w.roster.Rights(w.keys.Identity.NodeID()).Has(wire.RightRevoke) {
		rec, err := w.set.NewRendezvous(w.keys.Identity, now)
		if err == nil {
			err = w.publish(now, rec)
		}
		if err != nil {
			w.log.Warn("discovery key not changed, trying again", "err", err)
			return
		}
	}
}

// look begins to search for an introducer, for a newcomer.
func (j *joining) look(now time.Time) {
	if j.n.dht == nil && j.n.beacons == nil {
		return
	}
	j.finder = j.n.newFinder(discover.Config{Self: j.keys.Identity.NodeID().Short()}, func(now time.Time, f discover.Found) {
		for _, to := range f.Addrs {
			j.engine.Hint(now, to)
		}
	})
	j.finder.engine.SetJoin(now, j.code.Seed.JoinKey())
	j.tellOwn(now)
}

// tellOwn states where the newcomer can be answered.
func (j *joining) tellOwn(now time.Time) {
	if j.finder != nil {
		addrs, _ := j.n.outer()
		j.finder.engine.SetOwn(now, addrs, discover.KindNewcomer)
	}
}

// mapPort has the router pass our port on, until the node stops.
func (n *Node) mapPort() {
	if !n.opt.Config.Daemon.PortMapping || n.sys.Gateway == nil {
		return
	}
	n.mapper = portmap.New(portmap.Config{Port: n.socket.Port(), Log: n.log,
		Gateway: func() (netip.Addr, error) { return n.sys.Gateway(n.ours) }})
	n.wg.Go(func() { // ends with ctx, after the mapping is removed
		n.mapper.Run(n.ctx, func(m portmap.Mapping) {
			_ = n.call(n.ctx, func() { // an error: the node stops
				var outer []netip.AddrPort
				if m.Public {
					outer = append(outer, m.External)
				}
				n.log.Info("the router passes our port on", "outside", m.External, "by", m.Protocol)
				n.nat.SetMapped(time.Now(), outer)
			})
		})
	})
}
