package route

import (
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// When many nodes vanish at once, their neighbours' turns to ping them are gone with them; the survivors need not wait for what is left of
// the turns (spec/54-routes.md#watch).
const (
	gapWait    = 2 * time.Second // for the other end to say that it gave the link up, too
	gapMemory  = 15 * time.Second
	maxGaps    = 64
	alarmLeast = 2 // nodes that seem gone, and as many that say so
	alarmPause = time.Minute
)

// gap is a link that the node by states no more while the one that is missed still does.
type gap struct {
	by, missed key.ShortID
	at         time.Time
}

// alarm has this node ask all its neighbours when more than one node seems to have gone.
type alarm struct {
	gaps []gap // oldest first
	due  time.Time
	rang time.Time
}

// early reports whether missed has spoken so lately that it may have to hold its news back, or since.
func (g *gap) early(missed *node) bool { return g.at.Sub(missed.heard) < holdMost }

// note remembers that by lost its link with missed, which has not said so. When there is no room, those that are there are enough: were
// they to make room, none would have its time in a great loss.
func (a *alarm) note(now time.Time, by, missed *node) {
	said := 0
	for _, g := range a.gaps {
		if g.by == by.short {
			said++
		}
	}
	g := gap{by.short, missed.short, now}
	if len(a.gaps) == maxGaps || said == alarmLeast || g.early(missed) { // nor can one node take the room
		return
	}
	a.gaps = append(a.gaps, g)
	a.due = earlier(a.due, now.Add(gapWait))
}

// tickAlarm looks at the gaps whose other end has had its time to speak.
func (e *Engine) tickAlarm(now time.Time) {
	a := &e.alarm
	if !reached(a.due, now) {
		return
	}
	a.due = time.Time{}
	a.gaps = slices.DeleteFunc(a.gaps, func(g gap) bool { return now.Sub(g.at) >= gapMemory || !e.isOpen(g) })
	by, missed := map[key.ShortID]bool{}, map[key.ShortID]bool{}
	for _, g := range a.gaps {
		if ripe := g.at.Add(gapWait); now.Before(ripe) {
			a.due = earlier(a.due, ripe)
			continue
		}
		a.due = earlier(a.due, g.at.Add(gapMemory)) // else the room would stay taken
		by[g.by], missed[g.missed] = true, true
	}
	if len(by) < alarmLeast || len(missed) < alarmLeast || !a.rang.IsZero() && now.Sub(a.rang) < alarmPause {
		return
	}
	a.rang = now
	for _, n := range e.neighbours {
		if n.linked && now.Sub(n.checked) >= checkGap {
			n.checked = now
			e.effect(Check{n.id})
		}
	}
}

// isOpen reports whether g is as it was.
func (e *Engine) isOpen(g gap) bool {
	by, missed := e.nodeOf(g.by), e.members[g.missed]
	if by == nil || missed == nil || g.early(missed) {
		return false
	}
	if _, states := missed.lists(by); !states {
		return false
	}
	if by == e.self {
		return missed.neighbour == nil || !missed.neighbour.linked
	}
	_, again := by.lists(missed)
	return !again
}
