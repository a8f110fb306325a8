package route

import (
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Effect is one thing that the owner must carry out: one of the types below.
type Effect interface{ effect() }

// Dial wants a session with a direct path to ID kept up until Release: for a link, or to learn how far ID is. There may be
// one already. The owner tries again by itself when it fails, and calls [Engine.Up] when it has come about.
type Dial struct{ ID key.NodeID }

// Release takes Dial back: the session may end when nothing else needs it.
type Release struct{ ID key.NodeID }

// SendWish wants Wish sent inside the session with ID.
type SendWish struct {
	ID   key.NodeID
	Wish wire.LinkWish
}

// Pace says when the link with ID is to be pinged while it is idle: every so often, if that can be, at the moment that comes
// Share of the time between two after Since. Zero Every is none of this.
type Pace struct {
	ID    key.NodeID
	Every time.Duration
	Share float64 // 0 to 1
	Since time.Time
}

// Check wants the link with ID pinged now: another one seems to have lost ID.
type Check struct{ ID key.NodeID }

// LinkUp says that both sides want the link with ID now: link states flow over it.
type LinkUp struct{ ID key.NodeID }

// LinkDown says that the link with ID is none any more.
type LinkDown struct{ ID key.NodeID }

// Originate wants State signed and flooded: this node's newest.
type Originate struct{ State wire.LinkState }

// Expired says that the link state of Node became too old and counts no more.
type Expired struct{ Node key.ShortID }

// RoutesChanged says that [Engine.Routes] has another answer for each of IDs, which were asked for before.
type RoutesChanged struct{ IDs []key.NodeID }

// GroupsChanged says that [Engine.Groups] has another answer.
type GroupsChanged struct{}

func (Dial) effect()          {}
func (Release) effect()       {}
func (SendWish) effect()      {}
func (Pace) effect()          {}
func (Check) effect()         {}
func (LinkUp) effect()        {}
func (LinkDown) effect()      {}
func (Originate) effect()     {}
func (Expired) effect()       {}
func (RoutesChanged) effect() {}
func (GroupsChanged) effect() {}
