package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	keysName = "identity.key"
	logName  = "records.log"
	// damagedPrefix begins the names of logs that were found damaged and set aside, for people to look at.
	damagedPrefix = logName + ".damaged-"
	maxDamaged    = 10 // that many are kept, the oldest go
)

// ErrExists is returned when a network that is to be created is there.
var ErrExists = errors.New("this machine already has that network")

// Network is the part of a state directory that belongs to one network.
type Network struct {
	id   key.NetworkID
	path string
	disk disk

	loaded bool
	log    file  // nil until the first append, and after Close
	size   int64 // of the log's good part: where the next frame goes
	dirty  bool  // there may be bytes behind size
}

// Create makes a network with its keys, settings and first records, all or nothing: after a crash it is there whole or
// not at all. The keys are on the disk before Create returns, so that they can be shown to others. Records may be
// empty, as before a join. The network needs no Load.
func (d *Dir) Create(id key.NetworkID, k Keys, s Settings, records [][]byte) (*Network, error) {
	final := d.networkPath(id)
	if _, err := os.Lstat(final); err == nil {
		return nil, fmt.Errorf("create network %s: %w", id, ErrExists)
	}
	n, err := d.create(id, k, s, records)
	if err != nil {
		return nil, fmt.Errorf("create network %s: %w", id, explain(err))
	}
	return n, nil
}

func (d *Dir) create(id key.NetworkID, k Keys, s Settings, records [][]byte) (*Network, error) {
	log, err := buildLog(records)
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(filepath.Join(d.path, networksName), newPrefix+"*")
	if err != nil {
		return nil, err
	}
	n := &Network{id: id, path: temp, disk: d.disk}
	err = n.SaveKeys(k)
	if err == nil {
		err = d.disk.replace(n.file(logName), log)
	}
	if err == nil {
		err = n.SaveSettings(s)
	}
	if err == nil {
		err = d.disk.rename(temp, d.networkPath(id))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	n.path, n.size, n.loaded = d.networkPath(id), int64(len(log)), true
	return n, nil
}

// Network returns the network id, which must be in d; the error wraps fs.ErrNotExist when it is not. Call
// [Network.Load] before appending to it.
func (d *Dir) Network(id key.NetworkID) (*Network, error) {
	n := &Network{id: id, path: d.networkPath(id), disk: d.disk}
	info, err := os.Stat(n.path)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return nil, fmt.Errorf("open network %s: %w", id, err)
	}
	return n, nil
}

func (d *Dir) networkPath(id key.NetworkID) string {
	return filepath.Join(d.path, networksName, id.String())
}

// ID returns the network's id.
func (n *Network) ID() key.NetworkID { return n.id }

func (n *Network) file(name string) string { return filepath.Join(n.path, name) }

// Loaded is what [Network.Load] found in the log.
type Loaded struct {
	Records [][]byte // every whole record, in the order of the log; the caller's to keep
	Torn    int      // bytes of an unfinished write, cut off the end: a crash; they were never acknowledged
	Damaged int      // unreadable bytes elsewhere: a fault of the disk; records in them are lost here
	Copy    string   // where the damaged log was set aside; empty when Damaged is 0 or it could not be
	Missing bool     // the log was gone or empty: never our doing
	Repair  error    // why the log could not be put right (a full disk, say); Records are good all the same
}

// Load reads the log and puts it right. Every whole record is returned whatever happened to the others; the caller
// reports the rest. The error is about a log that could not be read at all, or that a newer version wrote.
func (n *Network) Load() (Loaded, error) {
	b, err := os.ReadFile(n.file(logName))
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return Loaded{}, fmt.Errorf("load records: %w", err)
	}
	c, err := readLog(b)
	if err != nil {
		return Loaded{}, fmt.Errorf("load records %s: %w", n.file(logName), err)
	}
	if err := n.Close(); err != nil {
		return Loaded{}, fmt.Errorf("load records: %w", err)
	}
	n.loaded, n.size, n.dirty = true, int64(len(b)), false
	out := Loaded{Records: c.records, Torn: c.torn, Damaged: c.damaged, Missing: len(b) == 0}
	switch {
	case c.damaged > 0:
		out.Copy, out.Repair = n.setAside(b)
		if out.Repair == nil {
			out.Repair = n.rewrite(c.records)
		}
	case c.good == 0:
		out.Repair = n.rewrite(nil)
	case c.torn > 0:
		n.size, n.dirty = int64(c.good), true
		out.Repair = n.openLog()
	}
	return out, nil
}

