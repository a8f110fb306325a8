package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// pingReport is what `ping --json` prints (spec/60-api.md#ping-report).
type pingReport struct {
	Network  string               `json:"network"`
	Name     string               `json:"name"`
	Address  netip.Addr           `json:"address"`
	Sent     int                  `json:"sent"`
	Received int                  `json:"received"`
	MinRTT   api.Millis           `json:"rtt_min_ms"`
	AvgRTT   api.Millis           `json:"rtt_avg_ms"`
	MaxRTT   api.Millis           `json:"rtt_max_ms"`
	Replies  api.List[*pingProbe] `json:"replies"` // null where no answer came
}

// pingProbe is one answer.
type pingProbe struct {
	Path     string           `json:"path"`
	Via      api.List[string] `json:"via"`
	Endpoint netip.AddrPort   `json:"endpoint"`
	RTT      api.Millis       `json:"rtt_ms"`
}

// pinger sends probes and keeps count.
type pinger struct {
	*cli
	count             int
	interval, timeout time.Duration
	report            pingReport
	total             time.Duration
	last              string // path of the last answer
}

func newPing(c *cli) *cobra.Command {
	p := &pinger{cli: c}
	cmd := &cobra.Command{
		Use:   "ping MEMBER",
		Short: "Measure the way to a member",
		Long: `Send probes to a member through the tunnel and show how long each answer took and
which path it came by: direct with the endpoint, or relayed via whom. Unlike ping(8)
this asks the other daemon, not its operating system: no firewall on the way inside
can answer for it. It ends after --count probes or when interrupted, with a summary;
the exit code is 1 when no answer came at all.`,
		Example: `  warren ping bob
  warren ping bob -c 3
  warren ping 100.64.80.2 --network home --json`,
		Args:              args("MEMBER"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case p.count < 0:
				return usagef(cmd, "--count %d is less than 0", p.count)
			case p.interval < 10*time.Millisecond:
				return usagef(cmd, "--interval %v is less than 10ms", p.interval)
			case p.timeout < time.Millisecond || p.timeout > 10*time.Second:
				return usagef(cmd, "--timeout %v is not between 1ms and 10s", p.timeout)
			}
			if p.count == 0 && c.json {
				p.count = 4
			}
			return p.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.IntVarP(&p.count, "count", "c", 0, "end after `N` probes; 0 goes on until interrupted (with --json: 4)")
	f.DurationVarP(&p.interval, "interval", "i", time.Second, "`TIME` between probes")
	f.DurationVarP(&p.timeout, "timeout", "W", time.Second, "`TIME` to wait for each answer")
	return cmd
}

func (p *pinger) run(ctx context.Context, member string) error {
	p.report.Name = member
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
probes:
	for n := 1; p.count == 0 || n <= p.count; n++ {
		if n > 1 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				break probes
			}
		}
		reply, err := p.client().Ping(ctx, api.PingRequest{Network: p.network, Member: member, Timeout: p.timeout.Milliseconds()})
		switch {
		case ctx.Err() != nil:
			break probes
		case api.CodeOf(err) == api.CodeNoAnswer:
			p.missed(n, member, err)
		case err != nil:
			return err
		default:
			p.answered(n, reply)
		}
	}
	return p.summary()
}

func (p *pinger) missed(n int, member string, err error) {
	p.report.Sent++
	p.report.Replies = append(p.report.Replies, nil)
	if p.json {
		return
	}
	p.printf("no answer from %s: seq=%d\n", clean(member), n)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" && n == 1 {
		p.printf("hint: %s\n", clean(e.Hint))
	}
}

func (p *pinger) answered(n int, r api.PingReply) {
	rep := &p.report
	rep.Network, rep.Name, rep.Address = r.Network, r.Name, r.Address
	rep.Sent++
	rep.Received++
	rep.Replies = append(rep.Replies, &pingProbe{Path: r.Path, Via: r.Via, Endpoint: r.Endpoint, RTT: r.RTT})
	p.total += r.RTT.Duration()
	rep.AvgRTT = api.Millis(p.total / time.Duration(rep.Received))
	rep.MaxRTT = max(rep.MaxRTT, r.RTT)
	if rep.MinRTT == 0 || r.RTT < rep.MinRTT {
		rep.MinRTT = r.RTT
	}
	if p.json {
		return
	}
	path := r.Path + " " + place(r.Endpoint.IsValid(), r.Endpoint.String(), r.Via)
	if p.last != "" && p.last != path {
		p.printf("the path changed: %s -> %s\n", clean(p.last), clean(path))
	}
	p.last = path
	p.printf("answer from %s (%s): seq=%d time=%s %s\n", clean(r.Name), r.Address, n, humanMillis(r.RTT), clean(path))
}

func (p *pinger) summary() error {
	rep := p.report
	if p.json {
		if err := p.printJSON(rep); err != nil {
			return err
		}
	} else {
		lost := 0
		if rep.Sent > 0 {
			lost = (rep.Sent - rep.Received) * 100 / rep.Sent
		}
		p.printf("\n%s: %d sent, %d answered, %d%% lost\n", clean(rep.Name), rep.Sent, rep.Received, lost)
		if rep.Received > 0 {
			p.printf("min %s, average %s, max %s\n", humanMillis(rep.MinRTT), humanMillis(rep.AvgRTT), humanMillis(rep.MaxRTT))
		}
	}
	if rep.Received == 0 {
		return errQuiet
	}
	return nil
}
