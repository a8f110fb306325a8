package join

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/flynn/noise"

	"github.com/warren-vpn/warren/internal/wire"
)

// learner is an introducer that notes what it is shown.
type learner struct {
	*Introducer
	got [][]byte
}

func newLearner(t testing.TB, n byte) *learner {
	_, cfg := newBurrow(t).introducer(newWorld(t, 1), n)
	l := &learner{}
	cfg.Learn = func(_ time.Time, raw [][]byte) {
		for _, r := range raw {
			l.got = append(l.got, bytes.Clone(r))
		}
	}
	l.Introducer = NewIntroducer(*cfg, nil)
	return l
}

var somewhere = netip.MustParseAddrPort("192.0.2.7:51820")

// hear gives l a frame as a node does, and fails the test if it says anything.
func (l *learner) hear(t testing.TB, now time.Time, from netip.AddrPort, frame []byte) {
	t.Helper()
	if l.Owns(frame) {
		l.Handle(now, from, frame)
	}
	if len(l.Effects()) > 0 {
		t.Error("a proof was answered")
	}
}

// spec/30-join.md#proof
func TestProofArrives(t *testing.T) {
	l := newLearner(t, 10)
	var records [][]byte
	for i := range 30 {
		records = append(records, bytes.Repeat([]byte{byte(i)}, 40+33*i))
	}
	records = append(records, make([]byte, 1024)) // the largest
	frames, err := Prove(nil, wgKey(20), wgKey(10).Public(), records)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if len(f) > wire.MaxJoin {
			t.Errorf("a frame of %d bytes", len(f))
		}
		l.hear(t, epoch, somewhere, f)
	}
	if !slices.EqualFunc(l.got, records, bytes.Equal) {
		t.Errorf("%d of %d records arrived in order", len(l.got), len(records))
	}
	other := newLearner(t, 11)
	other.hear(t, epoch, somewhere, frames[0])
	if other.Owns(frames[0]) || len(other.got) > 0 {
		t.Error("a proof is for another than the one whose key it was made for")
	}
	if _, err := Prove(nil, wgKey(20), wgKey(10).Public(), [][]byte{make([]byte, wire.MaxJoin)}); err == nil {
		t.Error("a record that fits no frame was sent")
	}
}

// Whatever is changed on the way, nothing of it is taken.
func TestTamperedProofs(t *testing.T) {
	frames, err := Prove(nil, wgKey(20), wgKey(10).Public(), [][]byte{{1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	l, mac := newLearner(t, 10), proofKey(wgKey(10).Public())
	now := epoch
	for at := 4; at < len(frames[0])-16; at++ {
		bad := bytes.Clone(frames[0])
		bad[at] ^= 0x40
		l.hear(t, now, somewhere, bad)
		m := wire.JoinProof{Noise: bad[4 : len(bad)-16]}
		m.MAC = proofMAC(mac, m) // by one who knows whom it is for
		now = now.Add(time.Second)
		l.hear(t, now, somewhere, m.Append(nil))
	}
	if len(l.got) > 0 {
		t.Error("a changed proof was taken")
	}
	if l.hear(t, now.Add(time.Second), somewhere, frames[0]); len(l.got) != 1 {
		t.Error("the genuine one was not")
	}
}

// spec/30-join.md#limits
func TestProofsAreLimited(t *testing.T) {
	frames, err := Prove(nil, wgKey(20), wgKey(10).Public(), [][]byte{{1}})
	if err != nil {
		t.Fatal(err)
	}
	l := newLearner(t, 10)
	for range 1000 {
		l.hear(t, epoch, somewhere, frames[0])
	}
	if len(l.got) != proofBurst {
		t.Errorf("%d at once from one source, want %d", len(l.got), proofBurst)
	}
	for i := range 1000 {
		l.hear(t, epoch, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i / 256), byte(i)}), 1), frames[0])
	}
	if len(l.got) != proofTotalBurst {
		t.Errorf("%d at once from all, want %d", len(l.got), proofTotalBurst)
	}
}

// The form of a proof does not change: members with other versions read it. spec/30-join.md#proof
func TestProofBytes(t *testing.T) {
	frames, err := Prove(bytes.NewReader(bytes.Repeat([]byte{0x11}, 32)), wgKey(20), wgKey(10).Public(), [][]byte{{0xAA, 0xBB}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "060500007b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f134520f5de67517d89240a469be669e55af8eba332f4c90b93e34926b0" +
		"d2e7b43f7664365ee680eecd7eb16c0f6e4087ae7b354d8d9f5b0bc817863bf3edbf045bde2dab0a3eb83e4f3888939cfed964da4691e8ec63bf3fbf"
	if got := hex.EncodeToString(frames[0]); got != want {
		t.Errorf("got %s", got)
	}
}

// FuzzProof: one who knows a member's key may say what it likes.
func FuzzProof(f *testing.F) {
	f.Add(wire.Records{Raw: [][]byte{{1}, {2, 3}}}.Append(nil))
	f.Add(wire.Bye{}.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		from, to := wgKey(20), wgKey(10).Public()
		public := from.Public()
		state, err := noise.NewHandshakeState(noise.Config{CipherSuite: suite, Pattern: noise.HandshakeX, Initiator: true,
			Prologue: []byte(proofPrologue), StaticKeypair: noise.DHKey{Private: from[:], Public: public[:]}, PeerStatic: to[:]})
		if err != nil {
			t.Fatal(err)
		}
		var m wire.JoinProof
		if m.Noise, _, _, err = state.WriteMessage(nil, payload); err != nil {
			return // too long for Noise
		}
		m.MAC = proofMAC(proofKey(to), m)
		l := newLearner(t, 10)
		l.hear(t, epoch, somewhere, m.Append(nil))
		for _, r := range l.got {
			if len(r) == 0 || len(r) > wire.MaxRecord {
				t.Errorf("a record of %d bytes", len(r))
			}
		}
	})
}
