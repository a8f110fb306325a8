package node

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/route"
)

// Status implements api.Backend.
func (n *Node) Status(ctx context.Context) (st api.Status, err error) {
	err = n.do(ctx, func() error { st = n.describe(time.Now()); return nil })
	return st, err
}

// describe says what the node is and does.
func (n *Node) describe(now time.Time) api.Status {
	st := api.Status{Version: n.opt.Version, PID: os.Getpid(), StateDir: n.dir.Path(), Port: n.socket.Port(),
		Uptime: int64(now.Sub(n.started) / time.Second), Offloads: n.offloads(), Drops: n.drops()}
	for _, k := range slices.Sorted(maps.Keys(n.warnings)) {
		st.Warnings = append(st.Warnings, n.warnings[k])
	}
	for _, w := range n.sorted() {
		st.Networks = append(st.Networks, w.describe(now))
	}
	return st
}

// drops counts what was thrown away, by reason.
func (n *Node) drops() map[string]uint64 {
	all := n.plane.Drops()
	if lost := n.socket.Overflow(); lost > 0 {
		all["socket_overflow"] = lost
	}
	return all
}

// offloads names what the kernel does for us.
func (n *Node) offloads() (out []string) {
	for _, o := range n.socket.Offloads() {
		out = append(out, "udp-"+o)
	}
	for _, w := range n.sorted() {
		if w.mesh != nil {
			for _, o := range w.mesh.tunnel.Offloads() {
				if o = "tun-" + o; !slices.Contains(out, o) {
					out = append(out, o)
				}
			}
		}
	}
	return out
}

// describe says how this node sees one network.
func (w *network) describe(now time.Time) api.Network { return w.view(now).Status() }

// view takes a snapshot of the network for package report.
func (w *network) view(now time.Time) *report.Network {
	v := &report.Network{Now: now, Name: w.name(), ID: w.id, Self: w.keys.Identity.NodeID(), Key: w.keys.WG.Public(), Roster: w.roster,
		MTU: w.n.opt.Config.Network(w.name()).MTU, Up: w.settings.Up, Why: w.why, Joining: w.pending != nil, Wanted: w.settings.WantedName}
	if w.mesh != nil {
		v.Mesh = w.mesh.view(now)
	}
	return v
}

func (m *mesh) view(now time.Time) *report.Mesh {
	st := m.plane.RelayStats()
	v := &report.Mesh{Interface: m.tunnel.Name(), MTU: m.mtu, Begun: m.begun, Port: m.w.n.socket.Port(), NAT: m.w.n.nat.Status().V4.Class,
		NoIPv4: !slices.ContainsFunc(m.w.n.local, netip.Addr.Is4), Carried: report.Carried(m.w.n.local),
		Leaf: m.leaf, Anchor: m.anchor, Transit: m.own.Transit, Metered: m.metered(), MeteredBy: m.own.Metered, Overloaded: now.Before(m.overloadUntil),
		Relayed: report.Traffic{Packets: st.Packets, Bytes: st.Bytes, Dropped: st.Dropped},
		Peers:   make(map[key.NodeID]report.Peer, len(m.peers)), At: m.w.n.shown,
		Whole: func(id key.ShortID) (key.NodeID, bool) {
			if p := m.byShort[id]; p != nil {
				return p.id, true
			}
			return key.NodeID{}, false
		}}
	for _, p := range m.peers {
		x := report.Peer{Name: p.name, Device: p.device, Kept: p.linked, Link: p.link, Talks: p.talks, CalledUs: p.calledUs, Said: p.said, Ahead: p.ahead,
			RxBytes: p.session.RxBytes(), TxBytes: p.session.TxBytes(), Received: p.session.LastReceived(), Handshake: p.session.LastHandshake(),
			Path: m.path.Status(p.id)}
		if !p.talks && !p.device {
			x.Routes = m.routing.Explain(now, p.id).Routes
		}
		v.Peers[p.id] = x
	}
	return v
}

// withMesh runs f in the control loop for the network that ref names, which must be up.
func (n *Node) withMesh(ctx context.Context, ref string, f func(m *mesh) error) error {
	return n.with(ctx, ref, func(w *network) error {
		if w.mesh == nil {
			return api.Errorf(api.CodeNetworkDown, "the network %q is down", w.name()).Hintf("bring it up: warren up %s", w.name())
		}
		return f(w.mesh)
	})
}

// Route implements api.Backend.
func (n *Node) Route(ctx context.Context, r api.MemberRequest) (out api.RouteReply, err error) {
	err = n.withMesh(ctx, r.Network, func(m *mesh) error {
		mem, err := m.w.roster.Find(r.Member)
		if err != nil {
			return err
		}
		now := time.Now()
		var ex route.Explanation
		if p := m.peers[mem.ID]; p != nil && !p.device {
			ex = m.routing.Explain(now, p.id)
		}
		out = m.w.view(now).Route(mem, ex, m.chart())
		return nil
	})
	return out, err
}

// chart is what the routing engine knows.
func (m *mesh) chart() report.Map {
	return report.Map{Chart: m.routing.Map(), Links: m.routing.Links()}
}

// Map implements api.Backend.
func (n *Node) Map(ctx context.Context, ref string) (out api.MapReply, err error) {
	err = n.withMesh(ctx, ref, func(m *mesh) error {
		out = m.w.view(time.Now()).Map(m.chart())
		return nil
	})
	return out, err
}

// Policy implements api.Backend.
func (n *Node) Policy(ctx context.Context, ref string) (out api.Policy, err error) {
	err = n.with(ctx, ref, func(w *network) error { out = report.Policy(w.name(), w.roster); return nil })
	return out, err
}

// SetPolicy implements api.Backend.
func (n *Node) SetPolicy(ctx context.Context, r api.PolicyRequest) (out api.Policy, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		p, err := member.PolicyWords(r.Setting, r.Value)
		if err != nil {
			return err
		}
		now := time.Now()
		rec, err := w.set.SetPolicy(w.keys.Identity, now, p)
		if err == nil {
			err = w.publish(now, rec)
		}
		if err != nil && !errors.Is(err, member.ErrUnchanged) {
			return err
		}
		out = report.Policy(w.name(), w.roster)
		return nil
	})
	return out, err
}

// Invites implements api.Backend.
func (n *Node) Invites(ctx context.Context, ref string) (out api.Invites, err error) {
	err = n.with(ctx, ref, func(w *network) error { out = report.Invites(time.Now(), w.name(), w.roster); return nil })
	return out, err
}

// Members implements api.Backend.
func (n *Node) Members(ctx context.Context, ref string) (out api.Members, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		out = report.Members(w.name(), w.id, w.keys.Identity.NodeID(), w.roster)
		return nil
	})
	return out, err
}

func (w *network) member(m member.Member) api.Member {
	return report.Member(w.roster, w.keys.Identity.NodeID(), m)
}

// Pending implements api.Backend.
func (n *Node) Pending(ctx context.Context, ref string) (out api.PendingList, err error) {
	err = n.with(ctx, ref, func(w *network) error { out = report.Pending(w.name(), w.roster); return nil })
	return out, err
}

// Admins implements api.Backend.
func (n *Node) Admins(ctx context.Context, ref string) (out api.Admins, err error) {
	err = n.with(ctx, ref, func(w *network) error {
		out = report.Admins(w.name(), w.keys.Identity.NodeID(), w.roster)
		return nil
	})
	return out, err
}
