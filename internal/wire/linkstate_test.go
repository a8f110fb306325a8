package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/warren-vpn/warren/internal/key"
)

// linkStates has some link states of person a, as they come back from ParseLinkState: none of a thing, one, and all there is
// room for.
func linkStates() []LinkState {
	node := person("a").NodeID().Short()
	full := LinkState{Node: node, Version: Version{^uint32(0), ^uint32(0)}, Flags: 0xff}
	for i := range MaxLinks {
		full.Links = append(full.Links, Link{To: key.ShortID{byte(i), 7: 9}, Cost: uint16(i * 1000)})
	}
	for i := range MaxGroups {
		full.Groups = append(full.Groups, uint32(i)<<24|5)
	}
	return []LinkState{
		{Node: node, Version: Version{1, 0}},
		{Node: node, Version: Version{1900000000, 7}, Flags: StateAnchor | StateOverloaded, Links: []Link{{key.ShortID{1}, 120}, {key.ShortID{2}, 65535}}, Groups: []uint32{1, 0xe00000fb}},
		{Node: node, Version: Version{0, 1}, Flags: StateLeaf, Groups: []uint32{0}},
		full,
	}
}

// spec/53-map.md#link-state
func TestLinkStateRoundTrip(t *testing.T) {
	network := key.NetworkID{42}
	a := person("a")
	for _, s := range linkStates() {
		raw := SealLinkState(network, a, s)
		if len(raw) > MaxLinkState {
			t.Fatalf("%d bytes, want %d at most", len(raw), MaxLinkState)
		}
		got, err := ParseLinkState(raw)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("reads back %+v, %v, want %+v", got, err, s)
		}
		if !VerifyLinkState(network, a.Public(), raw) {
			t.Error("its own signature is not good")
		}
		if VerifyLinkState(key.NetworkID{43}, a.Public(), raw) || VerifyLinkState(network, person("b").Public(), raw) {
			t.Error("is good for another network or node")
		}
		for i := range raw {
			bad := slices.Clone(raw)
			bad[i] ^= 1 << (i % 8)
			if VerifyLinkState(network, a.Public(), bad) {
				t.Fatalf("byte %d may be changed", i)
			}
		}
		if VerifyLinkState(network, a.Public(), raw[:len(raw)-1]) || VerifyLinkState(network, a.Public(), nil) {
			t.Error("a part of it verifies")
		}
		clear(raw)
		if !reflect.DeepEqual(got, s) {
			t.Error("what was read shares its bytes")
		}
	}
	if n := len(SealLinkState(network, a, linkStates()[3])); n != 852 || MaxLinkState != 852 {
		t.Errorf("the largest has %d bytes, want 852", n)
	}
}

// What is sealed is brought into its form: sorted, each group once, the cheapest links if there are too many, and the signer's
// own id.
// spec/53-map.md#link-state
func TestLinkStateIsBroughtIntoForm(t *testing.T) {
	var s LinkState
	for i := range MaxLinks + 20 {
		s.Links = append(s.Links, Link{To: key.ShortID{0: byte(200 - i), 7: 1}, Cost: uint16(i)})
	}
	for i := range 2 * MaxGroups {
		s.Groups = append(s.Groups, uint32(2*MaxGroups-i)/2*3)
	}
	links, groups := slices.Clone(s.Links), slices.Clone(s.Groups)
	got, err := ParseLinkState(SealLinkState(key.NetworkID{1}, person("b"), s))
	if err != nil {
		t.Fatal(err)
	}
	if got.Node != person("b").NodeID().Short() || len(got.Links) != MaxLinks || len(got.Groups) != MaxGroups {
		t.Errorf("node %v with %d links and %d groups", got.Node, len(got.Links), len(got.Groups))
	}
	for _, l := range got.Links {
		if l.Cost >= MaxLinks {
			t.Errorf("the link of cost %d was kept, a cheaper one not", l.Cost)
		}
	}
	if !slices.Equal(s.Links, links) || !slices.Equal(s.Groups, groups) {
		t.Error("sealing changed what was sealed")
	}
}

