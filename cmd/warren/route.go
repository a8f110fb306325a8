package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newRoute(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "route MEMBER",
		Short: "Tell which way packets take to a member, and why",
		Long: `Tell in a sentence how a member is reached and why so. Below it stand the members that
pass the packets on, one a line, with the round trip of the link where this machine has
measured it, and its cost; then the other ways there are, the best first; then what
routes stay away from for now.

Members that pass packets on cannot read them. The cost of a link is its round trip in
milliseconds, 10 more for each hop, and what loss and load add.`,
		Example: `  warren route dora
  warren route dora --json | jq -r '.ways[0].hops[].name'`,
		Args:              args("MEMBER"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.client().Route(cmd.Context(), api.MemberRequest{Network: c.network, Member: args[0]})
			if err != nil {
				return err
			}
			return c.show(r, func() { c.printRoute(r) })
		},
	}
}

func (c *cli) printRoute(r api.RouteReply) {
	used, others := waysOf(r)
	c.printf("%s\n", clean(routeSentence(r, used)))
	if used != nil && len(used.Hops) > 1 {
		c.printf("\n")
		c.printHops(*used)
	}
	if len(others) > 0 {
		c.printf("\nOther ways:\n")
		rows := [][]string{{"WAY", "STATE", "RTT", "JITTER", "LOSS", "COST"}}
		for _, w := range others {
			state := stateWords[w.State]
			if w.Why != "" {
				state += ": " + w.Why
			}
			rows = append(rows, []string{wayWords(w), state, humanMillis(w.RTT), humanMillis(w.Jitter), humanShare(w.Loss), humanCost(w.Cost)})
		}
		c.table("  ", rows)
	}
	if len(r.Avoided) > 0 {
		c.printf("\nAvoided for now:\n")
		for _, a := range r.Avoided {
			c.printf("  %s\n", clean(c.avoidedWords(a)))
		}
	}
}

// waysOf parts the way in use, nil when there is none, from the others.
func waysOf(r api.RouteReply) (used *api.Way, others []api.Way) {
	for i, w := range r.Ways {
		if w.State == api.WayUsed && used == nil {
			used = &r.Ways[i]
		} else {
			others = append(others, w)
		}
	}
	return used, others
}

// stateWords says what a way does when it is not the one in use, for people.
var stateWords = map[string]string{
	api.WayUsed:     "in use too",
	api.WayAlso:     "copies go here",
	api.WayAlive:    "stands by",
	api.WayUnproven: "not proven yet",
	api.WaySilent:   "does not answer",
}

// routeSentence says all of it in one sentence.
func routeSentence(r api.RouteReply, used *api.Way) string {
	if r.Self {
		return r.Name + " is this machine itself"
	}
	out := "there is no path to " + r.Name + " now"
	if used != nil {
		far := "not measured yet"
		if used.RTT > 0 {
			far = "about " + roughMillis(used.RTT)
		}
		if relays := relaysOf(*used); len(relays) > 0 {
			out = fmt.Sprintf("%s is reached through %s (%s, %s)", r.Name, and(relays), plural(len(used.Hops), "hop"), far)
		} else {
			out = fmt.Sprintf("%s is reached directly at %s (%s)", r.Name, used.Endpoint, far)
		}
	}
	if r.Why != "" {
		out += ": " + r.Why
	}
	return out
}

// printHops prints the way of packets, a line for each member that has them.
func (c *cli) printHops(w api.Way) {
	rows := [][]string{{"HOP", "MEMBER", "RTT", "COST"}}
	for i, h := range w.Hops {
		rows = append(rows, []string{strconv.Itoa(i + 1), h.Name, humanMillis(h.RTT), humanCost(h.Cost)})
	}
	rows = append(rows, []string{"all", "", humanMillis(w.RTT), humanCost(w.Cost)})
	c.table("  ", rows)
}

// avoidedWords says what is avoided, why, and for how long.
func (c *cli) avoidedWords(a api.Avoided) string {
	out := a.Name
	if a.To != "" {
		out = "the link from " + a.Name + " to " + a.To
	}
	if a.Why != "" {
		out += ": " + a.Why
	}
	if left := a.Until.Sub(c.now()); !a.Until.IsZero() && left > 0 {
		out += ", for another " + humanDuration(left)
	}
	return out
}

// relaysOf lists the names of the relays of w.
func relaysOf(w api.Way) (names []string) {
	for _, h := range w.Hops[:max(len(w.Hops)-1, 0)] {
		names = append(names, h.Name)
	}
	return names
}

// wayWords names a way.
func wayWords(w api.Way) string {
	if relays := relaysOf(w); len(relays) > 0 {
		return "through " + and(relays)
	}
	return "directly at " + w.Endpoint.String()
}

// and prints "a", "a and b", "a, b and c".
func and(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(slices.Clone(names[:last]), ", ") + " and " + names[last]
}

// roughMillis prints a time as one says it: 42 ms, 1.2 ms.
func roughMillis(m api.Millis) string {
	if ms := float64(m.Duration()) / float64(time.Millisecond); ms >= 9.95 {
		return fmt.Sprintf("%.0f ms", ms)
	} else if ms >= 0.95 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return humanMillis(m)
}

// humanCost prints a cost: a number of milliseconds that is no time.
func humanCost(m api.Millis) string {
	if m <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(m.Duration())/float64(time.Millisecond))
}

// humanShare prints 0 %, 0.4 %, 12 %, or - when it is not known.
func humanShare(s api.Share) string {
	v, known := s.Value()
	switch p := v * 100; {
	case !known:
		return "-"
	case p > 0 && p < 0.1:
		return "< 0.1 %"
	case p < 9.95 && math.Round(p*10) != math.Round(p)*10:
		return fmt.Sprintf("%.1f %%", p)
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}
