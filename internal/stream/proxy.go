package stream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxHead = 16 << 10 // bytes of the head of an HTTP answer that are read

// ParseProxy reads the URL of a proxy: "http://", "https://", "socks5://" or "socks5h://", with user and password if it wants
// them. Errors do not repeat the text, which may hold a password.
func ParseProxy(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, errors.New("the proxy is not given as http://[user:password@]host:port or with socks5://")
	}
	port, ok := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("a proxy of kind %q is not known: use http, https or socks5", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("the proxy has no port %q", port)
	}
	if password, _ := u.User.Password(); len(u.User.Username()) > 255 || len(password) > 255 {
		return nil, errors.New("user or password of the proxy is longer than 255 bytes")
	}
	return &url.URL{Scheme: u.Scheme, User: u.User, Host: net.JoinHostPort(u.Hostname(), port)}, nil
}

// OneProxy returns a Dialer.Proxy that uses proxy for everything.
func OneProxy(proxy *url.URL) func(Target) *url.URL { return func(Target) *url.URL { return proxy } }

// EnvProxy returns a Dialer.Proxy that does what the environment says: HTTPS_PROXY (HTTP_PROXY for ws targets), else ALL_PROXY,
// but for the hosts in NO_PROXY, in either case of letters. getenv is os.Getenv.
func EnvProxy(getenv func(string) string) (func(Target) *url.URL, error) {
	first := func(names ...string) (*url.URL, error) {
		for _, name := range names {
			for _, n := range []string{strings.ToLower(name), name} {
				if v := getenv(n); v != "" {
					if !strings.Contains(v, "://") {
						v = "http://" + v
					}
					u, err := ParseProxy(v)
					if err != nil {
						return nil, fmt.Errorf("environment variable %s: %w", n, err)
					}
					return u, nil
				}
			}
		}
		return nil, nil
	}
	tlsProxy, err := first("HTTPS_PROXY", "ALL_PROXY")
	if err != nil {
		return nil, err
	}
	plain, err := first("HTTP_PROXY", "ALL_PROXY")
	if err != nil {
		return nil, err
	}
	no := getenv("no_proxy")
	if no == "" {
		no = getenv("NO_PROXY")
	}
	return func(t Target) *url.URL {
		switch {
		case excluded(no, t):
			return nil
		case t.Scheme == "ws":
			return plain
		}
		return tlsProxy
	}, nil
}

// excluded reports whether the list no of NO_PROXY holds t's host: "*", a name with all below it, ".name", an address, a prefix;
// each perhaps with a port.
func excluded(no string, t Target) bool {
	host, port, _ := net.SplitHostPort(t.Host)
	addr, notAddr := netip.ParseAddr(host)
	if host == "localhost" || notAddr == nil && addr.IsLoopback() {
		return true
	}
	for entry := range strings.SplitSeq(no, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if h, p, err := net.SplitHostPort(entry); err == nil {
			if p != port {
				continue
			}
			entry = h
		}
		if entry == "*" {
			return true
		}
		if p, err := netip.ParsePrefix(entry); err == nil {
			if notAddr == nil && p.Contains(addr.Unmap()) {
				return true
			}
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		if name != "" && (host == name && entry[0] != '.' && entry[0] != '*' || strings.HasSuffix(host, "."+name)) {
			return true
		}
	}
	return false
}

// through opens a connection to the proxy and has it connect to host, whose name the proxy looks up.
func (d *Dialer) through(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), proxy *url.URL, host string) (net.Conn, error) {
	conn, err := dial(ctx, "tcp", proxy.Host)
	if err != nil {
		return nil, err
	}
	tune(conn)
	if proxy.Scheme == "https" {
		outer := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: d.Roots, MinVersion: tls.VersionTLS12,
			DynamicRecordSizingDisabled: true})
		if err := outer.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		conn = outer
	}
	stop := interrupt(ctx, conn)
	ask := connectHTTP
	if strings.HasPrefix(proxy.Scheme, "socks5") {
		ask = connectSOCKS
	}
	err = ask(conn, proxy.User, host)
	stop()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connectHTTP asks an HTTP proxy for a tunnel to host.
