//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Host is a machine: a network namespace with its own host name.
type Host struct {
	Name string // its host name
	lab  *Lab
	ns   string
	dir  string
	n    int // ports so far
}

// Switch is an Ethernet segment: a namespace that holds one bridge.
type Switch struct {
	lab  *Lab
	ns   string
	n    int // ports so far
	name string
}

// Port is an interface of a host in a switch.
type Port struct {
	Host *Host
	Dev  string // the name of the interface in the host: eth0, eth1, ...
	sw   *Switch
	peer string // in the switch
}

func (l *Lab) namespace(name string) string {
	l.t.Helper()
	ns := l.prefix + name
	l.mu.Lock()
	l.names = append(l.names, ns)
	l.mu.Unlock()
	if err := command("ip", "netns", "add", ns); err != nil {
		l.t.Fatal(err)
	}
	l.ip(ns, "link", "set", "lo", "up")
	return ns
}

// Host adds a machine without interfaces. The name must be new in the lab.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := &Host{Name: name, lab: l, ns: l.namespace(name), dir: filepath.Join(l.dir, name)}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	return h
}

// Router adds a machine that forwards packets, IPv4 and IPv6.
func (l *Lab) Router(name string) *Host {
	l.t.Helper()
	h := l.Host(name)
	h.Sysctl("net.ipv4.ip_forward", "1")
	h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0") // it forwards as soon as its interfaces are up
	return h
}

// Switch adds an Ethernet segment.
func (l *Lab) Switch(name string) *Switch {
	l.t.Helper()
	s := &Switch{lab: l, ns: l.namespace(name), name: name}
	l.ip(s.ns, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	l.ip(s.ns, "link", "set", "br0", "up")
	return s
}

// Plug connects the host to a switch by a new interface with the given addresses ("192.0.2.1/24").
func (h *Host) Plug(s *Switch, addrs ...string) *Port {
	h.lab.t.Helper()
	p := &Port{Host: h, Dev: fmt.Sprintf("eth%d", h.n), sw: s, peer: fmt.Sprintf("port%d", s.n)}
	h.n++
	s.n++
	h.IP("link", "add", p.Dev, "type", "veth", "peer", "name", p.peer, "netns", s.ns)
	h.lab.ip(s.ns, "link", "set", p.peer, "master", "br0", "up")
	h.IP("link", "set", p.Dev, "up")
	for _, a := range addrs {
		p.Add(a)
	}
	return p
}

// connect joins the host to a router by a cable.
func (h *Host) connect(router *Host) (here, there *Port) {
	h.lab.t.Helper()
	here = &Port{Host: h, Dev: fmt.Sprintf("eth%d", h.n)}
	there = &Port{Host: router, Dev: fmt.Sprintf("eth%d", router.n)}
	h.n++
	router.n++
	h.IP("link", "add", here.Dev, "type", "veth", "peer", "name", there.Dev, "netns", router.ns)
	h.IP("link", "set", here.Dev, "up")
	router.IP("link", "set", there.Dev, "up")
	return here, there
}

// Add gives the interface an address with its prefix length.
func (p *Port) Add(prefix string) {
	p.Host.lab.t.Helper()
	args := []string{"addr", "add", prefix, "dev", p.Dev}
	if netip.MustParsePrefix(prefix).Addr().Is6() {
		args = append(args, "nodad") // usable at once
	}
	p.Host.IP(args...)
}

// Del takes an address from the interface.
func (p *Port) Del(prefix string) {
	p.Host.lab.t.Helper()
	p.Host.IP("addr", "del", prefix, "dev", p.Dev)
}

// Isolate keeps frames between this port of the switch and others that are isolated from passing.
func (p *Port) Isolate() {
	p.Host.lab.t.Helper()
	p.Host.lab.ip(p.sw.ns, "link", "set", p.peer, "type", "bridge_slave", "isolated", "on")
}

// Down pulls the plug.
func (p *Port) Down() { p.Host.IP("link", "set", p.Dev, "down") }

// Up puts the plug in again. IPv6 addresses were lost with the plug: add them again.
func (p *Port) Up() { p.Host.IP("link", "set", p.Dev, "up") }

// MTU sets the size of the largest packet of the interface, in bytes.
func (p *Port) MTU(bytes int) { p.Host.IP("link", "set", p.Dev, "mtu", fmt.Sprint(bytes)) }

// IP runs the ip command in the host, such as IP("route", "add", "default", "via", "192.0.2.1").
func (h *Host) IP(args ...string) {
	h.lab.t.Helper()
	h.lab.ip(h.ns, args...)
}

// Sysctl sets a kernel setting of the host's network.
func (h *Host) Sysctl(name, value string) {
	h.lab.t.Helper()
	h.Must("sh", "-c", fmt.Sprintf("echo %s > /proc/sys/%s", value, strings.ReplaceAll(name, ".", "/")))
}

// Interfaces lists the names of the host's interfaces.
func (h *Host) Interfaces() (names []string) {
	h.lab.t.Helper()
	for line := range strings.Lines(h.Must("ip", "-o", "link")) {
		if f := strings.Fields(line); len(f) > 1 {
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			names = append(names, name)
		}
	}
	return names
}

// NFT loads firewall rules in nftables syntax into the host; without the nft command it skips the test.
func (h *Host) NFT(rules string) {
	h.lab.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		h.lab.t.Skip("network namespaces: need the command nft")
	}
	file := filepath.Join(h.dir, "nft")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		h.lab.t.Fatal(err)
	}
	h.Must("nft", "-f", file)
}

// Masquerade makes the host a NAT for what leaves by the port. The plain kind keeps a source port where it can and maps one
// inside address and port to one outside port; symmetric draws a new outside port for each destination.
func (h *Host) Masquerade(out *Port, symmetric bool) {
	h.lab.t.Helper()
	how := "masquerade"
	if symmetric {
		how = "masquerade fully-random"
	}
	h.NFT(fmt.Sprintf("table ip nat {\n chain post {\n type nat hook postrouting priority srcnat;\n oifname %q %s\n }\n}\n", out.Dev, how))
}
