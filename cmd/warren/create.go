package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newCreate(c *cli) *cobra.Command {
	var as, pool string
	var drawQR bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Found a network and get a code for the next machine",
		Long: `Found a network with this machine as its first member and admin, bring it up, and
print a code with which one more machine can join within 24 hours. The daemon is
started when none runs: as a systemd service where systemd is, else in the
background.

NAME and the names of members have 1 to 63 of the characters a-z, 0-9 and -.`,
		Example: `  sudo warren create home
  sudo warren create lab --as server --pool 10.77.0.0/16`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := api.CreateRequest{Name: args[0]}
			if err := api.CheckName("network", r.Name); err != nil {
				return err
			}
			var err error
			if r.NodeName, err = c.nodeName(as); err != nil {
				return err
			}
			if pool != "" {
				if r.Pool, err = netip.ParsePrefix(pool); err != nil {
					return usagef(cmd, "--pool %q is not an IPv4 range such as 10.77.0.0/16", pool)
				}
			}
			if err := api.CheckPool(r.Pool); err != nil {
				return err
			}
			if err := c.ensureDaemon(cmd.Context()); err != nil {
				return err
			}
			reply, err := c.client().Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(reply, func() {
				c.printf("The network %s is there, and this machine is %s in it.\n\n", reply.Network.Name, reply.Network.Self.Name)
				c.printSelf(reply.Network)
				if reply.Invite.Code == "" {
					c.printf("\nThere is no code yet, for no other machine could reach this one now. When it is connected:  sudo warren invite\n")
					return
				}
				c.printCode(reply.Invite, drawQR)
			})
		},
	}
	asFlag(cmd, &as)
	cmd.Flags().StringVar(&pool, "pool", "", "IPv4 `RANGE` that members get addresses from (default 100.64.0.0/10)")
	qrFlag(cmd, &drawQR)
	return cmd
}

func asFlag(cmd *cobra.Command, as *string) {
	cmd.Flags().StringVar(as, "as", "", "`NAME` of this machine in the network (default: its host name)")
}

func qrFlag(cmd *cobra.Command, on *bool) {
	cmd.Flags().BoolVar(on, "qr", false, "draw it as a QR code too")
}

// nodeName returns the wanted name of this machine, or one made of its host name.
func (c *cli) nodeName(as string) (string, error) {
	if as != "" {
		return as, api.CheckName("machine", as)
	}
	host, err := c.hostname()
	if err == nil {
		if name := api.CleanName(host); name != "" {
			return name, nil
		}
	}
	return "", &usageError{fmt.Sprintf("no name can be made of this machine's host name %q", host), "choose one: --as NAME"}
}

// printSelf shows where this machine is in a network.
func (c *cli) printSelf(n api.Network) {
	rows := [][]string{}
	for i, a := range n.Self.Addresses {
		rows = append(rows, []string{map[bool]string{true: "address"}[i == 0], a.String()})
	}
	if n.Interface != "" {
		rows = append(rows, []string{"interface", n.Interface})
	}
	c.table("  ", rows)
}

// printCode shows a code on a line of its own, how long it holds, and what to type.
func (c *cli) printCode(i api.InviteReply, drawQR bool) {
	what := "One more machine can join"
	if i.Uses > 1 {
		what = fmt.Sprintf("Up to %d machines can join", i.Uses)
	}
	c.printf("\n%s with this code until %s (%s):\n\n%s\n\n", what, when(i.Expires), humanDuration(i.Expires.Sub(c.now())), clean(i.Code))
	if drawQR {
		qr(c.out, strings.ToUpper(i.Code)) // upper case makes a smaller QR code, and a code has no case
		c.printf("\n")
	}
	c.printf("There, type:  sudo warren join  and give it the code.\n")
	if i.Approve {
		c.printf("Then admit it here:  sudo warren approve\n")
	}
	c.printf("Who has the code can join: hand it over as you would a key.\n")
}
