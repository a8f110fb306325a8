//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	family      = "warren-bench-" // begins the name of every namespace and folder of every run
	shortLimit  = 20 * time.Second
	readyLimit  = 20 * time.Second
	endLimit    = 5 * time.Second
	device      = "eth0"
	logTail     = 2000 // bytes of a log in an error
	pollForThis = 50 * time.Millisecond
)

// outer is the address of each end on the wire.
var outer = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}

func prefix() string { return fmt.Sprintf("%s%d-", family, os.Getpid()) }

// lane is namespaces joined by veths with MTU 1500, and the daemons in them. Sides 0 and 1 are the ends, a and b.
type lane struct {
	ns      []string
	dir     string
	inner   [2]netip.Addr // the address of each end in the tunnel
	daemons []*process
	threads map[int][]int // of the kernel, by the side whose packets they receive: see ownReceiver
}

// newLane makes the namespaces of two ends and the wire. name is unique in the run.
func newLane(ctx context.Context, dir, name string) (*lane, error) {
	l, err := namespaces(ctx, dir, name, "a", "b")
	if err != nil {
		return l, err
	}
	return l, l.wire(ctx, end{0, device, outer[0]}, end{1, device, outer[1]})
}

// namespaces makes a namespace for each side, without wires. After an error, too, the lane must be closed, unless it is nil.
func namespaces(ctx context.Context, dir, name string, sides ...string) (*lane, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &lane{dir: dir, inner: outer}
	for _, side := range sides {
		ns := prefix() + name + side
		if err := command(ctx, "ip", "netns", "add", ns); err != nil {
			return l, err
		}
		l.ns = append(l.ns, ns)
		if err := command(ctx, "ip", "-n", ns, "link", "set", "lo", "up"); err != nil {
			return l, err
		}
	}
	return l, nil
}

// end is one end of a wire.
type end struct {
	side   int
	device string
	addr   netip.Addr // in a /24
}

// wire joins two sides by a veth. It has IPv4 only, so that all systems send packets of one size.
func (l *lane) wire(ctx context.Context, a, b end) error {
	steps := [][]string{{"-n", l.ns[a.side], "link", "add", a.device, "mtu", "1500", "type", "veth",
		"peer", "name", b.device, "mtu", "1500", "netns", l.ns[b.side]}}
	for _, e := range []end{a, b} {
		steps = append(steps, []string{"-n", l.ns[e.side], "link", "set", e.device, "addrgenmode", "none", "up"},
			[]string{"-n", l.ns[e.side], "addr", "add", netip.PrefixFrom(e.addr, 24).String(), "dev", e.device})
	}
	for _, s := range steps {
		if err := command(ctx, "ip", s...); err != nil {
			return err
		}
	}
	return nil
}

// ownReceiver has a side's packets from a device received by a thread of the kernel, once receiveApart says so. Otherwise whoever
// sends into a veth also carries the packet through the network stack of the receiving side, to its socket, and pays for it.
func (l *lane) ownReceiver(ctx context.Context, side int, device string) error {
	before, err := napiThreads()
	if err != nil {
		return err
	}
	if _, err := l.run(ctx, side, "ethtool", "-K", device, "gro", "on"); err != nil {
		return err
	}
	if _, err := l.run(ctx, side, "sh", "-c", "echo 1 >/sys/class/net/"+device+"/threaded"); err != nil {
		return err
	}
	after, err := napiThreads()
	if err != nil {
		return err
	}
	fresh := slices.DeleteFunc(after, func(pid int) bool { return slices.Contains(before, pid) })
	if len(fresh) == 0 {
		return fmt.Errorf("the kernel made no thread to receive from %s", device)
	}
	if l.threads == nil {
		l.threads = map[int][]int{}
	}
	l.threads[side] = append(l.threads[side], fresh...)
	return nil
}

// receiveApart says of a device with an ownReceiver whether that thread receives, or whoever sends. A veth uses its thread only
// for packets that could be joined to larger ones, which this option makes of all that come from UDP sockets.
func (l *lane) receiveApart(ctx context.Context, side int, device string, apart bool) error {
	option := "off"
	if apart {
		option = "on"
	}
	_, err := l.run(ctx, side, "ethtool", "-K", device, "rx-udp-gro-forwarding", option)
	return err
}

