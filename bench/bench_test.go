//go:build linux

package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0}, {[]float64{3}, 0.5, 3}, {[]float64{3}, 0.99, 3}, {[]float64{1, 2}, 0.5, 1.5}, {[]float64{1, 2, 9}, 0.5, 2},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.99, 10},
	} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %g of %v = %g, want %g", c.q, c.values, got, c.want)
		}
	}
}

func TestParseIperf(t *testing.T) {
	gbits, gigabytes, err := parseIperf([]byte(`{"end":{"sum_received":{"bytes":1e9,"bits_per_second":4e9},
		"sum_received_bidir_reverse":{"bytes":2e9,"bits_per_second":1e9}}}`))
	if gbits != 5 || gigabytes != 3 || err != nil {
		t.Errorf("%g Gbit/s, %g GB, %v", gbits, gigabytes, err)
	}
	for _, bad := range []string{"", "{}", `{"error":"unable to connect to server"}`} {
		if _, _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParsePingCountsLostOnes(t *testing.T) {
	times, err := parsePing("64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=0.5 ms\n64 bytes from 192.0.2.2: icmp_seq=3 ttl=64 time=0.25 ms\n", 3)
	if err != nil || len(times) != 3 || times[0] != 0.25 || times[2] != lostPing {
		t.Errorf("%v, %v", times, err)
	}
}

// The search finds the capacity of a link, whatever it is, and no more than the sender can offer.
func TestSearchFindsTheCapacity(t *testing.T) {
	for _, capacity := range []float64{2500, 39000, 41000, 250000, 1e6} {
		trials := 0
		got, err := search(func(rate float64) (offered, delivered float64, err error) {
			trials++
			return rate, min(rate, capacity), nil
		})
		if err != nil || got > capacity || got < 0.9*capacity || trials > 30 {
			t.Errorf("capacity %g: found %g in %d trials, %v", capacity, got, trials, err)
		}
	}
	got, err := search(func(rate float64) (offered, delivered float64, err error) {
		rate = min(rate, 70000)
		return rate, rate, nil
	})
	if err != nil || got != 70000 {
		t.Errorf("a sender of 70000 at most: found %g, %v", got, err)
	}
	if _, err := search(func(float64) (offered, delivered float64, err error) { return 0, 0, errors.New("gone") }); err == nil {
		t.Error("the error of a trial was lost")
	}
	if got, _ := search(func(rate float64) (offered, delivered float64, err error) { return rate, 0, nil }); got != 0 {
		t.Errorf("found %g where nothing arrives", got)
	}
}

func TestReport(t *testing.T) {
	r := newReport(options{rounds: 3})
	r.systems = []system{{name: bare}, {name: reference}, {name: ours, judged: true}}
	for i := range 3 {
		v := float64(i)
		r.add(bare, map[string]float64{"tcp-1": 19 + v})
		r.add(reference, map[string]float64{"tcp-1": 2 + v, "cpu": 4, "rss-idle": 30})
		r.add(ours, map[string]float64{"tcp-1": 8 + v, "cpu": 3, "rss-idle": 20})
	}
	byRow := map[string]Result{}
	for _, x := range r.results() {
		if x.System == ours {
			byRow[x.Row] = x
		}
	}
	if x := byRow["tcp-1"]; x.Min != 8 || x.Median != 9 || x.Max != 10 || x.Ratio != 3 || !*x.Met {
		t.Errorf("tcp-1: %+v", x)
	}
	if x := byRow["cpu"]; x.Ratio != 0.75 || *x.Met {
		t.Errorf("cpu: %+v", x)
	}
	if x := byRow["rss-idle"]; math.Abs(x.Ratio-2.0/3) > 1e-9 || !*x.Met {
		t.Errorf("rss-idle: %+v", x)
	}
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{"TCP, 1 stream", "3.00  >= 2.5  met", "0.75  <= 0.5  missed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Rows with relays are compared with direct, of the same build, and one relay is judged.
func TestReportOfRelays(t *testing.T) {
	r := newReport(options{rounds: 1})
	r.systems = []system{{name: reference}, {name: ours, judged: true}, {name: "old", judged: true}}
	for i, s := range []string{ours, "old"} {
		for hops := range relays {
			r.add(relayEntry(s, hops), map[string]float64{"relay-tcp": float64(8+i) / float64(1+hops), "relay-cpu": float64(1 + i*hops)})
		}
	}
	got := map[string]Result{}
	for _, x := range r.results() {
		got[x.System+" "+x.Row] = x
	}
	for key, want := range map[string]float64{"direct relay-tcp": 0, "1 relay relay-tcp": 0.5, "2 relays relay-tcp": 1.0 / 3, "old 1 relay relay-cpu": 2} {
		if x, ok := got[key]; !ok || math.Abs(x.Ratio-want) > 1e-9 {
			t.Errorf("%s: %+v, want the ratio %g", key, x, want)
		}
	}
	if x := got["1 relay relay-tcp"]; x.Met == nil || !*x.Met {
		t.Errorf("1 relay: %+v, want it judged and met", x)
	}
	if x := got["old 1 relay relay-cpu"]; x.Met == nil || *x.Met {
		t.Errorf("old 1 relay: %+v, want it judged and missed", x)
	}
	if x := got["2 relays relay-tcp"]; x.Met != nil {
		t.Errorf("2 relays: %+v, want it not judged", x)
	}
}

// Each round begins with another number of relays.
func TestRelayStepsTurn(t *testing.T) {
	first := map[string]bool{}
	for round := range relays {
		steps := relaySteps(&world{name: ours, mesh: &mesh{}}, round)
		if len(steps) != numRelaySteps {
			t.Fatalf("%d steps, want %d", len(steps), numRelaySteps)
		}
		first[steps[1].entry] = true
	}
	if len(first) != len(relays) {
		t.Errorf("rounds begin with %v", first)
	}
}
