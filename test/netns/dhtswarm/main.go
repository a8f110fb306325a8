// Command dhtswarm is a Mainline DHT for tests: nodes of the library anacrolix/dht, which know and answer each other, store items
// (BEP 44) and remember who announced what (BEP 5), on the addresses of one host.
//
//	dhtswarm NODES HOSTILE [old]    node i, from 1, is at 45.i.7.1, port 6881; the host has these addresses
//
// With old, they know nothing of items and refuse to get and put them. The last HOSTILE of them lie, see [node.lie]. It prints "ready", then a line of JSON for each query for an item and for each
// item stored, and runs until SIGTERM. What it stored it forgets with its end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	library "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
	peerstore "github.com/anacrolix/dht/v2/peer-store"
	alog "github.com/anacrolix/log"
	"golang.org/x/time/rate"
)

const port = 6881

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dhtswarm:", err)
		os.Exit(1)
	}
}

// line is what is printed for each event; package lab reads it.
type line struct {
	Node   int    // that was asked
	Lies   bool   // it is one of the hostile ones
	What   string // "get", "put", "stored" or "announced"
	From   string // who asked, or is announced; not of "stored"
	Target []byte
	Key    []byte `json:",omitempty"` // of "put" and "stored", as what follows
	Salt   []byte `json:",omitempty"`
	Value  []byte `json:",omitempty"`
	Seq    int64
}

// swarm is all nodes of this process.
type swarm struct {
	old bool // the nodes know nothing of items

	mu    sync.Mutex // guards what follows
	out   *json.Encoder
	first map[[20]byte]*krpc.MsgArgs // the first put of each item, which the hostile ones tell for ever
}

func (s *swarm) print(l line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Encode(l) //nolint:errcheck // nobody reads any more
}

// node is one of them.
type node struct {
	*swarm
	number  int
	hostile bool
	peers   map[peerstore.InfoHash][]krpc.NodeAddr
	conn    net.PacketConn
	id      krpc.ID
	*bep44.Memory
}

// Put stores an item that the library has checked.
func (n *node) Put(i *bep44.Item) error {
	target := i.Target()
	text, _ := i.V.(string)
	n.print(line{Node: n.number, What: "stored", Target: target[:], Key: i.K[:], Salt: i.Salt, Value: []byte(text), Seq: i.Seq})
	return n.Memory.Put(i)
}

// AddPeer remembers who announced what, for as long as the node runs.
func (n *node) AddPeer(hash peerstore.InfoHash, a krpc.NodeAddr) {
	n.print(line{Node: n.number, What: "announced", From: a.String(), Target: hash[:]})
	n.mu.Lock()
	defer n.mu.Unlock()
	if have := n.peers[hash]; !slices.ContainsFunc(have, a.Equal) {
		n.peers[hash] = append(have, a)
	}
}

// GetPeers lists them.
func (n *node) GetPeers(hash peerstore.InfoHash) []krpc.NodeAddr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.peers[hash])
}

func run() error {
	if len(os.Args) < 3 {
		return errors.New("usage: dhtswarm NODES HOSTILE [old]")
	}
	count, err1 := strconv.Atoi(os.Args[1])
	hostile, err2 := strconv.Atoi(os.Args[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := &swarm{old: len(os.Args) == 4 && os.Args[3] == "old", out: json.NewEncoder(os.Stdout), first: map[[20]byte]*krpc.MsgArgs{}}
	var servers []*library.Server
	var addrs []*net.UDPAddr
	for i := 1; i <= count; i++ {
		server, addr, err := s.start(i, i > count-hostile)
		if err != nil {
			return err
		}
		defer server.Close()
		servers, addrs = append(servers, server), append(addrs, addr)
	}
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { // ends with its pings; waited for below
			for j := 1; j < count; j++ {
				server.Ping(addrs[(i+j)%count])
			}
		})
	}
	wg.Wait()
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

// start makes node i.
func (s *swarm) start(i int, hostile bool) (*library.Server, *net.UDPAddr, error) {
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{45, byte(i), 7, 1}), port))
	conn, err := net.ListenUDP("udp4", addr)
	if err != nil {
		return nil, nil, err
	}
	n := &node{swarm: s, number: i, hostile: hostile, peers: map[peerstore.InfoHash][]krpc.NodeAddr{}, conn: conn, id: krpc.RandomNodeID(), Memory: bep44.NewMemory()}
	library.SecureNodeId(&n.id, addr.IP)
	quiet := alog.Default.WithFilterLevel(alog.Critical)
	quiet.Handlers = nil
	server, err := library.NewServer(&library.ServerConfig{Conn: conn, NodeId: n.id, NoSecurity: true, Logger: quiet, OnQuery: n.query,
		SendLimiter: rate.NewLimiter(rate.Inf, 0), Store: n, Exp: 2 * time.Hour, PeerStore: n})
	return server, addr, err
}

// query sees each query before the library does, which answers it if this returns true.
func (n *node) query(q *krpc.Msg, from net.Addr) bool {
	if q.A == nil {
		return false
	}
	l := line{Node: n.number, Lies: n.hostile, What: q.Q, From: from.String(), Target: q.A.Target[:]}
	switch q.Q {
	case "get":
		n.print(l)
	case "put":
		item := bep44.Item{V: q.A.V, K: q.A.K, Salt: q.A.Salt}
		target, text := item.Target(), ""
		text, _ = q.A.V.(string)
		l.Target, l.Key, l.Salt, l.Value = target[:], q.A.K[:], q.A.Salt, []byte(text)
		if q.A.Seq != nil {
			l.Seq = *q.A.Seq
		}
		n.print(l)
		n.mu.Lock()
		if n.first[target] == nil && q.A.Seq != nil {
			n.first[target] = q.A
		}
		n.mu.Unlock()
	}
	if q.A.InfoHash.IsZero() { // the library looks for nodes near info_hash only
		q.A.InfoHash = q.A.Target
	}
	if n.old && (q.Q == "get" || q.Q == "put") {
		n.send(from, fmt.Sprintf("d1:eli204e14:Method Unknowne1:t%d:%s1:y1:ee", len(q.T), q.T))
		return false
	}
	if n.hostile && (q.Q == "get" || q.Q == "put") {
		n.lie(q, from)
		return false
	}
	return true
}
