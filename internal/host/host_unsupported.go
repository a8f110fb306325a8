//go:build !linux && !windows && !darwin && !freebsd

package host

import (
	"fmt"
	"net/netip"
	"runtime"
)

// Configure cannot be done here yet: the error is an [ErrUnsupported].
func Configure(iface string, _ []netip.Prefix, _ int) error {
	return fmt.Errorf("warren cannot set addresses on %s yet: set those of %s with ifconfig: %w", runtime.GOOS, iface, ErrUnsupported)
}

// SyncRoutes cannot be done here yet: the error is an [ErrUnsupported].
func SyncRoutes(iface string, _ []netip.Prefix) error {
	return fmt.Errorf("warren cannot set routes on %s yet: set those of %s with route: %w", runtime.GOOS, iface, ErrUnsupported)
}

func readRoutes() ([]hostRoute, error) { return nil, ErrUnsupported }
