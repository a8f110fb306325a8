package dht

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"

	"github.com/warren-vpn/warren/internal/testnet"
)

var someone = netip.MustParseAddrPort("46.1.2.3:6881")

// hostile are datagrams that must not get past the filter; the first ones have crashed the library.
var hostile = map[string]string{
	"query without arguments":      "d1:q3:put1:t2:aa1:y1:qe",
	"announcement without":         "d1:q13:announce_peer1:t2:aa1:y1:qe",
	"query":                        "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
	"address of one byte alone":    "d2:ip1:x1:t2:aa1:y1:re",
	"answer without body":          "d1:t2:aa1:y1:re",
	"answer and query":             "d1:ad2:id20:abcdefghij0123456789e1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re",
	"answer and error":             "d1:eli1e1:xe1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re",
	"answer without id":            "d1:rd5:token1:xe1:t2:aa1:y1:re",
	"answer with a short id":       "d1:rd2:id19:abcdefghij012345678e1:t2:aa1:y1:re",
	"body that is a list":          "d1:rle1:t2:aa1:y1:re",
	"error without code":           "d1:ele1:t2:aa1:y1:ee",
	"error that is a string":       "d1:e3:bad1:t2:aa1:y1:ee",
	"error with a huge code":       "d1:eli99999999999999999999ee1:t2:aa1:y1:ee",
	"another kind":                 "d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:xe",
	"kind that is a number":        "d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:yi1ee",
	"transaction id in a list":     "d1:rd2:id20:abcdefghij0123456789e1:tl2:aae1:y1:re",
	"bytes after the end":          "d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:ree",
	"cut short":                    "d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:r",
	"string beyond the end":        "d1:rd2:id20:abcdefghij0123456789e1:t9999999999999999999:aa1:y1:re",
	"leading zero":                 "d1:rd2:id020:abcdefghij0123456789e1:t2:aa1:y1:re",
	"negative zero":                "d1:rd2:id20:abcdefghij01234567893:seqi-0ee1:t2:aa1:y1:re",
	"nested too deep":              "d1:rd2:id20:abcdefghij01234567891:x" + strings.Repeat("l", 9) + strings.Repeat("e", 9) + "e1:t2:aa1:y1:re",
	"number as a key":              "di1e1:xe",
	"only d":                       "d",
	"empty dictionary":             "de",
	"not a dictionary":             "le",
	"nothing":                      "",
	"too long":                     "d1:rd2:id20:abcdefghij01234567895:token2000:" + strings.Repeat("x", 2000) + "e1:t2:aa1:y1:re",
	"deep beyond any stack":        "d1:x" + strings.Repeat("l", 2000),
	"dictionary that never closes": "d1:rd2:id20:abcdefghij0123456789",
}

// spec/71-dht.md#what-is-let-in
func TestWhatIsNoAnswerIsDropped(t *testing.T) {
	for name, b := range hostile {
		if r, ok := parseReply([]byte(b)); ok {
			t.Errorf("%s: let in as %+v", name, r)
		}
	}
}

