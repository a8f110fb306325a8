package node

import (
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/packet"
	"github.com/warren-vpn/warren/internal/testnet"
	"github.com/warren-vpn/warren/internal/wireguard"
)

// phone is a stock WireGuard client made of a wg-quick text. It belongs to the test's goroutine.
type phone struct {
	w       *world
	sock    *testnet.Socket
	in      chan []byte
	engine  *wireguard.Engine
	peer    *wireguard.Peer
	pairs   map[uint32]*wireguard.Keypair
	epoch   time.Time
	gateway netip.AddrPort
	addr    netip.Addr   // of the interface
	allowed []netip.Addr // of the peer
}

// wgQuick reads the values of a wg-quick text by their keys.
func wgQuick(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, "="); ok {
			out[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return out
}

func (w *world) phone(h *testnet.Host, text string) *phone {
	w.Helper()
	conf := wgQuick(text)
	key32 := func(name string) [32]byte {
		b, err := base64.StdEncoding.DecodeString(conf[name])
		return [32]byte(must(w, b, err))
	}
	p := &phone{w: w, in: make(chan []byte, 64), pairs: map[uint32]*wireguard.Keypair{}, epoch: time.Now()}
	var err error
	p.gateway, err = netip.ParseAddrPort(conf["Endpoint"])
	must(w, 0, err)
	p.addr = netip.MustParsePrefix(strings.Split(conf["Address"], ", ")[0]).Addr()
	for _, a := range strings.Split(conf["AllowedIPs"], ", ") {
		p.allowed = append(p.allowed, netip.MustParsePrefix(a).Addr())
	}
	p.engine, err = wireguard.New(wireguard.Config{Private: key32("PrivateKey"), Epoch: p.epoch}, nil)
	must(w, 0, err)
	p.peer = p.engine.AddPeer(key32("PublicKey"), [32]byte{})
	p.sock, err = h.Listen(0)
	must(w, 0, err)
	var wg sync.WaitGroup
	wg.Go(func() { // ends when the world closes the socket
		for buf := make([]byte, 2048); ; {
			n, _, err := p.sock.ReadFrom(buf)
			if err != nil {
				return
			}
			p.in <- append([]byte(nil), buf[:n]...)
		}
	})
	return p
}

// run does what the engine asks for and gives it what comes, for d or until f takes an inner packet.
func (p *phone) run(d time.Duration, f func(inner []byte) bool) bool {
	for end := time.After(d); ; {
		p.engine.Tick(time.Now())
		for _, e := range p.engine.Effects() {
			switch e := e.(type) {
			case wireguard.SendHandshake:
				must(p.w, 0, p.sock.WriteTo(e.Data, p.gateway))
			case wireguard.SendKeepalive:
				p.send(nil)
			case wireguard.KeypairAdded:
				p.pairs[e.Keypair.LocalIndex()] = e.Keypair
			case wireguard.KeypairRemoved:
				delete(p.pairs, e.Keypair.LocalIndex())
			}
		}
		select {
		case <-end:
			return false
		case <-time.After(100 * time.Millisecond):
		case b := <-p.in:
			k := p.pairs[binary.LittleEndian.Uint32(b[4:])]
			if b[0] != 4 {
				if err := p.engine.Handle(time.Now(), p.gateway, b, false); err != nil {
					p.w.Errorf("the phone cannot use an answer: %v", err)
				}
			} else if k != nil {
				plain, _, err := k.Open(wireguard.Nanos(p.epoch, time.Now()), b)
				must(p.w, 0, err)
				p.engine.Notice(time.Now(), p.peer, p.peer.Received(wireguard.Nanos(p.epoch, time.Now()), k, len(plain) > 0, len(b)))
				if inner, ok := packet.Trim(plain); ok && f(inner) {
					return true
				} else if len(plain) > 0 && !ok {
					p.w.Errorf("the phone got what is no IP packet: %x", plain)
				}
			}
		}
	}
}

// send seals an inner packet, empty for a keepalive, if there is a session.
func (p *phone) send(inner []byte) {
	k := p.peer.Sending()
	if k == nil {
		return
	}
	now := wireguard.Nanos(p.epoch, time.Now())
	buf := make([]byte, 2048)
	n, err := k.Seal(now, buf, copy(buf[wireguard.HeaderLen:], append(inner, make([]byte, -len(inner)&15)...)), 0)
	must(p.w, 0, err)
	p.engine.Notice(time.Now(), p.peer, p.peer.Sent(now, k, len(inner) > 0, n))
	must(p.w, 0, p.sock.WriteTo(buf[:n], p.gateway))
}

// ping reports whether the gateway answers.
func (p *phone) ping(to netip.Addr) bool {
	if p.peer.Sending() == nil {
		p.engine.Initiate(time.Now(), p.peer)
		p.run(time.Second, func([]byte) bool { return false })
	}
	p.send(testnet.EchoRequest(p.addr, to, 7, 1, []byte("hello")))
	return p.run(time.Second, func(b []byte) bool {
		in, err := testnet.ReadInner(b)
		return err == nil && in.EchoReply() && in.ID == 7 && in.Src.Addr() == to
	})
}

func TestAPhoneReachesItsGatewayUntilItIsRevoked(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		r, err := ms[0].node.DeviceAdd(w.Context(), api.DeviceRequest{Name: "phone"})
		must(w, 0, err)
		host := w.net.Host("phone", address("198.51.100.20"))
		p := w.phone(host, r.Config)
		if p.allowed[0] != ms[0].addrs()[0] || p.addr != r.Addresses[0] {
			w.Fatalf("the configuration has %v and %v", p.allowed, p.addr)
		}
		if !p.ping(p.allowed[0]) {
			w.Fatal("the phone does not reach its gateway")
		}
		host.SetAddrs(address("198.51.100.21"))
		p.ping(p.allowed[0]) // this answer may leave before the control loop knows
		if !p.ping(p.allowed[0]) {
			w.Error("the gateway does not follow the phone")
		}
		w.agreed(3, 2*time.Second, ms...)
		if d := ms[1].peer(r.ID); d.Name != "phone" || !d.Device || d.Path != api.PathNone || d.Why == "" {
			w.Errorf("b sees the phone as %+v", d)
		}
		ms[0].revoke("phone")
		if p.ping(p.allowed[0]) {
			w.Error("a revoked phone goes on in its session")
		}
		p = w.phone(host, r.Config)
		if p.ping(p.allowed[0]) || p.peer.Sending() != nil {
			w.Error("a revoked phone gets a new session")
		}
		w.agreed(2, 2*time.Second, ms...)
	})
}

