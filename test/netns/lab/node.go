//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Binary builds a program of this module once per run and returns its path, such as Binary(t, "cmd/warren"). WARREN_BIN
// names a built cmd/warren to use instead.
func Binary(t testing.TB, pkg string) string {
	t.Helper()
	if bin := os.Getenv("WARREN_BIN"); bin != "" && pkg == "cmd/warren" {
		return bin
	}
	path, err := buildOnce(pkg)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	buildMu sync.Mutex
	built   = map[string]func() (string, error){}
)

func buildOnce(pkg string) (string, error) {
	buildMu.Lock()
	f := built[pkg]
	if f == nil {
		f = sync.OnceValues(func() (string, error) { return build(pkg) })
		built[pkg] = f
	}
	buildMu.Unlock()
	return f()
}

// build puts the program into a folder that bears the name of the run, so that the reaper removes it.
func build(pkg string) (string, error) {
	dir := filepath.Join(os.TempDir(), runID+"-bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/warren-vpn/warren/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return path, nil
}

// Node is a warren installation on a host: a state directory, at most one daemon, the command line.
type Node struct {
	*Host
	State  string   // the state directory
	Env    []string // more of the environment of the daemon and the commands: "NAME=value"
	daemon *Process
	binary string
}

// Status is the part of `warren status --json` that the tests read.
type Status struct {
	PID      int       `json:"pid"`
	Port     int       `json:"port"`
	Warnings []string  `json:"warnings"`
	Networks []Network `json:"networks"`

	Drops map[string]uint64 `json:"drops"`
}

// Network is one network of a node.
type Network struct {
	Name      string       `json:"name"`
	ID        string       `json:"id"`
	State     string       `json:"state"`
	Why       string       `json:"why"`
	Interface string       `json:"interface"`
	Pending   int          `json:"pending"`
	Pool      netip.Prefix `json:"pool"`
	Relay     struct {
		Enabled    bool   `json:"enabled"`
		Overloaded bool   `json:"overloaded"`
		Packets    uint64 `json:"packets"`
		Bytes      uint64 `json:"bytes"`
		Dropped    uint64 `json:"dropped"`
	} `json:"relay"`
	Self struct {
		Name      string       `json:"name"`
		Addresses []netip.Addr `json:"addresses"`
	} `json:"self"`
	Peers []Peer `json:"peers"`
}

// Peer is another member as a node sees it.
type Peer struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Path      string       `json:"path"`
	Why       string       `json:"why"`
	Via       []string     `json:"via"`
	Linked    bool         `json:"linked"`
	Endpoint  string       `json:"endpoint"`
	RTT       *float64     `json:"rtt_ms"`
	RxBytes   uint64       `json:"rx_bytes"`
	TxBytes   uint64       `json:"tx_bytes"`
	LastSeen  *time.Time   `json:"last_seen"`
}

// Peer looks a peer up by name; nil: there is none.
func (n *Network) Peer(name string) *Peer {
	if i := slices.IndexFunc(n.Peers, func(p Peer) bool { return p.Name == name }); i >= 0 {
		return &n.Peers[i]
	}
	return nil
}

// PeerNames lists the peers, in the order of the status.
func (n *Network) PeerNames() (names []string) {
	for _, p := range n.Peers {
		names = append(names, p.Name)
	}
	return names
}

// Way says how the node reaches a peer now: "direct", "relayed via x, y", "none", or "unknown" when it does not know the peer.
func (n *Network) Way(peer string) string {
	switch p := n.Peer(peer); {
	case p == nil:
		return "unknown"
	case p.Path == "relayed":
		return "relayed via " + strings.Join(p.Via, ", ")
	default:
		return p.Path
	}
}

// Route is the part of `warren route MEMBER --json` that the tests read.
type Route struct {
	Path    string     `json:"path"`
	Why     string     `json:"why"`
	Ways    []RouteWay `json:"ways"` // the first is in use
	Avoided []struct {
		Name string `json:"name"`
		To   string `json:"to"`
		Why  string `json:"why"`
	} `json:"avoided"`
}

// RouteWay is one way of a Route.
type RouteWay struct {
	Path     string   `json:"path"`
	State    string   `json:"state"`
	Endpoint string   `json:"endpoint"`
	RTT      *float64 `json:"rtt_ms"`
	Hops     []struct {
		Name string   `json:"name"`
		Cost *float64 `json:"cost_ms"`
	} `json:"hops"`
}

// Route returns `warren route MEMBER`.
func (n *Node) Route(member string) (r Route) {
	n.lab.t.Helper()
	n.JSON(&r, "route", member)
	return r
}

// NewNode installs warren on the host, in its own state directory. Nothing runs yet.
func (h *Host) NewNode() *Node {
	h.lab.t.Helper()
	return &Node{Host: h, State: filepath.Join(h.dir, "state"), binary: Binary(h.lab.t, "cmd/warren")}
}

// Up starts the daemon in the foreground of a background process and waits until it answers.
func (n *Node) Up() {
	t := n.lab.t
	t.Helper()
	n.daemon = n.start(n.env(), []string{n.binary, "daemon"})
	Eventually(t, 10*time.Second, func() error {
		if !n.daemon.Running() {
			t.Fatalf("the daemon of %s ended at once: %s", n.Name, n.daemon.Log())
		}
		if r := n.Warren("status", "--json"); r.Code != 0 {
			return fmt.Errorf("the daemon of %s does not answer: %s", n.Name, r)
		}
		return nil
	})
}

