package join

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// The prologue of a proof, and the label of the key of its MAC (spec/30-join.md#proof).
const (
	proofPrologue = "warren/proof/v1"
	proofLabel    = "warren/proof/mac"
)

// MaxProofs is the limit of frames in one [Prove].
const MaxProofs = 64

const (
	proofRate       = 5 // proofs a second from one source
	proofBurst      = MaxProofs
	proofTotalRate  = 5 // proofs a second that are read, over all sources: two Diffie-Hellman each
	proofTotalBurst = 2 * MaxProofs
)

var errProof = errors.New("MAC is not for our key")

// Prove seals records by which the member with the static key from is one, for the member with the key to, who may not know
// that: in frames to be sent in this order, each of which can be read alone. Records that find no room in MaxProofs frames
// are left out. A nil random means crypto/rand.
func Prove(random io.Reader, from key.WGPrivate, to key.WGPublic, records [][]byte) (frames [][]byte, err error) {
	if random == nil {
		random = rand.Reader
	}
	for len(records) > 0 && len(frames) < MaxProofs {
		n, space := 0, wire.JoinProofSpace-wire.ControlHeader
		for n < len(records) && wire.RecordSpace(records[n]) <= space {
			space -= wire.RecordSpace(records[n])
			n++
		}
		if n == 0 {
			return nil, fmt.Errorf("prove: record of %d bytes: %w", len(records[0]), wire.ErrMalformed)
		}
		public := from.Public()
		state, err := noise.NewHandshakeState(noise.Config{CipherSuite: suite, Random: random, Pattern: noise.HandshakeX, Initiator: true,
			Prologue: []byte(proofPrologue), StaticKeypair: noise.DHKey{Private: from[:], Public: public[:]}, PeerStatic: to[:]})
		if err != nil {
			return nil, fmt.Errorf("prove: %w", err)
		}
		var m wire.JoinProof
		if m.Noise, _, _, err = state.WriteMessage(nil, wire.Records{Raw: records[:n]}.Append(nil)); err != nil {
			return nil, fmt.Errorf("prove: %w", err)
		}
		m.MAC = proofMAC(proofKey(to), m)
		frames, records = append(frames, m.Append(nil)), records[n:]
	}
	return frames, nil
}

func proofKey(to key.WGPublic) [32]byte { return blake2s.Sum256(append([]byte(proofLabel), to[:]...)) }

func proofMAC(secret [32]byte, m wire.JoinProof) (mac [16]byte) {
	h, err := blake2s.New128(secret[:])
	if err != nil { // the key has 32 bytes
		panic("BUG: blake2s: " + err.Error())
	}
	h.Write(m.AppendBody(nil))
	return [16]byte(h.Sum(nil))
}

// isOurs reports whether the sender of a proof knows our static key.
func (e *Introducer) isOurs(m wire.JoinProof) bool {
	want := proofMAC(e.proofKey, m)
	return subtle.ConstantTimeCompare(want[:], m.MAC[:]) == 1
}

// learn reads a proof and hands its records to the owner. It is never answered.
func (e *Introducer) learn(now time.Time, from netip.AddrPort, m wire.JoinProof) error {
	switch {
	case !e.isOurs(m):
		return errProof
	case !e.provers.allow(now, from.Addr(), proofRate, proofBurst), !e.proofs.take(now, proofTotalRate, proofTotalBurst):
		return errLimit
	}
	public := e.cfg.WG.Public()
	state, err := noise.NewHandshakeState(noise.Config{CipherSuite: suite, Pattern: noise.HandshakeX, Prologue: []byte(proofPrologue),
		StaticKeypair: noise.DHKey{Private: e.cfg.WG[:], Public: public[:]}})
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	payload, _, _, err := state.ReadMessage(nil, m.Noise)
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	msg, err := wire.ParseControl(payload)
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	records, ok := msg.(wire.Records)
	if !ok {
		return fmt.Errorf("proof with a %T: %w", msg, wire.ErrMalformed)
	}
	e.cfg.Learn(now, records.Raw)
	return nil
}
