package state

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

func testKeys() Keys { return Keys{Identity: key.NewIdentity(), WG: key.NewWGPrivate()} }

func testID(b byte) key.NetworkID { return key.NetworkID{0: b, 31: 1} }

func mustOpen(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func mustCreate(t *testing.T, d *Dir, id key.NetworkID, k Keys, records ...string) *Network {
	t.Helper()
	n, err := d.Create(id, k, Settings{Name: "home"}, raws(records...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func raws(texts ...string) [][]byte {
	var out [][]byte
	for _, s := range texts {
		out = append(out, []byte(s))
	}
	return out
}

func texts(raws [][]byte) string {
	var out []string
	for _, r := range raws {
		out = append(out, string(r))
	}
	return strings.Join(out, " ")
}

func TestEverythingIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state")
	k, peer := testKeys(), key.NewIdentity().NodeID()
	settings := Settings{Name: "home", Interface: "warren0", Up: true, Joined: time.Unix(1_700_000_000, 0).UTC()}
	seen := Endpoints{peer: {netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("[2001:db8::1]:8")}}

	d := mustOpen(t, path)
	n, err := d.Create(testID(1), k, settings, raws("genesis"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, n.AppendRecords(raws("a", "b")), n.AppendRecords(nil), n.SaveEndpoints(seen), d.SaveDaemon(Daemon{Port: 4242}),
		n.Close(), d.Close(), d.Close())

	d = mustOpen(t, path)
	ids, err := d.Networks()
	if err != nil || !reflect.DeepEqual(ids, []key.NetworkID{testID(1)}) {
		t.Fatalf("networks %v, %v", ids, err)
	}
	if n, err = d.Network(testID(1)); err != nil {
		t.Fatal(err)
	}
	loaded, err := n.Load()
	if err != nil || texts(loaded.Records) != "genesis a b" || loaded.Torn+loaded.Damaged != 0 || loaded.Missing || loaded.Repair != nil {
		t.Errorf("loaded %q %+v, %v", texts(loaded.Records), loaded, err)
	}
	if got, err := n.Keys(); err != nil || got != k {
		t.Errorf("keys differ, %v", err)
	}
	if got, err := n.Settings(); err != nil || got != settings {
		t.Errorf("settings %+v, %v", got, err)
	}
	if got, err := n.Endpoints(); err != nil || !reflect.DeepEqual(got, seen) {
		t.Errorf("endpoints %v, %v", got, err)
	}
	if got, err := d.Daemon(); err != nil || got.Port != 4242 {
		t.Errorf("daemon %+v, %v", got, err)
	}
	if d.SocketPath() != filepath.Join(path, "warren.sock") || d.LogPath() != filepath.Join(path, "daemon.log") || d.Path() != path {
		t.Error("paths", d.SocketPath(), d.LogPath(), d.Path())
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpenerIsToldWhoHasIt(t *testing.T) {
	path := t.TempDir()
	first := mustOpen(t, path)
	_, err := Open(path)
	locked, ok := errors.AsType[*LockedError](err)
	if !ok {
		t.Fatalf("second opener got %v", err)
	}
	if locked.PID != os.Getpid() || locked.Dir != path {
		t.Errorf("told %+v", locked)
	}
	if !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("text %q", err)
	}
	check(t, first.Close())
	mustOpen(t, path)
}

func TestLockWithoutPIDStillSaysSo(t *testing.T) {
	path := t.TempDir()
	mustOpen(t, path)
	check(t, os.WriteFile(filepath.Join(path, "lock"), []byte("junk"), 0o600))
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}

func TestPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not what protects files on Windows")
	}
	path := filepath.Join(t.TempDir(), "state")
	d := mustOpen(t, path)
	n := mustCreate(t, d, testID(1), testKeys(), "genesis")
	check(t, n.AppendRecords(raws("a")), n.Compact(raws("a")), n.SaveEndpoints(Endpoints{}), d.SaveDaemon(Daemon{}))
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		switch {
		case name == path:
			want = 0o711
		case e.IsDir():
			want = 0o700
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %#o, want %#o", name, info.Mode().Perm(), want)
		}
		return err
	})
	check(t, err)
}

func TestDirectoryThatWasThere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not what protects files on Windows")
	}
	tests := []struct {
		name   string
		mode   fs.FileMode
		file   string
		after  fs.FileMode
		refuse bool
	}{
		{"private stays private", 0o700, "", 0o700, false},
		{"public and empty is closed", 0o777, "", 0o755, false},
		{"public with our networks is closed", 0o777, "networks/x", 0o755, false},
		{"public with others' files is refused", 0o777, "theirs", 0o777, true},
		{"foreign but unwritable is fine", 0o755, "theirs", 0o755, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			if tt.file != "" {
				check(t, os.MkdirAll(filepath.Dir(filepath.Join(path, tt.file)), 0o700), os.WriteFile(filepath.Join(path, tt.file), nil, 0o600))
			}
			check(t, os.Chmod(path, tt.mode))
			d, err := Open(path)
			if tt.refuse != (err != nil) {
				t.Fatalf("open: %v", err)
			}
			if err == nil {
				check(t, d.Close())
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != tt.after {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a state directory")
	}
}

func TestOtherEntriesAreNoNetworks(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	mustCreate(t, d, testID(2), testKeys())
	mustCreate(t, d, testID(1), testKeys())
	networks := filepath.Join(d.Path(), "networks")
	check(t, os.Mkdir(filepath.Join(networks, "lost+found"), 0o700),
		os.Mkdir(filepath.Join(networks, strings.ToUpper(key.NetworkID{0xab}.String())), 0o700),
		os.WriteFile(filepath.Join(networks, testID(3).String()), nil, 0o600))
	ids, err := d.Networks()
	if err != nil || !reflect.DeepEqual(ids, []key.NetworkID{testID(1), testID(2)}) {
		t.Errorf("networks %v, %v", ids, err)
	}
	if _, err := d.Network(testID(3)); err == nil {
		t.Error("a file was opened as a network")
	}
	if _, err := d.Network(testID(4)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing network: %v", err)
	}
	if _, err := d.Create(testID(1), testKeys(), Settings{}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
}

func TestJSONFiles(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys())
	if e, err := n.Endpoints(); err != nil || e == nil || len(e) != 0 {
		t.Errorf("no cache yet: %v, %v", e, err)
	}
	if v, err := d.Daemon(); err != nil || v != (Daemon{}) {
		t.Errorf("no daemon settings yet: %v, %v", v, err)
	}
	write := func(name, text string) { check(t, os.WriteFile(n.file(name), []byte(text), 0o600)) }

	write("settings.json", `{"version":1,"later":true,"data":{"name":"x","colour":"red"}}`)
	if s, err := n.Settings(); err != nil || s.Name != "x" {
		t.Errorf("fields of a later version: %+v, %v", s, err)
	}
	write("settings.json", `{"version":2,"data":{}}`)
	if _, err := n.Settings(); !errors.Is(err, ErrNewer) {
		t.Errorf("format of a later version: %v", err)
	}
	for _, bad := range []string{"", "{}", "null", `{"version":1,"data":`, `{"version":1,"data":{"up":3}}`} {
		write("settings.json", bad)
		if _, err := n.Settings(); err == nil || !strings.Contains(err.Error(), "settings.json") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "\x00\x00", `{"version":1,"data":{"zz":[]}}`, `{"version":1,"data":{"` + key.NodeID{}.String() + `":["nowhere"]}}`} {
		write("endpoints.json", bad)
		if e, err := n.Endpoints(); err == nil || e == nil || len(e) != 0 {
			t.Errorf("damaged cache %q: %v, %v", bad, e, err)
		}
	}
	write("endpoints.json", strings.Repeat(" ", maxFile+1))
	if _, err := n.Endpoints(); err == nil {
		t.Error("a huge file was read")
	}
}

func TestEndpointCacheIsCapped(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys())
	many := Endpoints{}
	for i := range maxEndpointPeers + 10 {
		many[key.NodeID{byte(i), byte(i >> 8)}] = make([]netip.AddrPort, 20)
		for j := range 20 {
			many[key.NodeID{byte(i), byte(i >> 8)}][j] = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(j))
		}
	}
	check(t, n.SaveEndpoints(many))
	got, err := n.Endpoints()
	if err != nil || len(got) != maxEndpointPeers {
		t.Fatalf("%d peers, %v", len(got), err)
	}
	for _, addrs := range got {
		if len(addrs) != maxEndpoints {
			t.Fatalf("%d addresses", len(addrs))
		}
	}
}

