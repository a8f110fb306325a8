package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newMap(c *cli) *cobra.Command {
	var dot bool
	cmd := &cobra.Command{
		Use:   "map",
		Short: "Draw who is linked to whom",
		Long: `Draw the links of the network as a tree with this machine at its root: each member
stands once, below one that is as few hops away as can be. Beside it are the round trip
of the link where this machine has measured it, its cost, and what is to be said:

  anchor          it is reached from outside without help
  leaf            it carries nothing for others
  overloaded      it carries as much as it can: others go round it
  avoided         routes through it are avoided for now: see "warren route"
  device          it runs stock WireGuard, and its gateway serves it
  direct, via X   how this machine reaches it, when it is not as drawn

A tree leaves links out. With --dot all are drawn, in the language of Graphviz.`,
		Example: `  warren map
  warren map --dot | dot -Tsvg > map.svg
  warren map --json | jq -r '.nodes[] | select(.path == "none") | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dot && c.json {
				return usagef(cmd, "--dot and --json do not go together")
			}
			m, err := c.client().Map(cmd.Context(), c.network)
			if err != nil {
				return err
			}
			if dot {
				c.printDot(m)
				return nil
			}
			return c.show(m, func() { c.printMap(m) })
		},
	}
	cmd.Flags().BoolVar(&dot, "dot", false, "print all links in the language of Graphviz")
	return cmd
}

func (c *cli) printMap(m api.MapReply) {
	t := newChart(m)
	links := 0
	for _, l := range m.Links {
		if l.TwoWay {
			links++
		}
	}
	c.printf("%s: %s, %s\n\n", clean(m.Network), plural(len(m.Nodes), "member"), plural(links, "link"))
	rows := [][]string{{"MEMBER", "LINK", "COST", "NOTES"}}
	rows = t.rows(rows, near{m.Self, nil}, "", "")
	c.table("", rows)
	var lost []string
	for _, n := range m.Nodes {
		if _, in := t.parent[n.Name]; !in {
			lost = append(lost, n.Name)
		}
	}
	if len(lost) > 0 {
		c.printf("\nNo way is known to: %s\n", clean(strings.Join(lost, ", ")))
	}
}

// printDot prints the whole map for Graphviz.
func (c *cli) printDot(m api.MapReply) {
	c.printf("graph %s {\n  node [shape=box, style=rounded];\n", dotText(m.Network))
	for _, n := range m.Nodes {
		var attr []string
		style := "rounded"
		switch {
		case n.Self:
			style = "rounded,bold"
		case n.Device || n.Leaf:
			style = "rounded,dashed"
		}
		attr = append(attr, "style="+dotText(style))
		if n.Anchor {
			attr = append(attr, "peripheries=2")
		}
		switch {
		case n.Overloaded || n.Avoided:
			attr = append(attr, "color=red")
		case n.Path == api.PathNone:
			attr = append(attr, "color=gray", "fontcolor=gray")
		}
		c.printf("  %s [%s];\n", dotText(n.Name), strings.Join(attr, ", "))
	}
	for _, l := range m.Links {
		label := humanCost(l.Cost)
		if l.RTT > 0 {
			label = humanMillis(l.RTT)
		}
		attr := []string{"label=" + dotText(label)}
		if !l.TwoWay || l.Avoided {
			attr = append(attr, "style=dotted")
		}
		c.printf("  %s -- %s [%s];\n", dotText(l.A), dotText(l.B), strings.Join(attr, ", "))
	}
	for _, n := range m.Nodes {
		for _, g := range n.Gateways {
			c.printf("  %s -- %s [style=dashed];\n", dotText(g), dotText(n.Name))
		}
	}
	c.printf("}\n")
}

// dotText quotes text for Graphviz.
func dotText(s string) string {
	return fmt.Sprintf(`"%s"`, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(clean(s)))
}
