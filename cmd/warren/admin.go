package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/wire"
)

func newAdmin(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "admin",
		Short: "Say who may invite, admit and revoke",
		Long: `An admin is a member with rights:

  invite    make codes
  issue     admit newcomers who wait, and devices
  revoke    put members and devices out
  policy    settle what holds for the whole network: see "warren policy"
  delegate  make further admins, with no more rights than its own`,
		Example: `  warren admin list
  sudo warren admin add bob --can invite,issue
  sudo warren admin remove bob`,
	}, newAdminAdd(c), newAdminRemove(c), newAdminList(c))
}

func newAdminAdd(c *cli) *cobra.Command {
	var can []string
	cmd := &cobra.Command{
		Use:   "add MEMBER",
		Short: "Give a member rights",
		Long: `Give a member rights, in addition to those it has. This machine must hold the right
to delegate, and can give no right that it has not got.`,
		Example: `  sudo warren admin add bob
  sudo warren admin add bob --can invite,issue,revoke,delegate`,
		Args:              args("MEMBER"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, r := range can {
				if _, ok := wire.ParseRight(r); !ok {
					return &usageError{"there is no right " + r, "rights are " + strings.Join(wire.AllRights.Names(), ", ")}
				}
			}
			if len(can) == 0 {
				return usagef(cmd, "--can names no right")
			}
			a, err := c.client().AdminAdd(cmd.Context(), api.AdminRequest{Network: c.network, Member: args[0], Rights: can})
			if err != nil {
				return err
			}
			return c.show(a, func() { c.printf("%s can now: %s\n", clean(a.Name), strings.Join(a.Rights, ", ")) })
		},
	}
	cmd.Flags().StringSliceVar(&can, "can", []string{"invite", "issue", "revoke"}, "`RIGHTS`, with commas between")
	must(cmd.RegisterFlagCompletionFunc("can", cobra.FixedCompletions(wire.AllRights.Names(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func newAdminRemove(c *cli) *cobra.Command {
	var r api.AdminRemoveRequest
	cmd := &cobra.Command{
		Use:   "remove MEMBER",
		Short: "Take all rights from an admin, who stays a member",
		Long: `Take all rights from an admin, for good; it stays a member. Those it brought in stay
too, unless --compromised is given. To put it out altogether, use "warren revoke".`,
		Example:           `  sudo warren admin remove bob`,
		Args:              args("MEMBER"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Network, r.Member = c.network, args[0]
			reply, err := c.client().AdminRemove(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(reply, func() {
				c.printf("%s is no longer an admin of the network %s.\n", clean(reply.Name), reply.Network)
				c.printFallen(reply)
			})
		},
	}
	revokeFlags(cmd, &r.Compromised, &r.Reason)
	return cmd
}

func newAdminList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the admins and what they may do",
		Example: `  warren admin list --json`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Admins(cmd.Context(), c.network)
			if err != nil {
				return err
			}
			return c.show(list, func() {
				rows := [][]string{{"ADMIN", "CAN", "MADE BY", "SINCE"}}
				for _, a := range list.Admins {
					by := a.By
					if a.Root {
						by = "(founder)"
					}
					rows = append(rows, []string{a.Name, strings.Join(a.Rights, ","), dash(by), when(a.Since)})
				}
				c.table("", rows)
			})
		},
	}
}