func connectHTTP(conn net.Conn, user *url.Userinfo, host string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: host}, Host: host, Header: http.Header{"User-Agent": {userAgent}}}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("ask for a tunnel: %w", err)
	}
	head, err := readHead(conn)
	if err != nil {
		return fmt.Errorf("ask for a tunnel: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), req)
	if err != nil {
		return errors.New("it does not answer like an HTTP proxy")
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("it wants another user and password")
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it refuses a tunnel to %s: %s", host, resp.Status)
	}
	return nil
}

// readHead reads an HTTP head and not a byte more: what follows belongs to the tunnel.
func readHead(r io.Reader) ([]byte, error) {
	head, one := make([]byte, 0, 256), make([]byte, 1)
	for len(head) < maxHead {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
		if head = append(head, one[0]); bytes.HasSuffix(head, []byte("\r\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) {
			return head, nil
		}
	}
	return nil, errors.New("the head of its answer has no end")
}

// socksErrors are the answers of RFC 1928, 6.
var socksErrors = []string{"", "general failure", "not allowed by its rules", "network unreachable", "host unreachable",
	"connection refused", "too many hops", "command not supported", "kind of address not supported"}

// connectSOCKS asks a SOCKS5 proxy for a connection to host (RFC 1928, 1929).
func connectSOCKS(conn net.Conn, user *url.Userinfo, host string) error {
	methods := []byte{5, 1, 0}
	if user != nil {
		methods = []byte{5, 2, 0, 2}
	}
	var answer [2]byte
	if err := exchange(conn, methods, answer[:]); err != nil {
		return err
	}
	switch {
	case answer[0] != 5:
		return errors.New("it does not answer like a SOCKS5 proxy")
	case answer[1] == 2 && user != nil:
		password, _ := user.Password()
		login := append([]byte{1, byte(len(user.Username()))}, user.Username()...)
		login = append(append(login, byte(len(password))), password...)
		if err := exchange(conn, login, answer[:]); err != nil {
			return err
		}
		if answer[1] != 0 {
			return errors.New("it wants another user and password")
		}
	case answer[1] != 0:
		return errors.New("it wants a user and password")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	ask := []byte{5, 1, 0}
	switch a, err := netip.ParseAddr(name); {
	case err == nil && a.Is4():
		ask = append(append(ask, 1), a.AsSlice()...)
	case err == nil:
		ask = append(append(ask, 4), a.AsSlice()...)
	case len(name) > 255:
		return errors.New("the name is longer than 255 bytes")
	default:
		ask = append(append(ask, 3, byte(len(name))), name...)
	}
	var head [4]byte
	if err := exchange(conn, binary.BigEndian.AppendUint16(ask, uint16(n)), head[:]); err != nil {
		return err
	}
	if code := int(head[1]); head[0] != 5 || code >= len(socksErrors) {
		return errors.New("it does not answer like a SOCKS5 proxy")
	} else if code != 0 {
		return fmt.Errorf("it refuses a connection to %s: %s", host, socksErrors[code])
	}
	size := map[byte]int{1: 4, 4: 16}[head[3]]
	if head[3] == 3 {
		var l [1]byte
		if _, err := io.ReadFull(conn, l[:]); err != nil {
			return err
		}
		size = int(l[0])
	}
	_, err = io.ReadFull(conn, make([]byte, size+2))
	return err
}

// exchange writes ask and reads the whole of answer.
func exchange(conn net.Conn, ask, answer []byte) error {
	if _, err := conn.Write(ask); err != nil {
		return fmt.Errorf("ask for a connection: %w", err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("ask for a connection: %w", err)
	}
	return nil
}
