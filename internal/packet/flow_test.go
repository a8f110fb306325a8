package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestFlow(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		at := IPv4Header
		if v6 {
			at = IPv6Header
		}
		base := tcp(v6, 1, 100, tcpACK, nil, bytesOf(50))
		flow := Flow(base)
		if Flow(tcp(v6, 7, 5000, tcpACK|tcpPSH, nil, bytesOf(900))) != flow {
			t.Errorf("v6 %v: packets of one flow differ", v6)
		}
		for name, place := range map[string]int{"source": at - 1, "destination": at - 17, "source port": at + 1, "destination port": at + 3} {
			p := bytes.Clone(base)
			p[place] ^= 1
			if !v6 && name == "destination" {
				p[place] ^= 1
				p[at-5] ^= 1
			}
			if Flow(p) == flow {
				t.Errorf("v6 %v: another %s is the same flow", v6, name)
			}
		}
		if Flow(udp(v6, bytesOf(50))) == flow {
			t.Errorf("v6 %v: another protocol is the same flow", v6)
		}
		// Every number of ways gets its share.
		var shares [3]int
		for port := range 3000 {
			p := bytes.Clone(base)
			binary.BigEndian.PutUint16(p[at:], uint16(port))
			shares[Flow(p)%3]++
		}
		for way, n := range shares {
			if n < 800 || n > 1200 {
				t.Errorf("v6 %v: way %d has %d flows of 3000", v6, way, n)
			}
		}
	}
}

// The fragments of a packet have the number of one flow, whatever stands where the ports would be.
func TestFragmentsAreOneFlow(t *testing.T) {
	p := udp(false, bytesOf(1200))
	p[6] = 0
	var flows []uint32
	for from, next := 0, -1; next != 0; from = next {
		buf := make([]byte, 600)
		var n int
		n, next = Fragment(buf, p, from, 600)
		flows = append(flows, Flow(buf[:n]))
	}
	for _, f := range flows[1:] {
		if f != flows[0] {
			t.Fatalf("flows %x", flows)
		}
	}
	for _, b := range [][]byte{nil, {0x45}, make([]byte, 100)} {
		if Flow(b) != 0 {
			t.Errorf("%x is a flow", b)
		}
	}
}

func FuzzFlow(f *testing.F) {
	f.Add(tcp(false, 1, 2, tcpACK, nil, nil))
	f.Add(tcp(true, 1, 2, tcpACK, nil, nil)[:42])
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		if flow := Flow(p); flow != Flow(before) || !bytes.Equal(p, before) {
			t.Fatal("not the same twice")
		}
	})
}

func BenchmarkFlow(b *testing.B) {
	p := tcp(true, 1, 2, tcpACK, nil, bytesOf(1000))
	b.ReportAllocs()
	for b.Loop() {
		Flow(p)
	}
}
