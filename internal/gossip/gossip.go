// Package gossip spreads records until all members hold the same set.
//
// Two things work together. A new record is flooded: sent once to every peer that is up and not known to have it. And
// peers reconcile: they compare fingerprints of ranges of record ids and send what the other lacks, after each flood,
// when a peer comes up, and now and then for good measure (spec/50-control.md#sync). Messages are datagrams that may be
// lost, doubled or reordered. So nothing waits for an answer: each message is dealt with on its own, and a round that
// did not end with equal sets is begun anew.
//
// The engine knows ids and bytes, not meanings. A record that it does not know leaves as [Deliver]; the owner verifies
// it and calls [Engine.Add] or [Engine.Reject], or neither if it cannot tell yet.
//
// An Engine is not safe for concurrent use: the control loop of package node owns it. After every call the owner takes
// [Engine.Effects] and arms its timer with [Engine.Tick]. What one peer can make us hold, send or deliver is limited
// (spec/50-control.md#limits).
package gossip

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Limits, of one peer where nothing else is said (spec/50-control.md#limits).
const (
	sendRate, sendBurst       = 256 << 10, 1 << 20 // bytes a second sent to it
	bulkRate, bulkBurst       = 400, 1500          // records a second sent to it
	deliverRate, deliverBurst = 500, 2000          // unknown records a second taken from it
	parseRate, parseBurst     = 2000, 8000         // records of any kind a second looked at
	syncRate, syncBurst       = 200, 600           // sync messages a second answered
	floodRate, floodBurst     = 32, 128            // records a second taken from it that are flooded on

	maxKnown    = 256  // ids it is known to have
	maxRefused  = 256  // ids of which it had nothing but rejected records
	maxUrgent   = 1024 // ids waiting to be sent: floods and wishes
	maxBulk     = 4096 // and the rest
	maxRejected = 4096 // hashes of rejected records, of all peers
	maxGone     = 4096 // ids of superseded records
	maxAsked    = 4096 // ids asked for of late, of all peers
)

// ErrUnknownPeer reports a message of a peer that is not up.
var ErrUnknownPeer = errors.New("peer is not up")

// Config holds what an Engine needs from outside.
type Config struct {
	// Network is whose records these are.
	Network key.NetworkID
	// Rand gives round numbers and chance. Nil means crypto/rand. If it fails, they are less random, and that is all.
	Rand io.Reader
}

// Message is what an Engine sends and handles: wire.Records or wire.Sync.
type Message interface{ Append(b []byte) []byte }

// Effect is one thing that the owner must carry out: Send or Deliver.
type Effect interface{ effect() }

// Send wants Body sent inside the session with Peer; it is at most wire.MaxControl bytes when appended.
type Send struct {
	Peer key.NodeID
	Body Message
}

// Deliver hands over a record that the engine does not hold. Its form is good, its signatures are not checked. The owner
// owns Raw.
type Deliver struct {
	Peer key.NodeID // who sent it; not who made it
	ID   wire.RecordID
	Raw  []byte
}

func (Send) effect()    {}
func (Deliver) effect() {}

// Engine holds the records of one network and what is under way with each peer.
type Engine struct {
	cfg      Config
	log      *slog.Logger
	set      set
	peers    map[key.NodeID]*peer
	order    []*peer // as they came up: effects come in the same order for the same input
	gone     ids[wire.RecordID]
	rejected ids[[16]byte]
	asked    cache[wire.RecordID, request]
	intake   intake
	idle     time.Time // next round with anyone; zero: there is nobody
	calm     int       // such rounds in a row without anything new
	effects  []Effect
}

// New returns an engine without records and peers. A nil log discards.
func New(cfg Config, log *slog.Logger) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, log: log.With("part", "gossip"), set: newSet(), peers: map[key.NodeID]*peer{},
		gone: newIDs[wire.RecordID](maxGone), rejected: newIDs[[16]byte](maxRejected), asked: newCache[wire.RecordID, request](maxAsked)}
}

// Add takes the accepted record raw, whose id is id, and floods it to all peers that are up but from, who sent it, and
// those known to have it. A zero from is ourselves. A record that is there already is not added again. The engine keeps
// raw, which must not change.
func (e *Engine) Add(now time.Time, id wire.RecordID, raw []byte, from key.NodeID) {
	source := e.peers[from]
	if source != nil {
		source.known.put(id.Prefix(), struct{}{})
	}
	if !e.set.add(id, raw) {
		return
	}
	e.gone.remove(id)
	e.stir(now)
	flood := true
	if source != nil {
		flood = source.floods.take(now, 1)
		if e.intake.peer == source {
			e.intake.last, e.intake.useful, source.fresh = now, true, now
		}
	}
	for _, p := range e.order {
		switch {
		case p == source || p.known.has(id.Prefix()):
		case flood:
			p.push(now, id, true)
			p.unconfirmed.put(id, push{at: now})
		default: // one peer cannot make us flood without end: reconciliation carries the rest
			p.want(now.Add(leftToRounds))
		}
	}
}

// Remove forgets the record id because another superseded it. It is not asked for again.
func (e *Engine) Remove(id wire.RecordID) {
	e.set.remove(id)
	e.gone.put(id, struct{}{})
}

