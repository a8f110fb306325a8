//go:build linux

package natmatrix

import (
	"fmt"
	"strings"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// Table writes the outcomes, by the names of their cases, as Markdown. A pair that was not tried is left empty.
func Table(outcomes map[string]Outcome) string {
	var s strings.Builder
	s.WriteString("| |")
	kinds := lab.SiteKinds()
	for _, k := range kinds {
		fmt.Fprintf(&s, " %s |", k)
	}
	s.WriteString("\n|" + strings.Repeat("---|", len(kinds)+1) + "\n")
	for i, a := range kinds {
		fmt.Fprintf(&s, "| **%s** |", a)
		for j, b := range kinds {
			o, ok := outcomes[Pair(a, b).Name]
			if j < i || !ok {
				s.WriteString(" |")
			} else {
				fmt.Fprintf(&s, " %s |", o.cell())
			}
		}
		s.WriteString("\n")
	}
	s.WriteString("\n| behind one router | |\n|---|---|\n")
	for _, c := range Neighbours() {
		if o, ok := outcomes[c.Name]; ok {
			fmt.Fprintf(&s, "| %s | %s |\n", c.Name, o.cell())
		}
	}
	return s.String()
}

// cell is an outcome in few words: the time to the first packet, and to the direct way.
func (o Outcome) cell() string {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
	switch o.Result {
	case Direct:
		return "direct " + seconds(o.First) + " / " + seconds(o.Direct)
	case Relayed:
		return "relayed " + seconds(o.First)
	}
	return "–"
}
