package wireguard

import "encoding/binary"

// The hop header of a relayed datagram (spec/52-relay.md#sealing), between Warren's own nodes only:
//
//	05 | length of the header | form | 00 | receiver u32 | counter u64 | AEAD(header, AD = the first four bytes) | tail ...
//
// It uses the keys, the counters and the replay window of the session. The first four bytes are additional data in both forms:
// a transport message has none in the stock form and others in the fast form, so neither can be taken for the other.
const (
	typeRelay = 5

	// MaxHeader is the size of the largest hop header in bytes.
	MaxHeader = 255
)

// SealHeader makes the front of a relayed datagram in place. The header is buf[16:16+n]; what is written is the first 32+n
// bytes of buf, and the result is 32+n; what follows, the tail, is not looked at. It allocates nothing. Concurrent calls, also
// with those of Seal, never use one counter twice. The error is ErrExpired or ErrBuffer, as of [Keypair.Seal].
func (k *Keypair) SealHeader(now int64, buf []byte, n int) (int, error) {
	size := HeaderLen + n + TagLen
	if n < 0 || n > MaxHeader || size > len(buf) {
		return 0, ErrBuffer
	}
	c := k.ciphers.Load()
	if c == nil || k.expired(now) || k.counter.Load() >= RejectAfterMessages { // see Seal
		return 0, ErrExpired
	}
	counter := k.counter.Add(1) - 1
	aead, form := c.stock.send, byte(0)
	if k.peer.fast.Load() {
		aead, form = c.fast.send, formFast
	}
	buf[0], buf[1], buf[2], buf[3] = typeRelay, byte(n), form, 0
	binary.LittleEndian.PutUint64(buf[8:], counter)
	aead.Seal(buf[HeaderLen:HeaderLen], nonceOf(buf), buf[HeaderLen:HeaderLen+n], buf[:4])
	binary.LittleEndian.PutUint32(buf[4:], k.remote)
	return size, nil
}

// OpenHeader authenticates and decrypts the hop header of a relayed datagram in place and returns it, msg[16:16+n]; the tail,
// msg[32+n:], is untouched and not authenticated. It allocates nothing. The error is ErrMalformed, ErrExpired, ErrAuth or
// ErrReplay, and then msg is spoilt. The caller found k by the receiver index.
func (k *Keypair) OpenHeader(now int64, msg []byte) ([]byte, error) {
	if len(msg) < HeaderLen+TagLen || msg[0] != typeRelay || msg[2] > formFast || msg[3] != 0 {
		return nil, ErrMalformed
	}
	end := HeaderLen + int(msg[1]) + TagLen
	if len(msg) < end {
		return nil, ErrMalformed
	}
	c := k.ciphers.Load()
	counter := binary.LittleEndian.Uint64(msg[8:])
	if c == nil || k.expired(now) || counter >= RejectAfterMessages {
		return nil, ErrExpired
	}
	aead := c.stock.receive
	if msg[2] == formFast {
		aead = c.fast.receive
	}
	receiver := binary.LittleEndian.Uint32(msg[4:])
	header, err := aead.Open(msg[HeaderLen:HeaderLen], nonceOf(msg), msg[HeaderLen:end], msg[:4])
	binary.LittleEndian.PutUint32(msg[4:], receiver)
	if err != nil {
		return nil, ErrAuth
	}
	if !k.window.accept(counter) {
		return nil, ErrReplay
	}
	return header, nil
}
