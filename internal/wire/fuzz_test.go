package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

// What is let through is encoded in one way only, and is again what came.
func FuzzParseRecord(f *testing.F) {
	for kind, p := range payloads() {
		r, err := SealRecord(key.NetworkID{1}, kind, p, person("a"), person("b"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRecord(key.NetworkID{1}, raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		r.Verify(key.NetworkID{1})
		again, err := EncodeRecord(key.NetworkID{1}, r.Kind, r.Payload, r.Sigs)
		if err != nil || !bytes.Equal(again.Raw, raw) || again.ID != r.ID {
			t.Fatalf("encodes to %x, %v", again.Raw, err)
		}
	})
}

func FuzzParsePayload(f *testing.F) {
	for kind, p := range payloads() {
		b, err := MarshalCanonical(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(kind), b)
	}
	f.Fuzz(func(t *testing.T, kind uint16, b []byte) {
		v, err := ParsePayload(Kind(kind), b)
		if err != nil || v == nil {
			return
		}
		if again, err := MarshalCanonical(v); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("encodes to %x, %v", again, err)
		}
	})
}

func FuzzParseControl(f *testing.F) {
	for _, m := range []interface{ Append([]byte) []byte }{Ping{ID: 1, Size: 40}, Pong{ID: 2, Observed: hints("192.0.2.1:5")[0]},
		Records{Raw: [][]byte{{1}, {2, 3}}}, Sync{Body: []byte{1}}, Bye{},
		Candidates{Round: 1, V4: NAT{Class: NATPredictable, Step: 1}, List: []Candidate{{CandidateMapped, hints("192.0.2.1:5")[0]}}}} {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseControl(b)
		if err != nil || m == nil {
			return
		}
		again, err := ParseControl(m.(interface{ Append([]byte) []byte }).Append(nil))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v becomes %+v, %v", m, again, err)
		}
	})
}

func FuzzParseEndpoint(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1, 1, 2})
	f.Add(append(make([]byte, 15), 1, 0, 1))
	f.Add(append(append(make([]byte, 10), 0xff, 0xff), 1, 2, 3, 4, 5, 6))
	f.Fuzz(func(t *testing.T, b []byte) {
		ap, err := ParseEndpoint(b)
		if err != nil {
			return
		}
		if again, err := ParseEndpoint(AppendEndpoint(nil, ap)); err != nil || again != ap || ap.Port() == 0 || !ap.Addr().IsValid() {
			t.Fatalf("%v becomes %v, %v", ap, again, err)
		}
	})
}

func FuzzParseCode(f *testing.F) {
	f.Add(sampleCode().Text())
	f.Add(sampleCode("192.0.2.1:51820", "[2001:db8::1]:7").Text())
	f.Add(withTargets(sampleCode("192.0.2.1:51820"), "tls://192.0.2.1:8443", "wss://vpn.example.org/dig").Text())
	f.Add("warren2aaaa")
	f.Add("  WARREN1 " + sampleCode().Text()[7:] + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			if err != ErrNotACode && err != ErrCodeDamaged && err != ErrCodeVersion {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseCode(c.Text())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("another code comes back: %v", err)
		}
	})
}

func FuzzParseRight(f *testing.F) {
	for _, n := range AllRights.Names() {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if r, ok := ParseRight(name); ok && r.String() != name {
			t.Fatalf("%q is %v", name, r)
		}
	})
}
