//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Swarm is a Mainline DHT of its own, of real nodes that store items, on one host: the program test/netns/dhtswarm.
type Swarm struct {
	host    *Host
	hostile int
	old     bool
	run     *Process
}

// SwarmNodes is how many nodes a Swarm has. Node i, from 1, is at 45.i.7.1.
const SwarmNodes = 60

// SwarmEvent is what a node of a Swarm was asked or did.
type SwarmEvent struct {
	Node                     int
	Lies                     bool   // it is one of the hostile nodes
	What                     string // "get", "put": asked; "stored": an item that held; "announced": a peer
	From                     string // who asked, as the node sees it, or is announced; not of "stored"
	Target, Key, Salt, Value []byte
	Seq                      int64
}

// StartSwarm starts a DHT on the host, which gets its addresses, and waits until its nodes know each other. So many of the nodes
// lie.
func (h *Host) StartSwarm(hostile int) *Swarm {
	h.lab.t.Helper()
	for i := 1; i <= SwarmNodes; i++ {
		h.IP("addr", "add", fmt.Sprintf("45.%d.7.1/32", i), "dev", "lo")
	}
	s := &Swarm{host: h, hostile: hostile}
	s.Start()
	return s
}

// Age starts it anew, without liars, as a DHT that refuses items and knows announcements only.
func (s *Swarm) Age() {
	s.host.lab.t.Helper()
	s.Stop()
	s.old, s.hostile = true, 0
	s.Start()
}

// Start runs it anew after Stop: it has forgotten all, also who its nodes were.
func (s *Swarm) Start() {
	t := s.host.lab.t
	t.Helper()
	args := []string{Binary(t, "test/netns/dhtswarm"), strconv.Itoa(SwarmNodes), strconv.Itoa(s.hostile)}
	if s.old {
		args = append(args, "old")
	}
	s.run = s.host.Start(args...)
	Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(s.run.Out(), "ready") {
			return fmt.Errorf("the swarm is not ready: %s", s.run.Log())
		}
		return nil
	})
}

// Stop ends all nodes, with what they store.
func (s *Swarm) Stop() { s.run.Stop() }

// Bootstrap is what a config file says under dht_bootstrap to use this DHT.
func (s *Swarm) Bootstrap() string { return "45.1.7.1:6881" }

// Events lists what happened since it started last.
func (s *Swarm) Events() (out []SwarmEvent) {
	t := s.host.lab.t
	t.Helper()
	text := s.run.Out()
	text = text[:strings.LastIndexByte(text, '\n')+1] // the rest is being written
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var e SwarmEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("the swarm printed %q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

// Configure writes the node's config file, for its next Up.
func (n *Node) Configure(toml string) {
	t := n.lab.t
	t.Helper()
	if err := os.MkdirAll(n.State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.State, "warren.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Probe sends datagrams from one port of the host, each twice, and returns what came back to that port until wait after the last.
func (h *Host) Probe(to netip.AddrPort, datagrams [][]byte, wait time.Duration) (answers [][]byte) {
	t := h.lab.t
	t.Helper()
	var c *net.UDPConn
	err := within(h.ns, func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		for _, d := range datagrams {
			if _, err := c.Write(d); err != nil {
				t.Errorf("probe %s: %v", to, err)
			}
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	for {
		b := make([]byte, 2048)
		n, err := c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answers
		}
		if err != nil {
			t.Errorf("probe %s: %v", to, err)
			return answers
		}
		answers = append(answers, b[:n])
	}
}
