package stream

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
)

const (
	// MaxDatagram is the limit of bytes in one datagram (spec/72-streams.md#frames).
	MaxDatagram = 4096
	frameHeader = 2
	record      = 16 << 10 // the largest plaintext of one TLS record
)

var errFrame = errors.New("the other end sent a frame of a size that is not allowed")

// appendFrame adds d to b as a frame. d has 1 to MaxDatagram bytes.
func appendFrame(b, d []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(d))), d...)
}

// parseFrames returns how many bytes of b, from the start, are whole frames, and how many frames these are. It fails when any
// length in b is out of range, so that what came is read up to the first fault only.
func parseFrames(b []byte) (whole, frames int, err error) {
	for len(b)-whole >= frameHeader {
		size := int(binary.BigEndian.Uint16(b[whole:]))
		if size == 0 || size > MaxDatagram {
			return whole, frames, errFrame
		}
		if len(b)-whole < frameHeader+size {
			break
		}
		whole += frameHeader + size
		frames++
	}
	return whole, frames, nil
}

// chunk is what one read of a connection gave: whole frames, on their way to ReadBatch.
type chunk struct {
	from  netip.AddrPort
	whole int
	buf   [record + frameHeader + MaxDatagram]byte // room for a record after any unfinished frame
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func (c *chunk) frames() []byte { return c.buf[:c.whole] }

// free gives c back; nobody may hold any of it.
func (c *chunk) free() { chunks.Put(c) }
