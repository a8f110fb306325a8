//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// Pace is how a [Talk] goes: a record of Size bytes (at least 16) every so often. The zero Pace is 1 KiB every 20 ms.
type Pace struct {
	Size  int
	Every time.Duration
}

// Talk is one TCP connection that carries a steady flow of numbered records, each filled with the same mark, until End.
type Talk struct {
	Name         string // "from > to"
	talker, hear *Process
}

// talkLimit is how long the end of a Talk may take: the records still on their way must arrive.
const talkLimit = 20 * time.Second

// StartTalk opens a connection from h to addr, an address of to.
func (h *Host) StartTalk(to *Host, addr netip.Addr, mark string, pace Pace) *Talk {
	t := h.lab.t
	t.Helper()
	if pace == (Pace{}) {
		pace = Pace{1 << 10, 20 * time.Millisecond}
	}
	target := netip.AddrPortFrom(addr, nextPort())
	talk := &Talk{Name: h.Name + " > " + to.Name}
	talk.hear = to.Start("/proc/self/exe", "lab:hear", strconv.Itoa(int(target.Port())), strconv.Itoa(pace.Size), mark)
	Eventually(t, 5*time.Second, func() error {
		if talk.hear.Out() == "" {
			return fmt.Errorf("nobody listens on %s: %s", to.Name, talk.hear.Log())
		}
		return nil
	})
	talk.talker = h.Start("/proc/self/exe", "lab:talk", target.String(), strconv.Itoa(pace.Size), pace.Every.String(), mark)
	Eventually(t, 15*time.Second, func() error {
		if talk.talker.Out() == "" {
			return fmt.Errorf("%s: no connection: %s", talk.Name, talk.talker.Log())
		}
		return nil
	})
	return talk
}

// End closes the connection and tells what arrived. The Flow's Broken says what is wrong with it: the connection died, or what
// arrived is not what was sent.
func (t *Talk) End() (f Flow) {
	t.talker.cmd.Process.Signal(syscall.SIGINT)      //nolint:errcheck // it may be gone already
	for _, p := range []*Process{t.talker, t.hear} { // what arrived ends the one that hears, too
		select {
		case <-p.done:
		case <-time.After(talkLimit):
			f.Broken = fmt.Sprintf("%s: %s did not end within %s", t.Name, p.name, talkLimit)
			p.Kill()
		}
	}
	if f.Broken != "" {
		return f
	}
	var sent int
	err := errors.Join(lastLine(t.hear.Out(), &f), lastLine(t.talker.Out(), &sent))
	switch {
	case err != nil:
		f.Broken = fmt.Sprintf("%s: %v: talker: %s hearer: %s", t.Name, err, t.talker.Log(), t.hear.Log())
	case t.talker.cmd.ProcessState.ExitCode() != 0 || f.Broken != "":
		f.Broken = fmt.Sprintf("%s: sent %d, talker: %s hearer: %s", t.Name, sent, t.talker.Log(), f.Broken)
	case f.Count != sent:
		f.Broken = fmt.Sprintf("%s: %d records sent, %d arrived", t.Name, sent, f.Count)
	}
	f.Sent = sent
	return f
}

// record writes record number n, with the mark as often as it fits.
func record(b []byte, n int, mark string) {
	binary.BigEndian.PutUint64(b, uint64(n))
	for at := 8; at < len(b); {
		at += copy(b[at:], mark)
	}
}

// talk is the role "lab:talk ADDRESS SIZE EVERY MARK".
func talk(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT) // SIGTERM ends it at once
	defer stop()
	size, err1 := strconv.Atoi(args[1])
	every, err2 := time.ParseDuration(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	conn, err := dialer.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	fmt.Println("talking")
	context.AfterFunc(ctx, func() { c.SetDeadline(time.Now().Add(talkLimit - 5*time.Second)) }) //nolint:errcheck // then it ends later
	b := make([]byte, max(size, 16))
	tick := time.NewTicker(every)
	defer tick.Stop()
	n := 0
	for ctx.Err() == nil {
		n++
		record(b, n, args[3])
		if _, err := c.Write(b); err != nil {
			return errors.Join(fmt.Errorf("record %d: %w", n, err), json.NewEncoder(os.Stdout).Encode(n))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if err := errors.Join(json.NewEncoder(os.Stdout).Encode(n), c.CloseWrite()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // until the other side has all and closes
	return err
}

// hear is the role "lab:hear PORT SIZE MARK".
func hear(args []string) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	f, before := Flow{}, time.Now()
	b, want := make([]byte, max(size, 16)), make([]byte, max(size, 16))
	for {
		_, err := io.ReadFull(c, b)
		now := time.Now()
		f.silence(before, now)
		if before = now; err == io.EOF {
			break
		}
		if record(want, f.Count+1, args[2]); err == nil && !bytes.Equal(b, want) {
			err = errors.New("is not what was sent")
		}
		if err != nil {
			f.Broken = fmt.Sprintf("record %d: %v", f.Count+1, err)
			break
		}
		if f.Count++; f.Count == 1 {
			f.First = now
		}
		f.Last = now
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}
