//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// other is a tunnel that is measured when its programs are there.
type other struct {
	system
	needs []string // commands
}

// others have the same inner MTU as all here and are otherwise as their manuals set up two hosts.
var others = []other{
	{system{"tincd", openOther("tincd", setTinc), false}, []string{"tincd"}},
	{system{"nebula", openOther("nebula", setNebula), false}, []string{"nebula", "nebula-cert"}},
	{system{"fastd", openOther("fastd", setFastd), false}, []string{"fastd"}},
}

func found(commands []string) bool {
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			return false
		}
	}
	return true
}

// openOther brings up a lane whose daemons set starts.
func openOther(name string, set func(ctx context.Context, l *lane) error) func(ctx context.Context, dir, id string) (*world, error) {
	return func(ctx context.Context, dir, id string) (*world, error) {
		l, err := newLane(ctx, dir, id)
		if l == nil {
			return nil, err
		}
		w := &world{name: name, lane: l}
		if err != nil {
			return w, err
		}
		l.inner = [2]netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")}
		if err := set(ctx, l); err != nil {
			return w, err
		}
		return w, l.reach(ctx)
	}
}

// write makes a file with its folders below the lane's.
func (l *lane) write(mode os.FileMode, name, format string, args ...any) error {
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, format, args...), mode)
}

func setTinc(ctx context.Context, l *lane) error {
	names := []string{"a", "b"}
	for i, n := range names {
		err := l.write(0o600, n+"/tinc.conf", "Name = %s\nAddressFamily = ipv4\nInterface = tinc0\nConnectTo = %s\n", n, names[1-i])
		if err != nil {
			return err
		}
		err = l.write(0o700, n+"/tinc-up", "#!/bin/sh\nip link set tinc0 up mtu %d\nip addr add %s/24 dev tinc0\n", fullMTU, l.inner[i])
		if err != nil {
			return err
		}
		if err := l.write(0o600, n+"/hosts/"+n, "Address = %s\nSubnet = %s/32\n", outer[i], l.inner[i]); err != nil {
			return err
		}
		if _, err := l.run(ctx, i, "tincd", "-c", filepath.Join(l.dir, n), "-K2048"); err != nil {
			return err
		}
	}
	for i, n := range names {
		host, err := os.ReadFile(filepath.Join(l.dir, n, "hosts", n))
		if err != nil {
			return err
		}
		if err := l.write(0o600, filepath.Join(names[1-i], "hosts", n), "%s", host); err != nil {
			return err
		}
	}
	for i, n := range names {
		dir := filepath.Join(l.dir, n)
		if _, err := l.daemon(i, "tincd", nil, "", "tincd", "-c", dir, "-D", "--pidfile", filepath.Join(dir, "pid")); err != nil {
			return err
		}
	}
	return nil
}

func setNebula(ctx context.Context, l *lane) error {
	if _, err := l.run(ctx, 0, "nebula-cert", "ca", "-name", "bench"); err != nil {
		return err
	}
	for i, n := range []string{"a", "b"} {
		if _, err := l.run(ctx, 0, "nebula-cert", "sign", "-name", n, "-ip", l.inner[i].String()+"/24"); err != nil {
			return err
		}
		err := l.write(0o600, n+".yml", `pki: {ca: ca.crt, cert: %[1]s.crt, key: %[1]s.key}
static_host_map: {"%[2]s": ["%[3]s:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242}
tun: {dev: nebula0, mtu: %[4]d}
cipher: aes
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, n, l.inner[1-i], outer[1-i], fullMTU)
		if err != nil {
			return err
		}
		if _, err := l.daemon(i, "nebula", nil, "", "nebula", "-config", n+".yml"); err != nil {
			return err
		}
	}
	return nil
}

func setFastd(ctx context.Context, l *lane) error {
	var secret, public [2]string
	for i := range l.ns {
		out, err := l.run(ctx, i, "fastd", "--generate-key")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.Contains(k, "Secret") {
				secret[i] = strings.TrimSpace(v)
			} else if ok {
				public[i] = strings.TrimSpace(v)
			}
		}
	}
	for i, n := range []string{"a", "b"} {
		err := l.write(0o600, n+".conf", `mode tun;
interface "fastd0";
method "salsa2012+umac";
bind any:10000;
mtu %d;
secret "%s";
on up "ip link set fastd0 up; ip addr add %s/24 dev fastd0";
peer "other" { key "%s"; remote ipv4 %s:10000; }
`, fullMTU, secret[i], l.inner[i], public[1-i], outer[1-i])
		if err != nil {
			return err
		}
		if _, err := l.daemon(i, "fastd", nil, "", "fastd", "--config", n+".conf"); err != nil {
			return err
		}
	}
	return nil
}
