package stream

import (
	"net"

	"golang.org/x/sys/unix"
)

// tune makes TCP keep little that it has not sent: what waits must wait in the queue, where it can be dropped.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	tcp.SetKeepAliveConfig(keepAlive) //nolint:errcheck // a wish
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { //nolint:errcheck // a wish
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent) //nolint:errcheck // a wish
	})
}
