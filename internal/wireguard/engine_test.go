package wireguard

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// world is two or more engines, a clock, and a network that a story can make lose, keep or change messages.
type world struct {
	t     testing.TB
	now   time.Time
	nodes []*node
	// pass decides on each datagram; nil passes all. It may keep or change the data.
	pass func(d *datagram) bool
}

// node is an engine with the least possible data plane around it.
type node struct {
	*Engine
	w         *world
	name      string
	addr      netip.AddrPort
	load      bool          // under load
	skew      time.Duration // of its wall clock
	table     map[uint32]*Keypair
	staged    [][]byte
	inbox     []string // plaintexts received
	froms     []netip.AddrPort
	ups, down int
	rekeys    int
	lastFrom  netip.AddrPort // SessionUp
	sentInit  int
	keepalive int // keepalives received
	errs      []error
}

type datagram struct {
	from, to *node
	addr     netip.AddrPort // the source that the receiver sees
	data     []byte
}

// dice is a deterministic source of random bytes.
type dice struct {
	seed  string
	count uint64
	rest  []byte
}

func (d *dice) Read(b []byte) (int, error) {
	for i := range b {
		if len(d.rest) == 0 {
			h := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(d.seed), d.count))
			d.rest, d.count = h[:], d.count+1
		}
		b[i], d.rest = d.rest[0], d.rest[1:]
	}
	return len(b), nil
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func privateOf(seed string) key.WGPrivate {
	k := key.WGPrivate(sha256.Sum256([]byte(seed)))
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, now: start}
	for i, name := range names {
		e, err := New(Config{Private: privateOf(name), Rand: &dice{seed: name}, Epoch: start}, nil)
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 51820)
		w.nodes = append(w.nodes, &node{Engine: e, w: w, name: name, addr: addr, table: map[uint32]*Keypair{}})
	}
	return w
}

// pair returns a world of two nodes that know each other.
func pair(t testing.TB) (w *world, a, b *node) {
	w = newWorld(t, "alice", "bob")
	a, b = w.nodes[0], w.nodes[1]
	a.AddPeer(b.public, [32]byte{})
	b.AddPeer(a.public, [32]byte{})
	return w, a, b
}

func (n *node) peer(o *node) *Peer { return n.peers[o.public] }

func (n *node) time() time.Time { return n.w.now.Add(n.skew) }

func (n *node) nanosNow() int64 { return Nanos(start, n.time()) }

// send sends a text to another node, or stages it.
func (n *node) send(o *node, text string) {
	p := n.peer(o)
	if k := p.Sending(); k != nil {
		if n.seal(p, k, []byte(text)) {
			return
		}
	}
	n.staged = append(n.staged, []byte(text))
	n.Initiate(n.time(), p)
	n.w.settle()
}

func (n *node) seal(p *Peer, k *Keypair, plain []byte) bool {
	buf := make([]byte, HeaderLen+len(plain)+TagLen)
	copy(buf[HeaderLen:], plain)
	size, err := k.Seal(n.nanosNow(), buf, len(plain), 0)
	if err != nil {
		n.Notice(n.time(), p, NoticeRekey)
		return false
	}
	notice := p.Sent(n.nanosNow(), k, len(plain) > 0, size)
	n.w.deliver(&datagram{from: n, to: n.w.owner(p.public), addr: n.addr, data: buf[:size]})
	n.Notice(n.time(), p, notice)
	n.w.settle()
	return true
}

func (w *world) owner(pub key.WGPublic) *node {
	for _, n := range w.nodes {
		if n.public == pub {
			return n
		}
	}
	w.t.Fatal("nobody has this key")
	return nil
}

func (w *world) at(addr netip.AddrPort) *node {
	for _, n := range w.nodes {
		if n.addr == addr {
			return n
		}
	}
	return nil
}

func (w *world) deliver(d *datagram) {
	if d.to != nil && (w.pass == nil || w.pass(d)) {
		d.to.receive(d.addr, d.data)
	}
}

