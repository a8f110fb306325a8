package main

import (
	"crypto/rand"
	"fmt"
	"math"
	"net"

	"github.com/anacrolix/dht/v2/krpc"
)

// lie answers a query for an item as one of five kinds of liars, all of whom claim to store what they are given, and of whom
// the first two tell the asker a false address:
//
//	0   a value of random bytes with the highest sequence number there is, under the right key if it is known
//	1   the oldest value, under the highest sequence number
//	2   the oldest value, as it was
//	3   datagrams that are not what they should be; some have crashed the library
//	4   silence
func (n *node) lie(q *krpc.Msg, from net.Addr) {
	kind := n.number % 5
	if kind == 4 {
		return
	}
	id := string(n.id[:])
	if q.Q == "put" {
		n.send(from, fmt.Sprintf("d1:rd2:id20:%se1:t%d:%s1:y1:re", id, len(q.T), q.T))
		return
	}
	if kind == 3 {
		for _, b := range []string{
			"d1:q3:put1:t%d:%s1:y1:qe", "d2:ip1:x1:t%d:%s1:y1:re", "d1:t%d:%s1:y1:re", "d1:eli1e1:xe1:rd2:id20:" + id + "e1:t%d:%s1:y1:re",
			"d1:rd2:id20:" + id + "5:nodes27:" + random(27) + "e1:t%d:%s1:y1:re", "d1:ad2:id20:" + id + "e1:q4:ping1:t%d:%s1:y1:qe",
		} {
			n.send(from, fmt.Sprintf(b, len(q.T), q.T))
		}
		return
	}
	n.mu.Lock()
	first := n.first[q.A.Target]
	n.mu.Unlock()
	key, sig, value, seq := random(32), random(64), random(900), int64(math.MaxInt64)
	if first != nil {
		key = string(first.K[:])
		if kind > 0 {
			sig = string(first.Sig[:])
			value, _ = first.V.(string)
		}
		if kind == 2 {
			seq = *first.Seq
		}
	}
	seen := ""
	if kind < 2 {
		seen = "2:ip6:\x2d\xc8\x42\x42\x1a\xe1" // 45.200.66.66:6881, who is nobody
	}
	n.send(from, fmt.Sprintf("d%s1:rd2:id20:%s1:k32:%s3:seqi%de3:sig64:%s5:token4:open1:v%d:%se1:t%d:%s1:y1:re",
		seen, id, key, seq, sig, len(value), value, len(q.T), q.T))
}

func (n *node) send(to net.Addr, datagram string) {
	n.conn.WriteTo([]byte(datagram), to) //nolint:errcheck // lost as on a wire
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}
