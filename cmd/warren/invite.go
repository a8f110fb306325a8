package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newInvite(c *cli) *cobra.Command {
	var r api.InviteRequest
	var groups []string
	var drawQR bool
	expires := "24h"
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Get a code for another machine",
		Long: `Print a code with which a machine can join. A code is for one machine and 24 hours
unless you say otherwise. This machine must be an admin with the right to invite;
it need not be running when the code is used, as long as some member is.

Codes cannot be shown again. "warren invite list" shows which are open.`,
		Example: `  sudo warren invite
  sudo warren invite --uses 20 --expires 7d --group guests
  sudo warren invite --approve --qr
  sudo warren invite --json | jq -r .code`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := parseDuration(expires)
			if err != nil || d < time.Second || d > api.MaxExpires*time.Second {
				return usagef(cmd, "--expires %q is not a time such as 30m, 24h or 7d, of at most a year", expires)
			}
			if r.Uses < 1 || r.Uses > api.MaxUses {
				return usagef(cmd, "--uses %d is not between 1 and %d", r.Uses, api.MaxUses)
			}
			for _, g := range groups {
				if err := api.CheckName("group", g); err != nil {
					return err
				}
			}
			r.Network, r.Expires, r.Groups = c.network, int64(d.Seconds()), groups
			reply, err := c.client().Invite(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(reply, func() {
				c.printf("A code for the network %s.\n", reply.Network)
				c.printCode(reply, drawQR)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&r.Uses, "uses", 1, "`N` machines may join with it")
	f.StringVar(&expires, "expires", expires, "`TIME` that it holds, as 30m, 24h or 7d")
	f.StringSliceVar(&groups, "group", nil, "`GROUP` that the newcomers belong to; can be given several times")
	f.BoolVar(&r.Approve, "approve", false, "an admin must approve each newcomer")
	qrFlag(cmd, &drawQR)
	cmd.AddCommand(newInviteList(c))
	return cmd
}

func newInviteList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List invites, without their codes",
		Example: "  warren invite list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Invites(cmd.Context(), c.network)
			if err != nil {
				return err
			}
			return c.show(list, func() {
				if len(list.Invites) == 0 {
					c.printf("The network %s has no invites. Make one:  sudo warren invite\n", list.Network)
					return
				}
				rows := [][]string{{"INVITE", "STATE", "USED", "EXPIRES", "BY", "GROUPS"}}
				for _, i := range list.Invites {
					state := i.State
					if i.Approve {
						state += ", approve"
					}
					rows = append(rows, []string{shortID(i.ID), state, strconv.Itoa(i.Used) + " of " + strconv.Itoa(i.Uses),
						when(i.Expires), dash(i.By), dash(strings.Join(i.Groups, ", "))})
				}
				c.table("", rows)
			})
		},
	}
}

// shortID prints the first 8 digits of an id.
func shortID(id string) string { return id[:min(8, len(id))] }

// parseDuration reads Go durations, and also days and weeks: 7d, 2w, 1d12h.
func parseDuration(s string) (time.Duration, error) {
	var total time.Duration
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		before, after, found := strings.Cut(s, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * unit.length
		s = after
	}
	if s == "" && total > 0 {
		return total, nil
	}
	d, err := time.ParseDuration(s)
	return total + d, err
}