func (n *node) receive(from netip.AddrPort, data []byte) error {
	data = append([]byte(nil), data...)
	if len(data) > 0 && data[0] != typeTransport {
		err := n.Handle(n.time(), from, data, n.load)
		n.errs = append(n.errs, err)
		return err
	}
	if len(data) < 8 {
		return ErrMalformed
	}
	k := n.table[binary.LittleEndian.Uint32(data[4:])]
	if k == nil {
		return ErrUnknown
	}
	plain, _, err := k.Open(n.nanosNow(), data)
	if err != nil {
		n.errs = append(n.errs, err)
		return err
	}
	n.froms = append(n.froms, from)
	if len(plain) == 0 {
		n.keepalive++
	} else {
		n.inbox = append(n.inbox, string(plain))
	}
	notice := k.Peer().Received(n.nanosNow(), k, len(plain) > 0, len(data))
	n.Notice(n.time(), k.Peer(), notice)
	return nil
}

// settle carries out effects until nothing is left to do at this moment.
func (w *world) settle() {
	steps := 0
	for again := true; again; {
		if again = false; steps > 10_000 {
			w.t.Fatal("the engines never rest")
		}
		steps++
		for _, n := range w.nodes {
			for _, f := range n.Effects() {
				again = true
				n.do(f)
			}
		}
	}
}

func (n *node) do(f Effect) {
	switch f := f.(type) {
	case SendHandshake:
		to := n.w.at(f.To)
		if !f.To.IsValid() {
			to = n.w.owner(f.Peer.public)
		}
		if f.Data[0] == typeInitiation {
			n.sentInit++
		}
		n.w.deliver(&datagram{from: n, to: to, addr: n.addr, data: f.Data})
	case SendKeepalive:
		if k := f.Peer.Sending(); k != nil {
			n.seal(f.Peer, k, nil)
		}
	case KeypairAdded:
		n.table[f.Keypair.LocalIndex()] = f.Keypair
	case KeypairRemoved:
		if n.table[f.Keypair.LocalIndex()] != f.Keypair {
			n.w.t.Errorf("%s: KeypairRemoved for a keypair that was not there", n.name)
		}
		delete(n.table, f.Keypair.LocalIndex())
	case SessionUp:
		n.ups++
		n.lastFrom = f.From
		if f.Rekey {
			n.rekeys++
		}
		for _, s := range n.staged {
			n.seal(f.Peer, f.Peer.Sending(), s)
		}
		n.staged = nil
	case SessionDown:
		n.down++
		n.staged = nil
	}
}

// run lets d pass, ticking every engine when it asked for it.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 10_000+int(d/time.Millisecond) {
			w.t.Fatal("the engines tick without end")
		}
		next := end
		for _, n := range w.nodes {
			t := n.Tick(n.time())
			if !t.IsZero() && t.Add(-n.skew).Before(next) {
				next = t.Add(-n.skew)
			}
		}
		w.settle()
		if !w.now.Before(end) {
			return
		}
		if !next.After(w.now) {
			next = w.now.Add(time.Millisecond)
		}
		w.now = next
	}
}

// connect makes a session that a initiated.
func (w *world) connect(a, b *node) {
	w.t.Helper()
	a.Initiate(a.time(), a.peer(b))
	w.settle()
	if a.peer(b).Sending() == nil || b.peer(a).Sending() == nil {
		w.t.Fatal("no session after a handshake")
	}
}

func (w *world) expect(n *node, texts ...string) {
	w.t.Helper()
	if len(n.inbox) != len(texts) {
		w.t.Fatalf("%s received %q, want %q", n.name, n.inbox, texts)
	}
	for i := range texts {
		if n.inbox[i] != texts[i] {
			w.t.Fatalf("%s received %q, want %q", n.name, n.inbox, texts)
		}
	}
	n.inbox = nil
}

// talk checks that both directions work.
func (w *world) talk(a, b *node) {
	w.t.Helper()
	a.inbox, b.inbox = nil, nil
	a.send(b, "ping")
	w.expect(b, "ping")
	b.send(a, "pong")
	w.expect(a, "pong")
}

