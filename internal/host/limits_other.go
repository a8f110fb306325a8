//go:build !linux

package host

import (
	"fmt"
	"runtime"
)

// Limits says what this system cannot do yet, one sentence each, for the log at start and for status.
func Limits() []string {
	out := []string{
		fmt.Sprintf("%s is built for but not tested: Linux is the system that warren is tested on", runtime.GOOS),
		"packets move one at a time here, without the kernel's offloads: expect less speed than on Linux",
	}
	switch runtime.GOOS {
	case "windows":
		out = append(out, "the daemon does not start in the background here: keep `warren daemon` running",
			"callers of the local API are not told apart here: any user of this machine who can reach its socket can change things")
	case "openbsd", "android":
		out = append(out, "addresses and routes are not set here: set those of the tunnel by hand")
	}
	return out
}
