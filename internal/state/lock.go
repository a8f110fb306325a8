package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errBusy is what tryLock returns when another has the lock.
var errBusy = errors.New("locked")

// LockedError says that another process uses the state directory.
type LockedError struct {
	Dir string // absolute path
	PID int    // the process; 0 when it could not be told
}

// Error names the process and the way out.
func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("state %s is in use by %s: one daemon at a time; stop that one or choose another state directory", e.Dir, who)
}

// lockDir takes the lock of dir and writes our pid into it. The file is never removed: a lock on a removed file would
// exclude nobody.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state %s: %w", dir, err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if errors.Is(err, errBusy) {
			return nil, &LockedError{Dir: dir, PID: readPID(f)}
		}
		return nil, fmt.Errorf("lock state %s: %w", dir, err)
	}
	// The pid is for people: a full disk must not keep the daemon from starting.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// unlock clears the pid and releases the lock.
func unlock(f *os.File) error {
	_ = f.Truncate(0)
	return f.Close()
}

func readPID(f *os.File) int {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
