package host

import (
	"net"
	"os"
	"strconv"
	"strings"
)

// readyEnv names the file descriptor on which a daemon tells whoever started it how the start went: "ok\n", or the
// text of an error.
const readyEnv = "WARREN_READY_FD"

// NotifyReady tells whoever started this process, [StartBackground] or systemd, that the daemon is ready. Without one
// of them it does nothing. Only the first of all calls of NotifyReady and NotifyFailed has an effect; they must not run
// at the same time. What cannot be told is lost: the daemon runs all the same.
func NotifyReady() {
	tellStarter("ok\n")
	tellSystemd("READY=1\nSTATUS=ready")
}

// NotifyFailed tells whoever started this process why it will not become ready. The process is expected to end.
func NotifyFailed(err error) {
	text := strings.TrimSpace(err.Error())
	tellStarter(text + "\n")
	tellSystemd("STATUS=" + strings.ReplaceAll(text, "\n", "; "))
}

func tellStarter(text string) {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil || fd < 3 {
		return
	}
	_ = os.Unsetenv(readyEnv) // once, and not for our children
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(text)
}

func tellSystemd(text string) {
	path := os.Getenv("NOTIFY_SOCKET") // package net turns a leading @ into the NUL of abstract names
	if path == "" {
		return
	}
	_ = os.Unsetenv("NOTIFY_SOCKET")
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(text))
}
