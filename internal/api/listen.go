package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// hasPeerCreds says whether the system tells who is at the other end of a unix socket.
const hasPeerCreds = runtime.GOOS == "linux" || runtime.GOOS == "android" || runtime.GOOS == "darwin" || runtime.GOOS == "freebsd"

// maxSocketPath is the limit of a unix socket's path in bytes on every system (104 with the closing zero on the BSDs).
const maxSocketPath = 103

// SocketPath returns the path of the socket in a state directory.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, SocketName) }

// Listen makes the socket in stateDir, which the caller has locked: a socket that lies there is stale and replaced. Any
// user may connect where the system tells who calls; elsewhere the mode 0600 admits the daemon's user (and root) only
// (spec/60-api.md#socket). For others to reach it, the directory must be searchable (mode 0711). The caller closes the
// listener, or hands it to [Server.Run], which does.
func Listen(stateDir string) (net.Listener, error) {
	path := SocketPath(stateDir)
	if len(path) > maxSocketPath {
		return nil, Errorf(CodeBadRequest, "the path of the socket %s has %d bytes, %d is the limit", path, len(path), maxSocketPath).
			Hintf("use a state directory with a shorter name")
	}
	switch fi, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("look for the old socket: %w", err)
	case fi.Mode().Type() != fs.ModeSocket && runtime.GOOS != "windows":
		return nil, Errorf(CodeInternal, "%s is in the way: it is not a socket", path).Hintf("move it away")
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the stale socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the local socket: %w", err)
	}
	mode := fs.FileMode(0o600)
	if hasPeerCreds {
		mode = 0o666
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("open the local socket to callers: %w", err), l.Close())
	}
	return l, nil
}
