package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/dataplane"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/wire"
)

// When a search among many ports is worth it, and when its socket is given up (spec/73-nat.md#birthday).
const (
	searchFeet  = 256
	searchBytes = 5 << 20 // relayed
	searchRTT   = 150 * time.Millisecond
	footRest    = 2 * time.Minute // of a foot that is dead
)

// stance is the feet that are open for one peer.
type stance struct {
	addrs []netip.AddrPort
	done  bool // the search is over, what is left is the way
}

// newFeet makes the set of more sockets, if the owner of this machine wants searches.
func (n *Node) newFeet() {
	if n.opt.Config.Daemon.PortSearch && n.sys.NewFeet != nil {
		n.feet = n.sys.NewFeet()
	}
}

// over returns the socket that the data plane writes to.
func (n *Node) over() dataplane.Socket {
	var s dataplane.Socket = n.socket
	if n.streams != nil {
		s = n.streams.set.Over(s)
	}
	if n.feet != nil {
		s = n.feet.Over(s)
	}
	return s
}

// runFeet reads what comes by feet.
func (n *Node) runFeet() {
	if n.feet == nil {
		return
	}
	n.wg.Go(func() { // ends when shutdown closes the feet
		if err := n.plane.RunBeside(n.feet); err != nil {
			n.log.Error("more sockets are not read any more", "err", err)
		}
	})
}

// feetOf returns how many feet the path engine may ask for.
func (n *Node) feetOf() int {
	if n.feet == nil {
		return 0
	}
	return searchFeet
}

// mayStand lets path search for p once that is worth it: much was relayed already, or the relays are slow. fresh is the number of
// bytes that p carried since the last call.
func (m *mesh) mayStand(now time.Time, p *peer, fresh uint64) {
	if m.w.n.feet == nil || p.device || !p.path.Choice().Way.IsRelayed() {
		return
	}
	p.relayed += fresh
	m.path.AllowHard(now, p.id, p.relayed > searchBytes || m.path.Status(p.id).RTT > searchRTT)
}

// stand opens the feet that path asks for.
func (m *mesh) stand(now time.Time, e path.Feet) {
	set := m.w.n.feet
	if set == nil {
		return
	}
	m.lift(e.ID, netip.AddrPort{})
	addrs, err := set.Open(e.To, e.Count)
	if err != nil {
		m.log.Warn("fewer sockets than a search wants", "open", len(addrs), "err", err)
	}
	m.log.Debug("searching", "peer", e.ID, "at", e.To, "sockets", len(addrs))
	m.feet[e.ID] = &stance{addrs: addrs}
	m.path.SetFeet(now, e.ID, addrs)
}

// lift closes the feet for a peer, but keep, if that is one.
func (m *mesh) lift(id key.NodeID, keep netip.AddrPort) {
	s := m.feet[id]
	if s == nil {
		return
	}
	delete(m.feet, id)
	for _, a := range s.addrs {
		if a != keep {
			m.w.n.feet.Drop(a)
		} else {
			m.log.Debug("search was lucky", "peer", id, "socket", a.Port())
			m.feet[id] = &stance{addrs: []netip.AddrPort{a}, done: true}
		}
	}
}

// tendFeet closes what is no way to its peer any more.
func (m *mesh) tendFeet(now time.Time) {
	for id, s := range m.feet {
		stands := !s.done || slices.ContainsFunc(m.path.Status(id).Candidates, func(c path.CandidateStatus) bool {
			return c.Way == wire.Direct(s.addrs[0]) && (c.State != path.StateDead || now.Sub(c.LastProven) < footRest)
		})
		if !stands {
			m.lift(id, netip.AddrPort{})
		}
	}
}
