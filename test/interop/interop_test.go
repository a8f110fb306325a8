package interop

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/net/ipv4"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wireguard"
)

var psks = []struct {
	name string
	psk  [32]byte
}{{"no psk", [32]byte{}}, {"psk", [32]byte{1, 2, 3}}}

// spec/40-wireguard.md#handshake
func TestWeInitiate(t *testing.T) {
	for _, c := range psks {
		t.Run(c.name, func(t *testing.T) {
			o, s := start(t, c.psk)
			o.send(toStock(1))
			o.expectStock(s, toStock(1))
			s.send(toUs(2))
			o.expectUs(toUs(2))
			o.talk(s, 3)
			if o.sent[1] != 1 || o.handled[1] != 0 {
				t.Errorf("we sent %d initiations and took %d, want 1 and 0", o.sent[1], o.handled[1])
			}
		})
	}
}

// spec/40-wireguard.md#handshake
func TestStockInitiates(t *testing.T) {
	for _, c := range psks {
		t.Run(c.name, func(t *testing.T) {
			o, s := start(t, c.psk)
			s.know(o)
			s.send(toUs(1))
			o.expectUs(toUs(1))
			o.talk(s, 2)
			if o.sent[1] != 0 || o.handled[1] != 1 || o.ups != 1 {
				t.Errorf("we sent %d initiations, took %d, %d sessions; want 0, 1, 1", o.sent[1], o.handled[1], o.ups)
			}
		})
	}
}

// spec/40-wireguard.md#handshake
func TestOtherPSKIsRefused(t *testing.T) {
	o, s := start(t, [32]byte{1})
	o.AddPeer(s.pub, [32]byte{2})
	o.Initiate(o.now(), o.peer)
	o.until("a response that does not fit", func() bool { return len(o.errs) > 0 })
	if o.errs[0] != wireguard.ErrAuth || o.ups != 0 {
		t.Fatalf("%v, %d sessions", o.errs[0], o.ups)
	}
}

// spec/40-wireguard.md#keepalive
func TestOurKeepaliveConfirms(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect() // no data from us: the keepalive alone lets the stock side send
	s.send(toUs(1))
	o.expectUs(toUs(1))
	o.until("a keepalive at the stock side", func() bool { return s.logged("Receiving keepalive packet") })
	before := o.sent[4]
	o.advance(wireguard.KeepaliveTimeout)
	o.until("our keepalive 10 s after data", func() bool { return o.sent[4] == before+1 })
	o.until("the keepalive at the stock side", func() bool { return s.logged("Receiving keepalive packet") })
}

// spec/40-wireguard.md#keepalive
func TestStockKeepalive(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 10 s for a timer of the stock side")
	}
	o, s := start(t, [32]byte{})
	o.connect()
	o.send(toStock(1))
	o.expectStock(s, toStock(1))
	o.until("a keepalive from the stock side", func() bool { return o.keeps > 0 })
	o.talk(s, 2)
}

// junkInitiation is for pub, with a good mac1 and nothing else.
func junkInitiation(pub key.WGPublic) []byte {
	msg := make([]byte, wireguard.InitiationLen)
	msg[0], msg[8] = 1, 9
	k := blake2s.Sum256(append([]byte("mac1----"), pub[:]...))
	h, err := blake2s.New128(k[:])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	h.Write(msg[:116])
	copy(msg[116:], h.Sum(nil))
	return msg
}

