package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	byHand = flag.Int("nodes", 0, "number of nodes of TestByHand")
	most   = flag.Int("steps", 0, "of TestByHand: so many steps, the first is the start; 0: all")
)

func TestTen(t *testing.T) { whole(t, 10) }

// TestForty has more nodes than all link to all.
func TestForty(t *testing.T) {
	if slow {
		t.Skip("too much for the race detector, which sees the same code in TestTen and with hostile members")
	}
	whole(t, 40)
}

func TestHundred(t *testing.T) {
	if slow || testing.Short() {
		t.Skip("takes a minute")
	}
	whole(t, 100)
}

func TestByHand(t *testing.T) {
	if *byHand == 0 {
		t.Skip("asks for a number: go test ./test/sim -run TestByHand -nodes 1000 -timeout 2h -v (make sim)")
	}
	whole(t, *byHand)
}

// phase is what was measured of one event.
type phase struct {
	name         string
	nodes        int
	maps, routes time.Duration // until all agree; until all watched pairs have a route that works; negative: did not come
	joined       int           // watched pairs that links join
	gap          time.Duration // longest silence of a flow that had a way
	sent         counts        // by all nodes
	peak         float64       // bytes of control a second and node, in the worst second
	over         time.Duration
	states       int64 // originated
	degree       float64
	cpu          time.Duration // of this process, until its end
}

// report is what is measured of one size.
type report struct {
	w       *world
	phases  []phase
	flows   []*flow
	flowing bool
	heap    uint64          // a node
	floods  []time.Duration // of a new link state, until all have it
	bytes   int             // of all link states
	revoked time.Duration   // until all know of a revocation
}

const (
	convergeWithin = 3 * time.Minute
	phaseLeast     = time.Minute
	memoryLimit    = 12 << 30 // bytes, above which garbage is collected at once
	poll           = 500 * time.Millisecond

	idleName, restartName, churnName = "idle", "all restart within 1 s", "1 % vanish each minute"
)

// whole lets a network of so many nodes go through all that there is.
func whole(t *testing.T, nodes int) {
	if nodes > 100 { // the heap is large, and changes little
		defer debug.SetGCPercent(debug.SetGCPercent(800))
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))
	}
	before := heap()
	began := time.Now()
	var r report
	var text string
	story(t, shape{nodes: nodes, records: nodes <= 1000, intern: nodes > 1000}, func(w *world) {
		r.w = w
		r.run(before)
		text = r.table()
	})
	t.Logf("%d nodes, %v of real time\n%s", nodes, time.Since(began).Round(time.Second), text)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (r *report) run(before uint64) {
	w := r.w
	r.measure("start, all within 10 s", func() {
		w.each(w.nodes, 10*time.Second, (*node).start)
		w.watch(min(8, 2000/len(w.nodes)+2), 12)
	})
	var shut []*node
	for _, n := range w.nodes {
		if n.closed {
			shut = append(shut, n)
		}
	}
	for i := 0; i+1 < len(shut) && i < 24; i += 2 { // no datagram can go straight between these
		r.flows = append(r.flows, w.flow(shut[i], shut[i+1]))
	}
	r.flow(false)
	if r.enough() {
		return
	}
	w.wait(r.rest(4 * time.Minute))
	r.idle(idleName, r.rest(3*time.Minute))
	r.heap = (heap() - before) / uint64(len(w.nodes))
	for _, share := range []float64{0.1, 0.3} {
		if r.enough() {
			return
		}
		r.flow(true)
		w.wait(20 * time.Second)
		gone := w.some(w.living(), share)
		r.measure(fmt.Sprintf("%.0f %% vanish", 100*share), func() {
			for _, n := range gone {
				n.kill()
			}
		})
		r.flow(false)
		if r.enough() {
			return
		}
		r.measure("they come back within 10 s", func() { w.each(gone, 10*time.Second, (*node).start) })
		w.wait(r.rest(30 * time.Second))
	}
	if r.enough() {
		return
	}
	w.split()
	w.wait(r.rest(2 * time.Minute))
	r.measure("two halves join again", w.join)
	w.wait(r.rest(30 * time.Second))
	r.flow(true)
	w.wait(30 * time.Second)
	r.measure(restartName, func() {
		w.each(w.nodes, time.Second, func(n *node) { n.kill(); n.start() })
	})
	w.wait(r.rest(time.Minute))
	r.churn(r.rest(5 * time.Minute))
	if w.records {
		r.revoke()
	}
}

