package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On a real terminal: the view comes, follows SIGTERM and Ctrl-C, and the terminal is as it was before.
func TestTopOnTerminal(t *testing.T) {
	dir := t.TempDir()
	(&person{}).run(t, t.Context(), dir, "join", testCode(0, testNow.Add(time.Hour), false))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(master *os.File, p *os.Process) error{
		"Ctrl-C": func(master *os.File, _ *os.Process) error { _, err := master.Write([]byte{3}); return err },
		"signal": func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			master, tty := openTerminal(t)
			before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, "top", "-i", "10ms", "--state", dir)
			cmd.Args[0] = "warren" // the test binary is warren when it is called so: see TestMain
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var shown strings.Builder
			for buf := make([]byte, 4096); !strings.Contains(shown.String(), "phone"); {
				n, err := master.Read(buf)
				if err != nil {
					t.Fatalf("%v after %q", err, shown.String())
				}
				shown.Write(buf[:n])
			}
			if during, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || *during == *before {
				t.Errorf("keys were not raw while it ran: %v", err)
			}
			if err := end(master, cmd.Process); err != nil {
				t.Fatal(err)
			}
			for buf := make([]byte, 4096); !strings.Contains(shown.String(), leaveScreen); {
				n, err := master.Read(buf)
				if err != nil {
					t.Fatalf("%v after %q", err, shown.String())
				}
				shown.Write(buf[:n])
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			if after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || *after != *before {
				t.Errorf("the terminal is not as it was: %v", err)
			}
		})
	}
}

// openTerminal makes a pair of pseudo terminals of 100 x 30, closed with the test.
func openTerminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return master, tty
}
