package gossip

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// victim is one engine with a hostile peer and some honest ones, which the test plays itself.
type victim struct {
	*testing.T
	e              *Engine
	now            time.Time
	hostile        key.NodeID
	honest         []key.NodeID
	sent           map[key.NodeID]int // bytes
	records        map[key.NodeID][]wire.RecordID
	delivered      []Deliver
	judge          func(Deliver) verdict
	faults, wanted int
}

func newVictim(t *testing.T, records, honest int) *victim {
	v := &victim{T: t, e: New(Config{Network: network, Rand: random{rand.New(rand.NewPCG(1, 1))}}, nil), now: time.Unix(1e9, 0),
		hostile: key.NodeID{66}, sent: map[key.NodeID]int{}, records: map[key.NodeID][]wire.RecordID{}}
	for i := range records {
		r := record(i)
		v.e.Add(v.now, r.ID, r.Raw, key.NodeID{})
	}
	v.e.PeerUp(v.now, v.hostile)
	for i := range honest {
		id := key.NodeID{1, byte(i)}
		v.honest = append(v.honest, id)
		v.e.PeerUp(v.now, id)
	}
	v.settle()
	return v
}

func (v *victim) settle() {
	v.e.Tick(v.now)
	for _, f := range v.e.Effects() {
		switch f := f.(type) {
		case Send:
			data := f.Body.Append(nil)
			v.sent[f.Peer] += len(data)
			m, err := wire.ParseControl(data)
			if err != nil || len(data) > wire.MaxControl {
				v.Fatalf("message of %d bytes: %v", len(data), err)
			}
			if m, ok := m.(wire.Records); ok {
				for _, raw := range m.Raw {
					r, _ := wire.ParseRecord(network, raw)
					v.records[f.Peer] = append(v.records[f.Peer], r.ID)
				}
			}
			if m, ok := m.(wire.Sync); ok && m.Body[0] == kindWant {
				v.wanted += len(m.Body[frameHeader:]) / idSize
			}
		case Deliver:
			v.delivered = append(v.delivered, f)
			if v.judge == nil || v.judge(f) == accept {
				v.e.Add(v.now, f.ID, f.Raw, f.Peer)
			} else {
				v.e.Reject(v.now, f.Raw, f.Peer)
			}
		}
	}
}

// storm lets the hostile peer send what next gives, a thousand times a second for d.
func (v *victim) storm(d time.Duration, next func(i int) Message) {
	v.Helper()
	for i := range int(d / time.Millisecond) {
		if err := v.e.Handle(v.now, v.hostile, next(i)); err != nil {
			v.faults++
		}
		v.now = v.now.Add(time.Millisecond)
		v.settle()
	}
	for id, p := range v.e.peers {
		if len(p.urgent) > maxUrgent || len(p.bulk) > maxBulk || len(p.queued) > maxUrgent+maxBulk ||
			len(p.known.values) > maxKnown || len(p.refused.values) > maxRefused || len(p.unconfirmed.values) > maxKnown {
			v.Errorf("tables of %v grew beyond their limits", id)
		}
	}
	if len(v.e.rejected.values) > maxRejected || len(v.e.asked.values) > maxAsked || len(v.e.gone.values) > maxGone {
		v.Error("tables grew beyond their limits")
	}
}

func ranges(spans ...span) Message {
	f := frame{kind: kindRanges, round: 1, spans: spans}
	return wire.Sync{Body: f.append(nil)}
}

var all = bound{end: true}

const stormTime = 10 * time.Second

// limit of bytes to one peer in ten seconds.
const sendLimit = sendBurst + 10*sendRate

// spec/50-control.md#limits
func TestGarbage(t *testing.T) {
	v := newVictim(t, 1000, 0)
	before := v.sent[v.hostile]
	v.storm(stormTime, func(i int) Message {
		b := make([]byte, v.e.random()%1180)
		for j := range b {
			b[j] = byte(v.e.random())
		}
		if i%2 == 0 {
			return wire.Sync{Body: b}
		}
		return wire.Records{Raw: [][]byte{b}}
	})
	if v.faults < 5000 || len(v.delivered) > 0 || v.e.Len() != 1000 {
		t.Errorf("garbage: %d faults, %d delivered, %d records", v.faults, len(v.delivered), v.e.Len())
	}
	if n := v.sent[v.hostile] - before; n > 100_000 {
		t.Errorf("garbage was answered with %d bytes", n)
	}
}

