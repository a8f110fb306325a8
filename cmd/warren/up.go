package main

import (
	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newUp(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "up [NETWORK]",
		Short: "Bring networks up, and the daemon if need be",
		Long: `Bring one network up, or all of them. The daemon is started when none runs, so
after a reboot this is all it takes. A network stays up over restarts until
"warren down".`,
		Example: `  sudo warren up
  sudo warren up home`,
		Args:              args("[NETWORK]"),
		ValidArgsFunction: c.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.oneNetwork(cmd, args); err != nil {
				return err
			}
			if err := c.ensureDaemon(cmd.Context()); err != nil {
				return err
			}
			st, err := c.client().Up(cmd.Context(), api.NetworkRequest{Network: c.network})
			if err != nil {
				return err
			}
			return c.show(st, func() { c.printStates(st) })
		},
	}
}

// printStates prints one line for each network.
func (c *cli) printStates(st api.Status) {
	if len(st.Networks) == 0 {
		c.printf("%s", noNetworks)
		return
	}
	rows := [][]string{}
	for _, n := range st.Networks {
		row := []string{n.Name, n.State, firstAddress(n.Self.Addresses), dash(n.Interface)}
		if n.Why != "" {
			row = append(row, n.Why)
		}
		rows = append(rows, row)
	}
	c.table("", rows)
}

const noNetworks = `This machine is in no network yet.

  sudo warren create NAME    founds one
  sudo warren join           joins one with a code
`
