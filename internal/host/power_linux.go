package host

import (
	"os"
	"path/filepath"
	"strings"
)

// OnBattery reports whether this machine runs on a battery now: it has one that discharges. It reads sysfs; what cannot be
// read counts as no battery.
func OnBattery() bool { return onBattery("/sys/class/power_supply") }

func onBattery(root string) bool {
	supplies, _ := filepath.Glob(filepath.Join(root, "*"))
	for _, s := range supplies {
		if word(s, "type") == "Battery" && word(s, "scope") != "Device" && word(s, "status") == "Discharging" {
			return true // scope Device is that of a mouse or a headset
		}
	}
	return false
}

func word(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
