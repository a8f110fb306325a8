package gossip

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const (
	mapStorm = 3 * time.Second
	mapLimit = sendBurst + 5*sendRate // bytes to one neighbour, with the time before and after the storm
)

// target is one States with a hostile neighbour and some honest ones, which the test plays itself.
type target struct {
	*testing.T
	s         *States
	now       time.Time
	hostile   key.NodeID
	honest    []key.NodeID
	sent      map[key.NodeID]int // bytes
	states    map[key.NodeID]int // link states sent
	wants     map[key.NodeID]int
	delivered []DeliverState
	judge     func(DeliverState) verdict
	faults    int
	prunes    map[key.NodeID]int
}

func newTarget(t *testing.T, states, honest int) *target {
	v := &target{T: t, s: NewStates(StatesConfig{Rand: random{rand.New(rand.NewPCG(1, 1))}}, nil), now: time.Unix(1e9, 0),
		hostile: key.NodeID{66}, sent: map[key.NodeID]int{}, states: map[key.NodeID]int{}, wants: map[key.NodeID]int{}, prunes: map[key.NodeID]int{}}
	for i := range states {
		v.set(i, 1)
	}
	v.s.PeerUp(v.now, v.hostile)
	for i := range honest {
		id := key.NodeID{1, byte(i)}
		v.honest = append(v.honest, id)
		v.s.PeerUp(v.now, id)
	}
	v.settle()
	return v
}

// some returns a link state of the n-th node and its encoding.
func some(n int, seq uint32) (wire.LinkState, []byte) {
	raw := encodeState(burrowID(n).Short(), wire.Version{Epoch: 1, Seq: seq}, 2)
	st, err := wire.ParseLinkState(raw)
	if err != nil {
		panic(err)
	}
	return st, raw
}

func (v *target) set(n int, seq uint32) {
	st, raw := some(n, seq)
	v.s.Set(v.now, raw, st, key.NodeID{})
}

// from lets a neighbour send link states.
func (v *target) from(peer key.NodeID, raw ...[]byte) {
	v.Helper()
	if err := v.s.Handle(v.now, peer, wire.States{Raw: raw}); err != nil {
		v.Fatal(err)
	}
	v.settle()
}

// says lets a neighbour send a digest.
func (v *target) says(peer key.NodeID, d digest) {
	v.Helper()
	if err := v.s.Handle(v.now, peer, wire.Digest{Body: d.append(nil)}); err != nil {
		v.Fatal(err)
	}
	v.settle()
}

// pass lets d pass.
func (v *target) pass(d time.Duration) {
	for end := v.now.Add(d); v.now.Before(end); v.settle() {
		v.now = v.now.Add(time.Millisecond)
	}
}

func (v *target) settle() {
	v.s.Tick(v.now)
	for _, f := range v.s.Effects() {
		switch f := f.(type) {
		case Send:
			data := f.Body.Append(nil)
			v.sent[f.Peer] += len(data)
			m, err := wire.ParseControl(data)
			if err != nil || len(data) > wire.MaxControl {
				v.Fatalf("message of %d bytes: %v", len(data), err)
			}
			switch m := m.(type) {
			case wire.States:
				v.states[f.Peer] += len(m.Raw)
			case wire.Digest:
				d, err := parseDigest(m.Body)
				if err != nil {
					v.Fatal(err)
				}
				v.wants[f.Peer] += len(d.wants)
				if d.kind == digestMode && !d.eager {
					v.prunes[f.Peer]++
				}
			}
		case DeliverState:
			v.delivered = append(v.delivered, f)
			verdict := accept
			if v.judge != nil {
				verdict = v.judge(f)
			}
			switch verdict {
			case accept:
				v.s.Set(v.now, f.Raw, f.State, f.Peer)
			case reject:
				v.s.Reject(v.now, f.Raw, f.Peer)
			case wait:
				v.s.Defer(v.now, f.Raw, f.State, f.Peer)
			}
		}
	}
}

