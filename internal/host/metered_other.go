//go:build !linux

package host

import "context"

// WatchMetered blocks until ctx ends. Whether this machine pays for what it sends is known on Linux only.
func WatchMetered(ctx context.Context, _ func(metered bool)) { <-ctx.Done() }
