package join

import (
	"bytes"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// FuzzIntroducer: whatever else reaches an introducer, as it is or laid over the genuine frame, changes nothing.
func FuzzIntroducer(f *testing.F) {
	fuzzFrames(f, 1, 3)
}

// FuzzJoiner does the same to a newcomer.
func FuzzJoiner(f *testing.F) {
	fuzzFrames(f, 2, 4)
}

func fuzzFrames(f *testing.F, steps ...byte) {
	f.Add([]byte{0}, uint16(4))
	f.Add([]byte{1}, uint16(20))
	f.Add(bytes.Repeat([]byte{0xFF}, 32), uint16(8))
	f.Add([]byte{6, 4, 0, 0, 1, 0, 0, 1, 0, 1, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, mask []byte, at uint16) {
		w := newWorld(t, 1)
		b, _, _ := home(t, w)
		w.wire = func(d datagram) [][]byte {
			if !bytes.Contains(steps, []byte{d.step()}) {
				return [][]byte{d.data}
			}
			laid := bytes.Clone(d.data)
			for i := range mask {
				if p := int(at) + i; p < len(laid) {
					laid[p] ^= mask[i]
				}
			}
			over := append(bytes.Clone(d.data[:min(len(d.data), 8)]), mask...)
			travel := [][]byte{over}
			if len(mask) > 1 && len(mask) <= wire.MaxJoin {
				travel = append(travel, mask)
			}
			return append(travel, laid, d.data)
		}
		w.wantJoined(b.joiner(w, 50, seed(1), addrA), 10*time.Second)
	})
}

// FuzzHostileIntroducer: one who knows the join key says what it likes. The newcomer never joins by that.
func FuzzHostileIntroducer(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{}, uint8(1))
	f.Add([]byte{}, []byte{1, 2, 3}, uint8(1))
	f.Add([]byte{}, []byte{}, uint8(3))
	f.Fuzz(func(t *testing.T, draft, record []byte, status uint8) {
		w := newWorld(t, 1)
		b, _, hosts := home(t, w)
		_, cfg := b.introducer(w, 10)
		if len(draft) > 0 {
			cfg.Draft = func(time.Time, Invite, key.Public, string) ([]byte, wire.JoinStatus) {
				return draft, wire.JoinStatus(status)
			}
		}
		cfg.Admit = func(time.Time, []byte, []byte) ([][]byte, wire.JoinStatus) {
			return [][]byte{b.genesis, record}, wire.JoinStatus(status)
		}
		hosts[0].engine = NewIntroducer(*cfg, nil)
		h := b.joiner(w, 50, seed(1), addrA)
		if w.run(time.Minute, h.done); h.joined() {
			t.Error("joined")
		}
	})
}
