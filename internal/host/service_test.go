package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSystemd notes the commands it is given.
type fakeSystemd struct {
	systemd
	said   []string
	fail   string // the command that fails
	answer string // of journalctl
}

func newFakeSystemd(t *testing.T) *fakeSystemd {
	f := &fakeSystemd{}
	f.dir, f.packaged = t.TempDir(), []string{t.TempDir()}
	f.run = func(name string, args ...string) ([]byte, error) {
		if name == "journalctl" {
			return []byte(f.answer), nil
		}
		f.said = append(f.said, strings.Join(args, " "))
		if args[0] == f.fail {
			return []byte("Job failed.\n"), errors.New("exit status 1")
		}
		return nil, nil
	}
	return f
}

func (f *fakeSystemd) expect(t *testing.T, what string, err error, commands ...string) {
	t.Helper()
	if got := strings.Join(f.said, "; "); err != nil || got != strings.Join(commands, "; ") {
		t.Errorf("%s: %q, %v", what, got, err)
	}
	f.said = nil
}

func TestService(t *testing.T) {
	f := newFakeSystemd(t)
	const enable = "enable --quiet warren.service"
	f.expect(t, "install", f.install("/usr/bin/warren", defaultState), "daemon-reload", enable)
	f.expect(t, "again", f.install("/usr/bin/warren", defaultState), enable)
	f.expect(t, "moved binary", f.install("/usr/local/bin/warren", defaultState), "daemon-reload", enable)
	f.expect(t, "start", f.start(), "start warren.service")
	f.expect(t, "stop", f.stop(), "stop warren.service")
	unit, err := os.ReadFile(f.path())
	if err != nil || !strings.Contains(string(unit), "ExecStart=\"/usr/local/bin/warren\" daemon\n") {
		t.Errorf("unit %s, %v", unit, err)
	}
	if err := f.install("/usr/bin/warren", "/srv/other"); err == nil || !strings.Contains(err.Error(), "another state directory") {
		t.Errorf("second state directory: %v", err)
	}
	f.said = nil
	f.expect(t, "remove", f.remove(), "disable --quiet --now warren.service", "daemon-reload")
	f.expect(t, "remove nothing", f.remove())
	if left, err := filepath.Glob(f.dir + "/*"); err != nil || len(left) != 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}

func TestServiceOfOthersIsLeftAlone(t *testing.T) {
	f := newFakeSystemd(t)
	packaged := filepath.Join(f.packaged[0], unitName)
	if err := os.WriteFile(packaged, []byte("[Unit]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "packaged", f.install("/usr/bin/warren", defaultState), "enable --quiet warren.service")
	if _, err := os.Stat(f.path()); err == nil {
		t.Error("the packaged unit was shadowed")
	}
	if err := os.WriteFile(f.path(), []byte("[Unit]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "by hand", f.install("/usr/bin/warren", defaultState), "enable --quiet warren.service")
	if err := f.remove(); err == nil || !strings.Contains(err.Error(), "not written by warren") {
		t.Errorf("removed: %v", err)
	}
	if b, err := os.ReadFile(f.path()); err != nil || string(b) != "[Unit]\n" {
		t.Errorf("the administrator's unit is %q now, %v", b, err)
	}
}

func TestServiceThatFailsToStartSaysWhy(t *testing.T) {
	f := newFakeSystemd(t)
	f.fail, f.answer = "start", "the port is taken\n"
	if err := f.start(); err == nil || !strings.Contains(err.Error(), "Job failed.") || !strings.HasSuffix(err.Error(), "the port is taken") {
		t.Errorf("got %v", err)
	}
	f.answer = ""
	if err := f.start(); err == nil || strings.Contains(err.Error(), "last words") {
		t.Errorf("got %v", err)
	}
}

func TestUnit(t *testing.T) {
	tests := []struct {
		name, binary, state string
		has                 []string
	}{
		{"plain", "/usr/bin/warren", "/var/lib/warren", []string{"StateDirectory=warren\n", "ProtectHome=yes", "PrivateTmp=yes", "Environment=\"WARREN_STATE=/var/lib/warren\"", "Type=notify", "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE"}},
		{"from a home", "/home/ann/warren", "/var/lib/warren/", []string{"ProtectHome=read-only", "StateDirectory=warren\n"}},
		{"from tmp", "/tmp/warren", "/srv/w", []string{"PrivateTmp=no", "ReadWritePaths=\"/srv/w\""}},
		{"odd names", "/opt/a b/100%/$x\"\\", "/srv/100%", []string{`ExecStart="/opt/a b/100%%/$$x\"\\" daemon`, `ReadWritePaths="/srv/100%%"`}},
	}
	for _, tt := range tests {
		unit, err := unitText(tt.binary, tt.state)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, h := range tt.has {
			if !strings.Contains(unit, h) {
				t.Errorf("%s: no %s in\n%s", tt.name, h, unit)
			}
		}
	}
	for _, bad := range []string{"warren", "", "/a\nExecStart=/bin/sh"} {
		if _, err := unitText(bad, "/s"); err == nil {
			t.Errorf("binary %q", bad)
		}
		if _, err := unitText("/b", bad); err == nil {
			t.Errorf("state %q", bad)
		}
	}
}
