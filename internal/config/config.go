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
	"net/url"
	"slices"
	"strconv"
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

	// DHT lets the daemon look for members, and tell them where this machine is, in the BitTorrent Mainline DHT, `dht`.
	// Default true. What is stored there is sealed; see spec/70-discover.md.
	DHT bool

	// DHTPeers lets it announce addresses in clear too, in the older part of the DHT (BEP 5), `dht = "full"`, and look there. Default
	// false: whoever watches the DHT then sees which addresses belong together.
	DHTPeers bool

	// DHTBootstrap names the hosts, as host:port with spaces between, that are asked first in the DHT, `dht_bootstrap`.
	// Default "": the public ones that docs/NAT.md lists.
	DHTBootstrap string

	// LAN lets the daemon send and hear beacons on the local networks, `lan`. Default true.
	LAN bool

	// PortMapping lets the daemon ask the router to pass its port on, by PCP, NAT-PMP or UPnP, `port_mapping`. Default true.
	PortMapping bool

	// STUN names servers of STUN (RFC 8489), as host:port with spaces between, that are asked how this machine looks from
	// outside, `stun`. Default "": nobody is asked. See docs/NAT.md.
	STUN string

	// PortSearch lets the daemon search for a direct way to a member behind a NAT with random ports, or from behind one, among many
	// ports, `port_search`. Default false. What that costs is in docs/NAT.md.
	PortSearch bool

	// TLSPort is the TCP port at which members behind networks without UDP are taken in, `tls_port`, such as 443. Default
	// 0: none.
	TLSPort uint16

	// TLSURLs are where others find what TLSPort listens for, `tls_urls`: up to 4 URLs such as wss://vpn.example.org/path, of a reverse
	// proxy that passes WebSockets on to it, or tls://host:port; with spaces between. Default "": tls at this machine's
	// outer addresses and TLSPort.
	TLSURLs string

	// Proxy is by which proxy TCP connections to members go, `proxy`: "env" for what the environment says, a URL such as
	// http://user:password@host:port or socks5://host:port, or "none". Default "env".
	Proxy string
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

	// Transit says whether this machine relays for other members, `transit`. Default [TransitAuto].
	Transit Transit

	// Metered says whether this machine pays for what it sends, `metered`: then it relays for others only if Transit is
	// [TransitOn]. Default [MeteredAuto].
	Metered Metered

	// RelayRate is the most that this machine relays for others, in bits a second and in all, `relay_rate`: a whole number
	// of bits, or text such as "20 Mbit/s"; [MinRelayRate] to [MaxRelayRate]. Default 0: no limit.
	RelayRate int64

	// Detours lets packets take a route over other members while the direct path stands but is clearly slower, `detours`.
	// Default true.
	Detours bool

	// Multipath says what several direct paths to a member are used for, `multipath`. Default [MultipathBackup].
	Multipath Multipath

	// Broadcast says whether this machine sends broadcast and multicast packets to the members and takes theirs,
	// `broadcast`. Default true; without effect while the policy of the network has it off for all.
	Broadcast bool

	// Peer lists where members are that may not be found otherwise, `peer`: up to 16 of host:port, or member@host:port if only that
	// member can be there; with spaces between. Default "": none.
	Peer string
}

// Transit says whether a machine relays for others.
type Transit string

// The values of [Transit].
const (
	TransitAuto Transit = "auto" // unless it runs on battery or its line is metered, as far as the system tells
	TransitOn   Transit = "on"   // always
	TransitOff  Transit = "off"  // never; it still uses others as relays
)

// Metered says whether a machine pays for what it sends.
type Metered string

// The values of [Metered].
const (
	MeteredAuto Metered = "auto" // as the system tells
	MeteredYes  Metered = "yes"
	MeteredNo   Metered = "no"
)

// Multipath says what several direct paths to one member are used for.
type Multipath string

// The values of [Multipath].
const (
	MultipathBackup    Multipath = "backup"    // one carries all, the others stand by
	MultipathBalance   Multipath = "balance"   // each connection stays on one path, all connections use all good ones
	MultipathRedundant Multipath = "redundant" // small packets go over the two best at once
)

// Bounds of [Network.RelayRate], in bits a second: below the one hardly a packet gets through, above the other nothing is
// slower.
const (
	MinRelayRate = 64e3
	MaxRelayRate = 1e12
)

// Bounds of [Network.MTU]: IPv6 demands the one, and 1500 less the cost of the tunnel over IPv6 is the other.
const (
	MinMTU = 1280
	MaxMTU = 1420
)

const maxInterface = 15 // bytes: IFNAMSIZ less its end

