package udp

import (
	"net"

	"golang.org/x/sys/unix"
)

// tuneFoot lets datagrams of a foot carry DF and be as large as the path MTU is probed, whatever the kernel has heard.
func tuneFoot(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { //nolint:errcheck // a wish, as those below
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)       //nolint:errcheck // see above
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE) //nolint:errcheck // see above
	})
}
