package main

import (
	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newApprove(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "approve [MEMBER]",
		Short: "Admit a newcomer who waits, or list who does",
		Long: `Without MEMBER, list the newcomers that joined with a code made by "warren invite
--approve" and wait for an admin. With MEMBER, admit that one: by its name or the
first digits of its id. This machine must be an admin with the right to issue.`,
		Example: `  warren approve
  sudo warren approve laptop`,
		Args: args("[MEMBER]"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			if p, err := c.client().Pending(cmd.Context(), c.network); err == nil {
				for _, p := range p.Pending {
					out = append(out, p.Name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.pending(cmd)
			}
			m, err := c.client().Approve(cmd.Context(), api.MemberRequest{Network: c.network, Member: args[0]})
			if err != nil {
				return err
			}
			return c.show(m, func() { c.printf("%s is a member now: %s\n", clean(m.Name), join(m.Addresses)) })
		},
	}
}

func (c *cli) pending(cmd *cobra.Command) error {
	list, err := c.client().Pending(cmd.Context(), c.network)
	if err != nil {
		return err
	}
	return c.show(list, func() {
		if len(list.Pending) == 0 {
			c.printf("Nobody waits for approval in the network %s.\n", list.Network)
			return
		}
		rows := [][]string{{"NEWCOMER", "ID", "WAITS", "SEEN BY"}}
		for _, p := range list.Pending {
			rows = append(rows, []string{p.Name, shortID(p.ID), humanDuration(c.now().Sub(p.Since.Time)), dash(p.Witness)})
		}
		c.table("", rows)
		c.printf("\nAdmit one:  sudo warren approve %s\n", clean(list.Pending[0].Name))
	})
}
