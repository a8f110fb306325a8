package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/gossip"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	freshness = 2 * time.Second // a link state may be on its way for so long
	allLinked = 12
	mostLinks = 12 + 2 + 4 // of one that is no anchor: granted, for those who are cut off, and wanted itself in one go
	dataByte  = 0x45
	dataSize  = 200
	dataEvery = 100 * time.Millisecond
)

// class is what a datagram is for.
type class int

const (
	classPing  class = iota
	classSize        // padded pings
	classShake       // handshakes
	classWish
	classMap
	classRecords
	classRelay // what is passed on for others, and path errors
	classData
	classes
)

func classOf(body []byte) class {
	switch {
	case len(body) < 2:
		return classPing
	case body[0] == dataByte:
		return classData
	}
	switch wire.ControlType(body[1]) {
	case wire.ControlStates, wire.ControlDigest:
		return classMap
	case wire.ControlRecords, wire.ControlSync:
		return classRecords
	case wire.ControlLink:
		return classWish
	case wire.ControlPathError:
		return classRelay
	}
	if len(body) > 64 {
		return classSize
	}
	return classPing
}

// counts are bytes sent, with all headers.
type counts [classes]int64

func (c *counts) add(k class, size int) { c[k] += int64(size) }

// control is what the network costs without anybody using it.
func (c *counts) control() (sum int64) {
	for k, v := range c {
		if class(k) != classData && class(k) != classRelay {
			sum += v
		}
	}
	return sum
}

func (c counts) minus(o counts) counts {
	for k := range c {
		c[k] -= o[k]
	}
	return c
}

// total sums up what all nodes sent since they were made.
func (w *world) total() (sum counts) {
	for _, n := range w.nodes {
		n.mu.Lock()
		for k, v := range n.count {
			sum[k] += v
		}
		n.mu.Unlock()
	}
	return sum
}

// watch lets the first nodes ask for routes to some others, from now on. What is asked for is checked at every step.
func (w *world) watch(sources, each int) {
	for _, a := range w.nodes[:min(sources, len(w.nodes))] {
		a.do(func(time.Time) {
			for len(a.watched) < min(each, len(w.nodes)-1) {
				if b := w.nodes[w.rand.IntN(len(w.nodes))]; b != a && !slices.Contains(a.watched, b) {
					a.watched = append(a.watched, b)
					a.routes().Routes(b.id)
				}
			}
		})
	}
}

// checkStep looks at what must hold at every moment.
func (n *node) checkStep() {
	for _, b := range n.watched {
		for _, r := range n.routing.Routes(b.id) {
			n.checkRoute(b, r)
		}
	}
}

func (n *node) checkRoute(b *node, r wire.Route) {
	n.w.checks.Add(1)
	ids := r.Relays()
	if len(ids) == 0 || len(ids) > wire.MaxRelays {
		n.w.wrong("node %d: route with %d relays", n.n, len(ids))
	}
	if n.revoked[b] {
		n.w.wrong("node %d: route to %d, which is revoked", n.n, b.n)
	}
	for i, id := range ids {
		o := n.w.byShort[id]
		switch {
		case slices.Contains(ids[:i], id):
			n.w.wrong("node %d: route to %d has a loop", n.n, b.n)
		case o == n || o == b:
			n.w.wrong("node %d: route to %d by one of its ends", n.n, b.n)
		case o == nil || n.revoked[o]:
			n.w.wrong("node %d: route to %d by %v, which is no member", n.n, b.n, id)
		case o.leaf:
			n.w.wrong("node %d: route to %d by the leaf %d", n.n, b.n, o.n)
		}
	}
}

// checkLinks looks at the number of links.
func (n *node) checkLinks() {
	links := 0
	for _, p := range n.order {
		if p.link {
			links++
		}
	}
	limit := mostLinks
	if n.anchor || len(n.w.nodes) <= allLinked {
		limit = wire.MaxLinks
	}
	n.w.checks.Add(1)
	if links > limit {
		n.w.wrong("node %d has %d links", n.n, links)
	}
	if l := n.links.Len(); l > gossip.MaxStates || l > len(n.w.nodes) {
		n.w.wrong("node %d holds %d link states", n.n, l)
	}
}

// graph is who has which links, in truth: both sides have them, and datagrams pass.
type graph map[*node][]*node

func (w *world) graph() graph {
	half := map[[2]*node]bool{}
	living := w.living()
	for _, n := range living {
		n.mu.Lock()
		for _, p := range n.order {
			if p.link && p.direct {
				half[[2]*node{n, p.of}] = true
			}
		}
		n.mu.Unlock()
	}
	g := graph{}
	for _, n := range living {
		g[n] = nil
	}
	for e := range half {
		if half[[2]*node{e[1], e[0]}] && w.open(e[0], e[1]) {
			g[e[0]] = append(g[e[0]], e[1])
		}
	}
	return g
}

// edges returns how many links it takes from a to each other node, no leaf between.
func (g graph) edges(a *node) map[*node]int {
	far := map[*node]int{a: 0}
	for queue := []*node{a}; len(queue) > 0; queue = queue[1:] {
		u := queue[0]
		if u.leaf && u != a {
			continue
		}
		for _, v := range g[u] {
			if _, ok := far[v]; !ok {
				far[v] = far[u] + 1
				queue = append(queue, v)
			}
		}
	}
	return far
}

// degree returns the mean number of links.
func (g graph) degree() float64 {
	sum := 0
	for _, links := range g {
		sum += len(links)
	}
	return float64(sum) / float64(len(g))
}

