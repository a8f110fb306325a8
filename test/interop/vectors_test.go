package interop

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
)

// reader computes the vectors of the spec again, by WireGuard's white paper, with neither our engine nor a Noise
// library. Its fields are those of the paper.
type reader struct {
	t     *testing.T
	c, h  []byte
	field map[string]any
}

func (r *reader) bytes(name string) []byte {
	b, err := hex.DecodeString(r.field[name].(string))
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	return b
}

func sum(parts ...[]byte) []byte {
	h := blake2s.Sum256(bytes.Join(parts, nil))
	return h[:]
}

func mac128(key []byte, msg ...[]byte) []byte {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	h.Write(bytes.Join(msg, nil))
	return h.Sum(nil)
}

func hmacOf(key []byte, parts ...[]byte) []byte {
	m := hmac.New(func() hash.Hash {
		h, err := blake2s.New256(nil)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return h
	}, key)
	m.Write(bytes.Join(parts, nil))
	return m.Sum(nil)
}

func kdf(n int, key, input []byte) (out [][]byte) {
	secret := hmacOf(key, input)
	var last []byte
	for i := range n {
		last = hmacOf(secret, last, []byte{byte(i + 1)})
		out = append(out, last)
	}
	return out
}

func (r *reader) dh(private, public string) []byte {
	s, err := curve25519.X25519(r.bytes(private), r.bytes(public))
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *reader) public(private string) []byte {
	p, err := curve25519.X25519(r.bytes(private), curve25519.Basepoint)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *reader) mixHash(b []byte) { r.h = sum(r.h, b) }

// mixKey mixes in a DH result and returns the key for the next AEAD.
func (r *reader) mixKey(input []byte) []byte {
	k := kdf(2, r.c, input)
	r.c = k[0]
	return k[1]
}

func seal(key []byte, counter uint64, plain, ad []byte) []byte {
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return a.Seal(nil, binary.LittleEndian.AppendUint64(make([]byte, 4), counter), plain, ad)
}

func (r *reader) sealAndHash(key, plain []byte) []byte {
	out := seal(key, 0, plain, r.h)
	r.mixHash(out)
	return out
}

func (r *reader) index(name string) []byte {
	return binary.LittleEndian.AppendUint32(nil, uint32(r.field[name].(float64)))
}

func (r *reader) expect(name string, got ...[]byte) {
	if all := bytes.Join(got, nil); !bytes.Equal(all, r.bytes(name)) {
		r.t.Errorf("%s: computed %x, the vector has %x", name, all, r.bytes(name))
	}
}

func (r *reader) check() {
	r.expect("initiator_public", r.public("initiator_private"))
	r.expect("responder_public", r.public("responder_private"))
	toResponder := sum([]byte("mac1----"), r.bytes("responder_public"))
	toInitiator := sum([]byte("mac1----"), r.bytes("initiator_public"))

	r.c = sum([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	r.h = sum(r.c, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com"))
	r.mixHash(r.bytes("responder_public"))
	ei := r.public("initiator_ephemeral_private")
	r.mixHash(ei)
	r.mixKey(ei)
	static := r.sealAndHash(r.mixKey(r.dh("initiator_ephemeral_private", "responder_public")), r.bytes("initiator_public"))
	stamp := r.sealAndHash(r.mixKey(r.dh("initiator_private", "responder_public")), r.bytes("timestamp"))
	msg := bytes.Join([][]byte{{1, 0, 0, 0}, r.index("initiator_index"), ei, static, stamp}, nil)
	mac1 := mac128(toResponder, msg)
	r.expect("initiation", msg, mac1, make([]byte, 16))

	source := netip.MustParseAddrPort(r.field["cookie_source"].(string))
	cookie := mac128(r.bytes("cookie_secret"), source.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, source.Port()))
	x, err := chacha20poly1305.NewX(sum([]byte("cookie--"), r.bytes("responder_public")))
	if err != nil {
		r.t.Fatal(err)
	}
	r.expect("cookie_reply", []byte{3, 0, 0, 0}, r.index("initiator_index"), r.bytes("cookie_nonce"), x.Seal(nil, r.bytes("cookie_nonce"), cookie, mac1))
	r.expect("initiation_mac2", mac128(cookie, msg, mac1))

	er := r.public("responder_ephemeral_private")
	r.mixHash(er)
	r.mixKey(er)
	ee, err := curve25519.X25519(r.bytes("responder_ephemeral_private"), ei)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mixKey(ee)
	r.mixKey(r.dh("responder_ephemeral_private", "initiator_public"))
	k := kdf(3, r.c, r.bytes("psk"))
	r.c = k[0]
	r.mixHash(k[1])
	msg = bytes.Join([][]byte{{2, 0, 0, 0}, r.index("responder_index"), r.index("initiator_index"), er, r.sealAndHash(k[2], nil)}, nil)
	r.expect("response", msg, mac128(toInitiator, msg), make([]byte, 16))

	keys := kdf(2, r.c, nil)
	head := func(index string, counter uint64) []byte {
		return binary.LittleEndian.AppendUint64(append([]byte{4, 0, 0, 0}, r.index(index)...), counter)
	}
	r.expect("keepalive", head("responder_index", 0), seal(keys[0], 0, nil, nil))
	r.expect("initiator_to_responder", head("responder_index", 1), seal(keys[0], 1, r.bytes("data"), nil))
	r.expect("responder_to_initiator", head("initiator_index", 0), seal(keys[1], 0, r.bytes("data"), nil))
}

// spec/40-wireguard.md#vectors
func TestVectorsBySecondReader(t *testing.T) {
	text, err := os.ReadFile("../../spec/vectors/wireguard.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range all {
		t.Run(v["name"].(string), func(t *testing.T) { (&reader{t: t, field: v}).check() })
	}
}
