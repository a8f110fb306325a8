package stream

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// ErrNotOurs is in the chain of errors of a dial that reached a server which does not know the key: no member, or one with an
// older key; or, with tls, something in between took the TLS connection apart, so that wss may work.
var ErrNotOurs = errors.New("what answers there does not know this network")

// userAgent is what servers and reverse proxies expect to be told.
const userAgent = "Mozilla/5.0"

// Dialer says how streams are opened. It may serve several dials at once; its fields must not change meanwhile.
type Dialer struct {
	Key Key
	// ServerName is shown in the clear to those on the way, and asked of the server's certificate. "": the host of the target, or
	// nothing if that is an address.
	ServerName string
	// Verify checks the certificate of the target. nil: of a tls target nothing is asked, because both ends prove the key and
	// notice who stands between; of a wss target it must be good by the system's roots, or anything if the host is an address.
	Verify func(tls.ConnectionState) error
	// Proxy returns the proxy for a target: nil for none. A nil Proxy uses none. See OneProxy and EnvProxy.
	Proxy func(Target) *url.URL
	// Control is net.Dialer's: it marks sockets so that they stay out of the tunnel. May be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Dial opens TCP connections. nil: this machine does, by Control.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Refuse says which addresses a direct connection must not have led to: it is closed before anything is sent. nil: none.
	Refuse func(netip.Addr) bool
	// Roots are those of wss targets and of https proxies. nil: the system's.
	Roots *x509.CertPool
}

// AnyCertificate is a Verify that takes all. What is inside a stream is sealed anyway; who stands between learns as much as the
// owner of a router on the way.
func AnyCertificate(tls.ConnectionState) error { return nil }

// PinCertificate returns a Verify that takes the certificate with this SHA-256 and no other.
func PinCertificate(sum [sha256.Size]byte) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server has no certificate")
		}
		if got := sha256.Sum256(state.PeerCertificates[0].Raw); got != sum {
			return fmt.Errorf("the server's certificate has SHA-256 %s, not the expected", hex.EncodeToString(got[:]))
		}
		return nil
	}
}

// dial opens a connection to t and has both ends prove the key. ctx bounds it.
func (d *Dialer) dial(ctx context.Context, t Target) (carrier, error) {
	c, err := carrier{}, error(nil)
	switch t.Scheme {
	case "tls":
		c, err = d.dialTLS(ctx, t)
	case "wss", "ws":
		c, err = d.dialWeb(ctx, t)
	default:
		err = errors.New("no such kind of stream")
	}
	if err != nil {
		return carrier{}, fmt.Errorf("open a stream to %v: %w", t, err)
	}
	return c, nil
}

// dialTLS is the bare form (spec/72-streams.md#tls).
func (d *Dialer) dialTLS(ctx context.Context, t Target) (carrier, error) {
	raw, err := d.reach(ctx, t)
	if err != nil {
		return carrier{}, err
	}
	conn, err := d.secure(ctx, raw, t)
	if err != nil {
		return carrier{}, err
	}
	c := carrier{conn, raw}
	if err := d.prove(ctx, conn); err != nil {
		c.close()
		return carrier{}, err
	}
	return c, nil
}

// prove shows the key to the server, and wants to see that it knows it (spec/72-streams.md#proof).
func (d *Dialer) prove(ctx context.Context, conn *tls.Conn) error {
	bound, err := binding(conn.ConnectionState())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	defer interrupt(ctx, conn)()
	mine := d.Key.greeting(bound)
	if _, err := conn.Write(mine[:]); err != nil {
		return fmt.Errorf("prove the key: %w", err)
	}
	return expect(conn, d.Key.serverProof(bound))
}

// expect reads the server's proof.
func expect(r io.Reader, want [proofSize]byte) error {
	var got [proofSize]byte
	if _, err := io.ReadFull(r, got[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrNotOurs
	} else if err != nil {
		return fmt.Errorf("wait for the server's proof: %w", err)
	}
	if !hmac.Equal(got[:], want[:]) {
		return ErrNotOurs
	}
	return nil
}

// interrupt makes reads and writes of conn fail when ctx ends. The function that it returns takes that back.
func interrupt(ctx context.Context, conn net.Conn) (stop func()) {
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(over)
		conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // ctx is over
	})
	return func() {
		if !cancel() {
			<-over
		}
		if ctx.Err() == nil {
			conn.SetDeadline(time.Time{}) //nolint:errcheck // no deadline was set before
		}
	}
}

