//go:build !linux

package host

// OnBattery reports whether this machine runs on a battery now. It is known on Linux only.
func OnBattery() bool { return false }
