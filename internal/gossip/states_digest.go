package gossip

import (
	"encoding/binary"
	"fmt"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// The body of a Digest message (spec/53-map.md#digest):
//
//	0   kind
//	1-  digestCompare: ranges, ascending, to the end of the body
//	    digestEqual:   nothing
//	    digestHave:    1 to 73 stamps: short id 8 | epoch u32 | sequence number u32
//	    digestOffer:   the same
//	    digestWant:    1 to 147 short ids
//	    digestMode:    0 or 1
//
// A range is all nodes whose short ids begin with the same digits, of 4 bits each:
//
//	0     N: number of digits, 0 to 16
//	1-    the digits, two a byte, the unused last one 0
//	      rangePrint: 1 | count u32 | fingerprint 16
//	      rangeList:  2 | count u8, 0 to 24 | so many stamps, ascending, within the range
const (
	digestCompare = 1
	digestEqual   = 2
	digestHave    = 3 // the sender has these
	digestOffer   = 4 // the same, and the receiver is to ask for what it lacks and to say what it has
	digestWant    = 5
	digestMode    = 6 // whether the receiver is to push or only to tell

	rangePrint = 1
	rangeList  = 2

	shortSize = len(key.ShortID{})
	stampSize = shortSize + 8
	maxStamps = (maxBody - 1) / stampSize
	maxWants  = (maxBody - 1) / shortSize
	maxList   = 24
	maxDigits = 2 * shortSize
)

// stamp names one link state.
type stamp struct {
	node    key.ShortID
	version wire.Version
}

// prefix is the first digits of short ids. Those beyond are zero.
type prefix struct {
	digits int
	id     key.ShortID
}

func (p prefix) first() uint64 { return uint64Of(p.id) }
func (p prefix) last() uint64  { return uint64Of(p.id) | (1<<(64-4*p.digits) - 1) }

// part returns the part of p whose next digit is d.
func (p prefix) part(d int) prefix {
	p.id[p.digits/2] |= byte(d << (4 * (1 - p.digits%2)))
	p.digits++
	return p
}

// stretch is one range of a comparison.
type stretch struct {
	prefix prefix
	mode   byte
	count  int // rangePrint
	print  print
	list   []stamp // rangeList
}

// digest is one parsed Digest body.
type digest struct {
	kind   byte
	ranges []stretch     // digestCompare
	stamps []stamp       // digestHave, digestOffer
	wants  []key.ShortID // digestWant
	eager  bool          // digestMode
}

// parseDigest reads the body of a Digest message and refuses all but its one form. A kind of a later version gives a digest of
// that kind and nothing else.
func parseDigest(b []byte) (digest, error) {
	if len(b) < 1 || len(b) > maxBody || b[0] == 0 {
		return digest{}, fmt.Errorf("digest of %d bytes: %w", len(b), wire.ErrMalformed)
	}
	d := digest{kind: b[0]}
	ok := true
	switch b = b[1:]; d.kind {
	case digestCompare:
		d.ranges, ok = parseRanges(b)
	case digestEqual:
		ok = len(b) == 0
	case digestHave, digestOffer:
		ok = len(b) > 0 && len(b)%stampSize == 0
		if ok {
			d.stamps, ok = parseStamps(b)
		}
	case digestWant:
		ok = len(b) > 0 && len(b)%shortSize == 0
		for ; ok && len(b) > 0; b = b[shortSize:] {
			d.wants = append(d.wants, key.ShortID(b))
		}
	case digestMode:
		ok = len(b) == 1 && b[0] <= 1
		d.eager = ok && b[0] == 1
	}
	if !ok {
		return digest{}, fmt.Errorf("digest of kind %d: %w", d.kind, wire.ErrMalformed)
	}
	return d, nil
}

func parseRanges(b []byte) (list []stretch, ok bool) {
	for len(b) > 0 {
		var r stretch
		n := int(b[0])
		size := (n + 1) / 2
		if n > maxDigits || len(b) < 1+size+2 {
			return nil, false
		}
		copy(r.prefix.id[:], b[1:1+size])
		r.prefix.digits = n
		if n%2 == 1 && b[size]&15 != 0 || len(list) > 0 && list[len(list)-1].prefix.last() >= r.prefix.first() {
			return nil, false
		}
		r.mode = b[1+size]
		switch b = b[2+size:]; {
		case r.mode == rangePrint && len(b) >= 20:
			r.count = int(binary.BigEndian.Uint32(b))
			r.print = print(b[4:20])
			b = b[20:]
		case r.mode == rangeList && int(b[0]) <= maxList && len(b) >= 1+int(b[0])*stampSize:
			end := 1 + int(b[0])*stampSize
			if r.list, ok = parseStamps(b[1:end]); !ok || !r.ascending() {
				return nil, false
			}
			b = b[end:]
		default:
			return nil, false
		}
		list = append(list, r)
	}
	return list, len(list) > 0
}

// ascending reports whether the list of r is in order and within its range.
func (r *stretch) ascending() bool {
	for i, s := range r.list {
		n := uint64Of(s.node)
		if n < r.prefix.first() || n > r.prefix.last() || i > 0 && uint64Of(r.list[i-1].node) >= n {
			return false
		}
	}
	return true
}

// parseStamps reads stamps to the end of b. The zero version is that of no link state.
func parseStamps(b []byte) (list []stamp, ok bool) {
	for ; len(b) > 0; b = b[stampSize:] {
		s := stamp{key.ShortID(b), wire.Version{Epoch: binary.BigEndian.Uint32(b[8:]), Seq: binary.BigEndian.Uint32(b[12:])}}
		if s.version == (wire.Version{}) {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

// append encodes d. The caller has kept it within maxBody.
func (d *digest) append(b []byte) []byte {
	b = append(b, d.kind)
	for i := range d.ranges {
		b = d.ranges[i].append(b)
	}
	for _, s := range d.stamps {
		b = appendVersion(b, s)
	}
	for _, id := range d.wants {
		b = append(b, id[:]...)
	}
	switch {
	case d.kind == digestMode && d.eager:
		b = append(b, 1)
	case d.kind == digestMode:
		b = append(b, 0)
	}
	return b
}

func (r *stretch) append(b []byte) []byte {
	b = append(b, byte(r.prefix.digits))
	b = append(b, r.prefix.id[:(r.prefix.digits+1)/2]...)
	b = append(b, r.mode)
	if r.mode == rangePrint {
		b = binary.BigEndian.AppendUint32(b, uint32(r.count))
		return append(b, r.print[:]...)
	}
	b = append(b, byte(len(r.list)))
	for _, s := range r.list {
		b = appendVersion(b, s)
	}
	return b
}

// size returns the bytes that append takes for r.
func (r *stretch) size() int {
	n := 2 + (r.prefix.digits+1)/2
	if r.mode == rangePrint {
		return n + 20
	}
	return n + 1 + len(r.list)*stampSize
}

func appendVersion(b []byte, s stamp) []byte {
	b = append(b, s.node[:]...)
	b = binary.BigEndian.AppendUint32(b, s.version.Epoch)
	return binary.BigEndian.AppendUint32(b, s.version.Seq)
}
