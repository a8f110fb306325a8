package wireguard

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the test vectors of the spec")

const vectorFile = "../../spec/vectors/wireguard.json"

// hexBytes is written as a hexadecimal string.
type hexBytes []byte

// MarshalText writes hexadecimal.
func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hexadecimal.
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vector is one handshake with all its inputs fixed.
type vector struct {
	Name               string   `json:"name"`
	InitiatorPrivate   hexBytes `json:"initiator_private"`
	InitiatorPublic    hexBytes `json:"initiator_public"`
	InitiatorEphemeral hexBytes `json:"initiator_ephemeral_private"`
	InitiatorIndex     uint32   `json:"initiator_index"`
	ResponderPrivate   hexBytes `json:"responder_private"`
	ResponderPublic    hexBytes `json:"responder_public"`
	ResponderEphemeral hexBytes `json:"responder_ephemeral_private"`
	ResponderIndex     uint32   `json:"responder_index"`
	PSK                hexBytes `json:"psk"`
	Time               string   `json:"time"`
	Timestamp          hexBytes `json:"timestamp"`
	Initiation         hexBytes `json:"initiation"`
	Response           hexBytes `json:"response"`
	Keepalive          hexBytes `json:"keepalive"`              // counter 0, initiator to responder
	Data               hexBytes `json:"data"`                   // plaintext of the next two
	InitiatorData      hexBytes `json:"initiator_to_responder"` // counter 1
	ResponderData      hexBytes `json:"responder_to_initiator"` // counter 0
	CookieSource       string   `json:"cookie_source"`
	CookieSecret       hexBytes `json:"cookie_secret"`
	CookieNonce        hexBytes `json:"cookie_nonce"`
	CookieReply        hexBytes `json:"cookie_reply"` // to the initiation
	InitiationMAC2     hexBytes `json:"initiation_mac2"`
}

// script gives fixed keys to the reads of 32 and 24 bytes, in order, and zeros to all else.
type script struct{ queue [][]byte }

func (s *script) Read(b []byte) (int, error) {
	clear(b)
	if len(s.queue) > 0 && len(b) == len(s.queue[0]) {
		copy(b, s.queue[0])
		s.queue = s.queue[1:]
	}
	return len(b), nil
}

func fill(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func makeVector(t *testing.T, name string, psk [32]byte) vector {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	v := vector{
		Name: name, PSK: psk[:], Time: at.Format(time.RFC3339Nano), Data: fill(0x45, 32),
		InitiatorEphemeral: fill(0x21, 32), ResponderEphemeral: fill(0x81, 32),
		InitiatorIndex: 0x01020304, ResponderIndex: 0xa0b0c0d0,
		CookieSource: "192.0.2.1:51820", CookieSecret: fill(0xc1, 32), CookieNonce: fill(0x61, 24),
	}
	w := &world{t: t, now: at}
	mk := func(seed string, index uint32, queue ...[]byte) *node {
		e, err := New(Config{Private: privateOf(seed), Rand: &script{queue: queue}, NewIndex: func() uint32 { return index }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{Engine: e, w: w, name: seed, table: map[uint32]*Keypair{}}
		w.nodes = append(w.nodes, n)
		return n
	}
	a := mk("warren vector initiator", v.InitiatorIndex, v.InitiatorEphemeral)
	b := mk("warren vector responder", v.ResponderIndex, v.ResponderEphemeral, v.CookieSecret, v.CookieNonce)
	a.addr, b.addr = netip.MustParseAddrPort(v.CookieSource), netip.MustParseAddrPort("192.0.2.2:51820")
	v.InitiatorPrivate, v.InitiatorPublic = a.private[:], a.public[:]
	v.ResponderPrivate, v.ResponderPublic = b.private[:], b.public[:]
	pa, pb := a.AddPeer(b.public, psk), b.AddPeer(a.public, psk)
	w.pass = func(d *datagram) bool {
		for typ, field := range map[byte]*hexBytes{typeInitiation: &v.Initiation, typeResponse: &v.Response, typeTransport: &v.Keepalive} {
			if d.data[0] == typ {
				*field = bytes.Clone(d.data)
			}
		}
		return true
	}
	a.Initiate(at, pa)
	w.settle()
	v.Timestamp = bytes.Clone(pa.sentStamp[:])
	for _, c := range []struct {
		p   *Peer
		out *hexBytes
	}{{pa, &v.InitiatorData}, {pb, &v.ResponderData}} {
		buf := append(make([]byte, HeaderLen), append(bytes.Clone(v.Data), make([]byte, TagLen)...)...)
		if _, err := c.p.Sending().Seal(at.UnixNano(), buf, len(v.Data), 0); err != nil {
			t.Fatal(err)
		}
		*c.out = buf
	}
	reply, err := b.gate.reply(at.UnixNano(), b.rand, a.addr, v.Initiation)
	if err != nil {
		t.Fatal(err)
	}
	v.CookieReply = reply
	pa.jar.lastMAC1, pa.jar.hasMAC1 = mac(v.Initiation[InitiationLen-2*macLen:InitiationLen-macLen]), true
	if err := pa.jar.accept(at.UnixNano(), reply); err != nil {
		t.Fatal(err)
	}
	again := bytes.Clone(v.Initiation)
	pa.jar.sign(at.UnixNano(), again)
	v.InitiationMAC2 = again[InitiationLen-macLen:]
	return v
}

// spec/40-wireguard.md#vectors
func TestVectors(t *testing.T) {
	got := []vector{makeVector(t, "no psk", [32]byte{}), makeVector(t, "psk", [32]byte(fill(0x11, 32)))}
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.MkdirAll("../../spec/vectors", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the handshake differs from %s; if the spec changed, run with -update", vectorFile)
	}
}