// Stop ends the daemon that Up started, politely, and checks that it ended well.
func (n *Node) Stop() {
	n.lab.t.Helper()
	if code := n.daemon.Stop(); code != 0 {
		n.lab.t.Errorf("the daemon of %s ended with exit code %d", n.Name, code)
	}
}

// Kill ends the daemon as kill -9 does, whoever started it, and waits until it is gone.
func (n *Node) Kill() {
	t := n.lab.t
	t.Helper()
	if n.daemon != nil {
		n.daemon.Kill()
		return
	}
	pid := n.Status().PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill the daemon of %s: %v", n.Name, err)
	}
	Eventually(t, 5*time.Second, func() error {
		if _, err := startTime(pid); err == nil {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// Freeze stops the daemon that Up started in the middle of what it does, as sleep does; Thaw lets it go on.
func (n *Node) Freeze() { n.signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (n *Node) Thaw() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) {
	n.lab.t.Helper()
	if err := n.daemon.cmd.Process.Signal(s); err != nil {
		n.lab.t.Fatalf("send %s to the daemon of %s: %v", s, n.Name, err)
	}
}

// Log returns what the daemon that Up started last has logged so far.
func (n *Node) Log() string { return n.daemon.Log() }

func (n *Node) env() []string { return append([]string{"WARREN_STATE=" + n.State}, n.Env...) }

// Warren runs a warren command and waits for its end.
func (n *Node) Warren(args ...string) Result {
	return n.run(n.env(), append([]string{n.binary}, args...))
}

// Do runs a warren command that must succeed and returns what it printed.
func (n *Node) Do(args ...string) string {
	n.lab.t.Helper()
	r := n.Warren(args...)
	if r.Code != 0 {
		n.lab.t.Fatalf("%s$ warren %s: %s", n.Name, strings.Join(args, " "), r)
	}
	return r.Out
}

// JSON runs a warren command with --json and reads its output into v.
func (n *Node) JSON(v any, args ...string) {
	n.lab.t.Helper()
	out := n.Do(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		n.lab.t.Fatalf("%s$ warren %s --json: %v: %s", n.Name, strings.Join(args, " "), err, out)
	}
}

// Invite returns a new code; args are flags of `warren invite`.
func (n *Node) Invite(args ...string) string {
	n.lab.t.Helper()
	var reply struct{ Code string }
	n.JSON(&reply, append([]string{"invite"}, args...)...)
	if reply.Code == "" || len(reply.Code) > 320 {
		n.lab.t.Fatalf("%s: the code has %d characters, want 1 to 320: %q", n.Name, len(reply.Code), reply.Code)
	}
	return reply.Code
}

// Status returns `warren status`.
func (n *Node) Status() (s Status) {
	n.lab.t.Helper()
	n.JSON(&s, "status")
	return s
}

// Network returns one network of the status; without a name the only one. An unknown one ends the test.
func (n *Node) Network(name ...string) *Network {
	n.lab.t.Helper()
	s := n.Status()
	for i := range s.Networks {
		if len(name) == 0 && len(s.Networks) == 1 || len(name) == 1 && s.Networks[i].Name == name[0] {
			return &s.Networks[i]
		}
	}
	n.lab.t.Fatalf("%s has the networks %+v, want %v", n.Name, s.Networks, name)
	return nil
}

// Addrs returns the node's own addresses in a network: IPv4 and IPv6.
func (n *Node) Addrs(network ...string) (v4, v6 netip.Addr) {
	n.lab.t.Helper()
	a := n.Network(network...).Self.Addresses
	if len(a) != 2 || !a[0].Is4() || !a[1].Is6() {
		n.lab.t.Fatalf("%s has the addresses %v, want one IPv4 and one IPv6", n.Name, a)
	}
	return a[0], a[1]
}

// Addr4 returns the node's IPv4 address in its only network.
func (n *Node) Addr4() netip.Addr {
	n.lab.t.Helper()
	v4, _ := n.Addrs()
	return v4
}

// AllReach checks that all nodes reach all others, by IPv4 and IPv6, in the network; limit is for all of it together.
func AllReach(t testing.TB, limit time.Duration, nodes []*Node, network ...string) {
	t.Helper()
	type way struct {
		from *Node
		to   netip.Addr
	}
	var missing []way
	for _, to := range nodes {
		v4, v6 := to.Addrs(network...)
		for _, from := range nodes {
			if from != to {
				missing = append(missing, way{from, v4}, way{from, v6})
			}
		}
	}
	Eventually(t, limit, func() error {
		var mu sync.Mutex
		var wg sync.WaitGroup
		var errs []string
		var still []way
		for _, w := range missing {
			wg.Go(func() { // ends with its ping, after a second at most
				if err := w.from.Ping(w.to); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs, still = append(errs, err.Error()), append(still, w)
				}
			})
		}
		wg.Wait()
		if missing = still; len(errs) > 0 {
			return fmt.Errorf("%s", strings.Join(errs, "; "))
		}
		return nil
	})
}
