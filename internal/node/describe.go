package node

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
)

// Status implements api.Backend.
func (n *Node) Status(ctx context.Context) (st api.Status, err error) {
	err = n.do(ctx, func() error { st = n.describe(time.Now()); return nil })
	return st, err
}

// describe says what the node is and does.
func (n *Node) describe(now time.Time) api.Status {
	st := api.Status{Version: n.opt.Version, PID: os.Getpid(), StateDir: n.dir.Path(), Port: n.socket.Port(),
		Uptime: int64(now.Sub(n.started) / time.Second), Offloads: n.offloads(), Drops: n.plane.Drops()}
	if lost := n.socket.Overflow(); lost > 0 {
		st.Drops["socket_overflow"] = lost
	}
	for _, k := range slices.Sorted(maps.Keys(n.warnings)) {
		st.Warnings = append(st.Warnings, n.warnings[k])
	}
	for _, w := range n.sorted() {
		st.Networks = append(st.Networks, w.describe(now))
	}
	return st
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
func (w *network) describe(now time.Time) api.Network {
	r := w.roster
	out := api.Network{Name: w.name(), ID: w.id.String(), State: api.StateDown, Why: w.why, Pool: r.Pool, Prefix6: r.Prefix6,
		Created: api.At(r.Created), Members: len(r.Members), Pending: len(r.Pending), MTU: w.n.opt.Config.Network(w.name()).MTU}
	switch {
	case w.pending != nil:
		out.State, out.Why = api.StatePending, "an admin must approve this node: warren approve "+w.settings.WantedName
	case w.mesh != nil:
		out.State, out.Interface = api.StateUp, w.mesh.tunnel.Name()
	case w.why == "" && !w.settings.Up:
		out.Why = "put down by a user: warren up brings it up again"
	}
	if self, ok := w.self(); ok {
		out.Self = api.Self{Name: self.Name, ID: self.ID.String(), Addresses: addresses(self), PublicKey: wgText(w.keys.WG.Public()),
			Admin: self.Rights != 0, Rights: self.Rights.Names(), Groups: self.Groups, Endpoints: self.Endpoints}
	} else {
		out.Self = api.Self{Name: w.lostName(), ID: w.keys.Identity.NodeID().String(), PublicKey: wgText(w.keys.WG.Public())}
	}
	for _, m := range r.Members {
		if m.ID != w.keys.Identity.NodeID() {
			out.Peers = append(out.Peers, w.describePeer(m))
		}
	}
	return out
}

func (w *network) describePeer(m member.Member) api.Peer {
	out := api.Peer{Name: m.Name, ID: m.ID.String(), Addresses: addresses(m), PublicKey: wgText(m.WG), Device: m.Device,
		Admin: m.Rights != 0, Groups: m.Groups, Path: api.PathNone, Version: m.Info.Version}
	if w.mesh == nil {
		out.Why = "the network is down here"
		return out
	}
	p := w.mesh.peers[m.ID]
	if p == nil {
		switch {
		case m.WG.IsZero():
			out.Why = "it has not said its WireGuard key yet"
		case m.Device:
			out.Why = fmt.Sprintf("a device of %v, which alone serves it", w.namesOf(m.Gateways))
		}
		return out
	}
	st := w.mesh.path.Status(p.id)
	out.RxBytes, out.TxBytes = p.session.RxBytes(), p.session.TxBytes()
	out.LastSeen, out.LastHandshake = fromNanos(p.session.LastReceived()), fromNanos(p.session.LastHandshake())
	switch {
	case p.talks:
		out.Path, out.Endpoint, out.RTT, out.MTU = api.PathDirect, st.Endpoint, api.Millis(st.RTT), st.MTU
	case p.device:
		out.Why = "not heard from yet, or not lately"
	case len(st.Candidates) == 0 && len(m.Endpoints) == 0:
		out.Why = "no address of it is known"
	case !p.linked:
		out.Why = "not in use: a session is made when something is sent"
	default:
		out.Why = "none of its addresses answers: " + candidateText(st)
	}
	return out
}

func candidateText(st path.Status) string {
	var aps []netip.AddrPort
	for _, c := range st.Candidates {
		aps = append(aps, c.Addr)
	}
	if len(aps) == 0 {
		return "none tried yet"
	}
	return joinAddrs(aps[:min(len(aps), 3)])
}

// lostName is what to call this node while it has no place in the roster.
func (w *network) lostName() string {
	if w.settings.WantedName != "" {
		return w.settings.WantedName
	}
	return w.keys.Identity.NodeID().Short().String()
}

// fromNanos turns Unix nanoseconds, 0 for never, into a time.
func fromNanos(ns int64) api.Time {
	if ns == 0 {
		return api.Time{}
	}
	return api.At(time.Unix(0, ns))
}
