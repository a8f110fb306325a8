package host

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

const (
	debounce = 200 * time.Millisecond
	// pauseFactor times what a look at the system took must pass until the next one, so that a router with a million
	// routes does not spend its day looking.
	pauseFactor = 20
)

// Watch blocks until ctx ends, and then returns nil. It calls changed, from this goroutine, when an address, link or
// route of this machine is not what it was, 200 ms after the first sign of it so that a burst is one call. Interfaces
// that ignore names (our own tunnels; nil: none) do not count. An error means that the system cannot be watched.
func Watch(ctx context.Context, ignore func(iface string) bool, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wake, poll, wait, err := signs(ctx)
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	defer wait()   // until the source of wake is gone
	defer cancel() // which this makes it do
	w := watcher{wake: wake, poll: poll, changed: changed, look: func() (picture, error) { return look(ignore) }}
	if err := w.run(ctx); err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	return nil
}

// picture is a fingerprint of the network as peers and we see it.
type picture [sha256.Size]byte

// watcher tells changes that matter from messages that say nothing new, as IPv6 routers cause every few seconds.
type watcher struct {
	wake    <-chan struct{} // something may have changed; closed when its source failed
	poll    time.Duration   // look this often even without a sign
	look    func() (picture, error)
	changed func()
}

func (w watcher) run(ctx context.Context) error {
	last, err := w.look()
	if err != nil {
		return err
	}
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	wake := w.wake
	for pause := debounce; ; {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-wake:
			if !ok {
				wake = nil // polling goes on
			}
		case <-poll.C:
		}
		if !sleep(ctx, pause) {
			return nil
		}
		select { // what came while we waited is seen now
		case <-wake:
		default:
		}
		start := time.Now()
		next, err := w.look()
		pause = max(debounce, pauseFactor*time.Since(start))
		if err == nil && next != last { // on an error: the next sign or poll tries again
			last = next
			w.changed()
		}
	}
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// look takes a picture of all but the ignored interfaces.
func look(ignore func(iface string) bool) (picture, error) {
	addrs, err := readAddrs()
	if err != nil {
		return picture{}, err
	}
	routes, err := readRoutes()
	if err != nil {
		routes = nil // addresses are most of it
	}
	return paint(addrs, routes, ignore), nil
}

// paint is the pure part of look: the order in which the system lists things does not matter.
func paint(addrs []hostAddr, routes []hostRoute, ignore func(iface string) bool) picture {
	var lines []string
	for _, a := range addrs {
		if a.live && rank(a.prefix.Addr()) != 0 && (ignore == nil || !ignore(a.iface)) {
			lines = append(lines, fmt.Sprintf("a %s %s", a.iface, a.prefix))
		}
	}
	for _, r := range routes {
		if ignore == nil || !ignore(r.iface) {
			lines = append(lines, fmt.Sprintf("r %s %s %s %d", r.iface, r.dst, r.via, r.metric))
		}
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range lines {
		fmt.Fprintln(h, l)
	}
	return picture(h.Sum(nil))
}
