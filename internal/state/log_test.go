package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reload opens the network anew, as a restarted daemon does.
func reload(t *testing.T, d *Dir) (*Network, Loaded) {
	t.Helper()
	n, err := d.Network(testID(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	loaded, err := n.Load()
	if err != nil {
		t.Fatal(err)
	}
	return n, loaded
}

// A kill or a power cut during a write leaves a log of any length: all whole records are there, and it goes on.
func TestLogCutAtEveryByte(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis", "a", "bb", "ccc")
	check(t, n.Close())
	whole, err := os.ReadFile(n.file(logName))
	check(t, err)
	words := []string{"genesis", "a", "bb", "ccc"}
	for cut := range len(whole) + 1 {
		check(t, os.WriteFile(n.file(logName), whole[:cut], 0o600))
		var want []string
		end := headerLen
		for _, w := range words {
			if end += frameLen + len(w); end > cut {
				end -= frameLen + len(w)
				break
			}
			want = append(want, w)
		}
		if cut < headerLen {
			end = 0
		}
		n, loaded := reload(t, d)
		if got := texts(loaded.Records); got != strings.Join(want, " ") || loaded.Repair != nil || loaded.Damaged != 0 {
			t.Fatalf("cut at %d: %q %+v", cut, got, loaded)
		}
		if loaded.Torn != cut-end || loaded.Missing != (cut == 0) {
			t.Fatalf("cut at %d: torn %d, missing %v", cut, loaded.Torn, loaded.Missing)
		}
		check(t, n.AppendRecords(raws("next")))
		if _, loaded = reload(t, d); texts(loaded.Records) != strings.Join(append(want, "next"), " ") || loaded.Torn != 0 {
			t.Fatalf("cut at %d, then appended: %q", cut, texts(loaded.Records))
		}
	}
}

// Any byte gone bad costs its own record at most; the damaged file is kept and the damage told, once.
func TestLogDamagedAtEveryByte(t *testing.T) {
	words := []string{"genesis", "a-record", "b-record", "c-record"}
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), words...)
	whole, err := os.ReadFile(n.file(logName))
	check(t, err)
	for at := range len(whole) {
		if at >= len(logMagic) && at < headerLen {
			continue // another version: TestLogOfNewerVersionIsLeftAlone
		}
		bad := bytes.Clone(whole)
		bad[at] ^= 0x04
		check(t, os.WriteFile(n.file(logName), bad, 0o600))
		last := len(whole) - len("c-record") - frameLen
		_, loaded := reload(t, d)
		hit, end := -1, headerLen
		for i, w := range words {
			if at >= end && at < end+frameLen+len(w) {
				hit = i
			}
			end += frameLen + len(w)
		}
		want := strings.Join(words, " ")
		if hit >= 0 {
			want = strings.Join(append(append([]string{}, words[:hit]...), words[hit+1:]...), " ")
		}
		if got := texts(loaded.Records); got != want || loaded.Repair != nil {
			t.Fatalf("byte %d: %q, want %q, %v", at, got, want, loaded.Repair)
		}
		switch kept, err := os.ReadFile(loaded.Copy); {
		case loaded.Damaged == 0 && at >= last && at < last+4: // a longer length of the last frame: as if cut short
			if loaded.Torn == 0 {
				t.Fatalf("byte %d: not reported", at)
			}
		case loaded.Damaged == 0 || err != nil || !bytes.Equal(kept, bad):
			t.Fatalf("byte %d: damaged %d, kept %q, %v", at, loaded.Damaged, loaded.Copy, err)
		}
		if _, again := reload(t, d); texts(again.Records) != want || again.Damaged+again.Torn != 0 {
			t.Fatalf("byte %d: second load %+v", at, again)
		}
	}
	if kept, _ := filepath.Glob(n.file(damagedPrefix + "*")); len(kept) != maxDamaged {
		t.Errorf("%d damaged logs kept", len(kept))
	}
}

