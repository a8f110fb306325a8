package node

import "time"

const (
	sleepLeast = 30 * time.Second // that the control loop did not run, to count as sleep
	stoodLeast = time.Second      // by which clocks must differ, for ours to have stood still
)

// rest is when the control loop ran last, and when it wanted to run again.
type rest struct {
	at, due time.Time
	up      time.Duration // Platform.Uptime at that moment
}

// uptime is the time that passes while the machine sleeps, too.
func (n *Node) uptime(now time.Time) time.Duration {
	if n.sys.Uptime == nil {
		return now.Sub(n.started)
	}
	return n.sys.Uptime()
}

// noticeSleep finds out that the machine slept, or that this process was stopped, since the loop ran last. Then all that is known
// of the network is old: it is learnt anew as when addresses change, and sessions are renewed (spec/40-wireguard.md#sleep).
func (n *Node) noticeSleep(now time.Time) {
	up, last := n.uptime(now), n.rest
	n.rest.at, n.rest.up = now, up
	if last.at.IsZero() {
		return
	}
	passed := up - last.up
	if passed-last.due.Sub(last.at) < sleepLeast {
		return
	}
	stood := passed - now.Sub(last.at)
	if stood < stoodLeast {
		stood = 0
	}
	n.log.Info("this machine was asleep, or the daemon was stopped", "for", passed.Round(time.Second))
	for _, w := range n.networks {
		if w.mesh != nil {
			w.mesh.slept(now, stood)
		}
	}
	n.hostChanged()
	for _, w := range n.networks {
		if w.mesh != nil {
			w.mesh.callLinked(now)
		}
	}
}

// slept lets the sessions age.
func (m *mesh) slept(now time.Time, stood time.Duration) {
	m.wg.Slept(now, stood)
	m.effects(now)
}

// callLinked calls all with whom a session is to be kept up and is not.
func (m *mesh) callLinked(now time.Time) {
	for _, p := range m.peers {
		if p.linked && !p.talks {
			p.backoff = 0
			m.call(now, p)
		}
	}
	m.houseAt = now
}
