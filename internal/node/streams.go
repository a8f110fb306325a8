package node

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/stream"
	"github.com/warren-vpn/warren/internal/wire"
)

// When streams are opened and closed (spec/72-streams.md#when).
const (
	streamAfter   = 3 * time.Second // without a way by UDP
	streamsWanted = 2               // of one network
	streamUnused  = time.Minute     // then it is closed
	streamFirst   = 5 * time.Second // after all targets of a member failed; doubles
	streamMost    = 5 * time.Minute
	streamStable  = time.Minute // one that lasted so long was no failure
	streamCost    = 50 * time.Millisecond
	newMember     = 10 * time.Minute // who may have to repeat its join
	keysEvery     = time.Minute
)

// streams holds what this node sends over TCP instead of UDP. It belongs to the control loop, but for what mu guards.
type streams struct {
	n       *Node
	set     *stream.Set
	proxy   func(stream.Target) *url.URL
	serving bool
	stated  []string // targets, by the owner of this machine

	wake   chan struct{} // holds a token when there are events
	mu     sync.Mutex    // guards what follows
	events []stream.Event

	fresh   map[netip.AddrPort]struct{} // open, by which no session came up yet
	dials   map[stream.Target]*errand   // under way
	open    map[netip.AddrPort]*errand  // opened here
	wishes  map[any]*wish               // of each *peer and *joining for which streams were opened of late
	houseAt time.Time
	keysAt  time.Time
}

// errand is what a stream is opened for: a member, or a join.
type errand struct {
	peer *peer
	join *joining
	up   time.Time
	used time.Time // it was the path then
}

// wish is how it goes with streams to one member, or for one join.
type wish struct {
	since, next time.Time
	turn        int // which target is next
	backoff     time.Duration
	got         bool // there was a stream
}

// newStreams makes the streams of the node; it starts nothing. They are nil where there is no TCP.
func (n *Node) newStreams() *streams {
	if n.sys.ListenTCP == nil {
		return nil
	}
	s := &streams{n: n, wake: make(chan struct{}, 1), fresh: map[netip.AddrPort]struct{}{}, dials: map[stream.Target]*errand{},
		open: map[netip.AddrPort]*errand{}, wishes: map[any]*wish{}}
	s.set = stream.New(stream.Config{Event: s.post, Log: n.opt.Log})
	s.state(n.opt.Config.Daemon.TLSURLs)
	var err error
	switch p := n.opt.Config.Daemon.Proxy; p {
	case "none":
	case "", "env":
		s.proxy, err = stream.EnvProxy(os.Getenv)
	default:
		var u *url.URL
		if u, err = stream.ParseProxy(p); err == nil {
			s.proxy = stream.OneProxy(u)
		}
	}
	if err != nil {
		n.log.Warn("no proxy is used", "err", err)
		n.warnings["proxy"] = fmt.Sprintf("the proxy cannot be used: %v", err)
	}
	return s
}

