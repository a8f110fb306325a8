package discover

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Key is a discovery key: the secret of the present members from which all slots and beacons follow
// (spec/10-identity.md#discovery-key). The zero Key means none.
type Key = key.DiscoveryKey

// Target is the name of an item in the DHT: SHA-1 of its public key.
type Target [sha1.Size]byte

const (
	slots     = 4         // of a network and day
	joinSlot  = 0         // the index of the one slot of an invite and day
	daySecs   = 24 * 3600 // seconds
	portFirst = 16384     // of the ports of beacons: below what systems give out by themselves
	portCount = 16384
)

// family is all that follows from one secret: a discovery key or a join key (spec/70-discover.md#derivations).
type family struct {
	root   [32]byte
	join   bool
	offset int64 // seconds after midnight UTC at which its day begins
	beacon [32]byte
	groups [2]netip.AddrPort // IPv4, IPv6
}

func newFamily(root [32]byte, join bool) *family {
	f := &family{root: root, join: join, beacon: [32]byte(derive(root[:], "warren beacon key v1", nil, 32))}
	f.offset = int64(binary.BigEndian.Uint64(derive(root[:], "warren day v1", nil, 8)) % daySecs)
	g := derive(root[:], "warren beacon group v1", nil, 20)
	port := portFirst + binary.BigEndian.Uint16(g[18:])%portCount
	four := netip.AddrFrom4([4]byte{239, 192 | g[0]&3, g[1], g[2]})
	six := [16]byte{0xff, 0x12}
	copy(six[2:], g[4:18])
	six[12] |= 0x80 // RFC 3307: a group id that nobody was assigned
	f.groups = [2]netip.AddrPort{netip.AddrPortFrom(four, port), netip.AddrPortFrom(netip.AddrFrom16(six), port)}
	return f
}

// day returns the number of the family's day at t.
func (f *family) day(t time.Time) int64 {
	secs := t.Unix() - f.offset
	if secs < 0 {
		secs -= daySecs - 1
	}
	return secs / daySecs
}

// begin returns when a day begins.
func (f *family) begin(day int64) time.Time { return time.Unix(day*daySecs+f.offset, 0) }

// slot is one mutable item of the DHT (BEP 44): where it lies, who may write it, how its value is sealed.
type slot struct {
	f       *family
	day     int64
	index   int
	private ed25519.PrivateKey
	public  ed25519.PublicKey
	target  Target
	seal    [32]byte
}

func (f *family) slot(day int64, index int) *slot {
	label := "warren slot v1"
	if f.join {
		label = "warren join slot v1"
	}
	info := append(binary.BigEndian.AppendUint64(nil, uint64(day)), byte(index))
	b := derive(f.root[:], label, info, 64)
	s := &slot{f: f, day: day, index: index, private: ed25519.NewKeyFromSeed(b[:32]), seal: [32]byte(b[32:])}
	s.public = s.private.Public().(ed25519.PublicKey)
	s.target = sha1.Sum(s.public) // BEP 44 wants SHA-1; nothing rests on it
	return s
}

// rank orders the nodes of a slot: the lowest publish (spec/70-discover.md#publishers).
func rank(day int64, index int, id key.ShortID) [8]byte {
	b := append(binary.BigEndian.AppendUint64(nil, uint64(day)), byte(index))
	h := sha256.Sum256(append(b, id[:]...))
	return [8]byte(h[:])
}

// derive is HKDF-SHA256 with an empty salt; it cannot fail for outputs this short (RFC 5869).
func derive(secret []byte, label string, info []byte, size int) []byte {
	out, err := hkdf.Key(sha256.New, secret, nil, label+string(info), size)
	if err != nil {
		panic("BUG: hkdf: " + err.Error())
	}
	return out
}
