package testnet

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Link is how packets fare in one direction between two hosts. The zero Link is perfect: at once, without loss or limit.
type Link struct {
	Delay     time.Duration // one way
	Jitter    time.Duration // up to so much more, drawn for each packet; it alone never reorders
	Loss      float64       // share of packets lost, 0 to 1
	Duplicate float64       // share of packets that arrive twice, 0 to 1
	Reorder   float64       // share of packets that are held back so that later ones overtake them, 0 to 1
	MTU       int           // largest packet in bytes, IP and UDP header included; larger ones vanish silently; 0: no limit
	Rate      int           // bits per second; 0: no limit
	Queue     time.Duration // with Rate: a packet that would have to wait longer is dropped; 0: 100 ms
}

// Fate is what became of a packet.
type Fate string

// The fates of a packet.
const (
	Delivered   Fate = "delivered"
	Lost        Fate = "lost"         // by Link.Loss
	TooBig      Fate = "too big"      // for Link.MTU
	QueueFull   Fate = "queue full"   // at Link.Rate, or at the receiving socket
	Partitioned Fate = "partitioned"  // by Net.Partition
	Unreachable Fate = "unreachable"  // no host has the address any more, or it is unplugged
	Filtered    Fate = "filtered"     // by a NAT
	PortClosed  Fate = "port closed"  // the host has no socket there
	NetClosed   Fate = "still on way" // when the Net was closed
)

// Packet is one datagram as a tap sees it, between the NATs that it passes. Data belongs to the packet: read it, do not keep
// or change it.
type Packet struct {
	At       time.Time
	From, To netip.AddrPort
	Data     []byte
	Fate     Fate
}

// Net is a simulated internet. The zero Net is not usable: see [New].
type Net struct {
	seed uint64

	mu       sync.Mutex
	hosts    map[string]*Host
	internet *realm
	standard Link           // of links that were never set
	island   map[string]int // host -> group, while partitioned
	taps     []func(Packet)
	counts   map[Fate]int
	pending  queue
	spare    []*event // done with
	sequence uint64
	timer    *time.Timer
	closed   bool
}

// pipe is one direction of a link.
type pipe struct {
	Link
	rand *rand.Rand
	busy time.Time // with Rate: when the last packet will have left
	last time.Time // the latest arrival so far: later packets do not arrive before it, unless Reorder says so
}

// New makes an internet without hosts. The same seed gives the same fates. Close it when the test ends.
func New(seed uint64) *Net {
	return &Net{seed: seed, hosts: map[string]*Host{}, internet: &realm{owners: map[netip.Addr]owner{}},
		counts: map[Fate]int{}}
}

// Close ends the internet: what is under way is dropped, every socket is closed. Calling it again does nothing.
func (n *Net) Close() {
	n.mu.Lock()
	n.closed = true
	if n.timer != nil {
		n.timer.Stop()
	}
	for _, e := range n.pending {
		n.report(e.Packet, NetClosed)
	}
	n.pending = nil
	var open []*Socket
	for _, h := range n.hosts {
		for _, s := range h.sockets {
			open = append(open, s)
		}
	}
	n.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
}

// SetDefault sets the link between all hosts that SetLink and SetOneWay have not named, from now on.
func (n *Net) SetDefault(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standard = l
	for _, h := range n.hosts {
		for to, p := range h.pipes {
			if h.links[to] == nil {
				p.Link = l
			}
		}
	}
}

// SetLink sets the link between a and b, both ways, from now on; packets under way are not touched.
func (n *Net) SetLink(a, b *Host, l Link) {
	n.SetOneWay(a, b, l)
	n.SetOneWay(b, a, l)
}

// SetOneWay sets the link from one host to another, from now on.
func (n *Net) SetOneWay(from, to *Host, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from.links[to.name] = &l
	n.pipe(from, to.name).Link = l
}

// Partition lets only hosts of the same group reach each other; a host in no group is alone. It replaces any partition
// before. What is under way across the border is dropped on arrival.
func (n *Net) Partition(groups ...[]*Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.island = map[string]int{}
	for i, g := range groups {
		for _, h := range g {
			n.island[h.name] = i + 1
		}
	}
}

// Heal ends the partition.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.island = nil
}

// Tap calls f with every packet when its fate is known. f must be quick and must not call the Net.
func (n *Net) Tap(f func(Packet)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taps = append(n.taps, f)
}

// Count returns how many packets had that fate so far.
func (n *Net) Count(f Fate) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts[f]
}

// Wait lets d pass. Inside a bubble this is virtual: everything that would happen in d happens. It exists so that tests need
// no time.Sleep, which outside of a bubble would be waiting for luck.
func Wait(d time.Duration) { time.Sleep(d) }

func (n *Net) apart(a, b *Host) bool {
	if n.island == nil || a == b {
		return false
	}
	return n.island[a.name] == 0 || n.island[a.name] != n.island[b.name]
}

