//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
)

// MemoryHolds looks for the mark in the memory of the node's daemon and says how many bytes it looked at.
func (n *Node) MemoryHolds(mark []byte) (found bool, size int64) {
	t := n.lab.t
	t.Helper()
	found, size, err := searchMemory(n.Status().PID, mark)
	if err != nil {
		t.Fatalf("search the memory of the daemon of %s: %v", n.Name, err)
	}
	return found, size
}

// searchMemory looks for mark in all that the process can write.
func searchMemory(pid int, mark []byte) (found bool, size int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false, 0, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false, 0, err
	}
	defer mem.Close()
	for line := range bytes.Lines(maps) {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &rights); err != nil {
			return false, size, fmt.Errorf("line %q: %w", line, err)
		}
		if rights[1] != 'w' {
			continue
		}
		n, found := searchRegion(mem, int64(from), int64(to), mark)
		if size += n; found {
			return true, size, nil
		}
	}
	return false, size, nil
}

// searchRegion looks for mark from one address to another, or to the first that has gone meanwhile.
func searchRegion(mem *os.File, from, to int64, mark []byte) (size int64, found bool) {
	const step = 1 << 20
	buf := make([]byte, step+len(mark)) // steps overlap, so that none cuts a mark
	for ; from < to; from += step {
		n, err := mem.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		size += int64(min(n, step))
		if bytes.Contains(buf[:n], mark) {
			return size, true
		}
		if err != nil {
			break
		}
	}
	return size, false
}
