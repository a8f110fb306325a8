package wireguard

import "encoding/binary"

// Message types are the first four bytes, little-endian: the three reserved bytes are zero.
const (
	typeInitiation  = 1
	typeResponse    = 2
	typeCookieReply = 3
	typeTransport   = 4
)

// Layout of the messages (spec/40-wireguard.md#messages):
//
//	initiation   | type 4 | sender 4 | ephemeral 32 | static 48 | timestamp 28 | mac1 16 | mac2 16 |
//	response     | type 4 | sender 4 | receiver 4 | ephemeral 32 | empty 16 | mac1 16 | mac2 16 |
//	cookie reply | type 4 | receiver 4 | nonce 24 | cookie 32 |
//	transport    | type 4 | receiver 4 | counter 8 | plaintext n | tag 16 |
const (
	initiationNoise  = 8
	responseReceiver = 8
	responseNoise    = 12
	cookieNonce      = 8
	cookieSealed     = 32
	macLen           = 16
	noiseKeyLen      = 32
	timestampLen     = 12
)

// messageType returns the type of a handshake message of the right length, else 0.
func messageType(msg []byte) uint32 {
	if len(msg) < CookieReplyLen {
		return 0
	}
	switch t := binary.LittleEndian.Uint32(msg); {
	case t == typeInitiation && len(msg) == InitiationLen,
		t == typeResponse && len(msg) == ResponseLen,
		t == typeCookieReply && len(msg) == CookieReplyLen:
		return t
	}
	return 0
}

// senderOf returns the sender's index of an initiation or a response.
func senderOf(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[4:]) }

// receiverOf returns the receiver's index of a response or a cookie reply.
func receiverOf(msg []byte, typ uint32) uint32 {
	if typ == typeResponse {
		return binary.LittleEndian.Uint32(msg[responseReceiver:])
	}
	return binary.LittleEndian.Uint32(msg[4:])
}

// noisePart returns the bytes of an initiation or a response that the Noise handshake made.
func noisePart(msg []byte, typ uint32) []byte {
	start := initiationNoise
	if typ == typeResponse {
		start = responseNoise
	}
	return msg[start : len(msg)-2*macLen]
}

// Padded returns the length to which a packet of n bytes is padded: a multiple of 16, but not above the mtu of the
// tunnel, as stock does (spec/40-wireguard.md#padding). A packet above the mtu is not shortened.
func Padded(n, mtu int) int {
	padded := (n + PaddingMultiple - 1) &^ (PaddingMultiple - 1)
	if padded > mtu {
		return max(n, mtu)
	}
	return padded
}
