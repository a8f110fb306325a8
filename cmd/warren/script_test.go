package main

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/host"
)

// TestMain lets the scripts run this binary as warren, with a fake node behind the daemon.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"warren": func() {
		time.Local = time.UTC
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		sys := realSystem()
		sys.now = func() time.Time { return testNow }
		sys.hostname = func() (string, error) { return os.Getenv("TEST_HOSTNAME"), nil }
		sys.runDaemon = runFakeDaemon
		if note := os.Getenv("TEST_NO_START"); note != "" {
			sys.startDaemon = func(context.Context, string) (string, error) { panic("the daemon was started: " + note) }
		}
		os.Exit(run(ctx, os.Args[1:], sys))
	}})
}

// ready tells whoever started the daemon that it serves.
func ready() { host.NotifyReady() }

// The stories of test/script, each with a state directory of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../test/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("WARREN_STATE", e.WorkDir+"/state")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second more under the race detector
			e.Setenv("TEST_HOSTNAME", "Alices-Mac.local")
			e.Defer(func() { api.Dial(api.SocketPath(e.WorkDir + "/state")).Stop(context.Background()) }) // when a script failed midway
			e.Setenv("CODE_DAY", testCode(0, testNow.Add(24*time.Hour), false))                           // what create and invite give
			e.Setenv("CODE", testCode(0, testNow.Add(time.Hour), false))
			e.Setenv("CODE_USED", testCode(1, testNow.Add(time.Hour), false))
			e.Setenv("CODE_NOBODY", testCode(2, testNow.Add(time.Hour), false))
			e.Setenv("CODE_REVOKED", testCode(3, testNow.Add(time.Hour), false))
			e.Setenv("CODE_POOL", testCode(4, testNow.Add(time.Hour), false))
			e.Setenv("CODE_APPROVE", testCode(5, testNow.Add(time.Hour), true))
			e.Setenv("CODE_EXPIRED", testCode(0, testNow.Add(-2*time.Hour), false))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "appears": appears},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0, nil
		},
	})
}

// appears waits until a file is there, which a program in the background makes: appears FILE.
func appears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("use: appears FILE")
	}
	end := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("there is no %s", args[0])
		}
	}
}

// exits runs warren and checks its exit code: exits 7 join CODE. Output is to be had as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("use: exits CODE ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("warren", args[1:]...)
	got := 0
	if e, ok := err.(interface{ ExitCode() int }); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("run warren: %v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
