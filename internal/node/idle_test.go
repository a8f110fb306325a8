package node

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/testnet"
)

// idleBudget is what two members without anything to say may send each other in a day, in both directions together, in
// bytes with IP and UDP headers. spec/51-path.md#idle-budget
const idleBudget = 600_000

// bill counts what is sent in a world, with IP and UDP headers, until it is read.
type bill struct {
	mu    sync.Mutex // guards what follows
	bytes int
	count map[string]int // datagrams by type and size
}

func (w *world) bill() *bill {
	b := &bill{count: map[string]int{}}
	w.net.Tap(func(p testnet.Packet) {
		size := 28 + len(p.Data)
		if p.To.Addr().Is6() {
			size += 20
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.bytes += size
		b.count[fmt.Sprintf("type %d of %4d bytes", p.Data[0], size)]++
	})
	return b
}

// read returns what was sent since the last call.
func (b *bill) read(w *world) (bytes int, count map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bytes, count = b.bytes, b.count
	b.bytes, b.count = 0, map[string]int{}
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		w.Logf("%s: %d", kind, count[kind])
	}
	w.Logf("%d bytes", bytes)
	return bytes, count
}

// Two members that are in touch and silent: real sessions, gossip, link states, pings. The first hours do not count, in which
// pauses are stretched step by step.
//
// spec/51-path.md#idle-budget
func TestTwoIdleMembersCostLittle(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
		a, b := w.machine("a"), w.machine("b")
		b.join(a.create("home"))
		a.reaches(b)
		sent := w.bill()
		testnet.Wait(3 * time.Hour)
		sent.read(w)
		testnet.Wait(12 * time.Hour)
		bytes, count := sent.read(w)
		if 2*bytes > idleBudget {
			w.Errorf("two idle members cost %d bytes in a day, want at most %d", 2*bytes, idleBudget)
		}
		if n := count["type 2 of  120 bytes"] + count["type 2 of  140 bytes"]; n < 12*60*60/170 || n > 12*60*60/120 {
			w.Errorf("%d handshakes in 12 hours, want one in 120 to 170 s: a session that ended, or needless ones", n)
		}
	})
}

// In a network of three, where the neighbours of each take turns in asking for it, a node that is idle sends no peer more than
// the budget.
//
// spec/51-path.md#idle-budget, spec/51-path.md#timers, spec/54-routes.md#watch
func TestThreeIdleMembersCostLittle(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
		a, b, c := w.machine("a"), w.machine("b"), w.machine("c")
		b.join(a.create("home"))
		c.join(a.invite(1))
		a.reaches(b)
		b.reaches(c)
		testnet.Wait(3 * time.Hour)
		sent := w.bill()
		testnet.Wait(12 * time.Hour)
		bytes, _ := sent.read(w)
		const pairs = 3 * 2
		w.Logf("%d bytes a day from each to each", 2*bytes/pairs)
		if 2*bytes/pairs > idleBudget {
			w.Errorf("a node sends an idle peer %d bytes a day, want at most %d", 2*bytes/pairs, idleBudget)
		}
	})
}
