package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mdp/qrterminal/v3"

	"github.com/warren-vpn/warren/internal/api"
)

// printf prints for people. Strings among args that came from elsewhere go through clean.
func (c *cli) printf(format string, args ...any) {
	fmt.Fprintf(c.out, format, args...) //nolint:errcheck // a closed pipe is the reader's wish
}

// note tells the person at the terminal what happens, on the error stream so that it does not mix with results.
func (c *cli) note(format string, args ...any) {
	fmt.Fprintf(c.err, format+"\n", args...) //nolint:errcheck // as above
}

// show prints v as JSON when asked to, else calls human.
func (c *cli) show(v any, human func()) error {
	if c.json {
		return c.printJSON(v)
	}
	human()
	return nil
}

func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows in aligned columns, the first row being the head, each line behind indent.
func (c *cli) table(indent string, rows [][]string) {
	for _, line := range tableLines(rows) {
		c.printf("%s%s\n", indent, line)
	}
}

// tableLines aligns the columns of rows.
func tableLines(rows [][]string) (lines []string) {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(clean(cell)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			cell = clean(cell)
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// qr draws text as a QR code of half blocks.
func qr(w io.Writer, text string) {
	qrterminal.GenerateWithConfig(text, qrterminal.Config{Level: qrterminal.L, Writer: w, HalfBlocks: true, QuietZone: 2,
		BlackChar: qrterminal.BLACK_BLACK, BlackWhiteChar: qrterminal.BLACK_WHITE,
		WhiteChar: qrterminal.WHITE_WHITE, WhiteBlackChar: qrterminal.WHITE_BLACK})
}

// clean takes out what could command a terminal: other members choose some of the text that is shown.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return '?'
	}, s)
}

// dash stands for nothing in a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func join[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}

// firstAddress is the one shown where there is room for one.
func firstAddress(list []netip.Addr) string {
	if len(list) == 0 {
		return "-"
	}
	return list[0].String()
}

// humanBytes prints 0 B, 999 B, 1.0 KiB, 12 MiB.
func humanBytes(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if f /= 1024; f < 999.5 {
			break
		}
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// humanMillis prints 0.12 ms, 1.2 ms, 123 ms, or - when unknown.
func humanMillis(m api.Millis) string {
	switch ms := float64(m.Duration()) / float64(time.Millisecond); {
	case m <= 0:
		return "-"
	case ms < 9.995:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 99.95:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}

// humanDuration prints the two largest units: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h, 30 d.
func humanDuration(d time.Duration) string {
	s := int64(math.Round(d.Seconds()))
	two := func(a int64, ua string, b int64, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d %s", a, ua)
		}
		return fmt.Sprintf("%d %s %d %s", a, ua, b, ub)
	}
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", max(s, 0))
	case s < 3600:
		return two(s/60, "min", s%60, "s")
	case s < 2*24*3600:
		return two(s/3600, "h", s%3600/60, "min")
	case s < 10*24*3600:
		return two(s/(24*3600), "d", s%(24*3600)/3600, "h")
	default:
		return fmt.Sprintf("%d d", s/(24*3600))
	}
}

// ago prints how long t is past.
func (c *cli) ago(t api.Time) string {
	switch d := c.now().Sub(t.Time); {
	case t.IsZero():
		return "never"
	case d < 2*time.Second:
		return "now"
	default:
		return humanDuration(d) + " ago"
	}
}

// when prints a moment in local time.
func when(t api.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// plural prints "1 machine", "2 machines".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}
