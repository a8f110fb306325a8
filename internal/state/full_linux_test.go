package state

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// The same as TestFullDiskAtEveryByte on a file system that is really full.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=0711"); err != nil {
		t.Skipf("cannot mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	d, err := Open(dir)
	check(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	k := testKeys()
	n, err := d.Create(testID(1), k, Settings{Name: "home"}, raws("genesis"))
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	stored := 1
	for err == nil {
		if err = n.AppendRecords([][]byte{bytes.Repeat([]byte("x"), 900), bytes.Repeat([]byte("y"), 900)}); err == nil {
			stored += 2
		}
	}
	if !errors.Is(err, ErrFull) || stored < 20 {
		t.Fatalf("after %d records: %v", stored, err)
	}
	for _, err := range []error{n.SaveKeys(testKeys()), n.Compact(raws("genesis")), n.SaveSettings(Settings{})} {
		if err != nil && !errors.Is(err, ErrFull) {
			t.Errorf("got %v", err)
		}
	}
	m, err := d.Network(testID(1))
	check(t, err)
	loaded, err := m.Load()
	if err != nil || loaded.Damaged != 0 || len(loaded.Records) != stored && len(loaded.Records) != 1 {
		t.Errorf("%d of %d records, %+v, %v", len(loaded.Records), stored, loaded.Damaged, err)
	}
	if _, err := m.Keys(); err != nil {
		t.Error(err)
	}
}
