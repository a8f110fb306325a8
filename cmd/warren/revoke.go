package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newRevoke(c *cli) *cobra.Command {
	var r api.RevokeRequest
	cmd := &cobra.Command{
		Use:   "revoke MEMBER",
		Short: "Put a member or device out, for good",
		Long: `Put a member or device out of the network. All members cut its tunnels as soon as
the news reaches them, within seconds where they are connected, and it cannot come
back without a new code. This machine must be an admin with the right to revoke.

When it was an admin, those it brought in stay. Use --compromised when its key may
have been in other hands: then all that it granted falls too, and is listed.`,
		Example: `  sudo warren revoke old-laptop
  sudo warren revoke server --compromised --reason "stolen on the train"`,
		Args:              args("MEMBER"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Network, r.Member = c.network, args[0]
			reply, err := c.client().Revoke(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(reply, func() {
				c.printf("%s is out of the network %s.\n", clean(reply.Name), reply.Network)
				c.printFallen(reply)
			})
		},
	}
	revokeFlags(cmd, &r.Compromised, &r.Reason)
	return cmd
}

func revokeFlags(cmd *cobra.Command, compromised *bool, reason *string) {
	cmd.Flags().BoolVar(compromised, "compromised", false, "all that it granted falls too")
	cmd.Flags().StringVar(reason, "reason", "", "`TEXT` that all members can read")
}

// printFallen says who else is out and how far the news went.
func (c *cli) printFallen(r api.RevokeReply) {
	if len(r.Also) > 0 {
		c.printf("With it fell: %s\n", clean(strings.Join(r.Also, ", ")))
	}
	if r.Told == 0 {
		c.printf("No other member is connected now; each learns of it when it is.\n")
		return
	}
	c.printf("Told %s; the others learn of it when they are connected.\n", plural(r.Told, "member"))
}
