package api

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A real stranger, told apart by the kernel: spec/60-api.md#access. Needs root, to be someone else for one connect.
func TestAccessOfRealStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can try another user")
	}
	_, dir := start(t, &fakeBackend{}, nil)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	c := &Client{socket: SocketPath(dir), http: &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return connectAs(65534, SocketPath(dir)) },
		DisableKeepAlives: true,
	}}}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("a stranger may read: %v", err)
	}
	if _, err := c.Invite(t.Context(), InviteRequest{Uses: 1, Expires: 60}); CodeOf(err) != CodeDenied {
		t.Errorf("a stranger asked for a code: %v", err)
	}
}

// connectAs connects from a thread that has become uid and ends with it.
func connectAs(uid int, path string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	out := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			out <- result{nil, e}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			out <- result{nil, err}
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		c, err := net.FileConn(f)
		out <- result{c, err}
	}()
	r := <-out
	return r.c, r.err
}
