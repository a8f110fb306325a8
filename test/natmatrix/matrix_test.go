//go:build linux

package natmatrix

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/warren-vpn/warren/test/netns/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// The whole matrix. WARREN_NATMATRIX names the file to which the table goes, WARREN_NATMATRIX_ANCHORS how many public members
// there are (1), WARREN_NATMATRIX_LOGS a folder for what the members' daemons log. `go test -run 'TestMatrix/.*random'` tries a part.
func TestMatrix(t *testing.T) {
	file := os.Getenv("WARREN_NATMATRIX")
	if file == "" {
		t.Skip("takes a quarter of an hour: use `make natmatrix`")
	}
	anchors := 1
	if v := os.Getenv("WARREN_NATMATRIX_ANCHORS"); v != "" {
		var err error
		if anchors, err = strconv.Atoi(v); err != nil || anchors < 1 {
			t.Fatalf("WARREN_NATMATRIX_ANCHORS=%q", v)
		}
	}
	want, err := Expected()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	outcomes := map[string]Outcome{}
	t.Run("cases", func(t *testing.T) {
		for _, c := range append(Pairs(), Neighbours()...) {
			t.Run(strings.NewReplacer(", ", "~", " ", "-").Replace(c.Name), func(t *testing.T) {
				t.Parallel()
				o := Run(t, c, anchors)
				t.Log(o)
				if o.Result < want[c.Name] {
					t.Errorf("%s: %s, want %s", c.Name, o.Result, want[c.Name])
				} else if o.Result > want[c.Name] {
					t.Logf("%s: better than expect.go says: %s", c.Name, o.Result)
				}
				mu.Lock()
				defer mu.Unlock()
				outcomes[c.Name] = o
			})
		}
	})
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(Table(outcomes)), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// expect.go speaks of all cases, and of no others.
func TestExpected(t *testing.T) {
	want, err := Expected()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(Pairs(), Neighbours()...) {
		if _, ok := want[c.Name]; !ok {
			t.Errorf("expect.go says nothing of %q", c.Name)
		}
		delete(want, c.Name)
	}
	if len(want) != 0 {
		t.Errorf("expect.go speaks of %v, which nobody tries", want)
	}
}

func TestTable(t *testing.T) {
	got := Table(map[string]Outcome{
		Pair(lab.SiteOpen, lab.SitePort).Name:     {Result: Direct, First: 120e6, Direct: 930e6},
		Pair(lab.SiteRandom, lab.SiteRandom).Name: {Result: Relayed, First: 200e6},
		Pair(lab.SiteNoUDP, lab.SiteNoUDP).Name:   {},
		"one LAN":                                 {Result: Direct, First: 1e8, Direct: 2e8},
	})
	for _, want := range []string{"| **open** | | | | direct 0.1 / 0.9 |", "relayed 0.2 |", " – |", "| one LAN | direct 0.1 / 0.2 |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