// storm lets the hostile neighbour send what next gives, a thousand times a second for d.
func (v *target) storm(d time.Duration, next func(i int) Message) {
	v.Helper()
	for i := range int(d / time.Millisecond) {
		if err := v.s.Handle(v.now, v.hostile, next(i)); err != nil {
			v.faults++
		}
		v.now = v.now.Add(time.Millisecond)
		v.settle()
	}
	for id, l := range v.s.links {
		if len(l.pushes.order) > v.s.Len() || len(l.tells.order) > v.s.Len() || l.unacked.len() > maxUnacked ||
			l.news.len() > maxNews || len(l.refused.values) > maxRefused || len(l.pen.values) > maxPen || len(l.has) > MaxStates+1 {
			v.Errorf("tables of %v grew beyond their limits", id)
		}
	}
	if v.s.Len() > MaxStates || len(v.s.rejected.values) > maxRejected || len(v.s.asked.values) > maxAsked ||
		len(v.s.gone.values) > maxGone || len(v.s.pending.values) > maxPending {
		v.Error("tables grew beyond their limits")
	}
	if v.sent[v.hostile] > mapLimit {
		v.Errorf("%d bytes sent to it", v.sent[v.hostile])
	}
}

// spec/53-map.md#version
func TestOldStatesChangeNothing(t *testing.T) {
	v := newTarget(t, 0, 1)
	_, old := some(1, 4)
	_, newer := some(1, 5)
	v.from(v.honest[0], old)
	v.from(v.honest[0], newer)
	v.pass(time.Second)
	states := v.states[v.honest[0]]
	v.storm(mapStorm, func(int) Message { return wire.States{Raw: [][]byte{old, newer, old}} })
	if len(v.delivered) != 2 {
		t.Errorf("%d link states went to the rules of membership, want 2", len(v.delivered))
	}
	if v.s.Version(burrowID(1).Short()).Seq != 5 || !bytes.Equal(v.s.Raw(burrowID(1).Short()), newer) {
		t.Error("the old one came back")
	}
	if v.states[v.honest[0]] != states || v.states[v.hostile] > 2 {
		t.Errorf("replays made us send %d and %d link states", v.states[v.honest[0]]-states, v.states[v.hostile])
	}
	// A newer one of ours, heard after a restart, goes to the owner; one that it makes above is flooded.
	_, mine := some(2, 9)
	v.judge = func(DeliverState) verdict { return -1 }
	v.from(v.honest[0], mine)
	if len(v.delivered) != 3 {
		t.Fatal("was not handed over")
	}
	before := v.states[v.honest[0]]
	v.set(2, 10)
	v.pass(100 * time.Millisecond)
	if v.states[v.honest[0]] != before+1 {
		t.Error("the one above did not go out")
	}
}

// spec/53-map.md#judging
func TestForgedStates(t *testing.T) {
	v := newTarget(t, 10, 2)
	v.judge = func(d DeliverState) verdict {
		if d.Peer == v.hostile {
			return reject
		}
		return accept
	}
	_, forged := some(1, 7)
	forged[len(forged)-1] = 1
	v.from(v.hostile, forged)
	v.from(v.honest[0], forged)
	v.from(v.hostile, forged)
	if len(v.delivered) != 1 {
		t.Errorf("the same forgery was looked at %d times", len(v.delivered))
	}
	have := stamp{burrowID(1).Short(), wire.Version{Epoch: 1, Seq: 7}}
	v.says(v.hostile, digest{kind: digestOffer, stamps: []stamp{have}})
	v.pass(5 * time.Second)
	if n := v.wants[v.hostile]; n != 0 {
		t.Errorf("the forgery was asked for %d times, of who had sent it", n)
	}
	_, good := some(1, 7)
	v.from(v.honest[0], good)
	if !bytes.Equal(v.s.Raw(burrowID(1).Short()), good) {
		t.Error("the forgery keeps the good one out")
	}
	v.delivered = nil
	v.storm(mapStorm, func(i int) Message {
		var m wire.States
		for j := range 5 {
			_, raw := some(100+i, uint32(i+1))
			raw[len(raw)-1-j] = byte(i + 1)
			m.Raw = append(m.Raw, raw)
		}
		return m
	})
	if n := len(v.delivered); n > 220 {
		t.Errorf("%d forgeries had their signatures checked in 3 s", n)
	}
	if v.s.Len() != 10 || v.states[v.honest[1]] > 1 {
		t.Errorf("holds %d states, passed %d on", v.s.Len(), v.states[v.honest[1]])
	}
	// None of that keeps honest neighbours from being heard.
	_, good = some(1000, 1)
	v.from(v.honest[1], good)
	if v.s.Len() != 11 {
		t.Error("an honest neighbour was not heard")
	}
}

