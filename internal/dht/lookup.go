package dht

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	library "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
)

const (
	alpha          = 4                      // queries that wait for an answer, slow ones not counted
	maxInFlight    = 12                     // slow ones counted
	slowAfter      = 700 * time.Millisecond // then a query no longer holds up others; its answer still counts
	grace          = 2 * time.Second        // from the first item to the end of a Get
	impatient      = 2 * time.Second        // without any answer, then bootstrap hosts are asked too
	firstNodes     = 24                     // known nodes of a family to begin with
	fewNodes       = 8                      // known nodes of a family; with fewer, bootstrap hosts are asked too
	maxCandidates  = 128                    // of a family
	maxPerSite     = 3                      // queries of one operation to one address
	maxPerPrefix   = 8                      // queries of one operation into one prefix
	nearPerPrefix  = 2                      // nearest answers of one prefix that count
	nodesPerAnswer = 16                     // of each family, that are believed to exist
	nearGet        = 8                      // nearest nodes with a proven id that must have answered
	nearPut        = 12
	nearAny        = 3  // times as many that have answered, proven or not, are enough too
	maxNearest     = 48 // nearest answers kept, of a family
	resolveWithin  = 3 * time.Second
	resolveAgain   = 10 * time.Minute
	maxPerHostname = 8 // addresses of one bootstrap host
)

// contact is a node to ask. Without an id (of bootstrap hosts) it is only asked for others.
type contact struct {
	addr   netip.AddrPort
	id     [20]byte
	router bool
}

// answer is what a node near the target said.
type answer struct {
	contact
	token  string // to store with; empty: it cannot
	proven bool   // its id is one that its address allows (BEP 42): nobody can choose to be near a target
}

// front is the state of a lookup in one address family.
type front struct {
	fam        int
	candidates []contact // not yet asked, nearest first; routers before them
	answered   []answer  // nearest first
}

// lookup walks toward a target. It belongs to the goroutine that calls run.
//
//	candidates --nearest first, 4 at a time--> node --> answers: nearer candidates, a token, perhaps the item
//
// spec/71-dht.md#looking-up
type lookup struct {
	c      *Client
	v      *visit
	target [20]byte
	near   int
	method string
	args   krpc.MsgArgs
	take   func(from netip.AddrPort, r *krpc.Return) (enough bool)

	fronts    []*front
	tried     map[netip.AddrPort]bool
	perSite   map[netip.Prefix]int
	perPrefix map[netip.Prefix]int
	flights   []*flight
	done      chan event
	asked     int // queries
	answers   int
	began     time.Time
	hurry     time.Time // when to end at the latest; zero: no such time
	resolving bool
	booted    bool
	silent    []netip.AddrPort // nodes that did not answer
	wg        sync.WaitGroup
}

// flight is one query that waits for its answer.
type flight struct {
	contact
	began time.Time
}

// event is the end of a flight, or addresses of bootstrap hosts.
type event struct {
	flight  *flight
	ret     *krpc.Return // nil: no answer, or an error
	failed  bool         // nothing came
	routers []netip.AddrPort
}

// newLookup prepares a lookup by method, with args and what all queries have.
func newLookup(c *Client, v *visit, target [20]byte, near int, method string, args krpc.MsgArgs) *lookup {
	l := &lookup{c: c, v: v, target: target, near: near, method: method, args: args, tried: map[netip.AddrPort]bool{},
		perSite: map[netip.Prefix]int{}, perPrefix: map[netip.Prefix]int{}, done: make(chan event, maxLookupQueries+1)}
	for fam, use := range c.families() {
		if use {
			l.fronts = append(l.fronts, &front{fam: fam})
			l.args.Want = append(l.args.Want, [2]krpc.Want{krpc.WantNodes, krpc.WantNodes6}[fam])
		}
	}
	return l
}

// run does the lookup; ctx ends it early. When it returns, nothing of it runs any more.
func (l *lookup) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer l.wg.Wait()
	defer cancel()
	l.began = time.Now()
	l.begin(ctx)
	for ctx.Err() == nil {
		l.drain()
		now := time.Now()
		l.boot(ctx, now)
		if !l.hurry.IsZero() && !now.Before(l.hurry) || l.finished(now) {
			break
		}
		if l.mayLaunch(now) {
			if l.c.pace.Wait(ctx) != nil {
				break
			}
			l.drain() // what came meanwhile may know a better one
			if next, ok := l.next(); ok {
				l.launch(ctx, next)
			}
			continue
		}
		l.wait(ctx, now)
	}
	if l.answers > 0 { // otherwise it is we who are cut off
		l.c.forget(l.silent)
	}
	l.c.log.Debug("looked up in the DHT", "queries", l.asked, "answers", l.answers, "took", time.Since(l.began))
}

