//go:build linux

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The names of the systems that others are compared with.
const (
	bare      = "bare veth"
	reference = "wireguard-go"
	ours      = "warren"
)

// system is something to measure. open brings it up in dir; what it returns must be closed, also after an error.
type system struct {
	name   string
	open   func(ctx context.Context, dir, id string) (*world, error)
	judged bool // the targets are for it
}

// world is a system that is up.
type world struct {
	name  string
	lane  *lane
	stock *lane   // where side b is stock wireguard-go; nil: has no such case
	mesh  *mesh   // where others can relay; nil: has no such case
	peak  float64 // largest memory seen under load, MB
}

// lanes lists each lane once.
func (w *world) lanes() []*lane {
	all := []*lane{w.lane}
	if w.stock != nil && w.stock != w.lane {
		all = append(all, w.stock)
	}
	if w.mesh != nil {
		all = append(all, w.mesh.lane)
	}
	return all
}

func (w *world) close() {
	for _, l := range w.lanes() {
		l.close()
	}
}

// systems builds what is built and looks for what is not. The cases with a stock peer and with relays are there when a job of
// work is about them.
func systems(ctx context.Context, o options, dir string, work []job, r *report) (all []system, err error) {
	wanted := func(name string) bool { return slices.ContainsFunc(work, func(j job) bool { return j.name == name }) }
	program := func(name, pkg string) string {
		path := filepath.Join(dir, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if _, e := output(cmd); e != nil {
			err = errors.Join(err, e)
		}
		return path
	}
	warren := o.warren
	if warren == "" {
		warren = program("warren", "github.com/warren-vpn/warren/cmd/warren")
	}
	wgpeer := ""
	if wanted("tcp-stock") {
		wgpeer = program("wgpeer", "github.com/warren-vpn/warren/test/netns/wgpeer")
	}
	all = []system{
		{bare, openBare, false},
		{reference, openWireGuard(program("wireguard-go", "golang.zx2c4.com/wireguard")), false},
		{ours, openWarren(ours, warren, wgpeer, wanted("relay")), true},
	}
	if name, path, ok := strings.Cut(o.also, "="); ok {
		all = append(all, system{name, openWarren(name, path, wgpeer, wanted("relay")), true})
	} else if o.also != "" {
		return nil, errors.New("-also wants NAME=FILE")
	}
	for _, other := range others {
		if found(other.needs) {
			all = append(all, other.system)
		} else {
			r.note("%s: not on PATH, not measured", other.name)
		}
	}
	return all, err
}

func openBare(ctx context.Context, dir, id string) (*world, error) {
	l, err := newLane(ctx, dir, id)
	if l == nil {
		return nil, err
	}
	return &world{name: bare, lane: l}, err
}

// openWireGuard runs wireguard-go as its authors publish it and sets it up through its own configuration socket.
func openWireGuard(binary string) func(ctx context.Context, dir, id string) (*world, error) {
	return func(ctx context.Context, dir, id string) (*world, error) {
		l, err := newLane(ctx, dir, id)
		if l == nil {
			return nil, err
		}
		w := &world{name: reference, lane: l, stock: l}
		if err != nil {
			return w, err
		}
		l.inner = [2]netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")}
		var private, public [2]string
		for i := range private {
			k, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err != nil {
				return w, err
			}
			private[i], public[i] = hex.EncodeToString(k.Bytes()), hex.EncodeToString(k.PublicKey().Bytes())
		}
		for i := range l.ns {
			// The socket is named after the interface and in one folder for all namespaces.
			iface := fmt.Sprintf("wb%d%s%c", os.Getpid(), id, 'a'+i)
			if _, err := l.daemon(i, reference, []string{"WG_PROCESS_FOREGROUND=1"}, "", binary, "-f", iface); err != nil {
				return w, err
			}
			config := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nallowed_ip=%s/32\nendpoint=%s:51820\n\n",
				private[i], public[1-i], l.inner[1-i], outer[1-i])
			if err := l.eventually(ctx, func() error { return uapi(iface, config) }); err != nil {
				return w, err
			}
			for _, s := range [][]string{{"link", "set", iface, "up"}, {"addr", "add", l.inner[i].String() + "/24", "dev", iface}} {
				if _, err := l.run(ctx, i, append([]string{"ip"}, s...)...); err != nil {
					return w, err
				}
			}
		}
		return w, l.reach(ctx)
	}
}

// uapi tells wireguard-go its configuration.
func uapi(iface, config string) error {
	c, err := net.DialTimeout("unix", "/var/run/wireguard/"+iface+".sock", time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, config); err != nil {
		return err
	}
	var answer [64]byte
	n, err := c.Read(answer[:])
	if !strings.HasPrefix(string(answer[:n]), "errno=0\n") {
		return fmt.Errorf("wireguard-go refused its configuration: %q, %w", answer[:n], err)
	}
	return nil
}

