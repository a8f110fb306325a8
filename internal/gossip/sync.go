package gossip

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/warren-vpn/warren/internal/wire"
)

// The body of a Sync message (spec/50-control.md#sync):
//
//	0     kind
//	1-4   round, big-endian: of the node that began it; answers repeat it
//	5-    kindRanges: ranges, ascending, to the end of the body
//	      kindWant:   1 to 32 ids of 32 bytes, ascending
//	      kindEqual:  nothing
//
// A range begins where the one before ended, the first at zero:
//
//	0     length L of the bound, 0 to 32; 0 is the end of all ids
//	1-    the first L bytes of the bound; zeros follow, so the last one here is not zero
//	1+L   mode
//	2+L   modeSkip:  nothing
//	      modePrint: count u32, fingerprint 16
//	      modeIDs:   count u8, 0 to 32, and so many ids of 32 bytes, ascending, within the range
const (
	kindRanges = 1
	kindWant   = 2
	kindEqual  = 3

	modeSkip  = 0
	modePrint = 1
	modeIDs   = 2

	frameHeader = 5
	maxBody     = wire.MaxControl - wire.ControlHeader
	maxIDs      = 32 // in one list
	idSize      = len(wire.RecordID{})
)

// span is one range of a frame.
type span struct {
	lower bound // where it begins; not sent
	upper bound
	mode  byte
	count int // modePrint: how many ids the sender has there
	print print
	ids   []wire.RecordID // modeIDs: which
}

// frame is one parsed Sync body.
type frame struct {
	kind  byte
	round uint32
	spans []span          // kindRanges
	ids   []wire.RecordID // kindWant
}

// parseSync reads the body of a Sync message and refuses all but its one form. A kind of a later version gives a frame
// of that kind and nothing else.
func parseSync(b []byte) (frame, error) {
	if len(b) < frameHeader || len(b) > maxBody || b[0] == 0 {
		return frame{}, fmt.Errorf("sync of %d bytes: %w", len(b), wire.ErrMalformed)
	}
	f := frame{kind: b[0], round: binary.BigEndian.Uint32(b[1:])}
	var err error
	switch b = b[frameHeader:]; f.kind {
	case kindRanges:
		f.spans, err = parseSpans(b)
	case kindWant:
		if len(b) == 0 || len(b)%idSize != 0 {
			return frame{}, fmt.Errorf("want of %d bytes: %w", len(b), wire.ErrMalformed)
		}
		f.ids, _, err = parseIDs(b, len(b)/idSize)
	case kindEqual:
		if len(b) != 0 {
			err = fmt.Errorf("equal with %d bytes more: %w", len(b), wire.ErrMalformed)
		}
	}
	if err != nil {
		return frame{}, err
	}
	return f, nil
}

func parseSpans(b []byte) (spans []span, err error) {
	var lower bound
	for len(b) > 0 {
		s := span{lower: lower}
		if s.upper, b, err = parseBound(b, lower); err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, fmt.Errorf("range without a mode: %w", wire.ErrMalformed)
		}
		s.mode, b = b[0], b[1:]
		switch s.mode {
		case modeSkip:
			if n := len(spans); len(b) == 0 || n > 0 && spans[n-1].mode == modeSkip {
				return nil, fmt.Errorf("needless skip: %w", wire.ErrMalformed)
			}
		case modePrint:
			if len(b) < 20 {
				return nil, fmt.Errorf("fingerprint: %w", wire.ErrMalformed)
			}
			s.count = int(binary.BigEndian.Uint32(b))
			s.print = print(b[4:20])
			b = b[20:]
		case modeIDs:
			if len(b) < 1 {
				return nil, fmt.Errorf("id list: %w", wire.ErrMalformed)
			}
			if s.ids, b, err = parseIDs(b[1:], int(b[0])); err != nil {
				return nil, err
			}
			if n := len(s.ids); n > 0 && (lower.above(bound{id: s.ids[0]}) || !s.upper.above(bound{id: s.ids[n-1]})) {
				return nil, fmt.Errorf("id outside of its range: %w", wire.ErrMalformed)
			}
		default:
			return nil, fmt.Errorf("range of mode %d: %w", s.mode, wire.ErrMalformed)
		}
		spans = append(spans, s)
		lower = s.upper
	}
	if len(spans) == 0 {
		return nil, fmt.Errorf("no ranges: %w", wire.ErrMalformed)
	}
	return spans, nil
}