// spec/71-dht.md#what-is-let-in
func TestFieldsOfWrongSizeAreLeftOut(t *testing.T) {
	const id = "2:id20:abcdefghij0123456789"
	nodes := func(n, size int) string { return fmt.Sprintf("%d:%s", n*size, strings.Repeat("n", n*size)) }
	proof := "1:k32:" + strings.Repeat("k", 32)
	sig := "3:sig64:" + strings.Repeat("s", 64)
	for _, tc := range []struct{ name, body, want string }{
		{"nothing more", id, id},
		{"unknown fields", id + "1:zd1:ali1eee", id},
		{"nodes", id + "5:nodes" + nodes(2, 26), id + "5:nodes" + nodes(2, 26)},
		{"nodes and a bit", id + "5:nodes27:" + strings.Repeat("n", 27), id},
		{"too many nodes", id + "5:nodes" + nodes(33, 26), id},
		{"nodes as a number", id + "5:nodesi3e", id},
		{"nodes6", id + "6:nodes6" + nodes(3, 38), id + "6:nodes6" + nodes(3, 38)},
		{"nodes6 and a bit", id + "6:nodes639:" + strings.Repeat("n", 39), id},
		{"long token", id + "5:token257:" + strings.Repeat("x", 257), id},
		{"peers, one of a wrong size", id + "6:valuesl6:abcdef1:x5:abcdei1e18:abcdefghijklmnopqre", id + "6:valuesl6:abcdef18:abcdefghijklmnopqre"},
		{"peers that are a string", id + "6:values6:abcdef", id},
		{"an item", id + proof + "3:seqi5e" + sig + "1:v3:abc", id + proof + "3:seqi5e" + sig + "1:v3:abc"},
		{"an item in disorder", "1:v3:abc" + sig + "3:seqi5e" + proof + id, id + proof + "3:seqi5e" + sig + "1:v3:abc"},
		{"an item without sequence number", id + proof + sig + "1:v3:abc", id},
		{"a sequence number of more than 64 bits", id + proof + "3:seqi9223372036854775808e" + sig + "1:v3:abc", id},
		{"an item with a short key", id + "1:k31:" + strings.Repeat("k", 31) + "3:seqi5e" + sig + "1:v3:abc", id},
		{"an item with a long signature", id + proof + "3:seqi5e3:sig65:" + strings.Repeat("s", 65) + "1:v3:abc", id},
		{"an item that is a list", id + proof + "3:seqi5e" + sig + "1:vl1:ae", id},
		{"an item too long", id + proof + "3:seqi5e" + sig + "1:v997:" + strings.Repeat("v", 997), id},
		{"only a key", id + proof, id},
	} {
		r, ok := parseReply([]byte("d1:rd" + tc.body + "e1:t2:aa1:y1:re"))
		if !ok && tc.name != "a sequence number of more than 64 bits" {
			t.Errorf("%s: dropped whole", tc.name)
			continue
		}
		if got, want := string(r.append(nil, "X")), "d1:rd"+tc.want+"e1:t1:X1:y1:re"; ok && got != want {
			t.Errorf("%s: passed on as\n%q, want\n%q", tc.name, got, want)
		}
	}
}

// FuzzParseReply: whatever comes, what is passed on is short, is understood by the library, and passes again as it is.
func FuzzParseReply(f *testing.F) {
	for _, b := range hostile {
		f.Add([]byte(b))
	}
	f.Add([]byte("d2:ip6:abcdef1:rd2:id20:abcdefghij01234567895:nodes26:abcdefghijklmnopqrstuvwxyz5:token1:xe1:t2:aa1:y1:re"))
	f.Add([]byte("d1:eli204e14:Method Unknowne1:t2:aa1:y1:ee"))
	f.Add([]byte("d1:rd2:id20:abcdefghij01234567891:k32:" + strings.Repeat("k", 32) + "3:seqi5e3:sig64:" + strings.Repeat("s", 64) +
		"1:v3:abc6:valuesl6:abcdefee1:t2:aa1:y1:re"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseReply(b)
		if !ok {
			return
		}
		out := r.append(nil, "abcd")
		if len(out) > maxDatagram+16 {
			t.Errorf("%d bytes became %d", len(b), len(out))
		}
		var m krpc.Msg
		if err := bencode.Unmarshal(out, &m); err != nil || m.T != "abcd" || (m.Y == "r") == r.failed {
			t.Fatalf("passed on %q, which the library reads as %+v, %v", out, m, err)
		}
		if m.R != nil && m.R.V != nil && m.R.Seq == nil {
			t.Errorf("passed on a value without sequence number: %q", out)
		}
		again, ok := parseReply(out)
		if len(out) <= maxDatagram && (!ok || !bytes.Equal(again.append(nil, "abcd"), out)) {
			t.Errorf("%q does not pass again", out)
		}
	})
}

// spec/71-dht.md#what-is-let-in
func TestOnlyTheOneThatWasAskedAnswersOnce(t *testing.T) {
	var sent [][]byte
	seen := 0
	c := newConn(func(b []byte, _ netip.AddrPort) { sent = append(sent, b) }, func(Observation) { seen++ })
	for _, was := range []string{"\x01", "\x02"} {
		if _, err := c.WriteTo([]byte("d1:ad2:id20:abcdefghij0123456789e1:q3:get2:roi1e1:t1:"+was+"1:y1:qe"), udpAddr(someone)); err != nil {
			t.Fatal(err)
		}
	}
	one, two := parseQuery(t, sent[0]), parseQuery(t, sent[1])
	if one.t == two.t || len(one.t) != 4 || one.method != "get" || !strings.Contains(string(sent[0]), "2:roi1e") {
		t.Fatalf("sent %q and %q", sent[0], sent[1])
	}
	say := func(id string) []byte {
		return []byte("d2:ip6:\x01\x02\x03\x04\x05\x061:rd2:id20:abcdefghij0123456789e1:t" + fmt.Sprint(len(id)) + ":" + id + "1:y1:re")
	}
	elsewhere := netip.MustParseAddrPort("46.1.2.4:6881")
	for _, tc := range []struct {
		name string
		b    []byte
		from netip.AddrPort
		want bool
	}{
		{"the id that the library chose", say("\x01"), someone, false},
		{"no id", say(""), someone, false},
		{"another id", say("abcd"), someone, false},
		{"from another host", say(one.t), elsewhere, false},
		{"from another port", say(one.t), netip.AddrPortFrom(someone.Addr(), 6882), false},
		{"right", say(one.t), someone, true},
		{"right, again", say(one.t), someone, false},
		{"right, the other", say(two.t), someone, true},
	} {
		if got := c.deliver(tc.b, tc.from); got != tc.want {
			t.Errorf("%s: taken %v, want %v", tc.name, got, tc.want)
		}
	}
	b := make([]byte, 2048)
	n, _, _ := c.ReadFrom(b)
	if want := "d1:rd2:id20:abcdefghij0123456789e1:t1:\x011:y1:re"; string(b[:n]) != want {
		t.Errorf("the library gets %q, want %q", b[:n], want)
	}
	if seen != 2 {
		t.Errorf("%d observations of our address, want 2", seen)
	}
}

