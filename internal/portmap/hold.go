package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// holder is what Run knows beside Mapper's status: it belongs to Run's goroutine.
type holder struct {
	*Mapper
	changed func(Mapping)
	service service // that granted the mapping; nil: there is none
	grant   grant
	told    Mapping // what changed was called with last
	retry   time.Duration
	ears    ears
	probes  sync.WaitGroup
	heeded  time.Time // when a restart of the router was heeded last
}

// round looks up the router, asks it by all protocols and takes a mapping. It returns when to call renew.
// spec/74-portmap.md#whom
func (h *holder) round(ctx context.Context) time.Duration {
	gateway, err := h.cfg.Gateway()
	if err == nil && !gateway.Is4() {
		err = errors.New("no IPv4 router")
	}
	if err != nil {
		h.note(func(s *Status) { *s = Status{Mapping: s.Mapping, Err: fmt.Errorf("find the router: %w", err)} })
		return h.unmapped()
	}
	services := h.services(gateway)
	answers := make([]chan error, len(services))
	probing, stop := context.WithCancel(ctx)
	defer stop()
	for i, s := range services {
		answers[i] = make(chan error, 1)
		h.probes.Go(func() { answers[i] <- s.probe(probing) }) // ends by stop, or by its own patience within a second
	}
	h.note(func(s *Status) { *s = Status{Gateway: gateway, Mapping: s.Mapping} })
	var errs []error
	for i, s := range services {
		err := <-answers[i]
		spoken := err == nil
		if spoken {
			var g grant
			if g, err = s.obtain(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), h.grant.external.Port())); err == nil {
				h.note(func(st *Status) { st.Answers = append(st.Answers, Answer{s.name(), nil, true}) })
				return h.take(s, g)
			}
		}
		if ctx.Err() != nil {
			return h.times.retry
		}
		h.log.Debug("no mapping", "protocol", s.name(), "gateway", gateway, "error", err)
		h.note(func(st *Status) { st.Answers = append(st.Answers, Answer{s.name(), err, spoken}) })
		errs = append(errs, fmt.Errorf("%s: %w", s.name(), err))
	}
	h.note(func(s *Status) { s.Err = errors.Join(errs...) })
	return h.unmapped()
}

// take makes a grant the mapping.
func (h *holder) take(s service, g grant) time.Duration {
	h.service, h.grant, h.retry = s, g, h.times.retry
	m := Mapping{External: g.external, Protocol: s.name(), Public: public(g.external.Addr())}
	wait := h.times.latest
	if g.lifetime > 0 {
		m.Expires = time.Now().Add(g.lifetime)
		wait = min(max(g.lifetime/2, h.times.soonest), h.times.latest)
	}
	h.note(func(st *Status) {
		m.Gateway = st.Gateway
		st.Mapping, st.Err = m, nil
	})
	if g.epoch != (epoch{}) {
		h.ears.open(m.Gateway, h.log)
	} else {
		h.ears.close()
	}
	h.tell(m)
	return wait
}

// unmapped is called when a round gave nothing. What is held is held until it expires.
func (h *holder) unmapped() time.Duration {
	held := h.Status().Mapping
	if left := time.Until(held.Expires); h.service != nil && !held.Expires.IsZero() && left > 0 {
		return max(left/2, h.times.soonest)
	}
	h.service = nil
	h.ears.close()
	h.note(func(s *Status) { s.Mapping = Mapping{} })
	h.tell(Mapping{})
	wait := h.retry
	h.retry = min(2*h.retry, h.times.mostRetry)
	return wait
}

// renew asks for the mapping that is held once more, and for any if that fails or there is none.
func (h *holder) renew(ctx context.Context) time.Duration {
	if h.service == nil {
		return h.round(ctx)
	}
	g, err := h.service.obtain(ctx, h.grant.external)
	if err != nil {
		if ctx.Err() != nil {
			return h.times.retry
		}
		h.log.Debug("mapping not renewed", "protocol", h.service.name(), "error", err)
		return h.round(ctx)
	}
	return h.take(h.service, g)
}

// recheck is renew where the router may be another one. The mapping of one that is not the gateway any more is given up.
func (h *holder) recheck(ctx context.Context) time.Duration {
	if gateway, err := h.cfg.Gateway(); h.service != nil && (err != nil || gateway != h.told.Gateway) {
		h.remove(ctx)
		h.service = nil
	}
	return h.renew(ctx)
}

// remove removes the mapping from the router, if that answers.
func (h *holder) remove(ctx context.Context) {
	if h.service == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.times.datagrams)
	defer cancel()
	if err := h.service.release(ctx, h.grant); err != nil {
		h.log.Debug("mapping not removed", "protocol", h.service.name(), "error", err)
	}
	h.note(func(s *Status) { s.Mapping = Mapping{} })
}

// restarted reports whether a router's own message says that it has lost the mapping that is held.
func (h *holder) restarted(now time.Time, n news) bool {
	if h.service == nil || n.from.Addr() != h.told.Gateway || now.Sub(h.heeded) < h.times.settle || !h.grant.epoch.lost(n.epoch) {
		return false
	}
	h.heeded = now
	return true
}

func (h *holder) note(f func(*Status)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.status)
	h.status.Answers = h.status.Answers[:len(h.status.Answers):len(h.status.Answers)] // others may hold it
}

func (h *holder) tell(m Mapping) {
	if !m.same(h.told) {
		h.changed(m)
	}
	h.told = m
}
