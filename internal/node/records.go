package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/wire"
)

// accepted is a record that the set took, and who sent it; zero for this node itself.
type accepted struct {
	record wire.Record
	from   key.NodeID
}

// accept takes a record that came from a peer, or from oneself when from is zero. It counts at once; it is passed on when
// save has made it safe, together with all that came in the same round.
func (w *network) accept(raw []byte, from key.NodeID) error {
	res, err := w.set.Add(raw)
	if err == nil {
		w.took(res, from)
	}
	return err
}

// took passes on what the set has taken from a peer, or from a stranger when from is zero.
func (w *network) took(res member.Result, from key.NodeID) {
	if w.mesh != nil {
		for _, id := range res.Superseded {
			w.mesh.gossip.Remove(id)
		}
	}
	for _, r := range res.Accepted {
		w.inbox = append(w.inbox, accepted{r, from})
		if w.mesh != nil {
			w.mesh.expel(r)
		}
	}
	w.stale += len(res.Superseded)
	w.changed = true
}

// save writes what was accepted to the disk and then passes it on. What cannot be written waits, and is tried again.
func (w *network) save(now time.Time) {
	if len(w.inbox) == 0 || now.Before(w.retry) {
		return
	}
	raws := make([][]byte, 0, len(w.inbox))
	for _, a := range w.inbox {
		raws = append(raws, a.record.Raw)
	}
	warning := "save" + w.id.String()
	if err := w.store.AppendRecords(raws); err != nil {
		if w.retry.IsZero() {
			w.log.Error("records cannot be saved, trying again", "count", len(raws), "err", err)
			w.n.warnings[warning] = fmt.Sprintf("network %s: records cannot be saved: %v", w.name(), err)
		}
		w.retry = now.Add(saveRetry)
		return
	}
	w.retry = time.Time{}
	delete(w.n.warnings, warning)
	if w.mesh != nil {
		for _, a := range w.inbox {
			if w.set.Has(a.record.ID) { // else it was superseded meanwhile
				w.mesh.gossip.Add(now, a.record.ID, a.record.Raw, a.from)
			}
		}
	}
	w.inbox = nil
	w.tidy()
}

// tidy makes the log anew when most of it is superseded: else a member that states its node info again and again would fill
// the disks of all others.
func (w *network) tidy() {
	if w.stale <= max(compactSlack, w.set.Len()) {
		return
	}
	w.stale = 0 // should it fail: not at once again
	if err := w.store.Compact(w.set.Records()); err != nil {
		w.log.Warn("record log not compacted", "err", err)
	}
}

// publish makes records of this node's own: on the disk first, so that an error means that nothing happened.
func (w *network) publish(now time.Time, records ...wire.Record) error {
	raws := make([][]byte, 0, len(records))
	for _, r := range records {
		raws = append(raws, r.Raw)
	}
	if err := w.store.AppendRecords(raws); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, r := range records {
		res, err := w.set.Add(r.Raw)
		if err != nil && !errors.Is(err, member.ErrKnown) {
			return fmt.Errorf("own record not accepted: %w", err)
		}
		w.stale += len(res.Superseded)
		if w.mesh == nil {
			continue
		}
		for _, id := range res.Superseded {
			w.mesh.gossip.Remove(id)
		}
		for _, a := range res.Accepted {
			w.mesh.expel(a)
			w.mesh.gossip.Add(now, a.ID, a.Raw, key.NodeID{})
		}
	}
	w.tidy() // now that the set has all that the log has
	w.rosterChanged(now)
	return nil
}
