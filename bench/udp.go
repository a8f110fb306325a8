//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// UDP without loss: the sender offers a rate for a while and the receiver counts; a search finds the highest rate of which
// less than 1 in 1000 is lost. Sizes are of the whole inner IP packet. Both ends use plain sendmmsg and recvmmsg: the
// tunnel meets single packets, as from a game or a call, never a super-packet. The sender is even to 0.1 ms.
const (
	udpPort     = 5300
	udpHeaders  = 28
	maxLoss     = 0.001
	firstRate   = 40000 // packets/s
	growth      = 1.5
	maxGrow     = 10 // steps of the search upward, downward, and between the bounds
	maxShrink   = 8
	maxBisect   = 4
	slot        = 100 * time.Microsecond
	maxBurst    = 64
	maxLag      = 2 * time.Millisecond // what a sender that was held up may catch up
	batchSize   = 64
	socketBytes = 16 << 20
	drainTick   = 20 * time.Millisecond
	drainLimit  = time.Second
	numTrials   = 1 << 12
)

// roles are what the binary does when its first argument says so.
var roles = map[string]func(args []string) error{"udp:send": udpSend, "udp:receive": udpReceive}

func udpRow(size int) func(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
	return func(ctx context.Context, w *world, t time.Duration) (map[string]float64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		u, err := newUDPPair(ctx, w.lane, size)
		if err != nil {
			return nil, err
		}
		defer u.close()
		trial := min(max(t/6, 300*time.Millisecond), time.Second)
		rate, err := search(func(rate float64) (offered, delivered float64, err error) { return u.trial(rate, trial) })
		return map[string]float64{fmt.Sprintf("udp-%d", size): rate / 1000}, err
	}
}

// search returns the highest delivered rate without loss that it finds. A rate that fails is tried once more.
func search(trial func(rate float64) (offered, delivered float64, err error)) (best float64, err error) {
	good := func(rate float64) (ok, saturated bool, err error) {
		for range 2 {
			offered, delivered, err := trial(rate)
			if err != nil {
				return false, false, err
			}
			if delivered >= offered*(1-maxLoss) {
				best = max(best, delivered)
				return true, offered < 0.9*rate, nil
			}
		}
		return false, false, nil
	}
	low, high, rate := 0.0, 0.0, float64(firstRate)
	for range maxGrow {
		ok, saturated, err := good(rate)
		if err != nil || saturated { // the sender can offer no more
			return best, err
		}
		if !ok {
			high = rate
			break
		}
		low = rate
		rate *= growth
	}
	for step := 0; low == 0 && step < maxShrink; step++ {
		rate /= growth
		ok, _, err := good(rate)
		if err != nil {
			return best, err
		}
		if ok {
			low = rate
		} else {
			high = rate
		}
	}
	for step := 0; step < maxBisect && low > 0 && high > 0; step++ {
		rate = math.Sqrt(low * high)
		ok, _, err := good(rate)
		if err != nil {
			return best, err
		}
		if ok {
			low = rate
		} else {
			high = rate
		}
	}
	return best, nil
}

// talker is a helper process that is asked by a line and answers by a line.
type talker struct {
	*process
	in   io.WriteCloser
	pipe io.Closer
	out  *bufio.Reader
}

// udpPair is a sender at side a and a receiver at side b.
type udpPair struct {
	send, receive *talker
	size          int
	id            int
}

func newUDPPair(ctx context.Context, l *lane, size int) (*udpPair, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(l.inner[1], udpPort).String()
	u := &udpPair{size: size}
	if u.receive, err = l.talk(1, l.cmd(ctx, 1, self, "udp:receive", to)); err != nil {
		return nil, err
	}
	u.send, err = l.talk(0, l.cmd(ctx, 0, self, "udp:send", to))
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

func (l *lane) talk(side int, cmd *exec.Cmd) (*talker, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	p, err := l.start(side, "udp", cmd)
	w.Close() //nolint:errcheck // the child has its own
	if err != nil {
		return nil, err
	}
	t := &talker{process: p, in: in, pipe: out, out: bufio.NewReader(out)}
	_, err = t.out.ReadString('\n') // ready
	if err != nil {
		err = fmt.Errorf("helper: %s", p.tail())
	}
	return t, err
}

// ask sends a line and reads numbers from the answer.
func (t *talker) ask(question string, answer ...any) error {
	if _, err := io.WriteString(t.in, question+"\n"); err != nil {
		return err
	}
	line, err := t.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("helper: %w: %s", err, t.tail())
	}
	_, err = fmt.Sscan(line, answer...)
	return err
}