// remac makes mac1 of a changed message right again, as anyone can who knows the public key.
func remac(to *node, msg []byte) []byte {
	body, mac1, mac2 := macParts(msg)
	m := macOf(to.gate.mac1Key[:], body)
	copy(mac1, m[:])
	clear(mac2)
	return msg
}

// capture loses the next handshake message of the given type and returns where it will be.
func (w *world) capture(typ byte) *[]byte {
	var got []byte
	w.pass = func(d *datagram) bool {
		if got == nil && d.data[0] == typ {
			got = append([]byte(nil), d.data...)
			return false
		}
		return true
	}
	return &got
}

// spec/40-wireguard.md#handshake
func TestHandshake(t *testing.T) {
	w, a, b := pair(t)
	a.send(b, "hello") // staged until the session is up
	w.expect(b, "hello")
	b.send(a, "welcome")
	w.expect(a, "welcome")
	if a.ups != 1 || b.ups != 1 {
		t.Errorf("SessionUp %d and %d times, want once each", a.ups, b.ups)
	}
	if a.lastFrom != b.addr || b.lastFrom != a.addr {
		t.Errorf("SessionUp from %v and %v", a.lastFrom, b.lastFrom)
	}
	pa, pb := a.peer(b), b.peer(a)
	if pa.TxBytes() != pb.RxBytes() || pb.TxBytes() != pa.RxBytes() || pa.TxBytes() == 0 {
		t.Errorf("bytes sent %d, received %d; sent %d, received %d", pa.TxBytes(), pb.RxBytes(), pb.TxBytes(), pa.RxBytes())
	}
	if pa.LastReceived() != start.UnixNano() || pb.LastHandshake() != start.UnixNano() {
		t.Errorf("last received %d, last handshake %d, want %d", pa.LastReceived(), pb.LastHandshake(), start.UnixNano())
	}
}

// spec/40-wireguard.md#handshake
func TestPresharedKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		aPSK   byte
		bPSK   byte
		agreed bool
	}{{"same", 7, 7, true}, {"different", 7, 8, false}, {"one side only", 7, 0, false}} {
		t.Run(c.name, func(t *testing.T) {
			w, a, b := pair(t)
			a.AddPeer(b.public, [32]byte{c.aPSK})
			b.AddPeer(a.public, [32]byte{c.bPSK})
			a.Initiate(w.now, a.peer(b))
			w.settle()
			if got := a.peer(b).Sending() != nil; got != c.agreed {
				t.Fatalf("session is %v, want %v", got, c.agreed)
			}
		})
	}
}

func TestNewWantsAKey(t *testing.T) {
	if _, err := New(Config{}, nil); err == nil {
		t.Fatal("an engine without a private key")
	}
}

// spec/40-wireguard.md#strangers
func TestStrangerIsSilence(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	a, b := w.nodes[0], w.nodes[1]
	a.AddPeer(b.public, [32]byte{}) // bob does not know alice
	a.Initiate(w.now, a.peer(b))
	w.settle()
	if len(b.errs) != 1 || b.errs[0] != ErrUnknown {
		t.Fatalf("bob said %v, want ErrUnknown", b.errs)
	}
	if len(a.errs) != 0 {
		t.Fatal("bob answered a stranger")
	}
}

// spec/40-wireguard.md#sharing
func TestOwns(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	a.AddPeer(b.public, [32]byte{})
	b.AddPeer(a.public, [32]byte{})
	seen := map[byte]int{}
	b.load = true
	w.pass = func(d *datagram) bool {
		if d.data[0] == typeTransport {
			return true
		}
		seen[d.data[0]]++
		if !d.to.Owns(d.data) {
			t.Errorf("%s does not own the type %d for it", d.to.name, d.data[0])
		}
		if d.from.Owns(d.data) || c.Owns(d.data) {
			t.Errorf("type %d for %s has another owner", d.data[0], d.to.name)
		}
		return true
	}
	a.Initiate(w.now, a.peer(b))
	w.settle()
	w.run(6 * time.Second)
	for typ := byte(1); typ <= 3; typ++ {
		if seen[typ] == 0 {
			t.Errorf("no message of type %d", typ)
		}
	}
	for _, junk := range [][]byte{nil, {1}, make([]byte, InitiationLen), make([]byte, ResponseLen), {4, 0, 0, 0}} {
		if a.Owns(junk) {
			t.Errorf("owns %d bytes of junk", len(junk))
		}
	}
}

