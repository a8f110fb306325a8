package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

func hints(s ...string) (out []netip.AddrPort) {
	for _, h := range s {
		out = append(out, netip.MustParseAddrPort(h))
	}
	return out
}

func sampleCode(h ...string) Code {
	return Code{Network: [16]byte{1, 2, 3}, Seed: key.InviteSeed{9, 8, 7}, NotAfter: 1935662400, Approve: true, Hints: hints(h...)}
}

// spec/31-code.md#layout, spec/31-code.md#text
func TestCodeRoundTrip(t *testing.T) {
	many := []string{"192.0.2.1:51820", "[2001:db8::1]:51820", "192.0.2.2:51820", "198.51.100.3:1", "[2001:db8::2]:2", "203.0.113.4:65535"}
	for n := range len(many) + 1 {
		c := sampleCode(many[:n]...)
		text := c.Text()
		if len(text) > MaxCode || !strings.HasPrefix(text, "warren1") || strings.ToLower(text) != text {
			t.Errorf("%d hints: %d characters", n, len(text))
		}
		got, err := ParseCode(text)
		if err != nil {
			t.Fatal(err)
		}
		if n <= 3 && !reflect.DeepEqual(got, c) {
			t.Errorf("%d hints: other code", n)
		}
	}
	// Six IPv4 hints fit; an IPv6 hint that does not is passed over for an IPv4 one that does.
	six := hints("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1", "192.0.2.6:1")
	c := Code{Hints: append(six, six...)}
	if got, err := ParseCode(c.Text()); err != nil || len(got.Hints) != 6 || len(c.Text()) > MaxCode {
		t.Errorf("%d hints in %d characters, %v", len(got.Hints), len(c.Text()), err)
	}
	c.Hints = hints("[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1")
	if got, _ := ParseCode(c.Text()); len(got.Hints) != 3 || got.Hints[2] != c.Hints[3] {
		t.Errorf("hints %v", got.Hints)
	}
	c.Hints = append(hints("0.0.0.0:1", "[::ffff:192.0.2.9]:5", "192.0.2.1:0"), netip.AddrPort{})
	if got, _ := ParseCode(c.Text()); !reflect.DeepEqual(got.Hints, hints("192.0.2.9:5")) {
		t.Errorf("hints %v", got.Hints)
	}
	c.NotAfter = 1 << 40
	if got, _ := ParseCode(c.Text()); got.NotAfter != 1<<32-1 {
		t.Errorf("not after %d", got.NotAfter)
	}
}

// Targets come back as they were stated, cost nothing when there are none, and leave the hints their room.
// spec/31-code.md#layout, spec/31-code.md#text
func TestCodeTargets(t *testing.T) {
	c := sampleCode("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1", "192.0.2.6:1")
	plain := len(c.Text())
	c.Targets = []string{"tls://192.0.2.1:8443", "tls://[2001:db8::1]:8443", "wss://vpn.example.org/dig", "ws://10.0.0.1:8080"}
	got, err := ParseCode(c.Text())
	if err != nil || !reflect.DeepEqual(got, c) || plain > MaxPlainCode || len(c.Text()) > MaxCode {
		t.Errorf("%+v, %v; %d and %d characters", got.Targets, err, plain, len(c.Text()))
	}
	long := "wss://" + strings.Repeat("a", 90) + ".b/c"
	c = sampleCode()
	c.Targets = []string{"", "tls://", "http://a", "wss://a b", "wss://a\x00", long + "d1234567", "tls://192.0.2.1:0", "tls://0.0.0.0:1", long, "tls://a.example:22", long, "wss://b"}
	if got, err := ParseCode(c.Text()); err != nil || !slices.Equal(got.Targets, []string{long, "tls://a.example:22", "wss://b"}) {
		t.Errorf("%v, %v", got.Targets, err)
	}
	c.Targets = []string{"ws://a", "ws://b", "ws://c", "ws://d", "ws://e"}
	if got, err := ParseCode(c.Text()); err != nil || !slices.Equal(got.Targets, c.Targets[:MaxCodeTargets]) {
		t.Errorf("%v, %v", got.Targets, err)
	}
}

