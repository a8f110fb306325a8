// Package state keeps what a node must remember in one directory that survives crashes, power cuts and full disks.
//
//	DIR/                   0711: others may pass through to the API socket, and list nothing
//	  lock                 held by the one process that uses DIR; its pid is inside
//	  warren.sock          the API socket (package api makes it)
//	  daemon.log           the log of a daemon in the background (package host makes it)
//	  daemon.json          what all networks of this machine share: [Daemon]
//	  networks/            0700
//	    join-HEX.key       the keys of a join that is not done
//	    HEX-NETWORK-ID/
//	      identity.key     the secrets: [Keys]
//	      records.log      every accepted record; only grows, until [Network.Compact]
//	      settings.json    what the user chose here: [Settings]
//	      endpoints.json   where peers were last seen: [Endpoints], a cache
//
// Every file but the log is replaced whole: written to a temporary name, synced, renamed, directory synced. The log is
// appended to, one write and one sync a call, and repaired by [Network.Load]. Names that begin with a dot are work in
// progress; [Open] removes those that a crash left.
//
// A Dir and its Networks belong to one goroutine; they are not safe for concurrent use. Calls that write wait for the
// disk (milliseconds to tens of them).
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	networksName = "networks"
	newPrefix    = ".new-" // a network being made
	deadPrefix   = ".old-" // a network being removed
	tempSuffix   = ".tmp"  // a file being replaced; the name also begins with a dot
)

// Dir is an open state directory. It is locked against other processes, and against other Dirs of this one.
type Dir struct {
	path string
	lock *os.File // nil after Close
	disk disk
}

// Open opens the state directory at path, making it when it is missing, locks it and clears what a crash left.
// When another process has it, the error is a *[LockedError].
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path) // a daemon may change its working directory
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := prepare(path); err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock, disk: realDisk()}
	if err := d.clean(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", path, err), d.Close())
	}
	return d, nil
}

// prepare makes path and its networks directory with the right modes.
func prepare(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(path, 0o711); {
	case err == nil:
		if err := os.Chmod(path, 0o711); err != nil { // whatever the umask was
			return err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrExist):
		if err := adopt(path); err != nil {
			return err
		}
	default:
		return err
	}
	networks := filepath.Join(path, networksName)
	if err := os.Mkdir(networks, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return makePrivate(networks)
}

// adopt checks a directory that was there before: nobody else may be able to put files into it.
func adopt(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("it is not a directory")
	}
	mode := info.Mode().Perm()
	if runtime.GOOS == "windows" || mode&0o022 == 0 {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == networksName })
	if len(entries) > 0 && !ours {
		return fmt.Errorf("others may write to it (mode %#o) and it holds other files: choose a directory of its own", mode)
	}
	return os.Chmod(path, mode&^0o022)
}

// clean removes what a crash left half-made.
func (d *Dir) clean() error {
	if err := removeTemps(d.path); err != nil {
		return err
	}
	networks := filepath.Join(d.path, networksName)
	entries, err := os.ReadDir(networks)
	if err != nil {
		return err
	}
	for _, e := range entries {
		full := filepath.Join(networks, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), newPrefix), strings.HasPrefix(e.Name(), deadPrefix):
			err = os.RemoveAll(full)
		case e.IsDir():
			err = removeTemps(full)
		case staleJoin(e, time.Now()):
			err = os.Remove(full)
		}
		if err != nil {
			return fmt.Errorf("clean up after a crash: %w", err)
		}
	}
	return nil
}

func removeTemps(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), tempSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("clean up after a crash: %w", err)
			}
		}
	}
	return nil
}

// Close releases the directory to other processes. Networks of d must be closed before. It is safe twice.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	lock := d.lock
	d.lock = nil
	return unlock(lock)
}

// Path returns the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// SocketPath returns where the API socket is.
func (d *Dir) SocketPath() string { return SocketPath(d.path) }

// LogPath returns where a daemon in the background writes its log.
func (d *Dir) LogPath() string { return LogPath(d.path) }

// SocketPath returns where the API socket of the state directory dir is. It needs no open Dir: clients use it.
func SocketPath(dir string) string { return filepath.Join(dir, "warren.sock") }

// LogPath returns where a daemon in the background on the state directory dir writes its log.
func LogPath(dir string) string { return filepath.Join(dir, "daemon.log") }

// Networks lists the networks in d in the order of their ids. Other entries are passed over.
func (d *Dir) Networks() ([]key.NetworkID, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, networksName))
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var ids []key.NetworkID
	for _, e := range entries {
		id, err := key.ParseNetworkID(e.Name())
		if err == nil && e.IsDir() && id.String() == e.Name() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
