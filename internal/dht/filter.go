package dht

import (
	"encoding/binary"
	"net/netip"
)

// What a datagram may hold. A reply with a value of 1000 bytes, its proof and sixteen nodes has less than 2048.
const (
	maxDatagram = 2048
	maxNodes    = 32 // of each family
	maxPeers    = 128
	maxToken    = 256
	maxValue    = 1000 // bencoded

	node4, node6 = 20 + 4 + 2, 20 + 16 + 2 // bytes of a node in a list
)

// reply is what of a datagram may go further. Slices are into the datagram.
type reply struct {
	t      []byte
	seen   netip.AddrPort // our address as the sender saw it; zero: not said
	failed bool           // an error; nothing below is set but code
	code   int64

	id            [20]byte
	nodes, nodes6 []byte
	token         []byte
	value         []byte // bencoded; with key, signature and sequence, or not at all
	key, sig      []byte
	seq           int64
	peers         [][]byte
}

// parseReply reads an answer to a query. What is no proper answer is refused whole; a field of the wrong size within a proper
// answer is left out. Queries are refused: a read-only node answers none.
// spec/71-dht.md#what-is-let-in
func parseReply(b []byte) (r reply, ok bool) {
	if len(b) > maxDatagram {
		return r, false
	}
	var kind, body, failure []byte
	s := scanner{b: b}
	ok = s.dict(0, func(key, raw []byte) bool {
		ok := true
		switch string(key) {
		case "y":
			kind, ok = text(raw)
		case "t":
			r.t, ok = text(raw)
		case "r":
			body = raw
		case "e":
			failure = raw
		case "q", "a":
			ok = false
		case "ip":
			if b, is := text(raw); is {
				r.seen, _ = parseAddr(b)
			}
		}
		return ok
	})
	if !ok || s.at != len(b) {
		return r, false
	}
	switch string(kind) {
	case "r":
		return r, failure == nil && r.parseBody(body)
	case "e":
		r.failed = true
		return r, body == nil && r.parseFailure(failure)
	}
	return r, false
}

func (r *reply) parseBody(raw []byte) bool {
	var id, value []byte
	seq, haveSeq := int64(0), false
	s := scanner{b: raw}
	ok := s.dict(1, func(key, raw []byte) bool {
		b, isText := text(raw)
		switch string(key) {
		case "id":
			id = b
		case "nodes":
			r.nodes = whole(b, node4)
		case "nodes6":
			r.nodes6 = whole(b, node6)
		case "token":
			if len(b) <= maxToken {
				r.token = b
			}
		case "v":
			if isText && len(raw) <= maxValue {
				value = raw
			}
		case "k":
			r.key = b
		case "sig":
			r.sig = b
		case "seq":
			seq, haveSeq = number(raw)
		case "values":
			r.peers = parsePeers(raw)
		}
		return true
	})
	if !ok || s.at != len(raw) || len(id) != len(r.id) {
		return false
	}
	copy(r.id[:], id)
	if value != nil && len(r.key) == 32 && len(r.sig) == 64 && haveSeq {
		r.value, r.seq = value, seq
	} else {
		r.key, r.sig = nil, nil
	}
	return true
}

func (r *reply) parseFailure(raw []byte) bool {
	n := 0
	s := scanner{b: raw}
	return s.list(1, func(raw []byte) bool {
		if n++; n == 1 {
			code, ok := number(raw)
			r.code = code
			return ok && code >= 0 && code < 1000
		}
		return true
	}) && n >= 1 && s.at == len(raw)
}

// whole is b if it is a list of nodes of that size.
func whole(b []byte, size int) []byte {
	if len(b)%size != 0 || len(b)/size > maxNodes {
		return nil
	}
	return b
}

func parsePeers(raw []byte) (peers [][]byte) {
	s := scanner{b: raw}
	ok := s.list(2, func(raw []byte) bool {
		if b, isText := text(raw); isText && (len(b) == 6 || len(b) == 18) && len(peers) < maxPeers {
			peers = append(peers, b)
		}
		return true
	})
	if !ok {
		return nil
	}
	return peers
}

// parseAddr reads an address and a port of 6 or 18 bytes.
func parseAddr(b []byte) (netip.AddrPort, bool) {
	if len(b) != 6 && len(b) != 18 {
		return netip.AddrPort{}, false
	}
	a, _ := netip.AddrFromSlice(b[:len(b)-2])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[len(b)-2:])), true
}

// appendReply writes r anew, with the transaction id that the library gave its query: only what parseReply let through, in the one
// right spelling.
func (r *reply) append(dst []byte, t string) []byte {
	if r.failed {
		dst = append(dst, "d1:el"...)
		dst = appendNumber(dst, r.code)
		dst = append(dst, "0:e"...)
		return appendEnd(dst, t, "e")
	}
	dst = append(dst, "d1:rd2:id"...)
	dst = appendText(dst, r.id[:])
	dst = appendField(dst, "k", r.key)
	dst = appendField(dst, "nodes", r.nodes)
	dst = appendField(dst, "nodes6", r.nodes6)
	if r.value != nil {
		dst = appendText(dst, "seq")
		dst = appendNumber(dst, r.seq)
	}
	dst = appendField(dst, "sig", r.sig)
	dst = appendField(dst, "token", r.token)
	if r.value != nil {
		dst = append(append(dst, "1:v"...), r.value...)
	}
	if len(r.peers) > 0 {
		dst = append(appendText(dst, "values"), 'l')
		for _, p := range r.peers {
			dst = appendText(dst, p)
		}
		dst = append(dst, 'e')
	}
	return appendEnd(append(dst, 'e'), t, "r")
}

func appendField(dst []byte, key string, b []byte) []byte {
	if b == nil {
		return dst
	}
	return appendText(appendText(dst, key), b)
}

func appendEnd(dst []byte, t, kind string) []byte {
	dst = appendText(append(dst, "1:t"...), t)
	return append(appendText(append(dst, "1:y"...), kind), 'e')
}

// withTransaction returns a copy of the query b with another transaction id, and the one it had.
func withTransaction(b []byte, t []byte) (out []byte, was string, ok bool) {
	s := scanner{b: b}
	ok = s.dict(0, func(key, raw []byte) bool {
		if string(key) != "t" {
			return true
		}
		old, isText := text(raw)
		was = string(old)
		end := s.at
		out = append(make([]byte, 0, len(b)+8), b[:end-len(raw)]...)
		out = append(appendText(out, t), b[end:]...)
		return isText
	})
	return out, was, ok && out != nil
}