// spec/53-map.md#link-state
func TestLinkStateRefuses(t *testing.T) {
	good := SealLinkState(key.NetworkID{1}, person("a"), linkStates()[1])
	at := func(i int, v ...byte) []byte {
		b := slices.Clone(good)
		copy(b[i:], v)
		return b
	}
	node := person("a").NodeID().Short()
	for name, b := range map[string][]byte{
		"empty":           nil,
		"short":           good[:83],
		"cut":             good[:len(good)-1],
		"more":            append(slices.Clone(good), 0),
		"version 0":       at(0, 0),
		"version 2":       at(0, 2),
		"one link less":   at(2, 1),
		"one link more":   at(2, 3),
		"65 links":        append([]byte{1, 0, 65, 0}, make([]byte, 16+65*10+64)...),
		"33 groups":       append([]byte{1, 0, 0, 33}, make([]byte, 16+33*4+64)...),
		"links descend":   at(20, 3),
		"a link twice":    at(30, 1),
		"a link to self":  at(30, node[:]...),
		"groups descend":  at(40, 0xff),
		"a group twice":   at(40, 0xe0, 0, 0, 0xfb),
		"groups as links": at(2, 4, 0),
	} {
		if _, err := ParseLinkState(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// spec/53-map.md#version
func TestVersionOrder(t *testing.T) {
	order := []Version{{}, {0, 1}, {0, 2}, {1, 0}, {1, 1 << 31}, {1, ^uint32(0)}, {1 << 31, 0}, {^uint32(0), 5}}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Compare(b), max(-1, min(1, i-j)); got != want {
				t.Errorf("%v against %v gives %d, want %d", a, b, got, want)
			}
		}
	}
}

// spec/53-map.md#states
func TestStatesMessage(t *testing.T) {
	var m States
	for _, s := range linkStates()[:3] {
		m.Raw = append(m.Raw, SealLinkState(key.NetworkID{1}, person("a"), s))
	}
	got, err := ParseControl(m.Append(nil))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("reads back %v, %v", got, err)
	}
	long := binary.BigEndian.AppendUint16([]byte{0xC0, byte(ControlStates), 3, 0x57}, uint16(MaxLinkState+1))
	if _, err := ParseControl(append(long, make([]byte, MaxLinkState+1)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a link state of %d bytes: %v, want ErrMalformed", MaxLinkState+1, err)
	}
}

// FuzzParseLinkState: what is let through is encoded in one way only, and is again what came.
func FuzzParseLinkState(f *testing.F) {
	for _, s := range linkStates() {
		f.Add(SealLinkState(key.NetworkID{1}, person("a"), s))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseLinkState(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v is not ErrMalformed", err)
			}
			return
		}
		if len(raw) > MaxLinkState || len(s.Links) > MaxLinks || len(s.Groups) > MaxGroups {
			t.Fatalf("%d bytes, %d links, %d groups", len(raw), len(s.Links), len(s.Groups))
		}
		again := SealLinkState(key.NetworkID{1}, person("a"), s)
		copy(again[4:12], raw[4:12]) // the signer's id, in place of that of s
		if n := len(raw) - sigSize; !bytes.Equal(again[:n], raw[:n]) {
			t.Fatalf("%x was read as %x", raw, again)
		}
	})
}

// linkStateVector is one link state. Strings are hexadecimal.
type linkStateVector struct {
	Network    string   `json:"network"`
	SignerSeed string   `json:"signer_seed"`
	Node       string   `json:"node"`
	Epoch      uint32   `json:"epoch"`
	Seq        uint32   `json:"seq"`
	Flags      uint8    `json:"flags"`
	Links      []string `json:"links"` // short id:cost
	Groups     []uint32 `json:"groups"`
	LinkState  string   `json:"link_state"`
}

// spec/53-map.md#vectors
func TestLinkStateVectors(t *testing.T) {
	network := key.NetworkID{31: 5}
	var out []linkStateVector
	for _, s := range linkStates() {
		v := linkStateVector{Network: network.String(), SignerSeed: hex.EncodeToString(person("a").Seed()), Node: s.Node.String(),
			Epoch: s.Version.Epoch, Seq: s.Version.Seq, Flags: uint8(s.Flags), Links: []string{}, Groups: append([]uint32{}, s.Groups...),
			LinkState: hex.EncodeToString(SealLinkState(network, person("a"), s))}
		for _, l := range s.Links {
			v.Links = append(v.Links, l.To.String()+":"+hex.EncodeToString(binary.BigEndian.AppendUint16(nil, l.Cost)))
		}
		out = append(out, v)
	}
	checkVectors(t, "../../spec/vectors/linkstates.json", out)
}
