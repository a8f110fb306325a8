package nat

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// Servers that say from where a datagram came (spec/73-nat.md#servers).
const (
	maxServers   = 8
	serversAsked = 2 // in a round
	serverTries  = 3
	serverWait   = 500 * time.Millisecond // for the first answer; doubles
	serverRest   = 5 * time.Second        // between two rounds
)

// server is one that the owner of this machine named.
type server struct {
	addr  netip.AddrPort
	id    [stunID]byte
	tries int       // of the question under way
	due   time.Time // of the next one; zero: nothing is asked
	asked time.Time // first, in the last round
	heard time.Time // an answer
}

// AskServer wants Data sent to To by our socket. What comes back from there goes to [Engine.HandleServer].
type AskServer struct {
	To   netip.AddrPort
	Data []byte
}

func (AskServer) effect() {}

// SetServers replaces the servers that may be asked, eight at most, and asks the first two.
func (e *Engine) SetServers(now time.Time, addrs []netip.AddrPort) {
	e.servers = nil
	for _, a := range addrs {
		if a = unmap(a); len(e.servers) < maxServers && a.Port() != 0 && !reserved(a.Addr()) &&
			!slices.ContainsFunc(e.servers, func(s *server) bool { return s.addr == a }) {
			e.servers = append(e.servers, &server{addr: a})
		}
	}
	e.roundAt = time.Time{}
	e.Freshen(now)
}

// Freshen asks two servers, those that were asked longest ago: our addresses are about to be told to a peer. It does nothing when
// that was done within 5 s, or when there are no servers.
func (e *Engine) Freshen(now time.Time) {
	if !e.roundAt.IsZero() && now.Sub(e.roundAt) < serverRest || len(e.servers) == 0 {
		return
	}
	e.roundAt = now
	byAge := slices.Clone(e.servers)
	slices.SortStableFunc(byAge, func(a, b *server) int { return a.asked.Compare(b.asked) })
	for _, s := range byAge[:min(len(byAge), serversAsked)] {
		if _, err := io.ReadFull(e.cfg.Rand, s.id[:]); err != nil {
			e.log.Warn("no random id for a question", "err", err)
			return
		}
		s.asked, s.tries, s.due = now, 0, now
	}
	e.tickServers(now)
}

// tickServers sends what is due and returns when there is more; zero is never.
func (e *Engine) tickServers(now time.Time) (next time.Time) {
	for _, s := range e.servers {
		switch {
		case s.due.IsZero():
		case s.due.After(now):
			next = earlier(next, s.due)
		case s.tries == serverTries:
			s.due = time.Time{}
		default:
			s.due = now.Add(serverWait << s.tries)
			s.tries++
			next = earlier(next, s.due)
			e.Tried(now, s.addr)
			e.effects = append(e.effects, AskServer{To: s.addr, Data: stunRequest(s.id)})
		}
	}
	return next
}

// HandleServer takes a datagram that came from from. It reports false if that is no message of STUN, and believes it if it is the
// answer to a question under way. It keeps nothing of b.
func (e *Engine) HandleServer(now time.Time, from netip.AddrPort, b []byte) bool {
	if !wire.IsSTUN(b) {
		return false
	}
	from = unmap(from)
	id, saw, ok := stunAnswer(b)
	i := slices.IndexFunc(e.servers, func(s *server) bool { return s.addr == from && !s.due.IsZero() && s.id == id })
	if !ok || i < 0 {
		return true
	}
	e.servers[i].due, e.servers[i].heard = time.Time{}, now
	e.Observe(now, from, saw)
	return true
}

// Servers says how many servers there are, and how many of them have answered.
func (e *Engine) Servers() (all, answered int) {
	for _, s := range e.servers {
		if !s.heard.IsZero() {
			answered++
		}
	}
	return len(e.servers), answered
}

// randomOr returns r, or the system's if r is nil.
func randomOr(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}

// What of STUN is spoken here (RFC 8489, sections 5, 14 and 14.2): a message is
//
//	type u16 | length u16 of the attributes | magic cookie u32 | transaction id, 12 bytes | attributes
//
// and an attribute type u16 | length u16 | value, filled up to a multiple of 4.
const (
	stunHeader  = 20
	stunID      = 12
	stunAsk     = 0x0001 // binding request
	stunSuccess = 0x0101 // of binding
	stunXOR     = 0x0020 // XOR-MAPPED-ADDRESS: 0 | family u8, 1 or 2 | port u16 | address
)

func stunRequest(id [stunID]byte) []byte {
	b := make([]byte, 0, stunHeader)
	b = binary.BigEndian.AppendUint16(b, stunAsk)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, wire.STUNCookie)
	return append(b, id[:]...)
}

// stunAnswer reads the answer to a request.
func stunAnswer(b []byte) (id [stunID]byte, saw netip.AddrPort, ok bool) {
	if !wire.IsSTUN(b) || binary.BigEndian.Uint16(b) != stunSuccess || int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeader {
		return id, saw, false
	}
	copy(id[:], b[8:])
	for a := b[stunHeader:]; len(a) >= 4; {
		kind, n := binary.BigEndian.Uint16(a), int(binary.BigEndian.Uint16(a[2:]))
		if len(a) < 4+n {
			break
		}
		if v := a[4 : 4+n]; kind == stunXOR && (n == 8 && v[1] == 1 || n == 20 && v[1] == 2) {
			plain := slices.Clone(v[4:])
			for i := range plain {
				plain[i] ^= b[4+i] // the cookie, then the id
			}
			ip, _ := netip.AddrFromSlice(plain) // its length is right
			return id, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(v[2:])^(wire.STUNCookie>>16)), true
		}
		a = a[min(len(a), 4+(n+3)&^3):]
	}
	return id, saw, false
}
