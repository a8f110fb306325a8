package stream

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	proofSize    = 32
	greetingEnd  = "\r\n\r\n"
	greetingSize = proofSize + len(greetingEnd)
	nonceSize    = 16
	tokenSize    = nonceSize + 16                 // nonce and half of a MAC
	tokenWidth   = (tokenSize*8 + 5) / 6          // characters of base64
	tokenHour    = int64(time.Hour / time.Second) // a token is good for the hour in which it was made and those beside it
	maxNonces    = 4096                           // tokens that are remembered as used; the oldest goes
	exporter     = "EXPORTER-Channel-Binding"     // RFC 9266
	labelKey     = "warren stream v1"
)

// Key is what the two ends of a stream show each other that they know. It is made from a secret that members share, or the
// holders of an invite, and prints as "redacted".
type Key struct{ k [32]byte }

// NewKey derives the key from a secret of at least 16 bytes that serves other ends too: a network's discovery key, or the join key
// of an invite.
func NewKey(secret []byte) Key {
	b, err := hkdf.Key(sha256.New, secret, nil, labelKey, 32)
	if err != nil {
		panic(err) // only in FIPS mode, for short secrets
	}
	return Key{[32]byte(b)}
}

// Format implements fmt.Formatter.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue("redacted") }

func (k Key) mac(label string, about []byte) [proofSize]byte {
	m := hmac.New(sha256.New, k.k[:])
	m.Write([]byte(label))
	m.Write(about)
	return [proofSize]byte(m.Sum(nil))
}

// binding returns what both ends of a TLS 1.3 connection know of it, and nobody who stands between two connections
// (spec/72-streams.md#proof).
func binding(state tls.ConnectionState) ([]byte, error) {
	if state.Version < tls.VersionTLS13 {
		return nil, fmt.Errorf("%s is too old", tls.VersionName(state.Version))
	}
	return state.ExportKeyingMaterial(exporter, nil, proofSize)
}

// greeting is what a client says first on a TLS connection: its proof, and what makes a web server answer that at once.
func (k Key) greeting(binding []byte) (g [greetingSize]byte) {
	proof := k.mac("client tls", binding)
	copy(g[copy(g[:], proof[:]):], greetingEnd)
	return g
}

// serverProof is the answer to greeting.
func (k Key) serverProof(binding []byte) [proofSize]byte { return k.mac("server tls", binding) }

// token makes the last part of the path of a WebSocket's URL (spec/72-streams.md#websocket).
func (k Key) token(now time.Time) string {
	var b [tokenSize]byte
	rand.Read(b[:nonceSize])
	half := k.tokenMAC(now.Unix()/tokenHour, b[:nonceSize])
	copy(b[nonceSize:], half[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (k Key) tokenMAC(hour int64, nonce []byte) [tokenSize - nonceSize]byte {
	sum := k.mac("path", append(binary.BigEndian.AppendUint64(nil, uint64(hour)), nonce...))
	return [tokenSize - nonceSize]byte(sum[:])
}

// opens reports whether token was made with k, within an hour of now.
func (k Key) opens(token [tokenSize]byte, now time.Time) bool {
	ok := false
	for hour := now.Unix()/tokenHour - 1; hour <= now.Unix()/tokenHour+1; hour++ {
		want := k.tokenMAC(hour, token[:nonceSize])
		ok = hmac.Equal(want[:], token[nonceSize:]) || ok
	}
	return ok
}

// webProof is what the server says first inside a WebSocket that was opened with token.
func (k Key) webProof(token [tokenSize]byte) [proofSize]byte { return k.mac("server path", token[:]) }

// parseToken reads the token from the end of a URL's path. It is false for what cannot hold one.
func parseToken(path string) (t [tokenSize]byte, ok bool) {
	last := path[strings.LastIndexByte(path, '/')+1:]
	if len(last) != tokenWidth {
		return t, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(last)
	if err != nil || len(b) != tokenSize {
		return t, false
	}
	return [tokenSize]byte(b), true
}

// nonces remembers the tokens that were used, so that one found in a log opens nothing. The zero value is empty.
type nonces struct {
	mu   sync.Mutex
	seen map[[tokenSize]byte]struct{}
	ring [][tokenSize]byte
	next int // place in ring of the oldest, once it is full
}

// use reports whether t is used for the first time.
func (n *nonces) use(t [tokenSize]byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, old := n.seen[t]; old {
		return false
	}
	if n.seen == nil {
		n.seen = map[[tokenSize]byte]struct{}{}
	}
	if len(n.ring) < maxNonces {
		n.ring = append(n.ring, t)
	} else {
		delete(n.seen, n.ring[n.next])
		n.ring[n.next] = t
		n.next = (n.next + 1) % maxNonces
	}
	n.seen[t] = struct{}{}
	return true
}
