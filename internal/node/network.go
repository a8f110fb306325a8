package node

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/host"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/state"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	saveRetry    = 5 * time.Second
	compactSlack = 256 // superseded records in the log that are not worth a compaction
)

// network is one network of this node: what lasts. What runs while it is up is its mesh. It belongs to the control loop.
type network struct {
	n        *Node
	id       key.NetworkID
	log      *slog.Logger
	store    *state.Network
	settings state.Settings
	keys     state.Keys
	set      *member.Set
	roster   *member.Roster // of set; replaced when the set changes
	mesh     *mesh          // nil while the network is down
	why      string         // why it is down although it should be up
	fresh    *fresh         // after a join, until a second member talks to this node
	maskCode *wire.Code     // the code by which a newcomer masks; nil: it has heard of the policy, or the network does not mask
	pending  *joining       // the join that waits for approval; the roster has nobody until then

	inbox   []accepted // not on the disk yet: not passed on before
	retry   time.Time  // when to try the disk again; zero: it works
	stale   int        // superseded records in the log
	changed bool       // the roster must be looked at anew
}

// loadNetwork reads one network of the state directory.
func (n *Node) loadNetwork(id key.NetworkID) error {
	store, err := n.dir.Network(id)
	if err != nil {
		return err
	}
	w := n.newNetwork(id, store)
	if w.keys, err = store.Keys(); err != nil {
		return err
	}
	if w.settings, err = store.Settings(); err != nil {
		return err
	}
	loaded, err := store.Load()
	if err != nil {
		return err
	}
	if loaded.Torn+loaded.Damaged > 0 || loaded.Missing || loaded.Repair != nil {
		w.log.Warn("record log was not whole; other members have what is missing", "torn_bytes", loaded.Torn,
			"damaged_bytes", loaded.Damaged, "copy", loaded.Copy, "missing", loaded.Missing, "err", loaded.Repair)
	}
	_, rejected := w.set.AddAll(loaded.Records)
	if rejected > compactSlack {
		if err := store.Compact(w.set.Records()); err != nil {
			w.log.Warn("record log not compacted", "err", err)
		}
	}
	w.roster = w.set.Roster()
	n.networks[id] = w
	return nil
}

func (n *Node) newNetwork(id key.NetworkID, store *state.Network) *network {
	return &network{n: n, id: id, store: store, set: member.NewSet(id), log: n.opt.Log.With("network", id)}
}

// adopt takes a network that was just created or joined into the node and brings it up.
// maskCode may be nil.
func (n *Node) adopt(now time.Time, store *state.Network, keys state.Keys, settings state.Settings, set *member.Set, maskCode *wire.Code) (*network, error) {
	w := n.newNetwork(store.ID(), store)
	w.keys, w.settings, w.set, w.roster, w.maskCode = keys, settings, set, set.Roster(), maskCode
	n.networks[w.id] = w
	return w, w.activate(now)
}

// name is what commands call the network by.
func (w *network) name() string { return w.settings.Name }

// self returns this node's place in the roster; false when it has none (not approved yet, or revoked).
func (w *network) self() (member.Member, bool) { return w.roster.ByID(w.keys.Identity.NodeID()) }

// start brings the network up if it is meant to be.
func (w *network) start(now time.Time) {
	if w.settings.Code != "" {
		if err := w.resume(now); err != nil {
			w.why = err.Error()
			w.log.Error("join cannot be taken up again", "err", err)
		}
		return
	}
	if !w.settings.Up {
		return
	}
	if err := w.activate(now); err != nil {
		w.log.Error("network does not come up", "err", err)
	}
}

// activate opens the TUN device and starts the mesh. It does nothing when the network is up.
func (w *network) activate(now time.Time) error {
	if w.mesh != nil {
		return nil
	}
	err := w.open(now)
	w.why = ""
	if err != nil {
		w.why = err.Error()
	}
	return err
}

func (w *network) open(now time.Time) error {
	if w.roster.IsRevoked(w.keys.Identity.NodeID()) {
		return errRevoked
	}
	self, ok := w.self()
	if !ok {
		return errNoMember
	}
	own := w.n.opt.Config.Network(w.name())
	wish := own.Interface
	if wish == "" {
		wish = w.settings.Interface
	}
	tunnel, err := w.n.sys.OpenTunnel(wish)
	if err != nil && own.Interface == "" && wish != "" {
		tunnel, err = w.n.sys.OpenTunnel("") // the name of last time is taken
	}
	if err != nil {
		return err
	}
	if err := w.configure(tunnel.Name(), inner(self), own.MTU); err != nil {
		return errors.Join(err, tunnel.Close())
	}
	if w.settings.Interface != tunnel.Name() {
		w.settings.Interface = tunnel.Name()
		if err := w.store.SaveSettings(w.settings); err != nil {
			w.log.Warn("settings not saved", "err", err)
		}
	}
	if w.mesh, err = newMesh(w, tunnel, own.MTU); err != nil {
		return errors.Join(err, tunnel.Close())
	}
	w.mesh.addrs = inner(self)
	w.mesh.start(now)
	w.log.Info("network is up", "name", w.name(), "interface", tunnel.Name(), "address", self.Addr4, "address6", self.Addr6)
	return nil
}

