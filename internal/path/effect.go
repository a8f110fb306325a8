package path

import (
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Effect is one thing that the owner must carry out: one of the types below.
type Effect interface{ effect() }

// SendPing wants Ping sent to To inside the session with ID.
type SendPing struct {
	ID   key.NodeID
	To   netip.AddrPort
	Ping wire.Ping
}

// SendPong wants Pong sent to To inside the session with ID.
type SendPong struct {
	ID   key.NodeID
	To   netip.AddrPort
	Pong wire.Pong
}

// Changed says that Best of ID's Peer went from Old to New; the zero AddrPort is no path.
type Changed struct {
	ID       key.NodeID
	Old, New netip.AddrPort
}

// Dead says that no address of ID answers any more: the owner starts a handshake to Targets.
type Dead struct{ ID key.NodeID }

// Proven says that ID was reached at Addr in both directions: it is worth saving.
type Proven struct {
	ID   key.NodeID
	Addr netip.AddrPort
}

// Observed says that the member By saw our packets come from Addr. One observer may lie.
type Observed struct {
	By   key.NodeID
	Addr netip.AddrPort
}

func (SendPing) effect() {}
func (SendPong) effect() {}
func (Changed) effect()  {}
func (Dead) effect()     {}
func (Proven) effect()   {}
func (Observed) effect() {}

// Status is what a person may ask about one peer.
type Status struct {
	Endpoint   netip.AddrPort // zero: no path
	RTT        time.Duration  // smoothed; zero: not measured
	MTU        int            // bytes of an inner packet
	LastProven time.Time      // last answer by the present path; zero: none yet
	State      State          // of the present path
	Candidates []CandidateStatus
}

// CandidateStatus describes one address of a peer.
type CandidateStatus struct {
	Addr       netip.AddrPort
	State      State
	RTT        time.Duration
	LastProven time.Time
}

// Status describes id. It is the zero Status for an unknown peer.
func (e *Engine) Status(id key.NodeID) Status {
	p := e.peers[id]
	if p == nil {
		return Status{}
	}
	s := Status{MTU: p.hot.MTU()}
	if c := p.current; c != nil {
		s.Endpoint, s.RTT, s.LastProven, s.State = c.addr, c.rtt, c.proven, c.state
	} else if p.up {
		s.State = StateDead
	}
	for _, c := range p.cands {
		s.Candidates = append(s.Candidates, CandidateStatus{Addr: c.addr, State: c.state, RTT: c.rtt, LastProven: c.proven})
	}
	return s
}
