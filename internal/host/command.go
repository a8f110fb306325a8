//go:build darwin || freebsd || windows

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// run runs one command of the system; the error carries what it said.
func run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// command is one step of a change: what it does, for the error, and the words.
type command struct {
	what string
	argv []string
}

// runAll runs all commands, whatever becomes of the others.
func runAll(commands []command) error {
	var errs []error
	for _, c := range commands {
		if err := run(c.argv[0], c.argv[1:]...); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.what, err))
		}
	}
	return errors.Join(errs...)
}

// interfacePrefixes lists the addresses of iface, without link-local ones.
func interfacePrefixes(iface string) ([]netip.Prefix, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	list, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p)
		}
	}
	return out, nil
}
