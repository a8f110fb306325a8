package dht

import (
	"strconv"
)

// maxDepth is how deep lists and dictionaries may nest; what the network sends is three deep.
const maxDepth = 8

// scanner walks over bencoded bytes without allocating. It accepts one spelling of each string and integer, and dictionaries
// in any order of keys, since not every node sorts them.
type scanner struct {
	b  []byte
	at int
}

// skip moves past one value and returns its bytes.
func (s *scanner) skip(depth int) (raw []byte, ok bool) {
	if depth > maxDepth || s.at >= len(s.b) {
		return nil, false
	}
	from := s.at
	switch c := s.b[s.at]; {
	case c == 'i':
		_, ok = s.integer()
	case c == 'l':
		ok = s.list(depth, func([]byte) bool { return true })
	case c == 'd':
		ok = s.dict(depth, func(_, _ []byte) bool { return true })
	default:
		_, ok = s.str()
	}
	return s.b[from:s.at], ok
}

// str reads a string.
func (s *scanner) str() ([]byte, bool) {
	n, from := 0, s.at
	for ; s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9'; s.at++ {
		n = n*10 + int(s.b[s.at]-'0')
		if n > len(s.b) {
			return nil, false
		}
	}
	if digits := s.at - from; digits == 0 || digits > 1 && s.b[from] == '0' || s.at == len(s.b) || s.b[s.at] != ':' {
		return nil, false
	}
	s.at++
	if n > len(s.b)-s.at {
		return nil, false
	}
	s.at += n
	return s.b[s.at-n : s.at], true
}

// integer reads an integer of 64 bits.
func (s *scanner) integer() (int64, bool) {
	if s.at >= len(s.b) || s.b[s.at] != 'i' {
		return 0, false
	}
	from := s.at + 1
	for s.at = from; s.at < len(s.b) && s.b[s.at] != 'e'; s.at++ {
		if s.at-from > len("-9223372036854775808") {
			return 0, false
		}
	}
	if s.at >= len(s.b) {
		return 0, false
	}
	text := string(s.b[from:s.at])
	s.at++
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == text
}

// list reads a list and gives each element's bytes to each, until that says false.
func (s *scanner) list(depth int, each func(raw []byte) bool) bool {
	if s.at >= len(s.b) || s.b[s.at] != 'l' {
		return false
	}
	for s.at++; s.at < len(s.b); {
		if s.b[s.at] == 'e' {
			s.at++
			return true
		}
		raw, ok := s.skip(depth + 1)
		if !ok || !each(raw) {
			return false
		}
	}
	return false
}

// dict reads a dictionary and gives each key and its value's bytes to each, until that says false.
func (s *scanner) dict(depth int, each func(key, raw []byte) bool) bool {
	if s.at >= len(s.b) || s.b[s.at] != 'd' {
		return false
	}
	for s.at++; s.at < len(s.b); {
		if s.b[s.at] == 'e' {
			s.at++
			return true
		}
		key, ok := s.str()
		if !ok {
			return false
		}
		raw, ok := s.skip(depth + 1)
		if !ok || !each(key, raw) {
			return false
		}
	}
	return false
}

// text is the string that raw is, whole.
func text(raw []byte) ([]byte, bool) {
	s := scanner{b: raw}
	b, ok := s.str()
	return b, ok && s.at == len(raw)
}

// number is the integer that raw is, whole.
func number(raw []byte) (int64, bool) {
	s := scanner{b: raw}
	n, ok := s.integer()
	return n, ok && s.at == len(raw)
}

// appendText appends key or value b as a string.
func appendText[T string | []byte](dst []byte, b T) []byte {
	dst = strconv.AppendInt(dst, int64(len(b)), 10)
	dst = append(dst, ':')
	return append(dst, b...)
}

// appendNumber appends n as an integer.
func appendNumber(dst []byte, n int64) []byte {
	dst = append(dst, 'i')
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, 'e')
}