// While one copy is being judged, the same bytes are not judged again; afterwards they may be.
// spec/53-map.md#judging
func TestStatesAreJudgedOnce(t *testing.T) {
	v := newTarget(t, 0, 3)
	v.judge = func(DeliverState) verdict { return -1 }
	_, raw := some(1, 1)
	for _, id := range v.honest {
		v.from(id, raw)
	}
	if len(v.delivered) != 1 {
		t.Fatalf("%d deliveries, want one", len(v.delivered))
	}
	v.judge = nil
	v.pass(pendingFor + 100*time.Millisecond) // the owner forgot about it: it is asked for again
	for _, id := range v.honest {
		if v.wants[id] > 0 {
			v.from(id, raw)
		}
	}
	if v.s.Len() != 1 {
		t.Error("was not asked for again")
	}
}

// spec/53-map.md#judging
func TestStatesOfStrangersWait(t *testing.T) {
	v := newTarget(t, 0, 1)
	members := map[key.ShortID]bool{}
	v.judge = func(d DeliverState) verdict {
		if members[d.State.Node] {
			return accept
		}
		return wait
	}
	_, raw := some(1, 3)
	v.from(v.hostile, raw)
	node := burrowID(1).Short()
	for range 5 {
		v.from(v.hostile, raw)
		v.says(v.hostile, digest{kind: digestOffer, stamps: []stamp{{node, wire.Version{Epoch: 1, Seq: 3}}}})
		v.pass(3 * time.Second)
	}
	if len(v.delivered) != 1 || v.wants[v.hostile] != 0 {
		t.Errorf("judged %d times and asked for %d times while it waits", len(v.delivered), v.wants[v.hostile])
	}
	members[node] = true
	v.s.Welcome(v.now, node)
	v.settle()
	if v.s.Version(node).Seq != 3 {
		t.Error("the new member's link state was not taken")
	}
	v.pass(time.Second)
	if v.states[v.honest[0]] != 1 {
		t.Error("nor passed on")
	}
	v.storm(mapStorm, func(i int) Message {
		_, raw := some(i+10, 1)
		return wire.States{Raw: [][]byte{raw}}
	})
}

// spec/53-map.md#age
func TestForgottenStatesStayAway(t *testing.T) {
	v := newTarget(t, 20, 1)
	node := burrowID(5).Short()
	v.pass(time.Second)
	v.s.Forget(v.now, node)
	v.s.Forget(v.now, key.ShortID{1})
	if v.s.Len() != 19 || v.s.Raw(node) != nil {
		t.Fatal("was not forgotten")
	}
	st, raw := some(5, 1)
	v.from(v.honest[0], raw)
	v.says(v.honest[0], digest{kind: digestOffer, stamps: []stamp{{node, st.Version}}})
	v.s.Set(v.now, raw, st, v.honest[0])
	v.pass(3 * time.Second)
	if v.s.Len() != 19 || len(v.delivered) != 0 || v.wants[v.honest[0]] != 0 {
		t.Error("came back")
	}
	// Another takes its slot, and nothing that was known of the old one counts for it.
	before := v.states[v.honest[0]]
	v.set(99, 1)
	v.pass(time.Second)
	if v.states[v.honest[0]] != before+1 {
		t.Error("the next did not go out")
	}
	_, newer := some(5, 2)
	v.from(v.honest[0], newer)
	if v.s.Version(node).Seq != 2 {
		t.Error("a newer one was not taken")
	}
	v.s.Forget(v.now, node)
	v.s.Welcome(v.now, node)
	v.from(v.honest[0], newer)
	if v.s.Version(node).Seq != 2 {
		t.Error("a member again, but not heard")
	}
}

