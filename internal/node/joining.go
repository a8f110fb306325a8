package node

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/path"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/state"
	"github.com/warren-vpn/warren/internal/wire"
)

// joining is a join under way. It belongs to the control loop.
type joining struct {
	n       *Node
	engine  *join.Joiner
	code    wire.Code
	text    string // of the code
	name    string // wanted
	keys    state.Keys
	network *network // set once it waits for approval and is on the disk, or when it is repeated
	again   bool     // repeated: see [network.vouch]

	progress func(api.Progress) // of the API call that waits, or nil
	finished func(*network, error)
	finder   *finder // nil: hints must do
	mask     *wire.Mask
}

// newJoining starts the join of a code, with the keys of an earlier try if there was one.
func (n *Node) newJoining(now time.Time, text, name string) (*joining, error) {
	code, err := wire.ParseCode(text)
	if err != nil {
		return nil, err
	}
	keys, err := n.dir.JoinKeys(code.Seed.JoinKey().Locator(), state.Keys{Identity: key.NewIdentity(), WG: key.NewWGPrivate()})
	if err != nil {
		return nil, err
	}
	return n.joinWith(now, code, text, name, keys)
}

// joinWith starts or repeats a join with keys that are on the disk.
func (n *Node) joinWith(now time.Time, code wire.Code, text, name string, keys state.Keys) (*joining, error) {
	j := &joining{n: n, code: code, text: text, name: name, keys: keys,
		progress: func(api.Progress) {}, finished: func(*network, error) {}}
	var err error
	j.engine, err = join.NewJoiner(join.JoinerConfig{
		Seed: code.Seed, Network: code.Network, Identity: keys.Identity, WG: keys.WG, Name: name,
		Info:  wire.NodeInfo{Seq: uint64(max(now.Unix(), 1)), WG: keys.WG.Public(), Version: n.opt.Version, Caps: ownCaps(), Time: max(now.Unix(), 1), Endpoints: encodeEndpoints(n.localEndpoints())},
		Hints: code.Hints, Seek: n.dht != nil || n.beacons != nil || len(code.Targets) > 0, NewIndex: n.newIndex,
	}, n.log)
	if err != nil {
		return nil, err
	}
	if code.Mask {
		key := code.Seed.JoinKey()
		j.mask = wire.NewMask(key[:])
	}
	n.joins[j], n.masks.due = struct{}{}, now
	j.engine.Start(now)
	j.look(now)
	return j, nil
}

// localEndpoints lists the host's own addresses with our port.
func (n *Node) localEndpoints() (out []netip.AddrPort) {
	for _, a := range n.local {
		if len(out) < maxEndpoints {
			out = append(out, netip.AddrPortFrom(a, n.socket.Port()))
		}
	}
	return out
}

// settle lets the joiner see the time and carries out what it asks for.
func (j *joining) settle(now time.Time) time.Time {
	next := j.engine.Tick(now)
	for _, e := range j.engine.Effects() {
		switch e := e.(type) {
		case join.Send:
			j.n.nat.Tried(now, e.To)
			j.n.plane.SendRaw(e.To, e.Data, j.mask)
		case join.Pending:
			j.wait(e.Network)
		case join.Failed:
			j.end(nil, report.Refusal(e.Reason, j.code))
		case join.Joined:
			w, err := j.enter(now, e)
			if errors.Is(err, errChain) {
				j.n.log.Warn("an introducer's records do not hold", "err", err)
				j.engine.Reject(now)
				return now
			}
			j.end(w, err)
		}
	}
	return next
}

// end takes the join out of the node and tells who waits.
func (j *joining) end(w *network, err error) {
	delete(j.n.joins, j)
	if j.finder != nil {
		j.finder.end()
	}
	e, told := errors.AsType[*api.Error](err)
	if w != nil || told && e.Code != api.CodeNoIntroducer { // else the next try may find that it was admitted
		if err := j.n.dir.ForgetJoinKeys(j.code.Seed.JoinKey().Locator()); err != nil {
			j.n.log.Warn("keys of a join that is done are still there", "err", err)
		}
	}
	if w := j.network; w != nil && !j.again {
		w.pending = nil
		if err != nil {
			w.why = err.Error()
		}
	}
	j.finished(w, err)
}

// wait makes a join that an admin must approve last over restarts.
func (j *joining) wait(id key.NetworkID) {
	if j.network == nil {
		s := state.Settings{Name: fmt.Sprintf("pending-%.4s", id), Up: true, Joined: time.Now(), Code: j.text, WantedName: j.name}
		store, err := j.n.dir.Create(id, j.keys, s, nil)
		if err != nil {
			j.end(nil, err)
			return
		}
		w := j.n.newNetwork(id, store)
		w.keys, w.settings, w.roster, w.pending = j.keys, s, w.set.Roster(), j
		j.n.networks[id] = w
		j.network = w
	}
	j.progress(api.Progress{Stage: api.StagePending, Text: "accepted; an admin must now approve it: warren approve " + j.name})
}

