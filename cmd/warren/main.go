// Command warren joins machines into a private, encrypted network without a server. This package holds the words and
// flags of the command line and how things are shown; what they do is done by the daemon, over the local API
// (spec/60-api.md), and by package node, which `warren daemon` runs.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], realSystem())
	stop()
	os.Exit(code)
}

// system is what the commands use of the machine; tests replace parts.
type system struct {
	in          io.Reader
	out, err    io.Writer
	getenv      func(string) string
	now         func() time.Time
	hostname    func() (string, error)
	terminal    func() bool                         // in is a terminal: a person types
	screen      func() (width, height int, ok bool) // of out, in characters; false: it is no terminal
	rawKeys     func() (restore func(), err error)  // makes in hand over each key at once
	startDaemon func(ctx context.Context, stateDir string) (note string, err error)
	runDaemon   func(ctx context.Context, o daemonOptions) error
}

func realSystem() system {
	return system{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv:      os.Getenv,
		now:         time.Now,
		hostname:    os.Hostname,
		terminal:    func() bool { return term.IsTerminal(int(os.Stdin.Fd())) },
		screen:      screenSize,
		rawKeys:     rawKeys,
		startDaemon: startDaemon,
		runDaemon:   runDaemon,
	}
}
