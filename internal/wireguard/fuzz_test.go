package wireguard

import (
	"bytes"
	"testing"
	"time"
)

// FuzzHandle feeds an engine arbitrary bytes, and genuine messages that were changed. Nothing may panic, and
// afterwards the genuine peers must still come together. The input is a mode byte, then the message; or, for modes 1
// to 3 (a genuine initiation, response, cookie reply), pairs of (position, value to xor).
func FuzzHandle(f *testing.F) {
	f.Add([]byte{0})
	for typ, n := range map[byte]int{1: InitiationLen, 2: ResponseLen, 3: CookieReplyLen, 4: 32} {
		f.Add(append([]byte{0, typ}, make([]byte, n-1)...))
	}
	for mode := byte(1); mode <= 3; mode++ {
		f.Add([]byte{mode})
		f.Add([]byte{mode, 4, 1})
		f.Add([]byte{mode | 4, 20, 0x80, 50, 1})
		f.Add([]byte{mode | 8, 8, 0xff})
		f.Add([]byte{mode | 4 | 8, 9, 0xff, 100, 3})
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		w, a, b := pair(t)
		mode, rest := in[0], in[1:]
		typ := mode & 3
		msg, to := rest, b
		if typ != 0 {
			b.load = typ == typeCookieReply
			got := w.capture(typ)
			a.Initiate(w.now, a.peer(b))
			w.settle()
			msg = *got
			if typ != typeInitiation {
				to = a
			}
			for ; len(rest) >= 2; rest = rest[2:] {
				msg[int(rest[0])%len(msg)] ^= rest[1]
			}
			if mode&4 != 0 && typ != typeCookieReply {
				remac(to, msg)
			}
		}
		w.pass, b.load = nil, false
		before := bytes.Clone(msg)
		to.Owns(msg)
		_ = to.Handle(w.now, a.addr, msg, mode&8 != 0)
		if !bytes.Equal(before, msg) {
			t.Error("Handle changed the message")
		}
		w.settle()
		w.run(time.Second)
		a.send(b, "perhaps")
		// The indices are outside the Noise handshake: who can change a message on its way can make a session that
		// leads nowhere, as he could have dropped it. Unanswered data then starts a new handshake.
		w.run(NewHandshakeTime + RekeyTimeout + 2*MaxJitter)
		b.inbox = nil
		a.send(b, "after all")
		w.run(RekeyTimeout + MaxJitter)
		w.expect(b, "after all")
	})
}

// FuzzOpen opens arbitrary bytes and changed genuine messages: nothing that was changed may be accepted.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("hello"), []byte{})
	f.Add([]byte("hello"), []byte{8, 1})
	f.Add(make([]byte, 100), []byte{120, 0x80})
	f.Add([]byte{}, append([]byte{4, 0, 0, 0}, make([]byte, 28)...))
	w, send, receive := tunnel(f)
	now := w.nodes[0].nanosNow()
	f.Fuzz(func(t *testing.T, plain, change []byte) {
		if _, _, err := receive.Open(now, bytes.Clone(change)); err == nil {
			t.Fatal("arbitrary bytes were accepted")
		}
		buf := make([]byte, HeaderLen+len(plain)+TagLen)
		copy(buf[HeaderLen:], plain)
		if _, err := send.Seal(now, buf, len(plain), 0); err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(buf)
		for ; len(change) >= 2; change = change[2:] {
			bad[int(change[0])%len(bad)] ^= change[1]
		}
		// The receiver index is the owner's affair: it found the keypair by it.
		changed := !bytes.Equal(bad[:4], buf[:4]) || !bytes.Equal(bad[8:], buf[8:])
		got, _, err := receive.Open(now, bad)
		switch {
		case changed && err == nil:
			t.Fatal("a changed message was accepted")
		case !changed && (err != nil || !bytes.Equal(got, plain)):
			t.Fatalf("a genuine message: %q, %v", got, err)
		}
	})
}
