package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// tcp builds a whole TCP packet with a good checksum.
func tcp(v6 bool, id uint16, seq uint32, flags byte, options, payload []byte) []byte {
	t := make([]byte, 20+len(options), 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(t, 5000)
	binary.BigEndian.PutUint16(t[2:], 443)
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], 77)
	t[12], t[13] = byte(len(t)/4)<<4, flags
	binary.BigEndian.PutUint16(t[14:], 512)
	copy(t[20:], options)
	t = append(t, payload...)
	p := append(ip(v6, id, ProtoTCP, len(t)), t...)
	setTransport(p, ProtoTCP, len(p)-len(t), 16)
	return p
}

func udp(v6 bool, payload []byte) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u, 5000)
	binary.BigEndian.PutUint16(u[2:], 53)
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	p := append(ip(v6, 9, ProtoUDP, len(u)), u...)
	setTransport(p, ProtoUDP, len(p)-len(u), 6)
	return p
}

func ip(v6 bool, id uint16, proto byte, n int) []byte {
	if v6 {
		p := make([]byte, IPv6Header)
		p[0], p[6], p[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(p[4:], uint16(n))
		p[8], p[23], p[24], p[39] = 0xfd, 1, 0xfd, 2
		return p
	}
	p := make([]byte, IPv4Header)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(IPv4Header+n))
	binary.BigEndian.PutUint16(p[4:], id)
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	setIPv4Checksum(p)
	return p
}

func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// slowSum is RFC 1071 by the letter: the oracle.
func slowSum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		if s += w; s > 0xffff {
			s = s&0xffff + 1
		}
	}
	return ^uint16(s)
}

func TestChecksumAgainstTheLetterOfTheRFC(t *testing.T) {
	for n := range 200 {
		if b := bytesOf(n); Checksum(b) != slowSum(b) {
			t.Fatalf("%d bytes: %04x, want %04x", n, Checksum(b), slowSum(b))
		}
	}
	for _, b := range [][]byte{bytes.Repeat([]byte{0xff}, 64), bytes.Repeat([]byte{0xff}, 65), make([]byte, 40)} {
		if Checksum(b) != slowSum(b) {
			t.Fatalf("%x: %04x, want %04x", b, Checksum(b), slowSum(b))
		}
	}
}

func TestAddressesAndTrim(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		p := udp(v6, []byte("hello"))
		src, ok1 := Source(p)
		dst, ok2 := Destination(p)
		want := [2]string{"10.0.0.1", "10.0.0.2"}
		if v6 {
			want = [2]string{"fd00::1", "fd00::2"}
		}
		if !ok1 || !ok2 || src != netip.MustParseAddr(want[0]) || dst != netip.MustParseAddr(want[1]) {
			t.Fatalf("%v to %v", src, dst)
		}
		got, ok := Trim(append(bytes.Clone(p), 0, 0, 0))
		if !ok || !bytes.Equal(got, p) {
			t.Fatal("padding is still there")
		}
		if _, ok := Trim(p[:len(p)-1]); ok {
			t.Fatal("a packet longer than what there is was accepted")
		}
	}
	for _, bad := range [][]byte{nil, {0x45}, make([]byte, 60), {0x60, 0}} {
		if _, ok := Source(bad); ok || Version(bad) != 0 {
			t.Fatalf("%x has a source", bad)
		}
	}
}

// stream cuts a random payload into segments of one flow, as a sender's kernel would.
func stream(v6 bool, size, count, last int, options []byte) (packets [][]byte) {
	seq, id := rand.Uint32(), uint16(rand.Uint32())
	for i := range count {
		n, flags := size, byte(tcpACK)
		if i == count-1 {
			n, flags = last, tcpACK|tcpPSH
		}
		packets = append(packets, tcp(v6, id+uint16(i), seq, flags, options, bytesOf(n)))
		seq += uint32(n)
	}
	return packets
}

// cut is what the receiver's kernel would make of a frame.
func cut(t testing.TB, f Frame) (packets [][]byte) {
	t.Helper()
	var s Segmenter
	if err := s.Reset(f); err != nil {
		t.Fatal(err)
	}
	for {
		b := make([]byte, s.MaxLen())
		n := s.Next(b)
		if n == 0 {
			return packets
		}
		packets = append(packets, b[:n])
	}
}