// post keeps an event for the control loop.
func (s *streams) post(e stream.Event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// woken has something when streams have events; it is nil where there are none.
func (n *Node) woken() <-chan struct{} {
	if n.streams == nil {
		return nil
	}
	return n.streams.wake
}

// runStreams reads streams, and listens for them if the owner of this machine wants that.
func (n *Node) runStreams() {
	s := n.streams
	if s == nil {
		return
	}
	n.wg.Go(func() { // ends when shutdown closes the set
		if err := n.plane.RunBeside(s.set); err != nil {
			n.log.Error("streams are not read any more", "err", err)
		}
	})
	port := n.opt.Config.Daemon.TLSPort
	if port == 0 {
		return
	}
	ln, cfg, err := s.listen(port)
	if err != nil {
		n.log.Warn("no streams are taken", "port", port, "err", err)
		n.warnings["tls"] = fmt.Sprintf("members without UDP cannot reach this machine by TLS: %v", err)
		return
	}
	s.serving = true
	n.wg.Go(func() { // ends when shutdown closes the set
		if err := s.set.Serve(ln, cfg); err != nil {
			n.log.Error("no streams are taken any more", "err", err)
		}
	})
}

// listen opens the TCP port. The certificate is made once and kept.
func (s *streams) listen(port uint16) (ln net.Listener, cfg stream.ServeConfig, err error) {
	saved, err := s.n.dir.Daemon()
	if err != nil {
		return nil, cfg, err
	}
	if saved.TLSCert == "" {
		cert, private, err := stream.SelfSigned("", time.Now())
		if err != nil {
			return nil, cfg, err
		}
		saved.TLSCert, saved.TLSKey = string(cert), string(private)
		if err := s.n.dir.SaveDaemon(saved); err != nil {
			return nil, cfg, err
		}
	}
	if cfg.Certificate, err = stream.NewCertificate([]byte(saved.TLSCert), []byte(saved.TLSKey)); err != nil {
		return nil, cfg, err
	}
	ln, err = s.n.sys.ListenTCP(port)
	return ln, cfg, err
}

// prove says that something authentic came by a way: if that is a stream, it may stay.
func (n *Node) prove(w wire.Way) {
	if n.streams == nil || !w.IsStream() {
		return
	}
	if _, ok := n.streams.fresh[w.Addr]; ok {
		delete(n.streams.fresh, w.Addr)
		n.streams.set.Prove(w.Addr)
	}
}

// settleStreams deals with what happened to streams, and opens and closes them.
func (n *Node) settleStreams(now time.Time) (next time.Time) {
	s := n.streams
	if s == nil {
		return time.Time{}
	}
	s.mu.Lock()
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		s.event(now, e)
	}
	if len(n.networks)+len(n.joins)+len(s.open) == 0 {
		return time.Time{}
	}
	if now.Before(s.houseAt) {
		return s.houseAt
	}
	s.houseAt = now.Add(housekeeping)
	if !now.Before(s.keysAt) {
		s.setKeys(now)
	}
	for addr, e := range s.open {
		s.tend(now, addr, e)
	}
	for j := range n.joins {
		s.tendJoin(now, j)
	}
	for _, w := range n.networks {
		if w.mesh != nil {
			s.tendMesh(now, w.mesh)
		}
	}
	for of, w := range s.wishes {
		if now.Sub(w.next) > 2*streamMost {
			delete(s.wishes, of)
		}
	}
	return s.houseAt
}

// setKeys says who may open streams to this node: members, and who has a code that may still be used.
func (s *streams) setKeys(now time.Time) {
	s.keysAt = now.Add(keysEvery)
	if !s.serving {
		return
	}
	var members, codes []stream.Key
	for _, w := range s.n.networks {
		if w.mesh == nil {
			continue
		}
		members = append(members, memberKeys(w.roster)...)
		for _, v := range w.codesInUse(now) {
			codes = append(codes, stream.NewKey(v.JoinKey[:]))
		}
	}
	s.set.SetKeys(append(members, codes...))
}

// memberKeys lists the keys of a network, the present one first.
func memberKeys(r *member.Roster) []stream.Key {
	keys := []stream.Key{stream.NewKey(r.Discovery[:])}
	if len(r.DiscoveryOld) > 0 {
		keys = append(keys, stream.NewKey(r.DiscoveryOld[0][:]))
	}
	return keys
}

// event deals with what happened to one stream.
func (s *streams) event(now time.Time, e stream.Event) {
	s.n.log.Debug("stream", "event", e.Kind, "target", e.Target, "addr", e.Addr, "inbound", e.Inbound, "err", e.Err)
	switch {
	case e.Kind == stream.EventFailed:
		if d := s.dials[e.Target]; d != nil {
			delete(s.dials, e.Target)
			if s.failed(now, d); d.peer != nil {
				s.wish(now, d).turn++
			}
		}
	case e.Kind == stream.EventDown:
		s.down(now, e.Addr)
	default:
		s.fresh[e.Addr] = struct{}{}
		if d := s.dials[e.Target]; d != nil && !e.Inbound {
			delete(s.dials, e.Target)
			s.up(now, e.Addr, d)
		}
	}
}

