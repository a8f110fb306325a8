package state

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fullDisk takes only so many bytes more.
type fullDisk struct{ left int }

func (f *fullDisk) disk() disk {
	real := realDisk()
	return disk{
		open: func(path string, flag int) (file, error) {
			inner, err := real.open(path, flag)
			if err != nil {
				return nil, err
			}
			return fullFile{inner, f}, nil
		},
		rename: real.rename,
	}
}

type fullFile struct {
	file
	disk *fullDisk
}

func (f fullFile) WriteAt(b []byte, at int64) (int, error) {
	n := min(len(b), f.disk.left)
	f.disk.left -= n
	wrote, err := f.file.WriteAt(b[:n], at)
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	return wrote, err
}

func TestFullDiskAtEveryByte(t *testing.T) {
	full := &fullDisk{}
	d := mustOpen(t, t.TempDir())
	k := testKeys()
	mustCreate(t, d, testID(1), k, "genesis")
	d.disk = full.disk()
	other := testKeys()
	tests := []struct {
		name string
		do   func(n *Network) error
		size int // more than this and it fits
	}{
		{"append", func(n *Network) error { return n.AppendRecords(raws("first", "second")) }, 27},
		{"compact", func(n *Network) error { return n.Compact(raws("genesis", "first", "second")) }, 54},
		{"keys", func(n *Network) error { return n.SaveKeys(other) }, len(formatKeys(other))},
		{"settings", func(n *Network) error { return n.SaveSettings(Settings{Name: "other"}) }, 60},
		{"create", func(*Network) error { _, err := d.Create(testID(2), other, Settings{}, raws("g")); return err }, len(formatKeys(other))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := reload(t, d)
			for left := range tt.size {
				full.left = left
				err := tt.do(n)
				if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the disk is full") {
					t.Fatalf("with %d bytes left: %v", left, err)
				}
				m, loaded := reload(t, d)
				if texts(loaded.Records) != "genesis" || loaded.Torn+loaded.Damaged != 0 {
					t.Fatalf("with %d bytes left: %q %+v", left, texts(loaded.Records), loaded)
				}
				if got, err := m.Keys(); err != nil || got != k {
					t.Fatalf("with %d bytes left: keys changed, %v", left, err)
				}
				if s, err := m.Settings(); err != nil || s.Name != "home" {
					t.Fatalf("with %d bytes left: settings %+v, %v", left, s, err)
				}
				if left := leftovers(t, d); left != "" {
					t.Fatalf("left behind: %s", left)
				}
			}
		})
	}
	full.left = 1 << 20
	n, _ := reload(t, d)
	check(t, n.AppendRecords(raws("after")), n.Compact(raws("genesis", "after")))
	if _, loaded := reload(t, d); texts(loaded.Records) != "genesis after" {
		t.Errorf("with room again: %q", texts(loaded.Records))
	}
}

// leftovers lists work in progress in d.
func leftovers(t *testing.T, d *Dir) string {
	t.Helper()
	var out []string
	for _, pattern := range []string{".*", "networks/.*", "networks/*/.*"} {
		found, err := filepath.Glob(filepath.Join(d.Path(), pattern))
		check(t, err)
		out = append(out, found...)
	}
	return strings.Join(out, " ")
}

// When the log can neither be written nor cut, nothing is acknowledged, and the next write cuts first.
func TestCutThatFailsIsMadeUpFor(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis")
	bad := true
	open := n.disk.open
	n.disk.open = func(path string, flag int) (file, error) {
		f, err := open(path, flag)
		return stuckFile{f, &bad}, err
	}
	for range 3 {
		if err := n.AppendRecords(raws("lost", "lost")); !errors.Is(err, syscall.EIO) {
			t.Fatalf("got %v", err)
		}
	}
	bad = false
	check(t, n.AppendRecords(raws("kept")))
	if _, loaded := reload(t, d); texts(loaded.Records) != "genesis kept" || loaded.Torn+loaded.Damaged != 0 {
		t.Errorf("%q %+v", texts(loaded.Records), loaded)
	}
}

