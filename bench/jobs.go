//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// job is one measurement. It gives the results of one row or of several.
type job struct {
	name  string
	load  bool // the memory under it counts
	fits  func(w *world) bool
	apply func(ctx context.Context, w *world, t time.Duration) (map[string]float64, error)
	steps func(w *world, round int) []step // in place of apply, for what is measured in parts
}

// step is a part of a job that is measured by itself.
type step struct {
	entry   string // in the table, whose results they are
	prepare func(ctx context.Context) error
	apply   func(ctx context.Context, t time.Duration) (map[string]float64, error)
}

// parts are the steps of the job; most have one.
func (j job) parts(w *world, round int) []step {
	if j.steps != nil {
		return j.steps(w, round)
	}
	return []step{{entry: w.name, apply: func(ctx context.Context, t time.Duration) (map[string]float64, error) { return w.measure(ctx, j, t) }}}
}

func always(*world) bool         { return true }
func hasDaemons(w *world) bool   { return len(w.lane.daemons) > 0 }
func hasStockPeer(w *world) bool { return w.stock != nil }
func hasMesh(w *world) bool      { return w.mesh != nil }

// jobs is what is measured, in this order: what needs quiet comes first.
var jobs = []job{
	{"rss", false, hasDaemons, idleMemory, nil},
	{"ping", false, always, pingIdle, nil},
	{"tcp-1", true, always, tcpOne, nil},
	{"tcp-4", true, always, tcpFour, nil},
	{"tcp-bidir", true, always, tcpBoth, nil},
	{"tcp-stock", false, hasStockPeer, tcpStock, nil},
	{"tcp-plain", true, always, tcpPlain, nil},
	{"ping-load", true, always, pingLoad, nil},
	{"udp-1400", true, always, udpRow(1400), nil},
	{"udp-64", true, always, udpRow(64), nil},
	{"relay", false, hasMesh, nil, relaySteps},
}

func jobNames() (names []string) {
	for _, j := range jobs {
		names = append(names, j.name)
	}
	return names
}

// measure runs a job, with an eye on the memory of the daemons.
func (w *world) measure(ctx context.Context, j job, t time.Duration) (results map[string]float64, err error) {
	if !j.load || len(w.lane.daemons) == 0 {
		return j.apply(ctx, w, t)
	}
	mb := peak(ctx, w.lane.daemons, func() { results, err = j.apply(ctx, w, t) })
	w.peak = max(w.peak, mb)
	return results, err
}

// peak returns the largest memory of any of the daemons while do runs, in MB.
func peak(ctx context.Context, daemons []*process, do func()) (mb float64) {
	watch, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with watch
		tick := time.NewTicker(pollForThis)
		defer tick.Stop()
		for {
			if m, err := memory(daemons); err == nil {
				mb = max(mb, m)
			}
			select {
			case <-tick.C:
			case <-watch.Done():
				return
			}
		}
	})
	do()
	stop()
	wg.Wait()
	return mb
}

// memory is the resident memory of the largest of the daemons, in MB.
func memory(daemons []*process) (mb float64, err error) {
	for _, d := range daemons {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), "VmRSS:")
		f := strings.Fields(rest)
		if len(f) < 2 {
			return 0, errors.New("no VmRSS")
		}
		kb, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			return 0, err
		}
		mb = max(mb, kb*1024/1e6)
	}
	return mb, nil
}

const ticksPerSecond = 100 // USER_HZ

// cpu is the CPU time that the daemons have used together, in seconds, and what of it was not in the kernel.
func cpu(daemons []*process) (seconds, user float64, err error) {
	var pids []int
	for _, d := range daemons {
		pids = append(pids, d.cmd.Process.Pid)
	}
	return cpuOf(pids)
}

// cpuOf is cpu of processes by their numbers.
func cpuOf(pids []int) (seconds, user float64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, 0, err
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 13 {
			return 0, 0, errors.New("short /proc stat")
		}
		utime, err := strconv.ParseFloat(f[11], 64)
		if err != nil {
			return 0, 0, err
		}
		stime, err := strconv.ParseFloat(f[12], 64)
		if err != nil {
			return 0, 0, err
		}
		seconds += (utime + stime) / ticksPerSecond
		user += utime / ticksPerSecond
	}
	return seconds, user, nil
}

func idleMemory(_ context.Context, w *world, _ time.Duration) (map[string]float64, error) {
	m, err := memory(w.lane.daemons)
	return map[string]float64{"rss-idle": m}, err
}