// A neighbour that says it has the newest of everything, and has nothing, delays each by a moment only.
// spec/53-map.md#limits
func TestStatesOfLiars(t *testing.T) {
	v := newTarget(t, 50, 1)
	last := wire.Version{Epoch: ^uint32(0), Seq: ^uint32(0)}
	lie := func() {
		d := digest{kind: digestOffer}
		for i := range 50 {
			d.stamps = append(d.stamps, stamp{burrowID(i).Short(), last})
		}
		v.says(v.hostile, d)
	}
	v.pass(time.Second)
	for range 20 { // it lies on and on
		lie()
		v.pass(100 * time.Millisecond)
	}
	st, raw := some(7, 2)
	v.says(v.honest[0], digest{kind: digestHave, stamps: []stamp{{st.Node, st.Version}}})
	for i := 0; v.wants[v.honest[0]] == 0; i++ {
		if i > 15 {
			t.Fatal("the honest neighbour was not asked within 1.5 s")
		}
		lie()
		v.pass(100 * time.Millisecond)
	}
	v.from(v.honest[0], raw)
	if v.s.Version(st.Node) != st.Version {
		t.Error("was not taken")
	}
	// And a push is taken at once.
	_, raw = some(8, 2)
	v.from(v.honest[0], raw)
	if v.s.Version(burrowID(8).Short()).Seq != 2 {
		t.Error("the push was not taken")
	}
}

// One member that makes link states without end, all well signed, gets one each 2 s through, and no other suffers.
// spec/53-map.md#limits
func TestEndlessNewStates(t *testing.T) {
	v := newTarget(t, 10, 1)
	v.pass(time.Second)
	before := v.states[v.honest[0]]
	v.storm(mapStorm, func(i int) Message {
		_, raw := some(3, uint32(i+2))
		return wire.States{Raw: [][]byte{raw}}
	})
	if n := v.states[v.honest[0]] - before; n > originBurst+3 {
		t.Errorf("%d link states passed on in 3 s", n)
	}
	// What came last is not lost: it is asked for when its time has come.
	v.pass(originEvery + time.Second)
	if v.wants[v.hostile] == 0 {
		t.Error("the newest was not asked for")
	}
	_, raw := some(4, 2)
	v.from(v.hostile, raw)
	if v.s.Version(burrowID(4).Short()).Seq != 2 {
		t.Error("another node's link state was not taken of the same neighbour")
	}
}

// Of one node, no more are judged at once than are taken, though none has been taken yet; and of one neighbour, no more are looked at
// than the limit, though none is newer. Others are heard all the while. spec/53-map.md#limits
func TestManyStatesAtOnce(t *testing.T) {
	v := newTarget(t, 10, 1)
	v.judge = func(DeliverState) verdict { return reject }
	var versions [][]byte
	for i := range 2 * originBurst {
		_, raw := some(1, uint32(i+2))
		versions = append(versions, raw)
	}
	v.from(v.hostile, versions...)
	if n := len(v.delivered); n == 0 || n > originBurst {
		t.Errorf("of %d newer link states of one node %d were judged at once", len(versions), n)
	}
	v.judge, v.delivered = nil, nil
	v.pass(5 * time.Second)
	var old [][]byte
	for i := range 8 {
		_, raw := some(i, 1)
		old = append(old, raw)
	}
	for range 2 * lookBurst / len(old) {
		v.from(v.hostile, old...)
	}
	_, first := some(20, 1)
	_, second := some(21, 1)
	v.from(v.hostile, first)
	v.from(v.honest[0], second)
	if len(v.delivered) != 1 || v.delivered[0].Peer != v.honest[0] {
		t.Errorf("after %d looks, delivered are %v", 2*lookBurst, v.delivered)
	}
	v.pass(time.Second)
	if v.from(v.hostile, first); len(v.delivered) != 2 {
		t.Error("a second later, what the neighbour sends is still not looked at")
	}
}

