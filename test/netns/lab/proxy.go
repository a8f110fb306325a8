//go:build linux

package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	over "github.com/warren-vpn/warren/internal/stream"
)

// proxy is the role "lab:proxy ADDRESS": an HTTP and SOCKS5 proxy that connects to port 443.
func proxy(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	web := &given{Listener: l, conns: make(chan net.Conn)}
	server := &http.Server{Handler: http.HandlerFunc(tunnel)}
	context.AfterFunc(ctx, func() { l.Close(); server.Close() })
	var run sync.WaitGroup               // of what ends with the process
	run.Go(func() { server.Serve(web) }) //nolint:errcheck // ends with ctx
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener is closed when ctx ends
		}
		run.Go(func() { // ends with its connection
			r := bufio.NewReader(c)
			if first, err := r.Peek(1); err != nil {
				c.Close()
			} else if first[0] == socksVersion {
				socks(c, r)
			} else {
				select {
				case web.conns <- peeked{c, r}:
				case <-ctx.Done():
					c.Close()
				}
			}
		})
	}
}

// given is a listener that accepts what it is given.
type given struct {
	net.Listener
	conns chan net.Conn
}

func (g *given) Accept() (net.Conn, error) { return <-g.conns, nil }

// peeked is a connection of which r has read the beginning.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

const socksVersion = 5

// socks serves one client of SOCKS5 (RFC 1928) without authentication.
func socks(c net.Conn, r *bufio.Reader) {
	defer c.Close()
	there, err := socksConnect(c, r)
	if err != nil {
		c.Write([]byte{socksVersion, 1, 0, 1, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // it ends anyway
		return
	}
	defer there.Close()
	if _, err := c.Write([]byte{socksVersion, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err == nil {
		join(c, r, there)
	}
}

// socksConnect reads what the client wants, and connects to port 443 of it.
func socksConnect(c net.Conn, r *bufio.Reader) (net.Conn, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return nil, err
	}
	if _, err := r.Discard(int(head[1])); err != nil { // methods
		return nil, err
	}
	if _, err := c.Write([]byte{socksVersion, 0}); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := map[byte]int{1: 4, 4: 16}[head[3]]
	if head[3] == 3 {
		length, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		n = int(length)
	}
	dest := make([]byte, n+2)
	if _, err := io.ReadFull(r, dest); err != nil {
		return nil, err
	}
	host, port := string(dest[:n]), binary.BigEndian.Uint16(dest[n:])
	if a, ok := netip.AddrFromSlice(dest[:n]); ok && head[3] != 3 {
		host = a.String()
	}
	if port != httpsPort || head[1] != 1 {
		return nil, errors.New("this proxy connects to port 443 only")
	}
	return net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))), 5*time.Second)
}

// join carries bytes between two connections until one of them ends. r reads from here.
func join(here net.Conn, r io.Reader, there net.Conn) {
	var run sync.WaitGroup
	run.Go(func() { // ends when either side does
		io.Copy(there, r) //nolint:errcheck // the end of either is the end of both
		there.Close()
	})
	io.Copy(here, there) //nolint:errcheck // the end of either is the end of both
	here.Close()
	run.Wait()
}

func tunnel(w http.ResponseWriter, r *http.Request) {
	if _, port, err := net.SplitHostPort(r.Host); r.Method != http.MethodConnect || err != nil || port != strconv.Itoa(httpsPort) {
		http.Error(w, "this proxy connects to port 443 only", http.StatusForbidden)
		return
	}
	there, err := net.DialTimeout("tcp", r.Host, 5*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	join(here, buffered, there)
}

// StartReverseProxy starts a web server on port 443 of the host, which passes what is under the path on to another web server
// (https://ADDRESS:PORT), WebSockets too, and has nothing else to show.
func (h *Host) StartReverseProxy(path string, to netip.AddrPort) {
	h.lab.t.Helper()
	h.startServer("lab:reverse", path, to.String())
}

// reverse is the role "lab:reverse PATH ADDRESS": see StartReverseProxy.
func reverse(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cert, private, err := over.SelfSigned("front.example", time.Now())
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", httpsPort))
	if err != nil {
		return err
	}
	back := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: args[1]})
	back.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // as reverse proxies do inside
	back.ErrorLog = log.New(io.Discard, "", 0)
	mux := http.NewServeMux()
	mux.Handle(strings.TrimSuffix(args[0], "/")+"/", back)
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, ErrorLog: back.ErrorLog}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Println("listening")
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