// spec/40-wireguard.md#removal
func TestRemovePeerCutsAtOnce(t *testing.T) {
	w, a, b := pair(t)
	w.connect(a, b)
	k := b.peer(a).Sending()
	late := make([]byte, 64)
	if _, err := a.peer(b).Sending().Seal(a.nanosNow(), late, 16, 0); err != nil {
		t.Fatal(err)
	}
	p := b.peer(a)
	received := b.table[binary.LittleEndian.Uint32(late[4:])]
	b.Initiate(w.now, p)
	b.RemovePeer(a.public)
	if _, err := k.Seal(b.nanosNow(), make([]byte, 64), 16, 0); err != ErrExpired {
		t.Errorf("a worker that held the keypair could seal: %v", err)
	}
	if _, _, err := received.Open(b.nanosNow(), late[:48]); err != ErrExpired {
		t.Errorf("a worker that held the keypair could open: %v", err)
	}
	if p.Sending() != nil {
		t.Error("the removed peer still has a keypair to send on")
	}
	for _, f := range b.Effects() {
		if peerOf(f) == p {
			t.Errorf("%T for a removed peer", f)
		}
		b.do(f)
	}
	if b.down != 1 || len(b.table) != 0 {
		t.Errorf("SessionDown %d times, %d keypairs left", b.down, len(b.table))
	}
	b.Initiate(w.now, p)
	b.Notice(w.now, p, NoticeRekey|NoticeConfirm)
	if f := b.Effects(); len(f) != 0 {
		t.Errorf("a removed peer caused %v", f)
	}
	w.now = w.now.Add(10 * time.Second)
	a.Initiate(w.now, a.peer(b))
	w.settle()
	if len(b.table) != 0 || b.ups != 1 {
		t.Error("a removed peer came back")
	}
	if next := b.Tick(w.now); !next.IsZero() {
		t.Error("an engine without peers waits for something")
	}
}

// spec/40-wireguard.md#messages
func TestMalformed(t *testing.T) {
	w, a, b := pair(t)
	got := w.capture(typeInitiation)
	a.Initiate(w.now, a.peer(b))
	w.settle()
	good := *got
	for _, c := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"one byte", []byte{1}, ErrMalformed},
		{"short", good[:InitiationLen-1], ErrMalformed},
		{"long", append(append([]byte(nil), good...), 0), ErrMalformed},
		{"reserved byte set", append([]byte{1, 1}, good[2:]...), ErrMalformed},
		{"transport", append([]byte{4, 0, 0, 0}, make([]byte, 28)...), ErrMalformed},
		{"mac1 wrong", append(append([]byte(nil), good[:InitiationLen-32]...), make([]byte, 32)...), ErrMAC},
		{"response to nobody", append([]byte{2, 0, 0, 0}, make([]byte, ResponseLen-4)...), ErrUnknown},
		{"cookie for nobody", append([]byte{3, 0, 0, 0}, make([]byte, CookieReplyLen-4)...), ErrUnknown},
	} {
		if err := b.Handle(w.now, a.addr, c.msg, false); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for i := initiationNoise; i < InitiationLen-32; i += 7 {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if err := b.Handle(w.now, a.addr, remac(b, bad), false); err != ErrAuth && err != ErrUnknown {
			t.Errorf("bit flipped at %d: %v", i, err)
		}
	}
	if f := b.Effects(); len(f) != 0 {
		t.Fatalf("bad messages caused %v", f)
	}
	if err := b.Handle(w.now, a.addr, good, false); err != nil {
		t.Fatalf("the genuine message then failed: %v", err)
	}
}
