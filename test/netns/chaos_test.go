//go:build linux

package netns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/warren-vpn/warren/test/netns/lab"
)

const (
	chaosTime   = 45 * time.Second
	chaosGap    = 10 * time.Second // of silence of a stream: two failures in a row, and TCP's own patience
	settledTime = 6 * time.Second  // after its return a relay counts as a way again
	mostDown    = 2                // of the four relays, those just back included
)

// Twelve hosts on two segments; only r, s, t and u are on both. At random, relays and two of the others are killed, stopped or
// unplugged, and come back; two settled relays remain at any time, so every stream between the segments has a route all the
// time. No stream dies.
//
//	a b c d               e f g h
//	| | | |               | | | |
//	+-+-+-+-- r s t u ----+-+-+-+
//
// WARREN_CHAOS=5m is how long it goes on, WARREN_CHAOS_SEED repeats the order of events (not their exact times).
func TestChaos(t *testing.T) {
	t.Parallel()
	long, seed := chaosTime, uint64(time.Now().UnixNano())
	if v := os.Getenv("WARREN_CHAOS"); v != "" {
		var err error
		if long, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("WARREN_CHAOS_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("WARREN_CHAOS_SEED=%d", seed)
	g := newGraph(t, "a-b-c-d-r-s-t-u", "e-f-g-h-r-s-t-u")
	g.found()
	lab.AllReach(t, 2*meshLimit, g.nodes)

	var talks []*lab.Talk
	for _, pair := range [][2]string{{"a", "e"}, {"e", "a"}, {"b", "f"}, {"f", "c"}, {"c", "g"}, {"g", "b"}, {"a", "c"}} {
		ends := g.named(pair[0], pair[1])
		v4, v6 := ends[1].Addrs()
		to := v4
		if len(talks)%2 == 1 {
			to = v6
		}
		talks = append(talks, ends[0].StartTalk(ends[1].Host, to, pair[0], lab.Pace{}))
	}
	machine := g.find("a").StartStream(g.find("c").Host, g.between("a", "c").addr4(g.find("c"))) // past the network
	c := &chaos{g: g, random: rand.New(rand.NewPCG(seed, 1)), relays: g.named("r", "s", "t", "u"), others: g.named("d", "h"), back: map[*lab.Node]time.Time{}}
	start := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for next := start; time.Since(start) < long; <-tick.C {
		c.bringBack(time.Now())
		if now := time.Now(); now.After(next) {
			c.strike(now)
			next = now.Add(time.Second + time.Duration(c.random.Int64N(int64(2*time.Second))))
		}
	}
	for len(c.down) > 0 {
		<-tick.C
		c.bringBack(time.Now())
	}
	lab.AllReach(t, 2*healLimit, g.nodes)
	worst := time.Duration(0)
	for _, talk := range talks {
		f := talk.End()
		if f.Broken != "" {
			t.Errorf("a stream died: %s", f.Broken)
		}
		if f.Longest() > chaosGap {
			t.Errorf("%s was silent for %s, want at most %s", talk.Name, f.Longest().Round(time.Millisecond), chaosGap)
		}
		worst = max(worst, f.Longest())
		for _, gap := range f.Gaps {
			if d := gap.To.Sub(gap.From); d > gapLimit {
				t.Logf("%s: silent for %s from %s on", talk.Name, d.Round(time.Millisecond), gap.From.Sub(start).Round(time.Millisecond))
			}
		}
		t.Logf("%s: %d records, %d gaps, the longest %s", talk.Name, f.Count, len(f.Gaps), f.Longest().Round(time.Millisecond))
	}
	t.Logf("%d blows in %s; the longest silence was %s", c.blows, time.Since(start).Round(time.Second), worst.Round(time.Millisecond))
	f := machine.End()
	t.Logf("past the network there were %d gaps, the longest %s: such is the machine", len(f.Gaps), f.Longest().Round(time.Millisecond))
	g.logBlame()
	if t.Failed() {
		t.Logf("what happened:\n%s", c.story)
	}
}

// chaos takes hosts down and up again.
type chaos struct {
	g              *graph
	random         *rand.Rand
	relays, others []*lab.Node
	down           []outage
	back           map[*lab.Node]time.Time // when it came back last
	blows          int
	story          string
	start          time.Time
}

// outage is a host that is down, or unplugged, until.
type outage struct {
	node   *lab.Node
	until  time.Time
	revive func()
}

// strike takes one host down, if one may be.
func (c *chaos) strike(now time.Time) {
	if c.start.IsZero() {
		c.start = now
	}
	var may []*lab.Node
	busy := 0
	for _, n := range c.relays {
		if c.isDown(n) || now.Sub(c.back[n]) < settledTime {
			busy++
		} else {
			may = append(may, n)
		}
	}
	if busy >= mostDown {
		may = nil
	}
	for _, n := range c.others {
		if !c.isDown(n) {
			may = append(may, n)
		}
	}
	if len(may) == 0 {
		return
	}
	n := may[c.random.IntN(len(may))]
	o := outage{node: n, until: now.Add(200*time.Millisecond + time.Duration(c.random.Int64N(int64(4*time.Second)))), revive: n.Up}
	how := "kill -9"
	switch c.random.IntN(6) {
	case 0:
		how = "stop"
		n.Stop()
	case 1:
		how = "unplug"
		var unplugged []*segment
		for _, s := range c.g.segments {
			if slices.Contains(s.nodes, n) {
				s.unplug(n)
				unplugged = append(unplugged, s)
			}
		}
		o.revive = func() {
			for _, s := range unplugged {
				s.plug(n)
			}
		}
	default:
		n.Kill()
	}
	c.down = append(c.down, o)
	c.blows++
	c.note(now, "%s of %s for %s", how, n.Name, o.until.Sub(now).Round(time.Millisecond))
}

func (c *chaos) isDown(n *lab.Node) bool {
	return slices.ContainsFunc(c.down, func(o outage) bool { return o.node == n })
}

// bringBack revives those whose time has come.
func (c *chaos) bringBack(now time.Time) {
	c.down = slices.DeleteFunc(c.down, func(o outage) bool {
		if now.Before(o.until) {
			return false
		}
		o.revive()
		c.back[o.node] = time.Now()
		c.note(now, "%s is back", o.node.Name)
		return true
	})
}

func (c *chaos) note(now time.Time, format string, args ...any) {
	c.story += fmt.Sprintf("%8s  ", now.Sub(c.start).Round(time.Millisecond)) + fmt.Sprintf(format, args...) + "\n"
}
