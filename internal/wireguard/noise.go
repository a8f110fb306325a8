package wireguard

import (
	"fmt"

	"github.com/flynn/noise"

	"github.com/warren-vpn/warren/internal/key"
)

// prologue is the identifier of the protocol (spec/40-wireguard.md#handshake).
const prologue = "WireGuard v1 zx2c4 Jason@zx2c4.com"

// pskPlacement makes the pattern IKpsk2.
const pskPlacement = 2

// staticDH returns X25519 of our static key and a peer's, or an error when we do not know the peer.
type staticDH func(pub []byte) ([]byte, error)

// agreement is the X25519 of one handshake. Its calls come in the order es, ss, ee, se. It takes over two of them: ss,
// where the responder learns who the initiator is, and where a stranger is turned away before the second of four
// computations (spec/40-wireguard.md#strangers); and ee of the initiator, which initiation.finish has computed.
type agreement struct {
	noise.DHFunc
	calls int
	ss    staticDH
	ee    []byte
}

// DH computes X25519, or gives what was computed before.
func (a *agreement) DH(private, public []byte) ([]byte, error) {
	a.calls++
	switch {
	case a.calls == 2:
		return a.ss(public)
	case a.calls == 3 && a.ee != nil:
		return a.ee, nil
	}
	return a.DHFunc.DH(private, public)
}

// secrets are the two keys of a session, as the initiator and the responder send with them.
type secrets struct{ initiator, responder [32]byte }

// noiseConfig returns what both sides of a handshake have in common.
func (e *Engine) noiseConfig(ss staticDH) (noise.Config, *agreement) {
	dh := &agreement{DHFunc: noise.DH25519, ss: ss}
	return noise.Config{
		CipherSuite:           noise.NewCipherSuite(dh, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		Random:                e.rand,
		Pattern:               noise.HandshakeIK,
		Prologue:              []byte(prologue),
		PresharedKeyPlacement: pskPlacement,
		StaticKeypair:         noise.DHKey{Private: e.private[:], Public: e.public[:]},
	}, dh
}

// initiation is the initiator's side of a handshake whose answer has not come.
type initiation struct {
	state *noise.HandshakeState
	dh    *agreement
}

// initiate returns the Noise part of an initiation to peer, and the state that reads the answer.
func (e *Engine) initiate(p *Peer, stamp timestamp) (*initiation, []byte, error) {
	c, dh := e.noiseConfig(func([]byte) ([]byte, error) { return e.sharedWith(p) })
	c.Initiator, c.PeerStatic, c.PresharedKey = true, p.public[:], p.psk[:]
	state, err := noise.NewHandshakeState(c)
	if err != nil {
		return nil, nil, fmt.Errorf("start handshake: %w", err)
	}
	msg, _, _, err := state.WriteMessage(make([]byte, 0, InitiationLen), stamp[:])
	if err != nil {
		return nil, nil, fmt.Errorf("write initiation: %w", err)
	}
	return &initiation{state: state, dh: dh}, msg, nil
}

// finish reads the Noise part of a response. After an error the genuine response can still come.
func (i *initiation) finish(msg []byte) (secrets, error) {
	// ReadMessage does not restore its state when X25519 refuses the responder's ephemeral, so that one forged
	// response would spoil the handshake. Refuse it before (spec/40-wireguard.md#low-order).
	ee, err := noise.DH25519.DH(i.state.LocalEphemeral().Private, msg[:noiseKeyLen])
	if err != nil {
		return secrets{}, ErrAuth
	}
	i.dh.calls, i.dh.ee = 2, ee
	payload, one, two, err := i.state.ReadMessage(nil, msg)
	if err != nil || one == nil || len(payload) != 0 {
		return secrets{}, ErrAuth
	}
	return secrets{initiator: one.UnsafeKey(), responder: two.UnsafeKey()}, nil
}

// discard wipes the ephemeral key.
func (i *initiation) discard() { clear(i.state.LocalEphemeral().Private) }

// respond reads the Noise part of an initiation. It calls admit with the initiator's timestamp once the initiator has
// proved to be peer; when admit agrees, it returns the Noise part of the response.
func (e *Engine) respond(msg []byte, admit func(p *Peer, stamp timestamp) error) (*Peer, []byte, secrets, error) {
	var p *Peer
	c, _ := e.noiseConfig(func(pub []byte) ([]byte, error) {
		if p = e.peers[key.WGPublic(pub)]; p == nil {
			return nil, ErrUnknown
		}
		return e.sharedWith(p)
	})
	state, err := noise.NewHandshakeState(c)
	if err != nil {
		return nil, nil, secrets{}, fmt.Errorf("start handshake: %w", err)
	}
	payload, _, _, err := state.ReadMessage(make([]byte, 0, timestampLen), msg)
	switch {
	case err == ErrUnknown:
		return nil, nil, secrets{}, ErrUnknown
	case err != nil || p == nil || len(payload) != timestampLen:
		return nil, nil, secrets{}, ErrAuth
	}
	if err := admit(p, timestamp(payload)); err != nil {
		return nil, nil, secrets{}, err
	}
	if err := state.SetPresharedKey(p.psk[:]); err != nil {
		return nil, nil, secrets{}, fmt.Errorf("set psk: %w", err)
	}
	out, one, two, err := state.WriteMessage(make([]byte, 0, ResponseLen), nil)
	if err != nil || one == nil {
		return nil, nil, secrets{}, fmt.Errorf("write response: %w", err)
	}
	clear(state.LocalEphemeral().Private)
	return p, out, secrets{initiator: one.UnsafeKey(), responder: two.UnsafeKey()}, nil
}

// sharedWith returns X25519 of the static keys. The result must not be changed.
func (e *Engine) sharedWith(p *Peer) ([]byte, error) {
	if p.shared == nil {
		s, err := noise.DH25519.DH(e.private[:], p.public[:])
		if err != nil {
			return nil, ErrAuth
		}
		p.shared = s
	}
	return p.shared, nil
}
