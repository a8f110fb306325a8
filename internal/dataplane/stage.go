package dataplane

import (
	"slices"
	"sync"

	"github.com/warren-vpn/warren/internal/packet"
)

// Limits of the packets that wait for one peer's session (spec/40-wireguard.md#staging). A super-packet counts as one frame.
const (
	maxStagedFrames = 128
	maxStagedBytes  = 256 << 10
)

// stage holds copies of frames that came before there was a session or a path. Its lock is taken off the fast path only.
type stage struct {
	mu     sync.Mutex // guards what follows
	frames []packet.Frame
	bytes  int
	asked  bool // the control loop was told that they wait
}

// add keeps a copy of f, dropping the oldest to make room. It reports whether it is the first with ask set, and how many were
// dropped.
func (s *stage) add(f packet.Frame, ask bool) (first bool, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = ask && !s.asked
	s.asked = s.asked || ask
	for len(s.frames) > 0 && (len(s.frames) == maxStagedFrames || s.bytes+len(f.Data) > maxStagedBytes) {
		s.bytes -= len(s.frames[0].Data)
		s.frames = slices.Delete(s.frames, 0, 1)
		dropped++
	}
	s.frames = append(s.frames, packet.Frame{Offload: f.Offload, Data: slices.Clone(f.Data)})
	s.bytes += len(f.Data)
	return first, dropped
}

// take empties the stage.
func (s *stage) take() []packet.Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames, s.bytes, s.asked = nil, 0, false
	return frames
}
