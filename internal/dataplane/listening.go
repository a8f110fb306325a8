package dataplane

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/wire"
)

// Times and limits of what is known of the host's own groups (spec/55-broadcast.md#asking).
const (
	askEvery  = 125 * time.Second
	groupLife = 260 * time.Second
	maxHeard  = 256
)

// Listening is what the control loop knows of the groups that its host listens to in one network. The zero Listening knows
// none. It belongs to one goroutine.
type Listening struct {
	heard map[netip.Addr]time.Time // when the host said so last
	askAt time.Time
}

// Hear takes the Data of an [EventGroups].
func (l *Listening) Hear(now time.Time, data []byte) {
	said, _ := packet.ParseMembership(nil, data)
	for _, m := range said {
		_, known := l.heard[m.Group]
		switch {
		case !m.Joins:
			delete(l.heard, m.Group)
		case known || len(l.heard) < maxHeard: // more than can be listed is every group anyway
			if l.heard == nil {
				l.heard = map[netip.Addr]time.Time{}
			}
			l.heard[m.Group] = now
		}
	}
}

// Tick forgets what was not heard again in time. ask says that it is time to call [Network.AskGroups]; next is when to tick again.
func (l *Listening) Tick(now time.Time) (next time.Time, ask bool) {
	if ask = !now.Before(l.askAt); ask {
		l.askAt = now.Add(askEvery)
	}
	next = l.askAt
	for g, t := range l.heard {
		if end := t.Add(groupLife); !now.Before(end) {
			delete(l.heard, g)
		} else if end.Before(next) {
			next = end
		}
	}
	return next, ask
}

// Groups returns the numbers for this node's link state, ascending: GroupAny alone when there are more than it holds.
func (l *Listening) Groups() []uint32 {
	var out []uint32
	for g := range l.heard {
		out = append(out, packet.GroupHash(g))
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > wire.MaxGroups {
		return []uint32{packet.GroupAny}
	}
	return out
}
