package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Keys of a join that is not done. They are on the disk before a member can admit them, so that no crash leaves a member
// whose keys are lost; and the next try with the same code uses them again, so that an admission whose answer was lost is
// found again (spec/30-join.md).
const (
	joinPrefix = "join-"
	joinSuffix = ".key"
	joinLife   = 30 * 24 * time.Hour // of keys that no join has used since
)

func (d *Dir) joinPath(code key.Locator) string {
	return filepath.Join(d.path, networksName, joinPrefix+hex.EncodeToString(code[:])+joinSuffix)
}

// JoinKeys returns the keys to join with by the code of a locator: those of an earlier try, or fresh ones, saved.
func (d *Dir) JoinKeys(code key.Locator, fresh Keys) (Keys, error) {
	path := d.joinPath(code)
	b, err := readFile(path)
	if err == nil {
		if k, err := parseKeys(b); err == nil {
			return k, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Keys{}, fmt.Errorf("load join keys: %w", err)
	}
	if err := d.disk.replace(path, formatKeys(fresh)); err != nil {
		return Keys{}, fmt.Errorf("save join keys %s: %w", path, err)
	}
	return fresh, nil
}

// ForgetJoinKeys removes the keys of a join that is done, or that can never be. Missing ones are no error.
func (d *Dir) ForgetJoinKeys(code key.Locator) error {
	if err := os.Remove(d.joinPath(code)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove join keys: %w", err)
	}
	return nil
}

// staleJoin reports whether a file holds the keys of a join that was given up long ago.
func staleJoin(e fs.DirEntry, now time.Time) bool {
	if !strings.HasPrefix(e.Name(), joinPrefix) || !strings.HasSuffix(e.Name(), joinSuffix) {
		return false
	}
	info, err := e.Info()
	return err == nil && now.Sub(info.ModTime()) > joinLife
}
