package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/warren-vpn/warren/internal/packet"
)

// source makes frames as a host's kernel does, from random bytes.
type source struct {
	rnd *rand.Rand
	seq uint32
}

// frame makes a super-packet or a packet, TCP or UDP, IPv4 or IPv6, with its checksum left to us as kernels do.
func (s *source) frame() packet.Frame {
	v6, udp := s.rnd.IntN(2) == 0, s.rnd.IntN(3) == 0
	ip, transport, field := 20, 20, 16
	if v6 {
		ip = 40
	}
	if udp {
		transport, field = 8, 6
	} else if s.rnd.IntN(2) == 0 {
		transport = 32 // timestamps
	}
	size := 1 + s.rnd.IntN(1280-ip-transport)
	n := size
	if s.rnd.IntN(2) == 0 {
		n = size + s.rnd.IntN(min(20*size, 50000))
	}
	p := make([]byte, ip+transport+n)
	for i := range p[ip+transport:] {
		p[ip+transport+i] = byte(s.rnd.Uint32())
	}
	s.header(p, v6, udp, ip, transport)
	o := packet.Offload{NeedsChecksum: true, ChecksumStart: uint16(ip), ChecksumOffset: uint16(field)}
	if n > size {
		o.Segment, o.GSO = uint16(size), packet.GSOTCPv4
		if v6 {
			o.GSO = packet.GSOTCPv6
		}
		if udp {
			o.GSO = packet.GSOUDP
		}
	}
	return packet.Frame{Data: p, Offload: o}
}

func (s *source) header(p []byte, v6, udp bool, ip, transport int) {
	proto := byte(packet.ProtoTCP)
	if udp {
		proto = packet.ProtoUDP
	}
	if v6 {
		p[0], p[6], p[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		copy(p[8:], inner6[0].AsSlice())
		copy(p[24:], inner6[1].AsSlice())
	} else {
		p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[4:], uint16(s.rnd.Uint32()))
		copy(p[12:], inner4[0].AsSlice())
		copy(p[16:], inner4[1].AsSlice())
		binary.BigEndian.PutUint16(p[10:], packet.Checksum(p[:20]))
	}
	t := p[ip:]
	binary.BigEndian.PutUint16(t, uint16(1000+s.rnd.IntN(2)))
	binary.BigEndian.PutUint16(t[2:], 80)
	var pseudo [40]byte // the pseudo-header, whose sum kernels leave in the field
	n := 0
	if v6 {
		n = copy(pseudo[:], p[8:40])
	} else {
		n = copy(pseudo[:], p[12:20])
	}
	pseudo[n+1], pseudo[n+2], pseudo[n+3] = proto, byte(len(t)>>8), byte(len(t))
	sum := ^packet.Checksum(pseudo[:n+4])
	if udp {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		binary.BigEndian.PutUint16(t[6:], sum)
		return
	}
	binary.BigEndian.PutUint32(t[4:], s.seq)
	s.seq += uint32(len(t) - transport)
	t[12], t[13] = byte(transport/4)<<4, 0x10
	if s.rnd.IntN(4) == 0 {
		t[13] |= 0x08 // PSH
	}
	if transport == 32 {
		copy(t[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	}
	binary.BigEndian.PutUint16(t[16:], sum)
}

// cutAll is what a host sees of frames: whole packets.
func cutAll(t testing.TB, frames []packet.Frame) (out [][]byte) {
	t.Helper()
	for _, f := range frames {
		var s packet.Segmenter
		if err := s.Reset(f); err != nil {
			t.Fatal(err)
		}
		for {
			b := make([]byte, s.MaxLen())
			n := s.Next(b)
			if n == 0 {
				break
			}
			if b = b[:n]; b[0]>>4 == 4 && b[9] == packet.ProtoUDP { // ids of datagrams that must not be cut mean nothing (RFC 6864)
				copy(b[4:6], []byte{0, 0})
				copy(b[10:12], []byte{0, 0})
			}
			out = append(out, b)
		}
	}
	return out
}

// differ sends the same packets three times: as super-packets in the fast form with their checksums left, and cut, whole and one by one in
// the stock form, and as the first, but masked. With loss and disorder on the wire the same packets are lost and disordered. What the receiving host sees is
// the same, byte for byte, and what the sending host meant.
func differ(t testing.TB, seed uint64, loss, disorder int) {
	t.Helper()
	s := &source{rnd: rand.New(rand.NewPCG(seed, 1))}
	var frames []packet.Frame
	for range 1 + s.rnd.IntN(6) {
		frames = append(frames, s.frame())
	}
	whole := cutAll(t, frames)
	rows := [3][]packet.Frame{frames, nil, frames}
	for _, p := range whole {
		rows[1] = append(rows[1], packet.Frame{Data: p})
	}
	var got [3][][]byte
	var trains [3]int
	for way := range got {
		a, b := newPair(t, false)
		a.peer.Session.SetFast(way != 1)
		if way == 2 {
			b.plane.SetMasks(someMasks)
			a.peer.SetMask(someMasks[1])
		}
		transmit(a, rows[way]...)
		trains[way] = len(a.wire.sent)
		var singles []packet.Datagrams
		for _, d := range a.wire.sent {
			for rest := d.Data; len(rest) > 0; {
				n := min(d.Segment, len(rest))
				if way == 2 && recognised(rest[:n]) {
					t.Fatalf("masked, and recognised: %x", rest[:16])
				}
				singles = append(singles, packet.Datagrams{Data: rest[:n:n], Segment: n})
				rest = rest[n:]
			}
		}
		wire := rand.New(rand.NewPCG(seed, 2))
		for i := 0; i < len(singles); i++ {
			if loss > 0 && wire.IntN(100) < loss {
				singles = append(singles[:i], singles[i+1:]...)
				i--
			} else if j := wire.IntN(len(singles)); disorder > 0 && wire.IntN(100) < disorder {
				singles[i], singles[j] = singles[j], singles[i]
			}
		}
		a.wire.sent = singles
		deliver(a, b)
		if d := b.plane.Drops(); len(d) != 0 {
			t.Fatalf("way %d drops %v", way, d)
		}
		got[way] = cutAll(t, b.host.got)
	}
	if loss == 0 && disorder == 0 {
		same(t, got[0], whole)
	}
	same(t, got[0], got[1])
	same(t, got[2], got[0])
	if trains[2] != trains[0] {
		t.Fatalf("%d trains masked, %d plain", trains[2], trains[0])
	}
}

func same(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d:\n got %x\nwant %x", i, len(got), got[i], want[i])
		}
	}
}

func TestSuperPacketsArriveAsPlainPacketsDo(t *testing.T) {
	for seed := range uint64(60) {
		differ(t, seed, 0, 0)
		differ(t, seed, 10, 0)
		differ(t, seed, 3, 10)
	}
}

func FuzzSuperPacketsArriveAsPlainPacketsDo(f *testing.F) {
	f.Add(uint64(1), 0, 0)
	f.Add(uint64(2), 20, 20)
	f.Fuzz(func(t *testing.T, seed uint64, loss, disorder int) { differ(t, seed, loss, disorder) })
}