// rest returns d, or less where even that takes long: of more than 100 nodes half.
func (r *report) rest(d time.Duration) time.Duration {
	if len(r.w.nodes) > 100 {
		return d / 2
	}
	return d
}

// enough reports whether all steps that are wanted have been gone through.
func (r *report) enough() bool { return *most > 0 && len(r.phases) >= *most }

// revoke puts out a relay that is in use, which does not obey. The rules that are checked at every step say that no route leads
// through it from the moment when a node knows.
func (r *report) revoke() {
	w := r.w
	var bad *node
	for _, a := range w.nodes {
		for _, b := range a.watched {
			for _, route := range a.routesTo(b) {
				bad = w.byShort[route.At(0)]
			}
		}
	}
	by := slices.IndexFunc(w.nodes, func(n *node) bool { return n != bad && n.runs() })
	if bad == nil || by < 0 {
		w.Error("no route is in use")
		return
	}
	w.revoke(bad, w.nodes[by])
	begun := time.Now()
	unaware := func(n *node) bool { return n != bad && !n.cutOff(bad) }
	for slices.ContainsFunc(w.living(), unaware) && time.Since(begun) < time.Minute {
		w.wait(clockTick)
	}
	r.revoked = time.Since(begun)
	bad.restate()
	w.wait(time.Minute)
	joined, working := w.routes()
	if slices.ContainsFunc(w.living(), unaware) || working < joined*98/100 {
		w.Errorf("a minute after a revocation %d of %d routes work; all know of it: %v", working, joined, !slices.ContainsFunc(w.living(), unaware))
	}
	for _, n := range w.living() {
		n.mu.Lock()
		if v := n.links.Version(bad.short); n != bad && v.Seq > 0 {
			w.Errorf("node %d still holds the link state of one who is revoked", n.n)
		}
		n.mu.Unlock()
	}
}

// flow lets the flows go, or stops them. What they make their hops do, and what they learn by it, costs something too.
func (r *report) flow(on bool) {
	for _, f := range r.flows {
		f.pause(!on)
	}
	r.flowing = on
}

// measure lets something happen and finds out how long it takes until all is well.
func (r *report) measure(name string, event func()) {
	w := r.w
	p := phase{name: name, maps: -1, routes: -1}
	states, sent := w.originated.Load(), w.total()
	for _, f := range r.flows {
		f.fresh()
	}
	begun := time.Now()
	event()
	at := time.Now()
	p.nodes = len(w.living())
	last, lastAt := w.total(), time.Now()
	for time.Since(at) < convergeWithin && (p.maps < 0 || p.routes < 0) || time.Since(at) < r.rest(phaseLeast) {
		w.wait(poll)
		if p.maps < 0 && w.mapAgrees() {
			p.maps = time.Since(at)
		}
		if p.routes < 0 {
			if joined, working := w.routes(); joined == working && len(w.graph()) == p.nodes {
				p.routes, p.joined = time.Since(at), joined
			}
		}
		if d := time.Since(lastAt); d >= time.Second {
			sum := w.total()
			now := sum.minus(last)
			p.peak = max(p.peak, float64(now.control())/d.Seconds()/float64(p.nodes))
			last, lastAt = sum, time.Now()
		}
	}
	p.over = time.Since(begun)
	p.sent, p.states = w.total().minus(sent), w.originated.Load()-states
	p.gap = r.gaps()
	r.done(p)
	w.Logf("%-28s %s", name, w.graph().census())
	if p.maps < 0 || p.routes < 0 {
		w.Errorf("%s: no convergence within %v (map %v, routes %v)", name, convergeWithin, p.maps, p.routes)
	}
}

