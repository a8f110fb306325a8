package main

import (
	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// peersReply is the part of the status that `peers --json` prints (spec/60-api.md#peers).
type peersReply struct {
	Networks api.List[networkPeers] `json:"networks"`
}

type networkPeers struct {
	Name  string             `json:"name"`
	ID    string             `json:"id"`
	Peers api.List[api.Peer] `json:"peers"`
}

func newPeers(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "Show how each peer is reached, as a table alone",
		Example: `  warren peers
  warren peers --network home --json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := c.status(cmd.Context())
			if err != nil {
				return err
			}
			var reply peersReply
			for _, n := range st.Networks {
				reply.Networks = append(reply.Networks, networkPeers{n.Name, n.ID, n.Peers})
			}
			return c.show(reply, func() {
				if len(st.Networks) == 0 {
					c.printf("%s", noNetworks)
				}
				for i, n := range st.Networks {
					if i > 0 {
						c.printf("\n")
					}
					if len(st.Networks) > 1 {
						c.printf("%s:\n", n.Name)
					}
					if len(n.Peers) == 0 {
						c.printf("The network %s has no other member yet: get a code with `sudo warren invite`\n", n.Name)
						continue
					}
					c.printPeers("", n.Peers)
				}
			})
		},
	}
}
