//go:build linux

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Ports of a [Host.StartReflector].
const (
	reflectPort = 7000 // UDP; and the one after it
	tcpPort     = 7080
	httpsPort   = 443
)

// probeWait is how long a probe waits for what may never come.
const probeWait = 300 * time.Millisecond

// startServer starts a role of this binary and waits until it says that it listens.
func (h *Host) startServer(role string, args ...string) *Process {
	t := h.lab.t
	t.Helper()
	p := h.Start(append([]string{"/proc/self/exe", role}, args...)...)
	Eventually(t, 5*time.Second, func() error {
		if p.Out() == "" {
			return fmt.Errorf("%s does not listen on %s: %s", role, h.Name, p.Log())
		}
		return nil
	})
	return p
}

// StartReflector starts a server on a public host that tells who asks how it looks from there, and that answers from elsewhere
// when asked to: [Host.Look] speaks with two of them.
func (h *Host) StartReflector() { h.lab.t.Helper(); h.startServer("lab:reflect") }

// Seen is what a look found out about the way to the internet.
type Seen struct {
	Mapped    []netip.AddrPort // our UDP socket as seen at two ports of the first server, and at the second; empty: no UDP passes
	OtherPort bool             // a port of the first server that we never sent to gets in
	OtherHost bool             // and so does the second server
	TCP       bool             // TCP connections pass
	TCP443    bool             // those to port 443 do
	Proxied   bool             // those do by way of the proxy
}

// Kind says what kind of NAT was seen; "no UDP" if none passed.
func (s Seen) Kind() string {
	if len(s.Mapped) < 3 {
		return "no UDP"
	}
	switch a, b, c := s.Mapped[0], s.Mapped[1], s.Mapped[2]; {
	case a != b || b != c:
		if step := b.Port() - a.Port(); step == 1 && c.Port()-b.Port() == step {
			return SymmetricPredictable.String()
		}
		return SymmetricRandom.String()
	case s.OtherHost:
		return FullCone.String()
	case s.OtherPort:
		return AddressRestricted.String()
	}
	return PortRestricted.String()
}

// Look looks from the host at two servers, each an address with a reflector, by the family of these. proxy is the URL of one, or
// empty. It does with one socket what programs that find out about their NAT do, and takes a few seconds at most.
func (h *Host) Look(first, second netip.Addr, proxy string) (s Seen) {
	t := h.lab.t
	t.Helper()
	if err := json.Unmarshal([]byte(h.Must("/proc/self/exe", "lab:probe", first.String(), second.String(), proxy)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Punching is a program that sends from one port to one address, again and again.
type Punching struct{ run *Process }

// StartPunch sends a datagram every 50 ms from a port of the host to an address until a datagram comes from anywhere, and then to
// where that came from for a second; at most so long.
func (h *Host) StartPunch(from uint16, to netip.AddrPort, limit time.Duration) Punching {
	h.lab.t.Helper()
	return Punching{h.Start("/proc/self/exe", "lab:punch", strconv.Itoa(int(from)), to.String(), limit.String())}
}

// Heard waits for the end and returns where the first datagram came from; zero: none came.
func (p Punching) Heard() (from netip.AddrPort) {
	p.run.host.lab.t.Helper()
	if code := p.run.Wait(time.Minute); code != 0 {
		p.run.host.lab.t.Fatalf("punch from %s: %s", p.run.host.Name, p.run.Log())
	}
	from, _ = netip.ParseAddrPort(strings.TrimSpace(p.run.Out())) // empty: none came
	return from
}

// reflect is the role "lab:reflect". A datagram "see" is answered by what its source looks like; "port ADDRESS" from the other
// port; "host ADDRESS SERVER" by the server, which is told "to ADDRESS".
func reflect([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var closers []io.Closer
	var socks []*net.UDPConn
	for port := range 2 {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: reflectPort + port})
		if err != nil {
			return err
		}
		socks, closers = append(socks, c), append(closers, c)
	}
	var listeners []net.Listener
	for _, port := range []int{tcpPort, httpsPort} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		listeners, closers = append(listeners, l), append(closers, l)
	}
	var run sync.WaitGroup
	for i := range socks {
		run.Go(func() { reflectUDP(socks[i], socks[1-i]) }) // ends with its socket
	}
	for _, l := range listeners {
		run.Go(func() { // ends with its listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, c.RemoteAddr())
				c.Close()
			}
		})
	}
	fmt.Println("listening")
	<-ctx.Done()
	for _, c := range closers {
		c.Close()
	}
	run.Wait()
	return nil
}

