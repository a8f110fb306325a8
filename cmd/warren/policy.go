package main

import (
	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// settings says, for people who read, what each setting does, and which values the shell offers.
var settings = []struct {
	name, does string
	values     []string
}{
	{"broadcast", "broadcast and multicast reach the members, as games and mDNS want", []string{"on", "off"}},
	{"relays", "who carries sealed traffic for members that cannot reach each other", []string{"all", "none", "group:"}},
	{"mask", "datagrams look random to who watches the network", []string{"on", "off"}},
}

func newPolicy(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "policy [SETTING VALUE]",
		Short: "Show or settle what holds for the whole network",
		Long: `Show what holds for the whole network, or settle it for all members:

  broadcast  on or off: broadcast and multicast reach the members, as games and
             mDNS want
  relays     all, none, or members of groups, such as group:servers,group:office:
             who carries sealed traffic for members that cannot reach each other
  mask       on or off: datagrams look random to who watches the network, for
             networks that block VPNs by their look; size and time are not hidden

To settle something this machine must hold the right "policy". Whatever holds for the
network, a machine can refuse broadcast and relaying in its configuration file.`,
		Example: `  warren policy
  sudo warren policy broadcast off
  sudo warren policy relays group:servers`,
		Args: args("[SETTING]", "[VALUE]"),
		ValidArgsFunction: func(_ *cobra.Command, got []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			for _, s := range settings {
				if len(got) == 0 {
					out = append(out, s.name)
				} else if len(got) == 1 && got[0] == s.name {
					out = s.values
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				p, err := c.client().Policy(cmd.Context(), c.network)
				if err != nil {
					return err
				}
				return c.show(p, func() { c.printPolicy(p) })
			case 1:
				return usagef(cmd, "VALUE is missing: what shall %s be?", args[0])
			}
			p, err := c.client().SetPolicy(cmd.Context(), api.PolicyRequest{Network: c.network, Setting: args[0], Value: args[1]})
			if err != nil {
				return err
			}
			return c.show(p, func() {
				c.printf("For all members of the network %s, %s is now: %s\n", clean(p.Network), clean(args[0]), clean(valueOf(p, args[0])))
			})
		},
	}
}

func valueOf(p api.Policy, name string) string {
	for _, s := range p.Settings {
		if s.Name == name {
			return s.Value
		}
	}
	return "-"
}

func (c *cli) printPolicy(p api.Policy) {
	rows := [][]string{{"SETTING", "VALUE", "SETTLED BY", "SINCE", "WHAT IT DOES"}}
	for _, s := range p.Settings {
		by, does := "(default)", ""
		if s.By != "" {
			by = s.By
		}
		for _, known := range settings {
			if known.name == s.Name {
				does = known.does
			}
		}
		rows = append(rows, []string{s.Name, s.Value, by, when(s.Since), does})
	}
	c.table("", rows)
}
