package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newLeave(c *cli) *cobra.Command {
	var r api.LeaveRequest
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave [NETWORK]",
		Short: "Leave a network for good",
		Long: `Leave a network: the other members are told, and this machine forgets the network
and its keys. To come back it needs a new code. To pause only, use "warren down".`,
		Example: `  sudo warren leave
  sudo warren leave home --yes`,
		Args:              args("[NETWORK]"),
		ValidArgsFunction: c.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.oneNetwork(cmd, args); err != nil {
				return err
			}
			r.Network = c.network
			if !yes && !c.confirm("Leave for good? This machine will need a new code to come back.") {
				return api.Errorf(api.CodeInternal, "nothing was changed")
			}
			reply, err := c.client().Leave(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(reply, func() {
				c.printf("This machine has left the network %s.\n", reply.Network)
				if reply.Told == 0 {
					c.printf("No other member could be told. If there are any, revoke this machine there:  sudo warren revoke NAME\n")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&r.Force, "force", false, "even if the others are left without an admin")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks the person at the terminal. Where nobody sits at one, the answer is yes: a script means what it says.
func (c *cli) confirm(question string) bool {
	if !c.terminal() {
		return true
	}
	fmt.Fprint(c.err, question+" [y/N] ") //nolint:errcheck // nothing can be done
	line, err := bufio.NewReader(io.LimitReader(c.in, 100)).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (answer == "y" || answer == "yes")
}