// A clock that is set back by a year does not make a node's link states too many: they are counted by the time that passes.
// spec/53-map.md#limits
func TestLinkStatesAreTakenWhenTheClockIsSetBack(t *testing.T) {
	v := newTarget(t, 1, 0)
	v.s = NewStates(StatesConfig{}, nil)
	begun := time.Now() // the only times that have both clocks
	v.s.PeerUp(begun, v.hostile)
	for i := range 5 * originBurst {
		now := begun.Add(time.Duration(i) * originEvery)
		if i > 0 {
			now = setBack(now, 365*24*time.Hour)
		}
		st, raw := some(1, uint32(i+1))
		if err := v.s.Handle(now, v.hostile, wire.States{Raw: [][]byte{raw}}); err != nil {
			t.Fatal(err)
		}
		for _, f := range v.s.Effects() {
			if d, ok := f.(DeliverState); ok {
				v.s.Set(now, d.Raw, d.State, d.Peer)
			}
		}
		if held := v.s.Version(st.Node); held != st.Version {
			t.Fatalf("of link state %d, %v apart, nothing is taken: %v is held", i+1, originEvery, held)
		}
	}
}

// setBack returns the same moment by a clock that was set back by d. Package time counts the seconds of its wall clock in a
// word of its own, from bit 30 on.
func setBack(now time.Time, d time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&now)) -= uint64(d/time.Second) << 30
	return now
}

// spec/53-map.md#limits
func TestStateStorms(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	all := stretch{mode: rangePrint, count: 1 << 31, print: print{1}}
	anyID := func() (id key.ShortID) {
		random{r}.Read(id[:])
		return id
	}
	for name, next := range map[string]func(int) Message{
		"garbage": func(int) Message {
			b := make([]byte, r.IntN(1180))
			random{r}.Read(b)
			if len(b) > 0 {
				b[0] %= 8
			}
			return wire.Digest{Body: b}
		},
		"wants": func(int) Message {
			d := digest{kind: digestWant}
			for range maxWants {
				d.wants = append(d.wants, burrowID(r.IntN(1000)).Short())
			}
			return wire.Digest{Body: d.append(nil)}
		},
		"compares": func(int) Message {
			d := digest{kind: digestCompare}
			for i := range 48 {
				s := all
				s.prefix = prefix{digits: 2, id: key.ShortID{byte(i)}}
				d.ranges = append(d.ranges, s)
			}
			return wire.Digest{Body: d.append(nil)}
		},
		"empty lists": func(int) Message {
			d := digest{kind: digestCompare, ranges: []stretch{{mode: rangeList}}}
			return wire.Digest{Body: d.append(nil)}
		},
		"offers": func(int) Message {
			d := digest{kind: digestOffer}
			for range maxStamps {
				d.stamps = append(d.stamps, stamp{anyID(), wire.Version{Epoch: r.Uint32() | 1}})
			}
			return wire.Digest{Body: d.append(nil)}
		},
		"modes": func(i int) Message {
			d := digest{kind: digestMode, eager: i%2 == 0}
			return wire.Digest{Body: d.append(nil)}
		},
		"new nodes": func(i int) Message {
			var m wire.States
			for j := range 8 {
				_, raw := some(5000+8*i+j, 1)
				m.Raw = append(m.Raw, raw)
			}
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newTarget(t, 1000, 6)
			v.judge = func(d DeliverState) verdict { return accept }
			v.storm(mapStorm, next)
			if n := len(v.delivered); n > stateBurst+4*stateRate {
				t.Errorf("%d link states to be judged", n)
			}
			for _, id := range v.honest {
				if n := v.sent[id]; n > mapLimit {
					t.Errorf("%d bytes sent to an honest neighbour", n)
				}
			}
			_, raw := some(1, 2)
			v.from(v.honest[0], raw)
			v.pass(2 * time.Second)
			if v.s.Version(burrowID(1).Short()).Seq != 2 || v.states[v.honest[1]] == 0 {
				t.Error("an honest neighbour's link state did not pass")
			}
		})
	}
}

