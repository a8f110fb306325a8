package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// topReport is what `top --json` prints (spec/60-api.md#top).
type topReport struct {
	Interval api.Millis        `json:"interval_ms"`
	Peers    api.List[topPeer] `json:"peers"` // the most traffic first
}

// topPeer is one line of it.
type topPeer struct {
	Network string           `json:"network"`
	Name    string           `json:"name"`
	ID      string           `json:"id"`
	Path    string           `json:"path"`
	Via     api.List[string] `json:"via"`
	RTT     api.Millis       `json:"rtt_ms"`
	Jitter  api.Millis       `json:"jitter_ms"`
	Loss    api.Share        `json:"loss"`
	Rx      uint64           `json:"rx_per_s"` // bytes
	Tx      uint64           `json:"tx_per_s"` // bytes
}

// minInterval keeps the view from asking all the time.
const minInterval = 10 * time.Millisecond

// topView is one run of top.
type topView struct {
	*cli
	interval time.Duration
}

func newTop(c *cli) *cobra.Command {
	v := &topView{cli: c}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the traffic with each member live",
		Long: `Show all members with the path to each, its round trip, jitter and loss, and the
traffic in bytes a second, those with the most first, anew each second. q or Ctrl-C
ends it. When the output is no terminal, or with --json, it measures once and ends.`,
		Example: `  warren top
  warren top --network home --interval 5s
  warren top --json | jq -r '.peers[0].name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if v.interval < minInterval || v.interval > time.Hour {
				return usagef(cmd, "--interval %v is not between %v and 1h", v.interval, minInterval)
			}
			first, err := v.sample(cmd.Context()) // what is wrong from the start is told as by other commands
			if err != nil {
				return err
			}
			_, _, screen := c.screen()
			switch {
			case c.json:
				return v.once(cmd.Context(), first)
			case len(first.st.Networks) == 0:
				c.printf("%s", noNetworks)
				return nil
			case screen:
				return v.live(cmd.Context(), first)
			}
			return v.once(cmd.Context(), first)
		},
	}
	cmd.Flags().DurationVarP(&v.interval, "interval", "i", time.Second, "`TIME` between measurements")
	return cmd
}

// sample is the status at one moment.
type sample struct {
	at time.Time
	st api.Status
}

func (v *topView) sample(ctx context.Context) (sample, error) {
	st, err := v.status(ctx)
	return sample{time.Now(), st}, err
}

// once measures over one interval from before on and prints the table.
func (v *topView) once(ctx context.Context, before sample) error {
	wait := time.NewTimer(v.interval)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := v.sample(ctx)
	if err != nil {
		return err
	}
	peers := compare(before, after)
	return v.show(topReport{api.Millis(after.at.Sub(before.at)), peers}, func() { v.table("", topRows(after.st, peers)) })
}

// compare lists the members as they are in after, with their traffic since before.
func compare(before, after sample) (out []topPeer) {
	type name struct{ network, peer string }
	old := map[name]api.Peer{}
	if before.st.PID == after.st.PID { // another daemon counts from 0
		for _, n := range before.st.Networks {
			for _, p := range n.Peers {
				old[name{n.ID, p.ID}] = p
			}
		}
	}
	seconds := after.at.Sub(before.at).Seconds()
	rate := func(was, is uint64) uint64 {
		if is <= was || seconds <= 0 {
			return 0
		}
		return uint64(float64(is-was) / seconds)
	}
	for _, n := range after.st.Networks {
		for _, p := range n.Peers {
			row := topPeer{Network: n.Name, Name: p.Name, ID: p.ID, Path: p.Path, Via: p.Via, RTT: p.RTT, Jitter: p.Jitter, Loss: p.Loss}
			if was, ok := old[name{n.ID, p.ID}]; ok {
				row.Rx, row.Tx = rate(was.RxBytes, p.RxBytes), rate(was.TxBytes, p.TxBytes)
			}
			out = append(out, row)
		}
	}
	slices.SortStableFunc(out, func(a, b topPeer) int {
		return cmp.Or(cmp.Compare(b.Rx+b.Tx, a.Rx+a.Tx), cmp.Compare(reach[a.Path], reach[b.Path]), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// reach puts those who can be reached before the others.
var reach = map[string]int{api.PathDirect: 0, api.PathRelayed: 0, api.PathNone: 1}

// topRows makes the table; the network stands in it when there are several.
func topRows(st api.Status, peers []topPeer) [][]string {
	several := len(st.Networks) > 1
	rows := [][]string{{"MEMBER", "PATH", "RTT", "JITTER", "LOSS", "RX/S", "TX/S"}}
	if several {
		rows[0] = append([]string{"NETWORK"}, rows[0]...)
	}
	for _, p := range peers {
		path := p.Path
		if len(p.Via) > 0 {
			path = "via " + strings.Join(p.Via, ", ")
		}
		row := []string{p.Name, path, humanMillis(p.RTT), humanMillis(p.Jitter), humanShare(p.Loss), humanBytes(p.Rx), humanBytes(p.Tx)}
		if several {
			row = append([]string{p.Network}, row...)
		}
		rows = append(rows, row)
	}
	return rows
}

// topHead says in a line or two how it stands altogether.
func topHead(st api.Status, peers []topPeer) (lines []string) {
	count := map[string]int{}
	var rx, tx uint64
	for _, p := range peers {
		count[p.Path]++
		rx, tx = rx+p.Rx, tx+p.Tx
	}
	var names []string
	for _, n := range st.Networks {
		names = append(names, n.Name)
	}
	return []string{
		fmt.Sprintf("%s: %d direct, %d relayed, %d without a path (q ends)", strings.Join(names, ", "), count[api.PathDirect], count[api.PathRelayed], count[api.PathNone]),
		fmt.Sprintf("received %s/s, sent %s/s", humanBytes(rx), humanBytes(tx)),
	}
}
