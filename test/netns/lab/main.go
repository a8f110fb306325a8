//go:build linux

package lab

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	family  = "warren-lab-" // begins the name of every namespace and folder of every run
	netnsAt = "/run/netns"
)

// runID names this run: family, process id, start time of the process. Empty: no lab can be made.
var runID string

// roles are what the test binary does instead of tests when its first argument says so.
var roles = map[string]func(args []string) error{
	"lab:enter": enter, "lab:reap": reap,
	"lab:send": send, "lab:receive": receive, "lab:stream": stream, "lab:sink": sink,
	"lab:talk": talk, "lab:hear": hear, "lab:call": call, "lab:answer": answer,
	"lab:reflect": reflect, "lab:stun": stunServer, "lab:probe": probe, "lab:punch": punch, "lab:proxy": proxy, "lab:reverse": reverse, "lab:forget": forget,
}

// Main is the whole of TestMain: it sweeps what dead runs left, starts the reaper, runs the tests and returns the exit code.
// In a re-executed helper it does the helper's work instead.
func Main(m *testing.M) int {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			if err := role(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
				return 1
			}
			return 0
		}
	}
	if missing() != "" {
		return m.Run() // each test says why it skips
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	runID = fmt.Sprintf("%s%d-%s", family, os.Getpid(), start)
	sweep()
	done, err := startReaper()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	manyAtOnce()
	code := m.Run()
	if err := done(); err != nil {
		fmt.Fprintln(os.Stderr, "lab: left behind:", err)
		return max(code, 1)
	}
	return code
}

// manyAtOnce lets four tests that call t.Parallel run at once, unless the command line says how many: they wait more than they
// compute.
func manyAtOnce() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		flag.Set("test.parallel", "4") //nolint:errcheck // the flag exists in every test binary
	}
}

// startReaper runs this binary as the reaper. It holds one end of a pipe, we the other: however we end, it notices.
func startReaper() (done func() error, err error) {
	cmd := exec.Command("/proc/self/exe", "lab:reap", runID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C ends the tests, not the cleaning
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	return func() error {
		in.Close()
		return cmd.Wait()
	}, nil
}

// reap waits until the tests have ended and destroys what is left of the run. After a run that ended well nothing is.
func reap(args []string) error {
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // whatever ends it, ends it
	left := labels(func(name string) bool { return strings.HasPrefix(name, args[0]+"-") })
	for _, name := range left {
		destroy(name) //nolint:errcheck // we go on with the rest; the next run sweeps
	}
	removeFolders(func(name string) bool { return strings.HasPrefix(name, args[0]) })
	if len(left) > 0 {
		return fmt.Errorf("the tests did not clean up %s", strings.Join(left, " "))
	}
	return nil
}

// sweep destroys what runs that no longer live have left.
func sweep() {
	dead := func(name string) bool {
		parts := strings.Split(strings.TrimPrefix(name, family), "-")
		pid, err := strconv.Atoi(parts[0])
		if err != nil || len(parts) < 2 {
			return false
		}
		start, err := startTime(pid)
		return err != nil || start != parts[1]
	}
	for _, name := range labels(dead) {
		if err := destroy(name); err != nil {
			fmt.Fprintln(os.Stderr, "lab: sweep:", err)
		}
	}
	removeFolders(dead)
}

// labels lists the namespaces of any run that match.
func labels(match func(string) bool) (names []string) {
	entries, _ := os.ReadDir(netnsAt) // no folder, no namespaces
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), family) && match(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

func removeFolders(match func(string) bool) {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), family+"*"))
	for _, f := range folders {
		if match(filepath.Base(f)) {
			os.RemoveAll(f) //nolint:errcheck // best effort; the next run tries again
		}
	}
}

// destroy kills whatever runs in a namespace and deletes it; its interfaces go with it.
func destroy(name string) error {
	for range 50 { // a process may start another while we look
		pids, err := processesIn(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return command("ip", "netns", "del", name)
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may be gone already
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("namespace %s: its processes do not end", name)
}

// processesIn lists the processes whose network is the namespace. A thread group that has died but was not waited for has none.
func processesIn(name string) (pids []int, err error) {
	var want unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsAt, name), &want); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		var have unix.Stat_t
		if unix.Stat(p, &have) == nil && have.Ino == want.Ino && have.Dev == want.Dev {
			pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// startTime is the time a process started, in clock ticks since boot (field 22 of its stat): with the id it names a process
// for as long as the machine runs. A process that has ended has none.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("process %d: unreadable stat", pid)
	}
	if fields[0] == "Z" { // it has ended; its parent has not looked yet
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// Leftovers lists what a test process has now: its namespaces, the processes in them, its folders.
func Leftovers(pid int) (found []string) {
	mine := func(name string) bool { return strings.HasPrefix(name, fmt.Sprintf("%s%d-", family, pid)) }
	for _, name := range labels(mine) {
		found = append(found, name)
		pids, _ := processesIn(name) // gone: none
		for _, p := range pids {
			found = append(found, fmt.Sprintf("process %d", p))
		}
	}
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), family+"*"))
	for _, f := range folders {
		if mine(filepath.Base(f)) {
			found = append(found, f)
		}
	}
	return found
}