// up uses a stream that this node opened.
func (s *streams) up(now time.Time, addr netip.AddrPort, d *errand) {
	d.up, d.used = now, now
	s.open[addr] = d
	s.wish(now, d).got = true
	switch {
	case !d.stands():
		s.set.Drop(addr)
	case d.join != nil:
		d.join.engine.Hint(now, addr)
	default:
		s.give(now, d.peer)
		d.peer.mesh.callBy(now, d.peer, addr)
	}
}

// down forgets a stream.
func (s *streams) down(now time.Time, addr netip.AddrPort) {
	delete(s.fresh, addr)
	for _, w := range s.n.networks {
		if w.mesh != nil {
			w.mesh.path.StreamDown(now, addr)
		}
	}
	d := s.open[addr]
	if d == nil {
		return
	}
	delete(s.open, addr)
	if !d.stands() || now.Sub(d.used) >= streamUnused {
		return
	}
	if now.Sub(d.up) >= streamStable {
		s.wish(now, d).next = now
		return
	}
	s.failed(now, d)
}

// failed plans the next try.
func (s *streams) failed(now time.Time, d *errand) {
	w := s.wish(now, d)
	w.backoff = min(max(2*w.backoff, streamFirst), streamMost)
	w.next = now.Add(w.backoff)
	if d.join != nil {
		w.next = now.Add(min(w.backoff, 2*streamFirst)) // somebody waits
	}
}

// wish finds or makes the wish that a stream is opened for.
func (s *streams) wish(now time.Time, d *errand) *wish {
	var of any = d.peer
	if d.join != nil {
		of = d.join
	}
	w := s.wishes[of]
	if w == nil {
		w = &wish{since: now, next: now}
		s.wishes[of] = w
	}
	return w
}

// stands reports whether the stream is still wanted by whom it was opened for.
func (d *errand) stands() bool {
	if d.join != nil {
		_, ok := d.join.n.joins[d.join]
		return ok
	}
	m := d.peer.mesh
	return m.w.mesh == m && m.peers[d.peer.id] == d.peer
}

// tend closes a stream that is of no use.
func (s *streams) tend(now time.Time, addr netip.AddrPort, d *errand) {
	if d.join == nil {
		if c := d.peer.path.Choice(); c.Way.Addr == addr || c.Direct == addr {
			d.used = now
		}
	} else {
		d.used = now
	}
	if !d.stands() || now.Sub(d.used) >= streamUnused {
		s.set.Drop(addr)
	}
}

