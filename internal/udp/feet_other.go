//go:build !linux

package udp

import "net"

func tuneFoot(*net.UDPConn) {}
