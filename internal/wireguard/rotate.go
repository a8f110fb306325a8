package wireguard

import "bytes"

// addCurrent takes a keypair of a handshake that we initiated: the peer has it already, so it is sent on at once.
// spec/40-wireguard.md#rotation
func (e *Engine) addCurrent(k *Keypair) {
	p := k.peer
	own := e.public
	switch crossed := p.next != nil; {
	case crossed && bytes.Compare(own[:], p.public[:]) > 0: // next stays: spec/40-wireguard.md#simultaneous
		e.remove(p.previous)
		p.previous = p.current
	case crossed:
		e.remove(p.current)
		e.remove(p.previous)
		p.previous, p.next = p.next, nil
	default:
		e.remove(p.previous)
		p.previous = p.current
	}
	p.current = k
	p.sending.Store(k)
	e.add(k)
}

// addNext takes a keypair of a handshake that we answered: the peer may never get the answer, so it is received on but
// not sent on until the peer has used it.
func (e *Engine) addNext(k *Keypair) {
	p := k.peer
	e.remove(p.next)
	e.remove(p.previous)
	p.next, p.previous = k, nil
	e.add(k)
}

// confirm makes next current, once something was received on it.
func (e *Engine) confirm(now int64, p *Peer) {
	k := p.next
	if k == nil || !k.heard.Load() {
		return
	}
	e.remove(p.previous)
	p.previous, p.current, p.next = p.current, k, nil
	p.sending.Store(k)
	e.settle(p)
	e.sessionUp(now, k)
}

func (e *Engine) sessionUp(now int64, k *Keypair) {
	p := k.peer
	p.lastHandshake.Store(now)
	p.jitter = e.drawJitter()
	rekey := p.up
	p.up = true
	e.emit(SessionUp{Peer: p, From: k.from, Rekey: rekey})
	e.log.Debug("session up", "peer", p.public, "initiator", k.initiator, "rekey", rekey)
}

// expire erases the keypairs that are too old (spec/40-wireguard.md#erasure).
func (e *Engine) expire(now int64, p *Peer) {
	for _, k := range []**Keypair{&p.previous, &p.current, &p.next} {
		if *k != nil && (*k).expired(now) {
			if *k == p.current {
				p.sending.Store(nil)
			}
			e.remove(*k)
			*k = nil
		}
	}
	if p.up && p.current == nil {
		e.sessionDown(p)
	}
}

// drop erases all keypairs of the peer.
func (e *Engine) drop(p *Peer) {
	p.sending.Store(nil)
	for _, k := range []*Keypair{p.previous, p.current, p.next} {
		e.remove(k)
	}
	p.previous, p.current, p.next = nil, nil, nil
	if p.up {
		e.sessionDown(p)
	}
}

func (e *Engine) sessionDown(p *Peer) {
	p.up = false
	e.emit(SessionDown{Peer: p})
	e.log.Debug("session down", "peer", p.public)
}

func (e *Engine) add(k *Keypair) {
	e.pairs[k.local] = k
	e.emit(KeypairAdded{Keypair: k})
}

// remove erases k, which may be nil.
func (e *Engine) remove(k *Keypair) {
	if k == nil {
		return
	}
	k.erase()
	delete(e.pairs, k.local)
	e.emit(KeypairRemoved{Keypair: k})
}