// gaps returns the longest silence of flows whose ends live and could be joined.
func (r *report) gaps() (worst time.Duration) {
	if !r.flowing {
		return 0
	}
	g := r.w.graph()
	for _, f := range r.flows {
		if !f.from.runs() || !f.to.runs() {
			continue
		}
		if d, ok := g.edges(f.from)[f.to]; !ok || d > 5 {
			continue
		}
		gap, _ := f.gap()
		worst = max(worst, gap)
	}
	return worst
}

// talks reports whether n is at the end of a flow.
func (r *report) talks(n *node) bool {
	return slices.ContainsFunc(r.flows, func(f *flow) bool { return f.from == n || f.to == n })
}

// idle measures what goes on when nothing happens.
func (r *report) idle(name string, d time.Duration) {
	w := r.w
	p := phase{name: name, nodes: len(w.living()), over: d, states: w.originated.Load(), sent: w.total()}
	for _, f := range r.flows {
		f.fresh()
	}
	w.wait(d)
	p.sent, p.states = w.total().minus(p.sent), w.originated.Load()-p.states
	p.degree = w.graph().degree()
	r.done(p)
	for range 5 {
		n := w.nodes[w.rand.IntN(len(w.nodes))]
		r.floods = append(r.floods, w.spread(n))
	}
	w.nodes[0].mu.Lock()
	defer w.nodes[0].mu.Unlock()
	for _, n := range w.nodes {
		r.bytes += len(w.nodes[0].links.Raw(n.short))
	}
}

// churn lets one node in a hundred vanish each minute, and come back 30 s later.
func (r *report) churn(d time.Duration) {
	w := r.w
	p := phase{name: churnName, nodes: len(w.living()), over: d, states: w.originated.Load(), sent: w.total(), maps: -1, routes: -1}
	for _, f := range r.flows {
		f.fresh()
	}
	every := max(time.Minute*100/time.Duration(len(w.nodes)), clockTick)
	var joined, working int
	var gone []*node
	away := max(1, int(30*time.Second/every))
	for begun := time.Now(); time.Since(begun) < d; {
		w.wait(every)
		n := w.some(slices.DeleteFunc(w.living(), r.talks), 0)[0]
		n.kill()
		if gone = append(gone, n); len(gone) > away {
			gone[0].start()
			gone = gone[1:]
		}
		if a, b := w.routes(); a > 0 {
			joined, working = joined+a, working+b
		}
	}
	p.sent, p.states = w.total().minus(p.sent), w.originated.Load()-p.states
	p.gap, p.degree = r.gaps(), w.graph().degree()
	r.done(p)
	w.Logf("churn: of %d looks at watched pairs, %d found a route that works (%.2f %%)", joined, working, 100*float64(working)/float64(joined))
	if float64(working) < 0.9*float64(joined) {
		w.Errorf("churn: only %d of %d routes work", working, joined)
	}
}

// table is what was measured, in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| what happens | nodes | map agrees | routes work | longest gap | B/s a node: all | map | pings | MTU | records | handshakes, wishes | relayed | worst second | states/s | B a state |\n")
	fmt.Fprintf(&b, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.phases {
		b.WriteString(p.row())
	}
	if !r.enough() {
		b.WriteString("\n" + r.formulae())
	}
	fmt.Fprintf(&b, "\nmemory: %d kB of heap a node when idle; %d signatures verified by all; %d checks of invariants\n", r.heap>>10, r.w.verified.Load(), r.w.checks.Load())
	return b.String()
}

