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
//	36     flags: bit 0 = an admin must approve; bit 1 = the network masks
//	37-    hints, each one tag byte and what it says: an endpoint, by UDP or for TLS, or the text of a target
//	last 4 checksum: first bytes of SHA-256 over all before
const (
	// MaxCode is the limit of a code's text in characters; MaxPlainCode of one without targets.
	MaxCode      = 320
	MaxPlainCode = 150
	// MaxCodeTargets is the limit of a code's targets.
	MaxCodeTargets = 4

	codeWord    = "warren"
	codePrefix  = codeWord + "1"
	codeFixed   = 16 + 16 + 4 + 1
	codeSum     = 4
	codeBytes   = (MaxCode - len(codePrefix)) * 5 / 8
	plainBytes  = (MaxPlainCode - len(codePrefix)) * 5 / 8
	codeApprove = 1
	codeMask    = 2
	tagIPv4     = 4
	tagIPv6     = 6
	tagTLSv4    = 20
	tagTLSv6    = 22
	maxTarget   = 96   // bytes of a target's text, without the scheme
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
	Mask     bool             // the network masks its datagrams: so must the newcomer (spec/75-mask.md)
	Hints    []netip.AddrPort // where members are likely to be reached by UDP, best first
	Targets  []string         // where they take streams (spec/72-streams.md#when), best first; URLs, of which not all is checked here
}

// targetTags are the tags of targets that are written as text.
var targetTags = map[string]byte{"tls": 32, "wss": 33, "ws": 34}

var codeEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Text encodes c with as many hints as fit, in order, and then targets. Those that name no host or port are left out.
func (c Code) Text() string {
	b := make([]byte, 0, codeBytes)
	b = append(b, c.Network[:]...)
	b = append(b, c.Seed[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(c.NotAfter, 0), math.MaxUint32)))
	var flags byte
	if c.Approve {
		flags |= codeApprove
	}
	if c.Mask {
		flags |= codeMask
	}
	b = append(b, flags)
	for _, h := range c.Hints {
		b = appendHint(b, h)
	}
	kept := 0
	for _, t := range c.Targets {
		if hint, ok := encodeTarget(t); ok && kept < MaxCodeTargets && len(b)+len(hint)+codeSum <= codeBytes {
			b = append(b, hint...)
			kept++
		}
	}
	sum := sha256.Sum256(b)
	return codePrefix + codeEncoding.EncodeToString(append(b, sum[:codeSum]...))
}

// encodeTarget makes the hint of a target; false if it is none.
func encodeTarget(target string) ([]byte, bool) {
	scheme, rest, _ := strings.Cut(target, "://")
	if at, err := netip.ParseAddrPort(rest); err == nil && scheme == "tls" {
		hint := appendHint(nil, at)
		if len(hint) > 0 {
			hint[0] += tagTLSv4 - tagIPv4
		}
		return hint, len(hint) > 0
	}
	tag, ok := targetTags[scheme]
	if !ok || !isTargetText(rest) {
		return nil, false
	}
	return append([]byte{tag, byte(len(rest))}, rest...), true
}

func isTargetText(s string) bool {
	return s != "" && len(s) <= maxTarget && !strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' })
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
	if len(out)+codeSum > plainBytes {
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
	if b[36]&^(codeApprove|codeMask) != 0 {
		return Code{}, ErrCodeVersion
	}
	c.Approve, c.Mask = b[36]&codeApprove != 0, b[36]&codeMask != 0
	for b = b[codeFixed:]; len(b) > 0; {
		rest, err := c.parseHint(b)
		if err != nil {
			return Code{}, err
		}
		b = rest
	}
	room := plainBytes - codeFixed - codeSum
	for _, h := range c.Hints {
		room -= 1 + h.Addr().BitLen()/8 + 2
	}
	if room < 0 || len(c.Targets) > MaxCodeTargets {
		return Code{}, ErrCodeDamaged
	}
	return c, nil
}

// parseHint adds the hint at the front of b to c, and returns what follows it.
func (c *Code) parseHint(b []byte) (rest []byte, err error) {
	tag, n := b[0], 0
	switch tag {
	case tagIPv4, tagTLSv4:
		n = 7
	case tagIPv6, tagTLSv6:
		n = 19
	default:
		return c.parseTarget(b)
	}
	if n > len(b) {
		return nil, ErrCodeDamaged
	}
	h, err := ParseEndpoint(b[1:n])
	switch {
	case err != nil || h.Addr().Is4() != (n == 7):
		return nil, ErrCodeDamaged
	case tag == tagIPv4 || tag == tagIPv6:
		c.Hints = append(c.Hints, h)
	default:
		c.Targets = append(c.Targets, "tls://"+h.String())
	}
	return b[n:], nil
}

// parseTarget adds the target that is written as text at the front of b.
func (c *Code) parseTarget(b []byte) (rest []byte, err error) {
	for scheme, tag := range targetTags {
		if tag != b[0] {
			continue
		}
		if len(b) < 2 || len(b)-2 < int(b[1]) {
			return nil, ErrCodeDamaged
		}
		text, rest := string(b[2:2+int(b[1])]), b[2+int(b[1]):]
		if _, err := netip.ParseAddrPort(text); !isTargetText(text) || scheme == "tls" && err == nil { // that has a form of its own
			return nil, ErrCodeDamaged
		}
		c.Targets = append(c.Targets, scheme+"://"+text)
		return rest, nil
	}
	return nil, ErrCodeVersion
}

// Format hides the secret whatever the verb.
func (c Code) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue hides the secret.
func (c Code) LogValue() slog.Value { return slog.StringValue("redacted") }
