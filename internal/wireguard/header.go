package wireguard

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
)

// The hop header of a relayed datagram (spec/52-relay.md#sealing), between Warren's own nodes only:
//
//	05 | length of the header | form | place | receiver u32 | counter u64 | AEAD(more | header, AD = 05 length form 00) | tail ...
//
// It uses the keys, the counters and the replay window of the session. Type and form are additional data in both forms: a
// transport message has none in the stock form and others in the fast form, so neither can be taken for the other.
//
// One seal may be for more datagrams than one, each with its place, all else the same: then its counter is that of place 0,
// and those of the others follow it (spec/52-relay.md#shared-seals). The first byte of the header belongs to the seal.
const (
	typeRelay = 5
	placeAt   = 3

	// MaxHeader is the size of the largest hop header in bytes, with its first byte.
	MaxHeader = 255
	// MaxShare is the limit of datagrams under one seal.
	MaxShare = 64
)

// Sealed is an opened seal. The zero value is not one.
type Sealed struct {
	counter uint64 // of place 0
	share   uint64
}

// SealHeader makes the front of a relayed datagram in place: that at place 0 of share datagrams, 1 to MaxShare. The header is
// buf[16:16+n], of which the first byte is overwritten; what is written is the first 32+n bytes of buf, and the result is 32+n;
// what follows, the tail, is not looked at. It allocates nothing. Concurrent calls, also with those of Seal, never use one
// counter twice. The error is ErrExpired or ErrBuffer, as of [Keypair.Seal].
func (k *Keypair) SealHeader(now int64, buf []byte, n, share int) (int, error) {
	size := HeaderLen + n + TagLen
	if n < 1 || n > MaxHeader || size > len(buf) || share < 1 || share > MaxShare {
		return 0, ErrBuffer
	}
	c := k.ciphers.Load()
	if c == nil || k.expired(now) || k.counter.Load() >= RejectAfterMessages { // see Seal
		return 0, ErrExpired
	}
	counter := k.counter.Add(uint64(share)) - uint64(share)
	aead, form := c.stock.send, byte(0)
	if k.peer.fast.Load() {
		aead, form = c.fast.send, formFast
	}
	buf[0], buf[1], buf[2], buf[placeAt] = typeRelay, byte(n), form, 0
	buf[HeaderLen] = byte(share - 1)
	binary.LittleEndian.PutUint64(buf[8:], counter)
	aead.Seal(buf[HeaderLen:HeaderLen], nonceOf(buf), buf[HeaderLen:HeaderLen+n], buf[:4])
	binary.LittleEndian.PutUint32(buf[4:], k.remote)
	return size, nil
}

// ShareSeal copies front, what SealHeader wrote, to the beginning of another datagram, for place i below its share. Each place
// may be given once.
func ShareSeal(buf, front []byte, i int) {
	copy(buf, front)
	buf[placeAt] = byte(i)
}

// SameSeal reports whether two fronts of relayed datagrams, of one length, bear the same seal: if one opens, so would the other.
func SameSeal(a, b []byte) bool {
	tag := len(a) - TagLen
	return bytes.Equal(a[:placeAt], b[:placeAt]) && bytes.Equal(a[placeAt+1:tag], b[placeAt+1:tag]) && subtle.ConstantTimeCompare(a[tag:], b[tag:]) == 1
}

// OpenHeader authenticates and decrypts the hop header of a relayed datagram in place and returns it, msg[16:16+n], with 0 as
// its first byte; the tail, msg[32+n:], is untouched and not authenticated. That the datagram is no replay is not known until
// [Keypair.Take] says so, of it and of each other with this seal. It allocates nothing. The error is ErrMalformed, ErrExpired
// or ErrAuth, for all with this seal, and then msg is spoilt. The caller found k by the receiver index.
func (k *Keypair) OpenHeader(now int64, msg []byte) ([]byte, Sealed, error) {
	if len(msg) < HeaderLen+TagLen || msg[0] != typeRelay || msg[1] == 0 || msg[2] > formFast {
		return nil, Sealed{}, ErrMalformed
	}
	end := HeaderLen + int(msg[1]) + TagLen
	if len(msg) < end {
		return nil, Sealed{}, ErrMalformed
	}
	c := k.ciphers.Load()
	s := Sealed{counter: binary.LittleEndian.Uint64(msg[8:])}
	if c == nil || k.expired(now) || s.counter >= RejectAfterMessages {
		return nil, Sealed{}, ErrExpired
	}
	aead := c.stock.receive
	if msg[2] == formFast {
		aead = c.fast.receive
	}
	receiver, place := binary.LittleEndian.Uint32(msg[4:]), msg[placeAt]
	msg[placeAt] = 0
	header, err := aead.Open(msg[HeaderLen:HeaderLen], nonceOf(msg), msg[HeaderLen:end], msg[:4])
	binary.LittleEndian.PutUint32(msg[4:], receiver)
	msg[placeAt] = place
	if err != nil {
		return nil, Sealed{}, ErrAuth
	}
	if header[0] >= MaxShare {
		return nil, Sealed{}, ErrMalformed
	}
	s.share, header[0] = uint64(header[0])+1, 0
	return header, s, nil
}

// Take lets the datagram msg, which bears the seal s, through the replay window of the keypair that opened s: nil once for each
// place, then ErrReplay; ErrMalformed when the seal is for fewer.
func (k *Keypair) Take(s Sealed, msg []byte) error {
	place := uint64(msg[placeAt])
	if place >= s.share {
		return ErrMalformed
	}
	if !k.window.accept(s.counter + place) {
		return ErrReplay
	}
	return nil
}