func (p *phase) row() string {
	rate := func(k ...class) string {
		var sum int64
		for _, k := range k {
			sum += p.sent[k]
		}
		return fmt.Sprintf("%.0f", float64(sum)/p.over.Seconds()/float64(p.nodes))
	}
	return fmt.Sprintf("| %s | %d | %s | %s | %s | %.0f | %s | %s | %s | %s | %s | %s | %.0f | %.2f | %.0f |\n", p.name, p.nodes, seconds(p.maps), seconds(p.routes), seconds(p.gap),
		float64(p.sent.control())/p.over.Seconds()/float64(p.nodes), rate(classMap), rate(classPing), rate(classSize), rate(classRecords),
		rate(classShake, classWish), rate(classRelay), p.peak, float64(p.states)/p.over.Seconds(), p.each())
}

// done notes a phase.
func (r *report) done(p phase) {
	p.cpu = cpuTime()
	r.phases = append(r.phases, p)
	if *byHand > 0 { // it takes long
		fmt.Fprintf(os.Stderr, "%v, %v of CPU time %s%s\n", time.Since(r.w.begun), p.cpu.Round(time.Second), p.row(), r.w.graph().census())
	}
}

// cpuTime returns how much CPU time this process has used, where the system tells in Linux's way; else 0.
func cpuTime() (sum time.Duration) {
	b, _ := os.ReadFile("/proc/self/stat")
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	for _, f := range fields[11:13] { // of programs and of the system, in hundredths of a second
		n, _ := strconv.Atoi(f)
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

// formulae sets what was measured against the research's estimates, which assumed 8 links a node, one change of a link's
// cost each 20 min and one restart each 8 h.
func (r *report) formulae() string {
	var b strings.Builder
	find := func(name string) (p phase) {
		for _, p = range r.phases {
			if p.name == name {
				break
			}
		}
		return p
	}
	n := float64(len(r.w.nodes))
	still, churn, vanish, restart := find(idleName), find(churnName), find("30 % vanish"), find(restartName)
	line := func(what, formula, measured string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", what, formula, fmt.Sprintf(measured, args...))
	}
	b.WriteString("| what | formula | measured |\n|---|---|---|\n")
	line("link states a second, idle", fmt.Sprintf("N/1800 = %.2f; with changes of cost N (1/1800 + 1/1200) = %.2f", n/1800, n/1800+n/1200), "%.2f", float64(still.states)/still.over.Seconds())
	line("link states a second, 1 % churn a minute", fmt.Sprintf("N (1/1800 + 2 (1 + D)/6000) = %.2f", n*(1/1800.+2*(1+churn.degree)/6000)), "%.2f", float64(churn.states)/churn.over.Seconds())
	naive := (still.degree - 1) * 260
	line("bytes sent for one link state, a node", fmt.Sprintf("flooding (D - 1) 260 = %.0f; tree 525", naive), "start %.0f, idle %.0f, churn %.0f", r.phases[0].each(), still.each(), churn.each())
	line("pings at rest, B/s a node", fmt.Sprintf("D (72 + 90)/25 = %.0f", still.degree*162/25), "%.0f", float64(still.sent[classPing])/still.over.Seconds()/n)
	line("map, bytes", fmt.Sprintf("207 N = %.0f k", n*.207), "%.0f k (%.0f a node)", float64(r.bytes)/1000, float64(r.bytes)/n)
	slices.Sort(r.floods)
	line("flood, link state to all", "0.1 s at 10, 0.25 at 100, 0.3 at 1,000", "%.2f s median, %.2f s longest of %d", r.floods[len(r.floods)/2].Seconds(), r.floods[len(r.floods)-1].Seconds(), len(r.floods))
	line("idle view after 30 % vanish", "<= 16 s", "%s", seconds(vanish.maps))
	line("streams of data after 30 % vanish", "<= 4 s", "%s of silence", seconds(vanish.gap))
	line("after all restart", "seconds", "map %s, routes %s, streams %s of silence", seconds(restart.maps), seconds(restart.routes), seconds(restart.gap))
	line("revocation known to all", "seconds", "%s", seconds(r.revoked))
	return b.String()
}

func (p *phase) each() float64 {
	if p.states == 0 {
		return 0
	}
	return float64(p.sent[classMap]) / float64(p.states) / float64(p.nodes)
}

func seconds(d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