// resume takes up a join that waited for approval when the daemon stopped.
func (w *network) resume(now time.Time) error {
	code, err := wire.ParseCode(w.settings.Code)
	if err != nil {
		return err
	}
	j, err := w.n.joinWith(now, code, w.settings.Code, w.settings.WantedName, w.keys)
	if err != nil {
		return err
	}
	j.network, w.pending = w, j
	return nil
}

var errChain = errors.New("records do not prove the membership")

// enter checks what an introducer gave against the code, makes the network last, and brings it up.
func (j *joining) enter(now time.Time, e join.Joined) (*network, error) {
	set := member.NewSet(e.Network)
	set.AddAll(e.Records)
	roster := set.Roster()
	if _, ok := roster.ByID(j.keys.Identity.NodeID()); !ok {
		return nil, fmt.Errorf("this node is not among the members: %w", errChain)
	}
	if _, ok := roster.ByID(e.Introducer.Identity.NodeID()); !ok {
		return nil, fmt.Errorf("the introducer is not among the members: %w", errChain)
	}
	if j.again {
		return j.network, j.network.vouched(e.Records)
	}
	j.progress(api.Progress{Stage: api.StageUp, Text: "joined; configuring the interface"})
	w := j.network
	s := state.Settings{Name: j.n.localName(roster.Name, e.Network), Up: true, Joined: now}
	var err error
	if w == nil {
		var store *state.Network
		if store, err = j.n.dir.Create(e.Network, j.keys, s, set.Records()); err != nil {
			return nil, fmt.Errorf("save the network: %w", err)
		}
		w, err = j.n.adopt(now, store, j.keys, s, set, j.maskCode())
	} else {
		if err := errors.Join(w.store.AppendRecords(set.Records()), w.store.SaveSettings(s)); err != nil {
			return nil, fmt.Errorf("save the network: %w", err)
		}
		w.set, w.roster, w.settings, w.pending, w.maskCode = set, roster, s, nil, j.maskCode()
		err = w.activate(now)
	}
	w.fresh = &fresh{introducer: e.Introducer.Identity.NodeID(), code: j.code, text: j.text, name: j.name, next: now.Add(vouchWait)}
	if id := e.Introducer.Identity.NodeID(); w.mesh != nil && !w.mesh.keepStream(now, id, e.Introducer.Addr) { // it can be reached where it answered
		w.mesh.remember(now, e.Introducer.Identity.NodeID(), e.Introducer.Addr)
		w.mesh.greet(now, e.Introducer.Identity.NodeID(), e.Introducer.Addr)
	}
	return w, err
}

// maskCode is the code, if by it the newcomer must mask.
func (j *joining) maskCode() *wire.Code {
	if j.code.Mask {
		return &j.code
	}
	return nil
}

const (
	vouchWait  = 5 * time.Second
	vouchTries = 6
)

// fresh is what a network remembers of the join that made it, until a member other than the introducer talks to it. It is not on
// the disk.
type fresh struct {
	introducer key.NodeID
	code       wire.Code
	text, name string
	next       time.Time
	tries      int
}

// vouch repeats a join, with the same keys, while nobody talks to the newcomer: the one member that saw it join may have
// vanished before it told the others (spec/30-join.md#alone). Its answer is the old membership, or a new one by another witness.
func (w *network) vouch(now time.Time) {
	f := w.fresh
	if f == nil {
		return
	}
	alone, done := true, f.tries >= vouchTries
	for _, p := range w.mesh.peers {
		alone = alone && !p.talks
		done = done || p.talks && p.id != f.introducer
	}
	if done {
		w.fresh = nil
	}
	if done || !alone || now.Before(f.next) {
		return
	}
	f.tries++
	f.next = now.Add(vouchWait << f.tries)
	j, err := w.n.joinWith(now, f.code, f.text, f.name, w.keys)
	if err != nil {
		w.fresh = nil
		return
	}
	j.network, j.again = w, true
}

// vouched takes what a repeated join has brought.
func (w *network) vouched(records [][]byte) error {
	for _, raw := range records {
		if err := w.accept(raw, key.NodeID{}); err != nil && !errors.Is(err, member.ErrKnown) && !errors.Is(err, member.ErrSuperseded) {
			return err
		}
	}
	return nil
}

// localName returns the name by which commands call a network: its own unless another network here has it.
func (n *Node) localName(name string, id key.NetworkID) string {
	for _, w := range n.networks {
		if w.name() == name && w.id != id {
			return fmt.Sprintf("%s-%.4s", name, id)
		}
	}
	return name
}

// greet calls a peer at an address at once.
func (m *mesh) greet(now time.Time, id key.NodeID, at netip.AddrPort) {
	if p := m.peers[id]; p != nil {
		m.path.SetCandidates(now, id, path.SourceHint, []netip.AddrPort{at})
		m.call(now, p)
	}
}

// lookingText says where a join looks for a member.
func lookingText(j *joining) string {
	var places []string
	if at := report.CodePlaces(j.code); at != "" {
		places = append(places, "at "+at)
	}
	if j.n.beacons != nil {
		places = append(places, "on the local network")
	}
	if j.n.dht != nil {
		places = append(places, "in the DHT")
	}
	return "looking for a member " + strings.Join(places, ", ")
}
