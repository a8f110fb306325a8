//go:build linux

package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	quiet  = 0.1 // share of the machine's CPU time that others may have
	look   = 200 * time.Millisecond
	repeat = 2 // how often a disturbed measurement is done again
)

// undisturbed measures while other programs are quiet, as far as they let it: it waits for that before each measurement, at
// most for limit, and repeats a measurement during which they were not quiet. It returns the least disturbed one, and the share
// of the machine that others had then.
func undisturbed(ctx context.Context, limit time.Duration, all []*world, measure func() (map[string]float64, error)) (best map[string]float64, busy float64, err error) {
	busy = 2
	for try := 0; try <= repeat && busy > quiet; try++ {
		calm(ctx, limit)
		before := othersTime(all)
		start := time.Now()
		results, err := measure()
		if err != nil {
			return nil, 0, err
		}
		took := time.Since(start).Seconds() * float64(numCPU())
		if b := max(0, (othersTime(all)-before)/took); b < busy {
			best, busy = results, b
		}
		if limit == 0 {
			break
		}
	}
	return best, busy, nil
}

// calm waits until the machine is quiet, at most for limit.
func calm(ctx context.Context, limit time.Duration) {
	for start := time.Now(); time.Since(start) < limit; {
		before := usedTime()
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return
		}
		if usedTime()-before <= quiet*look.Seconds()*float64(numCPU()) {
			return
		}
	}
}

// numCPU counts the CPUs of the machine, whatever part of them is ours.
func numCPU() int {
	b, _ := os.ReadFile("/proc/stat")
	return max(1, strings.Count(string(b), "\ncpu"))
}

// usedTime is how long all CPUs have worked, or were taken from this virtual machine, in seconds.
func usedTime() (seconds float64) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseFloat(f, 64)
		if err == nil && i != 4 && i != 5 && i <= 8 { // not idle, not waiting for a disk; guests are counted before
			seconds += n / ticksPerSecond
		}
	}
	return seconds
}

// othersTime is usedTime without ours: the bench, the helpers that have ended, all daemons. Interrupts count as the time of the
// process that they interrupt, on both sides.
func othersTime(all []*world) float64 {
	own := 0.0
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			own += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
	}
	for _, w := range all {
		for _, l := range w.lanes() {
			seconds, _, _ := cpu(l.daemons)
			own += seconds
			for _, threads := range l.threads {
				seconds, _, _ := cpuOf(threads)
				own += seconds
			}
		}
	}
	return usedTime() - own
}