// One comparison is answered by a limited number of messages.
// spec/53-map.md#limits
func TestOneDigestIsAnsweredByFew(t *testing.T) {
	v := newTarget(t, 5000, 0)
	v.pass(5 * time.Second)
	before := v.sent[v.hostile]
	v.says(v.hostile, digest{kind: digestCompare, ranges: []stretch{{mode: rangeList}}})
	if n := v.sent[v.hostile] - before; n > answerMost*wire.MaxControl {
		t.Errorf("%d bytes", n)
	}
}

// spec/53-map.md#limits
func TestMapIsFull(t *testing.T) {
	v := newTarget(t, MaxStates-1, 0)
	for i, want := range []int{MaxStates, MaxStates} {
		_, raw := some(MaxStates+i, 1)
		v.from(v.hostile, raw)
		if v.s.Len() != want {
			t.Errorf("%d nodes, want %d", v.s.Len(), want)
		}
	}
	v.set(MaxStates+9, 1)
	if v.s.Len() != MaxStates+1 || v.s.Version(burrowID(MaxStates+9).Short()).Seq != 1 {
		t.Error("no room for our own")
	}
	_, raw := some(3, 2)
	v.from(v.hostile, raw)
	if v.s.Version(burrowID(3).Short()).Seq != 2 {
		t.Error("a full map does not change any more")
	}
	v.s.Forget(v.now, burrowID(3).Short())
	v.s.Forget(v.now, burrowID(4).Short())
	_, raw = some(MaxStates+1, 1)
	v.pass(pendingFor)
	v.from(v.hostile, raw)
	if v.s.Len() != MaxStates {
		t.Error("the room of the forgotten is not used")
	}
}

// The buffers of what is handled may be used again at once.
func TestNothingIsKeptOfStates(t *testing.T) {
	v := newTarget(t, 0, 0)
	_, raw := some(1, 1)
	want := slices.Clone(raw)
	if err := v.s.Handle(v.now, v.hostile, wire.States{Raw: [][]byte{raw}}); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	v.settle()
	if !slices.Equal(v.s.Raw(burrowID(1).Short()), want) {
		t.Error("what was delivered changed with the buffer")
	}
}

func TestUnreadableStates(t *testing.T) {
	v := newTarget(t, 0, 0)
	_, good := some(1, 1)
	for _, m := range []Message{wire.Ping{}, wire.Digest{}, wire.Digest{Body: []byte{2, 0}}, wire.States{Raw: [][]byte{{1, 2, 3}, good}}} {
		if err := v.s.Handle(v.now, v.hostile, m); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%T gives %v, want ErrMalformed", m, err)
		}
	}
	v.settle()
	if v.s.Len() != 1 {
		t.Error("what was good of a message does not count")
	}
	if err := v.s.Handle(v.now, v.hostile, wire.Digest{Body: []byte{9, 1, 2}}); err != nil {
		t.Errorf("a kind of a later version gives %v, want it ignored", err)
	}
	if err := v.s.Handle(v.now, key.NodeID{7}, wire.States{}); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("a stranger gives %v", err)
	}
	v.s.PeerUp(v.now, v.hostile) // again: nothing
	v.s.PeerDown(v.now, v.hostile)
	v.s.PeerDown(v.now, v.hostile)
	if next := v.s.Tick(v.now); !next.IsZero() {
		t.Errorf("with nobody there, next is %v", next)
	}
}

