//go:build unix

package host

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const actEnv = "WARREN_HOST_TEST_ACT"

// TestDaemon is not a test: it is the daemon that the tests below start.
func TestDaemon(t *testing.T) {
	act := os.Getenv(actEnv)
	switch act {
	case "":
		t.Skip("the helper process of the other tests")
	case "ready":
		fmt.Println("daemon log line")
		if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
			NotifyFailed(errors.New("not in a session of its own"))
		}
		if n, err := os.Stdin.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			NotifyFailed(errors.New("something is on the standard input"))
		}
		if dir, err := os.Getwd(); err != nil || dir != "/" {
			NotifyFailed(fmt.Errorf("working directory %s, %w", dir, err))
		}
		NotifyReady()
		NotifyFailed(errors.New("too late to matter"))
		if os.Getenv(readyEnv) != "" {
			os.Exit(9)
		}
		select {} // until it is killed
	case "failed":
		NotifyFailed(errors.New("the port is taken"))
	case "dies":
		fmt.Fprintln(os.Stderr, "one line", "\nthe reason")
	case "hangs":
		fmt.Println("still looking for my keys")
		select {}
	}
	os.Exit(3)
}

func startDaemon(t *testing.T, act, log string, ready time.Duration) (int, error) {
	t.Helper()
	t.Setenv(actEnv, act)
	return StartBackground(os.Args[0], []string{"-test.run=^TestDaemon$"}, log, ready)
}

func TestStartBackground(t *testing.T) {
	log := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(log, []byte("from before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", "/nonexistent") // of another: not for the daemon
	pid, err := startDaemon(t, "ready", log, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("it does not run: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.HasPrefix(string(text), "from before\ndaemon log line\n") {
		t.Errorf("log %q, %v", text, err)
	}
}

func TestStartBackgroundFails(t *testing.T) {
	tests := []struct {
		act   string
		ready time.Duration
		want  []string
	}{
		{"failed", 30 * time.Second, []string{"the port is taken"}},
		{"dies", 30 * time.Second, []string{"exit status 3", "last words", "the reason"}},
		{"hangs", 3 * time.Second, []string{"not ready after 3s", "still looking for my keys"}},
	}
	for _, tt := range tests {
		t.Run(tt.act, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "daemon.log")
			pid, err := startDaemon(t, tt.act, log, tt.ready)
			if err == nil || pid != 0 {
				t.Fatalf("pid %d, %v", pid, err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			info, err := os.Stat(log)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("log %v, %v", info, err)
			}
		})
	}
	if _, err := StartBackground("/nonexistent/warren", nil, filepath.Join(t.TempDir(), "log"), time.Second); err == nil || !strings.Contains(err.Error(), "/nonexistent/warren") {
		t.Errorf("no such program: %v", err)
	}
	if _, err := StartBackground(os.Args[0], nil, filepath.Join(t.TempDir(), "no", "log"), time.Second); err == nil {
		t.Error("no such directory for the log")
	}
}

func TestLargeLogIsSetAside(t *testing.T) {
	log := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(log, make([]byte, maxLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := startDaemon(t, "failed", log, 30*time.Second); err == nil {
		t.Fatal("it should have failed")
	}
	now, err := os.Stat(log)
	if err != nil || now.Size() > 100 {
		t.Errorf("new log %v, %v", now, err)
	}
	if old, err := os.Stat(log + ".1"); err != nil || old.Size() != maxLog+1 {
		t.Errorf("old log %v, %v", old, err)
	}
}

func TestNotifySystemd(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "s"), "@warren-host-test-" + strconv.Itoa(os.Getpid())} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			if path[0] == '@' {
				continue // only Linux has abstract names
			}
			t.Fatal(err)
		}
		defer c.Close()
		said := func() string {
			b := make([]byte, 200)
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			return string(b[:n])
		}
		t.Setenv("NOTIFY_SOCKET", path)
		NotifyReady()
		if got := said(); got != "READY=1\nSTATUS=ready" {
			t.Errorf("said %q", got)
		}
		t.Setenv("NOTIFY_SOCKET", path)
		NotifyFailed(errors.New("one\ntwo"))
		if got := said(); got != "STATUS=one; two" {
			t.Errorf("said %q", got)
		}
		NotifyReady() // told already
	}
}
