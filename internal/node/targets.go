package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/stream"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	statedStreams = 4
	codeTargets   = 2   // that a code is given
	webPort       = 443 // where a newcomer looks for streams
)

// state takes the targets that the owner of this machine wishes to be stated.
func (s *streams) state(urls string) {
	for _, text := range strings.Fields(urls) {
		t, err := stream.ParseTarget(text)
		switch {
		case err != nil:
			s.n.log.Warn("a URL is not told to others", "err", err)
			s.n.warnings["tls_urls"] = fmt.Sprintf("daemon.tls_urls: %v", err)
		case len(s.stated) < statedStreams && !slices.Contains(s.stated, t.String()):
			s.stated = append(s.stated, t.String())
		}
	}
}

// statedStreams lists the targets that this node states: what its owner says, else its outer addresses, or its own if it knows of
// none.
func (n *Node) statedStreams() (out []string) {
	if n.streams == nil || !n.streams.serving {
		return nil
	}
	if len(n.streams.stated) > 0 {
		return n.streams.stated
	}
	addrs, _ := n.outer()
	if len(addrs) == 0 {
		addrs = n.localEndpoints()
	}
	for _, a := range addrs {
		t := stream.At(netip.AddrPortFrom(a.Addr(), n.opt.Config.Daemon.TLSPort)).String()
		if len(out) < statedStreams && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// tendJoin opens streams for a newcomer to whom nobody answers by UDP: to what its code names.
func (s *streams) tendJoin(now time.Time, j *joining) {
	w := s.wish(now, &errand{join: j})
	pending := j.network != nil && !j.again
	if now.Sub(w.since) < streamAfter || now.Before(w.next) || pending && !w.got || s.has(func(o *errand) bool { return o.join == j }) > 0 {
		return
	}
	k := j.code.Seed.JoinKey()
	w.next = now.Add(streamFirst)
	for _, t := range j.targets(w.turn%2 == 1) {
		if mayDial(s.n, t) {
			s.dial(t, stream.NewKey(k[:]), &errand{join: j})
		}
	}
	w.turn++
}

// targets lists where a newcomer may open streams: the targets in its code, and the usual port of each address there. web: as
// WebSockets.
func (j *joining) targets(web bool) (out []stream.Target) {
	for _, text := range j.code.Targets {
		if t, err := stream.ParseTarget(text); err == nil {
			out = append(out, t)
		}
	}
	for _, h := range j.code.Hints {
		out = append(out, stream.At(netip.AddrPortFrom(h.Addr(), webPort)))
	}
	for i := range out {
		if out[i].Scheme == "tls" && web {
			out[i].Scheme = "wss"
		}
	}
	return slices.Compact(out)
}

// codeTargets lists what a code with these addresses says of streams: this node's own, else those of members that it talks to,
// but none that a newcomer would try anyway.
func (w *network) codeTargets(hints []netip.AddrPort) (out []string) {
	usual := func(text string) bool {
		return slices.ContainsFunc(hints, func(h netip.AddrPort) bool {
			return text == stream.At(netip.AddrPortFrom(h.Addr().Unmap(), webPort)).String()
		})
	}
	own := w.n.statedStreams()
	if out = slices.DeleteFunc(slices.Clone(own), usual); len(own) > 0 || w.mesh == nil {
		return out[:min(len(out), codeTargets)]
	}
	talking := slices.DeleteFunc(slices.Clone(w.roster.Members), func(m member.Member) bool {
		p := w.mesh.peers[m.ID]
		return p == nil || !p.talks
	})
	for i := range statedStreams { // of each member one before the next of any
		for _, m := range talking {
			if i < len(m.Info.Streams) && !usual(m.Info.Streams[i]) && len(out) < codeTargets {
				out = append(out, m.Info.Streams[i])
			}
		}
	}
	return out
}

// targets lists where a member takes streams: as it says, and then the same by WebSocket.
func (s *streams) targets(mem member.Member) (out []stream.Target) {
	for _, text := range mem.Info.Streams {
		if t, err := stream.ParseTarget(text); err == nil && mayDial(s.n, t) {
			out = append(out, t)
		}
	}
	for _, t := range slices.Clone(out) {
		if t.Scheme == "tls" {
			t.Scheme = "wss"
			out = append(out, t)
		}
	}
	return out
}

// mayDial reports whether a target that somebody stated is none of this machine's own affairs.
func mayDial(n *Node, t stream.Target) bool {
	host, _, err := net.SplitHostPort(t.Host)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host != "localhost"
	}
	return mayReach(a) && !n.inside(a.Unmap())
}

// refused returns what tells which addresses a name must not have led to: those of this machine's own affairs, and those inside its
// networks as they are now. Any goroutine may call it.
func (n *Node) refused() func(netip.Addr) bool {
	var rosters []*member.Roster
	for _, w := range n.networks {
		rosters = append(rosters, w.roster)
	}
	return func(a netip.Addr) bool {
		return !mayReach(a) || slices.ContainsFunc(rosters, func(r *member.Roster) bool { return holds(r, a.Unmap()) })
	}
}

// holds reports whether a is an address inside the network of r.
func holds(r *member.Roster, a netip.Addr) bool {
	_, ok := r.ByAddr(a)
	return ok || r.Prefix6.Contains(a)
}

// mayReach reports whether a may be another machine's address. Any goroutine may call it.
func mayReach(a netip.Addr) bool {
	a = a.Unmap()
	return !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && !wire.IsLabel(a)
}