// openWarren founds a network on side a, lets side b join it; with wgpeer it serves a stock WireGuard device in a second lane;
// with relays it makes a mesh, too.
func openWarren(name, binary, wgpeer string, relays bool) func(ctx context.Context, dir, id string) (*world, error) {
	return func(ctx context.Context, dir, id string) (*world, error) {
		l, err := newLane(ctx, dir, id)
		if l == nil {
			return nil, err
		}
		w := &world{name: name, lane: l}
		if err != nil {
			return w, err
		}
		if err := joinWarren(ctx, l, binary); err != nil {
			return w, err
		}
		if wgpeer != "" {
			if w.stock, err = newLane(ctx, filepath.Join(dir, "stock"), id+"s"); err != nil {
				return w, err
			}
			if err := serveDevice(ctx, w.stock, binary, wgpeer); err != nil {
				return w, err
			}
		}
		if relays {
			w.mesh, err = openMesh(ctx, filepath.Join(dir, "mesh"), id+"m", binary)
		}
		return w, err
	}
}

// node is one installation of Warren.
type node struct {
	lane   *lane
	side   int
	binary string
}

func (n node) state() string { return filepath.Join(n.lane.dir, fmt.Sprintf("state%d", n.side)) }

// up starts the daemon and waits until it answers.
func (n node) up(ctx context.Context) error {
	if _, err := n.lane.daemon(n.side, "warren", nil, "", n.binary, "daemon", "--state", n.state()); err != nil {
		return err
	}
	return n.lane.eventually(ctx, func() error { return n.do(ctx, nil, "status") })
}

// do runs a command of Warren and reads its JSON into v, if that is not nil.
func (n node) do(ctx context.Context, v any, args ...string) error {
	out, err := n.lane.run(ctx, n.side, append([]string{n.binary, "--state", n.state(), "--json"}, args...)...)
	if err == nil && v != nil {
		err = json.Unmarshal([]byte(out), v)
	}
	return err
}

// fullMTU is what a path over the wire carries, once it has been probed.
const fullMTU = 1420

// network is what a node says of its network.
type network struct {
	Self  struct{ Addresses []netip.Addr }
	Relay struct{ Bytes uint64 } // passed on
	Peers []struct {
		Name, Path string
		Via        []string
		MTU        int `json:"mtu"`
	}
}

// network asks the node for its only network.
func (n node) network(ctx context.Context) (network, error) {
	var s struct{ Networks []network }
	if err := n.do(ctx, &s, "status"); err != nil {
		return network{}, err
	}
	if len(s.Networks) != 1 || len(s.Networks[0].Self.Addresses) == 0 {
		return network{}, fmt.Errorf("not in one network with an address: %+v", s)
	}
	return s.Networks[0], nil
}

// settled waits until each node knows one peer, directly and with the full MTU, and fills in the inner addresses.
func settled(ctx context.Context, l *lane, nodes []node) error {
	return l.eventually(ctx, func() error {
		for _, n := range nodes {
			s, err := n.network(ctx)
			if err != nil {
				return err
			}
			if len(s.Peers) != 1 {
				return fmt.Errorf("no peer yet: %+v", s)
			}
			if p := s.Peers[0]; p.Path != "direct" || p.MTU != fullMTU {
				return fmt.Errorf("the path is %s, MTU %d", p.Path, p.MTU)
			}
			l.inner[n.side] = s.Self.Addresses[0]
		}
		return nil
	})
}

func joinWarren(ctx context.Context, l *lane, binary string) error {
	a, b := node{l, 0, binary}, node{l, 1, binary}
	if err := errors.Join(a.up(ctx), b.up(ctx)); err != nil {
		return err
	}
	if err := a.do(ctx, nil, "create", "bench", "--as", "a"); err != nil {
		return err
	}
	var invite struct{ Code string }
	if err := a.do(ctx, &invite, "invite"); err != nil {
		return err
	}
	if err := b.do(ctx, nil, "join", invite.Code, "--as", "b"); err != nil {
		return err
	}
	if err := settled(ctx, l, []node{a, b}); err != nil {
		return err
	}
	return l.reach(ctx)
}

// serveDevice makes side b a device with stock wireguard-go, set up as `warren device add` says.
func serveDevice(ctx context.Context, l *lane, binary, wgpeer string) error {
	a := node{l, 0, binary}
	if err := a.up(ctx); err != nil {
		return err
	}
	if err := a.do(ctx, nil, "create", "bench", "--as", "a"); err != nil {
		return err
	}
	var device struct {
		Config    string
		Addresses []netip.Addr
	}
	if err := a.do(ctx, &device, "device", "add", "phone"); err != nil {
		return err
	}
	if len(device.Addresses) == 0 {
		return errors.New("the device has no address")
	}
	l.inner[1] = device.Addresses[0]
	if _, err := l.daemon(1, "wgpeer", nil, device.Config, wgpeer, "wg0"); err != nil {
		return err
	}
	s, err := a.network(ctx)
	if err != nil {
		return err
	}
	l.inner[0] = s.Self.Addresses[0]
	// The device is behind its own endpoint until it speaks.
	if err := l.eventually(ctx, func() error {
		_, err := l.run(ctx, 1, "ping", "-n", "-q", "-c", "1", "-W", "1", l.inner[0].String())
		return err
	}); err != nil {
		return err
	}
	return l.reach(ctx)
}
