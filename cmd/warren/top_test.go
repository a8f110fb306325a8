package main

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/warren-vpn/warren/internal/api"
)

func peerWith(name, path string, rx, tx uint64) api.Peer {
	return api.Peer{Name: name, ID: name, Path: path, RxBytes: rx, TxBytes: tx}
}

func sampleOf(at time.Duration, pid int, peers ...api.Peer) sample {
	return sample{testNow.Add(at), api.Status{PID: pid, Networks: api.List[api.Network]{{Name: "home", ID: "home", Peers: peers}}}}
}

// Traffic is what was counted between two looks, by time; the most comes first.
func TestTopRates(t *testing.T) {
	before := sampleOf(0, 1, peerWith("ann", api.PathNone, 0, 0), peerWith("ben", api.PathDirect, 1000, 1000), peerWith("carl", api.PathRelayed, 5, 5), peerWith("dora", api.PathDirect, 9, 9))
	after := sampleOf(2*time.Second, 1, peerWith("ann", api.PathNone, 0, 0), peerWith("ben", api.PathDirect, 1200, 1000), peerWith("carl", api.PathRelayed, 5, 4005),
		peerWith("dora", api.PathDirect, 3, 9), peerWith("new", api.PathDirect, 7000, 7000))
	var got []string
	rates := map[string][2]uint64{}
	for _, p := range compare(before, after) {
		got = append(got, p.Name)
		rates[p.Name] = [2]uint64{p.Rx, p.Tx}
	}
	if want := "carl ben dora new ann"; strings.Join(got, " ") != want {
		t.Errorf("order %v, want %s", got, want)
	}
	for name, want := range map[string][2]uint64{"carl": {0, 2000}, "ben": {100, 0}, "dora": {0, 0}, "new": {0, 0}} {
		if rates[name] != want {
			t.Errorf("%s: %v bytes a second, want %v", name, rates[name], want)
		}
	}
	after.st.PID = 2 // the daemon was started again: what it counted is no difference
	for _, p := range compare(before, after) {
		if p.Rx+p.Tx > 0 {
			t.Errorf("after a restart %s has %d and %d bytes a second", p.Name, p.Rx, p.Tx)
		}
	}
}

// Whatever the size of the terminal, the picture fits in.
func TestTopFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var peers []api.Peer
		for range rapid.IntRange(0, 40).Draw(t, "peers") {
			peers = append(peers, peerWith(rapid.StringN(1, 40, -1).Draw(t, "name"), api.PathDirect, 0, 0))
		}
		f := frame{before: sampleOf(0, 1), after: sampleOf(time.Second, 1, peers...), width: rapid.IntRange(0, 120).Draw(t, "width"), height: rapid.IntRange(0, 60).Draw(t, "height")}
		if rapid.Bool().Draw(t, "fails") {
			f.err = api.ErrNotRunning
		}
		picture, ok := strings.CutPrefix(f.draw(), topLeft)
		if !ok {
			t.Fatal("it does not begin at the top")
		}
		lines := strings.Split(strings.TrimSuffix(picture, restBelow), "\r\n")
		if len(lines) > max(f.height, 1) {
			t.Fatalf("%d lines on a terminal of %d", len(lines), f.height)
		}
		for _, l := range lines {
			l = strings.NewReplacer(bold, "", plain, "", restOfLine, "").Replace(l)
			if n := utf8.RuneCountInString(l); n > f.width {
				t.Fatalf("%d characters in a line of %d: %q", n, f.width, l)
			}
			if strings.ContainsAny(l, "\x1b\r\n\b\t") {
				t.Fatalf("a line that moves the cursor: %q", l)
			}
		}
	})
}

// watcher is a terminal on which somebody watches: sees is told of each picture.
type watcher struct {
	io.Reader // what is typed
	mu        sync.Mutex
	w, h      int
	all       strings.Builder
	raw       int // how often keys were made raw, less how often restored
	sees      func(picture string)
}

