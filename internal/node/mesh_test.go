package node

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/testnet"
)

func TestTwentyNodesBecomeOneNetworkOverABadInternet(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond, Loss: 0.02}, func(w *world) {
		root := w.machine("node0")
		root.create("warren")
		ms := []*machine{root}
		inviter := root // each third member invites the next three
		var took []time.Duration
		for i := 1; i < 20; i++ {
			m := w.machine(fmt.Sprintf("node%d", i))
			took = append(took, m.join(inviter.invite(1)))
			ms = append(ms, m)
			if i%3 == 0 {
				w.eventually("the root knows "+m.name, 5*time.Second, func() bool { return slices.Contains(root.names(), m.name) })
				_, err := root.node.AdminAdd(w.Context(), api.AdminRequest{Member: m.name, Rights: []string{"invite"}})
				must(w, 0, err)
				w.eventually(m.name+" may invite", 5*time.Second, func() bool { return m.network("").Self.Admin })
				inviter = m
			}
		}
		slices.Sort(took)
		w.Logf("join: fastest %v, median %v, slowest %v", took[0], took[len(took)/2], took[len(took)-1])
		if took[len(took)/2] > time.Second || took[len(took)-1] > 5*time.Second {
			w.Errorf("joins take too long")
		}
		w.Logf("every roster equal %v after the last join", w.agreed(20, 10*time.Second, ms...))
		w.Logf("everybody in touch %v later", w.eventually("in touch", 30*time.Second, func() bool { return w.linked(ms...) }))
		w.allPairs(ms...)
	})
}

func TestEverybodyIsBackSecondsAfterAllRestart(t *testing.T) {
	for name, crash := range map[string]bool{"in good order": false, "by a power cut": true} {
		t.Run(name, func(t *testing.T) {
			story(t, lan, func(w *world) {
				ms := w.found("a", "b", "c", "d", "e", "f")
				_, err := ms[3].node.Rename(w.Context(), api.RenameRequest{Name: "last-minute"})
				must(w, 0, err)
				for _, m := range ms { // d's rename is on its own disk only
					if crash {
						m.kill()
					} else {
						m.shutdown()
					}
				}
				testnet.Wait(time.Minute)
				for _, m := range ms {
					m.start()
				}
				w.Logf("in touch after %v", w.eventually("in touch", 8*time.Second, func() bool { return w.linked(ms...) }))
				w.agreed(6, 2*time.Second, ms...)
				if !slices.Contains(ms[0].names(), "last-minute") {
					w.Errorf("a record was lost: %v", ms[0].names())
				}
				w.allPairs(ms...)
			})
		})
	}
}

func TestOneNodeThatCrashesIsBackAtOnce(t *testing.T) {
	story(t, lan, func(w *world) {
		ms := w.found("a", "b", "c")
		ms[1].kill()
		testnet.Wait(time.Second)
		ms[1].start()
		w.Logf("in touch after %v", w.eventually("in touch", 3*time.Second, func() bool {
			_, err := ms[1].ping(ms[2], 0, 100*time.Millisecond)
			return err == nil
		}))
		w.allPairs(ms...)
	})
}

func TestAStreamFollowsAMemberThatRoams(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
		ms := w.found("a", "b", "c")
		a, b := ms[0], ms[1]
		var mu sync.Mutex
		last, gap := time.Now(), time.Duration(0)
		var wg sync.WaitGroup // ends with the stream
		for i := range 400 {
			if i == 150 {
				b.host.SetAddrs(address("198.51.100.7"))
			}
			if i == 300 { // back, and to IPv6 alone
				b.host.SetAddrs(address("2001:db8:9::7"))
			}
			from, to := a, b
			if i%2 == 0 {
				from, to = b, a
			}
			wg.Go(func() {
				sent := time.Now()
				if _, err := from.ping(to, i%2, time.Second); err == nil {
					mu.Lock()
					defer mu.Unlock()
					gap = max(gap, sent.Sub(last))
					last = sent
				}
			})
			testnet.Wait(50 * time.Millisecond)
		}
		wg.Wait()
		w.Logf("largest gap %v", gap)
		if gap > 2*time.Second || time.Since(last) > 3*time.Second {
			w.Errorf("a gap of %v, the last answer %v ago", gap, time.Since(last))
		}
		w.allPairs(ms...)
	})
}

func TestAMemberWhoseRouterChangesItsAddressIsFoundAgain(t *testing.T) {
	story(t, testnet.Link{Delay: 20 * time.Millisecond}, func(w *world) {
		ms := w.found("a", "b", "c")
		ms[1].deaf = true // the change is beyond its sight, in a NAT
		ms[1].restart()
		w.eventually("in touch", 10*time.Second, func() bool { return w.linked(ms...) })
		last := time.Now()
		var gap time.Duration
		for i := range 100 {
			if i == 50 {
				ms[1].host.SetAddrs(address("198.51.100.7"))
			}
			if _, err := ms[0].ping(ms[1], i%2, 200*time.Millisecond); err == nil {
				gap, last = max(gap, time.Since(last)), time.Now()
			}
			testnet.Wait(50 * time.Millisecond)
		}
		w.Logf("largest gap %v when only the other side sends", gap)
		if gap > 6*time.Second || time.Since(last) > time.Second {
			w.Errorf("a gap of %v, the last answer %v ago", gap, time.Since(last))
		}
	})
}

func TestTwoNetworksShareAPortAndNothingElse(t *testing.T) {
	story(t, lan, func(w *world) {
		a, b, c := w.machine("a"), w.machine("b"), w.machine("c")
		red, blue := a.create("red"), b.create("blue")
		b.join(red)
		c.join(blue)
		w.eventually("a and b talk in red", 10*time.Second, func() bool { _, err := a.pingNet("red", b, 0, time.Second); return err == nil })
		w.eventually("b and c talk in blue", 10*time.Second, func() bool { _, err := b.pingNet("blue", c, 1, time.Second); return err == nil })
		red1, blue1 := b.network("red"), b.network("blue")
		if red1.Interface == blue1.Interface || red1.Self.ID == blue1.Self.ID || red1.Self.PublicKey == blue1.Self.PublicKey {
			w.Errorf("the networks share an interface or a key: %+v, %+v", red1.Self, blue1.Self)
		}
		if _, err := b.node.Leave(w.Context(), api.LeaveRequest{Network: "red"}); err != nil {
			w.Fatal(err)
		}
		w.eventually("a knows that b left red", 2*time.Second, func() bool { return len(a.names()) == 1 })
		for range 3 {
			if _, err := b.pingNet("blue", c, 0, time.Second); err != nil {
				w.Error(err)
			}
		}
		b.restart()
		w.eventually("blue is up again", 5*time.Second, func() bool { _, err := b.pingNet("blue", c, 1, time.Second); return err == nil })
	})
}
