package api

import "strings"

// MaxName is the limit of a name of a network, member or device in bytes: that of a DNS label.
const MaxName = 63

// CheckName reports why s cannot be the name of a network, member or device, as an [*Error]; what says which of them
// (spec/60-api.md#names).
func CheckName(what, s string) error {
	const hint = "use 1 to 63 of a-z, 0-9 and -, with no - at either end"
	switch {
	case s == "":
		return Errorf(CodeBadRequest, "the %s name is empty", what).Hintf(hint)
	case len(s) > MaxName:
		return Errorf(CodeBadRequest, "the %s name has %d characters, %d is the limit", what, len(s), MaxName).Hintf(hint)
	case s[0] == '-' || s[len(s)-1] == '-':
		return Errorf(CodeBadRequest, "the %s name %q begins or ends with -", what, s).Hintf(hint)
	}
	for _, r := range s {
		if !nameRune(r) {
			e := Errorf(CodeBadRequest, "the %s name %q has the character %q", what, s, r).Hintf(hint)
			if c := CleanName(s); c != "" {
				e = e.Hintf("%s, for example %s", hint, c)
			}
			return e
		}
	}
	return nil
}

// CleanName makes a valid name of any text, such as a host name: its first label in lower case, other characters turned
// into -. The result is "" when nothing is left.
func CleanName(s string) string {
	s, _, _ = strings.Cut(strings.ToLower(s), ".")
	var b strings.Builder
	for _, r := range s {
		if !nameRune(r) {
			r = '-'
		}
		if r != '-' || b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteRune(r)
		}
	}
	out := b.String()
	return strings.Trim(out[:min(len(out), MaxName)], "-")
}

func nameRune(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }
