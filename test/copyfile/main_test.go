package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	want := bytes.Repeat([]byte("warren"), 100_000)
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // only to find a free port
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the one connection
		if err := run([]string{"receive", addr, to}); err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(5 * time.Second)
	for run([]string{"send", addr, from}) != nil { // until the receiver listens
		if time.Now().After(deadline) {
			t.Fatal("the receiver does not listen")
		}
	}
	wg.Wait()
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived (%v), want %d", len(got), err, len(want))
	}
	for _, args := range [][]string{nil, {"copy", addr, to}, {"send", addr, "/nonexistent"}} {
		if run(args) == nil {
			t.Errorf("copyfile %q went well", args)
		}
	}
}
