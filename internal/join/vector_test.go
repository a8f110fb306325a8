package join

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var update = flag.Bool("update", false, "write spec/vectors/join.json anew")

const vectorFile = "../../spec/vectors/join.json"

// vector is one whole join. Strings are hexadecimal but for Name.
type vector struct {
	Comment             string   `json:"comment"`
	Seed                string   `json:"seed"`
	JoinKey             string   `json:"join_key"`
	Locator             string   `json:"locator"`
	InvitePublic        string   `json:"invite_public"`
	Network             string   `json:"network"`
	NewcomerSeed        string   `json:"newcomer_identity_seed"`
	NewcomerWG          string   `json:"newcomer_wg_private"`
	NewcomerEphemeral   string   `json:"newcomer_ephemeral_private"`
	IntroducerSeed      string   `json:"introducer_identity_seed"`
	IntroducerWG        string   `json:"introducer_wg_private"`
	IntroducerEphemeral string   `json:"introducer_ephemeral_private"`
	Name                string   `json:"name"`
	Prologue            string   `json:"prologue"`
	Hello               string   `json:"hello"`
	Offer               string   `json:"offer"`
	Accept              string   `json:"accept"`
	Grant               string   `json:"grant"`
	Frames              []string `json:"frames"` // in the order in which they are sent
}

// spec/30-join.md#vectors
func TestVectors(t *testing.T) {
	got, err := json.MarshalIndent(makeVector(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(vectorFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("spec/vectors/join.json differs from what this code does; if that is meant, run this test with -update")
	}
}

func makeVector(t *testing.T) vector {
	w := newWorld(t, 1)
	b := newBurrow(t)
	inv := b.invite(seed(1), 1)
	b.extra = 6 // a grant of two parts
	e, cfg := b.introducer(w, 10)
	intro := bytes.Repeat([]byte{0x22}, 32)
	cfg.Rand, cfg.NewIndex = bytes.NewReader(intro), func() uint32 { return 0x0A0B0C0D }
	*e = *NewIntroducer(*cfg, nil)
	w.add(addrA, e)
	jcfg := b.joinerConfig(w, 50, seed(1), addrA)
	own := bytes.Repeat([]byte{0x11}, 32)
	jcfg.Rand, jcfg.NewIndex = bytes.NewReader(own), func() uint32 { return 0x01020304 }
	j, err := NewJoiner(jcfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := w.add("192.0.2.50:51820", j)
	j.Start(w.now)
	w.drain(h)
	w.wantJoined(h, netTimeout)

	loc := inv.JoinKey.Locator()
	s := seed(1)
	v := vector{
		Comment: "One join, from spec/30-join.md. Private keys are given so that every byte can be computed again.",
		Seed:    hex.EncodeToString(s[:]), JoinKey: hex.EncodeToString(inv.JoinKey[:]), Locator: hex.EncodeToString(loc[:]),
		InvitePublic: inv.Key.String(), Network: b.id.String(), Name: jcfg.Name,
		NewcomerSeed: hex.EncodeToString(jcfg.Identity.Seed()), NewcomerWG: hex.EncodeToString(jcfg.WG[:]), NewcomerEphemeral: hex.EncodeToString(own),
		IntroducerSeed: hex.EncodeToString(cfg.Identity.Seed()), IntroducerWG: hex.EncodeToString(cfg.WG[:]), IntroducerEphemeral: hex.EncodeToString(intro),
	}
	for _, d := range w.log {
		v.Frames = append(v.Frames, hex.EncodeToString(d.data))
	}
	v.readPayloads(t, w.log, inv.JoinKey, jcfg, cfg)
	return v
}

const netTimeout = 5e9

// readPayloads opens the frames as each receiver does, with nothing but what the vector states.
func (v *vector) readPayloads(t *testing.T, log []datagram, psk key.JoinKey, jcfg JoinerConfig, cfg *IntroducerConfig) {
	frames := make([]any, len(log))
	for i, d := range log {
		m, err := wire.ParseJoin(d.data)
		if err != nil {
			t.Fatal(err)
		}
		frames[i] = m
	}
	first := frames[0].(wire.JoinStep1)
	resp, err := newHandshake(false, cfg.WG, psk, first, bytes.NewReader(bytes.Repeat([]byte{0x22}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	init, err := newHandshake(true, jcfg.WG, psk, first, bytes.NewReader(bytes.Repeat([]byte{0x11}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	hello := must(resp.read(first.Noise))
	must(init.write(hello))
	offer := must(init.read(frames[1].(wire.JoinStep2).Noise))
	must(resp.write(offer))
	accept := must(resp.read(frames[2].(wire.JoinStep3).Noise))
	var grant []byte
	for i, m := range frames[3:] {
		p := m.(wire.JoinStep4)
		grant = append(grant, must(resp.toJoiner.Decrypt(nil, uint64(i), p.Header, p.Sealed))...)
	}
	if resp.remote() != jcfg.WG.Public() || init.remote() != cfg.WG.Public() {
		t.Error("static keys")
	}
	v.Prologue = hex.EncodeToString(append([]byte(prologue), log[0].data[:16]...))
	v.Hello, v.Offer = hex.EncodeToString(hello), hex.EncodeToString(offer)
	v.Accept, v.Grant = hex.EncodeToString(accept), hex.EncodeToString(grant)
}

// A hint that is IPv4 mapped into IPv6 is the IPv4 address (spec/30-join.md#course).
func TestMappedHint(t *testing.T) {
	w := newWorld(t, 1)
	b, _, _ := home(t, w)
	h := b.joiner(w, 50, seed(1), "[::ffff:198.51.100.1]:51820")
	if got := w.wantJoined(h, netTimeout); got.Introducer.Addr != netip.MustParseAddrPort(addrA) {
		t.Errorf("address %v", got.Introducer.Addr)
	}
}
