package nat

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// servers are four of STUN.
var servers = []netip.AddrPort{ap("198.51.100.1:3478"), ap("198.52.100.1:3478"), ap("198.53.100.1:3478"), ap("198.54.100.1:3478")}

// asked returns the questions that are to be sent, by server.
func (l *lab) asked() map[netip.AddrPort][]byte {
	out := map[netip.AddrPort][]byte{}
	for _, e := range l.e.Effects() {
		if q, ok := e.(AskServer); ok {
			out[q.To] = q.Data
		}
	}
	return out
}

// answer is what a server says to the question q.
func answer(t testing.TB, q []byte, saw string) []byte {
	t.Helper()
	if len(q) != 20 || !bytes.Equal(q[:8], []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}) {
		t.Fatalf("the question is %x", q)
	}
	a := ap(saw)
	ip := a.Addr().AsSlice()
	for i := range ip {
		ip[i] ^= q[4+i]
	}
	r := append([]byte{1, 1, 0, byte(12 + 8 + len(ip))}, q[4:]...)
	r = append(r, 0x80, 0x22, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0) // SOFTWARE
	r = append(r, 0, 0x20, 0, byte(4+len(ip)), 0, byte(len(ip)/12+1), byte(a.Port()>>8)^0x21, byte(a.Port())^0x12)
	return append(r, ip...)
}

// The sample responses of RFC 5769, sections 2.2 and 2.3: with other attributes around.
func TestAnswersOfTheRFC(t *testing.T) {
	for text, want := range map[string]string{
		"0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96":                         "192.0.2.1:32853",
		"010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c": "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, saw, ok := stunAnswer(b); !ok || saw != ap(want) {
			t.Errorf("read as %v, want %s", saw, want)
		}
	}
}

// Two servers suffice to know a NAT. spec/73-nat.md#servers
func TestServersAreObservers(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	l.e.SetServers(l.now, servers)
	q := l.asked()
	if len(q) != 2 || q[servers[0]] == nil || q[servers[1]] == nil {
		t.Fatalf("asked: %v, want the first two", q)
	}
	for i, saw := range []string{"203.0.113.7:5000", "203.0.113.7:5001"} {
		if !l.e.HandleServer(l.now, servers[i], answer(t, q[servers[i]], saw)) {
			t.Error("an answer is no message of STUN")
		}
	}
	l.want(wire.NATPredictable, 1)
	if all, answered := l.e.Servers(); all != 4 || answered != 2 {
		t.Errorf("%d of %d answered", answered, all)
	}
	l.run(time.Hour)
	if q := l.asked(); len(q) != 0 {
		t.Errorf("asked without need: %v", q)
	}
	l.e.Freshen(l.now)
	if q := l.asked(); len(q) != 2 || q[servers[2]] == nil || q[servers[3]] == nil {
		t.Errorf("asked: %v, want the other two", q)
	}
	l.e.Freshen(l.now.Add(time.Second))
	if q := l.asked(); len(q) != 0 {
		t.Errorf("asked again at once: %v", q)
	}
}

// Nobody is asked who was not named, and three times is enough. spec/73-nat.md#servers
func TestServersAreAskedSeldom(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	l.e.Freshen(l.now)
	l.e.NetworkChanged(l.now)
	l.run(time.Minute)
	if q := l.asked(); len(q) != 0 {
		t.Errorf("asked: %v", q)
	}
	l.e.SetServers(l.now, append([]netip.AddrPort{ap("192.168.1.1:3478"), ap("127.0.0.1:3478")}, servers[0]))
	times := 0
	for range 100 {
		times += len(l.asked())
		l.run(100 * time.Millisecond)
	}
	if times != serverTries {
		t.Errorf("asked %d times without an answer", times)
	}
	l.e.NetworkChanged(l.now)
	if q := l.asked(); len(q) != 1 {
		t.Errorf("asked after a change: %v", q)
	}
}

// A stranger's word is no answer. spec/73-nat.md#servers
func TestOnlyTheAskedServerIsBelieved(t *testing.T) {
	l := newLab(t, "192.168.1.2:1000")
	l.e.SetServers(l.now, servers[:1])
	first := l.asked()[servers[0]]
	l.run(600 * time.Millisecond)
	q := l.asked()[servers[0]]
	if !bytes.Equal(first, q) {
		t.Error("a question that is asked again is another one")
	}
	good := answer(t, q, "203.0.113.7:5000")
	wrong := append([]byte(nil), good...)
	wrong[12] ^= 1 // of the transaction id
	for name, try := range map[string]struct {
		from netip.AddrPort
		data []byte
	}{
		"another server":   {servers[1], good},
		"another port":     {ap("198.51.100.1:3479"), good},
		"another question": {servers[0], wrong},
		"the question":     {servers[0], q},
		"cut":              {servers[0], good[:len(good)-9]},
	} {
		l.e.HandleServer(l.now, try.from, try.data)
		l.run(10 * time.Millisecond)
		if c := l.e.Status().Candidates; len(c) > 1 || len(l.e.v4.seen) > 0 {
			t.Errorf("%s is believed: %v", name, c)
		}
	}
	if l.e.HandleServer(l.now, servers[0], []byte{1, 0, 0, 0, 1, 2, 3, 4}) {
		t.Error("a handshake message is taken for STUN")
	}
	l.e.HandleServer(l.now, servers[0], good)
	l.e.HandleServer(l.now, servers[0], answer(t, q, "203.0.113.9:9")) // it has answered
	l.run(time.Second)
	if c := l.e.Status().Candidates; len(c) != 2 || c[0].Addr != ap("203.0.113.7:5000") {
		t.Errorf("candidates: %v", c)
	}
}

// Whatever comes, nothing panics and nobody is believed who does not know the question.
func FuzzHandleServer(f *testing.F) {
	l := newLab(f, "192.168.1.2:1000")
	l.e.SetServers(l.now, servers[:1])
	q := l.asked()[servers[0]]
	good := answer(f, q, "203.0.113.7:5000")
	good[12] ^= 1
	f.Add(good)
	f.Add(q)
	f.Add([]byte{1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42})
	f.Fuzz(func(t *testing.T, b []byte) {
		l.e.HandleServer(l.now, servers[0], b)
		if len(l.e.v4.seen) > 0 && (len(b) < 20 || !bytes.Equal(b[8:20], q[8:20])) {
			t.Errorf("believed %x", b)
		}
	})
}
