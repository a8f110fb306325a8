package dataplane

import (
	"runtime"
	"sync"
)

// maxWorkers is the limit of goroutines that share one socket or one TUN device. Reads and writes are one at a time, so more
// than a read, a write and two that seal or open find nothing to do.
const maxWorkers = 4

// cpus returns how many CPUs there are for this process, or may be used at a time if that is less.
func cpus() int { return min(runtime.NumCPU(), runtime.GOMAXPROCS(0)) }

// workersFor returns how many goroutines share a socket or device on a machine with so many CPUs. Both directions, the other
// daemons and the applications want CPUs too: on two CPUs a second worker only costs.
func workersFor(cpus int) int { return min(max(cpus/2, 1), maxWorkers) }

// line lets several workers share one stream of packets and keep its order: whoever reads next takes the next ticket, and
// output leaves in the order of the tickets. Between the two, workers seal and open at the same time.
//
//	worker 1  read 0 |open 0      |write 0| read 2 ...
//	worker 2         |read 1|open 1       |write 1| ...
type line struct {
	reading chan struct{} // holds one token: who has it may read
	tickets uint64        // given out; guarded by the token

	mu    sync.Mutex
	turn  uint64     // the ticket that may write now; guarded by mu
	moved *sync.Cond // turn has changed
}

func newLine() *line {
	l := &line{reading: make(chan struct{}, 1)}
	l.reading <- struct{}{}
	l.moved = sync.NewCond(&l.mu)
	return l
}

// take waits until nobody else reads.
func (l *line) take() { <-l.reading }

// give lets the next one read, and returns the ticket for what was read.
func (l *line) give() (ticket uint64) {
	ticket = l.tickets
	l.tickets++
	l.reading <- struct{}{}
	return ticket
}

// await waits until everything that was read before ticket has been written.
func (l *line) await(ticket uint64) {
	l.mu.Lock()
	for l.turn != ticket {
		l.moved.Wait()
	}
	l.mu.Unlock()
}

// done ends ticket, once its turn has come.
func (l *line) done(ticket uint64) {
	l.mu.Lock()
	for l.turn != ticket {
		l.moved.Wait()
	}
	l.turn++
	l.mu.Unlock()
	l.moved.Broadcast()
}
