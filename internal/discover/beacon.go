package discover

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/warren-vpn/warren/internal/key"
)

// BeaconSize is the size of every beacon in bytes.
const BeaconSize = 64

// A beacon is (spec/70-discover.md#beacon):
//
//	0-23   random nonce
//	24-47  sealed by XChaCha20-Poly1305:
//	         0     kind: 0 question, 1 statement, 2 answer
//	         1     0
//	         2-3   UDP port of the sender
//	         4-11  short id of the sender
//	         12-19 of an answer, the first 8 bytes of the question's nonce; else 0
//	         20-23 0
//	48-63  tag
const beaconPlain = BeaconSize - chacha20poly1305.NonceSizeX - chacha20poly1305.Overhead

var errBeacon = errors.New("beacon is malformed")

type beaconKind uint8

const (
	question  beaconKind = iota // who is here?
	statement                   // I am here
	answer                      // to a question, by unicast
)

// token names a beacon: the first bytes of its nonce.
type token [8]byte

type beacon struct {
	kind beaconKind
	port uint16
	id   key.ShortID
	echo token
}

// encode makes the sealed beacon.
func (b beacon) encode(k [32]byte, nonce [chacha20poly1305.NonceSizeX]byte) []byte {
	plain := make([]byte, 0, beaconPlain)
	plain = append(plain, byte(b.kind), 0)
	plain = binary.BigEndian.AppendUint16(plain, b.port)
	plain = append(plain, b.id[:]...)
	plain = append(plain, b.echo[:]...)
	return aead(k).Seal(nonce[:], nonce[:], plain[:beaconPlain], nil)
}

// openBeacon opens a beacon, of BeaconSize bytes, with one key and reads it.
func openBeacon(k [32]byte, data []byte) (beacon, error) {
	const n = chacha20poly1305.NonceSizeX
	plain, err := aead(k).Open(nil, data[:n], data[n:], nil)
	if err != nil {
		return beacon{}, errBeacon
	}
	return parseBeacon(plain)
}

func parseBeacon(p []byte) (b beacon, err error) {
	if len(p) != beaconPlain {
		return b, errBeacon
	}
	b = beacon{kind: beaconKind(p[0]), port: binary.BigEndian.Uint16(p[2:]), id: key.ShortID(p[4:]), echo: token(p[12:])}
	if b.kind > answer || p[1] != 0 || b.port == 0 || b.kind != answer && b.echo != (token{}) || binary.BigEndian.Uint32(p[20:]) != 0 {
		return beacon{}, errBeacon
	}
	return b, nil
}

func aead(k [32]byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		panic("BUG: xchacha20poly1305: " + err.Error())
	}
	return a
}
