//go:build unix

package host

import "os"

// IsRoot reports whether this process runs as root.
func IsRoot() bool { return os.Geteuid() == 0 }
