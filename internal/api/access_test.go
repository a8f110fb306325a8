package api

import (
	"os"
	"os/user"
	"strconv"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// groupMember finds a user of this machine who is neither root nor the user of this test, and a group of theirs.
func groupMember(t *testing.T) (group, uid string) {
	t.Helper()
	for id := 1; id < 100; id++ {
		u, err := user.LookupId(itoa(id))
		if err != nil || id == os.Geteuid() {
			continue
		}
		if g, err := user.LookupGroupId(u.Gid); err == nil {
			return g.Name, u.Uid
		}
	}
	t.Skip("this machine has no other user to test with")
	return "", ""
}
