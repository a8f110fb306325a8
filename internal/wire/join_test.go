package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

// joinFrames are one of each step, in the form that ParseJoin gives.
func joinFrames() []any {
	part := JoinStep4{Receiver: 4, Part: 1, Parts: 2, Sealed: bytes.Repeat([]byte{9}, 40)}
	part.Header = JoinStep4{Receiver: 4, Part: 1, Parts: 2}.Append(nil)
	return []any{
		JoinStep1{Sender: 1, Locator: key.Locator{1, 2, 3}, Noise: bytes.Repeat([]byte{7}, MaxJoin-16)},
		JoinStep2{Receiver: 2, Noise: bytes.Repeat([]byte{8}, 200)},
		JoinStep3{Receiver: 3, Noise: bytes.Repeat([]byte{9}, 300)},
		part,
		JoinProof{Noise: bytes.Repeat([]byte{5}, 200), MAC: [16]byte{6}},
	}
}

// spec/30-join.md#frames
func TestJoinFrames(t *testing.T) {
	for _, m := range joinFrames() {
		raw := m.(interface{ Append([]byte) []byte }).Append(nil)
		got, err := ParseJoin(raw)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T: got %+v, %v", m, got, err)
		}
		index, ok := JoinReceiver(raw)
		if indexed := raw[1] >= 2 && raw[1] <= 4; ok != indexed || ok && index != uint32(raw[1]) {
			t.Errorf("%T: receiver %d, %t", m, index, ok)
		}
		for name, spoil := range map[string]func([]byte) []byte{
			"type":     func(b []byte) []byte { b[0] = 5; return b },
			"step 0":   func(b []byte) []byte { b[1] = 0; return b },
			"step 6":   func(b []byte) []byte { b[1] = 6; return b },
			"reserved": func(b []byte) []byte { b[3] = 1; return b },
			"short":    func(b []byte) []byte { return b[:7] },
			"no room":  func(b []byte) []byte { return b[:20] },
			"long":     func(b []byte) []byte { return append(b, make([]byte, MaxJoin)...) },
		} {
			if _, err := ParseJoin(spoil(bytes.Clone(raw))); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T, %s: %v", m, name, err)
			}
		}
	}
	for _, bad := range []JoinStep4{
		{Part: 0, Parts: 0, Sealed: make([]byte, 40)},
		{Part: 2, Parts: 2, Sealed: make([]byte, 40)},
		{Part: 0, Parts: MaxJoinParts + 1, Sealed: make([]byte, MaxJoin-JoinPartHeader)},
		{Part: 0, Parts: 2, Sealed: make([]byte, 40)}, // only the last part may be short
	} {
		if _, err := ParseJoin(bad.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("part %d of %d with %d bytes: %v", bad.Part, bad.Parts, len(bad.Sealed), err)
		}
	}
}

func TestJoinPayloads(t *testing.T) {
	hello := JoinHello{Key: key.Public{1}, Name: "bob", Version: 1}
	raw, err := hello.Marshal()
	if err != nil || len(raw) != joinHelloSize {
		t.Fatalf("hello: %d bytes, %v", len(raw), err)
	}
	if got, err := ParseJoinHello(raw); err != nil || got != hello {
		t.Errorf("hello: %+v, %v", got, err)
	}
	raw[len(raw)-1] = 1 // spec/30-join.md#hello
	if _, err := ParseJoinHello(raw); !errors.Is(err, ErrMalformed) {
		t.Errorf("hello with dirty padding: %v", err)
	}
	if _, err := (JoinHello{Name: string(make([]byte, MaxJoinName+1))}).Marshal(); err == nil {
		t.Error("a long name was encoded")
	}
	offer := JoinOffer{Status: JoinOK, Network: key.NetworkID{2}, Introducer: key.Public{3}, Sender: 9, Draft: []byte{1}}
	roundTrip(t, offer, ParseJoinOffer)
	roundTrip(t, JoinOffer{Status: JoinUsed}, ParseJoinOffer)
	roundTrip(t, JoinAccept{NodeInfo: []byte{1}}, ParseJoinAccept)
	roundTrip(t, JoinGrant{Status: JoinKnown, Records: [][]byte{{1}, {2}}}, ParseJoinGrant)
	roundTrip(t, JoinGrant{Status: JoinPending}, ParseJoinGrant)
	refuse(t, JoinOffer{Status: JoinOK}, ParseJoinOffer)
	refuse(t, JoinOffer{Status: JoinUsed, Draft: []byte{1}}, ParseJoinOffer)
	refuse(t, JoinOffer{}, ParseJoinOffer)
	refuse(t, JoinGrant{Status: JoinOK}, ParseJoinGrant)
	refuse(t, JoinGrant{Status: JoinUsed, Records: [][]byte{{1}}}, ParseJoinGrant)
	refuse(t, JoinGrant{Status: JoinOK, Records: make([][]byte, MaxJoinRecords+1)}, ParseJoinGrant)
	if _, err := (JoinGrant{Status: JoinOK, Records: [][]byte{make([]byte, MaxJoinGrant)}}).Marshal(); err == nil {
		t.Error("a grant over the limit was encoded")
	}
	if (MaxJoinGrant+JoinChunk-1)/JoinChunk != MaxJoinParts {
		t.Error("the limits of grant and parts disagree")
	}
	if JoinStatus(77).String() != "denied" || JoinTooOld.String() != "version" {
		t.Error("status names")
	}
}

func roundTrip[T interface{ Marshal() ([]byte, error) }](t *testing.T, v T, parse func([]byte) (T, error)) {
	t.Helper()
	raw, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parse(raw); err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("got %+v, %v, want %+v", got, err, v)
	}
}

func refuse[T any](t *testing.T, v T, parse func([]byte) (T, error)) {
	t.Helper()
	raw, err := MarshalCanonical(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(raw); !errors.Is(err, ErrMalformed) {
		t.Errorf("%+v was accepted: %v", v, err)
	}
}

func FuzzParseJoin(f *testing.F) {
	for _, m := range joinFrames() {
		f.Add(m.(interface{ Append([]byte) []byte }).Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseJoin(b)
		if err != nil {
			return
		}
		if got := m.(interface{ Append([]byte) []byte }).Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

func FuzzParseJoinHello(f *testing.F) {
	raw, _ := JoinHello{Key: key.Public{1}, Name: "bob", Version: 1}.Marshal()
	fuzzPayload(f, raw, ParseJoinHello)
}

func FuzzParseJoinOffer(f *testing.F) {
	raw, _ := JoinOffer{Status: JoinOK, Draft: []byte{1}}.Marshal()
	fuzzPayload(f, raw, ParseJoinOffer)
}

func FuzzParseJoinAccept(f *testing.F) {
	raw, _ := JoinAccept{NodeInfo: []byte{1}}.Marshal()
	fuzzPayload(f, raw, ParseJoinAccept)
}

func FuzzParseJoinGrant(f *testing.F) {
	raw, _ := JoinGrant{Status: JoinOK, Records: [][]byte{{1}}}.Marshal()
	fuzzPayload(f, raw, ParseJoinGrant)
}

// fuzzPayload: what parses has one encoding.
func fuzzPayload[T interface{ Marshal() ([]byte, error) }](f *testing.F, seed []byte, parse func([]byte) (T, error)) {
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil {
			return
		}
		if got, err := v.Marshal(); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x became %x, %v", b, got, err)
		}
	})
}