// Reject says that raw, which from sent, is not valid or is superseded. The same bytes are not delivered again, and from
// is not asked for the id again; others are.
func (e *Engine) Reject(now time.Time, raw []byte, from key.NodeID) {
	e.rejected.put(hash(raw), struct{}{})
	p := e.peers[from]
	if p == nil {
		return
	}
	if r, err := wire.ParseRecord(e.cfg.Network, raw); err == nil {
		p.refused.put(r.ID.Prefix(), struct{}{})
	}
}

// Has reports whether the engine holds the record id.
func (e *Engine) Has(id wire.RecordID) bool { return e.set.has(id) }

// Len returns the number of records.
func (e *Engine) Len() int { return len(e.set.records) }

// PeerUp says that there is a session with peer now, and begins a round with it. It does nothing if peer is up.
func (e *Engine) PeerUp(now time.Time, id key.NodeID) {
	if e.peers[id] != nil {
		return
	}
	p := newPeer(now, id)
	p.wanted = now
	e.peers[id] = p
	e.order = append(e.order, p)
	if e.idle.IsZero() {
		e.idle = e.nextIdle(now)
	}
}

// PeerDown says that there is no session with peer any more. What is known of it is forgotten.
func (e *Engine) PeerDown(now time.Time, id key.NodeID) {
	p := e.peers[id]
	if p == nil {
		return
	}
	if e.intake.peer == p {
		e.intake = intake{}
	}
	delete(e.peers, id)
	e.order = slices.DeleteFunc(e.order, func(q *peer) bool { return q == p })
	if len(e.order) == 0 {
		e.idle = time.Time{}
	}
}

// Handle takes m, a wire.Records or wire.Sync that peer sent. It keeps nothing of m. An error says that m is malformed
// (wire.ErrMalformed; what was good of it counts) or that peer is not up ([ErrUnknownPeer]).
func (e *Engine) Handle(now time.Time, peer key.NodeID, m Message) error {
	p := e.peers[peer]
	if p == nil {
		return fmt.Errorf("gossip of %v: %w", peer.Short(), ErrUnknownPeer)
	}
	switch m := m.(type) {
	case wire.Records:
		return e.handleRecords(now, p, m)
	case wire.Sync:
		return e.handleSync(now, p, m)
	}
	return fmt.Errorf("gossip cannot read a %T: %w", m, wire.ErrMalformed)
}

// handleRecords delivers what is new. The order of checks is from cheap to dear.
func (e *Engine) handleRecords(now time.Time, p *peer, m wire.Records) error {
	var fault error
	for _, raw := range m.Raw {
		if !p.parses.take(now, 1) {
			break
		}
		r, err := wire.ParseRecord(e.cfg.Network, raw)
		if err != nil {
			fault = fmt.Errorf("gossip: %w", err)
			continue
		}
		p.has(now, r.ID)
		if e.set.has(r.ID) || e.gone.has(r.ID) || e.rejected.has(hash(raw)) || !p.delivers.take(now, 1) {
			continue
		}
		e.effects = append(e.effects, Deliver{Peer: p.id, ID: r.ID, Raw: slices.Clone(raw)})
	}
	return fault
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (e *Engine) Tick(now time.Time) (next time.Time) {
	if !e.idle.IsZero() && !e.idle.After(now) {
		e.order[e.random()%uint64(len(e.order))].want(now)
		e.calm = min(e.calm+1, calmRounds)
		e.idle = e.nextIdle(now)
	}
	for _, p := range e.order {
		if at := p.round(); !at.IsZero() && !at.After(now) {
			e.begin(now, p)
		}
		if !p.flush.IsZero() && !p.flush.After(now) {
			e.drain(now, p)
		}
		next = earlier(earlier(next, p.round()), p.flush)
	}
	return earlier(next, e.idle)
}

// Flush sends what is queued for peers without waiting for more: the owner is about to stop.
func (e *Engine) Flush(now time.Time) {
	for _, p := range e.order {
		if !p.flush.IsZero() {
			e.drain(now, p)
		}
	}
}

// Effects returns what the owner must do now, in order, and forgets it.
func (e *Engine) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

// nextIdle returns when to begin the next round with anyone: in 40 to 80 s, and twice as long each time while nothing changes.
func (e *Engine) nextIdle(now time.Time) time.Time {
	return now.Add((idleLeast + time.Duration(e.random()%uint64(idleSpan))) << e.calm)
}

// stir notes that something changed or was found missing, so that others may lack something too.
func (e *Engine) stir(now time.Time) {
	if e.calm > 0 && !e.idle.IsZero() {
		e.calm = 0
		e.idle = earlier(e.idle, e.nextIdle(now))
	}
}

func (e *Engine) random() uint64 {
	var b [8]byte
	io.ReadFull(e.cfg.Rand, b[:]) //nolint:errcheck // less random then, and that is all
	return binary.BigEndian.Uint64(b[:])
}

// hash names a rejected record by its bytes: its id would also name good records with other signatures.
func hash(raw []byte) [16]byte {
	h := sha256.Sum256(raw)
	return [16]byte(h[:16])
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
