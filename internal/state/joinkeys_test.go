package state

import (
	"os"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

func TestJoinKeysOutliveACrashAndAreForgotten(t *testing.T) {
	path := t.TempDir() + "/state"
	code := key.Locator{1, 2, 3}
	fresh := func() Keys { return Keys{Identity: key.NewIdentity(), WG: key.NewWGPrivate()} }
	open := func() *Dir {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	keys := func(d *Dir, c key.Locator) Keys {
		k, err := d.JoinKeys(c, fresh())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	d := open()
	first := keys(d, code)
	if keys(d, key.Locator{9}) == first {
		t.Fatal("two codes have the same keys")
	}
	if info, err := os.Stat(d.joinPath(code)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	d.Close()
	d = open()
	if keys(d, code) != first {
		t.Fatal("another try with the same code has other keys")
	}
	if err := d.ForgetJoinKeys(code); err != nil {
		t.Fatal(err)
	}
	if err := d.ForgetJoinKeys(code); err != nil {
		t.Fatalf("forgetting twice: %v", err)
	}
	second := keys(d, code)
	if second == first {
		t.Fatal("forgotten keys came back")
	}
	old := time.Now().Add(-joinLife - time.Hour)
	if err := os.Chtimes(d.joinPath(code), old, old); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = open()
	defer d.Close()
	if keys(d, code) == second {
		t.Fatal("keys of a join that was given up are still there")
	}
}
