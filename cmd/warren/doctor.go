package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newDoctor(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with the network here, and what to do",
		Long: `Look at this machine and its way to the others: whether UDP gets out, what NAT it is
behind, whether the router passes its port on, who can reach it, whether the clock, the
resolver and the DHT work, what gets in the way, and which members are relayed or not
reached at all, and why. Each finding is ok, info, warn or bad, and has its remedy where
there is one. At the end are all public hosts that the daemon may ask on its own account.

Nothing is changed. The names of the DHT's hosts are looked up when it is on, and no host
is asked anything else. The exit code is 0 whatever is found: see findings with --json.`,
		Example: `  warren doctor
  warren doctor --json | jq -r '.findings[] | select(.state == "bad") | .remedy'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := c.client().Doctor(cmd.Context(), c.network)
			if err != nil {
				return err
			}
			d.Findings = slices.Insert(d.Findings, 0, c.startedHow(d.PID))
			return c.show(d, func() { c.printDoctor(d) })
		},
	}
}

// startedHow says how the daemon was started: whether it comes again after the next boot.
func (c *cli) startedHow(pid int) api.Finding {
	f := api.Finding{Name: "daemon", State: api.FindingOK, Text: "runs as a service, and starts at every boot"}
	cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // where there is none, there is no such service
	if usesService(c.state) && strings.Contains(string(cgroup), "/warren.service") {
		return f
	}
	f.State, f.Text = api.FindingInfo, "runs, but not as a service: after a boot it must be started again"
	f.Remedy = "after a boot: sudo warren up"
	if usesService(c.state) {
		f.Remedy = "make it a service: sudo warren daemon stop, then sudo warren up"
	}
	return f
}

func (c *cli) printDoctor(d api.Doctor) {
	width := 0
	count := map[string]int{}
	for _, f := range d.Findings {
		width = max(width, len(f.Name))
		count[f.State]++
	}
	for _, f := range d.Findings {
		c.printf("%-4s  %-*s  %s\n", clean(f.State), width, clean(f.Name), clean(f.Text))
		if f.Remedy != "" {
			c.printf("%*s  remedy: %s\n", width+6, "", clean(f.Remedy))
		}
	}
	c.printf("\n")
	for _, h := range d.Hosts {
		asked := "not asked so far"
		if h.Asked {
			asked = "asked since the daemon started"
		}
		c.printf("public host: %s, %s\n", clean(h.Host), asked)
	}
	if len(d.Hosts) == 0 {
		c.printf("The daemon asks no public host.\n")
	}
	switch bad, warn := count[api.FindingBad], count[api.FindingWarn]; {
	case bad+warn == 0:
		c.printf("\nAll is well.\n")
	default:
		c.printf("\n%s, %s.\n", plural(bad, "fault"), plural(warn, "warning"))
	}
}
