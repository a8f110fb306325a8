package wireguard

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// Keypair is the two keys of one session. Its methods may be called from any goroutine.
type Keypair struct {
	// Written once, before the keypair is published.
	peer          *Peer
	local, remote uint32
	initiator     bool // we sent the initiation
	created       int64
	from          netip.AddrPort // where the handshake message that made it came from

	ciphers atomic.Pointer[ciphers] // nil: erased
	asked   atomic.Int64            // when NoticeRekey was last given, 0 for never
	heard   atomic.Bool             // something was received on it

	_       [64]byte      // sending and receiving workers write different cache lines
	counter atomic.Uint64 // of the next message to send
	_       [64]byte
	window  window
}

// ciphers is the seam for a second transport cipher: a pair of AEADs for each value of the message's second byte.
// All have 12-byte nonces and 16-byte tags.
type ciphers struct{ send, receive cipher.AEAD }

func newKeypair(now int64, p *Peer, initiator bool, send, receive [32]byte) (*Keypair, error) {
	s, err := chacha20poly1305.New(send[:])
	if err != nil {
		return nil, fmt.Errorf("sending cipher: %w", err)
	}
	r, err := chacha20poly1305.New(receive[:])
	if err != nil {
		return nil, fmt.Errorf("receiving cipher: %w", err)
	}
	k := &Keypair{peer: p, initiator: initiator, created: now}
	k.ciphers.Store(&ciphers{send: s, receive: r})
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
func (k *Keypair) Seal(now int64, buf []byte, n int) (int, error) {
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
	c.send.Seal(buf[HeaderLen:HeaderLen], nonceOf(buf), buf[HeaderLen:HeaderLen+n], nil)
	binary.LittleEndian.PutUint32(buf[4:], k.remote)
	return size, nil
}

// Open authenticates and decrypts a transport message in place and returns its plaintext, a part of msg, still padded;
// it is empty for a keepalive. It allocates nothing. The error is ErrMalformed, ErrExpired, ErrAuth or ErrReplay, and
// then msg is spoilt. The caller found k by the receiver index.
func (k *Keypair) Open(now int64, msg []byte) ([]byte, error) {
	if len(msg) < HeaderLen+TagLen || binary.LittleEndian.Uint32(msg) != typeTransport {
		return nil, ErrMalformed
	}
	c := k.ciphers.Load()
	counter := binary.LittleEndian.Uint64(msg[8:])
	if c == nil || k.expired(now) || counter >= RejectAfterMessages {
		return nil, ErrExpired
	}
	receiver := binary.LittleEndian.Uint32(msg[4:])
	plain, err := c.receive.Open(msg[HeaderLen:HeaderLen], nonceOf(msg), msg[HeaderLen:], nil)
	binary.LittleEndian.PutUint32(msg[4:], receiver)
	if err != nil {
		return nil, ErrAuth
	}
	if !k.window.accept(counter) {
		return nil, ErrReplay
	}
	return plain, nil
}

// nonceOf turns the header of msg into the nonce, 4 zero bytes and the counter, and returns it. It clears the receiver
// index, which the caller writes back. A nonce on the stack would escape through the interface and cost an allocation.
func nonceOf(msg []byte) []byte {
	binary.LittleEndian.PutUint32(msg[4:], 0)
	return msg[4:HeaderLen]
}

// expired reports whether the keypair is too old to be used.
func (k *Keypair) expired(now int64) bool { return now-k.created >= int64(RejectAfterTime) }

// stale reports whether the time has come to ask for a new session on sending (spec/40-wireguard.md#rekey).
func (k *Keypair) stale(now int64) bool {
	return k.initiator && now-k.created >= int64(RekeyAfterTime) || k.counter.Load() > RekeyAfterMessages
}

// ask reports whether a NoticeRekey is due: not more often than once in askInterval, by whichever worker.
func (k *Keypair) ask(now int64) bool {
	last := k.asked.Load()
	return (last == 0 || now-last >= int64(askInterval)) && k.asked.CompareAndSwap(last, now)
}

// erase makes the keypair useless at once, also to workers that hold it, and drops the only references to the keys.
func (k *Keypair) erase() { k.ciphers.Store(nil) }
