package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

var update = flag.Bool("update", false, "write spec/vectors/records.json and code.json anew")

// recordVector is one record. Strings are hexadecimal.
type recordVector struct {
	Kind        Kind     `json:"kind"`
	Network     string   `json:"network"`
	SignerSeeds []string `json:"signer_seeds"`
	Payload     string   `json:"payload"`
	SignedInput string   `json:"signed_input"`
	ID          string   `json:"id"`
	Record      string   `json:"record"`
}

// codeVector is one code. Network and seed are hexadecimal.
type codeVector struct {
	Network  string   `json:"network"`
	Seed     string   `json:"seed"`
	NotAfter int64    `json:"not_after"`
	Approve  bool     `json:"approve"`
	Mask     bool     `json:"mask,omitempty"`
	Hints    []string `json:"hints"`
	Targets  []string `json:"targets,omitempty"`
	Code     string   `json:"code"`
}

// checkVectors compares v with a file, or writes the file.
func checkVectors(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what this code does; if that is meant, run this test with -update", file)
	}
}

// spec/20-records.md#vectors, spec/20-records.md#network-id, spec/20-records.md#kinds
func TestRecordVectors(t *testing.T) {
	all := payloads()
	genesis, err := SealRecord(key.NetworkID{}, KindGenesis, all[KindGenesis], person("a"))
	if err != nil {
		t.Fatal(err)
	}
	network := key.NetworkID(genesis.ID)
	var out []recordVector
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		signers := []key.Identity{person("a")}
		if kind == KindMember {
			signers = []key.Identity{person("c"), person("a"), person("b")}
		}
		r, err := SealRecord(network, kind, all[kind], signers...)
		if err != nil {
			t.Fatal(err)
		}
		v := recordVector{Kind: kind, Network: network.String(), Payload: hex.EncodeToString(r.Payload), ID: r.ID.String(),
			SignedInput: hex.EncodeToString(SignedInput(kind, network, r.Payload)), Record: hex.EncodeToString(r.Raw)}
		for _, s := range signers {
			v.SignerSeeds = append(v.SignerSeeds, hex.EncodeToString(s.Seed()))
		}
		out = append(out, v)
	}
	if out[0].ID != out[0].Network {
		t.Error("the id of the genesis is not the network's")
	}
	checkVectors(t, "../../spec/vectors/records.json", out)
}

func withTargets(c Code, targets ...string) Code {
	c.Targets, c.Mask = targets, true
	return c
}

// spec/31-code.md#vectors
func TestCodeVectors(t *testing.T) {
	var out []codeVector
	for _, c := range []Code{
		{},
		sampleCode(),
		sampleCode("192.0.2.1:51820"),
		sampleCode("192.0.2.1:51820", "[2001:db8::1]:51820", "198.51.100.7:443"),
		withTargets(sampleCode("192.0.2.1:51820"), "tls://192.0.2.1:8443", "wss://vpn.example.org/dig"),
	} {
		v := codeVector{Network: hex.EncodeToString(c.Network[:]), Seed: hex.EncodeToString(c.Seed[:]), NotAfter: c.NotAfter, Approve: c.Approve, Mask: c.Mask, Hints: []string{}, Targets: c.Targets, Code: c.Text()}
		for _, h := range c.Hints {
			v.Hints = append(v.Hints, h.String())
		}
		out = append(out, v)
	}
	checkVectors(t, "../../spec/vectors/code.json", out)
}
