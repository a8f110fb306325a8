//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	runLimit  = 90 * time.Second // of a command that should end by itself
	stopLimit = 5 * time.Second  // between the polite and the hard end of a process
)

// Result is what a command that ended left.
type Result struct {
	Out, Err string
	Code     int // exit code; -1: it did not end in time, or by a signal
	Took     time.Duration
}

// String shows everything, for messages of tests.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d after %s\nstdout: %s\nstderr: %s", r.Code, r.Took.Round(time.Millisecond), r.Out, r.Err)
}

func (h *Host) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"lab:enter", h.ns, h.Name}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=dumb", "NO_COLOR=1")
	cmd.Dir = h.dir
	return cmd
}

// Run runs a command in the host and waits for its end, at most a minute.
func (h *Host) Run(args ...string) Result { return h.run(nil, args) }

func (h *Host) run(env []string, args []string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := h.command(ctx, args)
	cmd.Env = append(cmd.Env, env...)
	// Into files: a daemon that it leaves behind may hold them open for as long as it wants.
	out, err1 := os.CreateTemp(h.dir, "out")
	errOut, err2 := os.CreateTemp(h.dir, "err")
	if err := errors.Join(err1, err2); err != nil {
		return Result{Err: err.Error(), Code: -1}
	}
	defer os.Remove(out.Name())
	defer os.Remove(errOut.Name())
	defer out.Close()
	defer errOut.Close()
	cmd.Stdout, cmd.Stderr = out, errOut
	start := time.Now()
	err := cmd.Run()
	r := Result{Out: readFile(out.Name()), Err: readFile(errOut.Name()), Took: time.Since(start)}
	if err != nil {
		r.Code = -1
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			r.Code = exit.ExitCode()
		}
		if r.Err == "" {
			r.Err = err.Error()
		}
	}
	return r
}

// Must runs a command in the host and returns what it printed; a failure ends the test.
func (h *Host) Must(args ...string) string {
	h.lab.t.Helper()
	r := h.Run(args...)
	if r.Code != 0 {
		h.lab.t.Fatalf("%s$ %s: %s", h.Name, strings.Join(args, " "), r)
	}
	return r.Out
}

// Ping sends one ping from the host and waits a second for the answer.
func (h *Host) Ping(to netip.Addr) error {
	if r := h.Run("ping", "-n", "-q", "-c", "1", "-W", "1", to.String()); r.Code != 0 {
		return fmt.Errorf("%s cannot ping %s", h.Name, to)
	}
	return nil
}

// Process is a command that runs in the background. The end of the lab ends it.
type Process struct {
	name string
	host *Host
	cmd  *exec.Cmd
	log  string // file with its stderr
	out  *os.File
	done chan struct{}
	once sync.Once
}

// Start runs a command in the host in the background. Both outputs go to files; see Log and Out.
func (h *Host) Start(args ...string) *Process {
	h.lab.t.Helper()
	return h.start(nil, args)
}

func (h *Host) start(env []string, args []string) *Process {
	l := h.lab
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	name := fmt.Sprintf("%s-%d-%s", h.Name, len(l.processes), filepath.Base(args[0]))
	p := &Process{name: name, host: h, log: filepath.Join(l.dir, name+".err"), done: make(chan struct{})}
	p.cmd = h.command(context.Background(), args)
	p.cmd.Env = append(p.cmd.Env, env...)
	errOut, err := os.Create(p.log)
	if err != nil {
		l.t.Fatal(err)
	}
	defer errOut.Close()
	if p.out, err = os.Create(filepath.Join(l.dir, name+".out")); err != nil {
		l.t.Fatal(err)
	}
	defer p.out.Close()
	p.cmd.Stdout, p.cmd.Stderr = p.out, errOut
	if err := p.cmd.Start(); err != nil {
		l.t.Fatalf("start %s: %v", name, err)
	}
	l.processes = append(l.processes, p)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the process, which Stop or Kill end
		p.cmd.Wait() //nolint:errcheck // the exit code is in ProcessState
		close(p.done)
	})
	return p
}

// Out returns what the process has printed so far.
func (p *Process) Out() string { return readFile(p.out.Name()) }

// Log returns what the process has written to stderr so far.
func (p *Process) Log() string { return readFile(p.log) }

func readFile(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may be gone already
	<-p.done
}

// Stop ends the process politely, after five seconds hard, and returns its exit code. Calling it again does nothing new.
func (p *Process) Stop() int {
	p.signalEnd()
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		p.host.lab.t.Errorf("%s did not end within %s of SIGTERM", p.name, stopLimit)
		p.Kill()
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) signalEnd() {
	p.once.Do(func() { p.cmd.Process.Signal(syscall.SIGTERM) }) //nolint:errcheck // it may be gone already
}

// Wait waits for the process to end by itself and returns its exit code; after limit it fails the test.
func (p *Process) Wait(limit time.Duration) int {
	p.host.lab.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.host.lab.t.Fatalf("%s has not ended after %s", p.name, limit)
	}
	return p.cmd.ProcessState.ExitCode()
}
