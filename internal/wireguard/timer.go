package wireguard

import "time"

// Initiate says that a session with p is wanted: there is none, or nothing comes back on it. It does nothing while a
// handshake is under way. The first initiation is sent at once, but 5 s after the last handshake message to p at the
// earliest; it is repeated until a session is up or 90 s have gone (SessionDown). spec/40-wireguard.md#retry
func (e *Engine) Initiate(now time.Time, p *Peer) {
	if p.removed || p.attempt.since != 0 {
		return
	}
	ns := e.nanos(now)
	p.attempt = attempt{since: ns}
	if since := ns - p.lastSent; p.lastSent != 0 && since >= 0 && since < int64(RekeyTimeout) {
		p.attempt.retryAt = p.lastSent + int64(RekeyTimeout)
		return
	}
	e.try(now, ns, p)
}

// try sends an initiation, or gives up a peer whose static key is none.
func (e *Engine) try(now time.Time, ns int64, p *Peer) {
	if err := e.sendInitiation(now, ns, p); err != nil {
		e.log.Warn("cannot initiate", "peer", p.public, "err", err)
		e.giveUp(p)
	}
}

func (e *Engine) giveUp(p *Peer) {
	e.settle(p)
	e.sessionDown(p)
}

// Notice takes what [Peer.Sent] or [Peer.Received] returned. A worker whose Seal said ErrExpired reports NoticeRekey.
func (e *Engine) Notice(now time.Time, p *Peer, n Notice) {
	if p.removed {
		return
	}
	ns := e.nanos(now)
	if n&NoticeConfirm != 0 {
		e.confirm(ns, p)
	}
	if k := p.current; n&NoticeRekey != 0 && (k == nil || k.stale(ns) || k.expired(ns)) {
		e.Initiate(now, p)
	}
}

// Tick does what time has made due, and returns when it wants to be called next; the zero time when there is nothing
// to wait for. While a keypair lives that is within a second, because workers can start timers. Any other call of the
// engine can bring that time nearer: the owner then calls Tick again, within a second, which is exact enough for timers
// of 5 s and more.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	ns := e.nanos(now)
	e.limiter.sweep(ns)
	var wake int64
	for _, p := range e.order {
		if due := e.tickPeer(now, ns, p); due != 0 && (wake == 0 || due < wake) {
			wake = due
		}
	}
	if wake == 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(max(0, wake-ns)))
}

// tickPeer does what is due with one peer and returns when the next thing may be, 0 for never.
func (e *Engine) tickPeer(now time.Time, ns int64, p *Peer) (due int64) {
	at := func(t int64) {
		if due == 0 || t < due {
			due = t
		}
	}
	e.confirm(ns, p)
	e.expire(ns, p)

	// Unanswered data: the peer is gone or has lost the session (spec/40-wireguard.md#unanswered).
	if t := p.awaits.Load(); t != 0 {
		if t += int64(NewHandshakeTime) + p.jitter; t <= ns {
			p.awaits.Store(0)
			p.jitter = e.drawJitter()
			e.Initiate(now, p)
		} else {
			at(t)
		}
	}
	// Data to answer: the peer wants to know that we live (spec/40-wireguard.md#keepalive).
	if t := p.owes.Load(); t != 0 {
		if t += int64(KeepaliveTimeout); t <= ns {
			p.owes.Store(0)
			if p.current != nil {
				e.emit(SendKeepalive{Peer: p})
			}
		} else {
			at(t)
		}
	}
	if a := &p.attempt; a.since != 0 && a.retryAt <= ns {
		if ns-a.since >= int64(RekeyAttemptTime) {
			e.log.Debug("handshake given up", "peer", p.public)
			e.giveUp(p)
		} else {
			e.try(now, ns, p)
		}
	}
	if p.attempt.since != 0 {
		at(p.attempt.retryAt)
	}
	for _, k := range []*Keypair{p.previous, p.current, p.next} {
		if k != nil {
			at(min(ns+int64(maxTick), k.created.Load()+int64(RejectAfterTime)))
		}
	}
	return due
}

// Slept says that nothing was done for a while, as when the machine slept, and that the clock of now stood still for a part of
// it, which may be 0. Keypairs grow older by that part; those that are too old are erased, and with whom the newest is near its
// end a handshake begins at once (spec/40-wireguard.md#sleep).
func (e *Engine) Slept(now time.Time, stood time.Duration) {
	ns := e.nanos(now)
	for _, p := range e.order {
		for _, k := range []*Keypair{p.previous, p.current, p.next} {
			if k != nil {
				k.created.Add(-int64(stood))
			}
		}
		p.lastSent = 0    // an answer to what had waited since long ago must not delay our own question
		p.awaits.Store(0) // what was not answered was sent before
		p.owes.Store(0)
		e.expire(ns, p)
		switch k := p.current; {
		case p.attempt.since != 0: // the last try was before
			p.attempt.since, p.attempt.retryAt = ns, ns
		case k != nil && ns-k.created.Load() >= int64(RekeyOnReceive):
			e.Initiate(now, p)
		}
	}
}