// spec/40-wireguard.md#cookies
func TestStockUnderFlood(t *testing.T) {
	o, s := start(t, [32]byte{})
	flood, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	// The stock side is loaded when 128 messages wait, and drops what comes when 1024 do: so send some hundreds, in few
	// calls, so that it cannot keep up.
	junk := make([]ipv4.Message, 128)
	for i := range junk {
		junk[i].Buffers = [][]byte{junkInitiation(s.pub)}
	}
	batch := ipv4.NewPacketConn(flood)
	burst := func(calls int) {
		for range calls {
			if _, err := batch.WriteBatch(junk, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Until the stock side is so loaded that it answers us with a cookie. A session that it made in the meantime is
	// no fault; our next initiation is 6 s later by our clock. What it drops is not answered at all.
	began := time.Now()
	for i := 0; o.handled[3] == 0; i++ {
		if time.Since(began) > patience {
			t.Fatalf("the stock side was not loaded by %d floods", i)
		}
		burst(2 + i%6)
		o.Initiate(o.now(), o.peer)
		end, responses := time.Now().Add(time.Second), o.handled[2]
		o.until("an answer", func() bool {
			return o.handled[3] > 0 || o.handled[2] > responses || time.Now().After(end)
		})
		o.advance(6 * time.Second)
	}
	burst(2)
	responses := o.handled[2]
	o.until("a response to the initiation with mac2", func() bool {
		if o.handled[2] > responses {
			return true
		}
		o.Initiate(o.now(), o.peer) // nothing, while the attempt is under way
		return false
	})
	if o.sent[1] < 2 {
		t.Errorf("%d initiations", o.sent[1])
	}
	o.send(toStock(1))
	o.expectStock(s, toStock(1))
}

// spec/40-wireguard.md#cookies
func TestWeAreUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 5 s for a timer of the stock side")
	}
	o, s := start(t, [32]byte{})
	o.load = true
	s.know(o)
	s.send(toUs(1))
	o.until("an initiation without mac2", func() bool { return len(o.errs) > 0 })
	if o.errs[0] != wireguard.ErrCookie || o.sent[3] != 1 {
		t.Fatalf("%v, %d cookie replies", o.errs[0], o.sent[3])
	}
	o.expectUs(toUs(1)) // the stock side tries again after 5 s, with the cookie
	o.talk(s, 2)
	if len(o.errs) != 1 {
		t.Errorf("errors %v", o.errs)
	}
}

// spec/40-wireguard.md#roaming
func TestRoaming(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	o.talk(s, 1)
	old := o.addr()
	o.rebind()
	if o.addr() == old {
		t.Fatal("the port did not change")
	}
	o.send(toStock(2))
	o.expectStock(s, toStock(2))
	if got := s.get("endpoint"); got != o.addr().String() {
		t.Errorf("the stock side sends to %s, we are at %s", got, o.addr())
	}
	s.send(toUs(3))
	o.expectUs(toUs(3))

	s.set("listen_port=0") // now the stock side moves
	was := s.addr
	if s.findPort(); s.addr == was {
		t.Fatal("the port of the stock side did not change")
	}
	s.send(toUs(4))
	o.expectUs(toUs(4))
	if o.from != s.addr {
		t.Errorf("the data came from %v, the stock side is at %v", o.from, s.addr)
	}
	o.to = o.from
	o.talk(s, 5)
}

// spec/40-wireguard.md#replay
func TestReplayedAndReorderedToStock(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	const n = 50
	var msgs [][]byte
	for i := range n {
		msgs = append(msgs, o.seal(toStock(i)))
	}
	for i := n - 1; i >= 0; i-- {
		o.write(msgs[i])
		o.write(msgs[i])
		o.expectStock(s, toStock(i))
	}
	var late [][]byte
	for i := range 8200 {
		late = append(late, o.seal(toStock(i)))
	}
	last := len(late) - 1
	for _, i := range []int{last, last - 8129, last - 8128, last - 1} {
		o.write(late[i])
		if i != last-8129 {
			o.expectStock(s, toStock(i))
		}
	}
	o.write(msgs[0])
	o.send(toStock(9999))
	o.expectStock(s, toStock(9999)) // and none of the replays before it
}

// spec/40-wireguard.md#replay
func TestReplayedAndReorderedToUs(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	o.talk(s, 1)
	o.raw = nil
	for i := range 20 {
		s.send(toUs(i))
		o.expectUs(toUs(i))
	}
	raw := o.raw
	o.errs = nil
	for _, m := range raw {
		o.receive(s.addr, append([]byte(nil), m...))
	}
	if len(o.inbox) != 0 || len(o.errs) != len(raw) {
		t.Fatalf("%d replays were accepted", len(o.inbox))
	}
	for _, err := range o.errs {
		if err != wireguard.ErrReplay {
			t.Fatalf("a replay: %v", err)
		}
	}
	// In reverse order, collected from the socket before any is opened.
	for i := range 20 {
		s.send(toUs(100 + i))
	}
	var held [][]byte
	buf := make([]byte, 2048)
	for len(held) < 20 {
		if err := o.sock.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, _, err := o.sock.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > 32 && buf[0] == 4 {
			held = append(held, append([]byte(nil), buf[:n]...))
		}
	}
	for i := len(held) - 1; i >= 0; i-- {
		o.receive(s.addr, held[i])
	}
	if len(o.inbox) != 20 {
		t.Fatalf("%d of 20 reordered packets arrived", len(o.inbox))
	}
}

// spec/40-wireguard.md#rekey
func TestRekeyAt120s(t *testing.T) {
	o, s := start(t, [32]byte{5})
	o.connect()
	o.talk(s, 1)
	for i := range 3 {
		o.advance(119 * time.Second)
		o.send(toStock(2))
		o.expectStock(s, toStock(2))
		if o.sent[1] != i+1 {
			t.Fatal("a handshake before 120 s")
		}
		o.advance(time.Second)
		o.send(toStock(3)) // on the old keypair
		o.expectStock(s, toStock(3))
		o.until("a new session", func() bool { return o.ups == i+2 })
		o.talk(s, 4)
	}
	if o.downs != 0 || len(o.table) != 2 {
		t.Errorf("SessionDown %d times, %d keypairs", o.downs, len(o.table))
	}
}

// spec/40-wireguard.md#rekey
func TestRekeyOnReceiveAt165s(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	s.send(toUs(0))
	o.expectUs(toUs(0))
	o.advance(164 * time.Second)
	s.send(toUs(1))
	o.expectRaw()
	if o.sent[1] != 1 {
		t.Fatal("a handshake before 165 s")
	}
	o.skew += time.Second // and no Tick: a keepalive is due, and would be a packet sent
	s.send(toUs(2))
	o.expectRaw()
	if o.sent[1] != 2 {
		t.Fatal("no handshake when data comes in on a session of 165 s")
	}
	o.until("a new session", func() bool { return o.ups == 2 })
	o.inbox = nil
	o.talk(s, 3)
}

// expectRaw takes one datagram without letting time pass for the engine.
func (o *ours) expectRaw() {
	o.t.Helper()
	buf := make([]byte, 2048)
	before := len(o.inbox)
	for len(o.inbox) == before {
		if err := o.sock.SetReadDeadline(time.Now().Add(patience)); err != nil {
			o.t.Fatal(err)
		}
		n, from, err := o.sock.ReadFromUDPAddrPort(buf)
		if err != nil {
			o.t.Fatal(err)
		}
		o.receive(from, buf[:n])
	}
	for _, f := range o.Effects() {
		o.do(f)
	}
}

// spec/40-wireguard.md#limits
func TestRejectAt180s(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	o.talk(s, 1)
	o.advance(180 * time.Second)
	s.send(toUs(2)) // its clock is 180 s behind: it still uses the keypair
	o.until("the end of our session", func() bool { return o.downs == 1 && len(o.errs) > 0 })
	if len(o.inbox) != 0 {
		t.Fatal("a packet on a keypair of 180 s was accepted")
	}
	o.send(toStock(3))
	o.expectStock(s, toStock(3))
	o.talk(s, 4)
}

// spec/40-wireguard.md#simultaneous
func TestSimultaneousInitiation(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			o, s := start(t, [32]byte{})
			s.know(o)
			// While both greet, a first packet may be lost, as between two stock peers: each says it again, as TCP would.
			for mark := 1; mark <= 3; mark++ {
				var next time.Time
				atStock := false
				o.until(fmt.Sprintf("packet %d each way", mark), func() bool {
					if now := time.Now(); now.After(next) {
						next = now.Add(200 * time.Millisecond)
						s.send(toUs(mark))
						o.send(toStock(mark))
					}
					for len(s.host) > 0 {
						atStock = <-s.host == string(toStock(mark)) || atStock
					}
					return atStock && slices.Contains(o.inbox, string(toUs(mark)))
				})
			}
		})
	}
}

// A restarted node has forgotten all but its key, and is let in at once.
// spec/40-wireguard.md#timestamps
func TestWeRestart(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	o.talk(s, 1)
	o.advance(time.Second)
	o.restart([32]byte{}, s)
	o.send(toStock(2))
	o.expectStock(s, toStock(2))
	o.talk(s, 3)
}

// spec/40-wireguard.md#removal
func TestRemovedStockPeerStaysOut(t *testing.T) {
	o, s := start(t, [32]byte{})
	o.connect()
	o.talk(s, 1)
	o.RemovePeer(s.pub)
	o.until("the end", func() bool { return o.downs == 1 })
	o.errs = nil
	s.send(toUs(2))
	o.until("a packet on a session that is gone", func() bool { return len(o.errs) > 0 })
	if o.errs[0] != wireguard.ErrUnknown || len(o.inbox) != 0 || len(o.table) != 0 {
		t.Fatalf("%v, %d packets, %d keypairs", o.errs[0], len(o.inbox), len(o.table))
	}
}
