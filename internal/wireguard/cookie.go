package wireguard

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/warren-vpn/warren/internal/key"
)

const (
	labelMAC1   = "mac1----"
	labelCookie = "cookie--"
)

// mac is keyed BLAKE2s with 16 bytes of output.
type mac [macLen]byte

func macOf(secret, msg []byte) mac {
	h, err := blake2s.New128(secret)
	if err != nil { // the key is 16 or 32 bytes
		panic("BUG: blake2s: " + err.Error())
	}
	h.Write(msg)
	return mac(h.Sum(nil))
}

// labelled returns BLAKE2s(label || pub).
func labelled(label string, pub key.WGPublic) [32]byte {
	return blake2s.Sum256(append([]byte(label), pub[:]...))
}

// macParts splits a message into what mac1 covers, mac1, and mac2. Mac2 covers the first two.
func macParts(msg []byte) (body, mac1, mac2 []byte) {
	n := len(msg) - 2*macLen
	return msg[:n], msg[n : n+macLen], msg[n+macLen:]
}

// gate checks the macs of messages that come in, and makes cookies while under load (spec/40-wireguard.md#cookies).
type gate struct {
	mac1Key   [32]byte
	cookieKey [32]byte
	secret    [32]byte // changes every 120 s
	secretSet int64    // 0: there is none yet
}

func newGate(own key.WGPublic) gate {
	return gate{mac1Key: labelled(labelMAC1, own), cookieKey: labelled(labelCookie, own)}
}

// validMAC1 reports, in constant time, whether the sender of msg knew our public key.
func (g *gate) validMAC1(msg []byte) bool {
	body, mac1, _ := macParts(msg)
	want := macOf(g.mac1Key[:], body)
	return subtle.ConstantTimeCompare(want[:], mac1) == 1
}

// validMAC2 reports whether msg proves that its sender receives what we send to from.
func (g *gate) validMAC2(now int64, from netip.AddrPort, msg []byte) bool {
	if !g.fresh(now) {
		return false
	}
	_, _, mac2 := macParts(msg)
	cookie := g.cookie(from)
	want := macOf(cookie[:], msg[:len(msg)-macLen])
	return subtle.ConstantTimeCompare(want[:], mac2) == 1
}

func (g *gate) fresh(now int64) bool {
	return g.secretSet != 0 && now-g.secretSet < int64(CookieSecretTime)
}

// cookie binds a source address and port to the secret of the moment.
func (g *gate) cookie(from netip.AddrPort) mac {
	b := from.Addr().Unmap().WithZone("").AsSlice()
	return macOf(g.secret[:], binary.BigEndian.AppendUint16(b, from.Port()))
}

// reply returns the cookie reply to msg, an initiation or a response with a valid mac1.
func (g *gate) reply(now int64, random io.Reader, from netip.AddrPort, msg []byte) ([]byte, error) {
	if !g.fresh(now) {
		if _, err := io.ReadFull(random, g.secret[:]); err != nil {
			return nil, fmt.Errorf("draw cookie secret: %w", err)
		}
		g.secretSet = now
	}
	out := make([]byte, cookieSealed, CookieReplyLen)
	binary.LittleEndian.PutUint32(out, typeCookieReply)
	binary.LittleEndian.PutUint32(out[4:], senderOf(msg))
	nonce := out[cookieNonce:cookieSealed]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("draw cookie nonce: %w", err)
	}
	aead, err := chacha20poly1305.NewX(g.cookieKey[:])
	if err != nil {
		return nil, fmt.Errorf("cookie cipher: %w", err)
	}
	_, mac1, _ := macParts(msg)
	cookie := g.cookie(from)
	return aead.Seal(out, nonce, cookie[:], mac1), nil
}

// jar writes the macs of messages that go to one peer, and keeps the cookie that the peer gave us.
type jar struct {
	mac1Key   [32]byte
	cookieKey [32]byte
	cookie    mac
	cookieSet int64
	hasCookie bool
	lastMAC1  mac // of the last message sent: a cookie reply must answer it
	hasMAC1   bool
}

func newJar(peer key.WGPublic) jar {
	return jar{mac1Key: labelled(labelMAC1, peer), cookieKey: labelled(labelCookie, peer)}
}

// sign writes mac1 and mac2 of msg, whose last 32 bytes they are.
func (j *jar) sign(now int64, msg []byte) {
	body, mac1, mac2 := macParts(msg)
	j.lastMAC1, j.hasMAC1 = macOf(j.mac1Key[:], body), true
	copy(mac1, j.lastMAC1[:])
	clear(mac2)
	if age := now - j.cookieSet; j.hasCookie && age < int64(CookieUseTime) {
		m := macOf(j.cookie[:], msg[:len(msg)-macLen])
		copy(mac2, m[:])
	}
}

// accept takes the cookie out of a cookie reply, once for each message sent.
func (j *jar) accept(now int64, msg []byte) error {
	if !j.hasMAC1 {
		return ErrUnknown
	}
	aead, err := chacha20poly1305.NewX(j.cookieKey[:])
	if err != nil {
		return fmt.Errorf("cookie cipher: %w", err)
	}
	var cookie mac
	if _, err := aead.Open(cookie[:0], msg[cookieNonce:cookieSealed], msg[cookieSealed:], j.lastMAC1[:]); err != nil {
		return ErrAuth
	}
	j.cookie, j.cookieSet, j.hasCookie, j.hasMAC1 = cookie, now, true, false
	return nil
}