// joinAll passes packets through a Joiner and returns the frames it makes.
func joinAll(packets [][]byte) (frames []Frame) {
	j := Joiner{UDP: true}
	flush := func() {
		if pieces, o := j.Flush(); len(pieces) > 0 {
			frames = append(frames, Frame{Offload: o, Data: bytes.Join(pieces, nil)})
		}
	}
	for _, p := range packets {
		if p = bytes.Clone(p); !j.Add(p, false) {
			flush()
			j.Add(p, false)
		}
	}
	flush()
	return frames
}

func TestJoinedSegmentsAreCutIntoTheSamePackets(t *testing.T) {
	timestamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	for range 300 {
		v6, count := rand.IntN(2) == 0, 1+rand.IntN(60)
		size := 1 + rand.IntN(1400)
		var options []byte
		if rand.IntN(2) == 0 {
			options = timestamps
		}
		packets := stream(v6, size, count, 1+rand.IntN(size), options)
		frames := joinAll(packets)
		if size*count < 60000 && len(frames) != 1 {
			t.Fatalf("%d segments of %d bytes gave %d frames", count, size, len(frames))
		}
		var got [][]byte
		for _, f := range frames {
			got = append(got, cut(t, f)...)
		}
		compare(t, got, packets)
	}
}

// TestDisorderIsKept passes streams with loss, reordering, duplicates, odd flags and bad checksums: nothing is mended, nothing
// is lost, and the order stays.
func TestDisorderIsKept(t *testing.T) {
	for range 500 {
		v6 := rand.IntN(2) == 0
		packets := stream(v6, 100, 20, 50, nil)
		for range 1 + rand.IntN(4) {
			i, j := rand.IntN(len(packets)), rand.IntN(len(packets))
			switch rand.IntN(5) {
			case 0:
				packets[i], packets[j] = packets[j], packets[i]
			case 1:
				packets = append(packets[:i+1], packets[i:]...)
				packets[i] = bytes.Clone(packets[i])
			case 2:
				packets[i] = tcp(v6, 1, rand.Uint32(), byte(rand.Uint32()), nil, bytesOf(100))
			case 3:
				packets[i] = bytes.Clone(packets[i])
				packets[i][len(packets[i])-1] ^= 1 // its checksum is wrong now
			case 4:
				packets[i] = udp(v6, bytesOf(rand.IntN(200)))
			}
		}
		var got [][]byte
		for _, f := range joinAll(packets) {
			got = append(got, cut(t, f)...)
		}
		compare(t, got, packets)
	}
}

func compare(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(atomic(got[i]), atomic(want[i])) {
			t.Fatalf("packet %d of %d:\n got %x\nwant %x", i, len(got), got[i], want[i])
		}
	}
}

// atomic blanks the IPv4 id, and the header's checksum with it, of a UDP datagram that must not be fragmented (RFC 6864).
func atomic(p []byte) []byte {
	if Version(p) == 4 && p[9] == ProtoUDP && p[6]&0x40 != 0 {
		p = bytes.Clone(p)
		copy(p[4:], []byte{0, 0})
		copy(p[10:], []byte{0, 0})
	}
	return p
}

func TestDatagramsOfOneFlowAreJoined(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, partial := range []bool{false, true} {
			var packets [][]byte
			for i := range 10 {
				p := udp(v6, bytesOf(1200-i/9*100)) // the last is shorter
				if partial {
					at := len(p) - 1200 + i/9*100 - udpHeader
					binary.BigEndian.PutUint16(p[at+6:], fold(pseudo(p, ProtoUDP, len(p)-at)))
				}
				packets = append(packets, p)
			}
			j := Joiner{UDP: true}
			for _, p := range packets {
				if !j.Add(bytes.Clone(p), partial) {
					t.Fatal("a datagram did not fit")
				}
			}
			pieces, o := j.Flush()
			if o.GSO != GSOUDP || o.Segment != 1200 || !o.NeedsChecksum {
				t.Fatalf("offload %+v", o)
			}
			var s Segmenter
			if err := s.Reset(Frame{Offload: o, Data: bytes.Join(pieces, nil)}); err != nil {
				t.Fatal(err)
			}
			if s.LeaveChecksums() != true {
				t.Fatal("checksums cannot be left")
			}
			compare(t, cut(t, Frame{Offload: o, Data: bytes.Join(pieces, nil)}), whole(packets))
		}
	}
	none := Joiner{}
	none.Add(udp(true, bytesOf(100)), false)
	if none.Add(udp(true, bytesOf(100)), false) {
		t.Fatal("joined for a host that does not take it")
	}
}

