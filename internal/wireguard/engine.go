package wireguard

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Config is what an engine needs to know.
type Config struct {
	// Private is the static key of this network. It must be set.
	Private key.WGPrivate
	// NewIndex draws a random receiver index that no keypair of the process uses. Nil: the engine draws one that it
	// does not use itself, enough when it is alone on its port.
	NewIndex func() uint32
	// Rand is the source of keys, nonces and jitter. Nil: crypto/rand.
	Rand io.Reader
	// Epoch is the start of the process's clock, as time.Now returned it, the same for all engines and workers (see
	// [Nanos]). Zero: the first `now` the engine is given.
	Epoch time.Time
}

// Engine is the protocol machine of one static key. It belongs to one goroutine.
type Engine struct {
	private  key.WGPrivate
	public   key.WGPublic
	newIndex func() uint32
	rand     io.Reader
	epoch    time.Time
	log      *slog.Logger

	peers   map[key.WGPublic]*Peer
	order   []*Peer // as they were added, so that equal inputs have equal effects
	waiting map[uint32]*Peer
	pairs   map[uint32]*Keypair

	gate    gate
	limiter limiter
	floor   timestamp // the latest label that was sent to a peer since removed
	effects []Effect
}

// New returns an engine without peers. A nil log discards.
func New(cfg Config, log *slog.Logger) (*Engine, error) {
	if cfg.Private.IsZero() {
		return nil, errors.New("wireguard: no private key")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	e := &Engine{
		private: cfg.Private, public: cfg.Private.Public(),
		newIndex: cfg.NewIndex, rand: cfg.Rand, epoch: cfg.Epoch, log: log.With("part", "wireguard"),
		peers: make(map[key.WGPublic]*Peer), waiting: make(map[uint32]*Peer), pairs: make(map[uint32]*Keypair),
	}
	e.gate = newGate(e.public)
	return e, nil
}

// Public returns the engine's static public key.
func (e *Engine) Public() key.WGPublic { return e.public }

// Nanos returns the time as workers pass it: Unix nanoseconds at epoch plus what the monotonic clock counted since, so
// that it never steps. Epoch is that of Config.
func Nanos(epoch, now time.Time) int64 { return epoch.UnixNano() + int64(now.Sub(epoch)) }

func (e *Engine) nanos(now time.Time) int64 {
	if e.epoch.IsZero() {
		e.epoch = now
	}
	return Nanos(e.epoch, now)
}

// AddPeer makes a peer known and returns it. An all-zero psk is none. A peer that is known already stays as it is, but
// its next handshake uses the psk given now. It causes no message.
func (e *Engine) AddPeer(pub key.WGPublic, psk [32]byte) *Peer {
	if p := e.peers[pub]; p != nil {
		p.psk = psk
		return p
	}
	p := &Peer{public: pub, psk: psk, jar: newJar(pub), sentStamp: e.floor}
	e.peers[pub] = p
	e.order = append(e.order, p)
	return p
}

// RemovePeer forgets a peer and cuts its sessions at once: when it returns, no worker can seal or open with them any
// more and nothing that was to be sent to the peer is left among the effects (spec/40-wireguard.md#removal). An
// unknown key is no fault.
func (e *Engine) RemovePeer(pub key.WGPublic) {
	p := e.peers[pub]
	if p == nil {
		return
	}
	delete(e.peers, pub)
	e.order = slices.DeleteFunc(e.order, func(o *Peer) bool { return o == p })
	e.effects = slices.DeleteFunc(e.effects, func(f Effect) bool { return peerOf(f) == p })
	p.removed = true
	e.settle(p)
	e.drop(p)
	p.psk, p.shared = [32]byte{}, nil
	if p.sentStamp.after(e.floor) {
		e.floor = p.sentStamp
	}
}

// Owns reports whether a handshake message (types 1 to 3) is for this engine and not for another on the same port: its
// mac1 is made for our key, or its receiver index is ours. It changes nothing; like all methods of the engine it is
// for the control loop.
func (e *Engine) Owns(msg []byte) bool {
	switch typ := messageType(msg); typ {
	case typeInitiation:
		return e.gate.validMAC1(msg)
	case typeResponse:
		return e.waiting[receiverOf(msg, typ)] != nil
	case typeCookieReply:
		return e.peerAt(receiverOf(msg, typ)) != nil
	}
	return false
}

// Effects returns what the owner must do, in order, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

func (e *Engine) emit(f Effect) { e.effects = append(e.effects, f) }

// peerAt returns the peer to which we gave index, in an initiation or a response, or nil.
func (e *Engine) peerAt(index uint32) *Peer {
	if p := e.waiting[index]; p != nil {
		return p
	}
	if k := e.pairs[index]; k != nil {
		return k.peer
	}
	return nil
}

// drawIndex returns an index that the engine does not use.
func (e *Engine) drawIndex() (uint32, error) {
	for {
		var index uint32
		if e.newIndex != nil {
			index = e.newIndex()
		} else {
			var b [4]byte
			if _, err := io.ReadFull(e.rand, b[:]); err != nil {
				return 0, fmt.Errorf("draw index: %w", err)
			}
			index = binary.LittleEndian.Uint32(b[:])
		}
		if e.waiting[index] == nil && e.pairs[index] == nil {
			return index, nil
		}
	}
}

// drawJitter returns a random time below MaxJitter, in nanoseconds.
func (e *Engine) drawJitter() int64 {
	var b [2]byte
	if _, err := io.ReadFull(e.rand, b[:]); err != nil {
		return 0
	}
	return int64(MaxJitter) * int64(binary.LittleEndian.Uint16(b[:])) >> 16
}
