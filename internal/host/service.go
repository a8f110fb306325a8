package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	unitName = "warren.service"
	// unitMark begins the units that we wrote: others are not replaced and not removed.
	unitMark = "# Written by warren; `warren` may replace it. Put changes into `systemctl edit warren`.\n"
)

// SystemdRunning reports whether systemd manages this machine.
func SystemdRunning() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// InstallService makes binary with stateDir (both absolute) a systemd service that starts at every boot; it does not
// start it now: see [StartService]. It changes nothing when that is so already, and is an error when the service is
// there for another state directory. A unit that a package or the administrator wrote is used as it is.
func InstallService(binary, stateDir string) error { return realSystemd().install(binary, stateDir) }

// StartService starts the service and waits until the daemon has said that it is ready. When it fails the error has
// the last lines of its log.
func StartService() error { return realSystemd().start() }

// StopService stops the service and waits until it is gone. It starts again at the next boot.
func StopService() error { return realSystemd().stop() }

// RemoveService stops the service and takes it away; without one it does nothing.
func RemoveService() error { return realSystemd().remove() }

// systemd is the service manager; tests put a directory and a record of commands in its place.
type systemd struct {
	dir      string   // where our unit goes
	packaged []string // where packages put theirs
	run      func(name string, args ...string) ([]byte, error)
}

func realSystemd() systemd {
	return systemd{
		dir:      "/etc/systemd/system",
		packaged: []string{"/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system"},
		run:      func(name string, args ...string) ([]byte, error) { return exec.Command(name, args...).CombinedOutput() },
	}
}

func (s systemd) systemctl(args ...string) error {
	out, err := s.run("systemctl", args...)
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (s systemd) path() string { return filepath.Join(s.dir, unitName) }

func (s systemd) install(binary, stateDir string) error {
	changed, err := s.write(binary, stateDir)
	if err == nil && changed {
		err = s.systemctl("daemon-reload")
	}
	if err == nil {
		err = s.systemctl("enable", "--quiet", unitName)
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", unitName, err)
	}
	return nil
}

// write puts the unit into place when it is missing or ours and different.
func (s systemd) write(binary, stateDir string) (changed bool, err error) {
	unit, err := unitText(binary, stateDir)
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(s.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, dir := range s.packaged {
			if _, err := os.Stat(filepath.Join(dir, unitName)); err == nil {
				return false, nil
			}
		}
	case err != nil:
		return false, err
	case string(old) == unit || !strings.HasPrefix(string(old), unitMark):
		return false, nil
	default:
		if line := stateLine(stateDir); !strings.Contains(string(old), line) {
			return false, fmt.Errorf("the service is there for another state directory: see %s", s.path())
		}
	}
	temp := filepath.Join(s.dir, "."+unitName+".tmp") // systemd passes over names that begin with a dot
	if err := os.WriteFile(temp, []byte(unit), 0o644); err != nil {
		return false, err
	}
	if err := os.Rename(temp, s.path()); err != nil {
		return false, errors.Join(err, os.Remove(temp))
	}
	return true, nil
}

func (s systemd) start() error {
	err := s.systemctl("start", unitName)
	if err == nil {
		return nil
	}
	said, logErr := s.run("journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=5", "_SYSTEMD_UNIT="+unitName)
	if said = bytes.TrimSpace(said); logErr == nil && len(said) > 0 {
		return fmt.Errorf("start %s: %w; its last words:\n%s", unitName, err, said)
	}
	return fmt.Errorf("start %s: %w", unitName, err)
}

func (s systemd) stop() error {
	if err := s.systemctl("stop", unitName); err != nil {
		return fmt.Errorf("stop %s: %w", unitName, err)
	}
	return nil
}

func (s systemd) remove() error {
	old, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !strings.HasPrefix(string(old), unitMark) {
		err = fmt.Errorf("%s was not written by warren", s.path())
	}
	if err == nil {
		err = s.systemctl("disable", "--quiet", "--now", unitName)
	}
	if err == nil {
		err = os.Remove(s.path())
	}
	if err == nil {
		err = s.systemctl("daemon-reload")
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", unitName, err)
	}
	return nil
}

// defaultState is the directory that systemd makes for us.
const defaultState = "/var/lib/warren"

// stateLine tells units for different directories apart.
func stateLine(stateDir string) string {
	return "Environment=" + quoteUnit("WARREN_STATE="+stateDir) + "\n"
}

// unitText writes the unit. The daemon keeps root's uid, so that it owns its files, and of root's powers the network's.
func unitText(binary, stateDir string) (string, error) {
	for _, p := range []string{binary, stateDir} {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "\n\r\x00") {
			return "", fmt.Errorf("%q is not an absolute path that a unit file can hold", p)
		}
	}
	state := "StateDirectory=warren\nStateDirectoryMode=0711\n"
	if filepath.Clean(stateDir) != defaultState {
		state = "ReadWritePaths=" + quoteUnit(stateDir) + "\n"
	}
	// Hidden directories would hide the binary or the state in them.
	home, tmp := "yes", "yes"
	for _, p := range []string{binary, stateDir} {
		p = filepath.Clean(p) + "/"
		for _, top := range []string{"/home/", "/root/", "/run/user/"} {
			if strings.HasPrefix(p, top) {
				home = "read-only"
			}
		}
		if strings.HasPrefix(p, "/tmp/") || strings.HasPrefix(p, "/var/tmp/") {
			tmp = "no"
		}
	}
	return unitMark + `[Unit]
Description=Warren peer-to-peer VPN
Documentation=https://github.com/warren-vpn/warren
After=network.target nss-lookup.target
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
ExecStart=` + quoteUnit(strings.ReplaceAll(binary, "$", "$$")) + ` daemon
` + stateLine(stateDir) + `Restart=on-failure
RestartSec=2
TimeoutStopSec=15
UMask=0077
` + state + `
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_CHOWN
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
ProtectHome=` + home + `
PrivateTmp=` + tmp + `
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`, nil
}

// quoteUnit writes one word of a unit file.
func quoteUnit(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(s) + `"`
}
