package stream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reference is an ordinary web server with the same page.
func reference(t *testing.T, get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (host string) {
	ln := listen(t)
	srv := &http.Server{Handler: plainWeb(), TLSConfig: &tls.Config{GetCertificate: get}, ReadHeaderTimeout: requestWithin, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

var dates = regexp.MustCompile(`Date: [^\r]*`)

// answer sends the pieces to host, each in a write of its own, and then its farewell, and returns all that comes until the
// server closes. A server that closes while something of ours is on its way resets the connection, and with that its answer may be lost: then
// it is asked again.
func answer(t *testing.T, host string, cfg *tls.Config, pieces ...string) string {
	t.Helper()
	for range 100 {
		if text, whole := ask(t, host, cfg, pieces...); whole {
			return text
		}
	}
	return "reset 100 times"
}

func ask(t *testing.T, host string, cfg *tls.Config, pieces ...string) (text string, whole bool) {
	t.Helper()
	raw, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	conn := raw
	if cfg != nil {
		c := tls.Client(raw, cfg)
		if err := c.Handshake(); err != nil {
			return "handshake: " + err.Error(), true
		}
		conn = c
	}
	for _, p := range pieces {
		if _, err := io.WriteString(conn, p); err != nil {
			break // closed already
		}
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	got, err := io.ReadAll(conn)
	text = string(dates.ReplaceAll(got, []byte("Date: now")))
	if err != nil {
		return text + "error: " + err.Error(), !errors.Is(err, syscall.ECONNRESET)
	}
	return text, true
}

// spec/72-streams.md#strangers: byte for byte, a stranger sees what a web server without streams shows.
func TestStrangersSeeAWebServer(t *testing.T) {
	get, roots := certificate(t)
	b := node(t, theirs, ours)
	mine, plain := b.serveAs(ServeConfig{Certificate: get}), reference(t, get)
	any13 := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	used := ours.token(time.Now())
	late := ours.token(time.Now().Add(-3 * time.Hour))
	upgrade := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	}
	if token, _ := parseToken(used); !b.used.use(token) {
		t.Fatal("the token is used")
	}
	probes := map[string]struct {
		cfg    *tls.Config
		pieces []string
	}{
		"page":              {any13, []string{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}},
		"kept open":         {any13, []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}},
		"pipelined":         {any13, []string{strings.Repeat("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 5)}},
		"byte by byte":      {any13, strings.Split("GET / HTTP/1.0\r\n\r\n", "")},
		"head":              {any13, []string{"HEAD / HTTP/1.0\r\n\r\n"}},
		"post":              {any13, []string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"}},
		"range":             {any13, []string{"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=2-5\r\nConnection: close\r\n\r\n"}},
		"old HTTP":          {any13, []string{"GET /\r\n"}},
		"no host":           {any13, []string{"GET / HTTP/1.1\r\n\r\n"}},
		"preface of HTTP/2": {any13, []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}},
		"garbage":           {any13, []string{strings.Repeat("\x17", 32) + "\r\n\r\n"}},
		"garbage, no end":   {any13, []string{strings.Repeat("\xff", 100)}},
		"one byte":          {any13, []string{"\x01"}},
		"nothing":           {any13, nil},
		"long head":         {any13, []string{"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n"}},
		"WebSocket":         {any13, []string{upgrade("/")}},
		"wrong token":       {any13, []string{upgrade("/" + NewKey([]byte("some other secret")).token(time.Now()))}},
		"used token":        {any13, []string{upgrade("/" + used)}},
		"late token":        {any13, []string{upgrade("/" + late)}},
		"token, no upgrade": {any13, []string{"GET /" + ours.token(time.Now()) + " HTTP/1.0\r\n\r\n"}},
		"TLS 1.2":           {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, []string{"GET / HTTP/1.0\r\n\r\n"}},
		"old TLS":           {&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, nil},
		"other protocol":    {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"ftp"}}, nil},
		"no protocol":       {&tls.Config{InsecureSkipVerify: true}, []string{"GET / HTTP/1.0\r\n\r\n"}},
		"HTTP to TLS":       {nil, []string{"GET / HTTP/1.0\r\n\r\n"}},
		"SSH to TLS":        {nil, []string{"SSH-2.0-x\r\n"}},
		"noise":             {nil, []string{strings.Repeat("\x80", 50)}},
	}
	for name, p := range probes {
		t.Run(name, func(t *testing.T) {
			want, got := answer(t, plain, p.cfg, p.pieces...), answer(t, mine, p.cfg, p.pieces...)
			if got != want {
				t.Errorf("the answer is\n%q, that of a web server\n%q", got, want)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "node.example"}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("https://" + mine + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.ProtoMajor != 2 || resp.StatusCode != 200 || string(body) != page {
			t.Errorf("%s %s: %q", resp.Proto, resp.Status, body)
		}
	})
	if l := b.List(); len(l) != 0 {
		t.Errorf("strangers have streams: %+v", l)
	}
}

// spec/72-streams.md#proof: one that was seen on another connection is nothing, and neither is the server's turned around.
func TestProofIsOfOneConnection(t *testing.T) {
	get, _ := certificate(t)
	b := node(t, ours)
	host := b.serveAs(ServeConfig{Certificate: get})
	dial := func() (*tls.Conn, []byte) {
		conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		state := conn.ConnectionState()
		bound, err := binding(state)
		if err != nil {
			t.Fatal(err)
		}
		return conn, bound
	}
	half, boundHalf := dial()
	begun := ours.greeting(boundHalf)
	half.Write(begun[:10])
	half.CloseWrite()
	if got, _ := io.ReadAll(half); !bytes.HasPrefix(got, []byte("HTTP/1.1 400 ")) {
		t.Errorf("who begins well and stops is answered %q", got)
	}
	first, boundFirst := dial()
	second, boundSecond := dial()
	third, boundThird := dial()
	good, seen := ours.greeting(boundFirst), ours.greeting(boundFirst)
	for i := range good { // in pieces
		first.Write(good[i : i+1])
	}
	proof := make([]byte, proofSize)
	if _, err := io.ReadFull(first, proof); err != nil {
		t.Fatal(err)
	}
	if want := ours.serverProof(boundFirst); !bytes.Equal(proof, want[:]) {
		t.Error("the server proves something else")
	}
	b.await(EventUp)
	turned := append(append([]byte(nil), func() []byte { p := ours.serverProof(boundThird); return p[:] }()...), greetingEnd...)
	for what, c := range map[string]struct {
		conn net.Conn
		say  []byte
	}{"another connection's": {second, seen[:]}, "the server's": {third, turned}} {
		c.conn.Write(c.say)
		resp, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s proof: %v, %v", what, resp, err)
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
	if want := ours.greeting(boundSecond); bytes.Equal(want[:], seen[:]) {
		t.Error("two connections have one proof")
	}
}

// spec/72-streams.md#proof: who stands in between with a certificate of its own is noticed before a frame is sent; by a
// WebSocket one gets past it.
func TestWhoStandsBetween(t *testing.T) {
	a, b := node(t), node(t, ours)
	target := b.serve("tls")
	get, _ := certificate(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: get})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go splice(in, func() (net.Conn, error) { return tls.Dial("tcp", target.Host, &tls.Config{InsecureSkipVerify: true}) })
		}
	}()
	between := Target{Scheme: "tls", Host: ln.Addr().String()}
	if _, err := a.Dial(context.Background(), &Dialer{Key: ours}, between); !errors.Is(err, ErrNotOurs) {
		t.Errorf("tls: %v", err)
	}
	between.Scheme = "wss"
	atA, atB := a.dial(&Dialer{Key: ours, Verify: AnyCertificate}, b, between)
	talk(t, a, b, atA, atB)
}

// splice copies between in and a connection that open makes.
func splice(in net.Conn, open func() (net.Conn, error)) {
	defer in.Close()
	out, err := open()
	if err != nil {
		return
	}
	defer out.Close()
	back := make(chan struct{})
	go func() { defer close(back); io.Copy(in, out); in.Close() }()
	io.Copy(out, in)
	out.Close()
	<-back
}

// A server that is no member, of any kind, is found out soon.
func TestServersThatAreNotOurs(t *testing.T) {
	a, other := node(t), node(t, theirs)
	get, _ := certificate(t)
	web, _ := url.Parse(httptestServer(t, http.RedirectHandler("https://example.invalid/", http.StatusFound)).URL)
	hosts := map[string]string{"a member of another network": other.serveAs(ServeConfig{Certificate: get}), "a web server": reference(t, get), "one that redirects": web.Host}
	for what, host := range hosts {
		for _, kind := range []string{"tls", "wss"} {
			if _, err := a.Dial(context.Background(), &Dialer{Key: ours}, Target{Scheme: kind, Host: host}); !errors.Is(err, ErrNotOurs) {
				t.Errorf("%s by %s: %v", what, kind, err)
			}
		}
	}
	if l := other.List(); len(l) != 0 {
		t.Errorf("streams: %+v", l)
	}
}

func httptestServer(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// spec/72-streams.md#websocket: behind a reverse proxy that does the TLS, below a path of its own.
func TestBehindAReverseProxy(t *testing.T) {
	a, b := node(t), node(t, ours)
	back := b.serve("ws")
	mux := http.NewServeMux()
	mux.Handle("/tunnel/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: back.Host})
	}, ErrorLog: log.New(io.Discard, "", 0)})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the owner's site") })
	front := httptestServer(t, mux)
	roots := x509.NewCertPool()
	roots.AddCert(front.Certificate())

	target, err := ParseTarget("wss" + strings.TrimPrefix(front.URL, "https") + "/tunnel/")
	if err != nil {
		t.Fatal(err)
	}
	d := &Dialer{Key: ours, ServerName: "example.com", Roots: roots, Verify: nil}
	atA, atB := a.dial(d, b, target)
	talk(t, a, b, atA, atB)
	target.Path = ""
	if _, err := a.Dial(context.Background(), d, target); !errors.Is(err, ErrNotOurs) {
		t.Errorf("beside the path: %v", err)
	}
	target.Path = "/tunnel"
	if _, err := a.Dial(context.Background(), &Dialer{Key: theirs}, target); !errors.Is(err, ErrNotOurs) {
		t.Errorf("a stranger: %v", err)
	}
}

// A wss target by name must have a good certificate unless its owner says otherwise.
func TestCertificatesAreChecked(t *testing.T) {
	a, b := node(t), node(t, ours)
	get, roots := certificate(t)
	host := b.serveAs(ServeConfig{Certificate: get})
	_, port, _ := net.SplitHostPort(host)
	named := Target{Scheme: "wss", Host: net.JoinHostPort("localhost", port)}
	shown, _ := get(nil)
	sum := [32]byte{}
	for _, c := range []struct {
		what string
		d    Dialer
		t    Target
		ok   bool
	}{
		{"name, unknown issuer", Dialer{}, named, false},
		{"name, any", Dialer{Verify: AnyCertificate}, named, true},
		{"name, known issuer, other name", Dialer{Roots: roots}, named, false},
		{"name, known issuer", Dialer{Roots: roots, ServerName: "node.example"}, named, true},
		{"address", Dialer{}, Target{Scheme: "wss", Host: host}, true},
		{"pinned", Dialer{Verify: PinCertificate(sha(shown.Certificate[0]))}, named, true},
		{"another pinned", Dialer{Verify: PinCertificate(sum)}, named, false},
		{"tls, by name", Dialer{}, Target{Scheme: "tls", Host: named.Host}, true},
		{"tls, another pinned", Dialer{Verify: PinCertificate(sum)}, Target{Scheme: "tls", Host: host}, false},
	} {
		c.d.Key = ours
		_, err := a.Dial(context.Background(), &c.d, c.t)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// spec/72-streams.md#limits: strangers cannot keep others out, nor one of them fill the table.
func TestGuestsMakeRoom(t *testing.T) {
	s := New(Config{})
	v := newServer(s, ServeConfig{})
	enter := func(from string, proxied bool) (*guest, net.Conn, bool) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		g := &guest{Conn: near, of: v, from: netip.MustParsePrefix(from)}
		return g, far, s.guests.admit(g, proxied)
	}
	one, far, _ := enter("192.0.2.1/32", false)
	for range maxGuestsFrom - 1 {
		enter("192.0.2.1/32", false)
	}
	if _, _, ok := enter("192.0.2.1/32", false); ok {
		t.Error("one address holds more than its share")
	}
	one.leave()
	if _, _, ok := enter("192.0.2.1/32", false); !ok {
		t.Error("no room after one has left")
	}
	oldest, old, _ := enter("192.0.2.2/32", true)
	for i := range maxGuests {
		if _, _, ok := enter([]string{"127.0.0.1/32", "198.51.100.1/32"}[i%2], i%2 == 1); !ok {
			t.Fatalf("guest %d is refused", i)
		}
	}
	if n := len(s.guests.all); n != maxGuests {
		t.Errorf("%d guests", n)
	}
	old.SetReadDeadline(time.Now().Add(patience))
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest (%v) was not closed: %v", oldest.from, err)
	}
	far.SetWriteDeadline(time.Now()) // one has left, as streams do: it is not closed
	if _, err := far.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stream was closed with the guests: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	b := node(t, ours)
	get, _ := certificate(t)
	host := b.serveAs(ServeConfig{Certificate: get})
	var conns []net.Conn
	for i := range 6 {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i > 0 {
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: [][]string{{"h2"}, {"http/1.1"}}[i%2]})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			conn = c
		}
		if i > 2 {
			io.WriteString(conn, "GET / HT")
		}
		conns = append(conns, conn)
	}
	a := node(t)
	a.dial(&Dialer{Key: ours}, b, Target{Scheme: "tls", Host: host})
	a.dial(&Dialer{Key: ours}, b, Target{Scheme: "wss", Host: host})
	b.Close()
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection outlives the Set")
		}
	}
	a.await(EventDown)
	a.await(EventDown)
}