// napiThreads lists the threads of the kernel that receive packets.
func napiThreads() (pids []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, _ := os.ReadFile(name) // it may be gone already
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && strings.HasPrefix(string(b), "napi/") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// offloads are what a wire without offloads lacks. Generic segmentation alone would leave UDP's own on.
var offloads = map[string]string{"tcp-segmentation-offload": "tso", "generic-segmentation-offload": "gso",
	"generic-receive-offload": "gro", "tx-udp-segmentation": "tx-udp-segmentation"}

// plain turns the offloads of the wire off, so that every packet crosses it by itself. restore turns those on again that
// were on.
func (l *lane) plain(ctx context.Context) (restore func() error, err error) {
	var on [2][]string
	for side := range l.ns {
		out, err := l.run(ctx, side, "ethtool", "-k", device)
		if err != nil {
			return nil, err
		}
		off := []string{"ethtool", "-K", device}
		for line := range strings.Lines(out) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if short := offloads[name]; short != "" && value == "on" {
				off = append(off, short, "off")
				on[side] = append(on[side], short, "on")
			}
		}
		if len(on[side]) == 0 {
			return nil, errors.New("the veth has no offloads to turn off")
		}
		if _, err := l.run(ctx, side, off...); err != nil {
			return nil, err
		}
	}
	return func() (err error) {
		for side, features := range on {
			_, e := l.run(ctx, side, append([]string{"ethtool", "-K", device}, features...)...)
			err = errors.Join(err, e)
		}
		return err
	}, nil
}

// cmd is a command in the namespace of one side. `ip netns exec` becomes the command: its process id is the command's.
func (l *lane) cmd(ctx context.Context, side int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.ns[side]}, args...)...)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives us
	return cmd
}

// run runs a short command in the namespace of one side and returns what it printed.
func (l *lane) run(ctx context.Context, side int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, shortLimit)
	defer cancel()
	return output(l.cmd(ctx, side, args...))
}

// output runs cmd; the error holds what it wrote.
func output(cmd *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, errOut.String(), out.String())
	}
	return out.String(), nil
}

// command runs a short command outside of the namespaces.
func command(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, shortLimit)
	defer cancel()
	_, err := output(exec.CommandContext(ctx, name, args...))
	return err
}

// close ends the daemons and removes the namespaces; it works on after an interrupt.
func (l *lane) close() {
	ctx := context.Background()
	for _, d := range l.daemons {
		d.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may be gone already
	}
	for _, d := range l.daemons {
		d.end()
	}
	for _, ns := range l.ns {
		destroy(ctx, ns)
	}
}

// destroy ends what still runs in a namespace of ours and removes it.
func destroy(ctx context.Context, ns string) {
	out, _ := output(exec.CommandContext(ctx, "ip", "netns", "pids", ns))
	for _, f := range strings.Fields(out) {
		if pid, err := strconv.Atoi(f); err == nil {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may be gone already
		}
	}
	if err := command(ctx, "ip", "netns", "del", ns); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}

// sweep removes what killed runs left.
func sweep(ctx context.Context) {
	dead := func(name string) bool {
		rest, ok := strings.CutPrefix(name, family)
		pid, err := strconv.Atoi(strings.SplitN(rest, "-", 2)[0])
		return ok && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	names, _ := os.ReadDir("/run/netns")
	for _, e := range names {
		if dead(e.Name()) {
			destroy(ctx, e.Name())
		}
	}
	folders, _ := os.ReadDir(os.TempDir())
	for _, e := range folders {
		if dead(e.Name()) {
			os.RemoveAll(filepath.Join(os.TempDir(), e.Name())) //nolint:errcheck // the system cleans that folder in the end
		}
	}
}

// process is a daemon or another command in the background. Its output goes to a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs a command in the background of one side. name is that of its log.
func (l *lane) start(side int, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(l.dir, fmt.Sprintf("%s-%d.log", name, side)), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the process, which end sees to
		cmd.Wait() //nolint:errcheck // its log tells
		close(p.done)
	})
	return p, nil
}

// daemon starts a command that lives as long as the lane and whose cost is counted.
func (l *lane) daemon(side int, name string, env []string, stdin string, args ...string) (*process, error) {
	cmd := l.cmd(context.Background(), side, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	p, err := l.start(side, name, cmd)
	if err == nil {
		l.daemons = append(l.daemons, p)
	}
	return p, err
}

// tail returns the end of the log.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-logTail):])
}

// end waits for a process that was told to end, and then ends it the hard way.
func (p *process) end() {
	select {
	case <-p.done:
	case <-time.After(endLimit):
		p.cmd.Process.Kill() //nolint:errcheck // it may be gone already
		<-p.done
	}
}

// eventually calls f until it returns nil. When a daemon of the lane ends meanwhile, it gives up with its log.
func (l *lane) eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(pollForThis)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		for _, d := range l.daemons {
			select {
			case <-d.done:
				return fmt.Errorf("%s ended: %s", d.cmd.Args[4], d.tail())
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// reach waits until side a can ping side b through the tunnel.
func (l *lane) reach(ctx context.Context) error {
	return l.eventually(ctx, func() error {
		_, err := l.run(ctx, 0, "ping", "-n", "-q", "-c", "1", "-W", "1", l.inner[1].String())
		return err
	})
}
