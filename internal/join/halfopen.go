package join

import (
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// entry is one join that an introducer has answered. It lives for entryLife, whatever becomes of it, so that a replayed
// step 1 finds it.
type entry struct {
	from      netip.AddrPort // the only address that is answered
	expires   time.Time
	ephemeral [32]byte
	index     uint32 // ours: receiver of step 3
	sender    uint32 // the newcomer's: receiver of steps 2 and 4

	hello []byte // Noise message 1, to know it again
	offer []byte // step 2 as sent

	hs       *handshake // nil when nothing more is wanted: refused, or answered
	identity key.Public
	invite   Invite
	draft    []byte
	known    bool // the draft is a record that is there already
	faults   int  // step 3 frames that failed

	accept   []byte   // Noise message 3, to know it again
	parts    [][]byte // step 4 as sent
	answered time.Time
	answers  int
}

// entries is the table of half-open joins: at most maxEntries, the oldest goes first. All entries live equally long, so
// order is by age and by expiry.
type entries struct {
	byEphemeral map[[32]byte]*entry
	byIndex     map[uint32]*entry
	order       []*entry
}

func (t *entries) add(h *entry) {
	if t.byIndex == nil {
		t.byEphemeral, t.byIndex = make(map[[32]byte]*entry), make(map[uint32]*entry)
	}
	if len(t.order) >= maxEntries {
		t.dropOldest()
	}
	t.byEphemeral[h.ephemeral], t.byIndex[h.index] = h, h
	t.order = append(t.order, h)
}

func (t *entries) dropOldest() {
	h := t.order[0]
	t.order[0] = nil
	t.order = t.order[1:]
	delete(t.byEphemeral, h.ephemeral)
	delete(t.byIndex, h.index)
}

// expire drops what is too old and returns when the next entry will be; zero when there is none.
func (t *entries) expire(now time.Time) time.Time {
	for len(t.order) > 0 && !now.Before(t.order[0].expires) {
		t.dropOldest()
	}
	if len(t.order) == 0 {
		return time.Time{}
	}
	return t.order[0].expires
}
