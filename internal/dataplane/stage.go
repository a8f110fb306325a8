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
}

// add keeps a copy of f, dropping the oldest to make room. It reports whether the stage was empty, and how many it dropped.
func (s *stage) add(f packet.Frame) (first bool, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = len(s.frames) == 0
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
	s.frames, s.bytes = nil, 0
	return frames
}
