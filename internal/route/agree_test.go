package route

import (
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/wire"
	"pgregory.net/rapid"
)

// couple is two engines in a network that is not small, who hear each other and nobody else.
type couple struct {
	t     *rapid.T
	now   time.Time
	e     [2]*Engine
	up    bool
	lose  bool
	mail  []letter
	links [2]bool
}

type letter struct {
	to   int
	wish wire.LinkWish
}

func newCouple(t *rapid.T) *couple {
	c := &couple{t: t, now: start}
	for i := range c.e {
		c.begin(i)
	}
	return c
}

func (c *couple) begin(i int) {
	c.e[i] = New(Config{Self: id(i).Short(), Rand: seed(uint64(i))}, nil)
	c.e[i].SetMembers(c.now, ids(40))
	for _, m := range c.e[i].order { // their plans do nothing by themselves
		m.noTransit = m.id != id(1-i)
		m.retry = c.now.Add(1000 * time.Hour)
	}
	c.links[i] = false
}

func (c *couple) other(i int) *neighbour { return c.e[i].neighbourOf(c.e[i].member(id(1 - i))) }

// step carries out effects, delivers what is under way, and lets a moment go by.
func (c *couple) step(d time.Duration) {
	for i, e := range c.e {
		e.Tick(c.now)
		for _, f := range e.Effects() {
			switch f := f.(type) {
			case SendWish:
				if c.up && !c.lose {
					c.mail = append(c.mail, letter{1 - i, f.Wish})
				}
			case LinkUp:
				if c.links[i] {
					c.t.Fatal("a link came up twice")
				}
				c.links[i] = true
			case LinkDown:
				if !c.links[i] {
					c.t.Fatal("a link went down that was not up")
				}
				c.links[i] = false
			}
		}
	}
	mail := c.mail
	c.mail = nil
	for _, l := range mail {
		c.e[l.to].HandleWish(c.now, id(1-l.to), l.wish)
	}
	c.now = c.now.Add(d)
}

func (c *couple) session(up bool) {
	c.up, c.mail = up, nil
	for i, e := range c.e {
		if up {
			e.Up(c.now, id(1-i))
		} else {
			e.Down(c.now, id(1-i))
		}
	}
}

// spec/54-routes.md#link-agreement: whatever was lost and however often minds changed, in the end both think the same, and the
// link stands if and only if one of them wants it for its own sake.
func TestAgreementConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCouple(t)
		c.session(true)
		for range rapid.IntRange(0, 30).Draw(t, "changes") {
			i := rapid.IntRange(0, 1).Draw(t, "who")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				c.e[i].pick(c.now, c.other(i), kindRandom)
			case 1:
				c.e[i].pick(c.now, c.other(i), kindNone)
			case 2:
				c.lose = !c.lose
			case 3:
				c.session(!c.up)
			case 4:
				if c.up { // it starts anew; the other one does not notice
					c.begin(i)
					c.mail = nil
					c.e[i].Up(c.now, id(1-i))
				}
			case 5:
				c.step(30 * time.Second)
			}
			for range rapid.IntRange(0, 3).Draw(t, "steps") {
				c.step(700 * time.Millisecond)
			}
		}
		c.lose = false
		if !c.up {
			c.session(true)
		}
		for range 20 * 60 {
			c.step(time.Second)
		}
		own := c.other(0).kind != kindNone || c.other(1).kind != kindNone
		if c.links[0] != c.links[1] || c.links[0] != own {
			t.Fatalf("links %v; of their own they want %q and %q", c.links, c.other(0).kind, c.other(1).kind)
		}
		c.other(0).wishAt, c.other(1).wishAt = time.Time{}, time.Time{}
	})
}

// spec/54-routes.md#link-agreement: who said what, message by message.
func TestAgreementMessages(t *testing.T) {
	e := New(Config{Self: id(0).Short(), Rand: seed(1)}, nil)
	e.SetMembers(start, ids(40))
	now := start
	e.Tick(now)
	e.Effects()
	e.Up(now, id(1))
	sent := func() (out []wire.LinkWish) {
		for _, f := range e.Effects() {
			if w, ok := f.(SendWish); ok && w.ID == id(1) {
				out = append(out, w.Wish)
			}
		}
		return out
	}
	sent()
	n := e.member(id(1)).neighbour
	n.retry = now.Add(time.Hour) // not wanted by itself
	hear := func(bits string, linked bool, answers ...wire.LinkWish) {
		t.Helper()
		e.HandleWish(now, id(1), wish(bits))
		got := sent()
		if len(got) != len(answers) || len(got) == 1 && got[0] != answers[0] {
			t.Errorf("%q is answered by %v, want %v", bits, got, answers)
		}
		if n.linked != linked {
			t.Errorf("after %q the link is %v", bits, n.linked)
		}
	}
	hear("", false)                        // nothing new
	hear("seen", false, wish(""))          // it thinks that we want: no
	hear("want seen", false, wish("seen")) // an answer to a wish that we do not have
	hear("", false, wish(""))              // it takes it back
	hear("want", true, wish("want seen"))  // a question: granted
	hear("want seen", true)                // it knows
	hear("want", true, wish("want seen"))  // it asks again
	hear("seen", true, wish(""))           // it takes the wish back, and so do we; the link lingers
	hear("want", true, wish("seen"))       // within 10 s: refused
	hear("", true, wish(""))               //
	now = now.Add(11 * time.Second)        //
	e.Tick(now)                            //
	sent()                                 //
	hear("want", true, wish("want seen"))  // granted again
	hear("seen", true, wish(""))           // taken back knowingly
	e.pick(now, n, kindNear)               // our own wish
	if got := sent(); len(got) != 1 || got[0] != wish("want") {
		t.Errorf("our wish: %v", got)
	}
	now = now.Add(wishEvery)
	e.Tick(now)
	if got := sent(); len(got) != 1 || got[0] != wish("want") {
		t.Errorf("our wish again: %v", got)
	}
	hear("want seen", true, wish("want seen"))
	now = now.Add(time.Minute)
	e.Tick(now)
	if got := sent(); len(got) != 0 {
		t.Errorf("a settled wish is sent again: %v", got)
	}
}

func wish(bits string) (w wire.LinkWish) {
	switch bits {
	case "want seen":
		return wire.LinkWish{Want: true, Seen: true}
	case "want":
		return wire.LinkWish{Want: true}
	case "seen":
		return wire.LinkWish{Seen: true}
	}
	return w
}

// spec/54-routes.md#link-agreement: a wish that nobody answers is sent 5 times, and somebody else is asked.
func TestUnansweredWish(t *testing.T) {
	c := newChart(t, 40)
	c.Up(c.now, id(1))
	c.Effects()
	c.pick(c.now, c.member(id(1)).neighbour, kindRandom)
	count := 0
	for range 60 {
		for _, f := range c.Effects() {
			if w, ok := f.(SendWish); ok && w.ID == id(1) && w.Wish.Want {
				count++
			}
		}
		c.pass(time.Second)
	}
	if n := c.member(id(1)); count != wishTries || n.neighbour.wants() || !n.retry.After(c.now) {
		t.Errorf("sent %d times, still wanted: %v", count, n.neighbour.wants())
	}
}
