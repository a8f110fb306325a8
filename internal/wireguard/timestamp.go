package wireguard

import (
	"bytes"
	"encoding/binary"
	"time"
)

// timestamp is a TAI64N label. Labels are compared as bytes and mean nothing else.
type timestamp [timestampLen]byte

// tai64Base is the label of the Unix epoch. WireGuard counts ten leap seconds, for ever.
const tai64Base = 0x400000000000000a

// stampStep is the resolution: the low 24 bits of the nanoseconds are zero, to give away less of the clock.
const stampStep = 1 << 24

// stampOf returns the label of wall clock time t.
func stampOf(t time.Time) timestamp {
	var s timestamp
	binary.BigEndian.PutUint64(s[:], uint64(tai64Base+t.Unix()))
	binary.BigEndian.PutUint32(s[8:], uint32(t.Nanosecond())&^(stampStep-1))
	return s
}

// time is the wall clock time of the label; zero of the zero label, which is nobody's.
func (s timestamp) time() time.Time {
	if s == (timestamp{}) {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(s[:])-tai64Base), int64(binary.BigEndian.Uint32(s[8:])))
}

// after reports whether s is strictly later than o.
func (s timestamp) after(o timestamp) bool { return bytes.Compare(s[:], o[:]) > 0 }

// next returns the smallest label after s.
func (s timestamp) next() timestamp {
	secs, nanos := binary.BigEndian.Uint64(s[:]), binary.BigEndian.Uint32(s[8:])
	if nanos += stampStep; nanos >= uint32(time.Second) {
		secs, nanos = secs+1, 0
	}
	binary.BigEndian.PutUint64(s[:], secs)
	binary.BigEndian.PutUint32(s[8:], nanos)
	return s
}

// stampAfter returns the label of now, or the one after last when the clock stood still or went back
// (spec/40-wireguard.md#timestamps).
func stampAfter(last timestamp, now time.Time) timestamp {
	if s := stampOf(now); s.after(last) {
		return s
	}
	return last.next()
}