// give tells the path engine which streams there are to p.
func (s *streams) give(now time.Time, p *peer) {
	var list []netip.AddrPort
	for addr, d := range s.open {
		if d.peer == p {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	p.mesh.path.SetStreams(now, p.id, list)
}

// dial opens a stream to t, unless one is being opened.
func (s *streams) dial(t stream.Target, k stream.Key, d *errand) {
	if s.dials[t] == nil {
		s.dials[t] = d
		s.set.Connect(&stream.Dialer{Key: k, Proxy: s.proxy, Dial: s.n.sys.DialTCP, Refuse: s.n.refused()}, t)
	}
}

// has counts the streams, open or being opened, for which f holds.
func (s *streams) has(f func(*errand) bool) (count int) {
	for _, d := range s.open {
		if f(d) {
			count++
		}
	}
	for _, d := range s.dials {
		if f(d) {
			count++
		}
	}
	return count
}

// tendMesh opens streams to members that take them, while UDP brings this node to nobody.
func (s *streams) tendMesh(now time.Time, m *mesh) {
	if m.hasUDP() {
		m.mute = time.Time{}
		return
	}
	if m.mute.IsZero() {
		m.mute = now
	}
	missing := streamsWanted - s.has(func(d *errand) bool { return d.peer != nil && d.peer.mesh == m })
	if now.Sub(m.mute) < streamAfter || missing <= 0 {
		return
	}
	var able []*peer
	for _, p := range m.peers {
		mem, _ := m.w.roster.ByID(p.id)
		if len(mem.Info.Streams) > 0 && s.has(func(d *errand) bool { return d.peer == p }) == 0 && !now.Before(s.wish(now, &errand{peer: p}).next) {
			able = append(able, p)
		}
	}
	slices.SortFunc(able, func(a, b *peer) int { return bytes.Compare(m.drawn(a), m.drawn(b)) })
	for _, p := range able[:min(len(able), missing)] {
		d := &errand{peer: p}
		w := s.wish(now, d)
		w.next = now.Add(streamFirst)
		mem, _ := m.w.roster.ByID(p.id)
		if list := s.targets(mem); len(list) > 0 {
			keys := memberKeys(m.w.roster)
			s.dial(list[w.turn%len(list)], keys[w.turn/len(list)%len(keys)], d)
		}
	}
}

// drawn is the place of p in this node's own order of the members, so that not all choose the same.
func (m *mesh) drawn(p *peer) []byte {
	h := fnv.New64a()
	h.Write(m.self[:])
	h.Write(p.id[:])
	return h.Sum(nil)
}

// hasUDP reports whether somebody is reached by UDP who is not merely in the same building, or who would take streams.
func (m *mesh) hasUDP() bool {
	for _, p := range m.peers {
		at := p.path.Choice().Direct
		if p.device || !p.talks || !at.IsValid() || stream.IsStream(at.Addr()) {
			continue
		}
		if a := at.Addr(); !a.IsPrivate() && !a.IsLinkLocalUnicast() && !a.IsLoopback() {
			return true
		}
		if mem, ok := m.w.roster.ByID(p.id); ok && len(mem.Info.Streams) > 0 {
			return true
		}
	}
	return false
}

// callBy calls p by a stream that has just opened. Is a handshake under way, its last message goes by the stream too: there are
// 5 s for it.
func (m *mesh) callBy(now time.Time, p *peer, addr netip.AddrPort) {
	if p.talks {
		return // it is pinged there
	}
	if len(p.initiation) > 0 {
		m.w.n.plane.SendHandshake(p.plane, wire.Direct(addr), p.initiation, nil)
	}
	m.call(now, p)
}

// keepStream takes over the stream by which this node has joined, and calls the introducer by it. It reports false if addr is no
// stream.
func (m *mesh) keepStream(now time.Time, id key.NodeID, addr netip.AddrPort) bool {
	if !stream.IsStream(addr.Addr()) {
		return false
	}
	d, p := m.w.n.streams.open[addr], m.peers[id]
	if d != nil && p != nil {
		d.join, d.peer = nil, p
		m.w.n.streams.give(now, p)
		m.call(now, p)
	}
	return true
}

// shown says where a direct way to a peer leads, and how if it is a stream: "tls" or "wss".
func (n *Node) shown(w wire.Way) (addr netip.AddrPort, kind string) {
	if n.feet != nil && wire.IsFoot(w.Addr.Addr()) {
		return n.feet.Remote(w.Addr), ""
	}
	if n.streams == nil || !w.IsStream() {
		return w.Addr, ""
	}
	for _, i := range n.streams.set.List() {
		if i.Addr == w.Addr {
			addr, _ = netip.ParseAddrPort(i.Remote)
			return addr, i.Kind
		}
	}
	return netip.AddrPort{}, "tls"
}

// closeStreams ends all streams.
func (n *Node) closeStreams() error {
	if n.streams == nil {
		return nil
	}
	return n.streams.set.Close()
}

// listenTCP is what Platform.ListenTCP is on this machine.
func listenTCP(port uint16) (net.Listener, error) {
	ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, errors.Join(err, errTLSPort)
	}
	return ln, nil
}

var errTLSPort = errors.New("stop the program that uses the port, or choose another daemon.tls_port in the config file")