// A code survives being wrapped, indented and shouted (spec/31-code.md#text).
func TestCodeTolerance(t *testing.T) {
	c := sampleCode("192.0.2.1:51820")
	text := c.Text()
	for name, s := range map[string]string{
		"space around": "  \t" + text + "\r\n",
		"line breaks":  text[:20] + "\n    " + text[20:60] + "\r\n" + text[60:],
		"upper case":   strings.ToUpper(text),
		"prefix split": "war ren1" + text[7:],
		"wide spaces":  text[:30] + "\u00a0\u2003" + text[30:],
	} {
		if got, err := ParseCode(s); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// spec/31-code.md#errors
func TestBadCodes(t *testing.T) {
	text := sampleCode("192.0.2.1:51820").Text()
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":          {"", ErrNotACode},
		"something else": {"hello world", ErrNotACode},
		"prefix alone":   {"warren", ErrNotACode},
		"a word":         {"warrens", ErrNotACode},
		"huge":           {strings.Repeat(" ", 5000) + text, ErrNotACode},
		"newer":          {"warren2" + text[7:], ErrCodeVersion},
		"nothing behind": {"warren1", ErrCodeDamaged},
		"cut":            {text[:len(text)-1], ErrCodeDamaged},
		"cut much":       {text[:40], ErrCodeDamaged},
		"longer":         {text + "a", ErrCodeDamaged},
		"doubled":        {text + text, ErrCodeDamaged},
		"bad character":  {text[:50] + "0" + text[51:], ErrCodeDamaged},
		"a dash":         {text[:50] + "-" + text[50:], ErrCodeDamaged},
		"unknown flag":   {rawCode(make([]byte, 36), []byte{4}), ErrCodeVersion},
		"unknown tag":    {rawCode(make([]byte, 37), []byte{5, 1, 1, 1, 1, 1, 1}), ErrCodeVersion},
		"hint cut":       {rawCode(make([]byte, 37), []byte{4, 1, 1, 1}), ErrCodeDamaged},
		"hint of zeros":  {rawCode(make([]byte, 37), []byte{4, 0, 0, 0, 0, 0, 0}), ErrCodeDamaged},
		"hint mapped":    {rawCode(make([]byte, 37), append([]byte{6}, append(make([]byte, 10), 0xff, 0xff, 1, 2, 3, 4, 5, 6)...)), ErrCodeDamaged},
		"too long":       {rawCode(make([]byte, 37), []byte(strings.Repeat("\x04\x01\x02\x03\x04\x05\x06", 7))), ErrCodeDamaged},
		"very long":      {rawCode(make([]byte, 37), []byte(strings.Repeat("\x21\x60"+strings.Repeat("a", 96), 2))), ErrCodeDamaged},
		"target cut":     {rawCode(make([]byte, 37), []byte("\x21\x05a.bc")), ErrCodeDamaged},
		"target of none": {rawCode(make([]byte, 37), []byte("\x21\x00")), ErrCodeDamaged},
		"target unclean": {rawCode(make([]byte, 37), []byte("\x21\x04a\x1b.b")), ErrCodeDamaged},
		"tls in words":   {rawCode(make([]byte, 37), []byte("\x20\x0b192.0.2.1:7")), ErrCodeDamaged},
		"tls of zeros":   {rawCode(make([]byte, 37), []byte{20, 0, 0, 0, 0, 0, 0}), ErrCodeDamaged},
		"many targets":   {rawCode(make([]byte, 37), []byte(strings.Repeat("\x21\x01a", 5))), ErrCodeDamaged},
	} {
		_, err := ParseCode(c.text)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err != nil && len(c.text) > 20 && strings.Contains(err.Error(), c.text[8:20]) {
			t.Errorf("%s: the error shows the code", name)
		}
	}
}

func rawCode(parts ...[]byte) string {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	sum := sum256(b)
	return codePrefix + codeEncoding.EncodeToString(append(b, sum[:codeSum]...))
}

// Every wrong character is noticed (spec/31-code.md#checksum).
func TestCodeChecksum(t *testing.T) {
	text := sampleCode("192.0.2.1:51820", "[2001:db8::1]:7").Text()
	for i := len(codePrefix); i < len(text); i++ {
		for _, r := range "aq7" {
			if bad := text[:i] + string(r) + text[i+1:]; bad != text {
				if _, err := ParseCode(bad); !errors.Is(err, ErrCodeDamaged) {
					t.Fatalf("character %d: %v", i, err)
				}
			}
		}
		if i+1 < len(text) && text[i] != text[i+1] { // two characters swapped
			bad := text[:i] + string(text[i+1]) + string(text[i]) + text[i+2:]
			if _, err := ParseCode(bad); !errors.Is(err, ErrCodeDamaged) {
				t.Fatalf("swap at %d: %v", i, err)
			}
		}
	}
}

// A code in a log is redacted, whatever the verb (spec/31-code.md#secrecy).
func TestCodeRedacted(t *testing.T) {
	c := sampleCode("192.0.2.1:51820")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, &c, struct{ C Code }{c}, []Code{c}} {
			if s := fmt.Sprintf(verb, v); !strings.Contains(s, "redacted") || strings.Contains(s, "192.0.2.1") || strings.Contains(s, "9, 8, 7") || strings.Contains(s, "9 8 7") {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "code", c, "pointer", &c)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "code", c)
	if s := b.String(); strings.Count(s, "redacted") != 3 || strings.Contains(s, "192.0.2.1") {
		t.Error(s)
	}
}