// inner lists the addresses of a member as an interface or a route has them. There is no IPv4 when the pool is full.
func inner(m member.Member) (out []netip.Prefix) {
	for _, a := range report.Addresses(m) {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// configure gives the interface its addresses. A host without IPv6 works with a warning.
func (w *network) configure(iface string, addrs []netip.Prefix, mtu int) error {
	err := w.n.sys.Configure(iface, addrs, mtu)
	delete(w.n.warnings, "ipv6")
	if errors.Is(err, host.ErrNoIPv6) {
		w.n.warnings["ipv6"] = err.Error()
		return nil
	}
	return err
}

var (
	errRevoked  = errors.New("this node was put out of the network: leave it, and join again with a new code")
	errNoMember = errors.New("this node is no member: its code was used up by others, or who let it in was put out: leave the network, and join again with a new code")
)

// deactivate ends the mesh and removes the TUN device. It does nothing when the network is down.
func (w *network) deactivate(now time.Time) {
	if w.mesh == nil {
		return
	}
	w.mesh.stop(now)
	w.mesh = nil
}

// close closes the files of a network whose mesh is down.
func (w *network) close() error { return w.store.Close() }

// bye tells the peers that this node stops.
func (w *network) bye(now time.Time) {
	if w.mesh != nil {
		w.mesh.bye(now)
	}
}

// hostChanged passes on that the host's addresses or routes have changed.
func (w *network) hostChanged(now time.Time) {
	if w.mesh != nil {
		w.mesh.hostChanged(now)
	}
}

// settle runs the network's engines until they ask for nothing more, and returns when to come again.
func (w *network) settle(now time.Time) (next time.Time) {
	w.save(now)
	if w.changed {
		w.rosterChanged(now)
	}
	if len(w.inbox) > 0 {
		next = w.retry
	}
	if w.mesh != nil {
		next = earlier(w.mesh.settle(now), next)
	}
	return next
}

// rosterChanged draws the consequences of a changed set.
func (w *network) rosterChanged(now time.Time) {
	w.changed = false
	w.roster = w.set.Roster()
	if w.mesh == nil {
		return
	}
	if w.roster.IsRevoked(w.keys.Identity.NodeID()) {
		w.log.Warn("this node was put out of the network", "name", w.name())
		w.mesh.bye(now) // to those who have not heard of it
		w.deactivate(now)
		w.why = errRevoked.Error()
		return
	}
	self, ok := w.self()
	switch {
	case !ok:
		w.log.Warn("this node is no member any more", "name", w.name())
		w.mesh.bye(now)
		w.deactivate(now)
		w.why = errNoMember.Error()
	case self.WG.IsZero() && self.Info.WG == w.keys.WG.Public():
		w.renewKey(now)
	default:
		w.mesh.follow(self)
		w.mesh.sync(now)
	}
}

// renewKey takes a new WireGuard key, because another member claims ours and has the older right to it (spec/21-roster.md).
func (w *network) renewKey(now time.Time) {
	w.log.Warn("another member claims this node's WireGuard key; taking a new one", "key", w.keys.WG.Public())
	keys := w.keys
	keys.WG = key.NewWGPrivate()
	if err := w.store.SaveKeys(keys); err != nil {
		w.log.Error("new WireGuard key not saved", "err", err)
		return
	}
	w.deactivate(now)
	w.keys = keys
	if err := w.activate(now); err != nil { // publishes the key
		w.log.Error("network does not come up again", "err", err)
	}
}

// publishInfo states this node's addresses anew when they have changed.
func (w *network) publishInfo(now time.Time, endpoints []netip.AddrPort) {
	self, ok := w.self()
	if !ok {
		return
	}
	info := self.Info
	caps, streams := ownCaps(), w.n.statedStreams()
	if info.WG == w.keys.WG.Public() && info.Version == w.n.opt.Version && info.Caps == caps && slices.Equal(self.Endpoints, endpoints) && slices.Equal(info.Streams, streams) {
		return
	}
	info.WG, info.Version, info.Caps = w.keys.WG.Public(), w.n.opt.Version, caps
	info.Endpoints, info.Streams = encodeEndpoints(endpoints), streams
	if err := w.publishOwn(now, info); err != nil {
		w.log.Warn("own addresses not published", "err", err)
	}
}

// ownCaps says what this node offers beyond stock WireGuard.
func ownCaps() wire.Caps {
	if host.FastAES() {
		return wire.CapRelay | wire.CapMask | wire.CapFast
	}
	return wire.CapRelay | wire.CapMask
}

// publishOwn signs and publishes what this node says of itself.
func (w *network) publishOwn(now time.Time, info wire.NodeInfo) error {
	rec, err := w.set.NodeInfo(w.keys.Identity, now, info)
	if err != nil {
		return err
	}
	return w.publish(now, rec)
}

func encodeEndpoints(aps []netip.AddrPort) [][]byte {
	var out [][]byte
	for _, ap := range aps {
		out = append(out, wire.AppendEndpoint(nil, ap))
	}
	return out
}
