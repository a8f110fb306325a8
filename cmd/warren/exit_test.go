package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
)

// The table of spec/60-api.md#errors is what the command line does, and spec/60-api.md#exit-codes what its help says.
func TestExitCodes(t *testing.T) {
	b, err := os.ReadFile("../../spec/60-api.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([0-9]*) \\| ([0-9]+) \\|").FindAllStringSubmatch(string(b), -1)
	if len(rows) < 20 {
		t.Fatalf("%d rows in the table of errors", len(rows))
	}
	for _, row := range rows {
		code := api.Code(row[1])
		var out, errOut bytes.Buffer
		c := &cli{system: system{out: &out, err: &errOut}, json: true}
		if got := c.report(api.Errorf(code, "what happened").Hintf("what next")); strconv.Itoa(got) != row[3] {
			t.Errorf("%s exits with %d, the specification says %s", code, got, row[3])
		}
		if want := "error: what happened\nhint: what next\n"; errOut.String() != want {
			t.Errorf("%s shows %q", code, errOut.String())
		}
		if !strings.Contains(out.String(), fmt.Sprintf("%q: %q", "code", code)) {
			t.Errorf("%s in JSON is %s", code, out.String())
		}
		if got := strconv.Itoa(code.HTTPStatus()); row[2] != "" && got != row[2] {
			t.Errorf("%s has the HTTP status %s, the specification says %s", code, got, row[2])
		}
	}
	for _, n := range []int{exitOK, exitFailed, exitUsage, exitNotRunning, exitDenied, exitNotFound, exitConflict, exitBadCode, exitUnreachable, exitInterrupted} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^ +%d  \w`, n)).MatchString(newExitCodes().Long) {
			t.Errorf("the help does not tell what exit code %d means", n)
		}
		if !strings.Contains(string(b), fmt.Sprintf("\n| %d |", n)) {
			t.Errorf("the specification does not tell what exit code %d means", n)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 KiB", 1536: "1.5 KiB", 10 << 20: "10 MiB", 1023 << 20: "1.0 GiB", 3 << 40: "3.0 TiB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("humanBytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", -time.Second: "0 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min 30 s", time.Hour: "1 h", 24 * time.Hour: "24 h",
		50 * time.Hour: "2 d 2 h", 7 * 24 * time.Hour: "7 d", 400 * time.Hour: "16 d"} {
		if got := humanDuration(d); got != want {
			t.Errorf("humanDuration(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "-", 123 * time.Microsecond: "0.12 ms", 9996 * time.Microsecond: "10.0 ms", 12300 * time.Microsecond: "12.3 ms", 250 * time.Millisecond: "250 ms"} {
		if got := humanMillis(api.Millis(d)); got != want {
			t.Errorf("humanMillis(%v) = %q, want %q", d, got, want)
		}
	}
	for in, want := range map[string]string{"a\x1b[31mb": "a?[31mb", "é✓": "é✓", "\u202e": "?", "a\tb\r": "a?b?"} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"30m": 30 * time.Minute, "24h": 24 * time.Hour, "7d": 168 * time.Hour, "2w": 336 * time.Hour, "1d12h": 36 * time.Hour, "1w1d": 192 * time.Hour, "90s": 90 * time.Second} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "-1d", "1x", "1d1", "99999999d", "1.5d", "tomorrow"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v", in, got)
		}
	}
}

// Every command tells what it is for, and shows an example.
func TestHelpIsComplete(t *testing.T) {
	root := newRoot(&cli{system: system{getenv: func(string) string { return "" }}})
	for _, cmd := range root.Commands() {
		for _, cmd := range append(cmd.Commands(), cmd) {
			if cmd.Name() == "help" || cmd.Name() == "exit-codes" || strings.HasPrefix(cmd.CommandPath(), "warren completion") {
				continue
			}
			if cmd.Short == "" || cmd.Example == "" {
				t.Errorf("%s: short %q, example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
			}
			for _, line := range strings.Split(cmd.Long+"\n"+cmd.Example, "\n") {
				if len(line) > 90 {
					t.Errorf("%s: a line of %d characters in the help: %s", cmd.CommandPath(), len(line), line)
				}
			}
		}
	}
}
