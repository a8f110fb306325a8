package stream

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

func sha(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// fakeProxy is a proxy that takes everybody to one place and notes what it was asked for.
type fakeProxy struct {
	to    string
	asked chan string // "user:password host:port"
}

// start listens and serves each connection with serve until the test ends.
func (p *fakeProxy) start(t *testing.T, cfg *tls.Config, serve func(net.Conn) error) (host string) {
	ln := listen(t)
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if serve(c) != nil {
					c.Close()
					return
				}
				splice(c, func() (net.Conn, error) { return net.Dial("tcp", p.to) })
			}()
		}
	}()
	return ln.Addr().String()
}

var errRefused = errors.New("refused")

// connect speaks HTTP CONNECT; want is "user:password" or "".
func (p *fakeProxy) connect(want string) func(net.Conn) error {
	return func(c net.Conn) error {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return err
		}
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}).BasicAuth()
		if got := user + ":" + password; want != "" && got != want {
			io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
			return errRefused
		}
		if req.Method != http.MethodConnect || strings.HasPrefix(req.Host, "forbidden") {
			io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return errRefused
		}
		p.asked <- user + ":" + password + " " + req.Host
		_, err = io.WriteString(c, "HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n")
		return err
	}
}

// socks speaks SOCKS5; want is "user:password" or "". Its answers come in one write, as those of some proxies do.
func (p *fakeProxy) socks(want string) func(net.Conn) error {
	return func(c net.Conn) error {
		read := func(n int) []byte {
			b := make([]byte, n)
			io.ReadFull(c, b)
			return b
		}
		methods := read(int(read(2)[1]))
		login := ":"
		if want != "" {
			if !strings.Contains(string(methods), "\x02") {
				c.Write([]byte{5, 0xff})
				return errRefused
			}
			c.Write([]byte{5, 2})
			user := read(int(read(2)[1]))
			password := read(int(read(1)[0]))
			if login = string(user) + ":" + string(password); login != want {
				c.Write([]byte{1, 1})
				return errRefused
			}
			c.Write([]byte{1, 0})
		} else {
			c.Write([]byte{5, 0})
		}
		head, host := read(4), ""
		switch head[3] {
		case 1, 4:
			a, _ := netip.AddrFromSlice(read(map[byte]int{1: 4, 4: 16}[head[3]]))
			host = a.String()
		case 3:
			host = string(read(int(read(1)[0])))
		}
		port := binary.BigEndian.Uint16(read(2))
		if host == "forbidden.example" {
			c.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
			return errRefused
		}
		p.asked <- login + " " + net.JoinHostPort(host, strconv.Itoa(int(port)))
		_, err := c.Write(append([]byte{5, 0, 0, 3, 5}, "here.\x01\xbb"...))
		return err
	}
}

// spec/72-streams.md#proxies
func TestThroughProxies(t *testing.T) {
	a, b := node(t), node(t, ours)
	get, _ := certificate(t)
	server := b.serveAs(ServeConfig{Certificate: get})
	proxyCert, proxyRoots := certificateFor(t, "localhost")
	const login = "me:s3cret-pass"
	for _, c := range []struct {
		name, scheme, login string
		kinds               []string
	}{
		{"HTTP", "http", "", []string{"tls", "wss"}},
		{"HTTP with password", "http", login, []string{"tls"}},
		{"HTTPS", "https", login, []string{"tls", "wss"}},
		{"SOCKS5", "socks5", "", []string{"tls", "wss"}},
		{"SOCKS5 with password", "socks5h", login, []string{"tls"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &fakeProxy{to: server, asked: make(chan string, 10)}
			speak, cfg := p.connect(c.login), (*tls.Config)(nil)
			if strings.HasPrefix(c.scheme, "socks") {
				speak = p.socks(c.login)
			}
			if c.scheme == "https" {
				cfg = &tls.Config{GetCertificate: proxyCert}
			}
			_, port, _ := net.SplitHostPort(p.start(t, cfg, speak))
			host := "127.0.0.1:" + port
			if c.scheme == "https" {
				host = "localhost:" + port
			}
			through := func(userinfo string) *Dialer {
				if userinfo != "" {
					userinfo += "@"
				}
				u, err := ParseProxy(c.scheme + "://" + userinfo + host)
				if err != nil {
					t.Fatal(err)
				}
				return &Dialer{Key: ours, Proxy: OneProxy(u), Roots: proxyRoots, Verify: AnyCertificate}
			}
			if c.scheme == "https" {
				d := through(c.login)
				d.Roots = nil
				if _, err := a.Dial(context.Background(), d, Target{Scheme: "tls", Host: server}); err == nil || !strings.Contains(err.Error(), "certificate") {
					t.Errorf("the proxy's certificate is nobody's: %v", err)
				}
			}
			for _, kind := range c.kinds {
				for _, at := range []string{"some.invalid:443", "192.0.2.9:8443", "[2001:db8::9]:443"} {
					atA, atB := a.dial(through(c.login), b, Target{Scheme: kind, Host: at})
					talk(t, a, b, atA, atB)
					want := c.login + " " + at
					if c.login == "" {
						want = ": " + at
					}
					if got := <-p.asked; got != want {
						t.Errorf("the proxy was asked for %q, want %q", got, want)
					}
				}
			}
			_, err := a.Dial(context.Background(), through(c.login), Target{Scheme: "tls", Host: "forbidden.example:443"})
			if err == nil || !strings.Contains(err.Error(), "forbidden.example:443") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("refused by the proxy: %v", err)
			}
			if c.login == "" {
				return
			}
			for _, wrong := range []string{"", "me:wr0ng-pass"} {
				_, err := a.Dial(context.Background(), through(wrong), Target{Scheme: "tls", Host: "some.invalid:443"})
				if err == nil || !strings.Contains(err.Error(), "user and password") || strings.Contains(err.Error(), "wr0ng") {
					t.Errorf("with login %q: %v", wrong, err)
				}
			}
		})
	}
}

