package wireguard

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Handle takes a handshake message, types 1 to 3, that came from `from`. UnderLoad says that more messages come than
// can be handled: then a source must first prove its address by a cookie and is held to a rate
// (spec/40-wireguard.md#cookies). The error is the reason why the message was dropped; nothing but a cookie reply was
// then sent. Msg is not kept and not changed.
func (e *Engine) Handle(now time.Time, from netip.AddrPort, msg []byte, underLoad bool) error {
	ns := e.nanos(now)
	switch typ := messageType(msg); typ {
	case typeInitiation:
		if err := e.admit(ns, from, msg, underLoad); err != nil {
			return err
		}
		return e.handleInitiation(ns, from, msg)
	case typeResponse:
		p := e.waiting[receiverOf(msg, typ)]
		if p == nil {
			return ErrUnknown
		}
		if err := e.admit(ns, from, msg, underLoad); err != nil {
			return err
		}
		return e.handleResponse(ns, from, p, msg)
	case typeCookieReply:
		p := e.peerAt(receiverOf(msg, typ))
		if p == nil {
			return ErrUnknown
		}
		return p.jar.accept(ns, msg)
	}
	return ErrMalformed
}

// admit does what is cheap before what is dear: mac1, and under load mac2 and the rate of the source.
func (e *Engine) admit(now int64, from netip.AddrPort, msg []byte, underLoad bool) error {
	if !e.gate.validMAC1(msg) {
		return ErrMAC
	}
	if !underLoad {
		return nil
	}
	if !e.gate.validMAC2(now, from, msg) {
		reply, err := e.gate.reply(now, e.rand, from, msg)
		if err != nil {
			return err
		}
		e.emit(SendHandshake{To: from, Data: reply})
		return ErrCookie
	}
	if !e.limiter.allow(now, from.Addr()) {
		return ErrLimited
	}
	return nil
}

// handleInitiation answers an initiation and makes the keypair that the initiator will confirm.
func (e *Engine) handleInitiation(now int64, from netip.AddrPort, msg []byte) error {
	p, answer, keys, err := e.respond(noisePart(msg, typeInitiation), func(p *Peer, stamp timestamp) error {
		if !stamp.after(p.seenStamp) { // spec/40-wireguard.md#initiation-replay
			return ErrReplay
		}
		if since := now - p.lastInitiated; p.lastInitiated != 0 && since >= 0 && since < int64(FloodInterval) {
			return ErrFlood
		}
		p.seenStamp, p.lastInitiated = stamp, now
		return nil
	})
	if err != nil {
		return err
	}
	k, err := newKeypair(now, p, false, keys.responder, keys.initiator)
	if err != nil {
		return err
	}
	if k.local, err = e.drawIndex(); err != nil {
		return err
	}
	k.remote, k.from = senderOf(msg), from

	out := make([]byte, ResponseLen)
	binary.LittleEndian.PutUint32(out, typeResponse)
	binary.LittleEndian.PutUint32(out[4:], k.local)
	binary.LittleEndian.PutUint32(out[responseReceiver:], k.remote)
	copy(noisePart(out, typeResponse), answer)
	p.jar.sign(now, out)

	p.heard(now, len(msg))
	e.addNext(k)
	p.spoke(now, len(out))
	e.emit(SendHandshake{Peer: p, To: from, Data: out})
	e.log.Debug("answered initiation", "peer", p.public, "from", from)
	return nil
}

// handleResponse completes a handshake of ours.
func (e *Engine) handleResponse(now int64, from netip.AddrPort, p *Peer, msg []byte) error {
	keys, err := p.attempt.noise.finish(noisePart(msg, typeResponse))
	if err != nil {
		return err
	}
	k, err := newKeypair(now, p, true, keys.initiator, keys.responder)
	if err != nil {
		return err
	}
	k.local, k.remote, k.from = p.attempt.index, senderOf(msg), from
	e.settle(p)
	p.heard(now, len(msg))
	e.addCurrent(k)
	e.sessionUp(now, k)
	e.emit(SendKeepalive{Peer: p}) // the responder may not send before it hears from us
	return nil
}

// sendInitiation starts one handshake, in place of the one that may be out.
func (e *Engine) sendInitiation(now time.Time, ns int64, p *Peer) error {
	e.recall(p)
	p.sentStamp = stampAfter(p.sentStamp, now)
	state, part, err := e.initiate(p, p.sentStamp)
	if err != nil {
		return err
	}
	index, err := e.drawIndex()
	if err != nil {
		return fmt.Errorf("send initiation: %w", err)
	}
	out := make([]byte, InitiationLen)
	binary.LittleEndian.PutUint32(out, typeInitiation)
	binary.LittleEndian.PutUint32(out[4:], index)
	copy(noisePart(out, typeInitiation), part)
	p.jar.sign(ns, out)

	p.attempt.index, p.attempt.noise = index, state
	p.attempt.retryAt = ns + int64(RekeyTimeout) + e.drawJitter()
	e.waiting[index] = p
	p.spoke(ns, len(out))
	e.emit(SendHandshake{Peer: p, Data: out})
	return nil
}

// recall gives up the initiation that is out, if one is.
func (e *Engine) recall(p *Peer) {
	if p.attempt.noise == nil {
		return
	}
	delete(e.waiting, p.attempt.index)
	p.attempt.noise.discard()
	p.attempt.noise = nil
}

// settle ends the attempt at a session.
func (e *Engine) settle(p *Peer) {
	e.recall(p)
	p.attempt = attempt{}
}

// heard records an authenticated handshake message from the peer.
func (p *Peer) heard(now int64, bytes int) {
	p.rx.Add(uint64(bytes))
	p.lastReceived.Store(now)
	p.awaits.Store(0)
}

// spoke records a handshake message to the peer.
func (p *Peer) spoke(now int64, bytes int) {
	p.tx.Add(uint64(bytes))
	p.lastSent = now
	p.owes.Store(0)
}
