package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Examine adds what one network knows.
func (c *Checkup) Examine(n *Network) {
	c.Pools = append(c.Pools, Pool{n.Name, n.Roster.Pool})
	c.names = append(c.names, n.Name)
	c.signed(n)
	if n.Mesh != nil {
		c.reached(n)
		return
	}
	state, why := n.state()
	f := api.Finding{Name: "network", State: api.FindingInfo, Text: fmt.Sprintf("%s is %s: %s", n.Name, state, why)}
	_, member := n.Roster.ByID(n.Self)
	switch {
	case n.Why != "" && member:
		f.State, f.Remedy = api.FindingBad, "mend that, then: sudo warren up "+n.Name
	case n.Why != "":
		f.State, f.Remedy = api.FindingBad, fmt.Sprintf("sudo warren leave %s, and join again with a new code", n.Name)
	}
	c.networks = append(c.networks, f)
}

// signed adds when this node and the others have signed something last. A join is signed by whoever let the member in.
func (c *Checkup) signed(n *Network) {
	last, names := map[key.NodeID]time.Time{}, map[key.NodeID]string{}
	note := func(by key.NodeID, at time.Time) {
		if at.After(last[by]) {
			last[by] = at
		}
		if names[by] == "" {
			names[by] = NameOf(n.Roster, by)
		}
	}
	for _, mem := range n.Roster.Members {
		names[mem.ID] = mem.Name
		by := mem.Via.Admin
		if mem.Via.Invite != (wire.RecordID{}) {
			by = mem.Via.Witness
		}
		note(by, mem.Joined)
		if mem.Info.Time != 0 {
			note(mem.ID, time.Unix(mem.Info.Time, 0))
		}
	}
	for _, by := range slices.SortedFunc(maps.Keys(last), func(a, b key.NodeID) int { return strings.Compare(names[a], names[b]) }) {
		at, name := last[by], names[by]
		if at.After(c.newest) {
			c.newest, c.newestBy, c.newestOwn = at, name, by == n.Self
		}
		if by == n.Self {
			continue
		}
		c.signers++
		if at.Sub(n.Now) > clockSlack {
			c.ahead = append(c.ahead, name)
		}
	}
}

// reached adds how the members are reached.
func (c *Checkup) reached(n *Network) {
	m := n.Mesh
	if r := n.relay(); r.Why != "" {
		f := api.Finding{Name: "relay", State: api.FindingInfo, Text: fmt.Sprintf("%s: nothing is relayed for others: %s", n.Name, r.Why)}
		if r.Enabled {
			f.State, f.Text, f.Remedy = api.FindingWarn, fmt.Sprintf("%s: %s", n.Name, r.Why), "set relay_rate or transit in the config file"
		}
		c.relays = append(c.relays, f)
	}
	c.anchor = c.anchor || m.Anchor
	var lost []Peer
	talking := 0
	for _, mem := range n.Roster.Members {
		p, ok := m.Peers[mem.ID]
		if !ok || p.Device {
			continue
		}
		if p.CalledUs {
			c.callers = append(c.callers, p.Name)
		}
		if p.Said {
			c.said++
			switch {
			case p.Ahead > clockSlack:
				c.fast = append(c.fast, p.Name)
			case p.Ahead < -clockSlack:
				c.slow = append(c.slow, p.Name)
			}
		}
		switch {
		case p.Talks:
			talking++
			c.talks(n, p)
		case p.Kept:
			lost = append(lost, p)
		}
	}
	var silent []string
	for _, p := range lost {
		if why, fix := n.impossible(p); why != "" {
			c.peer(n.Name, p.Name, api.FindingBad, "cannot be reached: "+why, fix)
		} else {
			silent = append(silent, p.Name)
		}
	}
	c.silent(n.Name, silent, talking)
}

// talks adds what is to be said of a member that answers.
func (c *Checkup) talks(n *Network, p Peer) {
	st := p.Path
	if st.MTU > 0 && st.MTU < n.Mesh.MTU && !st.Thin && n.Now.Sub(n.Mesh.Begun) > mtuSettled {
		c.narrow = append(c.narrow, narrow{n.Name, p.Name, st.MTU})
	}
	switch {
	case st.Way.IsStream():
		c.streams++
	case !st.Way.IsRelayed():
		c.direct++
		if st.Thin {
			c.thin = append(c.thin, narrow{n.Name, p.Name, 0})
		}
	default:
		c.relayed++
	}
	if !st.Way.IsRelayed() {
		return
	}
	if st.Detour {
		return
	}
	state := api.FindingWarn
	if st.Punch.Failed == 0 && !st.Punch.Hopeless { // a direct path may come yet
		state = api.FindingInfo
	}
	c.peer(n.Name, p.Name, state, fmt.Sprintf("is reached through %s, no direct path: %s", strings.Join(n.along(st.Way.Route), ", "), n.whyRelayed(st)), n.remedy(p))
}
