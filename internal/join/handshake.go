package join

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// The start of the prologue, and the Noise suite (spec/30-join.md#noise).
const prologue = "warren/join/v1"

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

var errFinished = errors.New("handshake has no such message")

// handshake is one side of a Noise_XXpsk0 handshake that a bad message cannot spoil. The library does not restore all of its
// state when a message fails half-way (a low-order point, a good static key before a bad payload), so after any failure
// the state is built anew from the ephemeral seed and the messages so far (spec/30-join.md#bad-messages).
type handshake struct {
	cfg   noise.Config
	seed  [32]byte // ephemeral private key
	past  []step
	state *noise.HandshakeState // nil: to be rebuilt
	// Transport ciphers, nil before the last message. Only the introducer sends: toJoiner seals step 4.
	toJoiner noise.Cipher
}

// step is one message of the past: a payload that was written, or a message that was read.
type step struct {
	wrote bool
	data  []byte
}

// newHandshake starts a handshake that is bound to the header of its step 1: nobody can change that on the way.
func newHandshake(initiator bool, static key.WGPrivate, psk key.JoinKey, hello wire.JoinStep1, random io.Reader) (*handshake, error) {
	h := &handshake{}
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, h.seed[:]); err != nil {
		return nil, fmt.Errorf("draw ephemeral key: %w", err)
	}
	public := static.Public()
	h.cfg = noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeXX, Initiator: initiator,
		Prologue:      wire.JoinStep1{Sender: hello.Sender, Locator: hello.Locator}.Append([]byte(prologue)),
		PresharedKey:  psk[:],
		StaticKeypair: noise.DHKey{Private: static[:], Public: public[:]},
	}
	return h, h.rebuild()
}

// rebuild replays the past on a new state. The past succeeded once, so it succeeds again.
func (h *handshake) rebuild() error {
	cfg := h.cfg
	cfg.Random = bytes.NewReader(h.seed[:])
	state, err := noise.NewHandshakeState(cfg)
	if err != nil {
		return fmt.Errorf("start handshake: %w", err)
	}
	for _, s := range h.past {
		if s.wrote {
			_, _, _, err = state.WriteMessage(nil, s.data)
		} else {
			_, _, _, err = state.ReadMessage(nil, s.data)
		}
		if err != nil {
			return fmt.Errorf("replay handshake: %w", err)
		}
	}
	h.state = state
	return nil
}

// write returns the next message with payload inside. After an error nothing has changed.
func (h *handshake) write(payload []byte) ([]byte, error) {
	return h.advance(true, payload)
}

// read takes the peer's next message and returns the payload. After an error nothing has changed: the genuine message
// can still come.
func (h *handshake) read(msg []byte) ([]byte, error) {
	return h.advance(false, msg)
}

func (h *handshake) advance(write bool, data []byte) ([]byte, error) {
	if h.toJoiner != nil {
		return nil, errFinished
	}
	if h.state == nil {
		if err := h.rebuild(); err != nil {
			return nil, err
		}
	}
	turn := h.state.ReadMessage
	if write {
		turn = h.state.WriteMessage
	}
	out, _, down, err := turn(nil, data)
	if err != nil {
		h.state = nil
		return nil, err
	}
	if down == nil {
		h.past = append(h.past, step{wrote: write, data: bytes.Clone(data)})
		return out, nil
	}
	h.toJoiner = down.Cipher()
	return out, nil
}

// remote returns the peer's static key. It is set once the message that carries it was read.
func (h *handshake) remote() key.WGPublic { return key.WGPublic(h.state.PeerStatic()) }