// spec/71-dht.md#what-is-let-in
func TestALateAnswerIsAStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []byte
		c := newConn(func(b []byte, _ netip.AddrPort) { sent = b }, nil)
		for wait, want := range map[time.Duration]bool{3 * time.Second: true, 4 * time.Second: false} {
			if _, err := c.WriteTo([]byte("d1:q3:get1:t1:x1:y1:qe"), udpAddr(someone)); err != nil {
				t.Fatal(err)
			}
			testnet.Wait(wait)
			if got := c.deliver(answerGet(parseQuery(t, sent).t, "2:id20:abcdefghij0123456789"), someone); got != want {
				t.Errorf("after %v: taken %v, want %v", wait, got, want)
			}
		}
	})
}

func TestAFloodOfStrangersCostsNothing(t *testing.T) {
	c := New(Config{Send: func([]byte, netip.AddrPort) {}})
	defer c.Close()
	b := []byte(hostile["query"])
	if n := testing.AllocsPerRun(100, func() { c.Deliver(b, someone) }); n != 0 {
		t.Errorf("%v allocations for a datagram while nothing is asked", n)
	}
	k := newConn(func([]byte, netip.AddrPort) {}, nil)
	if n := testing.AllocsPerRun(100, func() { k.deliver(b, someone) }); n != 0 {
		t.Errorf("%v allocations for a stranger's datagram", n)
	}
	if c.Stats().Dropped == 0 {
		t.Error("not counted")
	}
}

// answerGet writes an answer with a body.
func answerGet(id string, body string) []byte {
	return fmt.Appendf(nil, "d1:rd%se1:t%d:%s1:y1:re", body, len(id), id)
}

// guide adds a host to begin with: it tells of nodes, whoever is looked for.
func (s *swarm) guide(a string, tell func(target [20]byte) []byte) []string {
	ap := netip.MustParseAddrPort(a)
	s.play("guide"+a, ap, func(b []byte, _ netip.AddrPort) [][]byte {
		q, nodes := parseQuery(s.t, b), []byte(nil)
		nodes = tell(q.target)
		return [][]byte{answerGet(q.t, fmt.Sprintf("2:id20:abcdefghij01234567895:nodes%d:%s", len(nodes), nodes))}
	})
	return []string{a}
}

// honest are some nodes of the swarm, as a list.
func (s *swarm) honest(n int) (out []byte) {
	for i := range n {
		id := s.nodes[i].ID()
		out = append(out, compact(id, s.addrs[i])...)
	}
	return out
}