// spec/50-control.md#limits
func TestEndlessWants(t *testing.T) {
	v := newVictim(t, 1000, 0)
	v.storm(stormTime, func(i int) Message {
		ids := slices.Clone(v.e.set.ids[i%900:][:32])
		f := frame{kind: kindWant, ids: ids}
		return wire.Sync{Body: f.append(nil)}
	})
	if n := v.sent[v.hostile]; n > sendLimit {
		t.Errorf("%d bytes in 10 s for one who asks without end, want at most %d", n, sendLimit)
	}
}

// It says that it has nothing, or something else, all the time. spec/50-control.md#limits
func TestEndlessDifferences(t *testing.T) {
	for name, s := range map[string]span{
		"nothing":        {upper: all, mode: modeIDs},
		"something else": {upper: all, mode: modePrint, count: 1000},
		"few":            {upper: all, mode: modePrint, count: 3},
		"billions":       {upper: all, mode: modePrint, count: 1<<32 - 1},
	} {
		v := newVictim(t, 5000, 0)
		v.storm(stormTime, func(int) Message { return ranges(s) })
		if n := v.sent[v.hostile]; n > sendLimit {
			t.Errorf("%s: %d bytes in 10 s, want at most %d", name, n, sendLimit)
		}
	}
}

// A message of many ranges, each different, must not become a thousand messages. spec/50-control.md#limits
func TestOneMessageIsAnsweredByFew(t *testing.T) {
	v := newVictim(t, 20000, 0)
	var spans []span
	var lower bound
	for i := range 48 {
		upper := bound{id: wire.RecordID{byte(5 * (i + 1))}}
		spans = append(spans, span{lower: lower, upper: upper, mode: modePrint, count: 400})
		lower = upper
	}
	before := v.sent[v.hostile]
	if err := v.e.Handle(v.now, v.hostile, ranges(spans...)); err != nil {
		t.Fatal(err)
	}
	v.settle()
	if n := v.sent[v.hostile] - before; n > (answerMost+wantMost)*wire.MaxControl {
		t.Errorf("one message was answered with %d bytes", n)
	}
}

// It lists records that do not exist. spec/50-control.md#limits
func TestLyingLists(t *testing.T) {
	v := newVictim(t, 10, 0)
	v.storm(stormTime, func(i int) Message {
		s := span{upper: all, mode: modeIDs}
		for j := range 32 {
			var id wire.RecordID
			binary.BigEndian.PutUint32(id[:], uint32(j))
			binary.BigEndian.PutUint32(id[4:], uint32(i))
			s.ids = append(s.ids, id)
		}
		return ranges(s)
	})
	if n := v.sent[v.hostile]; n > sendLimit {
		t.Errorf("%d bytes sent in 10 s", n)
	}
}

// It makes new records without end: what is handed to the owner and what is flooded on is limited, and the records of
// others get through. spec/50-control.md#limits
func TestEndlessNewRecords(t *testing.T) {
	v := newVictim(t, 10, 2)
	honest := v.honest[0]
	n := 1000
	revocation := recordOf(1<<40, 150)
	at := time.Time{}
	v.storm(stormTime, func(i int) Message {
		if i == 8000 { // in the middle of it
			if err := v.e.Handle(v.now, v.honest[1], wire.Records{Raw: [][]byte{revocation.Raw}}); err != nil {
				t.Fatal(err)
			}
			at = v.now
		}
		if !at.IsZero() && v.now.Sub(at) == 100*time.Millisecond && !slices.Contains(v.records[honest], revocation.ID) {
			t.Error("an honest member's record waits behind those of the hostile one")
		}
		m := wire.Records{}
		for range 3 {
			n++
			m.Raw = append(m.Raw, recordOf(n, 150).Raw)
		}
		return m
	})
	if d := len(v.delivered); d > deliverBurst+10*deliverRate+1 {
		t.Errorf("%d records of one peer delivered in 10 s", d)
	}
	if f := len(v.records[honest]); f > floodBurst+10*floodRate+1 {
		t.Errorf("%d records of one peer flooded to another in 10 s", f)
	}
}

