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
	To   wire.Way
	Ping wire.Ping
}

// SendPong wants Pong sent to To inside the session with ID. In a pong by a relayed way Observed is the zero AddrPort.
type SendPong struct {
	ID   key.NodeID
	To   wire.Way
	Pong wire.Pong
}

// Changed says that the path of ID, the Way of its [Choice], went from Old to New; the zero Way is no path.
type Changed struct {
	ID       key.NodeID
	Old, New wire.Way
}

// Direct says whether ID is now reached without relays, by the path or beside it: whether its [Choice] has a Direct. Only then
// can the two be a link.
type Direct struct {
	ID key.NodeID
	Up bool
}

// Dead says that no way to ID answers any more: the owner starts a handshake to Targets. There is one in an outage. A route
// that was not tried yet may be the path nevertheless.
type Dead struct{ ID key.NodeID }

// Proven says that ID was reached by Way, which is no stream, in both directions. An address is worth saving. For a route it is said again every
// 30 s while the route answers, and not before packets of 1280 bytes are known to pass by it: its relays do their work.
type Proven struct {
	ID  key.NodeID
	Way wire.Way
}

// Swallowed says that pings to ID by Route, relay by relay, were not answered, and that this is not because ID is gone, as
// far as can be known: a relay lost them without a word (spec/51-path.md#blame); or only the large ones.
type Swallowed struct {
	ID    key.NodeID
	Route wire.Route
}

// Vain says that pings to ID by Route were not answered, while something came from other members and nothing from ID by any way: ID
// may have gone, or relays lost them. Another route is worth a try.
type Vain struct {
	ID    key.NodeID
	Route wire.Route
}

// Observed says that the member By, which was asked at the address At, saw our packets come from Addr. One observer may lie.
type Observed struct {
	By       key.NodeID
	At, Addr netip.AddrPort
}

// SendCandidates wants Candidates sent to ID by the path.
type SendCandidates struct {
	ID         key.NodeID
	Candidates wire.Candidates
}

// Freshen says that a port of this node's predictable NAT is about to be told: observers that can be asked anew should be, and
// what they say come in by [Engine.SetOwn] (spec/73-nat.md#prediction).
type Freshen struct{}

// Feet asks for Count more UDP sockets that send to To, for a search for ID. The owner gives each an address that stands for
// it, and says so by [Engine.SetFeet]; or it does nothing, and the search fails.
type Feet struct {
	ID    key.NodeID
	To    netip.AddrPort
	Count int
}

// FeetDone says that the sockets for ID can be closed, but for the one that Keep stands for, if it is valid: that way works.
// The owner closes it when Keep is no candidate of ID any more.
type FeetDone struct {
	ID   key.NodeID
	Keep netip.AddrPort
}

func (SendPing) effect()       {}
func (SendPong) effect()       {}
func (Changed) effect()        {}
func (Direct) effect()         {}
func (Dead) effect()           {}
func (Proven) effect()         {}
func (Swallowed) effect()      {}
func (Vain) effect()           {}
func (Observed) effect()       {}
func (SendCandidates) effect() {}
func (Freshen) effect()        {}
func (Feet) effect()           {}
func (FeetDone) effect()       {}

// Status is what a person may ask about one peer.
type Status struct {
	Way        wire.Way         // the path; zero: none
	Why        string           // what made it the path, in a few words
	Detour     bool             // the path is relayed although a direct way answers
	Doubt      bool             // the path may not work: copies go by Also
	Thin       bool             // packets of 1280 bytes do not pass by the path, though small ones do
	Also       wire.Way         // zero: no copies
	RTT        time.Duration    // smoothed; zero: not measured
	Jitter     time.Duration    // smoothed deviation of the round trip
	Loss       float64          // share of pings not answered in time, 0 to 1, smoothed
	MTU        int              // bytes of an inner packet
	LastProven time.Time        // last answer by the present path; zero: none yet
	State      State            // of the present path
	Direct     *CandidateStatus // the path or the best address that answers; nil: it is not reached without relays
	Candidates []CandidateStatus
	Punch      PunchStatus // how it goes with a direct way, if there is none
}

// CandidateStatus describes one way to a peer; its fields are as in Status.
type CandidateStatus struct {
	Way         wire.Way
	State       State
	Thin        bool // packets of 1280 bytes do not pass by it, though small ones do
	RTT, Jitter time.Duration
	Loss        float64
	LastProven  time.Time
}

// Status describes id. It is the zero Status for an unknown peer.
func (e *Engine) Status(id key.NodeID) Status {
	p := e.peers[id]
	if p == nil {
		return Status{}
	}
	if p.work == nil { // as it would be, without making it
		p = &peer{id: id, stock: p.stock, lists: p.lists, work: newWork()}
		p.rebuild(time.Time{})
	}
	choice := p.hot.Choice()
	s := Status{MTU: choice.MTU, Also: choice.Also, Doubt: p.doubt, Detour: p.detour, Punch: e.punchStatus(p)}
	if c := p.current; c != nil {
		s.Way, s.Why, s.RTT, s.Jitter, s.Loss = c.way, p.why, c.rtt, c.jitter, c.loss
		s.LastProven, s.State, s.Thin = c.proven, c.state, c.mtu.thin
	} else if p.up {
		s.State = StateDead
	}
	if c := p.direct(); c != nil && p.current != nil {
		d := c.status()
		s.Direct = &d
	}
	for _, c := range p.cands {
		s.Candidates = append(s.Candidates, c.status())
	}
	return s
}

func (c *candidate) status() CandidateStatus {
	return CandidateStatus{Way: c.way, State: c.state, Thin: c.mtu.thin, RTT: c.rtt, Jitter: c.jitter, Loss: c.loss, LastProven: c.proven}
}