type stuckFile struct {
	file
	bad *bool
}

func (f stuckFile) Sync() error {
	if *f.bad {
		return syscall.EIO
	}
	return f.file.Sync()
}

func (f stuckFile) Truncate(size int64) error {
	if *f.bad {
		return syscall.EIO
	}
	return f.file.Truncate(size)
}

// A damaged log that cannot be put right for want of space still gives its records, and takes new ones later.
func TestDamagedLogOnFullDisk(t *testing.T) {
	full := &fullDisk{}
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis", "spoilt", "third")
	b, err := os.ReadFile(n.file(logName))
	check(t, err)
	b[headerLen+frameLen+len("genesis")+frameLen] ^= 1
	check(t, os.WriteFile(n.file(logName), b, 0o600))
	d.disk = full.disk()
	n, loaded := reload(t, d)
	if texts(loaded.Records) != "genesis third" || loaded.Damaged == 0 || !errors.Is(loaded.Repair, ErrFull) || loaded.Copy != "" {
		t.Fatalf("%q %+v", texts(loaded.Records), loaded)
	}
	full.left = 100
	check(t, n.AppendRecords(raws("fourth")))
	full.left = 1000
	_, loaded = reload(t, d)
	if texts(loaded.Records) != "genesis third fourth" || loaded.Repair != nil || loaded.Copy == "" {
		t.Fatalf("%q %+v", texts(loaded.Records), loaded)
	}
}

// crash is thrown by a disk that dies: nothing after it runs, as after a kill.
type crash struct{}

// crashDisk dies at its step-th operation; a write is half done then, a rename is done or not.
func crashDisk(step *int) disk {
	real := realDisk()
	tick := func() bool { *step--; return *step < 0 }
	return disk{
		open: func(path string, flag int) (file, error) {
			if tick() {
				panic(crash{})
			}
			f, err := real.open(path, flag)
			return crashFile{f, tick}, err
		},
		rename: func(from, to string) error {
			if tick() {
				panic(crash{})
			}
			err := real.rename(from, to)
			if tick() {
				panic(crash{})
			}
			return err
		},
	}
}

type crashFile struct {
	file
	tick func() bool
}

func (f crashFile) WriteAt(b []byte, at int64) (int, error) {
	if f.tick() {
		if _, err := f.file.WriteAt(b[:len(b)/2], at); err != nil {
			panic(err)
		}
		panic(crash{})
	}
	return f.file.WriteAt(b, at)
}

func (f crashFile) Sync() error {
	if f.tick() {
		panic(crash{})
	}
	return f.file.Sync()
}

// survives runs do on a disk that dies at the given step; it reports whether do came to its end.
func survives(do func() error) (done bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
		}
	}()
	return true, do()
}

