package join

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// JoinerConfig says who wants to join what.
type JoinerConfig struct {
	Seed     key.InviteSeed // from the code
	Network  [16]byte       // from the code: the network id's first half
	Identity key.Identity   // the newcomer's; keep it for another try, so that a join whose answer was lost is found again
	WG       key.WGPrivate  // the newcomer's
	Name     string         // wanted, in the form the network gives names; the network may put -N behind it
	Info     wire.NodeInfo  // to be signed for the network; WG must be that of WG
	Hints    []netip.AddrPort
	Seek     bool          // the owner looks for introducers, and names them with Hint: none is needed now
	NewIndex func() uint32 // draws an index that is unique in the process
	Rand     io.Reader     // nil: crypto/rand
}

var (
	errConfig = errors.New("join config")
	errStall  = errors.New("answers and does not go on")
)

func (c *JoinerConfig) check() error {
	switch {
	case c.Identity.IsZero() || c.WG.IsZero() || c.NewIndex == nil:
		return fmt.Errorf("%w: key or index source missing", errConfig)
	case c.Info.WG != c.WG.Public():
		return fmt.Errorf("%w: node info has another WireGuard key", errConfig)
	case c.Name == "":
		return fmt.Errorf("%w: no name", errConfig)
	case len(c.Hints) == 0 && !c.Seek || len(c.Hints) > MaxHints:
		return fmt.Errorf("%w: %d hints, want 1 to %d", errConfig, len(c.Hints), MaxHints)
	}
	info, err := wire.SealRecord(key.NetworkID{}, wire.KindNodeInfo, c.Info, c.Identity)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if _, err := (wire.JoinAccept{NodeInfo: info.Raw}).Marshal(); err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if _, err := (wire.JoinHello{Name: c.Name}).Marshal(); err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	return nil
}

// Joiner brings this node into one network. The owner calls Start once, and may drop the Joiner at any time: that is how a
// join is cancelled. See the package comment for ownership.
type Joiner struct {
	cfg      JoinerConfig
	log      *slog.Logger
	attempts []*attempt
	chosen   *attempt // the one in state accepting; nil: none
	running  bool
	heard    time.Time // when an introducer was last heard, or the start
	polling  bool      // Pending was told: from now on silence is no failure
	resume   time.Time // not zero: idle until then
	verdict  Reason    // why attempts went out; Silent when none did
	effects  []Effect
}

// NewJoiner checks cfg; the error is for programmers, but for a name or node info that is too long. A nil log is silent.
func NewJoiner(cfg JoinerConfig, log *slog.Logger) (*Joiner, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	j := &Joiner{cfg: cfg, log: log.With("part", "join"), verdict: Silent}
	for _, to := range cfg.Hints {
		a := &attempt{to: netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
		if err := j.greet(a); err != nil {
			return nil, err
		}
		j.attempts = append(j.attempts, a)
	}
	return j, nil
}

// Start sends step 1 to all hints.
func (j *Joiner) Start(now time.Time) {
	j.running, j.heard = true, now
	j.Tick(now)
}

// Hint names an address at which an introducer may be, besides those of the config. When [MaxHints] are asked already, it takes
// the place of one that has not answered. An address that is known changes nothing.
func (j *Joiner) Hint(now time.Time, to netip.AddrPort) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !j.running || !to.IsValid() || slices.ContainsFunc(j.attempts, func(a *attempt) bool { return a.to == to && a.state != out }) {
		return
	}
	j.attempts = slices.DeleteFunc(j.attempts, func(a *attempt) bool { return a.to == to })
	if len(j.attempts) >= MaxHints {
		i := slices.IndexFunc(j.attempts, func(a *attempt) bool { return a.state == out })
		if i < 0 {
			i = slices.IndexFunc(j.attempts, func(a *attempt) bool { return a.state == greeting && a.sends > 0 })
		}
		if i < 0 {
			return
		}
		j.attempts = slices.Delete(j.attempts, i, i+1)
	}
	a := &attempt{to: to}
	if err := j.greet(a); err != nil {
		j.log.Debug("introducer left out", "addr", to, "err", err)
		return
	}
	j.attempts = append(j.attempts, a)
	j.Tick(now)
}

