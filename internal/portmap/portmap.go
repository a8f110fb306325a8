// Package portmap asks the router of the local network to pass a UDP port on from outside, by PCP, NAT-PMP or UPnP, keeps that
// mapping alive and removes it at the end (spec/74-portmap.md).
//
//	Mapper.Run:  look up the router -> ask by all protocols at once -> map by the first that can -> renew at half its lifetime
//	                  ^                                                                                   |
//	                  +------ the network changed, the router restarted, or nobody answered for a while --+
//
// It speaks to nobody but the router. What the router says of the address outside is a hint: a router behind another NAT does
// not know better.
package portmap

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Names of the protocols, as in [Mapping] and [Answer].
const (
	PCP    = "PCP"
	NATPMP = "NAT-PMP"
	UPnP   = "UPnP"
)

// Config is what a Mapper needs. Port and Gateway are required.
type Config struct {
	// Port is our UDP port, which is to be reached from outside.
	Port uint16
	// Gateway returns the IPv4 address of the router that this host uses now; an error says why there is none. It is called
	// before each round, from the goroutine of Run.
	Gateway func() (netip.Addr, error)
	// Seed is a secret of this installation that lasts: with it, a PCP router takes us for who we were before a crash, and
	// renews our mapping rather than to refuse another. nil: a random one.
	Seed []byte
	// Log takes what the routers say, for debugging. nil: none.
	Log *slog.Logger
}

// Mapping is a port of the router that leads to ours. The zero Mapping is none.
type Mapping struct {
	External netip.AddrPort // as the router says
	Protocol string         // PCP, NATPMP or UPnP
	Gateway  netip.Addr
	Expires  time.Time // unless it is renewed, which Run does; zero: never
	Public   bool      // External could be an address of the internet: otherwise there is a NAT behind the router
}

// same reports whether others need to hear nothing new.
func (m Mapping) same(o Mapping) bool {
	m.Expires, o.Expires = time.Time{}, time.Time{}
	return m == o
}

// Answer is what became of one protocol when the router was asked last.
type Answer struct {
	Protocol string
	Err      error // nil: it gave a mapping
	Spoken   bool  // the router answered by it
}

// Status is what a Mapper knows, for people.
type Status struct {
	Gateway netip.Addr // zero: there is none
	Mapping Mapping    // zero: there is none
	Answers []Answer   // in the order of preference; empty: nobody was asked yet
	Err     error      // why there is no mapping
}

// Times that tests shorten. spec/74-portmap.md#lifetime
type times struct {
	lifetime            time.Duration // asked for
	soonest, latest     time.Duration // from one renewal to the next
	retry, mostRetry    time.Duration // while nobody answers
	settle              time.Duration // from one sign of a restart of the router to the next that is heeded
	datagrams, requests time.Duration // patience
}

var usual = times{lifetime: 2 * time.Hour, soonest: time.Minute, latest: time.Hour, retry: time.Minute, mostRetry: time.Hour,
	settle: 10 * time.Second, datagrams: time.Second, requests: 2 * time.Second}

// Mapper holds one mapping. Make it with [New]; it does something while Run runs.
type Mapper struct {
	cfg   Config
	log   *slog.Logger
	times times
	nonce [12]byte      // of our PCP mapping: who knows it may change or remove it
	wake  chan struct{} // holds one sign that all may be different

	mu     sync.Mutex
	status Status
}

// New makes a Mapper. It starts nothing.
func New(cfg Config) *Mapper {
	m := &Mapper{cfg: cfg, log: cfg.Log, times: usual, wake: make(chan struct{}, 1)}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Seed == nil {
		rand.Read(m.nonce[:]) //nolint:errcheck // it never fails
	} else {
		sum := sha256.Sum256(fmt.Appendf(nil, "warren pcp nonce v1 %d %s", cfg.Port, cfg.Seed))
		copy(m.nonce[:], sum[:])
	}
	return m
}

// Recheck has Run look up the router and ask it again, at once: the network changed, or peers see us at another address. It
// may be called from any goroutine, at any time.
func (m *Mapper) Recheck() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Status says what is known now. It may be called from any goroutine.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Run gets a mapping and keeps it until ctx ends; then it removes the mapping, which takes a second at most, and returns. It calls
// changed, from this goroutine, when the mapping is another than before, but for its expiry: the zero Mapping when it was
// lost, not at the end. Call Run once.
func (m *Mapper) Run(ctx context.Context, changed func(Mapping)) {
	h := holder{Mapper: m, changed: changed, retry: m.times.retry}
	defer h.probes.Wait()
	defer h.ears.close()
	wait := h.round(ctx)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			h.remove(context.WithoutCancel(ctx))
			return
		case <-m.wake:
			h.retry = m.times.retry
			wait = h.recheck(ctx)
		case news := <-h.ears.heard():
			if !h.restarted(time.Now(), news) {
				continue
			}
			m.log.Debug("router has lost its mappings", "gateway", news.from.Addr())
			wait = h.renew(ctx)
		case <-timer.C:
			wait = h.renew(ctx)
		}
		timer.Reset(wait)
	}
}

var (
	errNoAddress = errors.New("the router has no address outside")
	errSilent    = errors.New("no answer")
)

// service is one protocol at one router.
type service interface {
	name() string
	// probe asks whether the protocol is spoken, and leaves nothing at the router.
	probe(ctx context.Context) error
	// obtain asks for a mapping, or renews the one that it gave before; zero port of want: any.
	obtain(ctx context.Context, want netip.AddrPort) (grant, error)
	// release removes the mapping that obtain gave.
	release(ctx context.Context, g grant) error
}

// grant is what a router gave.
type grant struct {
	external netip.AddrPort
	lifetime time.Duration // 0: for ever
	epoch    epoch         // zero: this protocol has none
}

// services lists all protocols for one router, in the order of preference.
func (m *Mapper) services(gateway netip.Addr) []service {
	s := site{gateway: gateway, port: m.cfg.Port, times: m.times}
	return []service{&pcp{s, m.nonce}, &pmp{s}, &upnp{site: s}}
}

// site is where a service is spoken, and for which port.
type site struct {
	gateway netip.Addr
	port    uint16
	times
}