// iperf sends TCP from side a to side b, or as flags say, and returns what arrived in all directions together.
func iperf(ctx context.Context, l *lane, t time.Duration, flags ...string) (gbits, gigabytes float64, err error) {
	server, err := l.start(1, "iperf3", l.cmd(ctx, 1, "iperf3", "-s", "-1", "--forceflush", "-B", l.inner[1].String()))
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		server.cmd.Process.Kill() //nolint:errcheck // it has ended by itself when all is well
		server.end()
	}()
	err = l.eventually(ctx, func() error {
		if !strings.Contains(server.tail(), "Server listening") {
			return fmt.Errorf("the iperf3 server does not listen: %s", server.tail())
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	limited, cancel := context.WithTimeout(ctx, t+shortLimit)
	defer cancel()
	seconds := strconv.Itoa(max(1, int(t.Round(time.Second)/time.Second)))
	out, err := output(l.cmd(limited, 0, append([]string{"iperf3", "-J", "-c", l.inner[1].String(), "-t", seconds}, flags...)...))
	if err != nil {
		return 0, 0, err
	}
	return parseIperf([]byte(out))
}

// parseIperf adds up what the receivers got.
func parseIperf(out []byte) (gbits, gigabytes float64, err error) {
	type sum struct {
		Bytes float64 `json:"bytes"`
		Bits  float64 `json:"bits_per_second"`
	}
	var r struct {
		Error string `json:"error"`
		End   struct {
			There sum `json:"sum_received"`
			Back  sum `json:"sum_received_bidir_reverse"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, 0, fmt.Errorf("iperf3: %w", err)
	}
	if r.Error != "" || r.End.There.Bytes == 0 {
		return 0, 0, fmt.Errorf("iperf3: nothing arrived: %s", r.Error)
	}
	return (r.End.There.Bits + r.End.Back.Bits) / 1e9, (r.End.There.Bytes + r.End.Back.Bytes) / 1e9, nil
}

func tcpOne(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	before, _, err := cpu(w.lane.daemons)
	if err != nil {
		return nil, err
	}
	gbits, gigabytes, err := iperf(ctx, w.lane, t)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{"tcp-1": gbits}
	if hasDaemons(w) {
		after, _, err := cpu(w.lane.daemons)
		if err != nil {
			return nil, err
		}
		out["cpu"] = (after - before) / gigabytes
	}
	return out, nil
}

func tcpFour(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	gbits, _, err := iperf(ctx, w.lane, t, "-P", "4")
	return map[string]float64{"tcp-4": gbits}, err
}

func tcpBoth(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	gbits, _, err := iperf(ctx, w.lane, t, "--bidir")
	return map[string]float64{"tcp-bidir": gbits}, err
}

// tcpStock measures both directions where side b is stock wireguard-go.
func tcpStock(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	there, _, err := iperf(ctx, w.stock, t)
	if err != nil {
		return nil, err
	}
	back, _, err := iperf(ctx, w.stock, t, "-R")
	return map[string]float64{"tcp-stock": there, "tcp-stock-back": back}, err
}

func tcpPlain(ctx context.Context, w *world, t time.Duration) (out map[string]float64, err error) {
	restore, err := w.lane.plain(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, restore()) }()
	gbits, _, err := iperf(ctx, w.lane, t)
	return map[string]float64{"tcp-plain": gbits}, err
}

const (
	pingEvery = 10 * time.Millisecond
	lostPing  = 1000 // ms that a lost ping counts as
)

// ping sends pings for t and returns how long each took, in ms, sorted.
func ping(ctx context.Context, l *lane, t time.Duration) ([]float64, error) {
	n := int(t / pingEvery)
	out, err := l.run(ctx, 0, "ping", "-n", "-i", fmt.Sprint(pingEvery.Seconds()), "-c", strconv.Itoa(n), "-W", "1", l.inner[1].String())
	if err != nil {
		return nil, err
	}
	return parsePing(out, n)
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// parsePing reads the output of ping, which sent n.
func parsePing(out string, n int) (times []float64, err error) {
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
		times = append(times, ms)
	}
	for len(times) < n {
		times = append(times, lostPing)
	}
	slices.Sort(times)
	return times, nil
}

func pingIdle(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	times, err := ping(ctx, w.lane, min(t, 2*time.Second))
	if err != nil {
		return nil, err
	}
	return map[string]float64{"ping": quantile(times, 0.5)}, nil
}

// pingLoad pings while one TCP stream runs, from a bit after its start to a bit before its end.
func pingLoad(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const margin = 300 * time.Millisecond
	var times []float64
	var pingErr error
	var wg sync.WaitGroup
	wg.Go(func() { // ends after t at most
		select {
		case <-time.After(margin):
		case <-ctx.Done():
		}
		times, pingErr = ping(ctx, w.lane, t-2*margin)
	})
	_, _, err := iperf(ctx, w.lane, t)
	if err != nil {
		cancel()
	}
	wg.Wait()
	if err = errors.Join(err, pingErr); err != nil {
		return nil, err
	}
	return map[string]float64{"ping-load": quantile(times, 0.5), "ping-load-99": quantile(times, 0.99)}, nil
}

// quantile picks from sorted values; the middle of an even number is the mean of two.
func quantile(sorted []float64, q float64) float64 {
	switch n := len(sorted); {
	case n == 0:
		return 0
	case q == 0.5:
		return (sorted[(n-1)/2] + sorted[n/2]) / 2
	default:
		return sorted[min(n-1, int(q*float64(n)))]
	}
}
