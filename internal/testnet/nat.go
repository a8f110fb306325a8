package testnet

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"
)

// NATKind says how a NAT maps and filters (in the words of RFC 4787: mapping, then filtering).
type NATKind uint8

// The kinds. IPv6 is never translated: behind each of them it passes a stateful firewall as behind Firewall.
const (
	FullCone             NATKind = iota // endpoint-independent, anybody may answer
	AddressRestricted                   // endpoint-independent, who was sent to may answer, from any port
	PortRestricted                      // endpoint-independent, only from where was sent to
	SymmetricRandom                     // another random port for each destination, filter as PortRestricted
	SymmetricPredictable                // another port for each destination, a step from the one before, filter as PortRestricted
	Firewall                            // no translation; filter as PortRestricted
	Blocked                             // no UDP passes at all
)

// String names k as test names do.
func (k NATKind) String() string {
	return [...]string{"full cone", "address-restricted", "port-restricted", "symmetric random", "symmetric predictable", "firewall", "blocked"}[k]
}

func (k NATKind) symmetric() bool { return k == SymmetricRandom || k == SymmetricPredictable }

// realm is a range in which addresses mean one host each: the internet, or what lies behind one NAT.
type realm struct {
	owners map[netip.Addr]owner
	gate   *NAT // the way out; nil: this is the internet
}

// owner is a host, or the NAT that stands before it.
type owner struct {
	host *Host
	nat  *NAT
}

// NAT is a router with one public address and a realm behind it.
type NAT struct {
	net    *Net
	kind   NATKind
	public netip.Addr
	outer  *realm
	inner  *realm

	// all guarded by net.mu
	hairpin  bool
	timeout  time.Duration
	step     int
	rand     *rand.Rand
	next     int // SymmetricPredictable: the port that comes next
	byInner  map[flow]*mapping
	byPort   map[netip.AddrPort]*mapping
	mappings int // made so far
}

// flow is what gets a mapping of its own; remote is zero where the mapping is endpoint-independent.
type flow struct{ inner, remote netip.AddrPort }

// mapping is one open port.
type mapping struct {
	flow   flow
	outer  netip.AddrPort
	static bool                         // by Map: open to all
	used   time.Time                    // from inside
	sent   map[netip.AddrPort]time.Time // where to; with port 0 for the address alone
}

// NAT puts a router with the address public on the internet: 2 minutes timeout, no hairpinning, a step of 1.
// A public address that is taken is a mistake of the test: it panics.
func (n *Net) NAT(kind NATKind, public netip.Addr) *NAT {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newNAT(kind, public, n.internet)
}

// NAT puts a router behind this one, as in a double NAT or behind that of a provider.
func (x *NAT) NAT(kind NATKind, public netip.Addr) *NAT {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	return x.net.newNAT(kind, public, x.inner)
}

func (n *Net) newNAT(kind NATKind, public netip.Addr, outer *realm) *NAT {
	h := fnv.New64a()
	h.Write([]byte(public.String()))
	x := &NAT{net: n, kind: kind, public: public, outer: outer, timeout: 2 * time.Minute, step: 1,
		rand: rand.New(rand.NewPCG(n.seed, h.Sum64())), byInner: map[flow]*mapping{}, byPort: map[netip.AddrPort]*mapping{}}
	x.inner = &realm{owners: map[netip.Addr]owner{}, gate: x}
	x.next = 20000 + x.rand.IntN(20000)
	outer.claim(public, owner{nat: x})
	return x
}

// Host adds a machine behind the NAT. IPv4 addresses belong to its realm alone; IPv6 addresses, and all behind a Firewall,
// are seen from outside as well.
func (x *NAT) Host(name string, addrs ...netip.Addr) *Host { return x.net.host(name, x.inner, addrs) }

// Move takes the host to the realm behind x, or to the internet if x is nil, with other addresses. Sockets stay open.
func (h *Host) Move(x *NAT, addrs ...netip.Addr) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.leave()
	h.realm = h.net.internet
	if x != nil {
		h.realm = x.inner
	}
	h.setAddrs(addrs)
	h.tellChange()
}

// Public returns the NAT's outer address.
func (x *NAT) Public() netip.Addr { return x.public }

// SetHairpin says whether hosts behind the NAT reach each other by its public address.
func (x *NAT) SetHairpin(on bool) { x.set(func() { x.hairpin = on }) }

// SetTimeout sets how long a mapping, and a hole in the filter, lasts after the last packet from inside.
func (x *NAT) SetTimeout(d time.Duration) { x.set(func() { x.timeout = d }) }

// SetStep sets how far the ports of a SymmetricPredictable NAT are apart; it may be negative.
func (x *NAT) SetStep(step int) { x.set(func() { x.step = step }) }

// Skip makes a SymmetricPredictable NAT give away so many ports to others.
func (x *NAT) Skip(ports int) { x.set(func() { x.next += ports * x.step }) }

// Reset forgets all mappings, as when the router starts anew. Those by Map stay.
func (x *NAT) Reset() {
	x.set(func() {
		for _, m := range x.byPort {
			if !m.static {
				x.drop(m)
			}
		}
		for f, m := range x.byInner {
			if f != m.flow {
				delete(x.byInner, f)
			}
		}
	})
}