// spec/71-dht.md#items
func TestHostileStorersDoNoHarm(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		priv, other := newKey(t), newKey(t)
		pub := public25519(priv)
		where := target(pub, nil)
		item := func(key []byte, seq int64, value string, sign func() []byte) string {
			return fmt.Sprintf("1:k32:%s3:seqi%de3:sig64:%s5:token1:x1:v%d:%s", key, seq, sign(), len(value), value)
		}
		signed := func(seq int64, value string) func() []byte {
			return func() []byte { return bep44.Sign(priv, nil, seq, fmt.Appendf(nil, "%d:%s", len(value), value)) }
		}
		zeros := func() []byte { return make([]byte, 64) }
		const crash = "\x00" // the body is a whole datagram
		bodies := []string{
			item(pub, 1, "old", signed(1, "old")),
			item(pub, math.MaxInt64, "forged", zeros),
			item(pub, math.MaxInt64, "moved", signed(1, "moved")),
			item(public25519(other), 99, "of another", func() []byte { return bep44.Sign(other, nil, 99, []byte("10:of another")) }),
			"1:k32:" + string(pub) + "3:sig64:" + string(make([]byte, 64)) + "1:v3:abc",
			"6:valuesl1:xe", "5:token1:x", "5:nodes26:" + strings.Repeat("\xff", 26),
			crash + hostile["query without arguments"], crash + hostile["address of one byte alone"], crash + "d1:eli204e1:xe1:t%s1:y1:ee", crash,
		}
		var list []byte
		for i, body := range bodies {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881)
			id := near(where, byte(i+1))
			s.play(fmt.Sprint("hostile", i), a, func(b []byte, _ netip.AddrPort) [][]byte {
				q := parseQuery(t, b)
				if whole, ok := strings.CutPrefix(body, crash); ok {
					return [][]byte{[]byte(strings.ReplaceAll(whole, "%s", fmt.Sprintf("%d:%s", len(q.t), q.t)))}
				}
				var out [][]byte
				for _, h := range hostile {
					out = append(out, []byte(h))
				}
				return append(out, answerGet(q.t, fmt.Sprintf("2:id20:%s%s", id, body)))
			})
			list = append(list, compact(id, a)...)
		}
		guide := s.guide("47.0.0.1:6881", func([20]byte) []byte { return append(list[:12*26:12*26], s.honest(4)...) })
		writer, _ := s.client("writer", Config{Bootstrap: guide}, "93.184.216.34")
		ctx, cancel := within(time.Minute)
		defer cancel()
		if stored, err := writer.Put(ctx, priv, nil, 7, 1, []byte("true")); err != nil || stored < 8 {
			t.Fatalf("stored on %d, error %v", stored, err)
		}
		reader, _ := s.client("reader", Config{Bootstrap: guide}, "93.184.217.34")
		began := time.Now()
		seq, got, err := reader.Get(ctx, pub, nil)
		t.Logf("got after %v: %+v", time.Since(began), reader.Stats())
		if err != nil || seq != 7 || string(got) != "true" {
			t.Errorf("got %d %q, %v, want 7, true", seq, got, err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// spec/71-dht.md#whom-to-ask
func TestNobodyCanAimUsAtAVictim(t *testing.T) {
	in(t, 30, func(t *testing.T, s *swarm) {
		liar := func(where [20]byte, offset int) (out []byte) {
			add := func(a string) {
				out = append(out, compact(near(where, byte(offset+len(out)/26)), netip.MustParseAddrPort(a))...)
			}
			for port := range 6 {
				add(fmt.Sprint("48.1.1.1:", 5000+offset*16+port))
			}
			for i := range 4 {
				add(fmt.Sprintf("48.2.%d.%d:6881", offset, i))
			}
			for _, a := range []string{"192.168.1.1:6881", "127.0.0.1:4242", "224.0.0.251:5353", "48.3.1.1:53", "100.64.0.1:6881", "0.0.0.0:6881"} {
				add(a)
			}
			return out
		}
		for i := range 6 {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881)
			s.play(fmt.Sprint("liar", i), a, func(b []byte, _ netip.AddrPort) [][]byte {
				q := parseQuery(t, b)
				id, nodes := near(q.target, byte(100+i)), liar(q.target, 16*i+1)
				return [][]byte{answerGet(q.t, fmt.Sprintf("2:id20:%s5:nodes%d:%s", id, len(nodes), nodes))}
			})
		}
		guide := s.guide("47.0.0.1:6881", func(where [20]byte) (out []byte) {
			for i := range 6 {
				out = append(out, compact(near(where, byte(100+i)), netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881))...)
			}
			return append(out, s.honest(8)...)
		})
		c, _ := s.client("c", Config{Bootstrap: guide}, "93.184.216.34")
		ctx, cancel := within(5 * time.Minute)
		defer cancel()
		if _, _, err := c.Get(ctx, public25519(newKey(t)), nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
		host, block := 0, 0
		for _, p := range s.sent("93.184.216.34") {
			switch a := p.To.Addr(); {
			case a == netip.MustParseAddr("48.1.1.1"):
				host++
			case netip.MustParsePrefix("48.2.0.0/16").Contains(a):
				block++
			case !public(a) || p.To.Port() < 1024:
				t.Errorf("sent to %v", p.To)
			}
		}
		if host == 0 || host > 3 || block == 0 || block > 8 {
			t.Errorf("sent %d to one host and %d into one block, want 3 and 8 at most", host, block)
		}
		if st := c.Stats(); st.Queries > 200 {
			t.Errorf("%d queries", st.Queries)
		}
	})
}

// spec/71-dht.md#looking-up
func TestNodesOfOneBlockCannotSurroundAnItem(t *testing.T) {
	in(t, 40, func(t *testing.T, s *swarm) {
		priv := newKey(t)
		where := target(public25519(priv), nil)
		var list []byte
		for i := range 16 { // they store everything, and have nothing
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, 1, byte(i), 1}), 6881)
			id := near(where, byte(i+1))
			s.play(fmt.Sprint("sybil", i), a, func(b []byte, _ netip.AddrPort) [][]byte {
				return [][]byte{answerGet(parseQuery(t, b).t, fmt.Sprintf("2:id20:%s5:nodes%d:%s5:token1:x", id, 12*26, list[:12*26]))}
			})
			list = append(list, compact(id, a)...)
		}
		guide := s.guide("47.0.0.1:6881", func([20]byte) []byte { return append(list[:12*26:12*26], s.honest(4)...) })
		writer, _ := s.client("writer", Config{Bootstrap: guide}, "93.184.216.34")
		ctx, cancel := within(time.Minute)
		defer cancel()
		if stored, err := writer.Put(ctx, priv, nil, 7, 0, []byte("true")); err != nil || stored < 8 {
			t.Fatalf("stored on %d, error %v", stored, err)
		}
		reader, _ := s.client("reader", Config{Bootstrap: guide}, "93.184.217.34")
		if _, got, err := reader.Get(ctx, public25519(priv), nil); err != nil || string(got) != "true" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// spec/71-dht.md#limits
func TestEndlessPromisesEnd(t *testing.T) {
	in(t, 1, func(t *testing.T, s *swarm) {
		var count atomic.Int64
		promise := func(where [20]byte) (out []byte) {
			for range 16 { // ever nearer, none of them there
				n := int(count.Add(1))
				id := where
				id[18], id[19] = byte(0xff-n/256), byte(n)
				out = append(out, compact(id, netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(60 + n%90), byte(n / 90), 1, 1}), 6881))...)
			}
			return out
		}
		var liars []byte
		for i := range 12 {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{46, byte(i), 1, 1}), 6881)
			id := sha([]byte{byte(i)})
			s.play(fmt.Sprint("liar", i), a, func(b []byte, _ netip.AddrPort) [][]byte {
				q := parseQuery(t, b)
				return [][]byte{answerGet(q.t, fmt.Sprintf("2:id20:%s5:nodes%d:%s", id, 16*26, promise(q.target)))}
			})
			liars = append(liars, compact(id, a)...)
		}
		guide := s.guide("47.0.0.1:6881", func([20]byte) []byte { return liars })
		c, _ := s.client("c", Config{Bootstrap: guide}, "93.184.216.34")
		ctx, cancel := within(5 * time.Minute)
		defer cancel()
		began := time.Now()
		_, _, err := c.Get(ctx, public25519(newKey(t)), nil)
		st := c.Stats()
		if !errors.Is(err, ErrNotFound) || st.Queries > 200 || time.Since(began) > time.Minute {
			t.Errorf("ended after %v and %d queries with %v", time.Since(began), st.Queries, err)
		}
		if len(c.Nodes()) > maxSaved {
			t.Errorf("remembers %d nodes", len(c.Nodes()))
		}
	})
}

func TestTheTableOfNodesIsCapped(t *testing.T) {
	k := known{nodes: map[netip.AddrPort]*knownNode{}}
	now := time.Now()
	for i := range 2000 {
		k.good(now.Add(time.Duration(i)), Node{sha([]byte{byte(i), byte(i >> 8)}), netip.AddrPortFrom(netip.AddrFrom4([4]byte{60, 1, byte(i >> 8), byte(i)}), 6881)})
	}
	if len(k.nodes) != maxKnownPrefix {
		t.Errorf("%d nodes of one block", len(k.nodes))
	}
	for i := range 2000 {
		k.good(now.Add(time.Duration(i)), Node{sha([]byte{byte(i), byte(i >> 8)}), netip.AddrPortFrom(netip.AddrFrom4([4]byte{70 + byte(i>>8), byte(i), 1, 1}), 6881)})
	}
	newest := k.newest()
	if len(k.nodes) != maxKnown || len(newest) != maxSaved || newest[0].Addr.Addr() != netip.AddrFrom4([4]byte{77, 0xcf, 1, 1}) {
		t.Errorf("%d nodes, %d to save, first %v", len(k.nodes), len(newest), newest[0])
	}
}
