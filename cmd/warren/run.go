package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/config"
	"github.com/warren-vpn/warren/internal/node"
)

const configName = "warren.toml"

// runDaemon runs a node and its API until ctx ends. It is the one place where the command line meets package node. Whoever
// started the daemon hears by the host's means that it is ready, or why it is not.
func runDaemon(ctx context.Context, o daemonOptions) error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // one waits for datagrams inside of a system call: see package dataplane
	}
	n, l, group, err := openDaemon(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var served error
	wg.Go(func() { // ends with ctx, which ends when the node does
		served = api.NewServer(n, group, o.Log).Run(ctx, l)
		cancel()
	})
	daemonReady()
	err = n.Run(ctx)
	cancel()
	wg.Wait()
	return errors.Join(err, served)
}

// openDaemon reads the config file, opens the node and makes the API socket.
func openDaemon(o daemonOptions) (*node.Node, net.Listener, string, error) {
	cfg, err := readConfig(o)
	if err != nil {
		return nil, nil, "", err
	}
	if !o.LevelSet {
		o.Level.Set(cfg.Daemon.LogLevel)
	}
	n, err := node.New(node.Options{StateDir: o.StateDir, Config: cfg, Version: buildVersion(), Log: o.Log})
	if err != nil {
		return nil, nil, "", daemonError(err)
	}
	l, err := api.Listen(o.StateDir)
	if err != nil {
		return nil, nil, "", errors.Join(err, n.Close())
	}
	return n, l, cfg.Daemon.Group, nil
}

// readConfig reads the config file, which need not be there unless it was named.
func readConfig(o daemonOptions) (config.Config, error) {
	path := o.ConfigPath
	if path == "" {
		path = defaultConfig(o.StateDir)
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && o.ConfigPath == "" {
		return config.Defaults(), nil
	}
	if err != nil {
		return config.Config{}, fmt.Errorf("read the config file: %w", err)
	}
	cfg, err := config.Parse(b)
	if err != nil {
		return config.Config{}, api.Errorf(api.CodeBadRequest, "the config file %s is not right:\n%v", path, err).Hintf("mend it, or move it away: everything has a default")
	}
	return cfg, nil
}

// defaultConfig returns where the config file of a state directory is.
func defaultConfig(stateDir string) string {
	if stateDir == defaultState {
		return filepath.Join("/etc/warren", configName)
	}
	return filepath.Join(stateDir, configName)
}

// daemonError puts codes on the errors of a daemon that does not start.
func daemonError(err error) error {
	if _, ok := errors.AsType[*node.LockedError](err); ok {
		return api.Errorf(api.CodeAlreadyRunning, "%v", err).Hintf("use it: warren status; or give this one a directory of its own: --state DIR")
	}
	if errors.Is(err, node.ErrPortTaken) {
		return api.Errorf(api.CodeAddressInUse, "%v", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return api.Errorf(api.CodeDenied, "%v", err).Hintf("run it as root: sudo warren daemon")
	}
	return err
}