// Owns reports whether a join frame is an answer to j.
func (j *Joiner) Owns(msg []byte) bool {
	if index, ok := wire.JoinReceiver(msg); ok && msg[1] != 3 {
		return j.find(index) != nil
	}
	return false
}

func (j *Joiner) find(index uint32) *attempt {
	for _, a := range j.attempts {
		if a.index == index {
			return a
		}
	}
	return nil
}

// Handle takes one join frame. From where it came does not matter: it is authentic or has no effect.
func (j *Joiner) Handle(now time.Time, from netip.AddrPort, msg []byte) {
	m, err := wire.ParseJoin(msg)
	if err != nil || !j.running {
		return
	}
	switch m := m.(type) {
	case wire.JoinStep2:
		if a := j.find(m.Receiver); a != nil && a.state == greeting {
			j.handleOffer(now, a, m)
		}
	case wire.JoinStep4:
		if a := j.find(m.Receiver); a != nil && a.state == accepting {
			j.handlePart(now, a, m)
		}
	}
	j.settle(now)
}

func (j *Joiner) handleOffer(now time.Time, a *attempt, m wire.JoinStep2) {
	authentic, err := j.readOffer(a, m)
	if !authentic {
		j.log.Debug("join message dropped", "from", a.to, "err", err)
		return
	}
	j.heard = now
	switch {
	case err != nil:
		j.drop(a, Mismatch, err)
	case a.offer.Status.Goes():
		a.state = offered
	default:
		j.refused(a, a.offer.Status)
	}
}

func (j *Joiner) handlePart(now time.Time, a *attempt, m wire.JoinStep4) {
	whole, err := a.readPart(now, m)
	if err != nil {
		j.log.Debug("join message dropped", "from", a.to, "err", err)
		return
	}
	j.heard = now
	if !whole {
		return
	}
	g, err := j.readGrant(a)
	switch {
	case err != nil:
		j.drop(a, Mismatch, err)
	case g.Status.Goes():
		j.running = false
		j.effects = append(j.effects, Joined{Network: a.offer.Network, Records: append(g.Records, a.nodeInfo), Introducer: a.introduced()})
	case g.Status == wire.JoinPending:
		j.pend(now, a.offer.Network)
	default:
		j.refused(a, g.Status)
	}
}

// pend waits for an admin: the whole handshake again, every pendingGap (spec/30-join.md#pending).
func (j *Joiner) pend(now time.Time, network key.NetworkID) {
	if !j.polling {
		j.effects = append(j.effects, Pending{Network: network})
	}
	j.polling, j.resume = true, now.Add(pendingGap)
}

// refused ends the join, or the part of a in it.
func (j *Joiner) refused(a *attempt, s wire.JoinStatus) {
	reason, final := refusal(s)
	if final {
		j.fail(reason)
		return
	}
	j.drop(a, reason, nil)
}

// drop leaves an introducer out.
func (j *Joiner) drop(a *attempt, why Reason, err error) {
	j.log.Debug("introducer left out", "addr", a.to, "reason", why, "err", err)
	a.state = out
	if j.chosen == a {
		j.chosen = nil
	}
	if why != Mismatch || j.verdict == Silent { // a refusal explains more than a lie does
		j.verdict = why
	}
}

func (j *Joiner) fail(why Reason) {
	j.running = false
	j.effects = append(j.effects, Failed{Reason: why})
}

// Reject says that the records of the Joined effect do not make a chain: the introducer is left out and the others are
// asked. The owner calls it at most once for each Joined.
func (j *Joiner) Reject(now time.Time) {
	if j.running || j.chosen == nil {
		return
	}
	j.running, j.heard = true, now
	j.drop(j.chosen, Mismatch, nil)
	j.settle(now)
}

// Effects drains what the owner must do, in order.
func (j *Joiner) Effects() []Effect {
	out := j.effects
	j.effects = nil
	return out
}