func TestCrashAtEveryStep(t *testing.T) {
	old, fresh := testKeys(), testKeys()
	tests := []struct {
		name string
		do   func(d *Dir, n *Network) error
	}{
		{"append", func(_ *Dir, n *Network) error { return n.AppendRecords(raws("a", "b")) }},
		{"compact", func(_ *Dir, n *Network) error { return n.Compact(raws("genesis", "a", "b")) }},
		{"keys", func(_ *Dir, n *Network) error { return n.SaveKeys(fresh) }},
		{"settings", func(_ *Dir, n *Network) error { return n.SaveSettings(Settings{Name: "home", Up: true}) }},
		{"create", func(d *Dir, _ *Network) error {
			_, err := d.Create(testID(2), fresh, Settings{Name: "second"}, raws("g"))
			return err
		}},
		{"remove", func(_ *Dir, n *Network) error { return n.Remove() }},
		{"daemon", func(d *Dir, _ *Network) error { return d.SaveDaemon(Daemon{Port: 7}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for step := 0; ; step++ {
				path := t.TempDir()
				d := mustOpen(t, path)
				mustCreate(t, d, testID(1), old, "genesis")
				left := step
				d.disk = crashDisk(&left)
				left += 1 << 20 // loading is not what dies here
				n, _ := reload(t, d)
				left = step
				done, err := survives(func() error { return tt.do(d, n) })
				check(t, err, n.Close(), d.Close())
				checkAfterCrash(t, fmt.Sprintf("step %d", step), path, old, fresh, tt.name == "remove")
				if done {
					if step < 2 {
						t.Errorf("only %d steps were tried", step)
					}
					return
				}
			}
		})
	}
}

// checkAfterCrash opens the directory again and looks at everything a user would miss.
func checkAfterCrash(t *testing.T, at, path string, old, fresh Keys, mayBeGone bool) {
	t.Helper()
	d := mustOpen(t, path)
	defer d.Close()
	if left := leftovers(t, d); left != "" {
		t.Errorf("%s: left behind: %s", at, left)
	}
	if _, err := d.Daemon(); err != nil {
		t.Errorf("%s: %v", at, err)
	}
	ids, err := d.Networks()
	check(t, err)
	found := map[string]bool{}
	for _, id := range ids {
		n, err := d.Network(id)
		check(t, err)
		k, err := n.Keys()
		if err != nil || k != old && k != fresh || id == testID(2) && k != fresh {
			t.Errorf("%s: keys of %v: %v", at, id, err)
		}
		if s, err := n.Settings(); err != nil || s.Name == "" {
			t.Errorf("%s: settings %+v, %v", at, s, err)
		}
		loaded, err := n.Load()
		if err != nil || loaded.Damaged != 0 || loaded.Missing || len(loaded.Records) == 0 || string(loaded.Records[0][:1]) != "g" {
			t.Errorf("%s: records %q %+v, %v", at, texts(loaded.Records), loaded, err)
		}
		check(t, n.AppendRecords(raws("on")), n.Close())
		found[id.String()] = true
	}
	if !found[testID(1).String()] && !mayBeGone {
		t.Errorf("%s: the network is gone", at)
	}
}

const killEnv = "WARREN_STATE_TEST_APPEND"

// TestAppendForever is not a test: it is the process that TestKill9 kills.
func TestAppendForever(t *testing.T) {
	path := os.Getenv(killEnv)
	if path == "" {
		t.Skip("the helper process of TestKill9")
	}
	d := mustOpen(t, path)
	n, loaded := reload(t, d)
	for i := len(loaded.Records); ; i++ {
		check(t, n.AppendRecords(raws(strconv.Itoa(i))))
		os.Stdout.WriteString(strconv.Itoa(i) + "\n")
	}
}

// A real kill -9: every record that the process had acknowledged is there when it comes back.
func TestKill9(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	mustCreate(t, d, testID(1), testKeys(), "0")
	check(t, d.Close())
	acked := 0
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAppendForever$")
		cmd.Env = append(os.Environ(), killEnv+"="+path)
		out, err := cmd.StdoutPipe()
		check(t, err, cmd.Start())
		lines := bufio.NewScanner(out)
		for want := acked + 3 + round; acked < want && lines.Scan(); {
			acked, err = strconv.Atoi(lines.Text())
			check(t, err)
		}
		check(t, cmd.Process.Kill())
		for lines.Scan() { // what it still said before it died
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				acked = n
			}
		}
		_ = cmd.Wait()
		d := mustOpen(t, path)
		_, loaded := reload(t, d)
		for i, r := range loaded.Records {
			if string(r) != strconv.Itoa(i) {
				t.Fatalf("record %d is %q", i, r)
			}
		}
		if len(loaded.Records) <= acked || loaded.Damaged != 0 {
			t.Fatalf("round %d: acknowledged %d, found %d, %+v", round, acked, len(loaded.Records)-1, loaded)
		}
		acked = len(loaded.Records) - 1
		check(t, d.Close())
	}
}
