package stream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Target is where a stream can be dialed. Targets can be compared with ==; the zero Target is none.
type Target struct {
	Scheme string // "tls", "wss" or "ws"
	Host   string // "name:port" or "address:port"
	Path   string // before the token, of "wss" and "ws" only: "" or "/" and more, without "/" at the end
}

// At is the Target for a listener of Warren's own at addr.
func At(addr netip.AddrPort) Target { return Target{Scheme: "tls", Host: addr.String()} }

// ParseTarget reads "tls://host[:port]", "wss://host[:port][/path]" or "ws://host[:port][/path]"; "host:port" alone is tls. The
// port is 443 if none is given, 80 with ws.
func ParseTarget(s string) (Target, error) {
	t, err := parseTarget(s)
	switch {
	case err != nil && strings.Contains(s, "@"): // there may be a password in it
		return Target{}, fmt.Errorf("no address of a stream: %w", err)
	case err != nil:
		return Target{}, fmt.Errorf("%q is no address of a stream: %w", s, err)
	}
	return t, nil
}

func parseTarget(s string) (Target, error) {
	if !strings.Contains(s, "://") {
		s = "tls://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, errors.Unwrap(err) // without the text
	}
	t := Target{Scheme: u.Scheme, Path: strings.TrimRight(u.EscapedPath(), "/")}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	addr, noAddr := netip.ParseAddr(host)
	switch {
	case t.Scheme != "tls" && t.Scheme != "wss" && t.Scheme != "ws":
		return Target{}, errors.New("it begins with none of tls://, wss:// and ws://")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return Target{}, errors.New("it has more than host, port and path")
	case t.Scheme == "tls" && t.Path != "":
		return Target{}, errors.New("a path needs wss://")
	case noAddr == nil && addr.Zone() != "":
		return Target{}, errors.New("addresses of one link cannot be named here")
	case noAddr != nil && !isName(host):
		return Target{}, errors.New("it has no usable host")
	case port == "" && t.Scheme == "ws":
		port = "80"
	case port == "":
		port = "443"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Target{}, fmt.Errorf("there is no port %q", port)
	}
	if noAddr == nil {
		host = addr.Unmap().String()
	}
	t.Host = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	return t, nil
}

// isName reports whether s can be a name in the DNS; others are written in their ASCII form there.
func isName(s string) bool {
	return s != "" && len(s) <= 253 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// String is what ParseTarget reads; "" of the zero Target.
func (t Target) String() string {
	if t == (Target{}) {
		return ""
	}
	return t.Scheme + "://" + t.Host + t.Path
}

// name is the host without the port.
func (t Target) name() string {
	name, _, _ := net.SplitHostPort(t.Host)
	return name
}
