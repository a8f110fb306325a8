//go:build !linux

package stream

import "net"

// sendBuffer bounds what TCP keeps where it cannot be told how much of that may be unsent. A path of 100 ms carries 10 Mbit/s by it.
const sendBuffer = 8 * unsent

// tune makes TCP keep little that it has not sent: what waits must wait in the queue, where it can be dropped.
func tune(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(keepAlive) //nolint:errcheck // a wish
		tcp.SetWriteBuffer(sendBuffer)    //nolint:errcheck // a wish
	}
}