// whole completes the checksums of UDP datagrams.
func whole(packets [][]byte) (out [][]byte) {
	for _, p := range packets {
		p = bytes.Clone(p)
		_, at, field, _ := checksumField(p)
		setTransport(p, ProtoUDP, at, field)
		out = append(out, p)
	}
	return out
}

// TestLeftChecksumsAreTheReceiversKernels sends segments with their checksums left, joins them, and lets the receiver's kernel
// finish: it gets what the sender's kernel meant. spec/40-wireguard.md#partial-checksums
func TestLeftChecksumsAreTheReceiversKernels(t *testing.T) {
	for range 200 {
		v6 := rand.IntN(2) == 0
		size := 1 + rand.IntN(1300)
		want := stream(v6, size, 1+rand.IntN(20), 1+rand.IntN(size), nil)
		j := Joiner{}
		for _, f := range joinAll(want) {
			var s Segmenter
			if err := s.Reset(f); err != nil {
				t.Fatal(err)
			}
			partial := s.LeaveChecksums()
			if partial != f.Offload.NeedsChecksum {
				t.Fatalf("left: %v, offload %+v", partial, f.Offload)
			}
			for b := make([]byte, s.MaxLen()); ; b = make([]byte, s.MaxLen()) {
				n := s.Next(b)
				if n == 0 {
					break
				}
				if partial && !PartialOK(b[:n]) || !j.Add(b[:n], partial) {
					t.Fatal("a segment did not fit")
				}
			}
			pieces, o := j.Flush()
			compare(t, cut(t, Frame{Offload: o, Data: bytes.Join(pieces, nil)}), cut(t, f))
		}
	}
	syn := tcp(false, 1, 2, tcpSYN, nil, nil)
	var s Segmenter
	if err := s.Reset(Frame{Data: syn, Offload: Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}}); err != nil {
		t.Fatal(err)
	}
	if s.LeaveChecksums() || PartialOK(syn) || PartialOK([]byte{1}) {
		t.Fatal("a SYN's checksum was left")
	}
}

func TestUDPSuperPacketIsCut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		payload := bytesOf(2500)
		whole := udp(v6, payload)
		at := len(whole) - len(payload) - udpHeader
		packets := cut(t, Frame{Offload: Offload{GSO: GSOUDP, Segment: 1000, NeedsChecksum: true}, Data: whole})
		if len(packets) != 3 {
			t.Fatalf("%d packets", len(packets))
		}
		var got []byte
		for _, p := range packets {
			if !goodTransport(p, ProtoUDP, at) || int(binary.BigEndian.Uint16(p[at+4:])) != len(p)-at {
				t.Fatalf("bad datagram %x", p[:at+8])
			}
			got = append(got, p[at+8:]...)
		}
		if !bytes.Equal(got, payload) {
			t.Fatal("payload differs")
		}
	}
}

func TestPartialChecksumIsCompleted(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		want := tcp(v6, 1, 2, tcpACK, nil, bytesOf(33))
		at := len(want) - 53
		p := bytes.Clone(want)
		binary.BigEndian.PutUint16(p[at+16:], fold(pseudo(p, ProtoTCP, 53)))
		got := cut(t, Frame{Offload: Offload{NeedsChecksum: true, ChecksumStart: uint16(at), ChecksumOffset: 16}, Data: p})
		compare(t, got, [][]byte{want})
	}
}

func TestClampMSS(t *testing.T) {
	options := []byte{1, 2, 4, 0x05, 0xb4, 1, 1, 1} // a NOP puts the option on an odd offset
	for _, v6 := range []bool{false, true} {
		p := tcp(v6, 1, 2, tcpSYN, options, nil)
		at := len(p) - 28
		ClampMSS(p, 1280)
		want := uint16(1280 - at - 20)
		if got := binary.BigEndian.Uint16(p[at+23:]); got != want || !goodTransport(p, ProtoTCP, at) {
			t.Fatalf("MSS %d, want %d; checksum good: %v", got, want, goodTransport(p, ProtoTCP, at))
		}
		again := bytes.Clone(p)
		ClampMSS(again, 9000)
		if !bytes.Equal(again, p) {
			t.Fatal("a small MSS was raised")
		}
		data := tcp(v6, 1, 2, tcpACK, options, nil)
		same := bytes.Clone(data)
		if ClampMSS(same, 1280); !bytes.Equal(same, data) {
			t.Fatal("a packet that is no SYN was changed")
		}
	}
}

