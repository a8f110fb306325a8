package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func testMask() *Mask { return NewMask(bytes.Repeat([]byte{7}, 32)) }

// framed makes a datagram of n bytes with these first ones, and others that tell their place.
func framed(n int, first ...byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	copy(b, first)
	return b
}

// relayed makes a relayed datagram for one relay with a tail.
func relayed(tail []byte) []byte {
	return append(framed(RelayOverhead+RelayHeaderSize(1), TypeRelay, byte(RelayHeaderSize(1)), 0, 0), tail...)
}

// spec/75-mask.md#receiving
func TestIsPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"01000000": true, "02000000": true, "03000000": true, "04000000": true, "04010000": true, "04010100": true, "04010f00": true,
		"051c0000": true, "05340100": true, "0524003f": true, "052c0000": true, "06010000": true, "06050000": true, "0101000c2112a442": true, "011100082112a442": true,
		"0101000c2112a443": false, "0201000c2112a442": false,
		"00000000": false, "01000001": false, "02010000": false, "03000100": false, "04000100": false, "04020000": false, "04011000": false, "04010001": false,
		"05350000": false, "053c0000": false, "05140000": false, "05040000": false, "051d0000": false, "051c0200": false, "051c0040": false, "06000000": false, "06060000": false, "06010100": false, "07000000": false, "64313a61": false,
	} {
		first, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := IsPlain(framed(32, first...)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		if !IsPlain(framed(31, first...)) {
			t.Errorf("%s of 31 bytes is not plain", text)
		}
	}
	for text, want := range map[string]bool{"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe": true, "d2:ip6:abcdef1:rd2:id20:abcdefghij01234567896:eeee": true,
		"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:q.": false, "d3:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe": false} {
		if got := IsPlain([]byte(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// spec/75-mask.md#block
func TestCover(t *testing.T) {
	m := testMask()
	for name, b := range map[string][]byte{
		"transport":        framed(100, TypeTransport, 0, 0, 0),
		"smallest":         framed(32, TypeTransport, 0, 0, 0),
		"fast":             framed(100, TypeTransport, 1, 1, 0),
		"relayed":          relayed(framed(80, TypeTransport, 0, 0, 0)),
		"relayed smallest": relayed(framed(32, TypeTransport, 0, 0, 0)),
	} {
		c := bytes.Clone(b)
		if !m.Cover(c) || len(c) != len(b) || IsPlain(c) || bytes.Equal(c[4:16], b[4:16]) {
			t.Fatalf("%s: covered as %x", name, c)
		}
		if at := len(b) - 80; name == "relayed" && bytes.Equal(c[at:at+4], b[at:at+4]) {
			t.Errorf("%s: the tail is recognised: %x", name, c[at:])
		}
		var front [MaskBlock]byte
		if NewMask([]byte("other")).Front(&front, c) {
			t.Errorf("%s: opened under another key", name)
		}
		if !m.Front(&front, c) {
			t.Fatalf("%s: not found", name)
		}
		if m.Uncover(c, &front); !bytes.Equal(c, b) {
			t.Errorf("%s: uncovered as %x", name, c)
		}
	}
	for _, b := range [][]byte{framed(148, TypeInitiation, 0, 0, 0), framed(1200, TypeJoin, 1, 0, 0), relayed(framed(92, TypeResponse, 0, 0, 0))} {
		c := bytes.Clone(b)
		if m.Cover(c) || !bytes.Equal(c, b) {
			t.Errorf("%x was covered", b[:4])
		}
	}
}

// spec/75-mask.md#box
func TestBox(t *testing.T) {
	m, buf := testMask(), make([]byte, MaxMasked)
	for _, n := range []int{0, 1, 64, 148, 1190, 1191, 1200, MaxMasked - boxMin} {
		b := framed(n, TypeInitiation, 0, 0, 0)
		sizes, fronts := map[int]bool{}, map[string]bool{}
		for range 200 {
			c := m.Box(b)
			if got := m.ParseBox(buf, c); !bytes.Equal(got, b) {
				t.Fatalf("%d bytes come back as %x", n, got)
			}
			if limit := max(n+boxMin, min(n+boxMin+maxPadding, maxPadded)); len(c) > limit || len(c) < n+boxMin {
				t.Fatalf("%d bytes in a box of %d", n, len(c))
			}
			sizes[len(c)], fronts[string(c[:4])] = true, true
		}
		if n <= 148 && len(sizes) < 100 || n >= 1190 && len(sizes) > 1 || len(fronts) < 199 {
			t.Errorf("%d bytes: %d sizes, %d beginnings", n, len(sizes), len(fronts))
		}
	}
	c := m.Box([]byte("hello"))
	for i := range c {
		bad := bytes.Clone(c)
		if bad[i]++; m.ParseBox(buf, bad) != nil {
			t.Fatalf("byte %d can be changed", i)
		}
	}
	nonce := make([]byte, 24)
	for name, bad := range map[string][]byte{
		"nothing": nil, "cut": c[:41], "other key": NewMask([]byte("other")).Box([]byte("hello")), "long": m.seal(nonce, make([]byte, MaxMasked-boxMin), 1),
		"padding that is not zero": append(nonce[:24:24], m.box.Seal(nil, nonce, []byte{0, 1, 'x', 0, 1}, nil)...),
		"more than there is":       append(nonce[:24:24], m.box.Seal(nil, nonce, []byte{0, 2, 'x'}, nil)...),
		"no length":                append(nonce[:24:24], m.box.Seal(nil, nonce, []byte{0}, nil)...),
	} {
		if got := m.ParseBox(buf, bad); got != nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestMaskRedacted(t *testing.T) {
	m := testMask()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if s := fmt.Sprintf(verb, m); s != "redacted" {
			t.Errorf("%s: %s", verb, s)
		}
	}
	if !strings.Contains(m.LogValue().String(), "redacted") {
		t.Error("it stands in logs")
	}
}

// maskVector is one datagram and what it is masked as, in hexadecimal.
type maskVector struct {
	Secret string `json:"secret"`
	Block  string `json:"first_block_of_zeros"`
	Plain  string `json:"plain"`
	Nonce  string `json:"nonce,omitempty"`
	Pad    int    `json:"padding,omitempty"`
	Masked string `json:"masked"`
}

// spec/75-mask.md#vectors, spec/75-mask.md#mask-key
func TestMaskVectors(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	m := NewMask(secret)
	zeros := make([]byte, MaskBlock)
	m.block.Encrypt(zeros, zeros)
	var out []maskVector
	add := func(b []byte, pad int) {
		v := maskVector{Secret: hex.EncodeToString(secret), Block: hex.EncodeToString(zeros), Plain: hex.EncodeToString(b), Pad: pad}
		if c := bytes.Clone(b); m.Cover(c) {
			v.Masked = hex.EncodeToString(c)
		} else {
			nonce := framed(24, 0xa0)
			v.Nonce, v.Masked = hex.EncodeToString(nonce), hex.EncodeToString(m.seal(nonce, b, pad))
		}
		out = append(out, v)
	}
	add(framed(32, TypeTransport, 0, 0, 0), 0)
	add(framed(64, TypeTransport, 1, 1, 0), 0)
	add(relayed(framed(48, TypeTransport, 0, 0, 0)), 0)
	add(framed(148, TypeInitiation, 0, 0, 0), 0)
	add(framed(64, TypeCookieReply, 0, 0, 0), 5)
	add(relayed(framed(92, TypeResponse, 0, 0, 0)), 3)
	add(nil, 2)
	checkVectors(t, "../../spec/vectors/mask.json", out)
}

// A box is opened by its key alone, and into what was put in. Nothing else is.
func FuzzParseBox(f *testing.F) {
	m := testMask()
	f.Add([]byte{}, false)
	f.Add(m.Box([]byte("hello")), false)
	f.Add(m.Box(nil), false)
	f.Add([]byte("hello"), true)
	buf, again := make([]byte, MaxMasked), make([]byte, MaxMasked)
	f.Fuzz(func(t *testing.T, b []byte, box bool) {
		if box && len(b) <= MaxMasked-boxMin {
			if got := m.ParseBox(buf, m.Box(b)); !bytes.Equal(got, b) {
				t.Fatalf("%x comes back as %x", b, got)
			}
			return
		}
		got := m.ParseBox(buf, b)
		if got != nil && !bytes.Equal(m.ParseBox(again, m.seal(b[:24], got, len(b)-boxMin-len(got))), got) {
			t.Fatalf("%x is not what was put in", got)
		}
		var front [MaskBlock]byte
		if len(b) >= minMasked && m.Front(&front, b) {
			c := bytes.Clone(b)
			m.Uncover(c, &front)
			if c[0] == TypeRelay && len(c) < RelayOverhead+int(c[1])+minMasked || c[0] == TypeRelay && c[RelayOverhead+int(c[1])] != TypeTransport {
				return // no sender's
			}
			if !m.Cover(c) || !bytes.Equal(c, b) {
				t.Fatalf("%x is uncovered as what is covered as %x", b, c)
			}
		}
	})
}
