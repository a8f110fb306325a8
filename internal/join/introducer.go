package join

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Limits of an introducer (spec/30-join.md#limits).
const (
	maxEntries  = 256
	entryLife   = 30 * time.Second
	maxSources  = 1024
	sourceRate  = 5 // step 1 frames a second from one source
	sourceBurst = 10
	probeRate   = 2000 // step 1 frames a second whose authenticity is checked, over all sources: symmetric work only
	probeBurst  = 2000
	helloRate   = 50 // authentic step 1 frames a second, over all sources: Diffie-Hellman and the owner's work
	helloBurst  = 50
	maxFaults   = 8 // failed step 3 frames of one join
	answerGap   = 100 * time.Millisecond
	maxAnswers  = 20
)

// Invite is what an introducer must know of an invite. Whether it may still be used is Draft's to say.
type Invite struct {
	JoinKey key.JoinKey
	Key     key.Public        // the invite key
	Prefix  wire.RecordPrefix // of the invite record
}

// IntroducerConfig says for whom an introducer speaks. The four callbacks are called from Handle and must not call back.
type IntroducerConfig struct {
	Network  key.NetworkID
	Identity key.Identity  // this member's: witnesses the newcomers
	WG       key.WGPrivate // this member's static key in the network, as in its node info
	NewIndex func() uint32 // draws an index that is unique in the process
	Rand     io.Reader     // nil: crypto/rand

	// Invite finds an invite of the network by its locator; ok is false when there is none. It is called for every step 1
	// frame, so it must be a map lookup. Used, expired and revoked invites that are still known are found too.
	Invite func(loc key.Locator) (inv Invite, ok bool)

	// Draft says whether identity may join by inv, and as what. With JoinOK, payload is the canonical encoding of a new
	// wire.Member: Invite is inv.Prefix and Witness is this member's identity. With JoinKnown, it is the payload of the record by
	// which identity joined through inv before, whoever witnessed it. Otherwise it is nil.
	Draft func(now time.Time, inv Invite, identity key.Public, name string) (payload []byte, status wire.JoinStatus)

	// Admit takes the member record, whose signatures are good, and the newcomer's node info record. It stores and spreads
	// both, and returns the records that the newcomer needs, genesis first (spec/30-join.md#grant). With JoinPending or a
	// refusal there are none. After JoinKnown the member record lacks the witness, and one of the same payload is
	// there already: Admit keeps that.
	Admit func(now time.Time, member, nodeInfo []byte) (records [][]byte, status wire.JoinStatus)

	// Learn takes records by which someone shows that it is a member, in an order in which each follows from those before. Nothing of
	// them is checked but that the sender knows our static key, as those do who were members once. Learn must not keep what it cannot
	// accept now (spec/30-join.md#proof). Raw is only lent.
	Learn func(now time.Time, raw [][]byte)
}

// Introducer answers those who want to join one network. See the package comment for ownership.
type Introducer struct {
	cfg     IntroducerConfig
	log     *slog.Logger
	public  key.Public
	entries entries
	sources sources
	probes  bucket
	hellos  bucket
	effects []Effect

	proofKey [32]byte
	provers  sources
	proofs   bucket
}

// NewIntroducer starts with nothing half-open. A nil log is silent.
func NewIntroducer(cfg IntroducerConfig, log *slog.Logger) *Introducer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Introducer{cfg: cfg, log: log.With("part", "join"), public: cfg.Identity.Public(), proofKey: proofKey(cfg.WG.Public())}
}

// Owns reports whether a join frame is for e: step 1 by its locator, step 3 by its receiver index, a proof by its MAC.
func (e *Introducer) Owns(msg []byte) bool {
	m, err := wire.ParseJoin(msg)
	if err != nil {
		return false
	}
	switch m := m.(type) {
	case wire.JoinStep1:
		_, ok := e.cfg.Invite(m.Locator)
		return ok
	case wire.JoinStep3:
		return e.entries.byIndex[m.Receiver] != nil
	case wire.JoinProof:
		return e.isOurs(m)
	}
	return false
}

// Handle takes one join frame that came from an address. What is not for e, or not authentic, has no effect at all.
func (e *Introducer) Handle(now time.Time, from netip.AddrPort, msg []byte) {
	m, err := wire.ParseJoin(msg)
	if err != nil {
		return
	}
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	e.entries.expire(now)
	switch m := m.(type) {
	case wire.JoinStep1:
		err = e.hello(now, from, m)
	case wire.JoinStep3:
		err = e.accept(now, from, m)
	case wire.JoinProof:
		err = e.learn(now, from, m)
	}
	if err != nil {
		e.log.Debug("join message dropped", "from", from, "err", err)
	}
}

// Tick drops what is too old. The zero time means that there is nothing to wait for.
func (e *Introducer) Tick(now time.Time) (next time.Time) { return e.entries.expire(now) }

// Effects drains what the owner must do: Send only.
func (e *Introducer) Effects() []Effect {
	out := e.effects
	e.effects = nil
	return out
}

var (
	errLimit  = errors.New("over the limit")
	errReplay = errors.New("replayed from elsewhere")
)

