//go:build linux

// Command bench measures Warren against wireguard-go, side by side on one machine, and prints one table.
//
//	make bench                                   # all rows, 5 rounds: about a quarter of an hour; root
//	go run ./bench -rounds 3 -time 3s -rows tcp-1,ping
//	go run ./bench -also old=/tmp/warren.old     # an older build of Warren as one more system
//
// Each system has two network namespaces of its own, joined by a veth with MTU 1500, and a daemon in each. All systems of
// a round are up at the same time; each row is measured for one after the other, so that what disturbs the machine
// disturbs all of them alike, and the order turns with the rounds. Only one system works at a time.
//
// The row "relay" has a network of four nodes of Warren by itself, which cuts the wires between the ends: see relay.go.
//
// wireguard-go is the program of its authors, built from the module that go.mod names, with its defaults. tincd, nebula
// and fastd are measured when they are on PATH. "bare veth" is the wire without any tunnel.
//
// Everything that bench makes goes away at its end: processes, namespaces, files. What a killed run left, the next removes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options is what the flags say.
type options struct {
	rounds  int
	time    time.Duration // of one measurement under load
	rows    string
	systems string
	json    string
	warren  string        // a built cmd/warren; "" builds it
	also    string        // name=path of one more
	calm    time.Duration // how long each measurement waits for other programs to be quiet
	verbose bool
}

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			exit(role(os.Args[2:]))
		}
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each row is measured")
	flag.DurationVar(&o.time, "time", 5*time.Second, "how long each load lasts")
	flag.StringVar(&o.rows, "rows", "", "only these, separated by commas: "+strings.Join(jobNames(), " "))
	flag.StringVar(&o.systems, "systems", "", "only these, separated by commas, such as warren,wireguard-go")
	flag.StringVar(&o.json, "json", "", "write every single result into this file, too")
	flag.StringVar(&o.warren, "warren", "", "measure this binary instead of building cmd/warren")
	flag.StringVar(&o.also, "also", "", "NAME=FILE: measure one more build of Warren")
	flag.DurationVar(&o.calm, "calm", 5*time.Second, "how long to wait, before each measurement, for other programs to be quiet; 0: neither wait nor repeat")
	flag.BoolVar(&o.verbose, "v", false, "print each result as it comes")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.time < time.Second {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run does everything; it returns an error when anything at all could not be measured.
func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("makes network namespaces and so needs root")
	}
	work, err := choose(jobs, o.rows, func(j job) string { return j.name })
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	sweep(ctx)
	if err := install(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", prefix()+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	report := newReport(o)
	all, err := systems(ctx, o, dir, work, report)
	if err != nil {
		return err
	}
	all, err = choose(all, o.systems, func(s system) string { return s.name })
	if err != nil {
		return fmt.Errorf("-systems: %w", err)
	}
	report.systems = all
	ctx, cancel := context.WithTimeout(ctx, limit(o, len(all), work))
	defer cancel()
	for n := range o.rounds {
		start := time.Now()
		if err := round(ctx, o, n, all, work, filepath.Join(dir, fmt.Sprint(n)), report); err != nil {
			return fmt.Errorf("round %d: %w", n+1, err)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d took %s\n", n+1, o.rounds, time.Since(start).Round(time.Second))
	}
	if o.json != "" {
		if err := report.writeJSON(o.json); err != nil {
			return err
		}
	}
	report.print(os.Stdout)
	return errors.Join(report.failures...)
}

// limit bounds the whole run, with room for everything that hangs until its own limit now and then.
func limit(o options, systems int, work []job) time.Duration {
	parts := len(work)
	if slices.ContainsFunc(work, func(j job) bool { return j.steps != nil }) {
		parts += 2 * numRelaySteps // what prepares them takes its time, too
	}
	return time.Duration(o.rounds) * (2*time.Minute + time.Duration(systems*parts)*(1+repeat)*(3*o.time+o.calm+20*time.Second))
}

// round brings all systems up, measures every row once for each, and takes them down.
func round(ctx context.Context, o options, n int, all []system, work []job, dir string, r *report) (err error) {
	var worlds []*world
	defer func() {
		for _, w := range worlds {
			w.close()
		}
	}()
	for i, s := range all {
		w, e := start(ctx, s, filepath.Join(dir, s.name), fmt.Sprintf("%d%d", n, i), r)
		if e != nil {
			return fmt.Errorf("start %s: %w", s.name, e)
		}
		worlds = append(worlds, w)
	}
	turn := n % len(worlds)
	order := append(slices.Clone(worlds[turn:]), worlds[:turn]...)
	for _, j := range work {
		for _, w := range order {
			if !j.fits(w) {
				continue
			}
			for _, s := range j.parts(w, n) {
				if e := part(ctx, o, s, worlds, r); e != nil {
					r.fail(fmt.Errorf("%s, %s: %w", s.entry, j.name, e))
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
		}
	}
	for _, w := range order {
		if w.peak > 0 {
			r.add(w.name, map[string]float64{"rss-load": w.peak})
		}
	}
	return nil
}

// part measures a step.
func part(ctx context.Context, o options, s step, worlds []*world, r *report) error {
	if s.prepare != nil {
		if err := s.prepare(ctx); err != nil {
			return err
		}
	}
	results, busy, err := undisturbed(ctx, o.calm, worlds, func() (map[string]float64, error) {
		ctx, cancel := context.WithTimeout(ctx, 3*o.time+30*time.Second)
		defer cancel()
		return s.apply(ctx, o.time)
	})
	if err != nil {
		return err
	}
	r.add(s.entry, results)
	r.busy = append(r.busy, busy)
	if o.verbose {
		for _, name := range slices.Sorted(maps.Keys(results)) {
			fmt.Fprintf(os.Stderr, "  %-14s %-14s %7s   (others: %2.0f %%)\n", name, s.entry, number(results[name]), 100*busy)
		}
	}
	return nil
}

const starts = 3 // how often a system may try to come up

// start brings a system up. What fails is taken down and tried again, and the report says so.
func start(ctx context.Context, s system, dir, id string, r *report) (w *world, err error) {
	for try := range starts {
		w, err = s.open(ctx, filepath.Join(dir, fmt.Sprint(try)), fmt.Sprintf("%s%d", id, try))
		if err == nil {
			return w, nil
		}
		if w != nil {
			w.close()
		}
		if ctx.Err() != nil {
			return nil, err
		}
		r.note("%s did not come up at once: %v", s.name, err)
	}
	return nil, err
}

// choose picks from all those named in the list; an empty list names all.
func choose[T any](all []T, list string, name func(T) string) (out []T, err error) {
	if list == "" {
		return all, nil
	}
	want := strings.Split(list, ",")
	for _, x := range all {
		if i := slices.Index(want, name(x)); i >= 0 {
			out, want = append(out, x), slices.Delete(want, i, i+1)
		}
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("unknown: %s", strings.Join(want, " "))
	}
	return out, nil
}

// tools is what bench calls: command, Debian package.
var tools = [][2]string{{"ip", "iproute2"}, {"iperf3", "iperf3"}, {"ping", "iputils-ping"}, {"ethtool", "ethtool"}, {"nft", "nftables"}}

// install gets the commands that are missing, where apt is there to be asked.
func install(ctx context.Context) error {
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t[0]); err != nil {
			missing = append(missing, t[1])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintln(os.Stderr, "installing:", strings.Join(missing, " "))
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "apt-get update -qq && apt-get install -y -qq --no-install-recommends "+strings.Join(missing, " "))
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("needs %s, which could not be installed: %w: %s", strings.Join(missing, " "), err, out)
	}
	return nil
}
