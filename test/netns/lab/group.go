//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Answerer is a program that waits at a UDP port for calls to many, as a game's server or an mDNS responder does, and answers
// each to its caller.
type Answerer struct {
	host *Host
	run  *Process
}

// StartAnswerer starts an Answerer at a port of all the host's addresses; dev is the interface by which it joins the groups.
// All groups must be of the same family; without a group it is IPv4.
func (h *Host) StartAnswerer(dev string, port uint16, groups ...netip.Addr) *Answerer {
	t := h.lab.t
	t.Helper()
	args := []string{"/proc/self/exe", "lab:answer", h.Name, dev, strconv.Itoa(int(port))}
	for _, g := range groups {
		args = append(args, g.String())
	}
	a := &Answerer{h, h.Start(args...)}
	Eventually(t, 5*time.Second, func() error {
		if a.run.Out() == "" {
			return fmt.Errorf("nobody listens on %s: %s", h.Name, a.run.Log())
		}
		return nil
	})
	return a
}

// Heard returns how often each call came.
func (a *Answerer) Heard() map[string]int {
	heard := map[string]int{}
	_, calls, _ := strings.Cut(a.run.Out(), "\n")
	for call := range strings.Lines(calls) {
		heard[strings.TrimSpace(call)]++
	}
	return heard
}

// Stop ends it; it leaves its groups.
func (a *Answerer) Stop() { a.run.Stop() }

// Call sends one datagram with the text from an address of the host to a port of a group or broadcast address, by dev, and
// waits so long for answers. It returns the names of the hosts that answered, sorted, as often as each did.
func (h *Host) Call(dev string, from netip.Addr, to netip.AddrPort, text string, wait time.Duration) (names []string) {
	t := h.lab.t
	t.Helper()
	out := h.Must("/proc/self/exe", "lab:call", dev, from.String(), to.String(), text, wait.String())
	if err := json.Unmarshal([]byte(out), &names); err != nil {
		t.Fatalf("call from %s to %s: %v: %s", h.Name, to, err, out)
	}
	return names
}

// answer is the role "lab:answer NAME DEV PORT GROUP...".
func answer(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dev, err := net.InterfaceByName(args[1])
	if err != nil {
		return err
	}
	network := "udp4"
	var groups []netip.Addr
	for _, text := range args[3:] {
		g, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		if groups = append(groups, g); g.Is6() {
			network = "udp6"
		}
	}
	listen := net.ListenConfig{Control: onSocket(func(fd int) error {
		errs := []error{unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)}
		for _, g := range groups {
			if g.Is4() {
				errs = append(errs, unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: g.As4(), Ifindex: int32(dev.Index)}))
			} else {
				errs = append(errs, unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: g.As16(), Interface: uint32(dev.Index)}))
			}
		}
		return errors.Join(errs...)
	})}
	c, err := listen.ListenPacket(ctx, network, ":"+args[2])
	if err != nil {
		return err
	}
	defer c.Close()
	context.AfterFunc(ctx, func() { c.Close() })
	fmt.Println("listening")
	b := make([]byte, 2000)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println(string(b[:n]))
		if _, err := c.WriteTo([]byte(args[0]), from); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// call is the role "lab:call DEV FROM TO TEXT WAIT".
func call(args []string) error {
	dev, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	from, err1 := netip.ParseAddr(args[1])
	to, err2 := netip.ParseAddrPort(args[2])
	wait, err3 := time.ParseDuration(args[4])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	listen := net.ListenConfig{Control: onSocket(func(fd int) error {
		if from.Is4() { // a program of a game does no more than to bind, and to allow broadcasts, which Go does by itself
			return errors.Join(unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(dev.Index)}),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255))
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, dev.Index),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255))
	})}
	conn, err := listen.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(from, 0).String())
	if err != nil {
		return err
	}
	c := conn.(*net.UDPConn)
	defer c.Close()
	if _, err := c.WriteToUDPAddrPort([]byte(args[3]), to); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	names := []string{}
	b := make([]byte, 2000)
	for {
		n, err := c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			slices.Sort(names)
			return json.NewEncoder(os.Stdout).Encode(names)
		}
		if err != nil {
			return err
		}
		names = append(names, string(b[:n]))
	}
}

// onSocket makes what net.ListenConfig calls before it binds.
func onSocket(f func(fd int) error) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
			return err
		}
		return failed
	}
}