// A neighbour that promises ever newer link states of a node, and has none, keeps nobody from being asked who has one; and what it
// promises is asked of it a few times only. spec/53-map.md#repair
func TestPromisesOfEverNewerStates(t *testing.T) {
	v := newTarget(t, 10, 1)
	offer := func(peer key.NodeID, n int, seq uint32) {
		v.says(peer, digest{kind: digestOffer, stamps: []stamp{{burrowID(n).Short(), wire.Version{Epoch: 1, Seq: seq}}}})
	}
	offer(v.hostile, 3, 2)
	v.pass(20 * time.Millisecond)
	offer(v.honest[0], 3, 2)
	v.pass(500 * time.Millisecond)
	if v.wants[v.hostile] != 1 || v.wants[v.honest[0]] != 0 {
		t.Errorf("what one was asked for is asked of another at once: %v", v.wants)
	}
	if v.pass(time.Second); v.wants[v.honest[0]] != 1 {
		t.Errorf("what one did not send is not asked of the other: %v", v.wants)
	}
	v.pass(time.Minute)
	v.wants = map[key.NodeID]int{}
	offer(v.hostile, 1, 100)
	v.pass(20 * time.Millisecond) // it is asked
	offer(v.honest[0], 1, 2)
	for i := 0; v.wants[v.honest[0]] == 0 && i < 100; i++ {
		offer(v.hostile, 1, uint32(101+i))
		v.pass(50 * time.Millisecond)
		if i == 30 {
			t.Fatal("in 1.5 s the honest one was not asked")
		}
	}
	v.pass(30 * time.Second)
	v.wants[v.hostile] = 0
	offer(v.hostile, 2, 100)
	v.pass(30 * time.Second)
	if n := v.wants[v.hostile]; n != askMost {
		t.Errorf("what is not there was asked for %d times", n)
	}
	v.wants[v.hostile] = 0
	for n := 0; n < maxNews; n += maxStamps {
		var list []stamp
		for i := range min(maxStamps, maxNews-n) {
			list = append(list, stamp{burrowID(1000 + n + i).Short(), wire.Version{Epoch: 1, Seq: 1}})
		}
		v.says(v.hostile, digest{kind: digestOffer, stamps: list})
	}
	v.pass(4200 * time.Millisecond) // time enough to ask for each three times
	if n := v.wants[v.hostile]; n < askBurst || n > askBurst+5*askRate {
		t.Errorf("%d link states were asked for in 4 s", n)
	}
}

// One neighbour's digests are read at a limited rate. spec/53-map.md#limits
func TestDigestsAtOnce(t *testing.T) {
	v := newTarget(t, 10, 0)
	v.pass(time.Second)
	n := v.s.Len()
	same := digest{kind: digestCompare, ranges: []stretch{{mode: rangePrint, count: n, print: v.s.set.print(0, n)}}}
	before := v.sent[v.hostile]
	for range 3 * digestBurst {
		v.says(v.hostile, same)
	}
	if answers := (v.sent[v.hostile] - before) / (wire.ControlHeader + 1); answers < digestBurst/2 || answers > digestBurst+1 {
		t.Errorf("%d of %d digests were answered at once", answers, 3*digestBurst)
	}
}

// Who says that it has many link states which we lack, and sends none, does not keep the place of the one that is answered, and does
// not soon get it again. spec/53-map.md#repair
func TestThePlaceOfTheEmptyHanded(t *testing.T) {
	v := newTarget(t, 10, 1)
	answered := func(peer key.NodeID) bool {
		before := v.sent[peer]
		v.says(peer, digest{kind: digestCompare, ranges: []stretch{{mode: rangePrint, count: 5000, print: print{1}}}})
		return v.sent[peer] > before+100 // a list of what we have
	}
	v.pass(200 * time.Millisecond)
	if !answered(v.hostile) || answered(v.honest[0]) {
		t.Error("who comes first has the place")
	}
	v.pass(intakePause + 100*time.Millisecond)
	if !answered(v.honest[0]) {
		t.Error("who has sent nothing keeps the place")
	}
	v.pass(intakePause + 100*time.Millisecond)
	if answered(v.hostile) {
		t.Error("who has sent nothing has the place again")
	}
	v.pass(intakeBar)
	if !answered(v.hostile) {
		t.Error("it never gets the place again")
	}
}

// It is slower than others with everything, and wants to push all the same: it is told not to, once a second. spec/53-map.md#flooding
func TestEndlessWishesToPush(t *testing.T) {
	v := newTarget(t, 2*treeStates, branches+1)
	v.pass(2 * time.Second)
	clear(v.prunes)
	began := v.now
	for i := range 2 * treeStates {
		_, raw := some(i, 1)
		v.says(v.hostile, digest{kind: digestMode, eager: true})
		v.from(v.hostile, raw)
		v.pass(5 * time.Millisecond)
	}
	took := v.now.Sub(began)
	if n := v.prunes[v.hostile]; n == 0 || n > 1+int(took/pruneAgain) {
		t.Errorf("told %d times in %v", n, took)
	}
}
