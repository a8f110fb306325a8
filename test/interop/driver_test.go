package interop

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wireguard"
)

var (
	ourIP   = netip.MustParseAddr("10.9.0.1")
	stockIP = netip.MustParseAddr("10.9.0.2")
)

// patience is how long a test waits for something that should come.
const patience = 30 * time.Second

// stock is a wireguard-go device.
type stock struct {
	t    *testing.T
	dev  *device.Device
	tun  *tuntest.ChannelTUN
	pub  key.WGPublic
	addr netip.AddrPort
	host chan string // packets that came out of its tunnel
	logs chan string
}

// ours is our engine with a socket.
type ours struct {
	*wireguard.Engine
	t       *testing.T
	private key.WGPrivate
	epoch   time.Time
	skew    time.Duration // how far our clock is ahead
	sock    *net.UDPConn
	to      netip.AddrPort // of the stock peer
	peer    *wireguard.Peer
	load    bool
	table   map[uint32]*wireguard.Keypair
	staged  [][]byte

	inbox   []string
	raw     [][]byte // transport messages as they came
	from    netip.AddrPort
	handled map[byte]int // handshake messages accepted, by type
	sent    map[byte]int // messages sent, by type
	ups     int
	downs   int
	keeps   int
	errs    []error
}

func startStock(t *testing.T, listener key.WGPrivate, peer key.WGPublic, psk [32]byte) *stock {
	t.Helper()
	s := &stock{t: t, tun: tuntest.NewChannelTUN(), pub: listener.Public(), host: make(chan string, 1<<14), logs: make(chan string, 1<<14)}
	logf := func(format string, args ...any) {
		select {
		case s.logs <- fmt.Sprintf(format, args...):
		default:
		}
	}
	s.dev = device.NewDevice(s.tun.TUN(), conn.NewDefaultBind(), &device.Logger{Verbosef: logf, Errorf: logf})
	s.set("private_key=%x\nlisten_port=0\npublic_key=%x\npreshared_key=%x\nallowed_ip=%s/32", listener[:], peer[:], psk[:], ourIP)
	if err := s.dev.Up(); err != nil {
		t.Fatal(err)
	}
	s.findPort()

	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends when the test closes done
		for {
			select {
			case p := <-s.tun.Inbound:
				s.host <- string(p)
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() {
		s.dev.Close()
		close(done)
		wg.Wait()
	})
	return s
}

func (s *stock) set(format string, args ...any) {
	s.t.Helper()
	if err := s.dev.IpcSet(fmt.Sprintf(format+"\n", args...)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) get(field string) string {
	text, err := s.dev.IpcGet()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, field+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (s *stock) findPort() {
	var port uint16
	fmt.Sscan(s.get("listen_port"), &port)
	s.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// send gives a packet to the tunnel.
func (s *stock) send(packet []byte) { s.tun.Outbound <- packet }

// logged reports whether a line with text was logged since the last call.
func (s *stock) logged(text string) bool {
	for {
		select {
		case line := <-s.logs:
			if strings.Contains(line, text) {
				return true
			}
		default:
			return false
		}
	}
}

// start makes a stock device and our engine that know each other. Only our side knows where the other is.
func start(t *testing.T, psk [32]byte) (*ours, *stock) {
	t.Helper()
	t.Parallel()
	private := key.NewWGPrivate()
	s := startStock(t, key.NewWGPrivate(), private.Public(), psk)
	o := &ours{t: t, private: private, to: s.addr, handled: map[byte]int{}, sent: map[byte]int{}}
	o.restart(psk, s)
	o.rebind()
	return o, s
}

// restart replaces our engine by a new one, with the same key.
func (o *ours) restart(psk [32]byte, s *stock) {
	o.t.Helper()
	o.epoch = time.Now()
	e, err := wireguard.New(wireguard.Config{Private: o.private, Epoch: o.epoch}, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	o.Engine, o.table, o.peer = e, map[uint32]*wireguard.Keypair{}, e.AddPeer(s.pub, psk)
}

// rebind moves to a new socket, that is a new source port.
func (o *ours) rebind() {
	o.t.Helper()
	if o.sock != nil {
		o.sock.Close()
	}
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: []byte{127, 0, 0, 1}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.sock = sock
	o.t.Cleanup(func() { sock.Close() })
}

func (o *ours) addr() netip.AddrPort { return o.sock.LocalAddr().(*net.UDPAddr).AddrPort() }

// know tells the stock device where we are.
func (s *stock) know(o *ours) {
	pub := o.private.Public()
	s.set("public_key=%s\nupdate_only=true\nendpoint=%s", hex.EncodeToString(pub[:]), o.addr())
}

func (o *ours) now() time.Time { return time.Now().Add(o.skew) }
func (o *ours) nanos() int64   { return wireguard.Nanos(o.epoch, o.now()) }

func (o *ours) write(data []byte) {
	o.sent[data[0]]++
	if _, err := o.sock.WriteToUDPAddrPort(data, o.to); err != nil {
		o.t.Fatal(err)
	}
}

// seal returns one transport message.
func (o *ours) seal(packet []byte) []byte {
	o.t.Helper()
	k := o.peer.Sending()
	if k == nil {
		o.t.Fatal("no session")
	}
	n := wireguard.Padded(len(packet), 1420)
	buf := make([]byte, wireguard.HeaderLen+n+wireguard.TagLen)
	copy(buf[wireguard.HeaderLen:], packet)
	size, err := k.Seal(o.nanos(), buf, n, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	o.Notice(o.now(), o.peer, o.peer.Sent(o.nanos(), k, len(packet) > 0, size))
	return buf[:size]
}

// send sends a packet, or stages it until a session is up.
func (o *ours) send(packet []byte) {
	o.t.Helper()
	if o.peer.Sending() == nil {
		o.staged = append(o.staged, packet)
		o.Initiate(o.now(), o.peer)
		return
	}
	o.write(o.seal(packet))
}

// until runs our side until cond holds, or the test fails.
func (o *ours) until(what string, cond func() bool) {
	o.t.Helper()
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(patience); ; {
		o.Tick(o.now())
		for _, f := range o.Effects() {
			o.do(f)
		}
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("waited in vain: %s (errors %v)", what, o.errs)
		}
		if err := o.sock.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			o.t.Fatal(err)
		}
		n, from, err := o.sock.ReadFromUDPAddrPort(buf)
		if err == nil {
			o.receive(from, buf[:n])
		}
	}
}

func (o *ours) receive(from netip.AddrPort, msg []byte) {
	if msg[0] != 4 {
		owned := o.Owns(msg)
		err := o.Handle(o.now(), from, msg, o.load)
		if err == nil && !owned {
			o.t.Errorf("a message of type %d was taken but not owned", msg[0])
		}
		if err != nil {
			o.errs = append(o.errs, err)
			return
		}
		o.handled[msg[0]]++
		return
	}
	k := o.table[binary.LittleEndian.Uint32(msg[4:])]
	if k == nil {
		o.errs = append(o.errs, wireguard.ErrUnknown)
		return
	}
	o.raw = append(o.raw, append([]byte(nil), msg...))
	plain, _, err := k.Open(o.nanos(), msg)
	if err != nil {
		o.errs = append(o.errs, err)
		return
	}
	o.from = from
	if len(plain) == 0 {
		o.keeps++
	} else {
		o.inbox = append(o.inbox, string(plain[:binary.BigEndian.Uint16(plain[2:])]))
	}
	o.Notice(o.now(), o.peer, o.peer.Received(o.nanos(), k, len(plain) > 0, len(msg)))
}

func (o *ours) do(f wireguard.Effect) {
	switch f := f.(type) {
	case wireguard.SendHandshake:
		o.write(f.Data)
	case wireguard.SendKeepalive:
		if o.peer.Sending() != nil {
			o.write(o.seal(nil))
		}
	case wireguard.KeypairAdded:
		o.table[f.Keypair.LocalIndex()] = f.Keypair
	case wireguard.KeypairRemoved:
		delete(o.table, f.Keypair.LocalIndex())
	case wireguard.SessionUp:
		o.ups++
		for _, p := range o.staged {
			o.send(p)
		}
		o.staged = nil
	case wireguard.SessionDown:
		o.downs++
	}
}

// packet returns an ICMP packet of the given size, marked with a number.
func packet(dst, src netip.Addr, mark, size int) []byte {
	p := append(tuntest.Ping(dst, src), make([]byte, size)...)
	p = p[:max(size, 32)]
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[28:], uint16(mark))
	return p
}

func toStock(mark int) []byte { return packet(stockIP, ourIP, mark, 32) }
func toUs(mark int) []byte    { return packet(ourIP, stockIP, mark, 32) }

// expectStock waits until exactly this packet comes out of the stock tunnel.
func (o *ours) expectStock(s *stock, want []byte) {
	o.t.Helper()
	o.until("a packet out of the stock tunnel", func() bool {
		select {
		case got := <-s.host:
			if got != string(want) {
				o.t.Fatalf("the stock tunnel gave %x, want %x", got, want)
			}
			return true
		default:
			return false
		}
	})
}

// expectUs waits until exactly this packet has come to us.
func (o *ours) expectUs(want []byte) {
	o.t.Helper()
	o.until("a packet for us", func() bool { return len(o.inbox) > 0 })
	if o.inbox[0] != string(want) {
		o.t.Fatalf("we got %x, want %x", o.inbox[0], want)
	}
	o.inbox = o.inbox[1:]
}

// talk checks both directions.
func (o *ours) talk(s *stock, mark int) {
	o.t.Helper()
	for _, size := range []int{32, 33, 1420} {
		p := packet(stockIP, ourIP, mark, size)
		o.send(p)
		o.expectStock(s, p)
		p = packet(ourIP, stockIP, mark, size)
		s.send(p)
		o.expectUs(p)
	}
}

// advance moves our clock forward. Before, a little real time passes: the stock side takes one initiation of a peer in
// 20 ms, by its own clock.
func (o *ours) advance(d time.Duration) {
	o.t.Helper()
	end := time.Now().Add(25 * time.Millisecond)
	o.until("25 ms", func() bool { return time.Now().After(end) })
	o.skew += d
}

// connect makes a session that we initiated.
func (o *ours) connect() {
	o.t.Helper()
	before := o.ups
	o.Initiate(o.now(), o.peer)
	o.until("a session", func() bool { return o.ups > before })
}
