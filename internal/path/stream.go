package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// streamRetry is when addresses are asked again while the path is a stream (spec/51-path.md#streams).
const streamRetry = time.Minute

// SetStreams replaces the streams that the owner opened to id, by their addresses; the first four count. Those that the peer
// opened need not be named: it speaks by them.
func (e *Engine) SetStreams(now time.Time, id key.NodeID, streams []netip.AddrPort) {
	p := e.peers[id]
	if p == nil || p.stock || p.work == nil && len(streams) == 0 {
		return
	}
	e.awake(id)
	list := slices.DeleteFunc(slices.Clone(streams), func(a netip.AddrPort) bool { return !wire.IsStream(a.Addr()) })
	list = list[:min(len(list), maxStreams)]
	if slices.Equal(list, p.streams) {
		return
	}
	p.streams = list
	p.rebuild(now)
	e.run(now, p)
}

// StreamDown says that a stream has ended, whoever opened it: it is no way to anybody from now on.
func (e *Engine) StreamDown(now time.Time, stream netip.AddrPort) {
	is := func(a netip.AddrPort) bool { return a == stream }
	for _, p := range e.order {
		p.streams = slices.DeleteFunc(slices.Clone(p.streams), is)
		p.seen = slices.DeleteFunc(p.seen, is)
		c := p.find(wire.Direct(stream))
		if c == nil {
			continue
		}
		if c.state != StateDead {
			e.dead(now, p, c)
		}
		p.rebuild(now)
		e.run(now, p)
	}
}

// retryDue asks the addresses that do not answer again each minute while the path is a stream.
func (e *Engine) retryDue(now time.Time, p *peer) {
	switch {
	case p.current == nil || !p.current.stream():
		p.retryAt = time.Time{}
		return
	case p.retryAt.IsZero():
		p.retryAt = now.Add(streamRetry)
		return
	case now.Before(p.retryAt):
		return
	}
	p.retryAt = now.Add(streamRetry)
	for _, c := range p.cands {
		c.once(now)
	}
}

// once lets a direct address that does not answer be tried now, and once more than politeness has it.
func (c *candidate) once(now time.Time) {
	if c.relayed() || c.stream() || c.state == StateAlive {
		return
	}
	if n := len(c.attempts); n >= maxAttempts {
		c.attempts = c.attempts[n-maxAttempts+1:]
	}
	c.due = now
}

// class ranks ways: by UDP, by streams, by relays.
func (c *candidate) class() int {
	switch {
	case c.relayed():
		return 2
	case c.stream():
		return 1
	}
	return 0
}

// open reports whether p is reached by an address that is no stream.
func (p *peer) open() bool {
	c := p.direct()
	if c != nil && c.stream() {
		c = p.bestDirect(nil)
	}
	return c != nil && !c.stream()
}
