package wireguard

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// The fast form of a transport message, between Warren's own nodes only (spec/40-wireguard.md#fast-form):
//
//	04 | 01 | marks | 00 | receiver u32 | counter u64 | AES-256-GCM(plaintext, AD = the first four bytes)
//
// Its keys are derived from those of the stock form, so that the two never share a key, and both forms draw from one counter,
// so that they never share a nonce either.
const (
	formFast  = 1
	fastLabel = "warren aes-256-gcm v1"
)

// Mark says something of the plaintext of a message in the fast form. It is authenticated.
type Mark uint8

// MarkPartial: the transport checksum of the IP packet is left to the receiver's host; its field holds the sum of the
// pseudo-header only (spec/40-wireguard.md#partial-checksums).
const MarkPartial Mark = 1

// ciphers holds the AEADs of a keypair for both forms of its messages. All have 12-byte nonces and 16-byte tags.
type ciphers struct{ stock, fast direction }

type direction struct{ send, receive cipher.AEAD }

func newCiphers(send, receive [32]byte) (*ciphers, error) {
	var c ciphers
	var err error
	for _, d := range []struct {
		key   [32]byte
		stock *cipher.AEAD
		fast  *cipher.AEAD
	}{{send, &c.stock.send, &c.fast.send}, {receive, &c.stock.receive, &c.fast.receive}} {
		if *d.stock, err = chacha20poly1305.New(d.key[:]); err != nil {
			return nil, fmt.Errorf("transport cipher: %w", err)
		}
		if *d.fast, err = newFast(d.key); err != nil {
			return nil, fmt.Errorf("fast transport cipher: %w", err)
		}
	}
	return &c, nil
}

// newFast makes the AEAD of the fast form from the key of the stock form.
func newFast(stock [32]byte) (cipher.AEAD, error) {
	k, err := fastKey(stock)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func fastKey(stock [32]byte) ([]byte, error) {
	return hkdf.Key(sha256.New, stock[:], nil, fastLabel, 32)
}