// pipe returns the direction from a host to one of that name, made on first use.
func (n *Net) pipe(from *Host, to string) *pipe {
	p := from.pipes[to]
	if p == nil {
		h := fnv.New64a()
		h.Write([]byte(from.name + "\x00" + to))
		p = &pipe{Link: n.standard, rand: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		if l := from.links[to]; l != nil {
			p.Link = *l
		}
		from.pipes[to] = p
	}
	return p
}

// send puts one datagram on its way; data is copied. n.mu is held.
func (n *Net) send(from *Host, p Packet) {
	p.Data = append([]byte(nil), p.Data...)
	if from.unplugged {
		n.report(p, Unreachable)
		return
	}
	where, src, fate := from.realm.leave(p.At, p.From, p.To)
	if p.From = src; fate != "" {
		n.report(p, fate)
		return
	}
	var name string
	switch to := where.host(p.To); {
	case to == from && where == from.realm:
		n.schedule(p.At, from, where, p)
		return
	case to != nil:
		name = to.name
	default:
		name = p.To.Addr().String() // of a NAT, when nobody behind it is meant yet
	}
	link := n.pipe(from, name)
	if link.MTU > 0 && wireSize(p) > link.MTU {
		n.report(p, TooBig)
		return
	}
	// All draws are made for every packet, so that one packet's fate does not shift those of the next.
	loss, double, hold, jitter, again := link.rand.Float64(), link.rand.Float64(), link.rand.Float64(), link.rand.Float64(), link.rand.Float64()
	at := p.At
	if link.Rate > 0 {
		queue := link.Queue
		if queue == 0 {
			queue = 100 * time.Millisecond
		}
		if link.busy.After(at) {
			at = link.busy
		}
		if at.Sub(p.At) > queue {
			n.report(p, QueueFull)
			return
		}
		at = at.Add(time.Duration(float64(wireSize(p)*8) / float64(link.Rate) * float64(time.Second)))
		link.busy = at
	}
	if loss < link.Loss {
		n.report(p, Lost)
		return
	}
	at = at.Add(link.Delay + time.Duration(jitter*float64(link.Jitter)))
	if hold < link.Reorder {
		at = at.Add(time.Duration((0.5 + again) * float64(max(link.Delay, link.Jitter, time.Millisecond))))
	} else if link.last.After(at) {
		at = link.last
	} else {
		link.last = at
	}
	n.schedule(at, from, where, p)
	if double < link.Duplicate {
		n.schedule(at.Add(time.Duration(again*float64(max(link.Jitter, time.Millisecond)))), from, where, p)
	}
}

// wireSize is the size of the whole IP packet.
func wireSize(p Packet) int {
	if p.To.Addr().Is4() {
		return len(p.Data) + 20 + 8
	}
	return len(p.Data) + 40 + 8
}

// event is a packet that will arrive.
type event struct {
	Packet
	from     *Host
	where    *realm // in which the addresses are to be read
	at       time.Time
	sequence uint64
}

// schedule lets p arrive at the given time. n.mu is held.
func (n *Net) schedule(at time.Time, from *Host, where *realm, p Packet) {
	if n.closed {
		n.report(p, NetClosed)
		return
	}
	n.sequence++
	e := new(event)
	if last := len(n.spare) - 1; last >= 0 {
		e, n.spare = n.spare[last], n.spare[:last]
	}
	*e = event{p, from, where, at, n.sequence}
	n.pending.push(e)
	if n.pending[0].sequence == n.sequence {
		n.rearm()
	}
}

// rearm sets the timer to the next arrival. n.mu is held.
func (n *Net) rearm() {
	if len(n.pending) == 0 || n.closed {
		return
	}
	d := time.Until(n.pending[0].at)
	if n.timer == nil {
		n.timer = time.AfterFunc(d, n.arrivals)
		return
	}
	n.timer.Reset(d)
}

// arrivals delivers what is due.
func (n *Net) arrivals() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for now := time.Now(); len(n.pending) > 0 && !n.pending[0].at.After(now); {
		e := n.pending.pop()
		n.report(e.Packet, n.deliver(e))
		*e = event{}
		n.spare = append(n.spare, e)
	}
	n.rearm()
}

// deliver hands a packet to the socket that has its address now. n.mu is held.
func (n *Net) deliver(e *event) Fate {
	now, addr := time.Now(), e.To
	o := e.where.owners[addr.Addr()]
	for o.nat != nil {
		var ok bool
		if addr, ok = o.nat.in(now, e.From, addr); !ok {
			return Filtered
		}
		o = o.nat.inner.owners[addr.Addr()]
	}
	to := o.host
	switch {
	case to == nil || to.unplugged:
		return Unreachable
	case n.apart(e.from, to):
		return Partitioned
	}
	s := to.sockets[addr.Port()]
	if s == nil {
		return PortClosed
	}
	select {
	case s.in <- datagram{e.Data, e.From}:
		return Delivered
	default:
		return QueueFull
	}
}

// report tells the taps. n.mu is held.
func (n *Net) report(p Packet, fate Fate) {
	p.At, p.Fate = time.Now(), fate
	n.counts[fate]++
	for _, f := range n.taps {
		f(p)
	}
}

// queue is a heap of events: earliest first, and in order of sending when two arrive together.
type queue []*event

func (e *event) before(o *event) bool {
	if c := e.at.Compare(o.at); c != 0 {
		return c < 0
	}
	return e.sequence < o.sequence
}

func (q *queue) push(e *event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// pop takes the first event out. There is one.
func (q *queue) pop() *event {
	h := *q
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], nil
	h = h[:last]
	*q = h
	for i := 0; ; {
		next := 2*i + 1
		if next+1 < last && h[next+1].before(h[next]) {
			next++
		}
		if next >= last || !h[next].before(h[i]) {
			return first
		}
		h[i], h[next] = h[next], h[i]
		i = next
	}
}