// Proxies that do not speak as they should end the dial, and make nothing wait or grow.
func TestHostileProxies(t *testing.T) {
	a := node(t)
	endless := strings.Repeat("X: y\r\n", 1<<15)
	for name, c := range map[string]struct{ scheme, says string }{
		"closes":            {"http", ""},
		"no HTTP":           {"http", "SSH-2.0-x\r\n\r\n"},
		"head without end":  {"http", "HTTP/1.1 200 OK\r\n" + endless},
		"redirects":         {"http", "HTTP/1.1 302 Found\r\nLocation: http://example.invalid/\r\n\r\n"},
		"SOCKS closes":      {"socks5", ""},
		"SOCKS4":            {"socks5", "\x00\x5a"},
		"unasked login":     {"socks5", "\x05\x02"},
		"no method":         {"socks5", "\x05\xff"},
		"strange code":      {"socks5", "\x05\x00\x05\xee\x00\x01"},
		"refuses":           {"socks5", "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"},
		"cut":               {"socks5", "\x05\x00\x05\x00\x00\x04\x00\x00"},
		"cut in the length": {"socks5", "\x05\x00\x05\x00\x00\x03"},
	} {
		p := &fakeProxy{}
		host := p.start(t, nil, func(conn net.Conn) error {
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, c.says)
			conn.(*net.TCPConn).CloseWrite()
			return nil
		})
		u, _ := ParseProxy(c.scheme + "://" + host)
		_, err := a.Dial(context.Background(), &Dialer{Key: ours, Proxy: OneProxy(u)}, Target{Scheme: "tls", Host: "some.invalid:443"})
		if err == nil || !strings.Contains(err.Error(), "proxy "+host) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseProxy(t *testing.T) {
	for in, want := range map[string]string{
		"http://10.0.0.1":             "http://10.0.0.1:80",
		"https://proxy.example":       "https://proxy.example:443",
		"socks5://u:p@[2001:db8::1]":  "socks5://u:p@[2001:db8::1]:1080",
		"socks5h://localhost:9050/":   "socks5h://localhost:9050",
		"http://a:s3cret@x:3128/path": "http://a:s3cret@x:3128",
		"ftp://x":                     "",
		"x:3128":                      "",
		"http://":                     "",
		"http://x:0":                  "",
		"http://x:99999":              "",
		"http://u:s3cret@x:port":      "",
		"http://u:s3cret%zz@x":        "",
		"http://u:s3cret" + strings.Repeat("x", 300) + "@x": "",
	} {
		u, err := ParseProxy(in)
		switch {
		case err != nil && (want != "" || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("%q: %v", in, err)
		case err == nil && u.String() != want:
			t.Errorf("%q is read as %q, want %q", in, u, want)
		}
	}
}

// spec/72-streams.md#proxies: what the environment says.
func TestEnvProxy(t *testing.T) {
	for _, c := range []struct{ env, target, want string }{
		{"", "tls://x:443", ""},
		{"HTTPS_PROXY=http://p:1", "tls://x:443", "http://p:1"},
		{"https_proxy=p:1", "wss://x/y", "http://p:1"},
		{"https_proxy=p:1 HTTPS_PROXY=http://q:1", "wss://x", "http://p:1"},
		{"HTTP_PROXY=http://p:1", "tls://x", ""},
		{"HTTP_PROXY=http://p:1", "ws://x", "http://p:1"},
		{"ALL_PROXY=socks5://p:1", "tls://x", "socks5://p:1"},
		{"ALL_PROXY=socks5://p:1 HTTPS_PROXY=http://q:2", "tls://x", "http://q:2"},
		{"HTTPS_PROXY=http://p:1", "tls://localhost:443", ""},
		{"HTTPS_PROXY=http://p:1", "tls://127.0.0.5:443", ""},
		{"HTTPS_PROXY=http://p:1", "tls://[::1]:443", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=*", "tls://x", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=a.example,b.example", "tls://b.example", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=a.example,b.example", "tls://c.b.example", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=b.example", "tls://ab.example", "http://p:1"},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=.b.example", "tls://b.example", "http://p:1"},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=.b.example", "tls://a.b.example", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=*.b.example", "tls://a.b.example", ""},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=b.example:8443", "tls://b.example", "http://p:1"},
		{"HTTPS_PROXY=http://p:1 NO_PROXY=b.example:8443", "tls://b.example:8443", ""},
		{"HTTPS_PROXY=http://p:1 no_proxy=192.0.2.0/24", "tls://192.0.2.7", ""},
		{"HTTPS_PROXY=http://p:1 no_proxy=192.0.2.0/24", "tls://192.0.3.7", "http://p:1"},
		{"HTTPS_PROXY=http://p:1 no_proxy=192.0.2.7,,", "tls://192.0.2.7", ""},
	} {
		env := map[string]string{}
		for _, v := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(v, "=")
			env[k] = v
		}
		choose, err := EnvProxy(func(k string) string { return env[k] })
		if err != nil {
			t.Fatal(err)
		}
		target, err := ParseTarget(c.target)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if u := choose(target); u != nil {
			got = u.String()
		}
		if got != c.want {
			t.Errorf("%s: %s goes by %q, want %q", c.env, c.target, got, c.want)
		}
	}
	for _, name := range []string{"https_proxy", "HTTP_PROXY"} {
		_, err := EnvProxy(func(k string) string { return map[string]string{name: "gopher://u:s3cret@p"}[k] })
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:8443":            "tls://192.0.2.1:8443",
		"[2001:db8::1]":             "tls://[2001:db8::1]:443",
		"tls://Node.Example":        "tls://node.example:443",
		"wss://x/a/b//":             "wss://x:443/a/b",
		"ws://x":                    "ws://x:80",
		"wss://x/a%2Fb":             "wss://x:443/a%2Fb",
		"":                          "",
		"tls://":                    "",
		"tls://x/path":              "",
		"http://x":                  "",
		"wss://u:s3cret@x":          "",
		"wss://x?q":                 "",
		"wss://x#f":                 "",
		"tls://x:0":                 "",
		"tls://x:0443":              "tls://x:443",
		"tls://x:65536":             "",
		"tls://a b":                 "",
		"::":                        "",
		"2001:db8::1":               "",
		"tls://[::ffff:192.0.2.1]":  "tls://192.0.2.1:443",
		"tls://a\"b":                "",
		"tls://[fe80::1%25eth0]:44": "",
	} {
		got, err := ParseTarget(in)
		if (err != nil) != (want == "") || got.String() != want || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q is read as %q (%v), want %q", in, got, err, want)
		}
		if again, err := ParseTarget(want); want != "" && (err != nil || again != got) {
			t.Errorf("%q is read again as %q, %v", want, again, err)
		}
	}
	if got := At(netip.MustParseAddrPort("[2001:db8::1]:443")); got.String() != "tls://[2001:db8::1]:443" {
		t.Errorf("At: %v", got)
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"192.0.2.1:443", "wss://x/a", "ws://[::1]", "tls://\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTarget(s)
		if err != nil {
			return
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is %+v, and again %+v, %v", s, got, again, err)
		}
	})
}

func FuzzParseProxy(f *testing.F) {
	for _, s := range []string{"http://u:p@x:1", "socks5://[::1]", "https://%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseProxy(s)
		if err != nil {
			return
		}
		if _, err := ParseProxy(u.String()); err != nil {
			t.Errorf("%q is %q, which is none: %v", s, u, err)
		}
	})
}
