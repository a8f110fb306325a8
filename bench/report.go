//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is a line of the table.
type row struct {
	name, title, unit string
	target            float64 // of the ratio of medians (1); for the rows of absolute, of the median itself
	atMost            bool    // the target is an upper bound: less is better
	absolute          bool
}

var rows = []row{
	{"tcp-1", "TCP, 1 stream", "Gbit/s", 2.5, false, false},
	{"tcp-4", "TCP, 4 streams", "Gbit/s", 2.3, false, false},
	{"tcp-bidir", "TCP, 1 stream each way, sum", "Gbit/s", 2.3, false, false},
	{"tcp-stock", "TCP, 1 stream to stock wireguard-go (2)", "Gbit/s", 1.2, false, false},
	{"tcp-stock-back", "TCP, 1 stream from stock wireguard-go (2)", "Gbit/s", 0, false, false},
	{"tcp-plain", "TCP, 1 stream, no offloads on the veth", "Gbit/s", 3.0, false, false},
	{"udp-1400", "UDP, 1400-byte packets, loss < 0.1 % (3)", "k pkt/s", 1.5, false, false},
	{"udp-64", "UDP, 64-byte packets, loss < 0.1 % (3)", "k pkt/s", 1.5, false, false},
	{"cpu", "CPU of both daemons, TCP, 1 stream", "s/GB", 0.5, true, false},
	{"ping", "ping, idle, median", "ms", 1.0, true, false},
	{"ping-load", "ping beside 1 TCP stream, median (4)", "ms", 1.0, true, false},
	{"ping-load-99", "ping beside 1 TCP stream, p99 (4)", "ms", 1.0, true, false},
	{"rss-idle", "memory of a daemon, idle (5)", "MB", 25, true, true},
	{"rss-load", "memory of a daemon, largest under load (5)", "MB", 60, true, true},
	{"relay-tcp", "TCP, 1 stream, over relays (6)", "Gbit/s", 0.5, false, false},
	{"relay-cpu", "CPU of a relay; direct: of the receiver (7)", "s/GB", 0.6, true, false},
	{"relay-cpu-own", "CPU of a relay without the next host's receiving (8)", "s/GB", 0.6, true, false},
	{"relay-cpu-user", "of (7) in user space", "s/GB", 0, true, false},
	{"relay-ping", "ping, idle, median, over relays (6)", "ms", 0, true, false},
	{"relay-rss-idle", "memory of a relay, idle (5)", "MB", 25, true, true},
	{"relay-rss", "memory of a relay, largest under load; direct: of the receiver (5)", "MB", 60, true, true},
}

const footnotes = `(1) ratio of medians, to wireguard-go, of the rows with relays to direct; "met" and "missed" judge the median of these rounds
(2) one end stock wireguard-go, set up as "warren device add" prints it: its MTU is 1280, wireguard-go to wireguard-go has 1420
(3) highest delivered rate that a search found; sizes are of the inner IP packet; sent and received by sendmmsg and recvmmsg, no GSO
(4) 100 pings a second; a lost one counts as 1000 ms
(5) resident memory (VmRSS) of the largest daemon in question; under load: over all loads of a round, of relays during the stream
(6) the same two nodes each time; nft silences the wire between them, then the one from the first relay to the end, too
(7) user and system time of the daemon for each GB of the stream that the receiver got; of two relays the mean. Who sends into a
    veth also carries the packet through the next host's kernel: a relay pays for what its receiver's network card would start
(8) as (7), while threads of the kernel receive on all wires; the daemon and the threads of its own host count
`

// report gathers the results.
type report struct {
	options  options
	start    time.Time
	systems  []system
	values   map[string]map[string][]float64 // row, system
	busy     []float64                       // what share of the machine other programs had in each measurement, 0 to 1
	notes    []string
	failures []error
}

func newReport(o options) *report {
	return &report{options: o, start: time.Now(), values: map[string]map[string][]float64{}}
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	r.failures = append(r.failures, err)
}

func (r *report) add(system string, results map[string]float64) {
	for name, v := range results {
		if r.values[name] == nil {
			r.values[name] = map[string][]float64{}
		}
		r.values[name][system] = append(r.values[name][system], v)
	}
}

// column is whose results a line of the table has.
type column struct {
	name, base string // base: to which its ratios are; "": it has none
	judged     bool
}

// columns lists them in the order of the table: each system, then what Warren does with relays.
func (r *report) columns() (all []column) {
	for _, s := range r.systems {
		c := column{s.name, reference, s.judged}
		if s.name == reference {
			c.base = ""
		}
		all = append(all, c)
	}
	for _, s := range r.systems {
		if s.judged {
			direct := relayEntry(s.name, 0)
			all = append(all, column{direct, "", false}, column{relayEntry(s.name, 1), direct, true}, column{relayEntry(s.name, 2), direct, false})
		}
	}
	return all
}

