package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/chacha20poly1305"
)

// Masking hides from outsiders what datagrams are (spec/75-mask.md): of transport messages the first 16 bytes are one AES block
// (Cover), everything else goes whole into a box (Box).
const (
	// MaskBlock is the size of what Cover encrypts, in bytes.
	MaskBlock = aes.BlockSize
	// MaxMasked is the limit of a box in bytes.
	MaxMasked = 1312

	maxMarks   = 15 // in the fast form
	maxPlaces  = 64 // of relayed datagrams under one seal
	minMasked  = 32 // the smallest transport message
	maxPadding = 400
	maxPadded  = 1232 // no padding beyond this: what IPv6 always carries
	boxLength  = 2
	boxMin     = chacha20poly1305.NonceSizeX + boxLength + chacha20poly1305.Overhead
	labelMask  = "warren mask v1"
)

// Mask is a key by which members recognise each other's datagrams. It prints as "redacted". It is safe for concurrent use.
type Mask struct {
	block cipher.Block
	box   cipher.AEAD
	rand  io.Reader // of nonces and padding; another one in tests
}

// NewMask derives the mask of a discovery key or a join key (spec/75-mask.md#mask-key).
func NewMask(secret []byte) *Mask {
	k, err := hkdf.Key(sha256.New, secret, nil, labelMask, 64)
	if err != nil {
		panic("BUG: hkdf: " + err.Error())
	}
	m := &Mask{rand: rand.Reader}
	if m.block, err = aes.NewCipher(k[:32]); err != nil {
		panic("BUG: aes: " + err.Error())
	}
	if m.box, err = chacha20poly1305.NewX(k[32:]); err != nil {
		panic("BUG: chacha20poly1305: " + err.Error())
	}
	return m
}

// IsPlain reports whether a datagram is not masked, by its looks (spec/75-mask.md#receiving).
func IsPlain(b []byte) bool {
	if len(b) < minMasked {
		return true
	}
	switch b[0] {
	case TypeInitiation, TypeResponse, TypeCookieReply:
		return b[1]|b[2]|b[3] == 0 || b[0] == TypeInitiation && IsSTUN(b)
	case TypeJoin:
		return b[1]-1 < 5 && b[2]|b[3] == 0
	case TypeDHT: // a dictionary, whose first key has one or two letters
		return b[1]-'1' < 2 && b[2] == ':' && b[len(b)-1] == 'e'
	}
	return isFramed(b)
}

// isFramed reports whether b begins as a transport message or a relayed datagram.
func isFramed(b []byte) bool {
	switch b[0] {
	case TypeTransport:
		return b[1] <= 1 && b[2] <= maxMarks*b[1] && b[3] == 0
	case TypeRelay:
		relays := (int(b[1]) - RelayHeaderSize(0)) / shortSize
		return relays >= 1 && relays <= MaxRelays && int(b[1]) == RelayHeaderSize(relays) && b[2] <= 1 && b[3] < maxPlaces
	}
	return false
}

// Cover masks a transport message, or a relayed datagram with one as tail, in place. It reports false, and does nothing, for every
// other datagram: those go into a Box. It allocates nothing.
func (m *Mask) Cover(b []byte) bool {
	if len(b) < minMasked {
		return false
	}
	switch b[0] {
	case TypeTransport:
	case TypeRelay:
		tail := b[RelayOverhead+int(b[1]):]
		if tail[0] != TypeTransport {
			return false
		}
		m.block.Encrypt(tail[:MaskBlock], tail[:MaskBlock])
	default:
		return false
	}
	m.block.Encrypt(b[:MaskBlock], b[:MaskBlock])
	return true
}

// Front decrypts the first block of a datagram of at least 32 bytes into front, and reports whether it is what Cover makes of a
// transport message or a relayed datagram. One in 2^24 others looks so too: the caller checks the receiver index, front[4:8]. It
// allocates nothing, if front is on the heap already.
func (m *Mask) Front(front *[MaskBlock]byte, b []byte) bool {
	m.block.Decrypt(front[:], b[:MaskBlock])
	return isFramed(front[:])
}

// Uncover undoes Cover in place, with the front that Front has found in b.
func (m *Mask) Uncover(b []byte, front *[MaskBlock]byte) {
	copy(b, front[:])
	if at := RelayOverhead + int(b[1]); b[0] == TypeRelay && len(b) >= at+MaskBlock {
		m.block.Decrypt(b[at:at+MaskBlock], b[at:at+MaskBlock])
	}
}

// Box returns b in a box of random size, newly allocated. b may be empty; it has at most MaxMasked-42 bytes.
func (m *Mask) Box(b []byte) []byte {
	var draw [chacha20poly1305.NonceSizeX + 2]byte
	if _, err := io.ReadFull(m.rand, draw[:]); err != nil {
		panic("BUG: random: " + err.Error())
	}
	room := min(max(maxPadded-boxMin-len(b), 0), maxPadding)
	padding := int(binary.BigEndian.Uint16(draw[chacha20poly1305.NonceSizeX:])) % (room + 1)
	return m.seal(draw[:chacha20poly1305.NonceSizeX], b, padding)
}

func (m *Mask) seal(nonce, b []byte, padding int) []byte {
	plain := make([]byte, boxLength+len(b)+padding)
	binary.BigEndian.PutUint16(plain, uint16(len(b)))
	copy(plain[boxLength:], b)
	out := make([]byte, chacha20poly1305.NonceSizeX, boxMin+len(b)+padding)
	copy(out, nonce)
	return m.box.Seal(out, nonce, plain, nil)
}

// ParseBox opens a box into buf, which has room for MaxMasked bytes, and returns the datagram, part of buf; empty or nil: there is none.
// b is not changed.
func (m *Mask) ParseBox(buf, b []byte) []byte {
	if len(b) < boxMin || len(b) > MaxMasked {
		return nil
	}
	plain, err := m.box.Open(buf[:0], b[:chacha20poly1305.NonceSizeX], b[chacha20poly1305.NonceSizeX:], nil)
	if err != nil {
		return nil
	}
	n := int(binary.BigEndian.Uint16(plain))
	if n > len(plain)-boxLength {
		return nil
	}
	for _, p := range plain[boxLength+n:] {
		if p != 0 {
			return nil
		}
	}
	return plain[boxLength : boxLength+n]
}

// Format hides the secret whatever the verb.
func (m *Mask) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (m *Mask) LogValue() slog.Value { return slog.StringValue("redacted") }
