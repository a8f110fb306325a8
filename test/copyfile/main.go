// Command copyfile sends one file over one TCP connection: the smallest program that shows a tunnel at work.
//
//	copyfile receive ADDRESS:PORT FILE
//	copyfile send ADDRESS:PORT FILE
//
// receive takes one connection and ends; both print the size, the time and the SHA-256 of what went over the wire.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "copyfile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: copyfile receive|send ADDRESS:PORT FILE")
	}
	switch args[0] {
	case "receive":
		return receive(args[1], args[2])
	case "send":
		return send(args[1], args[2])
	}
	return fmt.Errorf("%q is neither receive nor send", args[0])
}

func receive(addr, name string) (err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	return pipe(f, c)
}

func send(addr, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return pipe(c, f)
}

// pipe copies and reports.
func pipe(to io.Writer, from io.Reader) error {
	start, sum := time.Now(), sha256.New()
	n, err := io.Copy(io.MultiWriter(to, sum), from)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	took := time.Since(start)
	fmt.Printf("%d bytes in %.2f s (%.0f Mbit/s), SHA-256 %x\n", n, took.Seconds(), float64(n)*8/1e6/took.Seconds(), sum.Sum(nil))
	return nil
}