// Result is one row for one system, as JSON.
type Result struct {
	Row    string    `json:"row"`
	Title  string    `json:"title"`
	Unit   string    `json:"unit"`
	System string    `json:"system"`
	Runs   []float64 `json:"runs"` // in the order of the rounds
	Min    float64   `json:"min"`
	Median float64   `json:"median"`
	Max    float64   `json:"max"`
	Ratio  float64   `json:"ratio,omitempty"` // of the medians, to wireguard-go or direct
	Target float64   `json:"target,omitempty"`
	Met    *bool     `json:"met,omitempty"`
}

// results lists what was measured, in the order of the table.
func (r *report) results() (out []Result) {
	for _, w := range rows {
		for _, s := range r.columns() {
			runs := r.values[w.name][s.name]
			if len(runs) == 0 {
				continue
			}
			sorted := slices.Sorted(slices.Values(runs))
			x := Result{Row: w.name, Title: w.title, Unit: w.unit, System: s.name, Runs: runs,
				Min: sorted[0], Median: quantile(sorted, 0.5), Max: sorted[len(sorted)-1]}
			if base := slices.Sorted(slices.Values(r.values[w.name][s.base])); len(base) > 0 {
				x.Ratio = x.Median / quantile(base, 0.5)
			}
			judged := x.Ratio
			if w.absolute {
				judged = x.Median
			}
			if w.target > 0 && judged > 0 && s.judged {
				met := judged >= w.target
				if w.atMost {
					met = judged <= w.target
				}
				x.Target, x.Met = w.target, &met
			}
			out = append(out, x)
		}
	}
	return out
}

// machine says in one line what all of it ran on.
func machine() string {
	model := "unknown CPU"
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	kernel := ""
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = ", Linux " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d x %s%s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// print writes the table.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "%s\n%s; %d rounds, %s a load\n\n", machine(), r.start.UTC().Format("2006-01-02 15:04 UTC"), r.options.rounds, r.options.time)
	line := func(cells ...any) {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-14s %7s %7s %7s  %-7s  %9s  %-7s %s", cells...), " "))
	}
	line("", "min", "median", "max", "unit", "ratio (1)", "target", "")
	last := ""
	for _, x := range r.results() {
		if x.Row != last {
			fmt.Fprintln(out, x.Title)
			last = x.Row
		}
		ratio, target, verdict := "", "", ""
		if x.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", x.Ratio)
		}
		if x.Met != nil {
			target, verdict = goal(x)
		}
		line(x.System, number(x.Min), number(x.Median), number(x.Max), x.Unit, ratio, target, verdict)
	}
	fmt.Fprintf(out, "\n%s", footnotes)
	if busy := slices.Sorted(slices.Values(r.busy)); len(busy) > 0 {
		fmt.Fprintf(out, "other programs had %.0f %% of the machine during the median measurement, %.0f %% at the p90, %.0f %% at most\n",
			100*quantile(busy, 0.5), 100*quantile(busy, 0.9), 100*busy[len(busy)-1])
	}
	for _, n := range r.notes {
		fmt.Fprintln(out, n)
	}
	for _, err := range r.failures {
		line, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintln(out, "FAILED:", line)
	}
}

// goal shows a target and whether it was reached.
func goal(x Result) (target, verdict string) {
	i := slices.IndexFunc(rows, func(w row) bool { return w.name == x.Row })
	sign := ">="
	if rows[i].atMost {
		sign = "<="
	}
	verdict = "missed"
	if *x.Met {
		verdict = "met"
	}
	return fmt.Sprintf("%s %g", sign, x.Target), verdict
}

// number shows three digits that matter.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// writeJSON writes everything into a file.
func (r *report) writeJSON(path string) error {
	var failures []string
	for _, err := range r.failures {
		failures = append(failures, err.Error())
	}
	b, err := json.MarshalIndent(struct {
		Machine  string    `json:"machine"`
		Start    time.Time `json:"start"`
		Rounds   int       `json:"rounds"`
		Seconds  float64   `json:"seconds"` // of one load
		Busy     []float64 `json:"busy"`    // the share that other programs had, 0 to 1
		Results  []Result  `json:"results"`
		Notes    []string  `json:"notes,omitempty"`
		Failures []string  `json:"failures,omitempty"`
	}{machine(), r.start.UTC(), r.options.rounds, r.options.time.Seconds(), r.busy, r.results(), r.notes, failures}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