// It repeats what we have: not even that is looked at without end. spec/50-control.md#limits
func TestEndlessRepetition(t *testing.T) {
	v := newVictim(t, 1, 0)
	say := func(r wire.Record) {
		if err := v.e.Handle(v.now, v.hostile, wire.Records{Raw: [][]byte{r.Raw}}); err != nil {
			t.Fatal(err)
		}
	}
	for range parseBurst {
		say(record(0))
	}
	if say(record(1)); len(v.e.Effects()) > 0 {
		t.Errorf("record %d in one moment was looked at", parseBurst+1)
	}
	v.now = v.now.Add(time.Second)
	if say(record(1)); len(v.e.Effects()) == 0 {
		t.Error("a second later, a new record is not looked at")
	}
}

// It says that it has very many records, and gives none: it does not keep others from giving theirs.
// spec/50-control.md#limits
func TestEmptyPromises(t *testing.T) {
	w := newWorld(t, 3, 0)
	w.fill(1, 0, 500)
	w.nodes[2].e.cfg.Network = network
	w.connect(0, 2)
	for range 200 { // node 2's messages are played here
		err := w.nodes[0].e.Handle(w.now, w.nodes[2].id, ranges(span{upper: all, mode: modePrint, count: 1 << 30}).(wire.Sync))
		if err != nil {
			t.Fatal(err)
		}
		w.nodes[0].e.Effects()
		w.run(10 * time.Millisecond)
	}
	w.connect(0, 1)
	t.Logf("everything after %v", w.want(stormTime, 500, 0))
}

// The same bad record is shown to the owner once, whoever brings it; a good record of the same id is not held against
// it. spec/50-control.md#limits
func TestRejected(t *testing.T) {
	v := newVictim(t, 0, 1)
	good := record(7)
	bad, err := wire.EncodeRecord(network, good.Kind, good.Payload, []wire.Sig{{Signature: key.Signature{1}}})
	if err != nil || bad.ID != good.ID {
		t.Fatal(err, "ids differ")
	}
	v.judge = func(d Deliver) verdict {
		if slices.Equal(d.Raw, bad.Raw) {
			return reject
		}
		return accept
	}
	v.storm(time.Second, func(i int) Message {
		if i%2 == 0 {
			return ranges(span{upper: all, mode: modeIDs, ids: []wire.RecordID{bad.ID}})
		}
		return wire.Records{Raw: [][]byte{bad.Raw}}
	})
	if len(v.delivered) != 1 || v.wanted > 1 {
		t.Errorf("a rejected record was delivered %d times and asked for %d times", len(v.delivered), v.wanted)
	}
	if err := v.e.Handle(v.now, v.honest[0], wire.Records{Raw: [][]byte{good.Raw}}); err != nil {
		t.Fatal(err)
	}
	v.settle()
	if !v.e.Has(good.ID) {
		t.Error("a bad copy kept the good record out")
	}
}

// The buffers of what is handled may be used again at once.
func TestNothingIsKeptOfTheMessage(t *testing.T) {
	v := newVictim(t, 0, 0)
	raw := slices.Clone(record(1).Raw)
	if err := v.e.Handle(v.now, v.hostile, wire.Records{Raw: [][]byte{raw}}); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	v.settle()
	if !slices.Equal(v.delivered[0].Raw, record(1).Raw) {
		t.Error("what was delivered changed with the buffer")
	}
}

func TestUnreadable(t *testing.T) {
	v := newVictim(t, 0, 0)
	for _, m := range []Message{wire.Ping{}, wire.Sync{}, wire.Sync{Body: []byte{1, 0, 0, 0, 0}}, wire.Records{Raw: [][]byte{{1, 2, 3}}}} {
		if err := v.e.Handle(v.now, v.hostile, m); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%T gives %v, want ErrMalformed", m, err)
		}
	}
	if err := v.e.Handle(v.now, v.hostile, wire.Sync{Body: []byte{9, 0, 0, 0, 0, 1, 2, 3}}); err != nil {
		t.Errorf("a kind of a later version gives %v, want it ignored", err)
	}
}