func TestPingSaysHowAMemberIsReachedOrThatItIsNot(t *testing.T) {
	story(t, testnet.Link{Delay: 30 * time.Millisecond}, func(w *world) {
		ms := w.found("a", "b", "c")
		r, err := ms[0].node.Ping(w.Context(), api.PingRequest{Member: "b"})
		must(w, 0, err)
		at := netip.AddrPortFrom(ms[1].host.Addrs()[0], DefaultPort)
		at6 := netip.AddrPortFrom(ms[1].host.Addrs()[1], DefaultPort)
		if r.Path != api.PathDirect || r.RTT != api.Millis(60*time.Millisecond) || r.Name != "b" || r.Address != ms[1].addrs()[0] || r.Endpoint != at && r.Endpoint != at6 {
			w.Errorf("reply %+v", r)
		}
		ms[2].host.Unplug(true)
		for _, wait := range []time.Duration{0, 30 * time.Second} { // with the session as it was, and with none
			testnet.Wait(wait)
			start := time.Now()
			_, err = ms[0].node.Ping(w.Context(), api.PingRequest{Member: "c", Timeout: 2000})
			if api.CodeOf(err) != api.CodeNoAnswer || time.Since(start) != 2*time.Second {
				w.Errorf("an unreachable member: %v after %v", err, time.Since(start))
			}
		}
		for member, code := range map[string]api.Code{"nobody": api.CodeNoSuchMember, "a": api.CodeBadRequest} {
			if _, err := ms[0].node.Ping(w.Context(), api.PingRequest{Member: member}); api.CodeOf(err) != code {
				w.Errorf("ping %s: %v, want %s", member, err, code)
			}
		}
		ms[2].host.Unplug(false)
		w.eventually("c answers again", time.Minute, func() bool {
			_, err := ms[0].node.Ping(w.Context(), api.PingRequest{Member: "c"})
			return err == nil
		})
	})
}

