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
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ports hands out a port to each flow, so that no test meets the leftovers of another. They are below those of beacons
// (spec/70-discover.md) and those that the system gives out.
var ports atomic.Uint32

func nextPort() uint16 { return uint16(10000 + ports.Add(1)%6000) }

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

// Flow is what arrived of a [Stream] or a [Talk].
type Flow struct {
	Count       int
	Sent        int       // as the last datagram that arrived says, or the talker
	Bad         int       // datagrams that are not what was sent, not in Count
	First, Last time.Time // of arrival; zero when nothing arrived
	Begun       time.Time // when the first was sent, of a Stream
	Gaps        []Gap     // the silences of 200 ms and more, in order, from the start of who receives to the end
	Broken      string    // what went wrong with a Talk
}

// silence notes the time between two arrivals, or between one and the start or the end.
func (f *Flow) silence(from, to time.Time) {
	if to.Sub(from) >= 200*time.Millisecond {
		f.Gaps = append(f.Gaps, Gap{from, to})
	}
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
	port         uint16
	aim          string // the file that names the address
}

// StartStream lets h send a stream to addr, an address of to, until End.
func (h *Host) StartStream(to *Host, addr netip.Addr) *Stream {
	h.lab.t.Helper()
	return h.StartMarkedStream(to, addr, "")
}

// StartMarkedStream is StartStream with a mark in each datagram, at most 1000 bytes.
func (h *Host) StartMarkedStream(to *Host, addr netip.Addr, mark string) *Stream {
	h.lab.t.Helper()
	s := h.ReadyStream(to, mark)
	s.Aim(addr)
	return s
}

// ReadyStream makes all ready for a stream to an address of to that Aim will name.
func (h *Host) ReadyStream(to *Host, mark string) *Stream {
	h.lab.t.Helper()
	s := &Stream{port: nextPort()}
	s.aim = filepath.Join(h.dir, fmt.Sprintf("aim-%d", s.port))
	s.sink = to.startServer("lab:sink", strconv.Itoa(int(s.port)), mark)
	s.sender = h.startServer("lab:stream", s.aim, mark)
	return s
}

// Aim begins to send to addr, within a few milliseconds.
func (s *Stream) Aim(addr netip.Addr) {
	t := s.sink.host.lab.t
	t.Helper()
	tmp := s.aim + ".new"
	if err := errors.Join(os.WriteFile(tmp, []byte(netip.AddrPortFrom(addr, s.port).String()), 0o600), os.Rename(tmp, s.aim)); err != nil {
		t.Fatal(err)
	}
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
	_, begun, _ := strings.Cut(s.sender.Out(), "\n")
	f.Begun, _ = time.Parse(time.RFC3339Nano, strings.TrimSpace(begun)) // zero: it sent nothing
	return f
}

// lastLine reads the line of JSON that follows the word "listening".
func lastLine(out string, v any) error {
	_, line, _ := strings.Cut(out, "\n")
	return json.Unmarshal([]byte(line), v)
}

// stream is the role "lab:stream FILE MARK": the file will name the address.
func stream(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := net.ListenUDP("udp", nil) // not connected: it outlives every error on the way
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("ready")
	to, err := awaitAim(ctx, args[0])
	if err != nil || !to.IsValid() {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	fmt.Println(time.Now().Format(time.RFC3339Nano))
	for n := 1; ; n++ {
		c.WriteToUDPAddrPort(fmt.Appendf(nil, "%d %s", n, args[1]), to) //nolint:errcheck // what does not arrive shows at the sink
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// awaitAim waits for the file and reads the address in it; the zero AddrPort means that ctx ended first.
func awaitAim(ctx context.Context, file string) (netip.AddrPort, error) {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for {
		if text, err := os.ReadFile(file); err == nil {
			return netip.ParseAddrPort(string(text))
		}
		select {
		case <-ctx.Done():
			return netip.AddrPort{}, nil
		case <-look.C:
		}
	}
}

// sink is the role "lab:sink PORT MARK".
func sink(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := net.ListenPacket("udp", ":"+args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	const rest = 50 * time.Millisecond // in which what has arrived is counted, too
	context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now().Add(rest)) })
	fmt.Println("listening")
	f, before := Flow{}, time.Now()
	b := make([]byte, 2000)
	for {
		n, _, err := c.ReadFrom(b)
		now := time.Now()
		number, mark, _ := strings.Cut(string(b[:n]), " ")
		sent, wrong := strconv.Atoi(number)
		if err == nil && (wrong != nil || mark != args[1]) {
			f.Bad++
			continue
		}
		if err != nil {
			f.silence(before, now.Add(-rest))
			return json.NewEncoder(os.Stdout).Encode(f)
		}
		f.silence(before, now)
		before = now
		if f.First.IsZero() {
			f.First = now
		}
		f.Last, f.Sent, f.Count = now, sent, f.Count+1
	}
}
