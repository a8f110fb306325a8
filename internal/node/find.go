package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/dht"
	"github.com/warren-vpn/warren/internal/discover"
)

const dhtTimeout = 30 * time.Second // of one operation

// finder looks for members of one network, or for an introducer to it, and carries out what the engine asks for. It belongs to
// the control loop.
type finder struct {
	n      *Node
	engine *discover.Engine
	found  func(now time.Time, f discover.Found)
	groups []netip.AddrPort // to hear
}

// newFinder makes a finder that begins to look when its engine is told keys.
func (n *Node) newFinder(cfg discover.Config, found func(now time.Time, f discover.Found)) *finder {
	if n.opt.Config.Daemon.DHTBootstrap != "" { // a DHT of one's own may be on a private network
		cfg.Public = func(netip.Addr) bool { return true }
	}
	f := &finder{n: n, engine: discover.New(cfg), found: found}
	f.engine.SetMode(time.Now(), discover.Mode{DHT: n.dht != nil, Peers: n.opt.Config.Daemon.DHTPeers, LAN: n.beacons != nil, Port: n.socket.Port()})
	n.finders[f] = struct{}{}
	return f
}

// end forgets the finder. What is still asked for is answered to nobody.
func (f *finder) end() {
	delete(f.n.finders, f)
	if len(f.groups) > 0 {
		f.n.hearGroups()
	}
}

// settle lets the engine see the time and carries out what it asks for.
func (f *finder) settle(now time.Time) (next time.Time) {
	next = f.engine.Tick(now)
	for _, e := range f.engine.Effects() {
		switch e := e.(type) {
		case discover.Get:
			f.n.ask(func(ctx context.Context) func(now time.Time) {
				seq, value, err := f.n.dht.Get(ctx, e.Public, nil)
				if errors.Is(err, dht.ErrNotFound) {
					value, err = nil, nil
				}
				return func(now time.Time) { f.engine.HandleItem(now, e.Target, seq, value, err) }
			})
		case discover.Put:
			f.n.ask(func(ctx context.Context) func(now time.Time) {
				stored, err := f.n.dht.Put(ctx, e.Private, nil, e.Seq, e.CAS, e.Value)
				newer, clash := errors.AsType[*dht.Newer](err)
				return func(now time.Time) {
					if clash {
						f.engine.HandleNewer(now, e.Target, newer.Seq, newer.Value)
						return
					}
					f.engine.HandleStored(now, e.Target, stored, err)
				}
			})
		case discover.Meet:
			f.n.ask(func(ctx context.Context) func(now time.Time) {
				var found []netip.AddrPort
				stored, err := 0, error(nil)
				if e.Announce {
					stored, found, err = f.n.dht.Announce(ctx, e.Infohash, f.n.socket.Port())
				} else {
					found, err = f.n.dht.Peers(ctx, e.Infohash)
				}
				if err != nil {
					f.n.log.Debug("peers of the DHT", "announced", stored, "err", err)
				}
				return func(now time.Time) { f.engine.HandleMet(now, e.Infohash, found, stored) }
			})
		case discover.SendBeacon:
			if err := f.n.beacons.Send(e.To, e.Interface, e.Data); err != nil {
				f.n.log.Debug("beacon not sent", "to", e.To, "err", err)
			}
		case discover.Listen:
			f.groups = e.Groups
			f.n.hearGroups()
		case discover.Found:
			f.n.log.Debug("found", "id", e.ID, "addresses", e.Addrs, "by", e.Source)
			f.found(now, e)
		}
	}
	return next
}

// ask runs an operation of the DHT beside the control loop, and what it returns in it.
func (n *Node) ask(op func(ctx context.Context) (then func(now time.Time))) {
	n.wg.Go(func() { // ends with the operation, which ends with ctx or the client
		ctx, cancel := context.WithTimeout(n.ctx, dhtTimeout)
		defer cancel()
		then := op(ctx)
		_ = n.call(n.ctx, func() { // an error: the node stops
			now := time.Now()
			for _, o := range n.dht.Observations() { // the newest last
				if o.At.After(n.dhtSeen) && !n.masks.apart.Load() { // else they saw another port
					n.nat.Observe(o.At, o.By, o.Seen)
					n.dhtSeen = o.At
				}
			}
			then(now)
		})
	})
}

// newDHT makes the client of the DHT, which does nothing until it is asked.
func (n *Node) newDHT() {
	d := n.opt.Config.Daemon
	if !d.DHT || n.sys.OpenBeacons == nil {
		return
	}
	hosts := strings.Fields(d.DHTBootstrap)
	if len(hosts) == 0 {
		hosts = dht.DefaultBootstrap()
	}
	n.dht = dht.New(dht.Config{Bootstrap: hosts, Nodes: n.savedDHT(), Local: d.DHTBootstrap != "", Peers: d.DHTPeers, Log: n.log,
		Send: n.sendDHT})
}

// savedDHT returns the nodes that answered in the last run.
func (n *Node) savedDHT() (out []dht.Node) {
	saved, err := n.dir.Daemon()
	if err != nil {
		return nil // told already
	}
	for _, text := range strings.Fields(saved.DHTNodes) {
		var node dht.Node
		if node.UnmarshalText([]byte(text)) == nil {
			out = append(out, node)
		}
	}
	return out
}

// saveDHT keeps the nodes that answered for the next run.
func (n *Node) saveDHT() {
	if n.dht == nil || len(n.dht.Nodes()) == 0 {
		return
	}
	saved, err := n.dir.Daemon()
	if err != nil {
		return
	}
	var list []string
	for _, node := range n.dht.Nodes() {
		if text, err := node.MarshalText(); err == nil {
			list = append(list, string(text))
		}
	}
	saved.DHTNodes = strings.Join(list, " ")
	if err := n.dir.SaveDaemon(saved); err != nil {
		n.log.Warn("nodes of the DHT not saved", "err", err)
	}
}

// newBeacons opens the sockets for beacons on the local networks.
func (n *Node) newBeacons() {
	if !n.opt.Config.Daemon.LAN || n.sys.OpenBeacons == nil {
		return
	}
	b, err := n.sys.OpenBeacons(n.ours, func(from netip.AddrPort, iface string, data []byte) {
		_ = n.call(n.ctx, func() { // an error: the node stops
			now := time.Now()
			for f := range n.finders {
				f.engine.HandleBeacon(now, from, iface, data)
			}
		})
	})
	if err != nil {
		n.log.Warn("the local networks are not searched", "err", err)
		return
	}
	n.beacons = b
}

// hearGroups hears the groups of all finders.
func (n *Node) hearGroups() {
	if n.beacons == nil {
		return
	}
	var all []netip.AddrPort
	for f := range n.finders {
		for _, g := range f.groups {
			if !slices.Contains(all, g) {
				all = append(all, g)
			}
		}
	}
	if err := n.beacons.Listen(all); err != nil {
		n.log.Debug("groups not heard", "err", err)
	}
}