func (l *lookup) begin(ctx context.Context) {
	few := false
	l.c.mu.Lock()
	for _, f := range l.fronts {
		for _, n := range l.c.known.nearest(l.target, f.fam, firstNodes) {
			l.add(contact{addr: n.Addr, id: n.ID})
		}
		few = few || len(f.candidates) < fewNodes
	}
	l.c.mu.Unlock()
	if few {
		l.bootstrap(ctx)
	}
}

// boot asks bootstrap hosts when known nodes do not answer.
func (l *lookup) boot(ctx context.Context, now time.Time) {
	if l.booted {
		return
	}
	dry := len(l.flights) == 0
	for _, f := range l.fronts {
		dry = dry && len(f.candidates) == 0 && f.enough(l.near) == 0
	}
	if dry || l.answers == 0 && now.Sub(l.began) >= impatient {
		l.bootstrap(ctx)
	}
}

func (l *lookup) bootstrap(ctx context.Context) {
	l.booted = true
	if len(l.c.cfg.Bootstrap) == 0 {
		return
	}
	l.resolving = true
	l.wg.Go(func() { // ends with ctx, for which run waits
		l.done <- event{routers: l.c.resolveBootstrap(ctx)}
	})
}

// finished says whether nothing is left that could change the result.
func (l *lookup) finished(now time.Time) bool {
	if l.resolving {
		return false
	}
	fresh := slices.ContainsFunc(l.flights, func(f *flight) bool { return now.Sub(f.began) < slowAfter })
	_, more := l.next()
	if fresh || more && l.asked < maxLookupQueries {
		return false
	}
	if len(l.flights) == 0 {
		return true
	}
	for _, f := range l.fronts {
		waits := slices.ContainsFunc(l.flights, func(x *flight) bool { return family(x.addr.Addr()) == f.fam })
		if waits && f.enough(l.near) == 0 {
			return false
		}
	}
	return true
}

func (l *lookup) mayLaunch(now time.Time) bool {
	fresh := 0
	for _, f := range l.flights {
		if now.Sub(f.began) < slowAfter {
			fresh++
		}
	}
	_, ok := l.next()
	return ok && fresh < alpha && len(l.flights) < maxInFlight && l.asked < maxLookupQueries
}

// next is the contact to ask next: that of the family that has fewer answers.
func (l *lookup) next() (best contact, ok bool) {
	fewest := 0
	for _, f := range l.fronts {
		if c, has := f.next(l.target, l.near); has && (!ok || len(f.answered) < fewest) {
			best, ok, fewest = c, true, len(f.answered)
		}
	}
	return best, ok
}

// next is the nearest candidate, unless as many as wanted have answered that are nearer.
func (f *front) next(target [20]byte, near int) (contact, bool) {
	if len(f.candidates) == 0 {
		return contact{}, false
	}
	c := f.candidates[0]
	if n := f.enough(near); n > 0 && (c.router || compare(target, c, f.answered[n-1].contact) > 0) {
		return contact{}, false
	}
	return c, true
}

// enough is how many of the nearest answers are needed to have enough of them; 0: there are not enough yet.
func (f *front) enough(near int) int {
	proven := 0
	for i, a := range f.answered {
		if a.proven {
			proven++
		}
		if proven == near || i+1 == nearAny*near {
			return i + 1
		}
	}
	return 0
}

// compare orders whom to ask: routers first, then by distance.
func compare(target [20]byte, a, b contact) int {
	if a.router != b.router {
		if a.router {
			return -1
		}
		return 1
	}
	da, db := distance(a.id, target), distance(b.id, target)
	if c := bytes.Compare(da[:], db[:]); c != 0 {
		return c
	}
	return a.addr.Compare(b.addr)
}

func (l *lookup) front(a netip.Addr) *front {
	for _, f := range l.fronts {
		if f.fam == family(a) {
			return f
		}
	}
	return nil
}

// add notes a candidate, if it may be asked. When there are too many, the farthest goes.
func (l *lookup) add(c contact) {
	f := l.front(c.addr.Addr())
	if f == nil || l.tried[c.addr] || !c.router && !l.c.mayAsk(c.addr) {
		return
	}
	if slices.ContainsFunc(f.candidates, func(have contact) bool { return have.addr == c.addr }) {
		return
	}
	if !l.c.cfg.Local && !c.router &&
		(l.perSite[site(c.addr.Addr())] >= maxPerSite || l.perPrefix[prefix(c.addr.Addr())] >= maxPerPrefix) {
		return
	}
	i, _ := slices.BinarySearchFunc(f.candidates, c, func(have, c contact) int { return compare(l.target, have, c) })
	f.candidates = slices.Insert(f.candidates, i, c)
	if len(f.candidates) > maxCandidates {
		f.candidates = f.candidates[:maxCandidates]
	}
}

