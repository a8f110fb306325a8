package wireguard

import (
	"sync"

	"golang.zx2c4.com/wireguard/replay"
)

// window is the replay window of a keypair: 8128 counters behind the highest (spec/40-wireguard.md#replay). It is the
// one lock of the package: two workers may open packets of one keypair at a time, and the test and the mark must be
// one step. It is held for some nanoseconds and takes no other lock.
type window struct {
	mu     sync.Mutex
	filter replay.Filter
}

// accept marks counter as seen and reports whether it was new and not too far behind.
func (w *window) accept(counter uint64) bool {
	w.mu.Lock()
	ok := w.filter.ValidateCounter(counter, RejectAfterMessages)
	w.mu.Unlock()
	return ok
}
