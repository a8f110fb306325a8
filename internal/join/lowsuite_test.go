package join

import (
	"io"

	"github.com/flynn/noise"
)

// lowSuite draws the point of order 1 as ephemeral key.
type lowSuite struct{ noise.CipherSuite }

func (lowSuite) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	return noise.DHKey{Private: make([]byte, 32), Public: make([]byte, 32)}, nil
}