// Map opens the outer port to all and passes it on to inner, as a port mapping does.
func (x *NAT) Map(port uint16, inner netip.AddrPort) {
	x.set(func() {
		m := &mapping{outer: netip.AddrPortFrom(x.public, port), flow: flow{inner: inner}, static: true}
		x.byPort[m.outer] = m
		if !x.kind.symmetric() {
			x.byInner[m.flow] = m
		}
	})
}

// Mappings returns how many mappings were made so far.
func (x *NAT) Mappings() (n int) {
	x.set(func() { n = x.mappings })
	return n
}

func (x *NAT) set(f func()) {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	f()
}

// translates reports whether addresses of a's family get another one.
func (x *NAT) translates(a netip.Addr) bool { return x.kind != Firewall && a.Is4() == x.public.Is4() }

func (x *NAT) drop(m *mapping) {
	delete(x.byPort, m.outer)
	delete(x.byInner, m.flow)
}

// out lets a packet pass from inside and returns how its source looks outside. net.mu is held.
func (x *NAT) out(now time.Time, from, to netip.AddrPort) (netip.AddrPort, bool) {
	if x.kind == Blocked {
		return from, false
	}
	f := flow{inner: from}
	if x.kind.symmetric() && x.translates(from.Addr()) {
		f.remote = to
	}
	m := x.byInner[f]
	if m != nil && !m.static && now.Sub(m.used) >= x.timeout {
		x.drop(m)
		m = nil
	}
	if m == nil {
		m = &mapping{flow: f, outer: x.outside(from)}
		x.byInner[f], x.byPort[m.outer] = m, m
		x.mappings++
	}
	if m.sent == nil {
		m.sent = map[netip.AddrPort]time.Time{}
	}
	m.used = now
	m.sent[to], m.sent[netip.AddrPortFrom(to.Addr(), 0)] = now, now
	return m.outer, true
}

// outside picks the outer side of a new mapping.
func (x *NAT) outside(from netip.AddrPort) netip.AddrPort {
	if !x.translates(from.Addr()) {
		return from
	}
	for {
		port := 1024 + x.rand.IntN(1<<16-1024)
		if x.kind == SymmetricPredictable {
			port = x.next
			x.next = 1024 + (x.next-1024+x.step+(1<<16-1024))%(1<<16-1024)
		}
		if a := netip.AddrPortFrom(x.public, uint16(port)); x.byPort[a] == nil {
			return a
		}
	}
}

// in lets a packet pass from outside and returns to whom inside. net.mu is held.
func (x *NAT) in(now time.Time, from, to netip.AddrPort) (netip.AddrPort, bool) {
	m := x.byPort[to]
	if m == nil || x.kind == Blocked {
		return to, false
	}
	if m.static {
		if x.kind.symmetric() { // the answer goes out as it came in
			x.byInner[flow{m.flow.inner, from}] = m
		}
		return m.flow.inner, true
	}
	if now.Sub(m.used) >= x.timeout {
		x.drop(m)
		return to, false
	}
	switch {
	case x.kind == FullCone && x.translates(to.Addr()):
		return m.flow.inner, true
	case x.kind == AddressRestricted && x.translates(to.Addr()):
		from = netip.AddrPortFrom(from.Addr(), 0)
	}
	sent, ok := m.sent[from]
	return m.flow.inner, ok && now.Sub(sent) < x.timeout
}

// claim makes o the owner of a.
func (r *realm) claim(a netip.Addr, o owner) {
	if _, taken := r.owners[a]; taken {
		panic("BUG: testnet: " + a.String() + " is taken")
	}
	r.owners[a] = o
}

// visible calls f with every realm in which an address of a host in r is seen, and with its owner there.
func (r *realm) visible(h *Host, a netip.Addr, f func(*realm, owner)) {
	f(r, owner{host: h})
	for g := r.gate; g != nil && !g.translates(a); g = g.outer.gate {
		f(g.outer, owner{nat: g})
	}
}

// leave takes a packet out of the sender's realm, to where the destination is known. It returns the source as it looks
// there. net.mu is held.
func (r *realm) leave(now time.Time, from, to netip.AddrPort) (at *realm, src netip.AddrPort, fate Fate) {
	for {
		if _, ok := r.owners[to.Addr()]; ok {
			return r, from, ""
		}
		g := r.gate
		if g == nil {
			return r, from, Unreachable
		}
		if to.Addr() == g.public && !g.hairpin {
			return r, from, Filtered
		}
		var ok bool
		if from, ok = g.out(now, from, to); !ok {
			return r, from, Filtered
		}
		r = g.outer
	}
}

// host finds whom to means in r as things stand now, without changing anything; nil if nobody.
func (r *realm) host(to netip.AddrPort) *Host {
	for {
		o := r.owners[to.Addr()]
		if o.nat == nil {
			return o.host
		}
		if m := o.nat.byPort[to]; m != nil {
			to = m.flow.inner
		} else if o.nat.translates(to.Addr()) {
			return nil
		}
		r = o.nat.inner
	}
}
