package wireguard

import (
	"sync/atomic"
	"time"

	"github.com/warren-vpn/warren/internal/key"
)

// Notice is what a worker saw that the engine must know; zero is nothing. The owner passes it to [Engine.Notice].
type Notice uint8

// The bits of a Notice.
const (
	// NoticeRekey: the session grows old or was found expired; the engine decides whether a handshake is due.
	NoticeRekey Notice = 1 << iota
	// NoticeConfirm: the first packet came in on a keypair that we made as responder; it may now be sent on.
	NoticeConfirm
)

// Peer is one remote static key. Exported methods may be called from any goroutine; the engine owns the rest.
type Peer struct {
	public key.WGPublic

	sending atomic.Pointer[Keypair] // the engine writes, workers read: current
	fast    atomic.Bool             // the owner writes, workers read: send in the fast form

	// Written by workers and the engine. Nanoseconds, 0 for never or not.
	rx, tx        atomic.Uint64
	lastReceived  atomic.Int64 // any authenticated message
	lastHandshake atomic.Int64 // a session came up
	owes          atomic.Int64 // first data received that nothing sent has answered: a keepalive is due 10 s later
	awaits        atomic.Int64 // first data sent that nothing received has answered: a handshake is due 15 s later

	// Written by the control loop alone.
	psk                     [32]byte
	shared                  []byte // X25519 of the static keys, computed when first needed
	jar                     jar
	previous, current, next *Keypair
	up                      bool // SessionUp was given and no SessionDown since
	removed                 bool

	attempt       attempt
	lastSent      int64     // when a handshake message was last sent to it
	jitter        int64     // added to the time after which unanswered data causes a handshake
	lastInitiated int64     // when its last initiation was accepted
	sentStamp     timestamp // of our last initiation
	seenStamp     timestamp // of its last initiation
}

// attempt is our wish for a session, until it is met or given up. The zero value is no wish.
type attempt struct {
	since   int64       // first initiation, 0: none under way
	retryAt int64       // when to send the next one
	index   uint32      // of the initiation that is out
	noise   *initiation // nil: none is out yet
}

// Public returns the peer's static key.
func (p *Peer) Public() key.WGPublic { return p.public }

// SetFast says whether messages to the peer take the fast form. The owner says yes only of one of Warren's own nodes that has
// said that it reads it; never of a stock peer. The zero is no.
func (p *Peer) SetFast(fast bool) { p.fast.Store(fast) }

// Fast returns what SetFast said.
func (p *Peer) Fast() bool { return p.fast.Load() }

// Sending returns the keypair to seal with, or nil when there is none: then the packet must be staged and
// [Engine.Initiate] called.
func (p *Peer) Sending() *Keypair { return p.sending.Load() }

// RxBytes returns how many bytes of authenticated messages were received, headers of WireGuard included.
func (p *Peer) RxBytes() uint64 { return p.rx.Load() }

// TxBytes returns how many bytes of messages were sent, headers of WireGuard included.
func (p *Peer) TxBytes() uint64 { return p.tx.Load() }

// LastReceived returns when an authenticated message last came (see [Nanos]), 0 for never.
func (p *Peer) LastReceived() int64 { return p.lastReceived.Load() }

// LastHandshake returns when a session last came up (see [Nanos]), 0 for never.
func (p *Peer) LastHandshake() int64 { return p.lastHandshake.Load() }

// Said returns what the peer's clock showed when it made the last initiation that was accepted; zero if there was none. The owner of the
// engine alone calls it. A clock that went back says what it said before.
func (p *Peer) Said() time.Time { return p.seenStamp.time() }

// Sent records that a worker sent transport messages on k at now (see [Nanos]): bytes in all, data when any of them
// was more than a keepalive. It is called once a batch and peer, and also for the keepalives the engine asks for.
func (p *Peer) Sent(now int64, k *Keypair, data bool, bytes int) Notice {
	p.tx.Add(uint64(bytes))
	if p.owes.Load() != 0 {
		p.owes.Store(0)
	}
	if data && p.awaits.Load() == 0 {
		p.awaits.CompareAndSwap(0, now)
	}
	if k.stale(now) && k.ask(now) {
		return NoticeRekey
	}
	return 0
}

// Received records that a worker opened transport messages of k at now (see [Nanos]): bytes in all, data when any of
// them was more than a keepalive. It is called once a batch and keypair.
func (p *Peer) Received(now int64, k *Keypair, data bool, bytes int) Notice {
	p.rx.Add(uint64(bytes))
	p.lastReceived.Store(now)
	if p.awaits.Load() != 0 {
		p.awaits.Store(0)
	}
	if data && p.owes.Load() == 0 {
		p.owes.CompareAndSwap(0, now)
	}
	var n Notice
	if !k.heard.Load() && !k.heard.Swap(true) && !k.initiator {
		n |= NoticeConfirm
	}
	c := p.sending.Load()
	if c != nil && c.initiator && now-c.created.Load() >= int64(RekeyOnReceive) && c.ask(now) {
		n |= NoticeRekey
	}
	return n
}
