//go:build linux

package natmatrix

import (
	"fmt"
	"strings"

	"github.com/warren-vpn/warren/test/netns/lab"
)

// expected is the least that must come out of each pair with one public member, in the order of lab.SiteKinds: D direct, R relayed,
// and . nothing at all. Better is welcome: then raise it here. Two things hold some of it back: of two predictable NATs
// both ports can be foretold only when two observers far apart have seen two of each; and only the public member takes streams.
const expected = `
open                   D D D D D D D D D D R R R
full cone                D D D D D D D R D R R R
address-restricted         D D D D D D R D R R R
port-restricted              D D R D D R D R R R
symmetric predictable          R R D D R D R R R
symmetric random                 R R R R R R R R
double NAT                         D D R D R R R
carrier NAT                          D R D R R R
IPv6 only                              D D R R R
dual stack                               D R R R
no UDP                                     R R R
only TCP 443                                 R R
only a proxy                                   R
`

// expectedNeighbours is the same for Neighbours.
const expectedNeighbours = `
D one LAN
D one router, kept apart by it, with hairpin
R one router, kept apart by it, without hairpin
D two homes of one carrier NAT, with hairpin
R two homes of one carrier NAT, without hairpin
`

var letters = map[string]Result{"D": Direct, "R": Relayed, ".": Impossible}

// Expected returns the least that must come out of each case, by its name. A fault of the tables is an error.
func Expected() (map[string]Result, error) {
	want := map[string]Result{}
	kinds := lab.SiteKinds()
	lines := strings.Split(strings.Trim(expected, "\n"), "\n")
	if len(lines) != len(kinds) {
		return nil, fmt.Errorf("%d lines for %d kinds", len(lines), len(kinds))
	}
	for i, a := range kinds {
		rest, ok := strings.CutPrefix(lines[i], string(a)+" ")
		cells := strings.Fields(rest)
		if !ok || len(cells) != len(kinds)-i {
			return nil, fmt.Errorf("line %q: want %q and %d letters", lines[i], a, len(kinds)-i)
		}
		for j, b := range kinds[i:] {
			r, ok := letters[cells[j]]
			if !ok {
				return nil, fmt.Errorf("line %q: letter %q", lines[i], cells[j])
			}
			want[Pair(a, b).Name] = r
		}
	}
	for line := range strings.Lines(strings.TrimPrefix(expectedNeighbours, "\n")) {
		letter, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		r, ok := letters[letter]
		if !ok {
			return nil, fmt.Errorf("line %q: letter %q", line, letter)
		}
		want[name] = r
	}
	return want, nil
}
