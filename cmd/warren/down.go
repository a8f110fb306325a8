package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newDown(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "down [NETWORK]",
		Short: "Take networks down; they stay down until up",
		Long: `Take one network down, or all of them: the interface goes, membership stays, and
the network stays down over restarts until "warren up". The daemon goes on running;
"warren daemon stop" ends it.`,
		Example: `  sudo warren down
  sudo warren down home`,
		Args:              args("[NETWORK]"),
		ValidArgsFunction: c.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.oneNetwork(cmd, args); err != nil {
				return err
			}
			st, err := c.client().Down(cmd.Context(), api.NetworkRequest{Network: c.network})
			if errors.Is(err, api.ErrNotRunning) {
				return api.ErrNotRunning.Hintf("so no network is up now; `sudo warren up` starts it")
			}
			if err != nil {
				return err
			}
			return c.show(st, func() { c.printStates(st) })
		},
	}
}
