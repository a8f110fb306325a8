package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A log is a header and frames:
//
//	header: "warrenRL" | version u32 = 1
//	frame:  length u32 (1 to 16384) | CRC-32C u32 of the length field and the bytes | bytes
//
// All numbers are big-endian. The sum covers the length, and no length is 0, so that a run of zeros, which some file
// systems leave after a power cut, is no frame.
const (
	logMagic   = "warrenRL"
	logVersion = 1
	headerLen  = len(logMagic) + 4
	frameLen   = 8
	maxRecord  = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader begins a log.
func appendHeader(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, logMagic...), logVersion)
}

// appendFrame adds one record.
func appendFrame(b, raw []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(raw)))
	b = binary.BigEndian.AppendUint32(b, frameSum(b[at:at+4], raw))
	return append(b, raw...)
}

func frameSum(length, raw []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, raw)
}

// frameAt reads the frame at the start of b and returns its length on disk; ok is false when none is there, whole.
func frameAt(b []byte) (raw []byte, size int, ok bool) {
	n, fits := claimedLen(b)
	if n == 0 || !fits {
		return nil, 0, false
	}
	raw = b[frameLen : frameLen+n : frameLen+n]
	if frameSum(b[:4], raw) != binary.BigEndian.Uint32(b[4:]) {
		return nil, 0, false
	}
	return raw, frameLen + n, true
}

// claimedLen reads the length field at the start of b: 0 when no frame has that length. Fits says whether b is as long.
func claimedLen(b []byte) (n int, fits bool) {
	if len(b) < frameLen {
		return 0, false
	}
	v := binary.BigEndian.Uint32(b)
	if v > maxRecord {
		return 0, false
	}
	return int(v), int(v) <= len(b)-frameLen
}

// contents is what a log was found to hold.
type contents struct {
	records [][]byte // parts of the log's bytes
	good    int      // where the last whole frame ends; 0 when even the header is unfinished
	torn    int      // bytes of an unfinished write at the end
	damaged int      // bytes that are neither: a fault of the disk, or of a hand
}

// readLog finds all whole records in b, past any damage. The error is [ErrNewer] or nil.
func readLog(b []byte) (contents, error) {
	var c contents
	at := 0
	header := appendHeader(nil)
	switch {
	case bytes.HasPrefix(b, header):
		at, c.good = headerLen, headerLen
	case len(b) < headerLen && bytes.HasPrefix(header, b):
		c.torn = len(b)
		return c, nil
	case len(b) >= headerLen && bytes.HasPrefix(b, header[:len(logMagic)]):
		if v := binary.BigEndian.Uint32(b[len(logMagic):]); v > logVersion {
			return c, fmt.Errorf("%w (format %d)", ErrNewer, v)
		}
	}
	for at < len(b) {
		raw, size, ok := frameAt(b[at:])
		if ok {
			c.records = append(c.records, raw)
			at += size
			c.good = at
			continue
		}
		next := nextFrame(b, at+1)
		if next < 0 {
			c.tail(b[at:])
			break
		}
		c.damaged += next - at
		at = next
	}
	return c, nil
}

// nextFrame returns where the first whole frame at or after from begins, or -1. A false find is one in 2^32, and
// records carry signatures.
func nextFrame(b []byte, from int) int {
	for at := from; at+frameLen < len(b); at++ {
		if _, _, ok := frameAt(b[at:]); ok {
			return at
		}
	}
	return -1
}

// tail judges what follows the last whole frame: a write that a crash cut short looks like the beginning of a frame, or
// like zeros where the length of the file was written before its bytes.
func (c *contents) tail(rest []byte) {
	n, fits := claimedLen(rest)
	if len(rest) < frameLen || n != 0 && !fits || len(bytes.Trim(rest, "\x00")) == 0 {
		c.torn += len(rest)
		return
	}
	c.damaged += len(rest)
}