// Defaults returns what holds without a config file.
func Defaults() Config {
	return Config{Daemon: Daemon{LogLevel: slog.LevelInfo, Group: "warren", DHT: true, LAN: true, PortMapping: true, Proxy: "env"}}
}

// Network returns the settings of the network name: its table, or the defaults.
func (c Config) Network(name string) Network {
	if n, ok := c.Networks[name]; ok {
		return n
	}
	return defaultNetwork()
}

func defaultNetwork() Network {
	return Network{MTU: MaxMTU, Transit: TransitAuto, Metered: MeteredAuto, Detours: true, Multipath: MultipathBackup, Broadcast: true}
}

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
	add([]string{"daemon", "dht_bootstrap"}, checkHosts(c.Daemon.DHTBootstrap))
	add([]string{"daemon", "stun"}, checkHosts(c.Daemon.STUN))
	add([]string{"daemon", "tls_urls"}, checkURLs(c.Daemon.TLSURLs, c.Daemon.TLSPort))
	add([]string{"daemon", "proxy"}, checkProxy(c.Daemon.Proxy))
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Networks)) {
		n := c.Networks[name]
		if name == "" {
			add([]string{"network", name}, "a network has a name")
		}
		add([]string{"network", name, "interface"}, checkInterface(n.Interface))
		add([]string{"network", name, "mtu"}, checkMTU(int64(n.MTU)))
		add([]string{"network", name, "transit"}, checkWord(n.Transit, TransitAuto, TransitOn, TransitOff))
		add([]string{"network", name, "metered"}, checkWord(n.Metered, MeteredAuto, MeteredYes, MeteredNo))
		add([]string{"network", name, "relay_rate"}, checkRate(n.RelayRate))
		add([]string{"network", name, "peer"}, checkPeers(n.Peer))
		add([]string{"network", name, "multipath"}, checkWord(n.Multipath, MultipathBackup, MultipathBalance, MultipathRedundant))
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

// checkWord wants v to be one of the words.
func checkWord[T ~string](v T, words ...T) string {
	var list []string
	for _, w := range words {
		if v == w {
			return ""
		}
		list = append(list, strconv.Quote(string(w)))
	}
	return fmt.Sprintf("%q is not one of %s", v, strings.Join(list, ", "))
}

func checkRate(rate int64) string {
	if rate != 0 && (rate < MinRelayRate || rate > MaxRelayRate) {
		return fmt.Sprintf("%d bit/s is not between 64 kbit/s and 1000 Gbit/s, or 0 for no limit", rate)
	}
	return ""
}

// checkHosts wants host:port, with spaces between.
func checkHosts(list string) string {
	for _, h := range strings.Fields(list) {
		u, err := url.Parse("udp://" + h)
		if err != nil {
			return fmt.Sprintf("%q is not host:port", h)
		}
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 || u.Hostname() == "" || u.Host != h {
			return fmt.Sprintf("%q is not host:port", h)
		}
	}
	return ""
}

const maxPeers = 16

// checkPeers wants host:port or member@host:port.
func checkPeers(list string) string {
	all := strings.Fields(list)
	if len(all) > maxPeers {
		return fmt.Sprintf("more than %d addresses", maxPeers)
	}
	for _, text := range all {
		member, at, named := strings.Cut(text, "@")
		if !named {
			member, at = "x", text
		}
		if member == "" || at == "" || checkHosts(at) != "" {
			return fmt.Sprintf("%q is neither host:port nor member@host:port", text)
		}
	}
	return ""
}

const maxURLs = 4

// checkURLs wants targets of streams. What is wrong with one in detail, package stream would say.
func checkURLs(list string, port uint16) string {
	all := strings.Fields(list)
	if len(all) > maxURLs {
		return fmt.Sprintf("more than %d URLs", maxURLs)
	}
	for _, text := range all {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(text) > maxURL ||
			u.Scheme != "wss" && u.Scheme != "ws" && u.Scheme != "tls" || u.Scheme == "tls" && strings.Trim(u.Path, "/") != "" {
			return fmt.Sprintf("%q is not a URL such as wss://host/path or tls://host:port", text)
		}
	}
	if len(all) > 0 && port == 0 {
		return "they need a tls_port to which they lead"
	}
	return ""
}

const maxURL = 96 // bytes: a code has no more room

// checkProxy never repeats what may hold a password.
func checkProxy(text string) string {
	if text == "env" || text == "none" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h" {
		return `is neither "env" nor "none" nor a URL such as http://host:3128 or socks5://host:1080`
	}
	return ""
}
