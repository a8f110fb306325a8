package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newMembers(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "List who belongs to the network",
		Long: `List the members of the network, whether they can be reached or not: their
addresses, what they may do, how they came in and when.`,
		Example: `  warren members
  warren members --json | jq -r '.members[] | "\(.addresses[0]) \(.name)"'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := c.client().Members(cmd.Context(), c.network)
			if err != nil {
				return err
			}
			return c.show(m, func() {
				rows := [][]string{{"MEMBER", "ADDRESS", "ID", "ROLE", "GROUPS", "JOINED"}}
				for _, m := range m.Members {
					rows = append(rows, []string{m.Name, firstAddress(m.Addresses), shortID(m.ID), role(m), dash(strings.Join(m.Groups, ", ")), c.came(m)})
				}
				c.table("", rows)
			})
		},
	}
}

// role says what a member is, in words.
func role(m api.Member) string {
	var out []string
	if m.Self {
		out = append(out, "this machine")
	}
	switch {
	case m.Root:
		out = append(out, "founder")
	case m.Admin:
		out = append(out, "admin")
	}
	if m.Device {
		d := "device"
		if len(m.Gateways) > 0 {
			d += " of " + strings.Join(m.Gateways, ", ")
		}
		out = append(out, d)
	}
	return dash(strings.Join(out, ", "))
}

// came says when a member came and by whom.
func (c *cli) came(m api.Member) string {
	out := when(m.Joined)
	switch {
	case m.By == "":
	case m.Via == api.ViaInvite:
		out += " with a code, seen by " + m.By
	case m.Via == api.ViaAdmin:
		out += " admitted by " + m.By
	}
	return out
}
