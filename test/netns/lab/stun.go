//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/signal"
	"strconv"
	"syscall"
)

// STUNPort is where a server of [Host.StartSTUN] listens.
const STUNPort = 3478

// StartSTUN starts a server of STUN (RFC 8489) that answers binding requests, over IPv4 and IPv6.
func (h *Host) StartSTUN() { h.lab.t.Helper(); h.startServer("lab:stun") }

// stunServer is the role "lab:stun".
func stunServer([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: STUNPort})
	if err != nil {
		return err
	}
	defer c.Close()
	context.AfterFunc(ctx, func() { c.Close() })
	fmt.Println("listening", strconv.Itoa(STUNPort))
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && n >= 20 && binary.BigEndian.Uint16(b) == 1 && binary.BigEndian.Uint32(b[4:]) == 0x2112a442 {
			c.WriteToUDPAddrPort(stunSuccess(b[:20], from), from) //nolint:errcheck // it asks again
		}
	}
}

// stunSuccess answers a binding request by its header.
func stunSuccess(header []byte, from netip.AddrPort) []byte {
	ip := from.Addr().Unmap().AsSlice()
	for i := range ip {
		ip[i] ^= header[4+i]
	}
	b := binary.BigEndian.AppendUint16(nil, 0x0101)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(ip)))
	b = append(b, header[4:20]...)
	b = binary.BigEndian.AppendUint16(b, 0x0020)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(ip)))
	b = append(b, 0, byte(1+len(ip)/16))
	b = binary.BigEndian.AppendUint16(b, from.Port()^0x2112)
	return append(b, ip...)
}
