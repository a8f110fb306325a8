package state

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/warren-vpn/warren/internal/key"
)

// Keys are this node's secrets in one network.
type Keys struct {
	Identity key.Identity  // who it is; lost, it must join again
	WG       key.WGPrivate // its WireGuard key
}

// The key file is text, so that it can be looked at, copied and typed. The public halves let a damaged file be told
// from a good one: a flipped bit would else be a new identity.
const keysHeader = "warren-keys 1"

var keysFields = [4]string{"identity", "node", "wireguard", "wireguard-public"}

// formatKeys writes the text of a key file.
func formatKeys(k Keys) []byte {
	return fmt.Appendf(nil, "%s\n%s %x\n%s %s\n%s %s\n%s %s\n", keysHeader,
		keysFields[0], k.Identity.Seed(), keysFields[1], k.Identity.NodeID(),
		keysFields[2], k.WG.Base64(), keysFields[3], k.WG.Public())
}

// parseKeys reads what formatKeys wrote, and nothing else. Errors never hold a part of a secret.
func parseKeys(b []byte) (Keys, error) {
	lines := strings.Split(string(b), "\n")
	if version, ok := strings.CutPrefix(lines[0], "warren-keys "); ok && lines[0] != keysHeader {
		return Keys{}, fmt.Errorf("%w (format %q)", ErrNewer, version)
	}
	if len(lines) != len(keysFields)+2 || lines[0] != keysHeader || lines[len(lines)-1] != "" {
		return Keys{}, errors.New("not a whole key file")
	}
	var values [len(keysFields)]string
	for i, name := range keysFields {
		v, ok := strings.CutPrefix(lines[i+1], name+" ")
		if !ok {
			return Keys{}, fmt.Errorf("line %d does not begin with %q", i+2, name)
		}
		values[i] = v
	}
	seed, err := hex.DecodeString(values[0])
	if err != nil {
		return Keys{}, errors.New("the identity is not hexadecimal")
	}
	var k Keys
	if k.Identity, err = key.IdentityFromSeed(seed); err != nil {
		return Keys{}, err
	}
	private, err := base64.StdEncoding.Strict().DecodeString(values[2])
	if err != nil || len(private) != len(k.WG) {
		return Keys{}, errors.New("the WireGuard key is not 32 bytes in base64")
	}
	k.WG = key.WGPrivate(private)
	if k.Identity.NodeID().String() != values[1] {
		return Keys{}, errors.New("the identity does not belong to the node id beside it: the file is damaged")
	}
	if k.WG.Public().String() != values[3] {
		return Keys{}, errors.New("the WireGuard key does not belong to the public key beside it: the file is damaged")
	}
	if !bytes.Equal(formatKeys(k), b) {
		return Keys{}, errors.New("not written as warren writes it")
	}
	return k, nil
}

// Keys loads the network's keys.
func (n *Network) Keys() (Keys, error) {
	b, err := readFile(n.file(keysName))
	if err != nil {
		return Keys{}, fmt.Errorf("load keys: %w", err)
	}
	k, err := parseKeys(b)
	if err != nil {
		return Keys{}, fmt.Errorf("load keys %s: %w", n.file(keysName), err)
	}
	return k, nil
}

// SaveKeys replaces the network's keys, as when the WireGuard key is renewed. On an error the old ones are still there.
func (n *Network) SaveKeys(k Keys) error {
	if err := n.disk.replace(n.file(keysName), formatKeys(k)); err != nil {
		return fmt.Errorf("save keys %s: %w", n.file(keysName), err)
	}
	return nil
}
