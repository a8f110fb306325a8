//go:build !linux

package host

import (
	"fmt"
	"net/netip"
	"runtime"
)

// SetBroadcast cannot be done here yet: the error is an [ErrUnsupported]. Multicast works as far as the system lets it, and a
// program can reach everybody by the group of all hosts.
func SetBroadcast(iface string, _ netip.Addr) error {
	return fmt.Errorf("warren cannot set the broadcast address of %s on %s yet: %w", iface, runtime.GOOS, ErrUnsupported)
}
