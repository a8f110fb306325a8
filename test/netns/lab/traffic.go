//go:build linux

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ports hands out a port to each flow, so that no test meets the leftovers of another.
var ports atomic.Uint32

func nextPort() uint16 { return uint16(20000 + ports.Add(1)%20000) }

// Transfer is a file sent over one TCP connection.
type Transfer struct {
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"`
	Seconds float64 `json:"seconds"`
}

// Rate is the speed in megabits per second.
func (t Transfer) Rate() float64 { return float64(t.Bytes) * 8 / 1e6 / t.Seconds }

// Sending is a transfer under way.
type Sending struct {
	from, to         *Host
	sender, receiver *Process
}

// StartSend lets h send a file of so many random bytes to addr, an address of to, over TCP. bitsPerSecond 0: as fast as it
// goes.
func (h *Host) StartSend(to *Host, addr netip.Addr, bytes int64, bitsPerSecond int) *Sending {
	h.lab.t.Helper()
	target := netip.AddrPortFrom(addr, nextPort())
	s := &Sending{from: h, to: to}
	s.receiver = to.Start("/proc/self/exe", "lab:receive", strconv.Itoa(int(target.Port())))
	Eventually(h.lab.t, 5*time.Second, func() error {
		if s.receiver.Out() == "" {
			return fmt.Errorf("the receiver on %s does not listen: %s", to.Name, s.receiver.Log())
		}
		return nil
	})
	s.sender = h.Start("/proc/self/exe", "lab:send", target.String(), strconv.FormatInt(bytes, 10), strconv.Itoa(bitsPerSecond))
	return s
}

// Wait waits for the end of the transfer and checks that what came is what was sent.
func (s *Sending) Wait(limit time.Duration) Transfer {
	t := s.from.lab.t
	t.Helper()
	if code := s.sender.Wait(limit); code != 0 {
		t.Fatalf("send from %s to %s: %s", s.from.Name, s.to.Name, s.sender.Log())
	}
	if code := s.receiver.Wait(5 * time.Second); code != 0 {
		t.Fatalf("receive at %s: %s", s.to.Name, s.receiver.Log())
	}
	var sent, got Transfer
	if err := errors.Join(json.Unmarshal([]byte(s.sender.Out()), &sent), lastLine(s.receiver.Out(), &got)); err != nil {
		t.Fatal(err)
	}
	if sent.Bytes != got.Bytes || sent.SHA256 != got.SHA256 {
		t.Fatalf("from %s to %s: sent %d bytes %s, received %d bytes %s", s.from.Name, s.to.Name, sent.Bytes, sent.SHA256, got.Bytes, got.SHA256)
	}
	return sent
}

// Send is StartSend and Wait.
func (h *Host) Send(to *Host, addr netip.Addr, bytes int64, limit time.Duration) Transfer {
	h.lab.t.Helper()
	return h.StartSend(to, addr, bytes, 0).Wait(limit)
}

// receive is the role "lab:receive PORT": take one connection, answer with the checksum of what came.
func receive(args []string) error {
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
	start, sum := time.Now(), sha256.New()
	n, err := io.Copy(sum, c)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if _, err := c.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return printTransfer(n, sum, start)
}

// send is the role "lab:send ADDRESS BYTES BITS_PER_SECOND": send random bytes, read the checksum of the other side.
func send(args []string) error {
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", args[0], 10*time.Second)
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	start, sum := time.Now(), sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
	buf := make([]byte, 64<<10)
	for sent := 0; ; {
		n, err := source.Read(buf)
		if err == io.EOF {
			break
		}
		sum.Write(buf[:n])
		if _, err := c.Write(buf[:n]); err != nil {
			return fmt.Errorf("after %d bytes: %w", sent, err)
		}
		if sent += n; rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(sent) * 8 / float64(rate) * float64(time.Second)))))
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("read the checksum: %w", err)
	}
	if string(answer) != string(sum.Sum(nil)) {
		return fmt.Errorf("the other side has %x, we sent %x", answer, sum.Sum(nil))
	}
	return printTransfer(size, sum, start)
}

func printTransfer(n int64, sum hash.Hash, start time.Time) error {
	return json.NewEncoder(os.Stdout).Encode(Transfer{n, hex.EncodeToString(sum.Sum(nil)), time.Since(start).Seconds()})
}

// Flow is what arrived of a stream of UDP datagrams.
type Flow struct {
	Count       int
	Sent        int       // as the last datagram that arrived says
	First, Last time.Time // of arrival; zero when nothing arrived
	Gaps        []Gap     // the silences of 200 ms and more, in order, from the start of the sink to its end
}

// Gap is a time in which nothing arrived.
type Gap struct{ From, To time.Time }

// Longest is the longest silence, also when it lasted to the end.
func (f Flow) Longest() (longest time.Duration) {
	for _, g := range f.Gaps {
		longest = max(longest, g.To.Sub(g.From))
	}
	return longest
}

// Stream is a steady flow of UDP datagrams, one every 10 ms, like a game or a call.
type Stream struct {
	sender, sink *Process
}

// StartStream lets h send a stream to addr, an address of to, until End.
func (h *Host) StartStream(to *Host, addr netip.Addr) *Stream {
	h.lab.t.Helper()
	target := netip.AddrPortFrom(addr, nextPort())
	s := &Stream{sink: to.Start("/proc/self/exe", "lab:sink", strconv.Itoa(int(target.Port())))}
	Eventually(h.lab.t, 5*time.Second, func() error {
		if s.sink.Out() == "" {
			return fmt.Errorf("the sink on %s does not listen: %s", to.Name, s.sink.Log())
		}
		return nil
	})
	s.sender = h.Start("/proc/self/exe", "lab:stream", target.String())
	return s
}

// End stops the stream and tells what arrived.
func (s *Stream) End() (f Flow) {
	t := s.sink.host.lab.t
	t.Helper()
	s.sender.Stop()
	s.sink.Stop()
	if err := lastLine(s.sink.Out(), &f); err != nil {
		t.Fatalf("sink: %v: %s", err, s.sink.Log())
	}
	return f
}

// lastLine reads the line of JSON that follows the word "listening".
func lastLine(out string, v any) error {
	_, line, _ := strings.Cut(out, "\n")
	return json.Unmarshal([]byte(line), v)
}

// stream is the role "lab:stream ADDRESS".
func stream(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	to, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", nil) // not connected: it outlives every error on the way
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		c.WriteToUDPAddrPort([]byte(strconv.Itoa(n)), to) //nolint:errcheck // what does not arrive shows at the sink
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sink is the role "lab:sink PORT".
func sink(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := net.ListenPacket("udp", ":"+args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	context.AfterFunc(ctx, func() { c.Close() })
	fmt.Println("listening")
	f, before := Flow{}, time.Now()
	silence := func(now time.Time) {
		if now.Sub(before) >= 200*time.Millisecond {
			f.Gaps = append(f.Gaps, Gap{before, now})
		}
		before = now
	}
	b := make([]byte, 100)
	for {
		n, _, err := c.ReadFrom(b)
		now := time.Now()
		silence(now)
		if err != nil {
			return json.NewEncoder(os.Stdout).Encode(f)
		}
		if f.First.IsZero() {
			f.First = now
		}
		f.Last, f.Count = now, f.Count+1
		f.Sent, _ = strconv.Atoi(string(b[:n]))
	}
}
