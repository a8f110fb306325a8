package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"unicode"

	"github.com/warren-vpn/warren/internal/key"
)

// An invite code is "warren1" and the lower-case base32 (RFC 4648, no padding) of (spec/31-code.md#layout):
//
//	0-15   first half of the network id
//	16-31  invite seed
//	32-35  not after: Unix seconds, big-endian
//	36     flags: bit 0 = an admin must approve
//	37-    hints, each one tag byte and an endpoint: 4 = 4 address bytes and port, 6 = 16 address bytes and port
//	last 4 checksum: first bytes of SHA-256 over all before
const (
	// MaxCode is the limit of a code's text in characters.
	MaxCode = 150

	codeWord    = "warren"
	codePrefix  = codeWord + "1"
	codeFixed   = 16 + 16 + 4 + 1
	codeSum     = 4
	codeBytes   = (MaxCode - len(codePrefix)) * 5 / 8
	codeApprove = 1
	tagIPv4     = 4
	tagIPv6     = 6
	maxCodeText = 4096 // of what is looked at, white space included
)

// What ParseCode finds wrong.
var (
	ErrNotACode    = errors.New("this is no invite code: a code begins with " + codePrefix)
	ErrCodeDamaged = errors.New("the invite code is damaged: a character is wrong or missing")
	ErrCodeVersion = errors.New("the invite code was made by a newer version of warren")
)

// Code is what an inviter hands over. It is a secret: it prints as "redacted", and only Text shows it.
type Code struct {
	Network  [16]byte // first half of the network id
	Seed     key.InviteSeed
	NotAfter int64            // Unix seconds
	Approve  bool             // an admin must approve the newcomer
	Hints    []netip.AddrPort // where members are likely to be reached, best first
}

var codeEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Text encodes c with as many hints as fit MaxCode, in order. Hints that name no host or port are left out.
func (c Code) Text() string {
	b := make([]byte, 0, codeBytes)
	b = append(b, c.Network[:]...)
	b = append(b, c.Seed[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(c.NotAfter, 0), math.MaxUint32)))
	var flags byte
	if c.Approve {
		flags |= codeApprove
	}
	b = append(b, flags)
	for _, h := range c.Hints {
		b = appendHint(b, h)
	}
	sum := sha256.Sum256(b)
	return codePrefix + codeEncoding.EncodeToString(append(b, sum[:codeSum]...))
}

// appendHint adds one hint if it is good and there is room.
func appendHint(b []byte, h netip.AddrPort) []byte {
	a := h.Addr().Unmap()
	if !a.IsValid() || a.IsUnspecified() || h.Port() == 0 {
		return b
	}
	tag := byte(tagIPv6)
	if a.Is4() {
		tag = tagIPv4
	}
	out := AppendEndpoint(append(b, tag), h)
	if len(out)+codeSum > codeBytes {
		return b
	}
	return out
}

// ParseCode reads what [Code.Text] gave, with white space and line breaks anywhere and in any case. The error is one of
// ErrNotACode, ErrCodeDamaged and ErrCodeVersion, and never shows the code.
func ParseCode(text string) (Code, error) {
	if len(text) > maxCodeText {
		return Code{}, ErrNotACode
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, text)
	rest, ok := strings.CutPrefix(text, codeWord)
	if !ok || rest == "" || rest[0] < '0' || rest[0] > '9' {
		return Code{}, ErrNotACode
	}
	if rest[0] != codePrefix[len(codeWord)] {
		return Code{}, ErrCodeVersion
	}
	if len(text) > MaxCode {
		return Code{}, ErrCodeDamaged
	}
	b, err := codeEncoding.DecodeString(rest[1:])
	if err != nil || len(b) < codeFixed+codeSum || codeEncoding.EncodeToString(b) != rest[1:] {
		return Code{}, ErrCodeDamaged
	}
	body, check := b[:len(b)-codeSum], b[len(b)-codeSum:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:codeSum], check) {
		return Code{}, ErrCodeDamaged
	}
	return parseCodeBody(body)
}

// parseCodeBody reads what the checksum has shown to be whole: what it does not know comes from a newer version.
func parseCodeBody(b []byte) (Code, error) {
	c := Code{Network: [16]byte(b[:16]), Seed: key.InviteSeed(b[16:32]), NotAfter: int64(binary.BigEndian.Uint32(b[32:]))}
	if b[36]&^codeApprove != 0 {
		return Code{}, ErrCodeVersion
	}
	c.Approve = b[36]&codeApprove != 0
	for b = b[codeFixed:]; len(b) > 0; {
		n := map[byte]int{tagIPv4: 7, tagIPv6: 19}[b[0]]
		if n == 0 {
			return Code{}, ErrCodeVersion
		}
		if n > len(b) {
			return Code{}, ErrCodeDamaged
		}
		h, err := ParseEndpoint(b[1:n])
		if err != nil || h.Addr().Is4() != (b[0] == tagIPv4) {
			return Code{}, ErrCodeDamaged
		}
		c.Hints = append(c.Hints, h)
		b = b[n:]
	}
	return c, nil
}

// Format hides the secret whatever the verb.
func (c Code) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (c Code) LogValue() slog.Value { return slog.StringValue("redacted") }
