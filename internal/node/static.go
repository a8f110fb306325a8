package node

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/path"
)

// How static addresses are tried (spec/70-discover.md#static-addresses).
const (
	staticTries  = 3
	staticGap    = 10 * time.Second
	staticRest   = 5 * time.Minute // between later tries, and between two looks at the DNS
	staticAtOnce = 8               // members that are tried at an address of whoever is there
)

// static is an address that the owner of this machine wrote down. It belongs to the control loop.
type static struct {
	member string // "": whoever is there
	at     string // host:port
	addrs  []netip.AddrPort
	tries  int
	next   time.Time
	turn   int // of the members that are tried
}

// readStatic reads what the config file says.
func readStatic(list string) (out []*static) {
	for _, text := range strings.Fields(list) {
		s := &static{at: text}
		if member, at, named := strings.Cut(text, "@"); named {
			s.member, s.at = member, at
		}
		out = append(out, s)
	}
	return out
}

// tendStatic tries the static addresses that are due and needed.
func (m *mesh) tendStatic(now time.Time) {
	for _, s := range m.static {
		if now.Before(s.next) {
			continue
		}
		who := m.missing(s)
		if len(who) == 0 {
			continue
		}
		if s.addrs == nil || s.tries >= staticTries {
			if !now.Before(m.lookAt) {
				m.lookAt = now.Add(staticRest)
				m.lookUp()
			}
		}
		if len(s.addrs) == 0 {
			continue
		}
		s.tries++
		s.next = now.Add(staticGap)
		if s.tries >= staticTries {
			s.next = now.Add(staticRest)
		}
		for _, p := range who {
			m.path.SetCandidates(now, p.id, path.SourceHint, s.addrs)
			m.call(now, p)
		}
	}
}

// missing lists the members for whom the address is to be tried now.
func (m *mesh) missing(s *static) (out []*peer) {
	for _, p := range m.peers {
		switch {
		case p.device:
		case s.member == "" && p.talks:
			return nil // the others will be found by way of that one
		case s.member == "" || s.member == p.name && !(p.talks && p.direct):
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *peer) int { return bytes.Compare(m.drawn(a), m.drawn(b)) })
	if len(out) > staticAtOnce {
		first := s.turn * staticAtOnce % len(out)
		out = append(out[first:], out[:first]...)[:staticAtOnce]
		s.turn++
	}
	return out
}

// lookUp finds the addresses of all names, beside the control loop.
func (m *mesh) lookUp() {
	n := m.w.n
	names := make([]string, len(m.static))
	for i, s := range m.static {
		names[i] = s.at
	}
	n.wg.Go(func() { // ends with ctx, or when the resolver gives up
		found := make([][]netip.AddrPort, len(names))
		for i, name := range names {
			var err error
			if found[i], err = resolve(n.ctx, name); err != nil && n.ctx.Err() == nil {
				m.log.Debug("static address not found", "name", name, "err", err)
			}
		}
		_ = n.call(n.ctx, func() { // an error: the node stops
			if m.w.mesh != m {
				return
			}
			for i, s := range m.static {
				if len(found[i]) > 0 && !slices.Equal(found[i], s.addrs) {
					s.addrs, s.tries, s.next = found[i], 0, time.Time{}
				}
			}
			m.houseAt = time.Time{}
		})
	})
}

// retryStatic begins anew, after the host's network has changed.
func (m *mesh) retryStatic() {
	m.lookAt = time.Time{}
	for _, s := range m.static {
		s.addrs, s.tries, s.next = nil, 0, time.Time{}
	}
}
