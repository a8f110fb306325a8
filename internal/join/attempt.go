package join

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// attemptState is where an attempt stands; the picture is in the package comment.
type attemptState uint8

const (
	greeting  attemptState = iota // step 1 is out
	offered                       // has a good offer, waits to be chosen
	accepting                     // step 3 is out
	out                           // refused, or told lies
)

// attempt is a join through one hint, with handshakes of its own.
type attempt struct {
	to     netip.AddrPort
	state  attemptState
	stalls int // how often it was chosen and said nothing more

	hs    *handshake
	index uint32 // ours: receiver of steps 2 and 4
	frame []byte // step 1 or 3, to be sent again
	sends int    // of this state
	next  time.Time

	offer    wire.JoinOffer
	nodeInfo []byte // the newcomer's record, as sent
	progress time.Time
	parts    [][]byte // plaintext of step 4; nil: not here yet
	missing  int
}

// Timing of a joiner (spec/30-join.md#timing).
const (
	firstGap    = 250 * time.Millisecond
	lastGap     = 2 * time.Second
	helloSends  = 4 // of one step 1; then a new handshake
	stallAfter  = 2 * time.Second
	maxStalls   = 6 // of one introducer; then it is left out
	silentAfter = 15 * time.Second
	seekFor     = time.Minute // the same, while introducers are looked for
	pendingGap  = 5 * time.Second
	// MaxHints is how many introducers a Joiner asks at once.
	MaxHints = 8
)

// greet starts a with a new handshake.
func (j *Joiner) greet(a *attempt) error {
	joinKey := j.cfg.Seed.JoinKey()
	hello := wire.JoinStep1{Sender: j.cfg.NewIndex(), Locator: joinKey.Locator()}
	hs, err := newHandshake(true, j.cfg.WG, joinKey, hello, j.cfg.Rand)
	if err != nil {
		return err
	}
	payload, err := wire.JoinHello{Key: j.cfg.Identity.Public(), Name: j.cfg.Name, Version: wire.JoinVersion}.Marshal()
	if err != nil {
		return err
	}
	hello.Noise, err = hs.write(payload)
	if err != nil {
		return fmt.Errorf("write join hello: %w", err)
	}
	sends, next := a.sends, a.next
	if a.state != greeting {
		sends, next = 0, time.Time{}
	}
	*a = attempt{to: a.to, stalls: a.stalls, hs: hs, index: hello.Sender, frame: hello.Append(nil), sends: sends, next: next}
	return nil
}

// consent signs the offer of a and prepares step 3.
func (j *Joiner) consent(now time.Time, a *attempt) error {
	info, err := wire.SealRecord(a.offer.Network, wire.KindNodeInfo, j.cfg.Info, j.cfg.Identity)
	if err != nil {
		return fmt.Errorf("own node info: %w", err)
	}
	input := wire.SignedInput(wire.KindMember, a.offer.Network, a.offer.Draft)
	payload, err := wire.JoinAccept{InviteSig: j.cfg.Seed.Identity().Sign(input), OwnSig: j.cfg.Identity.Sign(input),
		NodeInfo: info.Raw}.Marshal()
	if err != nil {
		return err
	}
	msg, err := a.hs.write(payload)
	if err != nil {
		return fmt.Errorf("write join accept: %w", err)
	}
	a.frame = wire.JoinStep3{Receiver: a.offer.Sender, Noise: msg}.Append(nil)
	a.state, a.nodeInfo, a.sends, a.next, a.progress = accepting, info.Raw, 0, now, now
	return nil
}

// readOffer takes step 2. The error wraps errMismatch or wire.ErrMalformed when whoever answered is authentic but wrong.
func (j *Joiner) readOffer(a *attempt, m wire.JoinStep2) (authentic bool, err error) {
	payload, err := a.hs.read(m.Noise)
	if err != nil {
		return false, fmt.Errorf("read join offer: %w", err)
	}
	o, err := wire.ParseJoinOffer(payload)
	if err != nil {
		return true, err
	}
	if [16]byte(o.Network[:16]) != j.cfg.Network {
		return true, fmt.Errorf("offer of another network: %w", errMismatch)
	}
	a.offer = o
	if !o.Status.Goes() {
		return true, nil
	}
	_, err = checkOffer(&j.cfg, o)
	return true, err
}

// readPart takes one frame of step 4; whole is true when it was the last that was missing.
func (a *attempt) readPart(now time.Time, m wire.JoinStep4) (whole bool, err error) {
	if a.parts != nil && (len(a.parts) != int(m.Parts) || a.parts[m.Part] != nil) {
		return false, nil // seen, or not of the same answer
	}
	chunk, err := a.hs.toJoiner.Decrypt(make([]byte, 0, wire.JoinChunk), uint64(m.Part), m.Header, m.Sealed)
	if err != nil {
		return false, fmt.Errorf("open join part: %w", err)
	}
	if a.parts == nil {
		a.parts, a.missing = make([][]byte, m.Parts), int(m.Parts)
	}
	a.parts[m.Part] = chunk
	a.missing--
	a.progress = now
	return a.missing == 0, nil
}

// readGrant puts the parts together and checks them.
func (j *Joiner) readGrant(a *attempt) (wire.JoinGrant, error) {
	var body []byte
	for _, p := range a.parts {
		body = append(body, p...)
	}
	g, err := wire.ParseJoinGrant(body)
	if err != nil {
		return g, err
	}
	if g.Status.Goes() {
		err = checkGrant(&j.cfg, a.offer, a.hs.remote(), g.Records)
	}
	return g, err
}

// gap returns how long to wait after the nth send of a frame.
func gap(n int) time.Duration {
	if n > 3 {
		return lastGap
	}
	return min(lastGap, firstGap<<(n-1))
}

// introduced says who a talked to.
func (a *attempt) introduced() Introduced {
	return Introduced{WG: key.WGPublic(a.hs.remote()), Identity: a.offer.Introducer, Addr: a.to}
}
