package portmap

import (
	"context"
	"net"
	"net/netip"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// pmp is NAT-PMP at one router, by the library, which sends at once, after 250 ms and after 750 ms. It knows no contexts: a call
// ends by its patience.
type pmp struct{ site }

func (p *pmp) name() string { return NATPMP }

// within returns a client that has as long as ctx leaves.
func (p *pmp) within(ctx context.Context) (*natpmp.Client, error) {
	patience := p.datagrams
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end))
	}
	if err := ctx.Err(); err != nil || patience <= 0 {
		return nil, errSilent
	}
	return natpmp.NewClientWithTimeout(p.gateway.AsSlice(), patience), nil
}

func (p *pmp) probe(ctx context.Context) error {
	_, err := p.address(ctx)
	return err
}

// address asks for the address outside.
func (p *pmp) address(ctx context.Context) (netip.Addr, error) {
	c, err := p.within(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	r, err := c.GetExternalAddress()
	if err != nil {
		return netip.Addr{}, plain(err)
	}
	return netip.AddrFrom4(r.ExternalIPAddress), nil
}

func (p *pmp) obtain(ctx context.Context, want netip.AddrPort) (grant, error) {
	addr, err := p.address(ctx)
	if err != nil {
		return grant{}, err
	}
	c, err := p.within(ctx)
	if err != nil {
		return grant{}, err
	}
	port := want.Port()
	if port == 0 {
		port = p.port
	}
	r, err := c.AddPortMapping("udp", int(p.port), int(port), int(p.lifetime/time.Second))
	if err != nil {
		return grant{}, plain(err)
	}
	if addr.IsUnspecified() || r.InternalPort != p.port || r.MappedExternalPort == 0 || r.PortMappingLifetimeInSeconds == 0 {
		return grant{}, errNoAddress
	}
	return grant{external: netip.AddrPortFrom(addr, r.MappedExternalPort), lifetime: time.Duration(r.PortMappingLifetimeInSeconds) * time.Second,
		epoch: epoch{r.SecondsSinceStartOfEpoc, time.Now()}}, nil
}

func (p *pmp) release(ctx context.Context, _ grant) error {
	c, err := p.within(ctx)
	if err != nil {
		return err
	}
	_, err = c.AddPortMapping("udp", int(p.port), 0, 0)
	return plain(err)
}

// plain makes one error of the library's many ways to say that nobody answered.
func plain(err error) error {
	if e, ok := err.(net.Error); ok && e.Timeout() || err != nil && err.Error() == "Timed out trying to contact gateway" {
		return errSilent
	}
	return refused(err)
}