// census tells how links are spread.
func (g graph) census() string {
	sum, least, most, diameter := 0, 1<<30, 0, 0
	for _, links := range g {
		sum += len(links)
		least, most = min(least, len(links)), max(most, len(links))
	}
	together := 0
	for a := range g {
		if a.leaf {
			continue
		}
		far := g.edges(a)
		together = len(far)
		for _, d := range far {
			diameter = max(diameter, d)
		}
		break
	}
	return fmt.Sprintf("%d nodes, %d together; links: mean %.1f, least %d, most %d; %d from one to the farthest",
		len(g), together, float64(sum)/float64(len(g)), least, most, diameter)
}

// direct reports whether a can send straight to b now, in truth.
func (w *world) direct(a, b *node) bool {
	if a == nil || b == nil || !b.runs() || !w.open(a, b) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.peers[b]
	return a.alive && p != nil && p.talks && p.path.Choice().Direct.IsValid()
}

// works reports whether datagrams of a reach b by r.
func (w *world) works(a, b *node, r wire.Route) bool {
	for _, id := range r.Relays() {
		v := w.byShort[id]
		if !w.direct(a, v) || v.leaf {
			return false
		}
		a = v
	}
	return w.direct(a, b)
}

// routes counts the watched pairs: those that links can join within the limit of relays, and those of them that have a route
// which works.
func (w *world) routes() (joined, working int) {
	g := w.graph()
	for a := range g {
		a.mu.Lock()
		watched := a.watched
		a.mu.Unlock()
		if len(watched) == 0 {
			continue
		}
		far := g.edges(a)
		for _, b := range watched {
			if d, ok := far[b]; !ok || d > wire.MaxRelays+1 || a.cutOff(b) {
				continue
			}
			joined++
			if slices.ContainsFunc(a.routesTo(b)[:min(1, len(a.routesTo(b)))], func(r wire.Route) bool { return w.works(a, b, r) }) || far[b] == 1 {
				working++
			}
		}
	}
	return joined, working
}

func (n *node) cutOff(b *node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.revoked[b]
}

func (n *node) routesTo(b *node) []wire.Route {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.alive || n.revoked[b] {
		return nil
	}
	return n.routes().Routes(b.id)
}

// mapAgrees reports whether all that live hold the link state of each of them that it had a moment ago, and none of these
// lists one who is gone.
func (w *world) mapAgrees() bool {
	living := w.living()
	need := make([]wire.Version, len(living))
	alive := map[key.ShortID]bool{}
	for _, o := range living {
		alive[o.short] = true
	}
	for i, o := range living {
		o.mu.Lock()
		need[i] = o.own.Version
		if time.Since(o.ownAt) < freshness {
			need[i] = o.before
		}
		stale := len(o.own.Links) == 0 || slices.ContainsFunc(o.own.Links, func(l wire.Link) bool { return !alive[l.To] })
		o.mu.Unlock()
		if stale {
			return false
		}
	}
	for _, n := range living {
		if !n.holds(living, need) {
			return false
		}
	}
	return true
}

func (n *node) holds(of []*node, need []wire.Version) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, o := range of {
		if !n.revoked[o] && n.links.Version(o.short).Compare(need[i]) < 0 {
			return false
		}
	}
	return true
}

// flow is datagrams that go from one node to another all the time.
type flow struct {
	from, to *node
	seq      uint64
	timer    *time.Timer
	paused   bool          // guarded by from's lock
	last     time.Time     // arrival
	worst    time.Duration // between two
	arrived  int
}

// flow begins one.
func (w *world) flow(a, b *node) *flow {
	f := &flow{from: a, to: b}
	b.do(func(now time.Time) { b.flows[a] = f })
	a.mu.Lock()
	defer a.mu.Unlock()
	f.timer = time.AfterFunc(dataEvery, f.next)
	return f
}

func (f *flow) next() {
	f.from.mu.Lock()
	f.timer.Reset(dataEvery)
	f.from.mu.Unlock()
	f.from.do(func(now time.Time) {
		p := f.from.peerOf(now, f.to)
		if p == nil || f.paused {
			return
		}
		p.wantedUntil = now.Add(wantedFor)
		f.seq++
		if !p.talks {
			f.from.want(now, p)
			return
		}
		body := make([]byte, dataSize)
		body[0] = dataByte
		binary.BigEndian.PutUint64(body[1:], f.seq)
		c := p.path.Choice()
		f.from.send(p, c.Way, body)
		if c.Also.IsValid() {
			f.from.send(p, c.Also, body)
		}
	})
}

func (n *node) arrivedFlow(now time.Time, from *node, _ []byte) {
	if f := n.flows[from]; f != nil {
		if !f.last.IsZero() {
			f.worst = max(f.worst, now.Sub(f.last))
		}
		f.last = now
		f.arrived++
	}
}

// pause stops it for a while, or not.
func (f *flow) pause(on bool) {
	f.from.mu.Lock()
	f.paused = on
	f.from.mu.Unlock()
	f.to.mu.Lock()
	defer f.to.mu.Unlock()
	f.last = time.Time{}
}

// fresh forgets the gaps so far.
func (f *flow) fresh() {
	f.to.mu.Lock()
	defer f.to.mu.Unlock()
	f.worst = 0
}

// gap returns the longest silence since fresh, and how many datagrams came since the flow began.
func (f *flow) gap() (time.Duration, int) {
	f.to.mu.Lock()
	defer f.to.mu.Unlock()
	return max(f.worst, time.Since(f.last)), f.arrived
}
