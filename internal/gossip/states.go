package gossip

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Limits, of one neighbour where nothing else is said (spec/53-map.md#limits). Bytes sent to it: sendRate, sendBurst.
const (
	// MaxStates is the limit of nodes whose link states are kept.
	MaxStates = 16384

	stateRate, stateBurst   = 500, 2000  // unknown link states a second taken from it
	lookRate, lookBurst     = 4000, 8000 // link states of any kind a second looked at
	digestRate, digestBurst = 200, 600   // digests a second read
	askRate, askBurst       = 500, 2000  // link states a second asked of it
	originEvery             = 2 * time.Second
	originBurst             = 8  // new link states of one node at once; then one each originEvery
	forgeryPrice            = 20 // a rejected link state counts as so many

	maxNews    = 2048 // link states that it says it has, and we lack
	maxUnacked = 1024 // link states sent to it of which we do not know that they came
	maxPen     = 64   // link states of it that nobody can judge yet
	maxPending = 4096 // link states handed to the owner, of all neighbours

	pendingFor = 2 * time.Second // for so long the same bytes are not handed over again
)

// StatesConfig holds what a States needs from outside.
type StatesConfig struct {
	// Rand spreads the times of rounds. Nil means crypto/rand. If it fails, they are less random, and that is all.
	Rand io.Reader
}

// DeliverState hands over a link state that is newer than the one held. Its form is good, its signature is not checked. The
// owner owns State and Raw, and answers with [States.Set], [States.Reject], [States.Defer], or nothing: then the same may
// come again.
type DeliverState struct {
	Peer  key.NodeID // who sent it; not who made it
	State wire.LinkState
	Raw   []byte
}

func (DeliverState) effect() {}

// States spreads the newest link state of each node to all (spec/53-map.md). What is new is flooded over the links, to each
// neighbour that is not known to have it, and neighbours compare what they hold now and then. It knows ids, versions and
// bytes; the owner verifies.
//
// Like an [Engine] it is pure and not safe for concurrent use: after every call the owner takes [States.Effects], which are
// Send and DeliverState, and arms its timer with [States.Tick].
type States struct {
	cfg      StatesConfig
	log      *slog.Logger
	set      stateSet
	links    map[key.NodeID]*link
	order    []*link                          // as they came up: effects come in the same order for the same input
	gone     cache[key.ShortID, wire.Version] // forgotten: what is not newer is not taken again
	rejected ids[[16]byte]                    // hashes of link states
	pending  cache[[16]byte, time.Time]       // the same, handed to the owner then
	asked    cache[key.ShortID, request]      // of whom a link state was asked last
	handed   map[key.ShortID]int              // to the owner since the last Effects, by node: what is not taken yet counts too
	load     load
	effects  []Effect
}

// NewStates returns a States without link states and neighbours. A nil log discards.
func NewStates(cfg StatesConfig, log *slog.Logger) *States {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &States{cfg: cfg, log: log.With("part", "states"), set: newStateSet(), links: map[key.NodeID]*link{},
		gone: newCache[key.ShortID, wire.Version](maxGone), rejected: newIDs[[16]byte](maxRejected),
		pending: newCache[[16]byte, time.Time](maxPending), asked: newCache[key.ShortID, request](maxAsked),
		handed: map[key.ShortID]int{}}
}

// PeerUp says that there is a link with the neighbour id now: link states go over it, and what both hold is compared soon. It
// does nothing if the neighbour is up.
func (s *States) PeerUp(now time.Time, id key.NodeID) {
	if s.links[id] != nil {
		return
	}
	l := newLink(now, id)
	l.roundAt = now.Add(s.upTo(firstRound))
	s.links[id] = l
	s.order = append(s.order, l)
}

// PeerDown says that the link with the neighbour id is gone. What is known of it is forgotten.
func (s *States) PeerDown(now time.Time, id key.NodeID) {
	l := s.links[id]
	if l == nil {
		return
	}
	delete(s.links, id)
	s.order = slices.DeleteFunc(s.order, func(o *link) bool { return o == l })
	if s.load.link == l {
		s.load = load{}
	}
	if !l.eager {
		return
	}
	for _, o := range s.order { // the tree has lost a branch: flood over all links until it has grown anew
		if !o.eager {
			s.setEager(now, o, true)
		}
	}
}

// Set takes the link state st, encoded as raw, which the owner has made (from is zero) or verified. It replaces an older one
// of the same node and is flooded; one that is not newer, or was forgotten, changes nothing. The engine keeps raw, which must
// not change. Beyond [MaxStates], no more nodes are taken in.
func (s *States) Set(now time.Time, raw []byte, st wire.LinkState, from key.NodeID) {
	source, own := s.links[from], from.IsZero()
	if !own {
		s.pending.remove(hash(raw))
		if s.gone.values[st.Node].Compare(st.Version) >= 0 {
			return
		}
	}
	slot, ok := s.set.put(now, st.Node, st.Version, raw, own)
	if !ok {
		return
	}
	s.gone.remove(st.Node)
	bulk := false
	for _, l := range s.order {
		l.has.remove(slot) // an older one
	}
	if source != nil {
		source.has.add(slot)
		source.gained = true
		asked := s.asked.values[st.Node].of == from
		if bulk = asked && s.load.link == source; bulk {
			s.load.last = now
		}
		if !asked {
			source.tell(now, slot, true)
		}
	}
	s.asked.remove(st.Node)
	for _, l := range s.order {
		switch {
		case l == source:
		case l.eager && !bulk:
			l.push(now, slot, false)
		default:
			l.tell(now, slot, false)
		}
	}
}

// Forget drops the link state of node, which is no member any more or was silent for too long. That version and older ones are
// not taken again, unless [States.Welcome] says so.
func (s *States) Forget(_ time.Time, node key.ShortID) {
	slot, ok := s.set.index[node]
	if !ok {
		return
	}
	s.gone.put(node, s.set.slots[slot].version)
	s.set.remove(node)
	for _, l := range s.order {
		l.has.remove(slot)
	}
}

// Reject says that raw, which from sent, is not valid. The same bytes are not handed over again, from nobody.
func (s *States) Reject(now time.Time, raw []byte, from key.NodeID) {
	h := hash(raw)
	s.rejected.put(h, struct{}{})
	s.pending.remove(h)
	l := s.links[from]
	if l == nil {
		return
	}
	l.states.fill(now)
	l.states.tokens -= forgeryPrice - 1 // an honest neighbour passes nothing on that it has not verified
	if st, err := wire.ParseLinkState(raw); err == nil && st.Version.Compare(l.refused.values[st.Node]) > 0 {
		l.refused.put(st.Node, st.Version)
	}
}

// Defer says that raw, the link state st, which from sent, cannot be judged yet: its node is not known as a member.
// It is kept for [States.Welcome].
func (s *States) Defer(_ time.Time, raw []byte, st wire.LinkState, from key.NodeID) {
	s.pending.remove(hash(raw))
	if l := s.links[from]; l != nil && st.Version.Compare(l.pen.values[st.Node].version) > 0 {
		l.pen.put(st.Node, penned{st.Version, raw})
	}
}

// Welcome says that node is a member now, for the first time or anew. What was deferred of it is delivered again.
func (s *States) Welcome(now time.Time, node key.ShortID) {
	s.gone.remove(node)
	for _, l := range s.order {
		l.refused.remove(node)
		p, ok := l.pen.values[node]
		l.pen.remove(node)
		if st, err := wire.ParseLinkState(p.raw); ok && err == nil {
			s.deliver(now, l, st, p.raw)
		}
	}
}

// Version returns the version of the link state that is held of node; the zero Version if there is none.
func (s *States) Version(node key.ShortID) wire.Version { return s.set.version(node) }

// Raw returns the encoded link state that is held of node, not to be changed; nil if there is none.
func (s *States) Raw(node key.ShortID) []byte {
	if slot, ok := s.set.index[node]; ok {
		return s.set.slots[slot].raw
	}
	return nil
}

// Len returns the number of nodes whose link states are held.
func (s *States) Len() int { return len(s.set.index) }

// Handle takes m, a wire.States or wire.Digest that peer sent. It keeps nothing of m. An error says that m is malformed
// (wire.ErrMalformed; what was good of it counts) or that peer is not up ([ErrUnknownPeer]).
func (s *States) Handle(now time.Time, peer key.NodeID, m Message) error {
	l := s.links[peer]
	if l == nil {
		return fmt.Errorf("link states of %v: %w", peer.Short(), ErrUnknownPeer)
	}
	switch m := m.(type) {
	case wire.States:
		return s.handleStates(now, l, m)
	case wire.Digest:
		return s.handleDigest(now, l, m)
	}
	return fmt.Errorf("link states: cannot read a %T: %w", m, wire.ErrMalformed)
}

// handleStates delivers what is newer. Old and known ones cost no more than a look.
func (s *States) handleStates(now time.Time, l *link, m wire.States) error {
	var fault error
	for _, raw := range m.Raw {
		if !l.looks.take(now, 1) {
			break
		}
		st, err := wire.ParseLinkState(raw)
		if err != nil {
			fault = fmt.Errorf("link states: %w", err)
			continue
		}
		if slot, ok := s.set.index[st.Node]; ok && st.Version.Compare(s.set.slots[slot].version) <= 0 {
			s.repeated(now, l, slot, st.Version)
			continue
		}
		s.deliver(now, l, st, raw)
	}
	return fault
}

// deliver hands st, which is newer than what we hold, to the owner. What comes too fast is noted as news, to be asked for when
// its time has come.
func (s *States) deliver(now time.Time, l *link, st wire.LinkState, raw []byte) {
	h := hash(raw)
	at, pending := s.pending.values[h]
	switch {
	case s.useless(l, st.Node, st.Version), s.rejected.has(h):
	case pending && now.Sub(at) < pendingFor:
		l.note(at.Add(pendingFor), st.Node, st.Version, false)
	case s.set.early(now, st.Node, s.handed[st.Node]):
		l.note(now.Add(originEvery), st.Node, st.Version, false)
	case !l.states.take(now, 1):
		l.note(now.Add(askAgain), st.Node, st.Version, false)
	default:
		s.pending.put(h, now)
		s.handed[st.Node]++
		s.effects = append(s.effects, DeliverState{Peer: l.id, State: st, Raw: slices.Clone(raw)})
	}
}

// useless reports whether the version v of node's link state is one that we would not take of l.
func (s *States) useless(l *link, node key.ShortID, v wire.Version) bool {
	return v.Compare(s.set.version(node)) <= 0 || v.Compare(s.gone.values[node]) <= 0 ||
		v.Compare(l.refused.values[node]) <= 0 || v.Compare(l.pen.values[node].version) <= 0
}

// Tick carries out what is due and returns when it wants to be called next; the zero time means never.
func (s *States) Tick(now time.Time) (next time.Time) {
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(now) }
	for _, l := range s.order {
		if due(l.roundAt) {
			l.roundAt = s.begin(now, l)
		}
		if due(l.askAt) {
			l.askAt = s.ask(now, l)
		}
		if due(l.pushAt) {
			l.pushAt = s.drain(now, l)
		}
		if due(l.tellAt) {
			l.tellAt = s.announce(now, l)
		}
		if due(l.checkAt) {
			l.checkAt = s.check(now, l)
		}
		next = earlier(earlier(earlier(next, l.roundAt), earlier(l.askAt, l.pushAt)), earlier(l.tellAt, l.checkAt))
	}
	return next
}

// Effects returns what the owner must do now, in order, and forgets it.
func (s *States) Effects() []Effect {
	out := s.effects
	s.effects = nil
	clear(s.handed)
	return out
}

// upTo returns a random time below d.
func (s *States) upTo(d time.Duration) time.Duration {
	var b [8]byte
	io.ReadFull(s.cfg.Rand, b[:]) //nolint:errcheck // less random then, and that is all
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(d))
}
