package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The limits of what has not shown that it knows a key.
const (
	maxGuests       = 128 // connections; the oldest makes room
	maxGuestsFrom   = 16  // of one IPv4 address or IPv6 /64; one more is refused
	handshakeWithin = 5 * time.Second
	requestWithin   = 10 * time.Second
	keepWeb         = 30 * time.Second // a connection without a request
)

// ServeConfig says how a listener looks to those who do not know a key.
type ServeConfig struct {
	// Certificate returns the certificate to show: see SelfSigned and LoadCertificate. nil: no TLS here, because a reverse proxy in
	// front does it; then only WebSockets can come in.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Web         http.Handler // what strangers are shown; nil: a plain page at / and 404 for all else
}

// Serve takes streams from ln until ln or the Set is closed; then it closes ln and returns nil. Streams that came in stay. To
// everybody who does not know a key it is a web server.
func (s *Set) Serve(ln net.Listener, cfg ServeConfig) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		ln.Close()
		return nil
	}
	s.closers[ln] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	srv := newServer(s, cfg)
	srv.wg.Go(func() { srv.http.Serve(srv.handoff) }) //nolint:errcheck // ends with stop
	err := srv.accept(ln)
	srv.stop()
	ln.Close()
	s.mu.Lock()
	delete(s.closers, ln)
	s.mu.Unlock()
	return err
}

// server is one listener at work.
type server struct {
	set     *Set
	cfg     *tls.Config // nil: no TLS
	web     http.Handler
	http    *http.Server
	handoff *handoff
	wg      sync.WaitGroup
}

func newServer(s *Set, cfg ServeConfig) *server {
	v := &server{set: s, web: cfg.Web, handoff: &handoff{conns: make(chan net.Conn), done: make(chan struct{})}}
	if v.web == nil {
		v.web = plainWeb()
	}
	if cfg.Certificate != nil {
		v.cfg = &tls.Config{GetCertificate: cfg.Certificate, NextProtos: []string{"h2", "http/1.1"}, DynamicRecordSizingDisabled: true}
	}
	v.http = &http.Server{Handler: v, TLSConfig: v.cfg, ReadHeaderTimeout: requestWithin, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		IdleTimeout: keepWeb, MaxHeaderBytes: maxHead, ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, guestKey{}, c) }}
	if v.cfg == nil {
		v.http.TLSConfig = &tls.Config{} // no HTTP/2
	}
	v.http.ConnState = v.count()
	return v
}

// count lets stop wait for the connections of the web server, which does not say when they are done.
func (v *server) count() func(net.Conn, http.ConnState) {
	return func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			v.wg.Add(1)
		case http.StateHijacked, http.StateClosed:
			v.wg.Done()
		}
	}
}

// stop ends all connections that did not become streams, and waits.
func (v *server) stop() {
	close(v.handoff.done)
	v.set.guests.closeAll(v)
	v.http.Close()
	v.wg.Wait()
}

// accept hands out connections until ln is closed.
func (v *server) accept(ln net.Listener) error {
	for wait := time.Duration(0); ; {
		conn, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // out of files, most likely
			v.set.cfg.Log.Warn("cannot accept a connection", "err", err)
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
				continue
			case <-v.set.done:
				return nil
			}
		}
		wait = 0
		tune(conn)
		g := &guest{Conn: conn, of: v, from: source(conn)}
		if !v.set.guests.admit(g, v.cfg == nil) {
			conn.Close()
			continue
		}
		v.wg.Go(func() { v.receive(g) }) // ends by its deadlines, or when stop closes g
	}
}

// receive finds out whether g is one of us, and gives it to the web server if not (spec/72-streams.md#strangers).
func (v *server) receive(g *guest) {
	if v.cfg == nil {
		v.handoff.give(g)
		return
	}
	conn := tls.Server(g, v.cfg)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeWithin)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		sayHTTPS(err)
		g.Close()
		return
	}
	state := conn.ConnectionState()
	bound, err := binding(state)
	if err != nil || state.NegotiatedProtocol == "h2" {
		v.handoff.give(conn)
		return
	}
	key, first, err := v.meet(conn, bound)
	switch {
	case err != nil:
		conn.Close()
	case key == nil:
		v.handoff.give(&readConn{Conn: conn, first: first})
	default:
		v.welcome(carrier{conn, g}, g, "tls", key.serverProof(bound))
	}
}