func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(name string, at time.Time) {
		cert, private, err := SelfSigned(name, at)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(certFile, cert, 0o600)
		os.WriteFile(keyFile, private, 0o600)
		os.Chtimes(certFile, at, at)
	}
	if _, err := LoadCertificate(certFile, keyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	write("", time.Now().Add(-time.Hour))
	f := &certFiles{cert: certFile, key: keyFile}
	if err := f.load(time.Now()); err != nil {
		t.Fatal(err)
	}
	name := func() string {
		c, err := f.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.CommonName
	}
	write("new.example", time.Now())
	if got := name(); got != "localhost" {
		t.Errorf("shows %s before it looked again", got)
	}
	later := func() { f.checked = f.checked.Add(-2 * certCheck) }
	if later(); name() != "new.example" {
		t.Error("the renewed certificate is not shown")
	}
	os.WriteFile(certFile, []byte("half a f"), 0o600)
	if later(); name() != "new.example" {
		t.Error("a broken file took the certificate away")
	}
	cert, _, _ := SelfSigned("192.0.2.1", time.Now())
	block, _ := pem.Decode(cert)
	if leaf, err := x509.ParseCertificate(block.Bytes); err != nil || len(leaf.DNSNames) != 0 || leaf.CheckSignatureFrom(leaf) != nil {
		t.Errorf("certificate of an address: %+v, %v", leaf, err)
	}
}

// A name that leads to where it must not is found out only when the connection stands: it is closed before a byte is sent.
// spec/72-streams.md#when
func TestANameThatLeadsHomeIsLeftAtOnce(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	got := make(chan []byte, 1)
	var wg sync.WaitGroup
	wg.Go(func() { // ends when the connection is closed
		b, _ := io.ReadAll(there)
		got <- b
	})
	s := New(Config{})
	defer s.Close()
	_, err := s.Dial(t.Context(), &Dialer{Key: NewKey(make([]byte, 32)),
		Dial:   func(context.Context, string, string) (net.Conn, error) { return remote{here, "127.0.0.1:443"}, nil },
		Refuse: func(a netip.Addr) bool { return a.IsLoopback() }}, Target{Scheme: "tls", Host: "home.example:443"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("dial: %v", err)
	}
	if b := <-got; len(b) > 0 {
		t.Errorf("%d bytes were sent", len(b))
	}
	wg.Wait()
}

// remote is a connection to an address.
type remote struct {
	net.Conn
	addr string
}

func (r remote) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(r.addr))
}
