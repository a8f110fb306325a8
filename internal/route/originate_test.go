package route

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
)

// stated drains the effects and returns the last link state originated, and how many there were.
func (c *chart) stated() (s wire.LinkState, n int) {
	for _, f := range c.Effects() {
		if o, ok := f.(Originate); ok {
			s = o.State
			n++
		}
	}
	return s, n
}

// spec/54-routes.md#cost
func TestCost(t *testing.T) {
	for _, x := range []struct {
		rtt  time.Duration
		loss float64
		want uint16
	}{
		{0, 0, 100}, {-time.Second, -1, 100}, {12300 * time.Microsecond, 0, 223}, {20 * time.Millisecond, 0.05, 300}, {0, 0.1625, 1100},
		{3 * time.Second, 0, 5100}, {3 * time.Second, 1, 8100}, {0, math.NaN(), 100}, {0, math.Inf(1), 3100},
	} {
		if got := costOf(x.rtt, x.loss, true); got != x.want {
			t.Errorf("%v with loss %v costs %d, want %d", x.rtt, x.loss, got, x.want)
		}
	}
	if got := costOf(0, 0, false); got != 1100 {
		t.Errorf("unknown costs %d", got)
	}
}

// spec/54-routes.md#origination
func TestOriginatesLinksAndNothingElse(t *testing.T) {
	c := newChart(t, 30)
	c.Up(c.now, id(9))
	c.link(0, 5, 20)
	c.link(0, 3, 10)
	c.SetGroups(c.now, []uint32{7, 3, 7})
	c.SetOverloaded(c.now, true)
	c.pass(90 * time.Millisecond)
	if _, n := c.stated(); n != 0 {
		t.Error("stated before the changes were gathered")
	}
	c.pass(20 * time.Millisecond)
	s, n := c.stated()
	want := []wire.Link{{To: id(3).Short(), Cost: 200}, {To: id(5).Short(), Cost: 300}}
	if n != 1 || s.Node != id(0).Short() || s.Version != (wire.Version{Epoch: 1, Seq: 1}) || s.Flags != wire.StateOverloaded ||
		!slices.Equal(s.Links, want) || !slices.Equal(s.Groups, []uint32{3, 7}) {
		t.Errorf("%d stated: %+v", n, s)
	}
}

// spec/54-routes.md#origination: the more often links change, the more rarely is it told.
func TestOriginationIsThrottled(t *testing.T) {
	for _, n := range []int{30, 15000} {
		c := newChart(t, n)
		c.link(0, 1, 10)
		c.pass(200 * time.Millisecond)
		c.stated()
		most := max(holdMost, time.Duration(n)*holdMember)
		last, longest := c.now, time.Duration(0)
		for i := range 5 * 600 {
			c.link(0, 2+i%2, 10*((i/2)%2))
			c.pass(100 * time.Millisecond)
			if _, n := c.stated(); n > 0 {
				if d := c.now.Sub(last); d < longest-200*time.Millisecond {
					t.Fatalf("%v after the last one, which had %v", d, longest)
				} else {
					longest = max(longest, d)
				}
				last = c.now
			}
		}
		if longest < most-time.Second || longest > most+time.Second {
			t.Errorf("at most every %v, want %v", longest, most)
		}
		c.pass(5 * time.Minute)
		c.stated()
		c.link(0, 1, 0)
		c.pass(150 * time.Millisecond)
		if _, n := c.stated(); n != 1 {
			t.Error("after a quiet time a change is not told at once")
		}
	}
}

// spec/54-routes.md#origination: noise is not told, lasting change is.
func TestOriginatesMetricsRarely(t *testing.T) {
	c := newChart(t, 30)
	c.link(0, 1, 40)
	c.pass(time.Minute)
	c.stated()
	measure := func(seconds, rtt int) (n int) {
		for i := range seconds {
			c.Measured(c.now, id(1), time.Duration(rtt+i%2)*time.Millisecond, 0, 0)
			c.pass(time.Second)
		}
		_, n = c.stated()
		return n
	}
	for _, x := range []struct{ seconds, rtt, want int }{
		{300, 50, 0}, // 20 %
		{29, 70, 0},  // not long enough
		{10, 40, 0},
		{40, 70, 1},
		{300, 70, 0},
		{40, 40, 1},
		{50, 90, 0}, // too soon after the last
		{20, 90, 1},
	} {
		if got := measure(x.seconds, x.rtt); got != x.want {
			t.Errorf("%d s at %d ms: stated %d times, want %d", x.seconds, x.rtt, got, x.want)
		}
	}
	c.link(0, 1, 40)
	if got := measure(3600, 40); got < 1 || got > 3 {
		t.Errorf("stated %d times in a quiet hour", got)
	}
}

// spec/54-routes.md#origination: an earlier life's link state is outdone.
func TestJumpsAboveOwnOldState(t *testing.T) {
	for _, x := range []struct{ heard, want wire.Version }{
		{wire.Version{Epoch: 9, Seq: 77}, wire.Version{Epoch: 9, Seq: 78}},
		{wire.Version{Epoch: 9, Seq: math.MaxUint32}, wire.Version{Epoch: 10, Seq: 0}},
		{wire.Version{Epoch: 1, Seq: 500}, wire.Version{Epoch: 1, Seq: 501}},
		{wire.Version{Epoch: 1, Seq: 1}, wire.Version{}},
		{wire.Version{Epoch: 0, Seq: 9}, wire.Version{}},
		{wire.Version{Epoch: math.MaxUint32, Seq: math.MaxUint32}, wire.Version{}},
	} {
		c := newChart(t, 30)
		c.link(0, 1, 10)
		c.pass(5 * time.Second)
		c.stated()
		if c.Learn(c.now, wire.LinkState{Node: id(0).Short(), Version: x.heard}) {
			t.Error("a node's own link state is to be spread as somebody else's")
		}
		c.pass(5 * time.Second)
		if s, n := c.stated(); s.Version != x.want || n > 0 && x.want == (wire.Version{}) {
			t.Errorf("heard %v: stated %d times, %v, want %v", x.heard, n, s.Version, x.want)
		}
	}
}
