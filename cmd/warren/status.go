package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newStatus(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the networks and how each peer is reached",
		Long: `Show the daemon, the networks, and for each peer its path: direct, relayed (via
whom), or none; where it is, how far in milliseconds, the traffic since the daemon
started, and when it was last heard; then why, where there is something to say.
"warren route PEER" tells more of one.`,
		Example: `  warren status
  warren status --json | jq -r '.networks[].peers[] | select(.path == "none") | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(st, func() { c.printStatus(st) })
		},
	}
}

// status asks the daemon and keeps the network that --network names, if it does.
func (c *cli) status(ctx context.Context) (api.Status, error) {
	st, err := c.client().Status(ctx)
	if err != nil || c.network == "" {
		return st, err
	}
	for _, n := range st.Networks {
		if n.Name == c.network || len(c.network) >= 4 && strings.HasPrefix(n.ID, c.network) {
			st.Networks = api.List[api.Network]{n}
			return st, nil
		}
	}
	return st, api.Errorf(api.CodeNoSuchNetwork, "this machine is in no network %q", c.network).Hintf("see: warren status")
}

func (c *cli) printStatus(st api.Status) {
	c.printf("warren %s, running for %s, UDP port %d\n", clean(st.Version), humanDuration(time.Duration(st.Uptime)*time.Second), st.Port)
	if len(st.Offloads) > 0 {
		c.printf("kernel offloads: %s\n", clean(strings.Join(st.Offloads, ", ")))
	}
	if len(st.Drops) > 0 {
		var drops []string
		for _, reason := range slices.Sorted(maps.Keys(st.Drops)) {
			drops = append(drops, fmt.Sprintf("%s %d", reason, st.Drops[reason]))
		}
		c.printf("packets dropped: %s\n", clean(strings.Join(drops, ", ")))
	}
	for _, w := range st.Warnings {
		c.printf("warning: %s\n", clean(w))
	}
	c.printf("\n")
	if len(st.Networks) == 0 {
		c.printf("%s", noNetworks)
	}
	for i, n := range st.Networks {
		if i > 0 {
			c.printf("\n")
		}
		c.printNetwork(n)
	}
}

func (c *cli) printNetwork(n api.Network) {
	head := n.Name + ": " + n.State
	if n.Interface != "" {
		head += " on " + n.Interface
	}
	if n.Why != "" {
		head += ": " + n.Why
	}
	c.printf("%s\n", clean(head))
	you := "you are " + n.Self.Name + ", " + join(n.Self.Addresses)
	if n.Self.Admin {
		you += ", admin"
	}
	c.printf("  %s\n", clean(you))
	if words := relayWords(n.Relay); words != "" {
		c.printf("  %s\n", clean(words))
	}
	if n.Pending > 0 {
		verb := "wait"
		if n.Pending == 1 {
			verb = "waits"
		}
		c.printf("  %s %s for approval: see `warren approve`\n", plural(n.Pending, "newcomer"), verb)
	}
	if len(n.Peers) == 0 {
		if n.State != api.StatePending {
			c.printf("  no other member yet: get a code with `sudo warren invite`\n")
		}
		return
	}
	c.printf("\n")
	c.printPeers("  ", n.Peers)
}

// relayWords says what this machine carries for others; "" when there is nothing to say.
func relayWords(r api.Relay) string {
	var out string
	switch {
	case !r.Enabled && r.Why == "":
		return ""
	case !r.Enabled:
		return "carries nothing for others: " + r.Why
	case r.Bytes == 0 && !r.Overloaded:
		return ""
	}
	out = "has carried " + humanBytes(r.Bytes) + " for others"
	if r.Overloaded {
		out += ", and asks them to go round it now"
		if r.Why != "" {
			out += ": " + r.Why
		}
	}
	return out
}

// printPeers prints the table of peers, and under it what there is to say of some.
func (c *cli) printPeers(indent string, peers []api.Peer) {
	rows := [][]string{{"PEER", "ADDRESS", "PATH", "ENDPOINT", "RTT", "RECEIVED", "SENT", "LAST SEEN"}}
	why := [][]string{}
	for _, p := range peers {
		path := p.Path
		if p.Device {
			path += ", device"
		}
		rows = append(rows, []string{p.Name, firstAddress(p.Addresses), path, place(p.Endpoint.IsValid(), p.Endpoint.String(), p.Via),
			humanMillis(p.RTT), humanBytes(p.RxBytes), humanBytes(p.TxBytes), c.ago(p.LastSeen)})
		if p.Why != "" {
			why = append(why, []string{p.Name + ":", p.Why})
		}
	}
	c.table(indent, rows)
	if len(why) > 0 {
		c.printf("\n")
		c.table(indent, why)
	}
}

// place says where a peer is: its endpoint, or whom it is reached by.
func place(known bool, endpoint string, via []string) string {
	switch {
	case len(via) > 0:
		return "via " + strings.Join(via, ", ")
	case known:
		return endpoint
	}
	return "-"
}
