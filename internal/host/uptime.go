package host

import "time"

// wallUptime goes by the wall clock: setting it looks like sleep.
func wallUptime() time.Duration { return time.Duration(time.Now().UnixNano()) }