func TestWhatDoesNotFitThePathIsAnswered(t *testing.T) {
	story(t, lan, func(w *world) {
		a := w.host("a", address("192.0.2.1"))
		b := w.host("b", address("192.0.2.2"))
		narrow := lan
		narrow.MTU = 1350 // inner packets of 1290: between two of the sizes that are tried
		w.net.SetLink(a.host, b.host, narrow)
		a.start()
		b.start()
		a.create("warren")
		b.join(a.invite(1))
		w.eventually("in touch", 5*time.Second, func() bool { return w.linked(a, b) })
		testnet.Wait(30 * time.Second) // sizes are tried
		if p := a.peer(b.self()); p.MTU != 1280 {
			w.Errorf("the path is believed to carry %d bytes", p.MTU)
		}
		tun := a.tun(a.network("").Interface)
		for family, header := range []int{28, 48} {
			from, to := a.addrs()[family], b.addrs()[family]
			if _, err := tun.Ping(w.Context(), from, to, 1280-header); err != nil {
				w.Errorf("a packet that fits: %v", err)
			}
			must(w, 0, tun.Inject(testnet.UDP(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(to, 9), make([]byte, 1300-header))))
			answer, err := tun.Receive(w.Context())
			in, err2 := testnet.ReadInner(must(w, answer, err))
			must(w, 0, err2)
			mtu := int(binary.BigEndian.Uint16(answer[26:]))
			if family == 1 {
				mtu = int(binary.BigEndian.Uint32(answer[44:]))
			}
			if !in.PacketTooBig() || mtu != 1280 || in.Dst.Addr() != from {
				w.Errorf("the answer to a packet that is too big: %+v, MTU %d", in, mtu)
			}
			must(w, 0, tun.Inject(synPacket(from, to, 1460)))
			got, err := b.tun(b.network("").Interface).Receive(w.Context())
			if mss := binary.BigEndian.Uint16(must(w, got, err)[len(got)-2:]); int(mss) != 1280-header+8-20 {
				w.Errorf("family %d: MSS %d", family, mss)
			}
		}
	})
}

// synPacket makes a TCP SYN with an MSS option as its last bytes.
func synPacket(from, to netip.Addr, mss uint16) []byte {
	t := make([]byte, 24)
	binary.BigEndian.PutUint16(t, 1000)
	binary.BigEndian.PutUint16(t[2:], 80)
	t[12], t[13], t[20], t[21] = 6<<4, 2, 2, 4
	binary.BigEndian.PutUint16(t[22:], mss)
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = append(pseudo, 0, testnet.ProtoTCP, 0, byte(len(t)))
	binary.BigEndian.PutUint16(t[16:], packet.Checksum(append(pseudo, t...)))
	return testnet.IP(from, to, testnet.ProtoTCP, t)
}

func TestAWiderPathIsUsed(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b")
		w.eventually("the path is found to carry full packets", 30*time.Second, func() bool { return ms[0].peer(ms[1].self()).MTU == 1420 })
		tun := ms[0].tun(ms[0].network("").Interface)
		if _, err := tun.Ping(w.Context(), ms[0].addrs()[0], ms[1].addrs()[0], 1420-28); err != nil {
			w.Error(err)
		}
	})
}