func TestTooBigTellsTheSender(t *testing.T) {
	buf := make([]byte, MaxTooBig)
	p := tcp(false, 1, 2, tcpACK, nil, bytesOf(1380))
	n := TooBig(buf, p, 1280)
	d := buf[:n]
	if n == 0 || slowSum(d[:20]) != 0 || slowSum(d[20:]) != 0 || d[20] != 3 || d[21] != 4 || binary.BigEndian.Uint16(d[26:]) != 1280 {
		t.Fatalf("ICMPv4 %x", d[:min(n, 40)])
	}
	if src, _ := Source(d); src != netip.MustParseAddr("10.0.0.2") || !bytes.Equal(d[28:48], p[:20]) {
		t.Fatalf("from %v, quoting %x", src, d[28:48])
	}
	p = tcp(true, 1, 2, tcpACK, nil, bytesOf(1380))
	d = buf[:TooBig(buf, p, 1280)]
	if len(d) != MaxTooBig || !goodTransport(d, ProtoICMPv6, 40) || d[40] != 2 || binary.BigEndian.Uint32(d[44:]) != 1280 {
		t.Fatalf("ICMPv6 %x", d[:min(len(d), 60)])
	}
	if TooBig(make([]byte, MaxTooBig), d, 1280) != 0 {
		t.Fatal("an ICMP error was answered with an ICMP error")
	}
}

func TestFragmentsMakeTheWholeAgain(t *testing.T) {
	p := udp(false, bytesOf(1400))
	p[6] = 0 // may be cut
	setIPv4Checksum(p)
	var payload []byte
	buf := make([]byte, 2000)
	for from, next := 0, -1; next != 0; from = next {
		var n int
		n, next = Fragment(buf, p, from, 600)
		if n > 600 || slowSum(buf[:20]) != 0 || int(binary.BigEndian.Uint16(buf[6:])&0x1fff)*8 != from {
			t.Fatalf("fragment at %d: %x", from, buf[:20])
		}
		if more := buf[6]&0x20 != 0; more != (next != 0) {
			t.Fatalf("fragment at %d: more = %v", from, more)
		}
		payload = append(payload, buf[20:n]...)
	}
	if !bytes.Equal(payload, p[20:]) {
		t.Fatal("payload differs")
	}
}

func FuzzPackets(f *testing.F) {
	f.Add(tcp(false, 1, 2, tcpACK, nil, []byte("x")), []byte{1, 1, 0, 0, 100, 0, 20, 0, 16, 0})
	f.Add(udp(true, []byte("x")), []byte{1, 5, 0, 0, 1, 0, 40, 0, 6, 0})
	f.Add([]byte{0x45}, []byte{})
	f.Fuzz(func(t *testing.T, p, header []byte) {
		if len(p) > 65535 {
			return
		}
		Source(p)
		Destination(p)
		ClampMSS(bytes.Clone(p), 1280)
		TooBig(make([]byte, MaxTooBig), p, 1280)
		if trimmed, ok := Trim(p); ok {
			var got [][]byte
			for _, fr := range joinAll([][]byte{trimmed, trimmed}) {
				got = append(got, cut(t, fr)...)
			}
			compare(t, got, [][]byte{trimmed, trimmed})
		}
		o, err := ParseOffload(header)
		if err != nil {
			return
		}
		var s Segmenter
		if s.Reset(Frame{Offload: o, Data: p}) != nil {
			return
		}
		buf := make([]byte, s.MaxLen())
		for s.Next(buf) > 0 {
		}
	})
}

func FuzzParseOffload(f *testing.F) {
	f.Add(make([]byte, OffloadSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := ParseOffload(b); err == nil {
			var again [OffloadSize]byte
			o.Put(again[:])
			if p, err := ParseOffload(again[:]); err != nil || p != o {
				t.Fatalf("%+v became %+v: %v", o, p, err)
			}
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	data := joinAll(stream(false, 1380, 45, 1380, nil))[0]
	buf := make([]byte, 2000)
	var s Segmenter
	b.SetBytes(int64(len(data.Data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Reset(data); err != nil {
			b.Fatal(err)
		}
		for s.Next(buf) > 0 {
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	packets := stream(false, 1380, 45, 1380, nil)
	j := Joiner{UDP: true}
	b.SetBytes(45 * 1420)
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range packets[:44] {
			if !j.Add(p, false) {
				b.Fatal("not taken")
			}
		}
		if pieces, _ := j.Flush(); len(pieces) != 44 {
			b.Fatal("not joined")
		}
		binary.BigEndian.PutUint16(packets[0][2:], uint16(len(packets[0]))) // as it was before the flush
		setTransport(packets[0], ProtoTCP, IPv4Header, 16)
	}
}