// meet reads the client's greeting. When what comes is not that of any key, it returns at once what was read: nobody who does not
// know a key can see that something was looked for.
func (v *server) meet(conn net.Conn, bound []byte) (*Key, []byte, error) {
	keys := *v.set.keys.Load()
	want := make([][greetingSize]byte, len(keys))
	for i, k := range keys {
		want[i] = k.greeting(bound)
	}
	conn.SetReadDeadline(time.Now().Add(requestWithin)) //nolint:errcheck // if it fails, so does the read
	defer conn.SetReadDeadline(time.Time{})             //nolint:errcheck // as before
	var buf [greetingSize]byte
	for n := 0; ; {
		m, err := conn.Read(buf[n:])
		if n == 0 {
			conn.SetReadDeadline(time.Now().Add(requestWithin)) //nolint:errcheck // as before; the web server counts from here too
		}
		n += m
		// The proof is good for this connection alone, and there is one try: the time that comparing takes tells nothing.
		i := slices.IndexFunc(want, func(g [greetingSize]byte) bool { return bytes.HasPrefix(g[:], buf[:n]) })
		switch {
		case n == greetingSize && i >= 0:
			return &keys[i], nil, nil
		case n > 0 && (i < 0 || errors.Is(err, io.EOF)): // what ends in the middle wants an answer too
			return nil, buf[:n], nil
		case err != nil:
			return nil, nil, err
		}
	}
}

// welcome answers a client that knows a key, and makes a stream of the connection.
func (v *server) welcome(c carrier, g *guest, kind string, proof [proofSize]byte) {
	c.SetWriteDeadline(time.Now().Add(handshakeWithin)) //nolint:errcheck // if it fails, so does the write
	if _, err := c.Write(proof[:]); err != nil {
		c.close()
		return
	}
	g.leave()
	if _, err := v.set.add(c, Info{Kind: kind, Inbound: true}); err != nil && !errors.Is(err, net.ErrClosed) {
		v.set.cfg.Log.Debug("stream refused", "remote", c.raw.RemoteAddr().String(), "err", err)
	}
}

// sayHTTPS answers a request without TLS as web servers written in Go do.
func sayHTTPS(err error) {
	var re tls.RecordHeaderError
	if errors.As(err, &re) && re.Conn != nil && slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(re.RecordHeader[:])) {
		io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") //nolint:errcheck // it is closed next
	}
}

// handoff is the listener of the web server: it accepts what it is given.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
}

func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error { return nil }

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }

// readConn is a connection of which the first bytes were read already.
type readConn struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *readConn) Read(b []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.first)
	c.first = c.first[n:]
	return n, nil
}

// guest is a TCP connection that is not a stream yet.
type guest struct {
	net.Conn
	of   *server
	from netip.Prefix
	once sync.Once
}

type guestKey struct{}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// leave takes g out of the table, because it is closed or a stream.
func (g *guest) leave() { g.once.Do(func() { g.of.set.guests.remove(g) }) }

// guestOf finds the guest below a connection of the web server.
func guestOf(c any) *guest {
	for {
		switch t := c.(type) {
		case *guest:
			return t
		case *readConn:
			c = t.Conn
		case *tls.Conn:
			c = t.NetConn()
		default:
			return nil
		}
	}
}

// source is what connections are counted by: the IPv4 address or the IPv6 /64.
func source(c net.Conn) netip.Prefix {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := ap.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// guests is the table of connections that are no streams yet, the oldest first.
type guests struct {
	mu  sync.Mutex
	all []*guest
}

// admit adds g, if its source has not too many; one that must make room for it is closed. proxied connections all come from
// the reverse proxy.
func (t *guests) admit(g *guest, proxied bool) bool {
	t.mu.Lock()
	same := 0
	for _, o := range t.all {
		if o.from == g.from {
			same++
		}
	}
	if same >= maxGuestsFrom && !proxied && !g.from.Addr().IsLoopback() {
		t.mu.Unlock()
		return false
	}
	var oldest *guest
	if len(t.all) >= maxGuests {
		oldest = t.all[0]
	}
	t.all = append(t.all, g)
	t.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return true
}

func (t *guests) remove(g *guest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.all, g); i >= 0 {
		t.all = slices.Delete(t.all, i, i+1)
	}
}

// closeAll closes the guests of v.
func (t *guests) closeAll(v *server) {
	t.mu.Lock()
	all := slices.Clone(t.all)
	t.mu.Unlock()
	for _, g := range all {
		if g.of == v {
			g.Close()
		}
	}
}
