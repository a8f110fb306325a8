package main

import (
	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newRename(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "rename NAME",
		Short:   "Give this machine another name in the network",
		Example: `  sudo warren rename laptop`,
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := api.CheckName("machine", args[0]); err != nil {
				return err
			}
			n, err := c.client().Rename(cmd.Context(), api.RenameRequest{Network: c.network, Name: args[0]})
			if err != nil {
				return err
			}
			return c.show(n, func() { c.printf("This machine is %s in the network %s.\n", n.Self.Name, n.Name) })
		},
	}
}
