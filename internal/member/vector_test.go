package member

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

var update = flag.Bool("update", false, "write spec/vectors/addresses.json anew")

const vectorFile = "../../spec/vectors/addresses.json"

type addressVector struct {
	Network    string       `json:"network"` // hexadecimal
	Node       string       `json:"node"`    // hexadecimal
	Prefix6    netip.Prefix `json:"ipv6_prefix"`
	Address6   netip.Addr   `json:"ipv6"`
	Pool       netip.Prefix `json:"pool"`
	Candidates []netip.Addr `json:"ipv4_candidates"`
}

// spec/10-identity.md#ipv6, spec/10-identity.md#ipv4
func TestAddressVectors(t *testing.T) {
	var out []addressVector
	for i, p := range []string{"100.64.0.0/10", "10.0.0.0/8", "192.168.7.0/30"} {
		pool := netip.MustParsePrefix(p)
		network, id := key.NetworkID{byte(i + 1)}, key.NodeID{0, byte(i + 1)}
		v := addressVector{Network: network.String(), Node: id.String(), Prefix6: Prefix6(network), Address6: Address6(network, id), Pool: pool}
		for n := range uint32(3) {
			v.Candidates = append(v.Candidates, newPool(network, pool).candidate(id, n))
		}
		out = append(out, v)
	}
	got, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(vectorFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("spec/vectors/addresses.json differs from what this code does; if that is meant, run this test with -update")
	}
}