// secure makes TLS of raw, which it takes.
func (d *Dialer) secure(ctx context.Context, raw net.Conn, t Target) (*tls.Conn, error) {
	conn := tls.Client(raw, d.tlsConfig(t))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return conn, nil
}

func (d *Dialer) tlsConfig(t Target) *tls.Config {
	name := d.ServerName
	if name == "" {
		name = t.name() // not sent if it is an address
	}
	_, err := netip.ParseAddr(t.name())
	verify := d.Verify
	if verify == nil && (t.Scheme == "tls" || err == nil) {
		verify = AnyCertificate
	}
	cfg := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, RootCAs: d.Roots,
		DynamicRecordSizingDisabled: true, InsecureSkipVerify: verify != nil, VerifyConnection: verify}
	if t.Scheme == "tls" {
		cfg.MinVersion = tls.VersionTLS13
	}
	return cfg
}

// dialWeb is the form for reverse proxies (spec/72-streams.md#websocket).
func (d *Dialer) dialWeb(ctx context.Context, t Target) (carrier, error) {
	raw, err := d.reach(ctx, t)
	if err != nil {
		return carrier{}, err
	}
	conn := raw
	if t.Scheme == "wss" {
		if conn, err = d.secure(ctx, raw, t); err != nil {
			return carrier{}, err
		}
	}
	ws, token, err := d.upgrade(ctx, conn, t)
	if err != nil {
		raw.Close()
		return carrier{}, err
	}
	c := carrier{webConn{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws}, raw}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = expect(c, d.Key.webProof(token))
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		c.close()
		return carrier{}, err
	}
	return c, nil
}

// upgrade asks for a WebSocket on conn.
func (d *Dialer) upgrade(ctx context.Context, conn net.Conn, t Target) (*websocket.Conn, [tokenSize]byte, error) {
	ready := make(chan net.Conn, 1)
	ready <- conn
	use := func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-ready:
			return c, nil
		default:
			return nil, errors.New("the server closed the connection")
		}
	}
	transport := &http.Transport{DialContext: use, DialTLSContext: use, MaxResponseHeaderBytes: maxHead, DisableCompression: true}
	defer transport.CloseIdleConnections()
	text := d.Key.token(time.Now())
	token, _ := parseToken(text)
	ws, resp, err := websocket.Dial(ctx, t.Scheme+"://"+t.Host+t.Path+"/"+text, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader: http.Header{"User-Agent": {userAgent}},
		Host:       strings.TrimSuffix(t.Host, map[string]string{"wss": ":443", "ws": ":80"}[t.Scheme]),
	})
	if err != nil && resp != nil {
		return nil, token, fmt.Errorf("%w: it says %s", ErrNotOurs, resp.Status)
	}
	if err != nil {
		return nil, token, fmt.Errorf("ask for a WebSocket: %w", hideToken(err))
	}
	return ws, token, nil
}

// hideToken takes the URL out of err.
func hideToken(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// webConn is a WebSocket as a stream of bytes.
type webConn struct {
	net.Conn
	ws *websocket.Conn
}

// Close closes the connection without the WebSocket's farewell, which would wait for the other end.
func (c webConn) Close() error { return c.ws.CloseNow() }

// reach opens a TCP connection to t, through a proxy if there is one for it.
func (d *Dialer) reach(ctx context.Context, t Target) (net.Conn, error) {
	var proxy *url.URL
	if d.Proxy != nil {
		proxy = d.Proxy(t)
	}
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{Control: d.Control, KeepAliveConfig: keepAlive}).DialContext
	}
	if proxy == nil {
		conn, err := dial(ctx, "tcp", t.Host)
		if err != nil {
			return nil, err
		}
		if to, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && d.Refuse != nil && d.Refuse(to.Addr()) {
			conn.Close()
			return nil, fmt.Errorf("%v is not an address of another machine", to.Addr())
		}
		tune(conn)
		return conn, nil
	}
	conn, err := d.through(ctx, dial, proxy, t.Host)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Host, err)
	}
	return conn, nil
}

// keepAlive finds TCP connections whose other end is gone without a word, at a few packets an hour.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 15 * time.Second, Count: 4}
