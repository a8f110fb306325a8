package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// understandANSI makes the console obey escape sequences, which older ones do only when told, until undo is called.
func understandANSI() (undo func()) {
	out := windows.Handle(os.Stdout.Fd())
	var mode uint32
	if windows.GetConsoleMode(out, &mode) != nil {
		return func() {}
	}
	windows.SetConsoleMode(out, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) //nolint:errcheck // then it shows them, which does no harm
	return func() { windows.SetConsoleMode(out, mode) }                          //nolint:errcheck // as above
}
