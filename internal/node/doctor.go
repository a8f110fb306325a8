package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/dht"
	"github.com/warren-vpn/warren/internal/host"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/wire"
)

const lookUpWithin = 3 * time.Second // names, for the doctor

// Doctor implements api.Backend: what the control loop knows first, then what must be asked of the machine.
func (n *Node) Doctor(ctx context.Context, ref string) (api.Doctor, error) {
	var c report.Checkup
	var quiet bool
	err := n.do(ctx, func() error {
		list := n.sorted()
		if ref != "" {
			w, err := n.find(ref)
			if err != nil {
				return err
			}
			list = []*network{w}
		}
		c, quiet = n.examine(time.Now(), list), n.masks.hide
		return nil
	})
	if err != nil {
		return api.Doctor{}, err
	}
	out := api.Doctor{PID: os.Getpid()}
	out.Hosts, c.DHT = n.hosts()
	c.HasDHT = n.dht != nil
	n.lookAround(ctx, &c, out.Hosts)
	for _, h := range strings.Fields(n.opt.Config.Daemon.STUN) {
		out.Hosts = append(out.Hosts, api.Host{Host: h, Asked: !quiet})
	}
	slices.SortFunc(out.Hosts, func(a, b api.Host) int { return strings.Compare(a.Host, b.Host) })
	out.Findings = c.Findings()
	return out, nil
}

// examine gathers what the control loop knows.
func (n *Node) examine(now time.Time, list []*network) report.Checkup {
	d, st := n.opt.Config.Daemon, n.nat.Status()
	c := report.Checkup{Now: now, Jump: jumped(n.started, now), Built: builtAt(), Port: n.socket.Port(), Mapping: n.mapped(), MappingOff: !d.PortMapping,
		DHTOff: !d.DHT, LANOff: !d.LAN, LANWorks: n.beacons != nil, Drops: n.drops(), Warnings: n.describe(now).Warnings}
	c.V4.NAT, c.V6.NAT = st.V4, st.V6
	for _, a := range n.local {
		c.Family(a).Local = append(c.Family(a).Local, a)
	}
	for _, ap := range st.Addresses {
		c.Family(ap.Addr()).Outside = append(c.Family(ap.Addr()).Outside, ap)
	}
	for _, x := range st.Candidates {
		if x.Kind == wire.CandidateExternal && !slices.Contains(st.ByHand, x.Addr) {
			c.Family(x.Addr.Addr()).Outside = append(c.Family(x.Addr.Addr()).Outside, x.Addr)
		}
	}
	for _, w := range list {
		c.Examine(w.view(now))
		if w.mesh == nil {
			continue
		}
		for _, p := range w.mesh.peers {
			w.mesh.asked(now, p)
		}
	}
	return c
}

// hosts lists the DHT's first hosts, and says whether each was asked.
func (n *Node) hosts() (out []api.Host, st report.DHT) {
	if n.dht == nil {
		return nil, st
	}
	s := n.dht.Stats()
	list := strings.Fields(n.opt.Config.Daemon.DHTBootstrap)
	if len(list) == 0 {
		list = dht.DefaultBootstrap()
	}
	slices.Sort(list)
	for _, h := range list {
		out = append(out, api.Host{Host: h, Asked: slices.Contains(s.Bootstraps, h)})
	}
	return out, report.DHT{Unresolved: s.Unresolved && len(s.Bootstraps) == 0, Queries: s.Queries, Replies: s.Replies, Hosts: s.Hosts, Nodes: s.Nodes, Address4: s.Address4, Address6: s.Address6}
}

// jumped returns how much further the clock went between two moments than time did, as when it was set, or the machine slept.
func jumped(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from) // without, and with the monotonic clock
}

// mapped says what the router was asked for.
func (n *Node) mapped() (m report.Mapping) {
	if n.mapper == nil {
		return m
	}
	st := n.mapper.Status()
	m = report.Mapping{Asked: true, Gateway: st.Gateway, External: st.Mapping.External, Protocol: st.Mapping.Protocol, Public: st.Mapping.Public}
	if st.Err == nil {
		return m
	}
	var why []string
	for _, a := range st.Answers {
		if a.Err != nil {
			m.Spoken = m.Spoken || a.Spoken
			why = append(why, a.Protocol+": "+innermost(a.Err))
		}
	}
	if m.Why = strings.Join(why, "; "); len(why) == 0 {
		m.Why = st.Err.Error()
	}
	return m
}

// innermost is the cause of an error of the network, without the addresses and calls that led there.
func innermost(err error) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	return err.Error()
}

// builtAt returns when the source of this program was committed; zero when it does not know.
func builtAt() (t time.Time) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				t, _ = time.Parse(time.RFC3339, s.Value) // zero on an error
			}
		}
	}
	return t
}

// lookAround asks the machine what the control loop must not wait for.
func (n *Node) lookAround(ctx context.Context, c *report.Checkup, hosts []api.Host) {
	for _, p := range c.Pools {
		what, found, err := n.sys.Conflict(p.Prefix, n.ours)
		if found && err == nil {
			c.Overlaps = append(c.Overlaps, report.Overlap{Pool: p, What: what})
		}
	}
	if n.sys.Gateway != nil { // no simulated machine
		c.Tunnels, _ = host.DefaultTunnels(n.ours) // an error: this system does not tell
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpWithin)
	defer cancel()
	var mu sync.Mutex // guards c.Found and c.Unfound
	var wg sync.WaitGroup
	for _, h := range hosts {
		name, _, err := net.SplitHostPort(h.Host)
		if _, isAddr := netip.ParseAddr(name); err != nil || isAddr == nil {
			continue
		}
		wg.Go(func() { // ends with ctx; waited for below
			_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				c.Found = append(c.Found, name)
			} else {
				c.Unfound = append(c.Unfound, name)
			}
		})
	}
	wg.Wait()
	slices.Sort(c.Unfound)
}
