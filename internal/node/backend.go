package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/report"
	"github.com/warren-vpn/warren/internal/state"
	"github.com/warren-vpn/warren/internal/wire"
)

// defaultPool is the IPv4 pool of networks that ask for none: shared address space, RFC 6598.
var defaultPool = netip.MustParsePrefix("100.64.0.0/10")

var _ api.Backend = (*Node)(nil)

// do runs f in the control loop and returns its error.
func (n *Node) do(ctx context.Context, f func() error) (err error) {
	if e := n.call(ctx, func() { err = f() }); e != nil {
		return e
	}
	return explain(err)
}

// explain turns the errors of the parts into errors for people.
func explain(err error) error {
	if errors.Is(err, state.ErrFull) {
		return api.Errorf(api.CodeInternal, "%v", err).Hintf("make room on the disk and try again; nothing was changed")
	}
	return report.Explain(err)
}

// with runs f in the control loop for the network that ref names.
func (n *Node) with(ctx context.Context, ref string, f func(w *network) error) error {
	return n.do(ctx, func() error {
		w, err := n.find(ref)
		if err != nil {
			return err
		}
		return f(w)
	})
}

// find returns the network of a name or of at least 4 digits of an id; "" means the only one.
func (n *Node) find(ref string) (*network, error) {
	var found []*network
	for _, w := range n.networks {
		if w.name() == ref {
			return w, nil
		}
		if ref == "" || len(ref) >= 4 && strings.HasPrefix(w.id.String(), ref) {
			found = append(found, w)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && ref == "":
		return nil, api.Errorf(api.CodeAmbiguous, "this node is in %d networks", len(found)).Hintf("say which: --network NAME (%s)", n.names())
	case len(found) > 1:
		return nil, api.Errorf(api.CodeAmbiguous, "%q is the beginning of several networks' ids", ref).Hintf("use a name: %s", n.names())
	case ref == "":
		return nil, api.Errorf(api.CodeNoSuchNetwork, "this node is in no network").Hintf("found one with: warren create NAME, or enter one with: warren join CODE")
	}
	return nil, api.Errorf(api.CodeNoSuchNetwork, "no network %q here", ref).Hintf("networks here: %s", n.names())
}

func (n *Node) names() string {
	var names []string
	for _, w := range n.networks {
		names = append(names, w.name())
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Create implements api.Backend.
func (n *Node) Create(ctx context.Context, r api.CreateRequest) (reply api.CreateReply, err error) {
	err = n.do(ctx, func() error {
		now := time.Now()
		w, err := n.create(now, r)
		if err != nil {
			return err
		}
		reply.Network = w.describe(now)
		reply.Invite, err = w.invite(now, api.InviteRequest{Uses: 1, Expires: 24 * 3600})
		if err != nil { // the network is there all the same
			n.log.Warn("no first code", "network", w.id, "err", err)
		}
		return nil
	})
	return reply, err
}

func (n *Node) create(now time.Time, r api.CreateRequest) (*network, error) {
	for _, w := range n.networks {
		if w.name() == r.Name {
			return nil, api.Errorf(api.CodeNameTaken, "this node is in a network %q already", r.Name).Hintf("choose another name, or leave that one first: warren leave --network %s", r.Name)
		}
	}
	pool := r.Pool
	if !pool.IsValid() {
		pool = defaultPool
	}
	what, clash, err := n.sys.Conflict(pool, n.ours)
	if err != nil {
		return nil, fmt.Errorf("look for networks in use: %w", err)
	}
	if clash {
		return nil, api.Errorf(api.CodePoolConflict, "the address pool %v overlaps %s on this machine", pool, what).
			Hintf("choose a range that no member's own network uses, such as: warren create %s --pool 10.86.0.0/16", r.Name)
	}
	keys := state.Keys{Identity: key.NewIdentity(), WG: key.NewWGPrivate()}
	f := member.Founding{Network: r.Name, Node: r.NodeName, Pool: pool}
	rand.Read(f.Nonce[:]) //nolint:errcheck // documented never to fail
	id, records, err := member.Genesis(keys.Identity, now, f)
	if err != nil {
		return nil, err
	}
	set := member.NewSet(id)
	for _, rec := range records {
		if _, err := set.Add(rec.Raw); err != nil {
			return nil, fmt.Errorf("own records not accepted: %w", err)
		}
	}
	info, err := set.NodeInfo(keys.Identity, now, wire.NodeInfo{WG: keys.WG.Public(), Version: n.opt.Version, Caps: ownCaps(), Endpoints: encodeEndpoints(n.localEndpoints())})
	if err != nil {
		return nil, err
	}
	if _, err := set.Add(info.Raw); err != nil {
		return nil, fmt.Errorf("own records not accepted: %w", err)
	}
	settings := state.Settings{Name: r.Name, Up: true, Joined: now}
	store, err := n.dir.Create(id, keys, settings, set.Records())
	if err != nil {
		return nil, err
	}
	w, err := n.adopt(now, store, keys, settings, set, nil)
	if err != nil { // a network that cannot come up on its first day is of no use
		return nil, errors.Join(err, n.forget(now, w))
	}
	return w, nil
}

// forget removes a network with all it has from this machine.
func (n *Node) forget(now time.Time, w *network) error {
	w.deactivate(now)
	delete(n.networks, w.id)
	return errors.Join(w.close(), w.store.Remove())
}

// Join implements api.Backend.
func (n *Node) Join(ctx context.Context, r api.JoinRequest, progress func(api.Progress)) (api.Network, error) {
	type result struct {
		w   *network
		err error
	}
	var j *joining
	done := make(chan result, 1)
	err := n.do(ctx, func() (err error) {
		if err := n.mayJoin(r.Code); err != nil {
			return err
		}
		now := time.Now()
		if j, err = n.newJoining(now, r.Code, r.Name); err != nil {
			return err
		}
		j.progress = progress
		j.finished = func(w *network, err error) { done <- result{w, err} }
		progress(api.Progress{Stage: api.StageContact, Text: lookingText(j)})
		return nil
	})
	if err != nil {
		return api.Network{}, err
	}
	select {
	case res := <-done:
		if res.err != nil {
			return api.Network{}, explain(res.err)
		}
		var out api.Network
		err := n.do(ctx, func() error { out = res.w.describe(time.Now()); return nil })
		return out, err
	case <-ctx.Done():
		gone, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return api.Network{}, errors.Join(ctx.Err(), n.call(gone, func() { // what waits for approval goes on without the caller
			j.progress, j.finished = func(api.Progress) {}, func(*network, error) {}
			if j.network == nil {
				delete(n.joins, j)
			}
		}))
	case <-n.done:
		return api.Network{}, errStopping
	}
}

// mayJoin refuses codes that make no sense here, before anything is sent.
func (n *Node) mayJoin(text string) error {
	code, err := wire.ParseCode(text)
	if err != nil {
		return err
	}
	if time.Now().Unix() > code.NotAfter {
		return report.Refusal(join.Expired, code)
	}
	for id, w := range n.networks {
		if [16]byte(id[:16]) == code.Network && w.pending != nil {
			return api.Errorf(api.CodeBusy, "this node waits for its approval in that network already").Hintf("an admin must run: warren approve %s", w.settings.WantedName)
		}
		if [16]byte(id[:16]) == code.Network {
			return api.Errorf(api.CodeAlreadyMember, "this node is in the network %q already", w.name()).Hintf("see: warren status; to join anew, leave first: warren leave --network %s", w.name())
		}
	}
	for j := range n.joins {
		if j.code.Seed == code.Seed {
			return api.Errorf(api.CodeBusy, "a join with this code is under way")
		}
	}
	return nil
}

// Up implements api.Backend.
func (n *Node) Up(ctx context.Context, r api.NetworkRequest) (api.Status, error) {
	return n.turn(ctx, r.Network, func(now time.Time, w *network) error {
		err := w.wish(true)
		if w.pending == nil {
			err = errors.Join(err, w.activate(now))
		}
		return err
	})
}

// Down implements api.Backend.
func (n *Node) Down(ctx context.Context, r api.NetworkRequest) (api.Status, error) {
	return n.turn(ctx, r.Network, func(now time.Time, w *network) error {
		err := w.wish(false)
		w.bye(now)
		w.deactivate(now)
		w.why = ""
		return err
	})
}

// wish remembers over restarts whether the network is to be up.
func (w *network) wish(up bool) error {
	if w.settings.Up == up {
		return nil
	}
	w.settings.Up = up
	return w.store.SaveSettings(w.settings)
}

// turn does something to one network, or to all, and fails only if it failed for all.
func (n *Node) turn(ctx context.Context, ref string, f func(time.Time, *network) error) (st api.Status, err error) {
	err = n.do(ctx, func() error {
		now := time.Now()
		var errs []error
		all := n.sorted()
		if ref != "" || len(all) == 0 {
			w, err := n.find(ref)
			if err != nil {
				return err
			}
			all = []*network{w}
		}
		for _, w := range all {
			if err := f(now, w); err != nil {
				errs = append(errs, fmt.Errorf("network %s: %w", w.name(), err))
			}
		}
		st = n.describe(now)
		if len(errs) == len(all) {
			return errors.Join(errs...)
		}
		return nil
	})
	return st, err
}

func (n *Node) sorted() []*network {
	var all []*network
	for _, w := range n.networks {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *network) int { return strings.Compare(a.name(), b.name()) })
	return all
}

// Leave implements api.Backend.
func (n *Node) Leave(ctx context.Context, r api.LeaveRequest) (reply api.LeaveReply, err error) {
	err = n.with(ctx, r.Network, func(w *network) error {
		now := time.Now()
		reply = api.LeaveReply{Network: w.name(), ID: w.id.String()}
		if w.pending != nil {
			delete(n.joins, w.pending)
			return n.forget(now, w)
		}
		self := w.keys.Identity.NodeID()
		if _, in := w.self(); in {
			if w.lastAdmin(self) && !r.Force {
				return api.Errorf(api.CodeLastAdmin, "this node is the last admin of %q: without one nobody can invite or revoke", w.name()).
					Hintf("make another admin first: warren admin add MEMBER; or leave all the same: warren leave --force")
			}
			records, err := w.set.Revoke(w.keys.Identity, now, member.Removal{Subject: self})
			if err != nil {
				return err
			}
			reply.Told = w.farewell(records)
		}
		return n.forget(now, w)
	})
	return reply, err
}

// lastAdmin reports whether others would be left without an admin.
func (w *network) lastAdmin(self key.NodeID) bool {
	others := false
	for _, m := range w.roster.Members {
		if m.ID != self && m.Rights != 0 {
			return false
		}
		others = others || m.ID != self && !m.Device
	}
	return others && w.roster.Rights(self) != 0
}

// farewell sends records to every peer that can be reached now, and returns to how many.
func (w *network) farewell(records []wire.Record) (told int) {
	if w.mesh == nil {
		return 0
	}
	for _, p := range w.mesh.peers {
		if p.device || !p.talks {
			continue
		}
		sent := true
		for _, r := range records {
			body := wire.Records{Raw: [][]byte{r.Raw}}.Append(nil)
			sent = w.mesh.send(p, wire.Way{}, body) && sent
		}
		if sent {
			told++
		}
	}
	return told
}

// Stop implements api.Backend.
func (n *Node) Stop(context.Context) error {
	n.halt()
	return nil
}