// setAside keeps a copy of a damaged log and returns its name.
func (n *Network) setAside(b []byte) (string, error) {
	old, err := filepath.Glob(n.file(damagedPrefix + "*")) // sorted: oldest first
	if err != nil {
		return "", err
	}
	for ; len(old) >= maxDamaged; old = old[1:] {
		if err := os.Remove(old[0]); err != nil {
			return "", err
		}
	}
	name := n.file(damagedPrefix + time.Now().UTC().Format("20060102T150405.000000000"))
	if err := n.disk.replace(name, b); err != nil {
		return "", fmt.Errorf("set the damaged log aside: %w", err)
	}
	return name, nil
}

// openLog opens the log for appending and cuts off what is behind its good part.
func (n *Network) openLog() error {
	if n.log == nil {
		f, err := n.disk.open(n.file(logName), os.O_WRONLY)
		if err != nil {
			return explain(err)
		}
		n.log = f
	}
	if n.dirty {
		if err := n.log.Truncate(n.size); err != nil {
			return fmt.Errorf("cut off an unfinished write: %w", explain(err))
		}
		n.dirty = false
	}
	return nil
}

// AppendRecords adds records to the log: when it returns nil they are on the disk, all of them; else none is, and the
// records before are whole. ErrFull is in the error's chain when the disk is full; the call can be repeated later.
func (n *Network) AppendRecords(raws [][]byte) error {
	if len(raws) == 0 {
		return nil
	}
	err := n.append(raws)
	if err != nil {
		return fmt.Errorf("store %d records in %s: %w", len(raws), n.file(logName), explain(err))
	}
	return nil
}

func (n *Network) append(raws [][]byte) error {
	if !n.loaded {
		return errors.New("BUG: append before load")
	}
	buf, err := appendFrames(nil, raws)
	if err != nil {
		return err
	}
	if err := n.openLog(); err != nil {
		return err
	}
	wrote, err := n.log.WriteAt(buf, n.size)
	if err == nil && wrote < len(buf) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = n.log.Sync()
	}
	if err != nil {
		// When the cut fails too it is tried again before the next write; until then a crash may keep whole records
		// of this batch, which does no harm: they are valid, only not asked for.
		n.dirty = n.log.Truncate(n.size) != nil
		return err
	}
	n.size += int64(len(buf))
	return nil
}

// Compact replaces the whole log by raws: after a crash the log is the old one or the new one.
func (n *Network) Compact(raws [][]byte) error {
	if err := n.rewrite(raws); err != nil {
		return fmt.Errorf("compact %s: %w", n.file(logName), err)
	}
	return nil
}

func (n *Network) rewrite(raws [][]byte) error {
	b, err := buildLog(raws)
	if err != nil {
		return err
	}
	if err := n.Close(); err != nil { // Windows renames over no open file
		return err
	}
	if err := n.disk.replace(n.file(logName), b); err != nil {
		n.measure()
		return err
	}
	n.size, n.dirty, n.loaded = int64(len(b)), false, true
	return nil
}

// measure finds the good part again after a replacement that failed before or after the rename: one cannot tell.
func (n *Network) measure() {
	b, err := os.ReadFile(n.file(logName))
	if err != nil {
		n.loaded = false
		return
	}
	c, err := readLog(b)
	n.size, n.dirty = int64(len(b)-c.torn), c.torn > 0
	n.loaded = err == nil && c.good > 0
}

// buildLog writes a whole log.
func buildLog(raws [][]byte) ([]byte, error) { return appendFrames(appendHeader(nil), raws) }

func appendFrames(b []byte, raws [][]byte) ([]byte, error) {
	for _, raw := range raws {
		if len(raw) == 0 || len(raw) > maxRecord {
			return nil, fmt.Errorf("record of %d bytes: 1 to %d fit", len(raw), maxRecord)
		}
		b = appendFrame(b, raw)
	}
	return b, nil
}

// Close closes the log. The network can be used again: it is opened when needed.
func (n *Network) Close() error {
	if n.log == nil {
		return nil
	}
	f := n.log
	n.log = nil
	return f.Close()
}

// Remove forgets the network, keys and all; n is of no use afterwards. After a crash it is there whole or gone.
func (n *Network) Remove() error {
	err := n.Close()
	if err == nil {
		dead := filepath.Join(filepath.Dir(n.path), fmt.Sprintf("%s%s-%d", deadPrefix, n.id, time.Now().UnixNano()))
		if err = n.disk.rename(n.path, dead); err == nil {
			err = os.RemoveAll(dead)
		}
	}
	if err != nil {
		return fmt.Errorf("remove network %s: %w", n.id, explain(err))
	}
	n.loaded = false
	return nil
}