func (w *watcher) Write(b []byte) (int, error) {
	w.all.Write(b)
	if w.sees != nil {
		w.sees(string(b))
	}
	return len(b), nil
}

func (w *watcher) resize(width, height int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.w, w.h = width, height
}

func (w *watcher) size() (int, int, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w, w.h, true
}

func (w *watcher) run(t *testing.T, ctx context.Context, dir string, args ...string) {
	t.Helper()
	code := run(ctx, args, system{in: w.Reader, out: w, err: t.Output(), now: time.Now, screen: w.size,
		getenv:  func(name string) string { return map[string]string{"WARREN_STATE": dir}[name] },
		rawKeys: func() (func(), error) { w.raw++; return func() { w.raw-- }, nil }})
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if w.raw != 0 || !strings.HasPrefix(w.all.String(), enterScreen) || !strings.HasSuffix(w.all.String(), leaveScreen) {
		t.Errorf("the terminal was not left as it was: raw %d, ... %q", w.raw, w.all.String()[max(0, w.all.Len()-40):])
	}
}

// The live view follows the size of the terminal, and q or Ctrl-C ends it.
func TestTopLive(t *testing.T) {
	dir := t.TempDir()
	(&person{}).run(t, t.Context(), dir, "join", testCode(0, testNow.Add(time.Hour), false))
	for _, key := range []string{"q", "\x03", "\x1b[A???Q"} {
		in, keys := io.Pipe()
		w := &watcher{Reader: in, w: 100, h: 30}
		step := 0
		w.sees = func(picture string) {
			switch {
			case step == 0 && strings.Contains(picture, "home: 1 direct, 0 relayed, 1 without a path") && strings.Contains(picture, "phone"):
				step = 1
				w.resize(90, 5)
			case step == 1 && strings.Contains(picture, "and 2 more, with less traffic"):
				step = 2
				io.WriteString(keys, key)
			}
		}
		w.run(t, t.Context(), dir, "top", "-i", "10ms")
		if step != 2 {
			t.Errorf("key %q: the view ended at step %d", key, step)
		}
		keys.Close()
	}
}

// Outside of any network there is nothing to watch: a terminal is told what to do, and not taken.
func TestTopWithoutNetwork(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"create", "home"}, {"leave", "home", "--force", "--yes"}} {
		if p := (&person{}); p.run(t, t.Context(), dir, args...) != exitOK {
			t.Fatalf("%v: %s", args, p.err.String())
		}
	}
	w := &watcher{Reader: strings.NewReader("q"), w: 100, h: 30}
	code := run(t.Context(), []string{"top"}, system{in: w.Reader, out: w, err: t.Output(), now: time.Now, screen: w.size,
		getenv:  func(name string) string { return map[string]string{"WARREN_STATE": dir}[name] },
		rawKeys: func() (func(), error) { w.raw++; return func() {}, nil }})
	if code != exitOK || w.raw != 0 || w.all.String() != noNetworks {
		t.Errorf("exit code %d, keys made raw %d times, and %q", code, w.raw, w.all.String())
	}
}

// When the daemon ends the view says so, and goes on; a signal ends it, also when nothing can be typed.
func TestTopDaemonGone(t *testing.T) {
	dir := t.TempDir()
	(&person{}).run(t, t.Context(), dir, "join", testCode(0, testNow.Add(time.Hour), false))
	ctx, signal := context.WithCancel(t.Context())
	w := &watcher{Reader: strings.NewReader(""), w: 100, h: 30}
	stopped := false
	w.sees = func(picture string) {
		if !stopped && strings.Contains(picture, "bob") {
			stopped = true
			api.Dial(api.SocketPath(dir)).Stop(t.Context())
		}
		if strings.Contains(picture, "no news: the daemon is not running") && strings.Contains(picture, "bob") {
			signal()
		}
	}
	w.run(t, ctx, dir, "top", "-i", "10ms")
	if !stopped {
		t.Error("nothing was shown")
	}
}
