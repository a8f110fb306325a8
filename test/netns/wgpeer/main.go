//go:build linux

// Command wgpeer is a stock WireGuard peer for tests: wireguard-go, as its authors publish it, set up from a wg-quick
// configuration.
//
//	wgpeer INTERFACE < wg.conf
//
// It makes the interface, sets its addresses, routes and MTU with the ip command, prints "ready" and runs until SIGTERM. Of
// wg-quick it knows what a configuration for a device needs: PrivateKey, ListenPort, Address, MTU, and PublicKey,
// PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive. DNS is skipped.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wgpeer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: wgpeer INTERFACE < wg.conf")
	}
	c, err := parse(os.Stdin)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	tunnel, err := tun.CreateTUN(args[0], c.mtu)
	if err != nil {
		return fmt.Errorf("create %s: %w", args[0], err)
	}
	level := device.LogLevelError
	if os.Getenv("LOG_LEVEL") == "debug" {
		level = device.LogLevelVerbose
	}
	dev := device.NewDevice(tunnel, conn.NewDefaultBind(), device.NewLogger(level, "wgpeer: "))
	defer dev.Close()
	if err := dev.IpcSet(c.uapi.String()); err != nil {
		return fmt.Errorf("set up the device: %w", err)
	}
	if err := dev.Up(); err != nil {
		return fmt.Errorf("bring the device up: %w", err)
	}
	if err := c.configure(args[0]); err != nil {
		return err
	}
	fmt.Println("ready")
	select {
	case <-ctx.Done():
		return nil
	case <-dev.Wait():
		return errors.New("the device ended by itself")
	}
}

// settings is a configuration in the words of wireguard-go, and what wg-quick would do around it.
type settings struct {
	uapi      strings.Builder
	addresses []netip.Prefix
	routes    []netip.Prefix
	mtu       int
}

// parse reads wg-quick text.
func parse(r io.Reader) (*settings, error) {
	c, section := &settings{mtu: 1420}, ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(line)
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line without '=': %q", line)
		}
		if err := c.set(section, strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("%s %s: %w", section, strings.TrimSpace(name), err)
		}
	}
	return c, lines.Err()
}

// set takes one setting of a section, both names in lower case.
func (c *settings) set(section, name, value string) (err error) {
	switch section + name {
	case "[interface]privatekey":
		return c.key("private_key", value)
	case "[interface]listenport":
		fmt.Fprintf(&c.uapi, "listen_port=%s\n", value)
	case "[interface]address":
		c.addresses, err = prefixes(value)
	case "[interface]mtu":
		c.mtu, err = strconv.Atoi(value)
	case "[interface]dns":
	case "[peer]publickey":
		return c.key("public_key", value)
	case "[peer]presharedkey":
		return c.key("preshared_key", value)
	case "[peer]endpoint":
		addr, err := net.ResolveUDPAddr("udp", value)
		if err != nil {
			return err
		}
		fmt.Fprintf(&c.uapi, "endpoint=%s\n", addr)
	case "[peer]persistentkeepalive":
		fmt.Fprintf(&c.uapi, "persistent_keepalive_interval=%s\n", value)
	case "[peer]allowedips":
		more, err := prefixes(value)
		for _, p := range more {
			fmt.Fprintf(&c.uapi, "allowed_ip=%s\n", p)
		}
		c.routes = append(c.routes, more...)
		return err
	default:
		return errors.New("not known to wgpeer")
	}
	return err
}

// key writes a base64 key in the hexadecimal that wireguard-go wants.
func (c *settings) key(name, value string) error {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return err
	}
	fmt.Fprintf(&c.uapi, "%s=%s\n", name, hex.EncodeToString(b))
	return nil
}

// prefixes reads a list separated by commas; an address without a length stands for itself alone.
func prefixes(list string) (out []netip.Prefix, err error) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		p, err := netip.ParsePrefix(item)
		if err != nil {
			a, err := netip.ParseAddr(item)
			if err != nil {
				return nil, err
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// configure gives the interface its addresses and routes.
func (c *settings) configure(dev string) error {
	steps := [][]string{{"link", "set", dev, "up"}}
	for _, a := range c.addresses {
		steps = append(steps, []string{"addr", "replace", a.String(), "dev", dev})
	}
	for _, r := range c.routes {
		steps = append(steps, []string{"route", "replace", r.Masked().String(), "dev", dev})
	}
	for _, s := range steps {
		if out, err := exec.Command("ip", s...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(s, " "), err, out)
		}
	}
	return nil
}
