package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrFull is in the chain of errors caused by a full disk or quota: what was there before is whole, nothing new was kept.
var ErrFull = errors.New("the disk is full")

// ErrNewer is in the chain of errors about files that a later version of warren wrote. They are left alone.
var ErrNewer = errors.New("written by a newer version of warren")

// maxFile bounds what is read of any file but the log.
const maxFile = 8 << 20

// file is what writing needs of *os.File; tests put faults behind it.
type file interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// disk is how files are opened and renamed; tests put faults behind it.
type disk struct {
	open   func(path string, flag int) (file, error) // mode 0600
	rename func(from, to string) error
}

func realDisk() disk {
	return disk{
		open: func(path string, flag int) (file, error) { return os.OpenFile(path, flag, 0o600) },
		rename: func(from, to string) error {
			if err := os.Rename(from, to); err != nil {
				return err
			}
			return syncDir(filepath.Dir(to))
		},
	}
}

// explain puts the cause in front of errors that a user can do something about.
func explain(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrFull):
		return err
	case outOfSpace(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case readOnly(err):
		return fmt.Errorf("the file system is read-only: %w", err)
	}
	return err
}

// replace puts data at path so that after a crash either the old file or the new one is there, whole.
func (d disk) replace(path string, data []byte) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempSuffix)
	if err := d.write(temp, data); err != nil {
		return explain(err)
	}
	if err := d.rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return explain(err)
	}
	return nil
}

// write writes and syncs a new file at path; on an error no file stays.
func (d disk) write(path string, data []byte) error {
	f, err := d.open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

// versioned is the outside of all JSON files.
type versioned[T any] struct {
	Version int `json:"version"`
	Data    T   `json:"data"`
}

const jsonVersion = 1

// saveJSON replaces the file at path.
func saveJSON[T any](d disk, path string, v T) error {
	b, err := json.MarshalIndent(versioned[T]{Version: jsonVersion, Data: v}, "", "  ")
	if err == nil {
		err = d.replace(path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// loadJSON reads the file at path. A missing file is an error that wraps fs.ErrNotExist. Unknown fields are passed
// over, so that a version of warren can be taken back.
func loadJSON[T any](path string) (T, error) {
	var v versioned[T]
	b, err := readFile(path)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	var zero T
	switch {
	case err != nil:
		return zero, fmt.Errorf("load %s: %w", path, err)
	case v.Version > jsonVersion:
		return zero, fmt.Errorf("load %s: %w (format %d)", path, ErrNewer, v.Version)
	case v.Version < 1:
		return zero, fmt.Errorf("load %s: no version in it", path)
	}
	return v.Data, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return b, err
}