func TestRemove(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis")
	mustCreate(t, d, testID(2), testKeys())
	check(t, n.AppendRecords(raws("a")), n.Remove())
	ids, err := d.Networks()
	if err != nil || !reflect.DeepEqual(ids, []key.NetworkID{testID(2)}) {
		t.Errorf("networks %v, %v", ids, err)
	}
	if err := n.AppendRecords(raws("b")); err == nil {
		t.Error("appended to a removed network")
	}
	mustCreate(t, d, testID(1), testKeys()) // the id is free again
}

func TestKeyFile(t *testing.T) {
	k := testKeys()
	good := string(formatKeys(k))
	lines := strings.SplitAfter(good, "\n")
	tests := []struct{ name, text string }{
		{"empty", ""},
		{"no end", good[:len(good)-1]},
		{"more", good + "x"},
		{"a line less", strings.Join(lines[:4], "")},
		{"wrong order", lines[0] + lines[2] + lines[1] + lines[3] + lines[4]},
		{"other identity", lines[0] + strings.SplitAfter(string(formatKeys(testKeys())), "\n")[1] + strings.Join(lines[2:], "")},
		{"other wireguard key", strings.Join(lines[:3], "") + strings.SplitAfter(string(formatKeys(testKeys())), "\n")[3] + lines[4]},
		{"upper case", lines[0] + "identity " + strings.ToUpper(lines[1][9:]) + strings.Join(lines[2:], "")},
		{"other header", "warren-key 1\n" + strings.Join(lines[1:], "")},
	}
	for _, tt := range tests {
		if _, err := parseKeys([]byte(tt.text)); err == nil {
			t.Errorf("%s: accepted", tt.name)
		} else if seed := lines[1][9:73]; strings.Contains(err.Error(), seed) {
			t.Errorf("%s: the error tells the secret", tt.name)
		}
	}
	if _, err := parseKeys([]byte("warren-keys 2\nwhatever")); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v", err)
	}
	if got, err := parseKeys([]byte(good)); err != nil || got != k {
		t.Errorf("good file: %v", err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(formatKeys(testKeys()))
	f.Add([]byte("warren-keys 1\nidentity 00\nnode 00\nwireguard AA==\nwireguard-public AA==\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKeys(b)
		if err == nil && string(formatKeys(k)) != string(b) {
			t.Errorf("%q was read as %q", b, formatKeys(k))
		}
	})
}
