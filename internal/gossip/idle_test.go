package gossip

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Two neighbours to whom nothing happens compare what they hold, but seldom.
// spec/53-map.md#repair
func TestIdleNeighboursCompareSeldom(t *testing.T) {
	w := newField(t, 2, 0)
	w.connect(0, 1)
	w.originateAll()
	w.run(time.Hour)
	w.traffic()
	for range 48 { // as link states are made anew when nothing changes
		w.originateAll()
		w.run(30 * time.Minute)
	}
	bytes, kinds := w.traffic()
	t.Logf("in a day: %d bytes as control messages, %v", bytes, kinds)
	if n := kinds["equal"] / 5; n < 150 || n > 24*60*60/384 { // 5 bytes each
		t.Errorf("%d rounds in a day, want one in 6 to 10 minutes", n)
	}
}

// What was missed in spite of all is mended: at once when the sender knows that there was no answer, else by the next round.
// spec/53-map.md#repair
func TestWhatIdleNeighboursMissIsMended(t *testing.T) {
	w := newField(t, 2, 0)
	w.connect(0, 1)
	w.originateAll()
	w.run(2 * time.Hour)
	w.loss = 1
	w.nodes[0].originate()
	w.run(20 * time.Second) // all offers are over
	w.loss = 0
	t.Log("a push without an answer was mended after", w.want(20*time.Second, 0, 1))

	w.run(2 * time.Hour)
	b := w.nodes[0] // comes by a link state without a word to anybody
	b.version.Seq++
	raw := encodeState(b.id.Short(), b.version, 3)
	st, err := wire.ParseLinkState(raw)
	if err != nil {
		t.Fatal(err)
	}
	links := b.s.order
	b.s.order = nil
	b.s.Set(w.now, raw, st, key.NodeID{})
	b.s.order = links
	t.Log("what nobody knew of was mended after", w.want(10*time.Minute, 0, 1))
}

// The same of records.
// spec/50-control.md#rounds
func TestIdlePeersCompareRecordsSeldom(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.connect(0, 1)
	w.fill(0, 0, 20)
	w.run(time.Hour)
	w.traffic()
	w.run(24 * time.Hour)
	bytes, messages := w.traffic()
	t.Logf("in a day: %d messages, %d bytes", messages, bytes)
	if messages < 2*2*24*60/22 || messages > 2*2*24*60*60/640 {
		t.Errorf("%d messages in a day, want a round in 10 to 22 minutes from each", messages)
	}
	n := w.nodes[0]
	r := record(1000)
	order := n.e.order
	n.e.order = nil // nobody is told
	n.e.Add(w.now, r.ID, r.Raw, key.NodeID{})
	n.e.order = order
	n.settle()
	took := w.want(22*time.Minute, 21, 0, 1)
	t.Log("what nobody knew of was mended after", took)
}

// What is new, and what shows that something is missing, ends the long pauses between rounds of records.
// spec/50-control.md#rounds
func TestNewsEndTheCalm(t *testing.T) {
	w := newWorld(t, 2, 0)
	w.connect(0, 1)
	w.fill(0, 0, 20)
	e := w.nodes[0].e
	for what, happens := range map[string]func(){
		"a record": func() { w.fill(0, 100, 101) },
		"a difference": func() {
			body := frame{kind: kindRanges, round: 1, spans: []span{{upper: bound{end: true}, mode: modePrint, count: 9, print: print{1}}}}
			if err := e.Handle(w.now, e.order[0].id, wire.Sync{Body: body.append(nil)}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		w.run(3 * time.Hour)
		if e.calm != calmRounds || e.idle.Sub(w.now) > (idleLeast+idleSpan)<<calmRounds {
			t.Fatalf("after hours: calm %d, next round in %v", e.calm, e.idle.Sub(w.now))
		}
		if happens(); e.calm != 0 || e.idle.Sub(w.now) > idleLeast+idleSpan {
			t.Errorf("after %s: calm %d, next round in %v", what, e.calm, e.idle.Sub(w.now))
		}
	}
}
