//go:build linux

// Package lab builds small internets out of Linux network namespaces and runs programs in them, for tests that need the real
// kernel: real TUN devices, real UDP, real TCP, real NAT.
//
//	Lab     all that one test owns
//	Switch  a namespace with a bridge: an Ethernet segment
//	Host    a namespace with its own host name, interfaces, addresses, firewall and processes
//	Port    an interface of a host, plugged into a switch or at an end of a wire
//	Wire    two hosts joined by a cable that delays, loses and shows what it carries
//	Node    a warren installation on a host: a state directory, a daemon, the command line
//
//	NAT, Internet, Site, Look: NATs and firewalls of all kinds, hosts behind them, and how they look from inside
//
// A package that uses it has a TestMain that calls [Main]. Nothing of a lab is in the namespace of the machine itself: no
// interface, no address, no firewall rule.
//
// Nothing stays behind. A test's own cleanup ends its processes and deletes its namespaces and files. When the test process
// dies in any other way (panic, timeout, kill -9), a reaper process, which [Main] started, notices and does the same; and if
// even that was killed, the next run sweeps what bears the name of a run that no longer lives.
//
// Without root, /dev/net/tun or the ip command, [New] skips the test and says which is missing.
package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Lab is what one test owns. Make it with [New]; the end of the test destroys it.
type Lab struct {
	t      testing.TB
	prefix string // of its namespaces
	dir    string // for state directories and logs

	mu        sync.Mutex
	names     []string // namespaces, in order of their making
	processes []*Process
	closers   []func() // of what this process holds in the namespaces
}

var labs atomic.Int64

// New makes an empty lab, or skips the test where none can be made.
func New(t testing.TB) *Lab {
	t.Helper()
	if why := missing(); why != "" {
		t.Skip("network namespaces: " + why)
	}
	if runID == "" {
		t.Fatal("BUG: TestMain does not call lab.Main")
	}
	l := &Lab{t: t, prefix: fmt.Sprintf("%s-%d-", runID, labs.Add(1))}
	l.dir = filepath.Join(os.TempDir(), strings.TrimSuffix(l.prefix, "-"))
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// missing says why no lab can be made here; "" if one can.
func missing() string {
	if os.Geteuid() != 0 {
		return "need root"
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		return "need /dev/net/tun: " + err.Error()
	} else {
		f.Close()
	}
	for _, tool := range []string{"ip", "ping"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "need the command " + tool
		}
	}
	return ""
}

// onClose has f called at the end of the lab, after its processes have ended.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// close ends everything of the lab. A process or namespace that does not end is a fault of the test.
func (l *Lab) close() {
	l.mu.Lock()
	processes, names, closers := l.processes, l.names, l.closers
	l.mu.Unlock()
	if l.t.Failed() {
		l.showLogs(processes)
	}
	for _, p := range processes {
		p.signalEnd()
	}
	for _, p := range processes {
		p.Stop()
	}
	for _, f := range closers {
		f()
	}
	for _, name := range names {
		if err := destroy(name); err != nil {
			l.t.Errorf("clean up: %v", err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("clean up: %v", err)
	}
}

const logTail = 80 // lines of each log that a failed test shows

// showLogs prints the end of what processes wrote, and of the log files in the state directories.
func (l *Lab) showLogs(processes []*Process) {
	var files []string
	for _, p := range processes {
		files = append(files, p.log)
	}
	more, _ := filepath.Glob(filepath.Join(l.dir, "*", "state", "*.log"))
	for _, file := range append(files, more...) {
		b, err := os.ReadFile(file)
		if err != nil || len(b) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
		if cut := len(lines) - logTail; cut > 0 {
			lines = append([]string{fmt.Sprintf("(%d lines before)", cut)}, lines[cut:]...)
		}
		l.t.Logf("---- %s\n%s", strings.TrimPrefix(file, l.dir+"/"), strings.Join(lines, "\n"))
	}
}

// ip runs the ip command inside a namespace.
func (l *Lab) ip(namespace string, args ...string) {
	l.t.Helper()
	if err := command("ip", append([]string{"-n", namespace}, args...)...); err != nil {
		l.t.Fatal(err)
	}
}

// command runs a short command of the machine; its output is in the error.
func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// Eventually calls f, ten times a second, until it returns nil; after limit it fails the test with f's last error.
// It returns how long that took.
func Eventually(t testing.TB, limit time.Duration, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("not within %s: %v", limit, err)
		}
		<-tick.C
	}
}

// Always calls f, ten times a second, for the whole duration; the first error fails the test.
func Always(t testing.TB, duration time.Duration, f func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < duration; <-tick.C {
		if err := f(); err != nil {
			t.Fatalf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
		}
	}
}
