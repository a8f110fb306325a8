package wireguard

import (
	"errors"
	"time"
)

// Sizes of a transport message, in bytes (spec/40-wireguard.md#messages).
const (
	HeaderLen       = 16 // type, receiver, counter
	TagLen          = 16 // Poly1305
	PaddingMultiple = 16 // plaintexts are padded to it
)

// Sizes of the handshake messages, in bytes (spec/40-wireguard.md#messages).
const (
	InitiationLen  = 148
	ResponseLen    = 92
	CookieReplyLen = 64
)

// Limits on the use of one keypair, in messages (spec/40-wireguard.md#limits).
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = 1<<64 - 1<<13 - 1
)

// Times (spec/40-wireguard.md#constants).
const (
	RekeyAfterTime   = 120 * time.Second // the initiator asks for a new session when it sends on one this old
	RekeyOnReceive   = 165 * time.Second // ... or receives while its session is this old
	RejectAfterTime  = 180 * time.Second // no packet is sent or accepted on a keypair this old
	RekeyTimeout     = 5 * time.Second   // between two initiations to one peer
	MaxJitter        = 334 * time.Millisecond
	RekeyAttemptTime = 90 * time.Second // a handshake is given up
	KeepaliveTimeout = 10 * time.Second // data received is answered within it
	NewHandshakeTime = KeepaliveTimeout + RekeyTimeout
	FloodInterval    = 20 * time.Millisecond // at most one initiation per peer is accepted in it
	CookieSecretTime = 120 * time.Second
	CookieUseTime    = 115 * time.Second // a cookie is sent for so long: 5 s less than it is accepted
)

// maxTick is the longest sleep while a keypair lives: workers may start a timer at any time, and none is shorter.
const maxTick = time.Second

// askInterval spaces the NoticeRekey of one keypair, so that a busy sender does not drown the control loop.
const askInterval = time.Second

// Reasons to drop a message. They carry no detail and are compared with ==.
var (
	ErrMalformed = errors.New("wireguard: wrong type or length")
	ErrMAC       = errors.New("wireguard: mac1 is not for our key")
	ErrUnknown   = errors.New("wireguard: no such peer or index")
	ErrAuth      = errors.New("wireguard: authentication failed")
	ErrReplay    = errors.New("wireguard: replayed message")
	ErrFlood     = errors.New("wireguard: initiations of one peer come too fast")
	ErrCookie    = errors.New("wireguard: under load, answered with a cookie")
	ErrLimited   = errors.New("wireguard: under load, source is over its rate")
	ErrExpired   = errors.New("wireguard: keypair is used up, too old or erased")
	ErrBuffer    = errors.New("wireguard: buffer is too small for the header and the tag")
)