func TestLogOddities(t *testing.T) {
	good := appendFrame(appendHeader(nil), []byte("genesis"))
	huge := binary.BigEndian.AppendUint32(bytes.Clone(good), maxRecord+1)
	tests := []struct {
		name          string
		log           []byte
		want          string
		torn, damaged int
	}{
		{"zeros behind", append(bytes.Clone(good), make([]byte, 500)...), "genesis", 500, 0},
		{"zeros between", append(append(bytes.Clone(good), make([]byte, 50)...), good[headerLen:]...), "genesis genesis", 0, 50},
		{"text behind", append(bytes.Clone(good), "hello, world"...), "genesis", 0, 12},
		{"length too long", append(huge, "12345678"...), "genesis", 0, 12},
		{"no header", good[headerLen:], "genesis", 0, 0},
		{"all zeros", make([]byte, 64), "", 64, 0},
		{"a log twice", append(bytes.Clone(good), good...), "genesis genesis", 0, headerLen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := readLog(tt.log)
			if err != nil || texts(c.records) != tt.want || c.torn != tt.torn || c.damaged != tt.damaged {
				t.Errorf("%q torn %d damaged %d, %v", texts(c.records), c.torn, c.damaged, err)
			}
		})
	}
}

func TestLogOfNewerVersionIsLeftAlone(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis")
	b := append(binary.BigEndian.AppendUint32([]byte(logMagic), 2), "something else"...)
	check(t, os.WriteFile(n.file(logName), b, 0o600))
	n, err := d.Network(testID(1))
	check(t, err)
	if _, err := n.Load(); !errors.Is(err, ErrNewer) {
		t.Fatalf("got %v", err)
	}
	if err := n.AppendRecords(raws("x")); err == nil {
		t.Error("appended")
	}
	if after, err := os.ReadFile(n.file(logName)); err != nil || !bytes.Equal(after, b) {
		t.Errorf("changed to %q, %v", after, err)
	}
}

func TestRecordSizes(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis")
	for _, size := range []int{0, maxRecord + 1} {
		if err := n.AppendRecords([][]byte{[]byte("ok"), make([]byte, size)}); err == nil {
			t.Errorf("a record of %d bytes was taken", size)
		}
	}
	check(t, n.AppendRecords([][]byte{bytes.Repeat([]byte("x"), maxRecord)}))
	if _, loaded := reload(t, d); len(loaded.Records) != 2 {
		t.Errorf("%d records", len(loaded.Records))
	}
}

func TestCompact(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	n := mustCreate(t, d, testID(1), testKeys(), "genesis", "old")
	check(t, n.AppendRecords(raws("older")), n.Compact(raws("genesis", "new")), n.AppendRecords(raws("newer")))
	if _, loaded := reload(t, d); texts(loaded.Records) != "genesis new newer" {
		t.Errorf("%q", texts(loaded.Records))
	}
}

func FuzzReadLog(f *testing.F) {
	log, err := buildLog(raws("genesis", "a", "bb"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(log)
	f.Add(log[:len(log)-1])
	f.Add(append(bytes.Clone(log[:20]), log...))
	f.Add(append(bytes.Clone(log), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readLog(b)
		if err != nil {
			return
		}
		// Every byte is accounted for: nothing is lost without a word.
		sum := c.torn + c.damaged
		for _, r := range c.records {
			sum += frameLen + len(r)
		}
		if sum != len(b) && sum+headerLen != len(b) {
			t.Errorf("%d bytes accounted for of %d", sum, len(b))
		}
		again, err := buildLog(c.records)
		if err != nil {
			t.Fatal(err)
		}
		if c2, err := readLog(again); err != nil || fmt.Sprint(c2.records) != fmt.Sprint(c.records) || c2.torn+c2.damaged != 0 {
			t.Errorf("written again: %v, %v", c2, err)
		}
	})
}
