package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/host"
)

// startTimeout is how long a daemon may take until it answers.
const startTimeout = 15 * time.Second

// logName is the log of a daemon that runs in the background, in its state directory.
const logName = "daemon.log"

// ensureDaemon starts the daemon when none runs.
func (c *cli) ensureDaemon(ctx context.Context) error {
	_, err := c.client().Status(ctx)
	if !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	note, err := c.startDaemon(ctx, c.state)
	if err != nil {
		if _, again := c.client().Status(ctx); again == nil {
			return nil // somebody else started it meanwhile
		}
		return err
	}
	if err := c.awaitDaemon(ctx); err != nil {
		return err
	}
	c.note("%s", note)
	return nil
}

// awaitDaemon waits until the daemon answers.
func (c *cli) awaitDaemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("timeout"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.client().Status(ctx)
		if !errors.Is(err, api.ErrNotRunning) && ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return api.Errorf(api.CodeNotRunning, "the daemon was started but does not answer after %s", humanDuration(startTimeout)).
				Hintf("see its log: %s", logHint(c.state))
		}
	}
}

// logHint says where the log of the daemon is.
func logHint(stateDir string) string {
	if usesService(stateDir) {
		return "journalctl -u warren"
	}
	return filepath.Join(stateDir, logName)
}

// usesService says whether the daemon is a systemd service: only the one of the default directory is.
func usesService(stateDir string) bool { return stateDir == defaultState && host.SystemdRunning() }

// startDaemon starts the daemon of stateDir as a service or in the background, and says how it did.
func startDaemon(_ context.Context, stateDir string) (string, error) {
	if !host.IsRoot() && stateDir == defaultState {
		return "", api.Errorf(api.CodeDenied, "the daemon is not running, and only root can start it").
			Hintf("run the same command with sudo")
	}
	binary, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	if usesService(stateDir) {
		if err := host.InstallService(binary, stateDir); err != nil {
			return "", fmt.Errorf("install the systemd service: %w", err)
		}
		if err := host.StartService(); err != nil {
			return "", fmt.Errorf("start the systemd service: %w", err)
		}
		return "The daemon runs as the systemd service warren, now and after each boot.", nil
	}
	if err := makeStateDir(stateDir); err != nil {
		return "", err
	}
	log := filepath.Join(stateDir, logName)
	pid, err := host.StartBackground(binary, []string{"daemon", "--state", stateDir}, log, startTimeout)
	if err != nil {
		message, hint, _ := strings.Cut(err.Error(), hintMark)
		if hint == "" {
			hint = "its log is " + log
		}
		return "", api.Errorf(api.CodeInternal, "the daemon did not start: %s", message).Hintf("%s", hint)
	}
	return fmt.Sprintf("The daemon runs in the background (process %d, log %s).", pid, log), nil
}

// hintMark stands between message and hint in what a daemon says to the process that started it.
const hintMark = "\nhint: "

// notStarted tells whoever started this daemon why it failed; once it has run nobody waits for that any more.
func notStarted(err error) {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		err = errors.New(e.Message + hintMark + e.Hint)
	}
	host.NotifyFailed(err)
}

// makeStateDir makes the directory as package state does, for the log is opened before the daemon runs.
func makeStateDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o755)
	if err == nil {
		if err = os.Mkdir(dir, 0o711); err == nil {
			err = os.Chmod(dir, 0o711) // whatever the umask
		}
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.CodeDenied, "the state directory %s cannot be made: permission denied", dir).
			Hintf("run the same command with sudo, or choose another --state DIR")
	}
	return fmt.Errorf("make the state directory: %w", err)
}

// daemonReady tells whoever started this daemon that it answers.
func daemonReady() { host.NotifyReady() }
