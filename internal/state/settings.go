package state

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Daemon is what all networks of this machine share. The user's wishes are in the config file; this is what we chose.
type Daemon struct {
	DHTNodes string `json:"dht_nodes,omitempty"` // that answered in the last run, as package dht writes them, with spaces between
	Port     uint16 `json:"port"`                // the UDP port in use, kept over restarts so that saved endpoints stay true; 0: none yet
	TLSCert  string `json:"tls_cert,omitempty"`  // shown to who connects by TLS, and its private key; PEM. "": none yet
	TLSKey   string `json:"tls_key,omitempty"`
}

// Daemon loads the daemon-wide settings; they are zero when none were saved.
func (d *Dir) Daemon() (Daemon, error) {
	v, err := loadJSON[Daemon](d.daemonPath())
	if errors.Is(err, fs.ErrNotExist) {
		return Daemon{}, nil
	}
	return v, err
}

// SaveDaemon replaces the daemon-wide settings.
func (d *Dir) SaveDaemon(v Daemon) error { return saveJSON(d.disk, d.daemonPath(), v) }

func (d *Dir) daemonPath() string { return filepath.Join(d.path, "daemon.json") }

// Settings is what this machine remembers of one network beside its keys and records.
type Settings struct {
	Name      string    `json:"name"`                // the network's name here: what commands call it by
	Interface string    `json:"interface,omitempty"` // the tunnel's name last time, to get the same again; empty: none yet
	Up        bool      `json:"up"`                  // whether the daemon brings it up when it starts
	Joined    time.Time `json:"joined,omitzero"`     // when this machine created or joined it
	Epoch     uint32    `json:"epoch,omitempty"`     // of our link states in the last run: the next is greater

	// Of a join that waits for an admin's approval; empty once it is done.
	Code       string `json:"code,omitempty"`        // secret, as long as the invite lives
	WantedName string `json:"wanted_name,omitempty"` // of this node
}

// Settings loads the network's settings.
func (n *Network) Settings() (Settings, error) { return loadJSON[Settings](n.file("settings.json")) }

// SaveSettings replaces the network's settings.
func (n *Network) SaveSettings(s Settings) error { return saveJSON(n.disk, n.file("settings.json"), s) }

// Caps of the endpoint cache.
const (
	maxEndpointPeers = 4096
	maxEndpoints     = 16 // of one peer
)

// Endpoints says where peers were last reached, best address first.
type Endpoints map[key.NodeID][]netip.AddrPort

// Endpoints loads the cache. Its loss costs time, nothing else: when the file is damaged the result is empty and the
// error is for the log; a missing file is no error. The result is never nil.
func (n *Network) Endpoints() (Endpoints, error) {
	raw, err := loadJSON[map[string][]netip.AddrPort](n.file("endpoints.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoints{}, nil
	}
	if err != nil {
		return Endpoints{}, err
	}
	out := make(Endpoints, len(raw))
	for text, addrs := range raw {
		id, err := key.ParseNodeID(text)
		if err != nil {
			return Endpoints{}, fmt.Errorf("load %s: %w", n.file("endpoints.json"), err)
		}
		if len(out) < maxEndpointPeers {
			out[id] = addrs[:min(len(addrs), maxEndpoints)]
		}
	}
	return out, nil
}

// SaveEndpoints replaces the cache; at most 4096 peers and 16 addresses each are kept.
func (n *Network) SaveEndpoints(e Endpoints) error {
	raw := make(map[string][]netip.AddrPort, min(len(e), maxEndpointPeers))
	for id, addrs := range e {
		if len(raw) < maxEndpointPeers {
			raw[id.String()] = addrs[:min(len(addrs), maxEndpoints)]
		}
	}
	return saveJSON(n.disk, n.file("endpoints.json"), raw)
}
