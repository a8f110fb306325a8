package wireguard

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
)

// Keypair is the two keys of one session. Its methods may be called from any goroutine.
type Keypair struct {
	// Written once, before the keypair is published.
	peer          *Peer
	local, remote uint32
	initiator     bool           // we sent the initiation
	from          netip.AddrPort // where the handshake message that made it came from

	created atomic.Int64            // moved back by the time that the clock stood still: see [Engine.Slept]
	ciphers atomic.Pointer[ciphers] // nil: erased
	asked   atomic.Int64            // when NoticeRekey was last given, 0 for never
	heard   atomic.Bool             // something was received on it

	_       [64]byte      // sending and receiving workers write different cache lines
	counter atomic.Uint64 // of the next message to send
	_       [64]byte
	window  window
}

func newKeypair(now int64, p *Peer, initiator bool, send, receive [32]byte) (*Keypair, error) {
	c, err := newCiphers(send, receive)
	if err != nil {
		return nil, err
	}
	k := &Keypair{peer: p, initiator: initiator}
	k.created.Store(now)
	k.ciphers.Store(c)
	return k, nil
}

// LocalIndex returns the receiver index of the packets that the peer sends us.
func (k *Keypair) LocalIndex() uint32 { return k.local }

// Peer returns the peer at the other end, never nil.
func (k *Keypair) Peer() *Peer { return k.peer }

// Seal makes a transport message in place. The plaintext, already padded, is buf[16:16+n]; the message is the first
// 32+n bytes of buf, whose capacity must be at least that; the result is 32+n. It allocates nothing. Concurrent calls
// never use one counter twice. The error is ErrExpired (the caller stages the packet and gives the engine a
// NoticeRekey) or ErrBuffer.
//
// To a peer that takes them ([Peer.SetFast]) the message has the fast form, which carries marks; to others marks must be 0
// (spec/40-wireguard.md#fast-form).
func (k *Keypair) Seal(now int64, buf []byte, n int, marks Mark) (int, error) {
	size := HeaderLen + n + TagLen
	if n < 0 || size > cap(buf) {
		return 0, ErrBuffer
	}
	c := k.ciphers.Load()
	// Look before counting: refused calls must not carry the counter around to zero (spec/40-wireguard.md#limits).
	if c == nil || k.expired(now) || k.counter.Load() >= RejectAfterMessages {
		return 0, ErrExpired
	}
	counter := k.counter.Add(1) - 1
	buf = buf[:size]
	binary.LittleEndian.PutUint32(buf, typeTransport)
	binary.LittleEndian.PutUint64(buf[8:], counter)
	if k.peer.fast.Load() {
		buf[1], buf[2] = formFast, byte(marks)
		c.fast.send.Seal(buf[HeaderLen:HeaderLen], nonceOf(buf), buf[HeaderLen:HeaderLen+n], buf[:4])
	} else {
		c.stock.send.Seal(buf[HeaderLen:HeaderLen], nonceOf(buf), buf[HeaderLen:HeaderLen+n], nil)
	}
	binary.LittleEndian.PutUint32(buf[4:], k.remote)
	return size, nil
}

// Open authenticates and decrypts a transport message in place and returns its plaintext, a part of msg, still padded;
// it is empty for a keepalive. It allocates nothing. The error is ErrMalformed, ErrExpired, ErrAuth or ErrReplay, and
// then msg is spoilt. The caller found k by the receiver index. Marks are those of a message in the fast form.
func (k *Keypair) Open(now int64, msg []byte) (plain []byte, marks Mark, err error) {
	if len(msg) < HeaderLen+TagLen || msg[0] != typeTransport || msg[3] != 0 {
		return nil, 0, ErrMalformed
	}
	c := k.ciphers.Load()
	counter := binary.LittleEndian.Uint64(msg[8:])
	if c == nil || k.expired(now) || counter >= RejectAfterMessages {
		return nil, 0, ErrExpired
	}
	receiver := binary.LittleEndian.Uint32(msg[4:])
	switch {
	case msg[1] == formFast:
		marks = Mark(msg[2])
		plain, err = c.fast.receive.Open(msg[HeaderLen:HeaderLen], nonceOf(msg), msg[HeaderLen:], msg[:4])
	case msg[1] == 0 && msg[2] == 0:
		plain, err = c.stock.receive.Open(msg[HeaderLen:HeaderLen], nonceOf(msg), msg[HeaderLen:], nil)
	default:
		return nil, 0, ErrMalformed
	}
	binary.LittleEndian.PutUint32(msg[4:], receiver)
	if err != nil {
		return nil, 0, ErrAuth
	}
	if !k.window.accept(counter) {
		return nil, 0, ErrReplay
	}
	return plain, marks, nil
}

// nonceOf turns the header of msg into the nonce, 4 zero bytes and the counter, and returns it. It clears the receiver
// index, which the caller writes back. A nonce on the stack would escape through the interface and cost an allocation.
func nonceOf(msg []byte) []byte {
	binary.LittleEndian.PutUint32(msg[4:], 0)
	return msg[4:HeaderLen]
}

// expired reports whether the keypair is too old to be used.
func (k *Keypair) expired(now int64) bool { return now-k.created.Load() >= int64(RejectAfterTime) }

// stale reports whether the time has come to ask for a new session on sending (spec/40-wireguard.md#rekey).
func (k *Keypair) stale(now int64) bool {
	return k.initiator && now-k.created.Load() >= int64(RekeyAfterTime) || k.counter.Load() > RekeyAfterMessages
}

// ask reports whether a NoticeRekey is due: not more often than once in askInterval, by whichever worker.
func (k *Keypair) ask(now int64) bool {
	last := k.asked.Load()
	return (last == 0 || now-last >= int64(askInterval)) && k.asked.CompareAndSwap(last, now)
}

// erase makes the keypair useless at once, also to workers that hold it, and drops the only references to the keys.
func (k *Keypair) erase() { k.ciphers.Store(nil) }