// Tick does what is due. The zero time means that there is nothing to wait for.
func (j *Joiner) Tick(now time.Time) (next time.Time) {
	if !j.running {
		return time.Time{}
	}
	if !j.resume.IsZero() {
		if now.Before(j.resume) {
			return j.resume
		}
		j.again()
	}
	if j.chosen != nil && now.Sub(j.chosen.progress) >= stallAfter {
		j.stall(now)
	}
	if !j.polling && now.Sub(j.heard) >= j.patience() {
		j.fail(j.verdict)
		return time.Time{}
	}
	j.settle(now)
	for _, a := range j.active() {
		j.resend(now, a)
	}
	return j.due()
}

// patience returns for how long nobody need answer.
func (j *Joiner) patience() time.Duration {
	if j.cfg.Seek {
		return seekFor
	}
	return silentAfter
}

// settle chooses an offer when none is chosen, and ends the join, or the round of a pending one, when nobody is left.
func (j *Joiner) settle(now time.Time) {
	for j.running && j.resume.IsZero() && j.chosen == nil {
		i := slices.IndexFunc(j.attempts, func(a *attempt) bool { return a.state == offered })
		if i < 0 {
			break
		}
		a := j.attempts[i]
		if err := j.consent(now, a); err != nil {
			j.drop(a, Mismatch, err)
			continue
		}
		j.chosen = a
		j.resend(now, a)
	}
	if !j.running || slices.ContainsFunc(j.attempts, func(a *attempt) bool { return a.state != out }) {
		return
	}
	switch {
	case !j.polling && j.cfg.Seek && j.verdict == Silent: // others may be found yet
	case !j.polling:
		j.fail(j.verdict)
	case j.resume.IsZero():
		j.resume = now.Add(pendingGap)
	}
}

// stall turns away from an introducer that says nothing. It is greeted anew with the others, in case it has forgotten the
// handshake, but an offer of another is taken first.
func (j *Joiner) stall(now time.Time) {
	a := j.chosen
	j.log.Debug("introducer stalls", "addr", a.to)
	j.chosen = nil
	a.stalls++
	if a.stalls >= maxStalls {
		j.drop(a, j.verdict, errStall)
	} else if err := j.greet(a); err != nil {
		j.drop(a, j.verdict, err)
	}
	for _, b := range j.attempts {
		if b.state == greeting && b.next.After(now) {
			b.next = now
		}
	}
}

// again starts another round of a pending join.
func (j *Joiner) again() {
	j.resume, j.chosen, j.verdict = time.Time{}, nil, Silent
	for _, a := range j.attempts {
		a.state, a.stalls = out, 0 // so that greet starts its clock anew
		if err := j.greet(a); err != nil {
			j.log.Debug("introducer left out", "addr", a.to, "reason", j.verdict, "err", err)
		}
	}
}

// active lists the attempts that send: the chosen one alone, or all that have no offer.
func (j *Joiner) active() []*attempt {
	if !j.running || !j.resume.IsZero() {
		return nil
	}
	if j.chosen != nil {
		return []*attempt{j.chosen}
	}
	var all []*attempt
	for _, a := range j.attempts {
		if a.state == greeting {
			all = append(all, a)
		}
	}
	return all
}

// resend sends the frame of a when it is due.
func (j *Joiner) resend(now time.Time, a *attempt) {
	if now.Before(a.next) {
		return
	}
	if a.state == greeting && a.sends > 0 && a.sends%helloSends == 0 {
		if err := j.greet(a); err != nil {
			j.drop(a, j.verdict, err)
			return
		}
	}
	a.sends++
	a.next = now.Add(gap(a.sends))
	j.effects = append(j.effects, Send{To: a.to, Data: slices.Clone(a.frame)})
}

// due returns when Tick has something to do.
func (j *Joiner) due() time.Time {
	if !j.running {
		return time.Time{}
	}
	if !j.resume.IsZero() {
		return j.resume
	}
	var next time.Time
	earlier := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, a := range j.active() {
		earlier(a.next)
	}
	if j.chosen != nil {
		earlier(j.chosen.progress.Add(stallAfter))
	}
	if !j.polling {
		earlier(j.heard.Add(j.patience()))
	}
	return next
}