// hello answers step 1. The order of the checks is that of their cost: spec/30-join.md#limits.
func (e *Introducer) hello(now time.Time, from netip.AddrPort, m wire.JoinStep1) error {
	inv, ok := e.cfg.Invite(m.Locator)
	if !ok {
		return nil
	}
	if !e.sources.allow(now, from.Addr(), sourceRate, sourceBurst) {
		return errLimit
	}
	ephemeral := [32]byte(m.Noise)
	if h := e.entries.byEphemeral[ephemeral]; h != nil {
		if h.from != from || h.sender != m.Sender || !bytes.Equal(h.hello, m.Noise) {
			return errReplay
		}
		e.send(from, h.offer) // spec/30-join.md#replay
		return nil
	}
	if !e.probes.take(now, probeRate, probeBurst) {
		return errLimit
	}
	hs, err := newHandshake(false, e.cfg.WG, inv.JoinKey, m, e.cfg.Rand)
	if err != nil {
		return err
	}
	payload, err := hs.read(m.Noise)
	if err != nil {
		return err
	}
	hello, err := wire.ParseJoinHello(payload)
	if err != nil {
		return err
	}
	if !e.hellos.take(now, helloRate, helloBurst) {
		return errLimit
	}
	h := &entry{from: from, expires: now.Add(entryLife), ephemeral: ephemeral, sender: m.Sender,
		hello: bytes.Clone(m.Noise), hs: hs, identity: hello.Key, invite: inv}
	return e.offer(now, h, hello)
}

// offer writes step 2 and remembers the join.
func (e *Introducer) offer(now time.Time, h *entry, hello wire.JoinHello) error {
	h.index = e.cfg.NewIndex()
	o := wire.JoinOffer{Status: wire.JoinTooOld, Network: e.cfg.Network, Introducer: e.public, Sender: h.index}
	if hello.Version >= wire.JoinVersion {
		o.Draft, o.Status = e.cfg.Draft(now, h.invite, hello.Key, hello.Name)
	}
	if !o.Status.Goes() {
		o.Draft = nil
	}
	payload, err := o.Marshal()
	if err != nil {
		return err
	}
	msg, err := h.hs.write(payload)
	if err != nil {
		return fmt.Errorf("write join offer: %w", err)
	}
	h.draft, h.known = o.Draft, o.Status == wire.JoinKnown
	if h.draft == nil {
		h.hs = nil
	}
	h.offer = wire.JoinStep2{Receiver: h.sender, Noise: msg}.Append(nil)
	e.entries.add(h)
	e.send(h.from, h.offer)
	e.log.Debug("join offered", "from", h.from, "name", hello.Name, "status", o.Status)
	return nil
}

// accept answers step 3.
func (e *Introducer) accept(now time.Time, from netip.AddrPort, m wire.JoinStep3) error {
	h := e.entries.byIndex[m.Receiver]
	if h == nil || h.from != from {
		return nil
	}
	if h.parts != nil {
		if bytes.Equal(h.accept, m.Noise) && h.answers < maxAnswers && now.Sub(h.answered) >= answerGap {
			e.answer(now, h)
		}
		return nil
	}
	if h.hs == nil || h.faults >= maxFaults {
		return nil
	}
	payload, err := h.hs.read(m.Noise)
	if err != nil {
		h.faults++
		return err
	}
	hs := h.hs
	h.hs = nil // whatever follows, this handshake is spent
	member, info, err := e.complete(h, payload, hs.remote())
	if err != nil {
		return err
	}
	h.accept = bytes.Clone(m.Noise)
	return e.grant(now, h, hs, member, info)
}

// complete checks what the newcomer signed and adds this member's signature as the witness (spec/30-join.md#accept).
func (e *Introducer) complete(h *entry, payload []byte, static key.WGPublic) (member, info []byte, err error) {
	a, err := wire.ParseJoinAccept(payload)
	if err != nil {
		return nil, nil, err
	}
	if err := checkNodeInfo(e.cfg.Network, a.NodeInfo, h.identity, static); err != nil {
		return nil, nil, err
	}
	input := wire.SignedInput(wire.KindMember, e.cfg.Network, h.draft)
	if !h.invite.Key.Verify(input, a.InviteSig) || !h.identity.Verify(input, a.OwnSig) {
		return nil, nil, fmt.Errorf("join accept: %w: bad signature", wire.ErrMalformed)
	}
	sigs := []wire.Sig{{Signer: h.invite.Key, Signature: a.InviteSig}, {Signer: h.identity, Signature: a.OwnSig}}
	if !h.known {
		sigs = append(sigs, wire.Sig{Signer: e.public, Signature: e.cfg.Identity.Sign(input)})
	}
	r, err := wire.EncodeRecord(e.cfg.Network, wire.KindMember, h.draft, sigs)
	if err != nil {
		return nil, nil, fmt.Errorf("join accept: %w", err)
	}
	return r.Raw, bytes.Clone(a.NodeInfo), nil
}

// grant lets the owner admit the newcomer and seals the answer into the parts of step 4.
func (e *Introducer) grant(now time.Time, h *entry, hs *handshake, member, info []byte) error {
	var g wire.JoinGrant
	g.Records, g.Status = e.cfg.Admit(now, member, info)
	if !g.Status.Goes() {
		g.Records = nil
	}
	body, err := g.Marshal()
	if err != nil {
		return err
	}
	parts := (len(body) + wire.JoinChunk - 1) / wire.JoinChunk
	for i := range parts {
		chunk := body[i*wire.JoinChunk : min(len(body), (i+1)*wire.JoinChunk)]
		frame := wire.JoinStep4{Receiver: h.sender, Part: uint8(i), Parts: uint8(parts)}.Append(make([]byte, 0, wire.MaxJoin))
		h.parts = append(h.parts, hs.toJoiner.Encrypt(frame, uint64(i), frame, chunk))
	}
	e.answer(now, h)
	e.log.Debug("join answered", "from", h.from, "status", g.Status, "parts", parts)
	return nil
}

func (e *Introducer) answer(now time.Time, h *entry) {
	h.answered = now
	h.answers++
	for _, p := range h.parts {
		e.send(h.from, p)
	}
}

// send gives out a copy: the owner may keep or change what it gets.
func (e *Introducer) send(to netip.AddrPort, data []byte) {
	e.effects = append(e.effects, Send{To: to, Data: bytes.Clone(data)})
}
