package dht

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/anacrolix/dht/v2/krpc"
)

// maxFound is how many peers one operation returns at most.
const maxFound = 200

// Peers asks for those who announced infohash (BEP 5), and returns up to 200 addresses. They may be anybody's: hints that nobody
// vouches for. Errors: ErrOff, ErrNotFound, ErrUnreachable, ErrClosed, ctx's.
func (c *Client) Peers(ctx context.Context, infohash [20]byte) (found []netip.AddrPort, err error) {
	_, found, err = c.peers(ctx, infohash, nearGet, nil)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("look for peers in the DHT: %w", ErrNotFound)
	}
	return found, err
}

// Announce says in clear that this host is a peer of infohash (BEP 5), at the port from which its datagrams are seen to come, and
// returns how many nodes took it, and up to 200 others who announced it. port is our own port, for those who cannot see. Errors: ErrOff,
// ErrRefused, ErrUnreachable, ErrClosed, ctx's.
func (c *Client) Announce(ctx context.Context, infohash [20]byte, port uint16) (stored int, found []netip.AddrPort, err error) {
	stored, found, err = c.peers(ctx, infohash, nearPut, func(ctx context.Context, v *visit, l *lookup) int {
		p := int(port)
		stored, _ := c.store(ctx, v, l, "announce_peer", krpc.MsgArgs{InfoHash: infohash, ImpliedPort: true, Port: &p})
		return stored
	})
	if err == nil && stored == 0 {
		err = fmt.Errorf("announce to the DHT: %w", ErrRefused)
	}
	return stored, found, err
}

// peers looks for peers, and then does what then says with those who answered.
func (c *Client) peers(ctx context.Context, infohash [20]byte, near int,
	then func(context.Context, *visit, *lookup) int) (stored int, found []netip.AddrPort, err error) {
	if !c.cfg.Peers {
		return 0, nil, ErrOff
	}
	ctx, v, end, err := c.begin(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("look for peers in the DHT: %w", err)
	}
	defer end()
	l := newLookup(c, v, infohash, near, "get_peers", krpc.MsgArgs{InfoHash: infohash})
	l.take = func(_ netip.AddrPort, r *krpc.Return) bool {
		for _, p := range r.Values {
			a := unmap(p.ToNodeAddrPort().AddrPort)
			if len(found) < maxFound && c.reachable(a) && !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
		return false
	}
	l.run(ctx)
	if then != nil && l.answers > 0 {
		stored = then(ctx, v, l)
	}
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("look for peers in the DHT: %w", c.cause(ctx))
	case l.answers == 0:
		err = fmt.Errorf("look for peers in the DHT: %w", ErrUnreachable)
	}
	return stored, found, err
}
