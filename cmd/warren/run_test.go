package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
)

// person is somebody at a terminal: what they type, and a function that sees what the error stream shows.
type person struct {
	types string
	sees  func(text string)
	out   bytes.Buffer
	err   bytes.Buffer
}

func (p *person) Write(b []byte) (int, error) {
	if p.sees != nil {
		p.sees(string(b))
	}
	return p.err.Write(b)
}

// run runs one command against a daemon in dir, which is started when the command wants one.
func (p *person) run(t *testing.T, ctx context.Context, dir string, args ...string) int {
	return run(ctx, args, system{
		in: strings.NewReader(p.types), out: &p.out, err: p,
		getenv:   func(name string) string { return map[string]string{"WARREN_STATE": dir}[name] },
		now:      func() time.Time { return testNow },
		hostname: func() (string, error) { return "desk", nil },
		terminal: func() bool { return true },
		startDaemon: func(_ context.Context, dir string) (string, error) {
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- runFakeDaemon(ctx, daemonOptions{StateDir: dir, Log: slog.New(slog.DiscardHandler)}) }() // ends with the test
			t.Cleanup(func() {
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			return "started", nil
		},
	})
}

// A newcomer who waits for approval and interrupts is told that the daemon goes on.
func TestJoinInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	p := &person{sees: func(text string) {
		if strings.HasPrefix(text, "An admin must approve") {
			interrupt()
		}
	}}
	if code := p.run(t, ctx, t.TempDir(), "join", testCode(5, testNow.Add(time.Hour), true)); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(p.err.String(), "The daemon goes on waiting") {
		t.Errorf("shown: %s", p.err.String())
	}
}

// A person types or pastes the code, broken over lines or not, when asked.
func TestJoinAsks(t *testing.T) {
	p := &person{types: "  " + strings.ToUpper(testCode(0, testNow.Add(time.Hour), false)) + "\nmore\n"}
	if code := p.run(t, t.Context(), t.TempDir(), "join"); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.err.String())
	}
	if !strings.HasPrefix(p.err.String(), "Code: ") || !strings.Contains(p.out.String(), "This machine is desk in the network home.") {
		t.Errorf("shown: %s%s", p.err.String(), p.out.String())
	}
}

// A person at a terminal is asked before leaving; no answer means no.
func TestLeaveAsks(t *testing.T) {
	dir := t.TempDir()
	if code := (&person{}).run(t, t.Context(), dir, "create", "home"); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, no := range []string{"", "\n", "n\n", "yesterday\n"} {
		if code := (&person{types: no}).run(t, t.Context(), dir, "leave"); code != exitFailed {
			t.Errorf("%q: exit code %d", no, code)
		}
	}
	p := &person{types: "Y\n"}
	if code := p.run(t, t.Context(), dir, "leave"); code != exitOK || !strings.Contains(p.out.String(), "has left the network home") {
		t.Errorf("exit code %d: %s", code, p.out.String())
	}
}

// Ping ends with a summary when interrupted.
func TestPingInterrupted(t *testing.T) {
	dir := t.TempDir()
	(&person{}).run(t, t.Context(), dir, "join", testCode(0, testNow.Add(time.Hour), false))
	ctx, interrupt := context.WithCancel(t.Context())
	p := &person{}
	sys := &interruptAfter{p: p, lines: 3, stop: interrupt}
	code := run(ctx, []string{"ping", "bob", "-i", "10ms"}, system{out: sys, err: &p.err, now: time.Now,
		getenv: func(name string) string { return map[string]string{"WARREN_STATE": dir}[name] }})
	if code != exitOK || !strings.Contains(p.out.String(), "answered, 0% lost") {
		t.Errorf("exit code %d: %s%s", code, p.out.String(), p.err.String())
	}
}

// interruptAfter interrupts when so many lines have been shown.
type interruptAfter struct {
	p     *person
	lines int
	stop  func()
}

func (w *interruptAfter) Write(b []byte) (int, error) {
	if w.lines--; w.lines == 0 {
		w.stop()
	}
	return w.p.out.Write(b)
}

// What only the command line prints is in the specification too: spec/60-api.md#stability.
func TestOwnJSON(t *testing.T) {
	b, err := os.ReadFile("../../spec/60-api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{peersReply{}, networkPeers{}, pingReport{Name: "bob"}, pingProbe{}, versionReply{}, topReport{}, topPeer{Loss: api.ShareOf(0)}} {
		enc, err := json.Marshal(v)
		if err != nil || bytes.Contains(bytes.ReplaceAll(enc, []byte(`_ms":null`), nil), []byte("null")) {
			t.Errorf("%s: %v", enc, err)
		}
		for f := range reflect.TypeOf(v).Fields() {
			if name := f.Tag.Get("json"); !strings.Contains(string(b), "`"+name+"`") {
				t.Errorf("spec/60-api.md lacks `%s`", name)
			}
		}
	}
}

// Without permission for the state directory the answer says what to do.
func TestStateDirRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	if err := makeStateDir("/proc/warren"); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("got %v", err)
	}
}
