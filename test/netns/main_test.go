//go:build linux

// Package netns tests Warren as its users run it: the built binary, in network namespaces, on the real kernel. Each test is
// a story with its topology drawn above it; package lab builds the topology. The tests skip without root or /dev/net/tun.
package netns

import (
	"os"
	"testing"

	"github.com/warren-vpn/warren/test/netns/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }
