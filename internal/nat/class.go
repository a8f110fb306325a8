package nat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Judgement (spec/73-nat.md#classes, spec/73-nat.md#confirmed).
const (
	cluster  = 30 * time.Second // mappings that were made within it are compared
	maxStep  = 16               // from one port to the next, on average
	prefix4  = 16               // observers within one count as one
	prefix6  = 32
	agreeing = 2 // observers of different prefixes
)

// notOutside lists where no host on the internet is. Ranges for documentation are not among them: they do no harm, and
// examples use them.
var notOutside = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

var globalIPv6 = netip.MustParsePrefix("2000::/3")

// reserved reports whether no host on the internet can have a.
func reserved(a netip.Addr) bool {
	if !a.Is4() {
		return !globalIPv6.Contains(a)
	}
	return slices.ContainsFunc(notOutside, func(p netip.Prefix) bool { return p.Contains(a) })
}

// outside reports whether a can be an address of ours on the internet.
func (e *Engine) outside(a netip.AddrPort) bool {
	return a.Port() != 0 && !reserved(a.Addr()) && (e.cfg.Refuse == nil || !e.cfg.Refuse(a.Addr()))
}

// network returns the prefix of an observer: within it, one hand may hold all addresses.
func network(a netip.Addr) netip.Prefix {
	bits := prefix6
	if a.Is4() {
		bits = prefix4
	}
	p, _ := a.Prefix(bits)
	return p
}

// classOf judges one family. Where there are too few observers, what was found before stands.
func (e *Engine) classOf(now time.Time, f *family, v4 bool) wire.NAT {
	if e.local != nil && !slices.ContainsFunc(e.local, func(a netip.AddrPort) bool { return a.Addr().Is4() == v4 && !a.Addr().IsLinkLocalUnicast() }) {
		return wire.NAT{Class: wire.NATBlocked}
	}
	for _, a := range e.mapped {
		if a.Addr().Is4() == v4 && f.sees(a.Addr()) {
			f.found = now
			return wire.NAT{Class: wire.NATOpen}
		}
	}
	if nat, ok := e.observedClass(f); ok {
		f.found = now
		return nat
	}
	if at := f.blockedAt(); !at.IsZero() && !at.After(now) {
		return wire.NAT{Class: wire.NATBlocked}
	}
	if f.class.Class == wire.NATBlocked || now.Sub(f.found) >= classLife {
		return wire.NAT{}
	}
	return f.class
}

// observedClass judges by what was observed; false means that this is too little.
func (e *Engine) observedClass(f *family) (wire.NAT, bool) {
	if len(f.seen) == 0 {
		return wire.NAT{}, false
	}
	top, count, hosts := f.majority()
	switch others := len(f.seen) - count; {
	case slices.Contains(e.local, top) && count > others:
		return wire.NAT{Class: wire.NATOpen}, true
	case hosts >= 2 && count > others:
		return wire.NAT{Class: wire.NATIndependent}, true
	case others == 0: // one host's word
		return wire.NAT{}, false
	}
	return f.symmetric(), true
}

// majority returns the address that most observers saw, the newest among equals, how many of them, and on how many hosts.
func (f *family) majority() (top netip.AddrPort, count, hosts int) {
	for _, o := range slices.Backward(f.seen) {
		var by []netip.Addr
		n := 0
		for _, p := range f.seen {
			if p.saw != o.saw {
				continue
			}
			n++
			if !slices.Contains(by, p.by.Addr()) {
				by = append(by, p.by.Addr())
			}
		}
		if n > count {
			top, count, hosts = o.saw, n, len(by)
		}
	}
	return top, count, hosts
}

// symmetric tells ports that follow each other from random ones. Only mappings that were made at about the same time are
// compared: the port moves on whenever anybody behind the NAT opens one.
func (f *family) symmetric() wire.NAT {
	var best []observation
	for i := range f.seen {
		j := i
		for j < len(f.seen) && f.seen[j].first.Sub(f.seen[i].first) <= cluster {
			j++
		}
		if j-i >= len(best) {
			best = f.seen[i:j]
		}
	}
	up := 0
	var ports []int
	for i, o := range best {
		if o.saw.Addr() != best[0].saw.Addr() {
			return wire.NAT{Class: wire.NATRandom}
		}
		switch {
		case i == 0 || !o.sure || !best[i-1].sure: // who knows which was first?
		case o.saw.Port() > best[i-1].saw.Port():
			up++
		default:
			up--
		}
		ports = append(ports, int(o.saw.Port()))
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	n := len(ports) - 1
	if n < 1 || ports[n]-ports[0] > maxStep*n {
		return wire.NAT{Class: wire.NATRandom}
	}
	step := 0
	for i := range n {
		step = gcd(step, ports[i+1]-ports[i])
	}
	if up < 0 {
		step = -step
	}
	return wire.NAT{Class: wire.NATPredictable, Step: int8(step)}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// sees reports whether an observer saw us at the IP address a.
func (f *family) sees(a netip.Addr) bool {
	return slices.ContainsFunc(f.seen, func(o observation) bool { return o.saw.Addr() == a })
}

// blockedAt returns when what was tried without an answer means that nothing comes back; zero is not yet, or never.
func (f *family) blockedAt() time.Time {
	if len(f.tried) < blockedTries || len(f.seen) > 0 {
		return time.Time{}
	}
	return f.since.Add(blockedAfter)
}

// confirmed lists the addresses outside that are believed (spec/73-nat.md#confirmed).
func (e *Engine) confirmed() (out []netip.AddrPort) {
	for _, a := range e.mapped {
		if e.family(a.Addr()).sees(a.Addr()) {
			out = append(out, a)
		}
	}
	for _, f := range []*family{&e.v4, &e.v6} {
		by := map[netip.AddrPort][]netip.Prefix{}
		for _, o := range f.seen {
			if p := network(o.by.Addr()); !slices.Contains(by[o.saw], p) {
				by[o.saw] = append(by[o.saw], p)
			}
			if len(by[o.saw]) >= agreeing && !slices.Contains(out, o.saw) && !slices.Contains(e.local, o.saw) {
				out = append(out, o.saw)
			}
		}
	}
	return out
}

// byHand lists where the router of a symmetric NAT may pass our port on without our knowledge: at the IPv4 addresses that two who
// are far apart saw us at, whatever the ports (spec/73-nat.md#by-hand).
func (e *Engine) byHand() (out []netip.AddrPort) {
	f := &e.v4
	if !f.class.Class.Symmetric() || len(e.local) == 0 {
		return nil
	}
	by := map[netip.Addr][]netip.Prefix{}
	for _, o := range f.seen {
		a, p := netip.AddrPortFrom(o.saw.Addr(), e.local[0].Port()), network(o.by.Addr())
		if !slices.Contains(by[a.Addr()], p) {
			by[a.Addr()] = append(by[a.Addr()], p)
		}
		if len(by[a.Addr()]) >= agreeing && !slices.Contains(out, a) && !slices.Contains(e.local, a) {
			out = append(out, a)
		}
	}
	return out
}

// candidates lists what a peer should try, the most promising first (spec/73-nat.md#candidates).
func (e *Engine) candidates(confirmed, byHand []netip.AddrPort) (out []wire.Candidate) {
	add := func(kind wire.CandidateKind, a netip.AddrPort) {
		if a.IsValid() && len(out) < wire.MaxCandidates && !slices.ContainsFunc(out, func(c wire.Candidate) bool { return c.Addr == a }) {
			out = append(out, wire.Candidate{Kind: kind, Addr: a})
		}
	}
	for _, a := range confirmed {
		if slices.Contains(e.mapped, a) {
			add(wire.CandidateMapped, a)
		}
	}
	for _, f := range []*family{&e.v6, &e.v4} {
		if a := f.base(); !slices.Contains(e.local, a) {
			add(wire.CandidateExternal, a)
		}
	}
	for _, a := range slices.Concat(confirmed, byHand) {
		add(wire.CandidateExternal, a)
	}
	for _, public := range []bool{true, false} {
		for _, a := range e.local {
			if !reserved(a.Addr()) == public {
				add(wire.CandidateHost, a)
			}
		}
	}
	return out
}

// base returns the address outside from which to guess: what most see, or of a symmetric NAT the port that was made last.
func (f *family) base() netip.AddrPort {
	if len(f.seen) == 0 {
		return netip.AddrPort{}
	}
	last := f.seen[len(f.seen)-1]
	switch f.class.Class {
	case wire.NATPredictable:
		for _, o := range f.seen {
			far := int(o.saw.Port()) - int(last.saw.Port())
			if last.first.Sub(o.first) <= cluster && o.saw.Addr() == last.saw.Addr() && far*int(f.class.Step) > 0 {
				last = o
			}
		}
		return last.saw
	case wire.NATRandom:
		return last.saw
	}
	top, _, _ := f.majority()
	return top
}
