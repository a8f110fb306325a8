// Package config reads the optional config file, in which the user states wishes that differ from the defaults.
//
// What the daemon itself remembers (keys, records, the port it chose) is in the state directory: package state. This
// package does no I/O: the caller reads the file and hands over its bytes. docs/warren.toml shows every key.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// Config is the whole file. The zero Config is not valid: begin with [Defaults] or [Parse].
type Config struct {
	Daemon Daemon

	// Networks holds the [network."NAME"] tables by the name that the network bears on this machine. A table for a
	// network that this machine is not in has no effect. Read it through [Config.Network].
	Networks map[string]Network
}

// Daemon is the [daemon] table: what all networks of this machine share. A change takes a restart of the daemon.
type Daemon struct {
	// Port is the UDP port that all networks share, `port`: 0 to 65535. With 0, the default, the daemon takes
	// 48271, or another if that is taken, when it first starts and keeps to it afterwards. Set it when a firewall or a
	// router's forwarding names the port.
	Port uint16

	// LogLevel is the least important thing logged, `log_level`: "debug", "info", "warn" or "error". Default "info",
	// which says nothing while all goes well.
	LogLevel slog.Level

	// Group is the Unix group whose members may change things without being root (invite, up, down, revoke...),
	// `group`: a name or a number. Default "warren"; when no such group exists, and with "", root alone may. Reading
	// the status is open to every user. Without effect on Windows.
	Group string
}

// Network is one [network."NAME"] table. A change takes effect when the network next comes up.
type Network struct {
	// Interface is the name of the tunnel device, `interface`: 1 to 15 characters without spaces and slashes. Default
	// "": the first free of warren0, warren1, and so on, and the same again the next time. Two networks cannot share
	// one. macOS only takes utun and a number.
	Interface string

	// MTU is the largest packet inside the tunnel in bytes, `mtu`: 1280 to 1420. Default 1420. Paths that carry less
	// are found and worked around, so there is seldom a reason to lower it.
	MTU int
}

// Bounds of [Network.MTU]: IPv6 demands the one, and 1500 less the cost of the tunnel over IPv6 is the other.
const (
	MinMTU = 1280
	MaxMTU = 1420
)

const maxInterface = 15 // bytes: IFNAMSIZ less its end

// Defaults returns what holds without a config file.
func Defaults() Config {
	return Config{Daemon: Daemon{LogLevel: slog.LevelInfo, Group: "warren"}}
}

// Network returns the settings of the network name: its table, or the defaults.
func (c Config) Network(name string) Network {
	if n, ok := c.Networks[name]; ok {
		return n
	}
	return defaultNetwork()
}

func defaultNetwork() Network { return Network{MTU: MaxMTU} }

// Validate reports everything that is wrong with c, each fault as one error joined to the others. It is for a Config
// built or changed by hand: what [Parse] returns without an error is valid.
func (c Config) Validate() error {
	var errs []error
	for _, f := range c.faults() {
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// Fault is one thing wrong with a config. All errors of this package are made of Faults.
type Fault struct {
	Line int    // in the file, from 1; 0 when it is not known
	Key  string // as written in TOML with dots, such as daemon.port; empty for faults of the file as a whole
	Text string // what is wrong and what would be right
}

// Error puts line, key and text in one line.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Key != "" {
		fmt.Fprintf(&b, "%s: ", f.Key)
	}
	return b.String() + f.Text
}

// faults checks all values, in a fixed order.
func (c Config) faults() []*Fault {
	var out []*Fault
	add := func(path []string, text string) {
		if text != "" {
			out = append(out, &Fault{Key: keyText(path), Text: text})
		}
	}
	add([]string{"daemon", "log_level"}, checkLevel(c.Daemon.LogLevel))
	add([]string{"daemon", "group"}, checkGroup(c.Daemon.Group))
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Networks)) {
		n := c.Networks[name]
		if name == "" {
			add([]string{"network", name}, "a network has a name")
		}
		add([]string{"network", name, "interface"}, checkInterface(n.Interface))
		add([]string{"network", name, "mtu"}, checkMTU(int64(n.MTU)))
		if first, taken := owner[n.Interface]; taken && n.Interface != "" {
			add([]string{"network", name, "interface"}, fmt.Sprintf("%q is already the interface of network %q", n.Interface, first))
		}
		owner[n.Interface] = name
	}
	return out
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

const levelWords = `one of "debug", "info", "warn", "error"`

func checkLevel(l slog.Level) string {
	for _, known := range levels {
		if l == known {
			return ""
		}
	}
	return fmt.Sprintf("%v is not %s", l, levelWords)
}

func checkGroup(name string) string {
	if len(name) > 64 || strings.HasPrefix(name, "-") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`:,/\`, r) }) {
		return fmt.Sprintf("%q is not the name of a group", name)
	}
	return ""
}

func checkInterface(name string) string {
	switch {
	case name == "":
		return ""
	case len(name) > maxInterface:
		return fmt.Sprintf("%q is longer than %d bytes", name, maxInterface)
	case name == "." || name == ".." || name == "all" || name == "default" || name == "lo",
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/:%\"`, r) }):
		return fmt.Sprintf("%q cannot be the name of an interface", name)
	}
	return ""
}

func checkMTU(mtu int64) string {
	if mtu < MinMTU || mtu > MaxMTU {
		return fmt.Sprintf("%d is not between %d and %d", mtu, MinMTU, MaxMTU)
	}
	return ""
}
