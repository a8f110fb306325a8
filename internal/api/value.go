package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// List is a slice that is [] in JSON when nil, never null, so that scripts need not care.
type List[T any] []T

// MarshalJSON encodes l.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// Time is a moment, RFC 3339 in UTC with milliseconds in JSON; the zero Time is null (spec/60-api.md#values).
type Time struct{ time.Time }

// At returns t as a Time.
func At(t time.Time) Time { return Time{t} }

// MarshalJSON encodes t.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	u := t.UTC().Truncate(time.Millisecond)
	if y := u.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("time in the year %d", y)
	}
	return u.AppendFormat(nil, `"`+time.RFC3339Nano+`"`), nil
}

// UnmarshalJSON decodes what MarshalJSON gave.
func (t *Time) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*t = Time{}
		return nil
	}
	return t.Time.UnmarshalJSON(b)
}

// Millis is a duration, a number of milliseconds with three decimals in JSON; zero and less are null.
type Millis time.Duration

// MarshalJSON encodes m.
func (m Millis) MarshalJSON() ([]byte, error) {
	if m <= 0 {
		return []byte("null"), nil
	}
	us := math.Ceil(float64(m) / float64(time.Microsecond)) // what is known is never shown as 0
	return json.Marshal(us / 1000)
}

// UnmarshalJSON decodes what MarshalJSON gave.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms *float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*m = 0
	if ms != nil && *ms > 0 && *ms < float64(math.MaxInt64/int64(time.Millisecond)) {
		*m = Millis(math.Round(*ms * float64(time.Millisecond)))
	}
	return nil
}

// Duration returns m as a time.Duration.
func (m Millis) Duration() time.Duration { return time.Duration(m) }

// Share is a part of a whole from 0 to 1, a number in JSON; the zero Share is not known, null.
type Share struct{ plus1 float64 } // 1 more than the part, so that 0 is unknown

// ShareOf returns v, held within 0 to 1, as a Share.
func ShareOf(v float64) Share {
	if !(v > 0) { // NaN too
		v = 0
	}
	return Share{min(v, 1) + 1}
}

// Value returns the part, or false when it is not known.
func (s Share) Value() (v float64, known bool) {
	return max(s.plus1-1, 0), s.plus1 > 0
}

// MarshalJSON encodes s with at most three decimals.
func (s Share) MarshalJSON() ([]byte, error) {
	v, known := s.Value()
	if !known {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(v*1000) / 1000)
}

// UnmarshalJSON decodes what MarshalJSON gave.
func (s *Share) UnmarshalJSON(b []byte) error {
	var v *float64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*s = Share{}
	if v != nil {
		*s = ShareOf(*v)
	}
	return nil
}
