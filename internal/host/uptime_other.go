//go:build !linux

package host

import "time"

// Uptime is how long ago some fixed moment was, the sleep of the machine included. It goes by the wall clock: setting that
// looks like sleep.
func Uptime() time.Duration { return wallUptime() }