func reflectUDP(own, other *net.UDPConn) {
	b := make([]byte, 200)
	for {
		n, from, err := own.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		words := strings.Fields(string(b[:n]))
		send := func(c *net.UDPConn, to, text string) {
			if a, err := netip.ParseAddrPort(to); err == nil {
				c.WriteToUDPAddrPort([]byte(text), a) //nolint:errcheck // what does not arrive shows
			}
		}
		switch {
		case len(words) == 1 && words[0] == "see":
			send(own, from.String(), "seen "+from.String())
		case len(words) == 2 && words[0] == "port":
			send(other, words[1], "port")
		case len(words) == 3 && words[0] == "host":
			send(own, words[2], "to "+words[1])
		case len(words) == 2 && words[0] == "to":
			send(own, words[1], "host")
		}
	}
}

// probe is the role "lab:probe FIRST SECOND PROXY".
func probe(args []string) error {
	first, err1 := netip.ParseAddr(args[0])
	second, err2 := netip.ParseAddr(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var s Seen
	for _, at := range []struct {
		ok    *bool
		port  uint16
		proxy string
	}{{&s.TCP, tcpPort, ""}, {&s.TCP443, httpsPort, ""}, {&s.Proxied, httpsPort, args[2]}} {
		if at.ok == &s.Proxied && at.proxy == "" {
			continue
		}
		*at.ok = connects(netip.AddrPortFrom(first, at.port), strings.TrimPrefix(at.proxy, "http://"))
	}
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	home := netip.AddrPortFrom(first, reflectPort)
	for _, to := range []netip.AddrPort{home, netip.AddrPortFrom(first, reflectPort+1), netip.AddrPortFrom(second, reflectPort)} {
		answer := ask(c, to, "see", "seen ")
		if mapped, err := netip.ParseAddrPort(strings.TrimPrefix(answer, "seen ")); err == nil {
			s.Mapped = append(s.Mapped, mapped)
		}
	}
	if len(s.Mapped) == 3 {
		// From a fresh socket, which has sent to one port of the first server only.
		f, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		defer f.Close()
		mapped := strings.TrimPrefix(ask(f, home, "see", "seen "), "seen ")
		s.OtherPort = ask(f, home, "port "+mapped, "port") != ""
		s.OtherHost = ask(f, home, "host "+mapped+" "+netip.AddrPortFrom(second, reflectPort).String(), "host") != ""
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// ask sends up to three times and returns the first answer that begins as wanted; "": none came.
func ask(c *net.UDPConn, to netip.AddrPort, text, want string) string {
	b := make([]byte, 200)
	for range 3 {
		if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
			return ""
		}
		c.SetReadDeadline(time.Now().Add(probeWait)) //nolint:errcheck // of an open socket it works
		for {
			n, err := c.Read(b)
			if err != nil {
				break
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return string(b[:n])
			}
		}
	}
	return ""
}

// connects reports whether a TCP connection to a reflector comes up, by the proxy if there is one.
func connects(to netip.AddrPort, proxy string) bool {
	at := to.String()
	if proxy != "" {
		at = proxy
	}
	c, err := net.DialTimeout("tcp", at, 2*probeWait)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * probeWait)) //nolint:errcheck // of an open socket it works
	r := bufio.NewReader(c)
	if proxy != "" {
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
		a, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		if err != nil || a.StatusCode != http.StatusOK {
			return false
		}
	}
	line, err := r.ReadString('\n')
	_, wrong := netip.ParseAddrPort(strings.TrimSpace(line))
	return err == nil && wrong == nil
}

// punch is the role "lab:punch PORT ADDRESS LIMIT".
func punch(args []string) error {
	port, err1 := strconv.Atoi(args[0])
	to, err2 := netip.ParseAddrPort(args[1])
	limit, err3 := time.ParseDuration(args[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 100)
	heard := false
	for end := time.Now().Add(limit); time.Now().Before(end); {
		c.WriteToUDPAddrPort([]byte("knock"), to)        //nolint:errcheck // a router may refuse for a while
		c.SetReadDeadline(time.Now().Add(probeWait / 6)) //nolint:errcheck // of an open socket it works
		if n, from, err := c.ReadFromUDPAddrPort(b); err == nil && string(b[:n]) == "knock" {
			if !heard {
				to = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) // where it answers from may be elsewhere
				heard, end = true, time.Now().Add(time.Second)            // the other side needs ours
				fmt.Println(to)
			}
			time.Sleep(probeWait / 6)
		}
	}
	return nil
}
