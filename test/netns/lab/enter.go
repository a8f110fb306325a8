//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// enter replaces this process by a command inside a host: its network namespace, its own host name, its own view of /sys, and
// no systemd in sight (a service manager would start daemons outside of the lab).
// Arguments: namespace, host name, command and its arguments.
func enter(args []string) error {
	runtime.LockOSThread() // what follows is of this thread, and exec keeps this thread
	ns, err := os.Open(filepath.Join(netnsAt, args[0]))
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", args[0], err)
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte(args[1])); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A container may forbid a new sysfs; few programs look there.
	if unix.Unmount("/sys", unix.MNT_DETACH) == nil {
		unix.Mount(args[1], "/sys", "sysfs", 0, "") //nolint:errcheck // see above
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if err := unix.Mount("none", "/run/systemd", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("hide systemd: %w", err)
		}
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, args[2:], os.Environ()))
}
