package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// daemonOptions is what `warren daemon` was told.
type daemonOptions struct {
	StateDir   string         // absolute
	ConfigPath string         // "" = none was named
	Level      *slog.LevelVar // what Log lets through
	LevelSet   bool           // by a flag, which then beats the config file
	Log        *slog.Logger   // to the standard error
}

func newDaemon(c *cli) *cobra.Command {
	var o daemonOptions
	level := "info"
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground: it brings up the networks of the state directory
and serves the other commands until it is interrupted. "create", "join" and "up"
start it by themselves; this is for service managers and for looking closely.
One daemon serves all networks of its state directory; several daemons can run on
one machine with different --state.`,
		Example: `  sudo warren daemon
  sudo warren daemon --state /srv/lab --log-level debug
  sudo warren daemon stop`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Level, o.LevelSet = new(slog.LevelVar), cmd.Flags().Changed("log-level")
			if err := o.Level.UnmarshalText([]byte(level)); err != nil {
				return usagef(cmd, "--log-level %q is not debug, info, warn or error", level)
			}
			o.StateDir = c.state
			o.Log = c.logger(o.Level)
			err := c.runDaemon(cmd.Context(), o)
			if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
				return nil // it was asked to end, and did
			}
			if err != nil {
				notStarted(err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.ConfigPath, "config", "", "configuration `FILE` (default: /etc/warren/warren.toml, or warren.toml in a --state directory, if there)")
	cmd.Flags().StringVar(&level, "log-level", level, "`LEVEL`: debug, info, warn or error")
	must(cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(newDaemonStop(c))
	return cmd
}

// logger writes to the standard error; the systemd journal adds the time itself.
func (c *cli) logger(level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if c.getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(c.err, o))
}

func newDaemonStop(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "End the daemon that runs",
		Long: `End the daemon that runs, and wait until it is gone. Networks that are up come up
again when it is started.`,
		Example: `  sudo warren daemon stop`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.client().Stop(cmd.Context()); err != nil {
				return err
			}
			return c.awaitEnd(cmd.Context())
		},
	}
}

// awaitEnd waits until no daemon answers.
func (c *cli) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := c.client().Status(ctx); errors.Is(err, api.ErrNotRunning) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return api.Errorf(api.CodeBusy, "the daemon was told to stop but still answers").Hintf("see its log: %s", logHint(c.state))
		}
	}
}
