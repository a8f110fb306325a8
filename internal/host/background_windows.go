package host

import (
	"fmt"
	"time"
)

// StartBackground cannot be done here yet: the error is an [ErrUnsupported].
func StartBackground(binary string, _ []string, _ string, _ time.Duration) (pid int, err error) {
	return 0, fmt.Errorf("warren cannot start %s in the background on windows yet: run `warren daemon` in a window of its own: %w", binary, ErrUnsupported)
}
