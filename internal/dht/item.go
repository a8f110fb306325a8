package dht

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha1"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/dht/v2/krpc"
)

const (
	// MaxValue is the limit of bytes in a value.
	MaxValue = maxValue - len("996:")
	// MaxSalt is the limit of bytes in a salt.
	MaxSalt = 64

	maxStore = 20 // nodes of a family
)

// best is the item with the highest sequence number that was seen with a valid signature.
type best struct {
	pub   ed25519.PublicKey
	salt  []byte
	found bool
	seq   int64
	value []byte
}

// take judges what a node said.
// spec/71-dht.md#items
func (b *best) take(_ netip.AddrPort, r *krpc.Return) bool {
	if r.V == nil || r.Seq == nil || !bytes.Equal(r.K[:], b.pub) {
		return false
	}
	value, ok := text(r.V)
	if !ok || b.found && *r.Seq <= b.seq || !bep44.Verify(b.pub, b.salt, *r.Seq, r.V, r.Sig[:]) {
		return false
	}
	b.found, b.seq, b.value = true, *r.Seq, bytes.Clone(value)
	return true
}

// target is where an item is stored.
func target(pub ed25519.PublicKey, salt []byte) [20]byte {
	return sha1.Sum(append(bytes.Clone(pub), salt...))
}

// Get looks for the item of pub and salt and returns the one with the highest sequence number among those with a valid signature.
// It ends when the nodes nearest to it have answered, or 2 s after the first such item. Errors: ErrNotFound, ErrUnreachable,
// ErrClosed, ctx's.
func (c *Client) Get(ctx context.Context, pub ed25519.PublicKey, salt []byte) (seq int64, value []byte, err error) {
	if len(pub) != ed25519.PublicKeySize || len(salt) > MaxSalt {
		return 0, nil, errors.New("get an item of the DHT: a key of the wrong size, or too long a salt")
	}
	ctx, v, end, err := c.begin(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("get an item of the DHT: %w", err)
	}
	defer end()
	b := best{pub: pub, salt: salt}
	l := newLookup(c, v, target(pub, salt), nearGet, "get", krpc.MsgArgs{Target: target(pub, salt)})
	l.take = b.take
	l.run(ctx)
	switch {
	case b.found:
		return b.seq, b.value, nil
	case ctx.Err() != nil:
		err = c.cause(ctx)
	case l.answers == 0:
		err = ErrUnreachable
	default:
		err = ErrNotFound
	}
	return 0, nil, fmt.Errorf("get an item of the DHT: %w", err)
}

// Put stores value as the item of priv and salt, on the nodes nearest to it, and returns how many took it. cas is the sequence number of
// the item that value was made from: 0 when there was none, negative when it does not matter.
//
// Errors: *Newer when an item above cas, or one that is not older than seq, is stored already; ErrRefused, ErrUnreachable, ErrClosed,
// ctx's. After *Newer, stored counts for nothing. To store again what is stored already is no error and makes it last.
func (c *Client) Put(ctx context.Context, priv ed25519.PrivateKey, salt []byte, seq, cas int64, value []byte) (stored int, err error) {
	if len(priv) != ed25519.PrivateKeySize || len(salt) > MaxSalt || len(value) > MaxValue {
		return 0, errors.New("put an item into the DHT: a key of the wrong size, or too long a salt or value")
	}
	ctx, v, end, err := c.begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("put an item into the DHT: %w", err)
	}
	defer end()
	pub := priv.Public().(ed25519.PublicKey)
	b := best{pub: pub, salt: salt}
	l := newLookup(c, v, target(pub, salt), nearPut, "get", krpc.MsgArgs{Target: target(pub, salt)})
	l.take = func(from netip.AddrPort, r *krpc.Return) bool { b.take(from, r); return false }
	l.run(ctx)
	same := b.found && b.seq == seq && bytes.Equal(b.value, value)
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("put an item into the DHT: %w", c.cause(ctx))
	case l.answers == 0:
		return 0, fmt.Errorf("put an item into the DHT: %w", ErrUnreachable)
	case b.found && !same && (b.seq >= seq || cas >= 0 && b.seq > cas):
		return 0, &Newer{b.seq, b.value}
	}
	put := bep44.Put{V: value, K: (*[32]byte)(pub), Salt: salt, Seq: seq}
	put.Sign(priv)
	stored, older := c.store(ctx, v, l, "put", krpc.MsgArgs{V: value, K: *put.K, Salt: salt, Sig: put.Sig, Seq: &put.Seq})
	switch {
	case older > stored: // another wrote meanwhile
		return 0, &Newer{}
	case stored > 0:
		return stored, nil
	case ctx.Err() != nil:
		err = c.cause(ctx)
	default:
		err = ErrRefused
	}
	return 0, fmt.Errorf("put an item into the DHT: %w", err)
}

// store sends a query that stores to the nearest nodes that a lookup found, and returns how many took it, and how many refused it
// because they have something newer.
// spec/71-dht.md#storing
func (c *Client) store(ctx context.Context, v *visit, l *lookup, method string, args krpc.MsgArgs) (stored, older int) {
	var took, refused atomic.Int64
	var wg sync.WaitGroup
	for _, f := range l.fronts {
		for _, a := range f.storing() {
			if c.pace.Wait(ctx) != nil {
				break
			}
			args := args
			args.Token = a.token
			wg.Go(func() { // ends with the answer, after answerWithin, or with ctx; waited for below
				switch r, code := c.query(ctx, v, a.addr, method, args); {
				case r != nil:
					took.Add(1)
				case code == krpc.ErrorCodeCasHashMismatched, code == krpc.ErrorCodeSequenceNumberLessThanCurrent:
					refused.Add(1)
				}
			})
		}
	}
	wg.Wait()
	return int(took.Load()), int(refused.Load())
}

// storing lists who is to store: the nearest nodes, proven ones above all.
func (f *front) storing() (out []answer) {
	proven, others := 0, maxStore
	for _, a := range f.answered {
		if a.proven && a.token != "" {
			proven++
		}
	}
	proven = min(proven, nearPut)
	others -= proven
	for _, a := range f.answered {
		left := &others
		if a.proven {
			left = &proven
		}
		if a.token != "" && *left > 0 {
			*left--
			out = append(out, a)
		}
	}
	return out
}
