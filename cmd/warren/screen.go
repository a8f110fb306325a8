package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// What a terminal understands: ECMA-48 and the alternate screen that all of today have.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"        // other screen, no cursor
	leaveScreen = "\x1b[0m\x1b[?25h\x1b[?1049l" // all as it was
	topLeft     = "\x1b[H"
	restOfLine  = "\x1b[K"
	restBelow   = "\x1b[J"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
)

// sizeInterval is how often the view looks whether the terminal has another size.
const sizeInterval = 200 * time.Millisecond

// screenSize returns the size of the standard output in characters; false: it is no terminal. A terminal that does not know
// its size, as on a serial line, is taken for one of 80 x 24.
func screenSize() (width, height int, ok bool) {
	out := int(os.Stdout.Fd())
	if !term.IsTerminal(out) {
		return 0, 0, false
	}
	if width, height, err := term.GetSize(out); err == nil && width > 0 && height > 0 {
		return width, height, true
	}
	return 80, 24, true
}

// rawKeys makes the terminal hand over each key at once, unseen, until restore is called. When the standard input is no
// terminal there is nothing to do.
func rawKeys() (restore func(), err error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(in)
	if err != nil {
		return nil, fmt.Errorf("read keys from the terminal: %w", err)
	}
	undo := understandANSI()
	return func() {
		undo()
		term.Restore(in, old) //nolint:errcheck // nothing more can be done for a terminal that is gone
	}, nil
}

// typedQuit reads keys until one that ends the view, q, Ctrl-C or Ctrl-D; false: the input is at its end before.
func typedQuit(in io.Reader) bool {
	keys := bufio.NewReader(in)
	for {
		switch key, err := keys.ReadByte(); {
		case err != nil:
			return false
		case key == 'q' || key == 'Q' || key == 3 || key == 4:
			return true
		}
	}
}

// live shows the table from first on until q, Ctrl-C or the end of ctx, and leaves the terminal as it was.
func (v *topView) live(ctx context.Context, first sample) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	restore, err := v.rawKeys()
	if err != nil {
		return err
	}
	defer restore()
	v.printf("%s", enterScreen)
	defer v.printf("%s", leaveScreen)

	var keys sync.WaitGroup
	keys.Go(func() { // ends at q or with the input; after a signal it is left in its read, and the process ends
		if typedQuit(v.in) {
			cancel()
		}
	})
	measure, look := time.NewTicker(v.interval), time.NewTicker(sizeInterval)
	defer measure.Stop()
	defer look.Stop()
	f := frame{before: first, after: first}
	f.width, f.height, _ = v.screen()
	v.printf("%s", f.draw())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-measure.C:
			now, err := v.sample(ctx)
			if f.err = err; err == nil {
				f.before, f.after = f.after, now
			}
		case <-look.C: // the terminal tells of a new size by a signal, but not on every system
			width, height, ok := v.screen()
			if !ok || width == f.width && height == f.height {
				continue
			}
			f.width, f.height = width, height
		}
		v.printf("%s", f.draw())
	}
}

// frame is one picture of the live view.
type frame struct {
	before, after sample
	err           error // why there is no newer sample; nil = there is
	width, height int   // of the terminal, in characters
}

// draw returns what puts the picture on the terminal in the place of the one before: no more than it has room for.
func (f frame) draw() string {
	peers := compare(f.before, f.after)
	lines := topHead(f.after.st, peers)
	if f.err != nil {
		lines = append(lines, "no news: "+f.err.Error())
	} else {
		lines = append(lines, "")
	}
	title := len(lines)
	table := tableLines(topRows(f.after.st, peers))
	if room := f.height - title; len(table) > room && room > 1 {
		more := len(table) - (room - 1)
		table = append(table[:room-1], fmt.Sprintf("and %d more, with less traffic", more))
	}
	lines = append(lines, table...)
	lines = lines[:min(len(lines), max(f.height, 1))]
	var b strings.Builder
	b.WriteString(topLeft)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n") // raw keys: the terminal does not go back to the left by itself
		}
		line = crop(line, f.width)
		if i == title {
			line = bold + line + plain
		}
		b.WriteString(line + restOfLine)
	}
	b.WriteString(restBelow)
	return b.String()
}

// crop cuts a line to so many characters, of which none moves the cursor.
func crop(line string, width int) string {
	out := []rune(strings.ReplaceAll(clean(line), "\n", " "))
	return string(out[:min(len(out), max(width, 0))])
}
