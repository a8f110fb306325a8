package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOnBattery(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  bool
	}{
		{"a desktop", map[string]string{"AC/type": "Mains"}, false},
		{"a laptop unplugged", map[string]string{"AC/type": "Mains", "BAT0/type": "Battery\n", "BAT0/status": "Discharging\n"}, true},
		{"a laptop plugged in", map[string]string{"BAT0/type": "Battery", "BAT0/status": "Charging"}, false},
		{"a desktop with a wireless mouse", map[string]string{"m/type": "Battery", "m/status": "Discharging", "m/scope": "Device"}, false},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := onBattery(dir); got != c.want {
			t.Errorf("%s runs on battery: %v", c.name, got)
		}
	}
}