func parseBound(b []byte, lower bound) (bound, []byte, error) {
	n := int(b[0])
	if n > idSize || n > len(b)-1 || n > 0 && b[n] == 0 {
		return bound{}, nil, fmt.Errorf("bound of %d bytes: %w", n, wire.ErrMalformed)
	}
	u := bound{end: n == 0}
	copy(u.id[:], b[1:1+n])
	if !u.above(lower) {
		return bound{}, nil, fmt.Errorf("ranges do not ascend: %w", wire.ErrMalformed)
	}
	return u, b[1+n:], nil
}

func parseIDs(b []byte, n int) (ids []wire.RecordID, rest []byte, err error) {
	if n > maxIDs || n*idSize > len(b) {
		return nil, nil, fmt.Errorf("list of %d ids in %d bytes: %w", n, len(b), wire.ErrMalformed)
	}
	for i := range n {
		id := wire.RecordID(b[i*idSize : (i+1)*idSize])
		if i > 0 && bytes.Compare(ids[i-1][:], id[:]) >= 0 {
			return nil, nil, fmt.Errorf("ids do not ascend: %w", wire.ErrMalformed)
		}
		ids = append(ids, id)
	}
	return ids, b[n*idSize:], nil
}

// append encodes f. The caller has kept it within maxBody.
func (f *frame) append(b []byte) []byte {
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint32(b, f.round)
	for i := range f.spans {
		b = f.spans[i].append(b)
	}
	return appendIDs(b, f.ids)
}

func (s *span) append(b []byte) []byte {
	b = s.upper.append(b)
	b = append(b, s.mode)
	switch s.mode {
	case modePrint:
		b = binary.BigEndian.AppendUint32(b, uint32(s.count))
		b = append(b, s.print[:]...)
	case modeIDs:
		b = append(b, byte(len(s.ids)))
		b = appendIDs(b, s.ids)
	}
	return b
}

// size returns the bytes that append takes for s.
func (s *span) size() int {
	n := s.upper.size() + 1
	switch s.mode {
	case modePrint:
		n += 20
	case modeIDs:
		n += 1 + len(s.ids)*idSize
	}
	return n
}

func (b bound) append(out []byte) []byte {
	n := b.size() - 1
	return append(append(out, byte(n)), b.id[:n]...)
}

func (b bound) size() int {
	if b.end {
		return 1
	}
	return 1 + len(bytes.TrimRight(b.id[:], "\x00"))
}

func appendIDs(b []byte, ids []wire.RecordID) []byte {
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

// pack puts spans, ascending and without skips, into as few bodies as they need, but no more than limit: what is left
// over is left to a later round.
func pack(round uint32, spans []span, limit int) (bodies [][]byte) {
	f := frame{kind: kindRanges, round: round}
	size := frameHeader
	var at bound
	flush := func() {
		if len(f.spans) > 0 && len(bodies) < limit {
			bodies = append(bodies, f.append(nil))
		}
		f.spans, size, at = nil, frameHeader, bound{}
	}
	for _, s := range spans {
		skip := span{lower: at, upper: s.lower, mode: modeSkip}
		need := s.size()
		if s.lower.above(at) {
			need += skip.size()
		}
		if size+need > maxBody {
			flush()
			skip.lower = at
			need = s.size()
			if s.lower.above(at) {
				need += skip.size()
			}
		}
		if s.lower.above(at) {
			f.spans = append(f.spans, skip)
		}
		f.spans = append(f.spans, s)
		size += need
		at = s.upper
	}
	flush()
	return bodies
}
