package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is how long ago some fixed moment was, the sleep of the machine included.
func Uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return wallUptime()
	}
	return time.Duration(t.Nano())
}