// launch asks c, which is the first candidate of its family.
func (l *lookup) launch(ctx context.Context, c contact) {
	f := l.front(c.addr.Addr())
	f.candidates = f.candidates[1:]
	l.tried[c.addr] = true
	s, p := site(c.addr.Addr()), prefix(c.addr.Addr())
	if l.perSite[s]++; !l.c.cfg.Local {
		l.perPrefix[p]++
		f.candidates = slices.DeleteFunc(f.candidates, func(o contact) bool {
			return !o.router && (l.perSite[s] >= maxPerSite && s.Contains(o.addr.Addr()) || l.perPrefix[p] >= maxPerPrefix && p.Contains(o.addr.Addr()))
		})
	}
	l.asked++
	fl := &flight{c, time.Now()}
	l.flights = append(l.flights, fl)
	method, args := l.method, l.args
	if c.router {
		method, args = "find_node", krpc.MsgArgs{Target: l.target, Want: l.args.Want}
	}
	l.wg.Go(func() { // ends with the answer, after answerWithin, or with ctx; run waits for it
		ret, code := l.c.query(ctx, l.v, c.addr, method, args)
		l.done <- event{flight: fl, ret: ret, failed: code == silent}
	})
}

// wait lets time pass until something happened or is due.
func (l *lookup) wait(ctx context.Context, now time.Time) {
	due := now.Add(answerWithin)
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(due) {
			due = t
		}
	}
	for _, f := range l.flights {
		earlier(f.began.Add(slowAfter))
	}
	earlier(l.hurry)
	earlier(l.began.Add(impatient))
	timer := time.NewTimer(due.Sub(now))
	defer timer.Stop()
	select {
	case e := <-l.done:
		l.handle(e)
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *lookup) drain() {
	for {
		select {
		case e := <-l.done:
			l.handle(e)
		default:
			return
		}
	}
}

func (l *lookup) handle(e event) {
	if e.flight == nil {
		l.resolving = false
		for _, a := range e.routers {
			if f := l.front(a.Addr()); f != nil && len(f.candidates)+len(f.answered) < fewNodes+maxPerHostname {
				l.add(contact{addr: a, router: true})
			}
		}
		return
	}
	l.flights = slices.DeleteFunc(l.flights, func(f *flight) bool { return f == e.flight })
	from := e.flight.contact
	if e.ret == nil {
		if e.failed && !from.router {
			l.silent = append(l.silent, from.addr)
		}
		return
	}
	l.answers++
	for _, list := range [][]krpc.NodeInfo{e.ret.Nodes, e.ret.Nodes6} {
		for _, n := range list[:min(len(list), nodesPerAnswer)] {
			l.add(contact{addr: unmap(n.Addr.ToNodeAddrPort().AddrPort), id: n.ID})
		}
	}
	if from.router {
		return
	}
	from.id = e.ret.ID
	l.c.remember(Node{from.id, from.addr})
	a := answer{contact: from, proven: l.c.cfg.Local || library.NodeIdSecure(from.id, from.addr.Addr().AsSlice())}
	if e.ret.Token != nil {
		a.token = *e.ret.Token
	}
	l.front(from.addr.Addr()).answer(l.target, a, l.c.group)
	if l.take(from.addr, e.ret) && l.hurry.IsZero() {
		l.hurry = time.Now().Add(grace)
	}
}

// answer notes an answer, unless nearer ones of the same prefix count already.
func (f *front) answer(target [20]byte, a answer, group func(netip.AddrPort) netip.AddrPort) {
	i, _ := slices.BinarySearchFunc(f.answered, a, func(have, a answer) int { return compare(target, have.contact, a.contact) })
	f.answered = slices.Insert(f.answered, i, a)
	same := 0
	f.answered = slices.DeleteFunc(f.answered, func(o answer) bool {
		if group(o.addr) != group(a.addr) {
			return false
		}
		same++
		return same > nearPerPrefix
	})
	f.answered = f.answered[:min(len(f.answered), maxNearest)]
}

// silent is the code of a node that did not answer.
const silent = -1

// query asks one node and returns what it answered; nil with the code when it sent an error, or with silent when nothing came.
func (c *Client) query(ctx context.Context, v *visit, to netip.AddrPort, method string, args krpc.MsgArgs) (r *krpc.Return, code int) {
	c.queries.Add(1)
	c.mu.Lock()
	if len(c.hosts) < maxHosts {
		c.hosts[to.Addr()] = struct{}{}
	}
	c.mu.Unlock()
	res := v.server.Query(ctx, library.NewAddr(net.UDPAddrFromAddrPort(to)), method, library.QueryInput{
		MsgArgs: args, NumTries: 1, RateLimiting: library.QueryRateLimiting{NotAny: true},
	})
	switch {
	case res.Err != nil && ctx.Err() == nil:
		return nil, silent
	case res.Err == nil && res.Reply.E != nil:
		return nil, res.Reply.E.Code
	}
	return res.Reply.R, 0
}