func (u *udpPair) close() {
	for _, t := range []*talker{u.send, u.receive} {
		if t != nil {
			t.in.Close() //nolint:errcheck // it ends the helper
			t.end()
			t.pipe.Close() //nolint:errcheck // it was read only
		}
	}
}

// trial offers a rate for a time and returns the rates that were really offered and delivered, in packets/s.
func (u *udpPair) trial(rate float64, t time.Duration) (offered, delivered float64, err error) {
	u.id++
	var sent, got int
	var nanos int64
	if err := u.send.ask(fmt.Sprintf("%d %f %d %d", u.id, rate, u.size-udpHeaders, t.Nanoseconds()), &sent, &nanos); err != nil {
		return 0, 0, err
	}
	if err := u.receive.ask(strconv.Itoa(u.id), &got); err != nil {
		return 0, 0, err
	}
	seconds := float64(nanos) / 1e9
	return float64(sent) / seconds, float64(got) / seconds, nil
}

// udpSend is the role "udp:send ADDRESS": each line of the input is a trial, its rate (packets/s), size (payload bytes) and time
// (ns); the answer is how many were sent and how long that took (ns).
func udpSend(args []string) error {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) //nolint:errcheck // it would be less even
	c, err := net.Dial("udp4", args[0])
	if err != nil {
		return err
	}
	p := ipv4.NewPacketConn(c.(*net.UDPConn))
	var batch [maxBurst]ipv4.Message
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	for {
		var id uint32
		var rate float64
		var size int
		var length time.Duration
		if _, err := fmt.Fscanln(in, &id, &rate, &size, &length); err != nil {
			return nil // asked to end
		}
		payload := make([]byte, size)
		binary.BigEndian.PutUint32(payload, id)
		for i := range batch {
			batch[i].Buffers = [][]byte{payload}
		}
		sent, start := 0, clock()
		begin := start // moves when we were held up for too long
		for {
			now := clock()
			if now-start >= length {
				break
			}
			due := int(rate * (now - begin + slot).Seconds())
			if lag := int(rate * maxLag.Seconds()); due-sent > lag+maxBurst {
				begin += time.Duration(float64(due-sent-lag) / rate * 1e9)
				due = sent + lag
			}
			for due > sent {
				n, err := p.WriteBatch(batch[:min(due-sent, maxBurst)], 0)
				if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
					return err
				}
				sent += max(n, 0)
			}
			sleepUntil(now + slot)
		}
		fmt.Println(sent, int64(clock()-start))
	}
}

// clock is the monotonic clock; sleepUntil sleeps to a point of it, more exactly than the runtime's timers do.
func clock() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) //nolint:errcheck // it cannot fail
	return time.Duration(t.Nano())
}

func sleepUntil(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) //nolint:errcheck // an early end does no harm
}

// udpReceive is the role "udp:receive ADDRESS": each line of the input is a trial; the answer is how many of it have arrived,
// when no more come.
func udpReceive(args []string) error {
	c, err := net.ListenPacket("udp4", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBytes)
	}); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	var counts [numTrials]atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() { count(ipv4.NewPacketConn(c), &counts) }) // ends when c is closed
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	for {
		var id int
		if _, err := fmt.Fscanln(in, &id); err != nil {
			c.Close() //nolint:errcheck // we end
			wg.Wait()
			return nil
		}
		n := &counts[id%numTrials]
		for last, start := int64(-1), clock(); n.Load() != last && clock()-start < drainLimit; {
			last = n.Load()
			time.Sleep(3 * drainTick)
		}
		fmt.Println(n.Load())
	}
}

func count(p *ipv4.PacketConn, counts *[numTrials]atomic.Int64) {
	var batch [batchSize]ipv4.Message
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	for {
		n, err := p.ReadBatch(batch[:], 0)
		if err != nil {
			return
		}
		for _, m := range batch[:n] {
			if m.N >= 4 {
				counts[binary.BigEndian.Uint32(m.Buffers[0])%numTrials].Add(1)
			}
		}
	}
}
